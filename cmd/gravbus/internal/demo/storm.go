package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus"
)

const (
	stormSenders   = 4
	stormReceivers = 4
)

// storm: as much as goes, and every message is looked at by everybody.
func storm(ctx context.Context, s *stage) error {
	total := s.report.Storm.Messages
	s.out.say("%s by %d senders, as fast as they can. Each of %d pods gets all of them.", plural(total, "message"), stormSenders, stormReceivers)
	senders := make([]*gravbus.Pod, stormSenders)
	share := make([]int, stormSenders)
	for i := range senders {
		senders[i] = s.connect(fmt.Sprintf("cloud-%d", i+1))
		share[i] = total / stormSenders
		if i < total%stormSenders {
			share[i]++
		}
	}
	gauges := make([]*gauge, stormReceivers)
	for i := range gauges {
		g := newGauge(share)
		gauges[i] = g
		if err := s.connect(fmt.Sprintf("gauge-%d", i+1)).OnType("storm.drop", g.handle, s.bell()); err != nil {
			return err
		}
	}

	began := time.Now()
	errs := make([]error, stormSenders)
	var wg sync.WaitGroup
	for i, p := range senders {
		wg.Go(func() { errs[i] = s.pour(ctx, p, i, share[i]) }) // ends when all is sent, or with ctx
	}
	wg.Wait()
	err := errors.Join(errs...)
	for _, g := range gauges {
		if err == nil {
			err = g.await(ctx)
		}
	}
	took := time.Since(began)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	s.clear() // waits for handlers: the gauges are still

	var sum gauge
	for _, g := range gauges {
		sum.received += g.received
		sum.late += g.late
		sum.doubled += g.doubled
		s.handled.Add(g.handled.Load())
	}
	deliveries := int64(total) * stormReceivers
	st := &s.report.Storm
	st.Seconds = took.Seconds()
	st.PerSecond = float64(total) / took.Seconds()
	st.Delivered = float64(sum.received) / took.Seconds()
	digits := len(number(sum.received))
	s.out.rows([][]string{
		{"sent", fmt.Sprintf("%*s", digits, number(total))},
		{"received", fmt.Sprintf("%*s", digits, number(sum.received)), fmt.Sprintf("%d × %s", stormReceivers, number(total))},
		{"out of order", fmt.Sprintf("%*s", digits, number(sum.late))},
		{"doubled", fmt.Sprintf("%*s", digits, number(sum.doubled))},
		{"speed", fmt.Sprintf("%s sent and %s received per second", perSecond(st.PerSecond), perSecond(st.Delivered))},
		{"machine", s.report.Machine.String()},
	})
	s.check("received", deliveries, sum.received)
	s.check("none out of order", 0, sum.late)
	s.check("none doubled", 0, sum.doubled)
	return nil
}

// pour sends the numbers below n as sender i, and rings the bell.
func (s *stage) pour(ctx context.Context, p *gravbus.Pod, i, n int) error {
	const drop, bucket = 8, 4096 // bytes per message, and per allocation
	var data []byte
	sent := int64(0)
	defer func() { s.sent.Add(sent) }()
	for k := range n {
		if len(data) == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			data = make([]byte, bucket)
		}
		binary.BigEndian.PutUint64(data, uint64(i)<<56|uint64(k))
		if _, err := p.SendContext(ctx, gravbus.NewMsg("storm.drop", data[:drop:drop])); err != nil {
			return err
		}
		sent++
		data = data[drop:]
	}
	return s.ring(ctx, p)
}

// gauge looks at what one pod receives. Its handler runs one call at a time.
type gauge struct {
	seen     [][]uint64 // a bit for each message of each sender
	highest  []int      // number of each sender's latest, and one
	received int64
	late     int64 // after one that was sent later by the same sender
	doubled  int64
	bells    int

	handled atomic.Int64 // calls, for who waits
	done    chan struct{}
}

func newGauge(share []int) *gauge {
	g := &gauge{highest: make([]int, len(share)), done: make(chan struct{})}
	for _, n := range share {
		g.seen = append(g.seen, make([]uint64, (n+63)/64))
	}
	return g
}

func (g *gauge) handle(msg gravbus.Message) error {
	g.handled.Add(1)
	data := msg.Data()
	if len(data) == 0 {
		if g.bells++; g.bells == len(g.seen) {
			close(g.done)
		}
		return nil
	}
	v := binary.BigEndian.Uint64(data)
	i, n := int(v>>56), int(v&(1<<56-1))
	g.received++
	bit := uint64(1) << (n % 64)
	switch {
	case g.seen[i][n/64]&bit != 0:
		g.doubled++
	case n < g.highest[i]:
		g.late++
	default:
		g.highest[i] = n + 1
	}
	g.seen[i][n/64] |= bit
	return nil
}

// await waits until g has heard all bells, or for a while has heard nothing at all.
func (g *gauge) await(ctx context.Context) error {
	t := time.NewTicker(patience)
	defer t.Stop()
	for before := int64(-1); ; {
		select {
		case <-g.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			now := g.handled.Load()
			if now == before {
				return nil
			}
			before = now
		}
	}
}
