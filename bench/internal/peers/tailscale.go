package peers

import (
	"fmt"
	"sync"

	"tailscale.com/util/eventbus"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var tailscalePeer = peer.Peer{
	ID:     "tailscale",
	Name:   "tailscale eventbus",
	Module: "tailscale.com",
	Kind:   peer.Async,
	Note:   "a client for each subscription and publisher, events received from the Events channel as its package comment says; routes by Go type alone, so there are eight topics here; all events pass one goroutine in one order; a subscriber's queue is unbounded.",

	Local: func() (peer.Bus, error) { return &tailscaleBus{bus: eventbus.New()}, nil },
}

// A tailscaleEvent is an event of the topic that K stands for. It is published as a pointer, which
// spares the library an allocation.
type tailscaleEvent[K any] struct {
	data []byte
}

// tailscaleTopics are the types of event there are, in the order in which topics get them.
var tailscaleTopics = []tailscaleTopic{
	tailscaleType[[1]byte]{},
	tailscaleType[[2]byte]{},
	tailscaleType[[3]byte]{},
	tailscaleType[[4]byte]{},
	tailscaleType[[5]byte]{},
	tailscaleType[[6]byte]{},
	tailscaleType[[7]byte]{},
	tailscaleType[[8]byte]{},
}

type tailscaleTopic interface {
	// subscribe returns a function that receives events until c is closed.
	subscribe(c *eventbus.Client, fn func([]byte)) (receive func())
	publisher(c *eventbus.Client) peer.Publisher
}

// tailscaleType is the topic of tailscaleEvent[K].
type tailscaleType[K any] struct{}

func (tailscaleType[K]) subscribe(c *eventbus.Client, fn func([]byte)) func() {
	sub := eventbus.Subscribe[*tailscaleEvent[K]](c)
	return func() {
		for {
			select {
			case e := <-sub.Events():
				fn(e.data)
			case <-sub.Done():
				return
			}
		}
	}
}

func (tailscaleType[K]) publisher(c *eventbus.Client) peer.Publisher {
	return tailscalePublisher[K]{eventbus.Publish[*tailscaleEvent[K]](c)}
}

type tailscalePublisher[K any] struct {
	pub *eventbus.Publisher[*tailscaleEvent[K]]
}

func (tailscalePublisher[K]) Message(data []byte) any { return &tailscaleEvent[K]{data} }

func (p tailscalePublisher[K]) Publish(msg any) error {
	p.pub.Publish(msg.(*tailscaleEvent[K]))
	return nil
}

func (tailscalePublisher[K]) Flush() error { return nil }

type tailscaleBus struct {
	bus     *eventbus.Bus
	running sync.WaitGroup

	mu     sync.Mutex
	topics []string // guarded by mu; the one at i has the type at i
}

func (b *tailscaleBus) topic(name string) (tailscaleTopic, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, have := range b.topics {
		if have == name {
			return tailscaleTopics[i], nil
		}
	}
	if len(b.topics) == len(tailscaleTopics) {
		return nil, unsupported(fmt.Sprintf("routes by Go type only, and here are %d", len(tailscaleTopics)))
	}
	b.topics = append(b.topics, name)
	return tailscaleTopics[len(b.topics)-1], nil
}

func (b *tailscaleBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	t, err := b.topic(topic)
	if err != nil {
		return nil, err
	}
	client := b.bus.Client(topic)
	receive, ended := t.subscribe(client, fn), make(chan struct{})
	b.running.Go(func() { // until Cancel or Close
		defer close(ended)
		receive()
	})
	return &cancelOnce{stop: func() error {
		client.Close()
		<-ended
		return nil
	}}, nil
}

func (b *tailscaleBus) Publisher(topic string) (peer.Publisher, error) {
	t, err := b.topic(topic)
	if err != nil {
		return nil, err
	}
	return t.publisher(b.bus.Client(topic)), nil
}

func (b *tailscaleBus) Close() error {
	b.bus.Close()
	b.running.Wait()
	return nil
}
