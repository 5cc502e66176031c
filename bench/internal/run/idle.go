package run

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// idle measures what a subscription costs that gets nothing, by making many: ten times as many as
// long as that leaves the process idle, and does not take too long.
func idle(_ context.Context, p peer.Peer, j job) (result.Sample, error) {
	const most = 10_000
	bus, err := p.Local()
	if err != nil {
		return result.Sample{}, err
	}
	names := make([]string, most) // they are the user's, not the library's
	for i := range names {
		names[i] = fmt.Sprint("bench.idle", i)
	}
	ignore := func([]byte) {}
	bytes, goroutines := held()
	s := result.Sample{}
	made := 0
	for n := 100; n <= most; n *= 10 {
		start := time.Now()
		for ; made < n; made++ {
			if _, err := bus.Subscribe(names[made], ignore); err != nil {
				return result.Sample{}, asSkip(err)
			}
		}
		bytes2, goroutines2 := held()
		s.Figures = map[string]float64{
			"bytes":      max(0, float64(bytes2)-float64(bytes)) / float64(n),
			"goroutines": max(0, float64(goroutines2)-float64(goroutines)) / float64(n),
		}
		if time.Since(start) > j.Target || 10*load() > 0.5 {
			break
		}
	}
	runtime.KeepAlive(names)
	closeSoon(bus)
	return s, nil
}

// load returns how many processors this process uses while it does nothing.
func load() float64 {
	const span = 50 * time.Millisecond
	before := processorTime()
	time.Sleep(span)
	return float64(processorTime()-before) / float64(span)
}

// held returns the bytes of live heap and of stacks, and the number of goroutines, once what is new
// has come to rest.
func held() (bytes uint64, goroutines int) {
	time.Sleep(20 * time.Millisecond) // for goroutines that have yet to reach where they wait; nothing tells
	runtime.GC()
	runtime.GC() // a second one frees what finalizers and pools kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
}

// churn measures coming and going.
func churn(_ context.Context, p peer.Peer, j job) (result.Sample, error) {
	bus, err := p.Local()
	if err != nil {
		return result.Sample{}, err
	}
	ignore := func([]byte) {}
	for range 100 {
		if _, err := bus.Subscribe(topic, ignore); err != nil {
			return result.Sample{}, asSkip(err)
		}
	}
	t, err := measure(j.Target, func(n int, _ bool) (trial, error) {
		meter.mark()
		before, start := used(), time.Now()
		for range n {
			sub, err := bus.Subscribe(topic, ignore)
			if err != nil {
				return trial{}, fmt.Errorf("subscribe: %w", err)
			}
			if err := sub.Cancel(); err != nil {
				return trial{}, fmt.Errorf("cancel: %w", err)
			}
		}
		end := time.Now()
		after := used()
		return trial{end.Sub(start), after.cpu - before.cpu, after.allocs - before.allocs, n, meter.growth()}, nil
	})
	if err != nil {
		return result.Sample{Error: err.Error()}, nil
	}
	closeSoon(bus)
	return t.sample(), nil
}
