package peers

import (
	"context"
	"errors"
	"sync"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var channelPeer = peer.Peer{
	ID:   "channel",
	Name: "channels",
	Kind: peer.Limit,
	Note: "no library: one buffered channel of 1,024 and one goroutine per subscription; the sender sends to each in turn and waits where one is full; order is kept.",

	Local: func() (peer.Bus, error) { return &channelBus{done: make(chan struct{})}, nil },
}

type channelBus struct {
	topics     topics[members[*channelSub]]
	responders sync.Map // topic → chan channelRequest
	running    sync.WaitGroup
	closing    sync.Once
	done       chan struct{} // closed by Close
}

// A channelSub is one subscription. Its channel is never closed, as publishers that have read the
// list before may still send to it.
type channelSub struct {
	ch   chan []byte
	done chan struct{} // closed by Cancel
	once sync.Once
	list *members[*channelSub]
}

func (b *channelBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	list := b.topics.of(topic, nil)
	s := &channelSub{ch: make(chan []byte, queue), done: make(chan struct{}), list: list}
	list.add(s)
	b.running.Go(func() { s.receive(fn) }) // until Cancel
	return s, nil
}

// receive waits for the channel alone, which is what makes a plain channel fast; Cancel wakes it by
// a message.
func (s *channelSub) receive(fn func([]byte)) {
	for data := range s.ch {
		select {
		case <-s.done:
			return
		default:
		}
		fn(data)
	}
}

func (s *channelSub) Cancel() error {
	s.once.Do(func() {
		s.list.remove(s)
		close(s.done)
		select {
		case s.ch <- nil: // to wake receive
		default: // full: it has something to wake up for
		}
	})
	return nil
}

func (b *channelBus) Publisher(topic string) (peer.Publisher, error) {
	return channelPublisher{list: b.topics.of(topic, nil)}, nil
}

func (b *channelBus) Close() error {
	b.closing.Do(func() {
		close(b.done)
		for _, list := range b.topics.all() {
			for _, s := range list.load() {
				_ = s.Cancel() // always nil
			}
		}
	})
	b.running.Wait()
	return nil
}

type channelPublisher struct {
	plainData
	list *members[*channelSub]
}

func (p channelPublisher) Publish(msg any) error {
	data := msg.([]byte)
	for _, s := range p.list.load() {
		select {
		case s.ch <- data: // alone with a default it costs what a plain send does
		default:
			select {
			case s.ch <- data:
			case <-s.done:
			}
		}
	}
	return nil
}

type channelRequest struct {
	data  []byte
	reply chan []byte
}

var errChannelsClosed = errors.New("channels: closed")

func (b *channelBus) Respond(topic string, fn func([]byte) []byte) error {
	requests, _ := b.responders.LoadOrStore(topic, make(chan channelRequest))
	b.running.Go(func() { // until Close
		for {
			select {
			case r := <-requests.(chan channelRequest):
				r.reply <- fn(r.data)
			case <-b.done:
				return
			}
		}
	})
	return nil
}

func (b *channelBus) Request(ctx context.Context, topic string, data []byte) ([]byte, error) {
	requests, ok := b.responders.Load(topic)
	if !ok {
		return nil, errors.New("channels: nobody responds to " + topic)
	}
	r := channelRequest{data: data, reply: make(chan []byte, 1)}
	select {
	case requests.(chan channelRequest) <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.done:
		return nil, errChannelsClosed
	}
	select {
	case data := <-r.reply:
		return data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
