package run

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

const topic = "bench.message"

// patience is how long Close may take. What a library does after the last figure is no part of it.
const patience = time.Second

// closeSoon closes bus but does not wait for ever. A workload that ends early need not close
// anything: its process ends.
func closeSoon(bus peer.Bus) {
	closed := make(chan struct{})
	go func() { // ends with Close, or with the process
		_ = bus.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
	}
}

// A fanOut is publishing in one process.
type fanOut struct {
	senders       int
	subscriptions int  // to the one topic; each gets everything
	others        int  // subscriptions to other topics
	fresh         bool // the library's messages are made for each publishing
}

func (f fanOut) run(_ context.Context, p peer.Peer, j job) (result.Sample, error) {
	bus, err := p.Local()
	if err != nil {
		return result.Sample{}, err
	}
	b := newBoard(f.subscriptions)
	var misled atomic.Int64
	for i := range f.others {
		if _, err := bus.Subscribe(fmt.Sprint("bench.other", i), func([]byte) { misled.Add(1) }); err != nil {
			return result.Sample{}, asSkip(err)
		}
	}
	for i := range b.tallies {
		if _, err := bus.Subscribe(topic, b.tallies[i].take); err != nil {
			return result.Sample{}, asSkip(err)
		}
	}
	senders := make([]*sender, f.senders)
	for i := range senders {
		if senders[i], err = newSender(bus, uint32(i), small, f.fresh); err != nil {
			return result.Sample{}, asSkip(err)
		}
	}
	t, err := measure(j.Target, func(n int, last bool) (trial, error) {
		b.expect(f.senders, n)
		received := b.received()
		meter.mark()
		before, start := used(), time.Now()
		err := sendAll(senders, n)
		grown := meter.growth()
		end, _ := b.wait(j.quiet(last))
		after := used()
		return trial{
			end.Sub(start), after.cpu - before.cpu, after.allocs - before.allocs, b.received() - received, grown,
		}, err
	})
	closeSoon(bus) // what comes doubled comes by now
	if n := misled.Load(); n > 0 && err == nil {
		err = fmt.Errorf("%d deliveries to subscriptions of other topics", n)
	}
	s := t.sample()
	if err != nil {
		s = result.Sample{Error: err.Error()}
	}
	b.count(&s)
	return s, nil
}

// count enters what all trials have counted.
func (b *board) count(s *result.Sample) {
	s.Sent, s.Received, s.Disordered = int64(b.due), int64(b.received()), int64(b.disordered())
}

// A sender publishes its ring of messages over and over.
type sender struct {
	pub  peer.Publisher
	data [][]byte
	made []any // nil if messages are made for each publishing
	next int
}

func newSender(bus peer.Bus, id uint32, size int, fresh bool) (*sender, error) {
	pub, err := bus.Publisher(topic)
	if err != nil {
		return nil, err
	}
	s := &sender{pub: pub, data: ring(id, size)}
	if !fresh {
		s.made = make([]any, len(s.data))
		for i, d := range s.data {
			s.made[i] = pub.Message(d)
		}
	}
	return s, nil
}

func (s *sender) send(n int) error {
	for range n {
		var msg any
		if s.made != nil {
			msg = s.made[s.next]
		} else {
			msg = s.pub.Message(s.data[s.next])
		}
		s.next = (s.next + 1) % ringSize
		if err := s.pub.Publish(msg); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	if err := s.pub.Flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// sendAll has each of senders send n messages, all at once. It returns when all have.
func sendAll(senders []*sender, n int) error {
	if len(senders) == 1 {
		return senders[0].send(n)
	}
	errs := make([]error, len(senders))
	var wg sync.WaitGroup
	for i, s := range senders {
		wg.Go(func() { errs[i] = s.send(n) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
