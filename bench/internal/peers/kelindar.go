package peers

import (
	"sync"

	"github.com/kelindar/event"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var kelindarPeer = peer.Peer{
	ID:     "kelindar",
	Name:   "kelindar/event",
	Module: "github.com/kelindar/event",
	Kind:   peer.Async,
	Note:   "a dispatcher of its own, a number for each topic; a goroutine per subscription, which a ticker wakes every 0.5 ms, so a message waits that long; about 50,000 may wait for a receiver, then the sender waits (a receiver that stands still lets one more in every 0.5 ms); order is kept.",

	Local: func() (peer.Bus, error) {
		return &kelindarBus{dispatcher: event.NewDispatcher(), types: make(map[string]uint32)}, nil
	},
}

type kelindarBus struct {
	dispatcher *event.Dispatcher
	closing    sync.Once

	mu    sync.Mutex
	types map[string]uint32 // guarded by mu: by topic
}

// A kelindarEvent is what travels: the library sends values of a type, and tells them apart by a
// number.
type kelindarEvent struct {
	typ  uint32
	data []byte
}

func (e kelindarEvent) Type() uint32 { return e.typ }

func (b *kelindarBus) typeOf(topic string) uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	typ, ok := b.types[topic]
	if !ok {
		typ = uint32(len(b.types) + 1)
		b.types[topic] = typ
	}
	return typ
}

func (b *kelindarBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	unsubscribe := event.SubscribeTo(b.dispatcher, b.typeOf(topic), func(e kelindarEvent) { fn(e.data) })
	return kelindarSub(unsubscribe), nil
}

type kelindarSub func()

func (unsubscribe kelindarSub) Cancel() error {
	unsubscribe()
	return nil
}

func (b *kelindarBus) Publisher(topic string) (peer.Publisher, error) {
	return kelindarPublisher{dispatcher: b.dispatcher, typ: b.typeOf(topic)}, nil
}

// Close stops the dispatcher. The library leaves the goroutines of subscriptions as they are.
func (b *kelindarBus) Close() (err error) {
	b.closing.Do(func() { err = b.dispatcher.Close() })
	return err
}

type kelindarPublisher struct {
	dispatcher *event.Dispatcher
	typ        uint32
}

func (p kelindarPublisher) Message(data []byte) any { return kelindarEvent{p.typ, data} }

func (p kelindarPublisher) Publish(msg any) error {
	event.Publish(p.dispatcher, msg.(kelindarEvent))
	return nil
}

func (kelindarPublisher) Flush() error { return nil }
