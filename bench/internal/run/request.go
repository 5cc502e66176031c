package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

const (
	// requestPatience is how long a request may be without an answer before it is given up, at most;
	// it is not given up before half of that.
	requestPatience = 2 * time.Second
	// maxLostRequests ends a measurement, for each costs requestPatience.
	maxLostRequests = 5
	// maxTimed bounds the requests that are timed one by one: their times are all kept.
	maxTimed = 1 << 20
)

var errOtherAnswer = errors.New("the answer to another request")

// An asker makes requests that are numbered, and checks the numbers of the answers.
type asker struct {
	bus  peer.Requester
	data [][]byte

	sent, answered int
}

// respond has bus answer. Replies are made beforehand, as requests are.
func respond(bus peer.Bus) error {
	r, ok := bus.(peer.Requester)
	if !ok {
		return skipRequests
	}
	replies := ring(0, small)
	return asSkip(r.Respond(topic, func(data []byte) []byte { return replies[numberOf(data)%ringSize] }))
}

func newAsker(bus peer.Bus) (*asker, error) {
	r, ok := bus.(peer.Requester)
	if !ok {
		return nil, skipRequests
	}
	return &asker{bus: r, data: ring(0, small)}, nil
}

// A round is requests of one goroutine, one after the other. The times of those that are answered are
// appended to times if that is not nil: each lasts from the end of the one before to its own, so that
// the clock is read once for each.
type round struct {
	times *[]int64
	made  int // with those that were lost
	lost  int
	err   error // the last
}

func (r *round) ask(ctx context.Context, a *asker, n int) {
	start := time.Now()
	last := time.Duration(0)
	i := 0
	for i < n && r.lost < maxLostRequests {
		// One context for many requests, until half of its time is over: to make one for each would
		// cost as much as a request.
		ctx, cancel := context.WithTimeout(ctx, requestPatience)
		var stale atomic.Bool
		half := time.AfterFunc(requestPatience/2, func() { stale.Store(true) })
		for end := min(i+ringSize, n); i < end && !stale.Load(); i++ {
			reply, err := a.bus.Request(ctx, topic, a.data[i%ringSize])
			if err == nil && (len(reply) < headerSize || numberOf(reply) != uint32(i%ringSize)) {
				err = errOtherAnswer
			}
			if err != nil {
				r.lost++
				r.err = err
				last = time.Since(start)
				i++
				break
			}
			if r.times != nil {
				now := time.Since(start)
				*r.times = append(*r.times, (now - last).Nanoseconds())
				last = now
			}
		}
		half.Stop()
		cancel()
	}
	r.made = i
}

// trial makes n requests by so many goroutines.
func (a *asker) trial(ctx context.Context, goroutines, n int, times *[]int64) (trial, error) {
	rounds := make([]round, goroutines)
	each := (n + goroutines - 1) / goroutines
	meter.mark()
	before, start := used(), time.Now()
	if goroutines == 1 {
		rounds[0].times = times
		rounds[0].ask(ctx, a, each)
	} else {
		var wg sync.WaitGroup
		for i := range rounds {
			wg.Go(func() { rounds[i].ask(ctx, a, each) })
		}
		wg.Wait()
	}
	end := time.Now()
	after := used()
	made, lost, err := 0, 0, error(nil)
	for _, r := range rounds {
		made += r.made
		lost += r.lost
		if r.lost >= maxLostRequests {
			err = fmt.Errorf("%d requests of one goroutine failed, the last: %w", r.lost, r.err)
		}
	}
	a.sent += made
	a.answered += made - lost
	return trial{end.Sub(start), after.cpu - before.cpu, after.allocs - before.allocs, made - lost, meter.growth()}, err
}

// measure measures requests. farCPU, if not nil, returns the processor time the far process has used.
func (a *asker) measure(ctx context.Context, goroutines int, target time.Duration, farCPU func() (time.Duration, error)) (result.Sample, error) {
	var times []int64
	t, err := measure(target, func(n int, last bool) (trial, error) {
		if goroutines == 1 {
			n = min(n, maxTimed)
			times = make([]int64, 0, n)
		}
		var before, after time.Duration
		var err, err2 error
		if last && farCPU != nil {
			before, err2 = farCPU()
		}
		t, err := a.trial(ctx, goroutines, n, &times)
		if last && farCPU != nil && err2 == nil {
			after, err2 = farCPU()
		}
		t.cpu += after - before
		if goroutines == 1 && n == maxTimed {
			t.elapsed = max(t.elapsed, target) // more are not made
		}
		return t, errors.Join(err, err2)
	})
	s := t.costs()
	switch {
	case err != nil:
		s = result.Sample{Error: err.Error()}
	case goroutines == 1 && len(times) > 0:
		var sum int64
		for _, n := range times {
			sum += n
		}
		slices.Sort(times)
		s.Figures = map[string]float64{
			"p50": percentile(times, 50), "p99": percentile(times, 99), "p99.9": percentile(times, 99.9),
			"mean": float64(sum) / float64(len(times)),
		}
	case goroutines > 1:
		s = t.sample()
	}
	s.Sent, s.Received = int64(a.sent), int64(a.answered)
	return s, nil
}

// percentile returns the smallest of sorted that p percent of them do not exceed. Sorted has one at
// least.
func percentile(sorted []int64, p float64) float64 {
	n := int(float64(len(sorted))*p/100 + 0.999999)
	return float64(sorted[min(max(n, 1), len(sorted))-1])
}

func localRequests(goroutines int) func(context.Context, peer.Peer, job) (result.Sample, error) {
	return func(ctx context.Context, p peer.Peer, j job) (result.Sample, error) {
		bus, err := p.Local()
		if err != nil {
			return result.Sample{}, err
		}
		if err := respond(bus); err != nil {
			return result.Sample{}, err
		}
		a, err := newAsker(bus)
		if err != nil {
			return result.Sample{}, err
		}
		s, err := a.measure(ctx, goroutines, j.Target, nil)
		closeSoon(bus)
		return s, err
	}
}
