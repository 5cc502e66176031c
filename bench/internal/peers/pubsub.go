package peers

import (
	"sync"

	"github.com/cskr/pubsub/v2"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var pubsubPeer = peer.Peer{
	ID:     "pubsub",
	Name:   "cskr/pubsub",
	Module: "github.com/cskr/pubsub/v2",
	Kind:   peer.Async,
	Note:   "Sub and Pub with channels of 1,024, and a goroutine per subscription that ranges over its channel; one goroutine of the bus passes everything on and waits where a channel is full, so that one slow receiver stops all topics; order is kept.",

	Local: func() (peer.Bus, error) {
		return &pubsubBus{ps: pubsub.New[string, []byte](queue)}, nil
	},
}

type pubsubBus struct {
	ps      *pubsub.PubSub[string, []byte]
	running sync.WaitGroup

	mu     sync.RWMutex
	closed bool // guarded by mu: after Shutdown, all calls of the library wait for ever
}

func (b *pubsubBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	ch := b.ps.Sub(topic)
	b.running.Go(func() { // until Unsub or Shutdown closes ch
		for data := range ch {
			fn(data)
		}
	})
	return &cancelOnce{stop: func() error {
		b.mu.RLock()
		defer b.mu.RUnlock()
		if !b.closed {
			b.ps.Unsub(ch)
		}
		return nil
	}}, nil
}

func (b *pubsubBus) Publisher(topic string) (peer.Publisher, error) {
	return pubsubPublisher{ps: b.ps, topics: []string{topic}}, nil
}

func (b *pubsubBus) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		b.ps.Shutdown()
	}
	b.mu.Unlock()
	b.running.Wait()
	return nil
}

type pubsubPublisher struct {
	plainData
	ps     *pubsub.PubSub[string, []byte]
	topics []string // made once: a topic that is passed by itself costs an allocation each time
}

func (p pubsubPublisher) Publish(msg any) error {
	p.ps.Pub(msg.([]byte), p.topics...)
	return nil
}
