package peers

import (
	"github.com/asaskevich/EventBus"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

const eventBusModule = "github.com/asaskevich/EventBus"

var eventBusPeer = peer.Peer{
	ID:     "eventbus",
	Name:   "EventBus",
	Module: eventBusModule,
	Kind:   peer.Sync,
	Note:   "Subscribe and Publish: functions are called by reflection in the sender's goroutine, while a lock of the whole bus is held, so a function that publishes or subscribes stops it for ever; Unsubscribe cannot tell closures of one function apart and may remove another's.",

	Local: func() (peer.Bus, error) { return eventBus{bus: EventBus.New()}, nil },
}

var eventBusAsyncPeer = peer.Peer{
	ID:     "eventbus-async",
	Name:   "EventBus, async",
	Module: eventBusModule,
	Kind:   peer.Async,
	Note:   "SubscribeAsync, transactional, without which order is not kept: a goroutine per message and receiver; there is no queue, so a sender waits until the receiver is done with the message before; Unsubscribe as with EventBus.",

	Local: func() (peer.Bus, error) { return eventBus{bus: EventBus.New(), async: true}, nil },
}

type eventBus struct {
	bus   EventBus.Bus
	async bool
}

func (b eventBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	// Unsubscribe looks for the code of the function that was given to Subscribe, so it must be the
	// caller's own, and called once: the next call would remove another that has the same code.
	s := &cancelOnce{stop: func() error { return b.bus.Unsubscribe(topic, fn) }}
	if b.async {
		return s, b.bus.SubscribeAsync(topic, fn, true)
	}
	return s, b.bus.Subscribe(topic, fn)
}

func (b eventBus) Publisher(topic string) (peer.Publisher, error) {
	return eventBusPublisher{bus: b.bus, topic: topic}, nil
}

// Close waits for calls that are on their way. Otherwise there is nothing to stop.
func (b eventBus) Close() error {
	b.bus.WaitAsync()
	return nil
}

type eventBusPublisher struct {
	plainData
	bus   EventBus.Bus
	topic string
}

func (p eventBusPublisher) Publish(msg any) error {
	p.bus.Publish(p.topic, msg)
	return nil
}
