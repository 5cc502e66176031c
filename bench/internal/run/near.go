package run

import (
	"context"
	"fmt"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// readyPatience is how long a peer may take until its nodes know each other.
const readyPatience = 8 * time.Second

// join starts the far process with so many nodes, and the near node here.
func join(ctx context.Context, p peer.Peer, nodes int, respond bool) (peer.Near, *far, error) {
	f, addr, err := startFar(p, nodes, respond)
	if err != nil {
		return nil, nil, err
	}
	near, err := p.Remote.Join(addr)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, readyPatience)
		defer cancel()
		err = near.Ready(ctx, topic, nodes)
	}
	if err != nil {
		f.stop()
		return nil, nil, fmt.Errorf("join: %w", asSkip(err))
	}
	return near, f, nil
}

// A farFan is publishing to another process. The library's messages are made for each publishing: it
// is what a user pays.
type farFan struct {
	nodes int
	size  int
}

func (w farFan) run(ctx context.Context, p peer.Peer, j job) (result.Sample, error) {
	near, f, err := join(ctx, p, w.nodes, false)
	if err != nil {
		return result.Sample{}, err
	}
	defer f.stop()
	sender, err := newSender(near, 0, w.size, true)
	if err != nil {
		return result.Sample{}, asSkip(err)
	}
	t, err := measure(j.Target, func(n int, last bool) (trial, error) {
		return f.trial(j, n, last, false, func() error { return sender.send(n) })
	})
	s := t.sample()
	return f.settle(near, s, err)
}

// trial has publish publish n messages, and waits until the far process has them.
func (f *far) trial(j job, n int, last, times bool, publish func() error) (trial, error) {
	expect, err := f.call(command{Do: "expect", Count: n, Times: times})
	if err != nil {
		return trial{}, err
	}
	meter.mark()
	before, start := used(), time.Now()
	err = publish()
	grown := meter.growth()
	if err != nil {
		return trial{}, err
	}
	a, err := f.call(command{Do: "wait", Silence: j.quiet(last)})
	if err != nil {
		return trial{}, err
	}
	elapsed := time.Since(start)
	after := used()
	if !a.Complete { // without the silence
		elapsed = time.Duration(a.Last - start.UnixNano())
	}
	f.latency = a.Latency
	return trial{
		elapsed: elapsed, cpu: after.cpu - before.cpu + a.CPU - expect.CPU, allocs: after.allocs - before.allocs,
		received: a.Received - expect.Received, grown: max(grown, a.Grown),
	}, nil
}

// settle closes the near node and enters the counts, which take in what came twice and late, into s.
func (f *far) settle(near peer.Near, s result.Sample, err error) (result.Sample, error) {
	if err != nil {
		s = result.Sample{Error: err.Error()}
	}
	closeSoon(near)
	a, err := f.call(command{Do: "usage"})
	if err == nil {
		s.Sent, s.Received, s.Disordered = int64(a.Due), int64(a.Received), int64(a.Disordered)
	} else if s.Error == "" {
		s.Error = err.Error()
	}
	return s, nil
}

func remoteRequests(goroutines int) func(context.Context, peer.Peer, job) (result.Sample, error) {
	return func(ctx context.Context, p peer.Peer, j job) (result.Sample, error) {
		near, f, err := join(ctx, p, 1, true)
		if err != nil {
			return result.Sample{}, err
		}
		defer f.stop()
		a, err := newAsker(near)
		if err != nil {
			return result.Sample{}, err
		}
		return a.measure(ctx, goroutines, j.Target, f.usage)
	}
}
