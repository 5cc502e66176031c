package gravbus

import (
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/mesh"
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
	Refused     uint64        // messages that were too large for the bus, or for one of its peers, or could not be encoded for that
	RepliesLost uint64        // replies that nobody waited for before there were too many
	Panics      uint64        // handler calls that panicked; they are among those that failed
	Buffered    int           // messages kept for replay
	Working     int           // handlers, waits and reply functions that are running or about to; at zero nothing moves until somebody sends
	HandlerTime time.Duration // spent in handlers
	Pods        []PodStats    // connected pods, in the order they connected
	Peers       []PeerStats   // other nodes that are known and not given up
	Strangers   uint64        // connections, dialled or accepted, that did not become a link
}

// PeerStats is a snapshot of a link to another node.
type PeerStats struct {
	PeerInfo
	State     PeerState
	Since     time.Time     // of State
	Dialled   bool          // the present or last connection was made by this node
	RTT       time.Duration // of the last heartbeat; 0 if there was none yet
	Depth     int           // messages waiting to be sent
	DepthCost int           // what they count in UseLinkBounds
	Unacked   int           // messages sent that the peer has not acknowledged
	Sent      uint64        // messages sent
	Received  uint64        // messages received
	Resent    uint64        // messages sent again after a cut
	Cuts      uint64        // connections that have ended
	Gaps      uint64        // times messages were lost, in either direction
	Lost      uint64        // messages lost, in either direction
	Refused   uint64        // messages received that UseImport kept out
	BytesOut  uint64        // written to connections
	BytesIn   uint64        // read from connections
}

// A PeerState is how a link to another node stands.
type PeerState string

// States of a link.
const (
	PeerAway    PeerState = "away"    // without a connection; what is sent to it is kept
	PeerJoining PeerState = "joining" // connected; it has not said yet what it wants
	PeerUp      PeerState = "up"      // connected
)

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
		s.Sent = b.buffer.pushed() - b.mesh.pushedHere()
	} else {
		s.Sent = b.sentUnbuffered()
	}
	s.Delivered, s.Failed, s.HandlerTime = b.gone.delivered.Load(), b.gone.failed.Load(), time.Duration(b.gone.busy.Load())
	rare := b.gone.seldom()
	s.Dropped, s.Panics, s.DeadLetters = rare.dropped.Load(), rare.panics.Load(), rare.deadLetters.Load()
	s.Working = int(b.working.Load() + b.looping.Load())
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
	if b.mesh != nil {
		s.Strangers = b.mesh.node.Refusals()
		for _, p := range b.mesh.list() {
			s.Peers = append(s.Peers, p.stats())
		}
	}
	return s
}

// stats returns a snapshot of the link.
func (p *peer) stats() PeerStats {
	l := p.link.Stats()
	depth, _ := p.pod.reader.Depth()
	s := PeerStats{
		PeerInfo: p.info(),
		Since:    l.Since, Dialled: l.Dialled, RTT: l.RTT, Depth: depth, DepthCost: p.pod.reader.Cost(), Unacked: l.Unacked,
		Sent: l.Sent, Received: l.Received, Resent: l.Resent, Cuts: l.Cuts, Gaps: l.Gaps, Lost: l.Lost,
		Refused: p.refused.Load(), BytesOut: l.BytesOut, BytesIn: l.BytesIn,
	}
	switch l.State {
	case mesh.Ready:
		s.State = PeerUp
	case mesh.Connected:
		s.State = PeerJoining
	default:
		s.State = PeerAway
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
