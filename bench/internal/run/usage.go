package run

import (
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// usage is what this process has used so far.
type usage struct {
	cpu    time.Duration
	allocs uint64
}

func used() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{cpu: processorTime(), allocs: m.Mallocs}
}

const (
	// maxGrowth is by how much memory may grow in a measurement that is a multiple of a smaller
	// one: where a peer queues without a bound, the measurement is made shorter.
	maxGrowth = 512 << 20
	// maxMemory ends a child, since a machine that swaps measures nothing.
	maxMemory = 2 << 30
	// softMemory makes the collector work harder before that.
	softMemory = maxMemory * 3 / 4
)

// memory watches how much memory this process has in use, heap and stacks.
type memory struct {
	base, peak atomic.Uint64
}

// meter is the memory of this process.
var meter memory

func (m *memory) now() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	n := s[0].Value.Uint64() + s[1].Value.Uint64()
	for {
		peak := m.peak.Load()
		if n <= peak || m.peak.CompareAndSwap(peak, n) {
			return n
		}
	}
}

// mark begins anew.
func (m *memory) mark() {
	m.peak.Store(0)
	m.base.Store(m.now())
}

// growth returns by how many bytes memory has grown, at most, since mark.
func (m *memory) growth() int {
	m.now()
	return int(m.peak.Load() - m.base.Load())
}

// watch calls tooMuch once more than limit bytes are in use. It looks seldom enough to cost nothing
// and ends with the process.
func (m *memory) watch(limit uint64, tooMuch func()) {
	for range time.Tick(20 * time.Millisecond) {
		if m.now() > limit {
			tooMuch()
			return
		}
	}
}
