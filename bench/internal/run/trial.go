package run

import (
	"runtime"
	"time"

	"github.com/gravbus/gravbus/bench/internal/result"
)

// A job is what a child has to do; its parent passes it as an argument.
type job struct {
	Peer     string        `json:"peer"`
	Workload string        `json:"workload"`
	Target   time.Duration `json:"target"`  // how long the measured part shall take
	Silence  time.Duration `json:"silence"` // what has not come when nothing has come for so long is lost
}

// A trial is one repetition of some number of operations.
type trial struct {
	elapsed  time.Duration
	cpu      time.Duration
	allocs   uint64
	received int // deliveries or answers
	grown    int // bytes by which memory grew meanwhile
}

// A step does n operations. Last says that this one is not to warm up but counts.
type step func(n int, last bool) (trial, error)

// measure finds out how many operations take about as long as target, by doubling their number,
// and then does that many. The doubling is the warm-up. It is the same for all peers.
func measure(target time.Duration, s step) (trial, error) {
	const (
		first = 16
		most  = 1 << 30
	)
	for n := first; ; n *= 2 {
		t, err := s(n, false)
		if err != nil {
			return t, err
		}
		if t.elapsed < target/8 && t.grown < maxGrowth/8 && n < most {
			continue
		}
		scale := float64(target) / float64(max(t.elapsed, 1))
		if t.grown > 0 {
			scale = min(scale, maxGrowth/float64(t.grown))
		}
		n = int(min(float64(n)*max(scale, 1), most))
		runtime.GC()
		return s(n, true)
	}
}

// sample turns the measured trial into one with a single figure, ns.
func (t trial) sample() result.Sample {
	s := t.costs()
	if t.received > 0 {
		s.Figures = map[string]float64{"ns": float64(t.elapsed.Nanoseconds()) / float64(t.received)}
	}
	return s
}

// costs returns a sample without figures.
func (t trial) costs() result.Sample {
	if t.received == 0 {
		return result.Sample{Error: "nothing arrived"}
	}
	n := float64(t.received)
	return result.Sample{CPU: float64(t.cpu.Nanoseconds()) / n, Allocs: float64(t.allocs) / n}
}

// quiet is how long to wait for what has not come: in the warm-up a loss need not be as certain.
func (j job) quiet(last bool) time.Duration {
	if last {
		return j.Silence
	}
	return j.Silence / 4
}
