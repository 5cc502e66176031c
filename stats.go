package gravbus

import (
	"sync/atomic"
	"time"
)

// podCounts is what a pod, or all that have gone, did.
type podCounts struct {
	delivered, failed atomic.Uint64
	busy              atomic.Int64 // nanoseconds in handlers
	rare              atomic.Pointer[rareCounts]
}

// rareCounts is what few pods have to count.
type rareCounts struct {
	dropped, lags, panics, deadLetters atomic.Uint64
}

func (c *podCounts) seldom() *rareCounts {
	if r := c.rare.Load(); r != nil {
		return r
	}
	c.rare.CompareAndSwap(nil, new(rareCounts))
	return c.rare.Load()
}

// moveTo adds c to sum and leaves c at zero.
func (c *podCounts) moveTo(sum *podCounts) {
	sum.delivered.Add(c.delivered.Swap(0))
	sum.failed.Add(c.failed.Swap(0))
	sum.busy.Add(c.busy.Swap(0))
	if r := c.rare.Load(); r != nil {
		to := sum.seldom()
		to.dropped.Add(r.dropped.Swap(0))
		to.lags.Add(r.lags.Swap(0))
		to.panics.Add(r.panics.Swap(0))
		to.deadLetters.Add(r.deadLetters.Swap(0))
	}
}

// Stats is a snapshot of a bus.
type Stats struct {
	NodeUUID    string
	Sent        uint64        // messages sent
	Delivered   uint64        // handler calls that succeeded, and messages yielded by Messages
	Dropped     uint64        // messages that pods lost by overflow
	Failed      uint64        // handler calls that failed
	DeadLetters uint64        // messages that became dead letters
	Refused     uint64        // messages that were too large
	RepliesLost uint64        // replies that nobody waited for before there were too many
	Panics      uint64        // handler calls that panicked; they are among those that failed
	Buffered    int           // messages kept for replay
	Working     int           // handlers, waits and reply functions that are running or about to; at zero nothing moves until somebody sends
	HandlerTime time.Duration // spent in handlers
	Pods        []PodStats    // connected pods, in the order they connected
}

// PodStats is a snapshot of a pod. A message counts as delivered when the batch it was claimed in
// is done: for an idle pod the counts are exact.
type PodStats struct {
	Name        string
	Group       string        // empty for none
	Working     bool          // a handler or wait function is running or about to
	Depth       int           // messages waiting; of all the group's members together
	Delivered   uint64        // handler calls that succeeded, and messages yielded by Messages
	Dropped     uint64        // messages lost by overflow; of all the group's members together
	Lags        uint64        // times it began to lose messages; of all the group's members together
	Failed      uint64        // handler calls that failed; panics are among them
	Panics      uint64        // handler calls that panicked
	Kept        int           // failed messages kept for redelivery
	DeadLetters uint64        // messages that became dead letters
	HandlerTime time.Duration // spent in handlers
}

// Stats returns a snapshot of the bus. It takes time in proportion to the number of pods, and does
// not hold up senders for longer than one mailbox takes.
func (b *Bus) Stats() Stats {
	s := Stats{
		NodeUUID:    b.NodeUUID,
		Refused:     b.refused.Load(),
		RepliesLost: b.repliesLost.Load() + b.parked.lostCount(),
	}
	if b.buffer != nil {
		s.Buffered = b.buffer.Len()
		s.Sent = b.buffer.pushed()
	} else {
		s.Sent = b.sentUnbuffered()
	}
	s.Delivered, s.Failed, s.HandlerTime = b.gone.delivered.Load(), b.gone.failed.Load(), time.Duration(b.gone.busy.Load())
	rare := b.gone.seldom()
	s.Dropped, s.Panics, s.DeadLetters = rare.dropped.Load(), rare.panics.Load(), rare.deadLetters.Load()
	s.Working = int(b.working.Load()+b.looping.Load()) + b.helpers.count()
	groups := map[string]bool{}
	for _, p := range b.pods.all() {
		ps := p.Stats()
		s.Pods = append(s.Pods, ps)
		s.Delivered += ps.Delivered
		s.Failed += ps.Failed
		s.Panics += ps.Panics
		s.DeadLetters += ps.DeadLetters
		s.HandlerTime += ps.HandlerTime
		if ps.Group == "" || !groups[ps.Group] {
			s.Dropped += ps.Dropped
			groups[ps.Group] = true
		}
	}
	return s
}

// sentUnbuffered adds up what the lanes have counted.
func (b *Bus) sentUnbuffered() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	sent := b.graph.Sent()
	for l := range b.routed {
		sent += l.Sent()
	}
	return sent
}
