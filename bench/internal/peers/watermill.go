package peers

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

const watermillModule = "github.com/ThreeDotsLabs/watermill"

var watermillPeer = peer.Peer{
	ID:     "watermill",
	Name:   "Watermill GoChannel",
	Module: watermillModule,
	Kind:   peer.Async,
	Note:   "its in-process Pub/Sub with channels of 1,024, no log, and each message acknowledged after it was handled; a goroutine per message and one more per receiver until then, without a bound; the sender never waits; order is not kept.",

	Local: func() (peer.Bus, error) { return newWatermillBus(false), nil },
}

var watermillAckPeer = peer.Peer{
	ID:     "watermill-ack",
	Name:   "Watermill GoChannel, waiting",
	Module: watermillModule,
	Kind:   peer.Async,
	Note:   "as Watermill GoChannel with BlockPublishUntilSubscriberAck, which keeps the order and the number of goroutines within bounds: the sender waits for each message until all receivers have handled it.",

	Local: func() (peer.Bus, error) { return newWatermillBus(true), nil },
}

type watermillBus struct {
	channel *gochannel.GoChannel
	running sync.WaitGroup
}

func newWatermillBus(waitForAck bool) *watermillBus {
	return &watermillBus{channel: gochannel.NewGoChannel(gochannel.Config{
		OutputChannelBuffer:            queue,
		BlockPublishUntilSubscriberAck: waitForAck,
	}, watermill.NopLogger{})}
}

func (b *watermillBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := b.channel.Subscribe(ctx, topic)
	if err != nil {
		cancel()
		return nil, err
	}
	b.running.Go(func() { // until cancel or Close closes the channel
		defer cancel()
		for msg := range messages {
			fn(msg.Payload)
			msg.Ack()
		}
	})
	return &cancelOnce{stop: func() error { cancel(); return nil }}, nil
}

func (b *watermillBus) Publisher(topic string) (peer.Publisher, error) {
	return watermillPublisher{channel: b.channel, topic: topic}, nil
}

func (b *watermillBus) Close() error {
	err := b.channel.Close()
	b.running.Wait()
	return err
}

type watermillPublisher struct {
	channel *gochannel.GoChannel
	topic   string
}

// Message makes a message in the way of the library's documentation. Publish sends copies of it, so
// it may be published again.
func (watermillPublisher) Message(data []byte) any {
	return message.NewMessage(watermill.NewUUID(), data)
}

func (p watermillPublisher) Publish(msg any) error {
	return p.channel.Publish(p.topic, msg.(*message.Message))
}

func (watermillPublisher) Flush() error { return nil }
