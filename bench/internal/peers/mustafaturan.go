package peers

import (
	"context"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/mustafaturan/bus/v3"
	"github.com/mustafaturan/monoton/v3"
	"github.com/mustafaturan/monoton/v3/sequencer"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var mustafaturanPeer = peer.Peer{
	ID:     "mustafaturan",
	Name:   "mustafaturan/bus",
	Module: "github.com/mustafaturan/bus/v3",
	Kind:   peer.Sync,
	Note:   "Emit calls the handlers in the sender's goroutine; IDs by monoton and a transaction ID in the context, as in its README; a handler is called by several senders at once, so each has a lock here; handlers that come and go change a list that Emit reads without a lock, so receivers may be skipped or called twice meanwhile.",

	Local: newMustafaturanBus,
}

type mustafaturanBus struct {
	bus  *bus.Bus
	keys atomic.Uint64 // of handlers
}

func newMustafaturanBus() (peer.Bus, error) {
	const year2020 = 1577865600000 // in milliseconds, the start of its README
	ids, err := monoton.New(sequencer.NewMillisecond(), 1, year2020)
	if err != nil {
		return nil, err
	}
	b, err := bus.NewBus(bus.Next(ids.Next))
	if err != nil {
		return nil, err
	}
	return &mustafaturanBus{bus: b}, nil
}

func (b *mustafaturanBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	b.bus.RegisterTopics(topic)
	key := strconv.FormatUint(b.keys.Add(1), 10)
	var calling sync.Mutex
	b.bus.RegisterHandler(key, bus.Handler{
		Matcher: "^" + regexp.QuoteMeta(topic) + "$",
		Handle: func(_ context.Context, e bus.Event) {
			calling.Lock()
			defer calling.Unlock()
			fn(e.Data.([]byte))
		},
	})
	return mustafaturanSub{bus: b.bus, key: key}, nil
}

type mustafaturanSub struct {
	bus *bus.Bus
	key string
}

func (s mustafaturanSub) Cancel() error {
	s.bus.DeregisterHandler(s.key)
	return nil
}

func (b *mustafaturanBus) Publisher(topic string) (peer.Publisher, error) {
	b.bus.RegisterTopics(topic)
	ctx := context.WithValue(context.Background(), bus.CtxKeyTxID, "bench")
	return mustafaturanPublisher{bus: b.bus, ctx: ctx, topic: topic}, nil
}

func (b *mustafaturanBus) Close() error {
	for _, key := range b.bus.HandlerKeys() {
		b.bus.DeregisterHandler(key)
	}
	return nil
}

type mustafaturanPublisher struct {
	plainData
	bus   *bus.Bus
	ctx   context.Context // carries the transaction ID of all it publishes
	topic string
}

func (p mustafaturanPublisher) Publish(msg any) error { return p.bus.Emit(p.ctx, p.topic, msg) }
