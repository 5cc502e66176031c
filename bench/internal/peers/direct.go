package peers

import (
	"context"
	"errors"
	"sync"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var directPeer = peer.Peer{
	ID:   "direct",
	Name: "direct calls",
	Kind: peer.Limit,
	Note: "no library: the sender calls the receivers' functions itself, with one lock per topic held so that the calls of a receiver come one at a time; nothing waits in a queue, and a slow receiver stops the sender.",

	Local: func() (peer.Bus, error) { return &directBus{}, nil },
}

type directBus struct {
	topics     topics[directTopic]
	responders sync.Map // topic → func([]byte) []byte
}

type directTopic struct {
	calling   sync.Mutex // held while the subscribers are called, and only then: they may subscribe and cancel
	receivers members[*directSub]
}

type directSub struct {
	topic *directTopic
	fn    func([]byte)
}

func (b *directBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	t := b.topics.of(topic, nil)
	s := &directSub{topic: t, fn: fn}
	t.receivers.add(s)
	return s, nil
}

func (s *directSub) Cancel() error {
	s.topic.receivers.remove(s)
	return nil
}

func (b *directBus) Publisher(topic string) (peer.Publisher, error) {
	return directPublisher{topic: b.topics.of(topic, nil)}, nil
}

func (b *directBus) Close() error {
	for _, t := range b.topics.all() {
		for _, s := range t.receivers.load() {
			_ = s.Cancel() // always nil
		}
	}
	return nil
}

type directPublisher struct {
	plainData
	topic *directTopic
}

func (p directPublisher) Publish(msg any) error {
	data := msg.([]byte)
	p.topic.calling.Lock()
	defer p.topic.calling.Unlock()
	for _, s := range p.topic.receivers.load() {
		s.fn(data)
	}
	return nil
}

func (b *directBus) Respond(topic string, fn func([]byte) []byte) error {
	b.responders.Store(topic, fn)
	return nil
}

func (b *directBus) Request(_ context.Context, topic string, data []byte) ([]byte, error) {
	fn, ok := b.responders.Load(topic)
	if !ok {
		return nil, errors.New("direct calls: nobody responds to " + topic)
	}
	return fn.(func([]byte) []byte)(data), nil
}
