package run

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// loads are percentages of the peer's own maximum rate.
var loads = [...]int{10, 50, 90}

func latencyFigures() []figure {
	var all []figure
	for _, load := range loads {
		for _, p := range []string{"p50", "p99"} {
			all = append(all, figure{fmt.Sprintf("%s-%d", p, load), fmt.Sprintf("latency at %d %%, %s", load, p), "ns"})
		}
	}
	return all
}

// latency measures the time from when a message was due to its delivery, in an open loop: message i
// is due i/rate after the start, and its time counts from then even if it could only be published
// later, because the peer was still busy with the ones before. So a peer that stands still for a
// while pays for all messages that were due meanwhile.
//
// The maximum rate is measured first, by the same loop with every message due at once. Processor
// time and allocations are those of that part.
//
// What it can resolve: between two messages the pacer yields the processor or, if there is time,
// sleeps, and a message leaves up to a few microseconds late for it, some 100 µs where the machine has
// no processor to spare for the pacer; with less than four processors the higher figures show the
// machine's scheduling as much as the peer. The clock is the machine's wall clock, read by both
// processes: what adjusts it during the measurement is part of the figure.
func latency(ctx context.Context, p peer.Peer, j job) (result.Sample, error) {
	near, f, err := join(ctx, p, 1, false)
	if err != nil {
		return result.Sample{}, err
	}
	defer f.stop()
	pub, err := near.Publisher(topic)
	if err != nil {
		return result.Sample{}, asSkip(err)
	}
	pace := &pacer{pub: pub}
	t, err := measure(j.Target, func(n int, last bool) (trial, error) {
		return f.trial(j, n, last, true, func() error { return pace.publish(n, 0) })
	})
	s := t.costs()
	if err != nil || t.received == 0 {
		return f.settle(near, s, err)
	}
	rate := float64(t.received) / t.elapsed.Seconds()
	s.Figures = map[string]float64{"rate": rate}
	for _, load := range loads {
		offered := rate * float64(load) / 100
		n := max(int(offered*j.Target.Seconds()), 100)
		if _, err = f.trial(j, n, true, true, func() error { return pace.publish(n, float64(time.Second)/offered) }); err != nil {
			break
		}
		for figure, ns := range f.latency {
			s.Figures[fmt.Sprintf("%s-%d", figure, load)] = ns
		}
	}
	return f.settle(near, s, err)
}

// A pacer publishes messages when they are due.
type pacer struct {
	pub  peer.Publisher
	next uint32
}

// publish publishes n messages that are due every interval nanoseconds. It flushes whenever it has
// to wait for the next, so that a library that collects messages does so only under load.
func (p *pacer) publish(n int, interval float64) error {
	start := time.Now()
	wall := start.UnixNano()
	flushed := true
	for i := range n {
		due := time.Duration(float64(i) * interval)
		for {
			ahead := due - time.Since(start)
			if ahead <= 0 {
				break
			}
			if !flushed {
				if err := p.pub.Flush(); err != nil {
					return fmt.Errorf("flush: %w", err)
				}
				flushed = true
				continue
			}
			// A sleep may last a millisecond longer than it should.
			if ahead > 3*time.Millisecond {
				time.Sleep(ahead - 2*time.Millisecond)
			} else {
				runtime.Gosched()
			}
		}
		data := make([]byte, small)
		stamp(data, 0, p.next)
		stampDue(data, wall+int64(due))
		p.next = (p.next + 1) % ringSize
		if err := p.pub.Publish(p.pub.Message(data)); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		flushed = false
	}
	if err := p.pub.Flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}
