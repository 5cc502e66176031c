package memory

import (
	"sync"
	"time"
)

// The ends of a connection.
const (
	dialler = iota
	accepter
)

// A Connection is both sides of a connection between two nodes, for a test to disturb. Its methods
// are safe for concurrent use.
type Connection struct {
	network  *Network
	from, to string
	number   uint64

	mu     sync.Mutex // guards all below
	halves [2]half    // by the end that writes
	ends   [2]end
	broken error // why neither end can go on
	cutIn  int   // after so many more frames it is cut; negative: never
}

func newConnection(n *Network, from, to string, number uint64) *Connection {
	c := &Connection{network: n, from: from, to: to, number: number, cutIn: -1}
	for i := range c.ends {
		h := &c.halves[i]
		h.readable.L, h.writable.L = &c.mu, &c.mu
		c.ends[i].init(c, h, &c.halves[1-i])
	}
	return c
}

// From returns the name of the node that dialled.
func (c *Connection) From() string { return c.from }

// To returns the name of the node that accepted.
func (c *Connection) To() string { return c.to }

// Cut ends the connection like a crash in the middle of it. Both sides get ErrCut at once, and what
// they have not read yet is lost.
func (c *Connection) Cut() {
	c.mu.Lock()
	c.breakLocked(false)
	c.mu.Unlock()
	c.network.forget(c)
}

// CutAfter cuts the connection after it has carried so many more frames, in both directions
// together. Those still arrive, but for what a silence holds up. The next frame is lost, although
// its WriteFrame returns nil, and from there on both sides get ErrCut, once they have read what is
// there. A negative number takes the order back.
func (c *Connection) CutAfter(frames int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutIn = max(frames, -1)
}

// Stall makes the connection half-open: from now on nothing arrives on either side, not even word
// of a Close, and neither side notices. New connections are not affected. Network.Heal ends it.
func (c *Connection) Stall() { c.setStalled(true) }

func (c *Connection) setStalled(stalled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for i := range c.halves {
		h := &c.halves[i]
		h.land(now)
		h.stalled = stalled
		h.wake()
	}
}

// setConditions tells both directions what it is like on their path.
func (c *Connection) setConditions(out, back conditions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for i, cond := range [...]conditions{out, back} {
		h := &c.halves[i]
		h.land(now)
		h.conditions = cond
		h.wake()
	}
}

// breakLocked ends the connection for both sides. If keep, what would have arrived can still be
// read.
func (c *Connection) breakLocked(keep bool) {
	if c.broken != nil {
		return
	}
	c.broken = ErrCut
	for i := range c.halves {
		h := &c.halves[i]
		switch {
		case !keep:
			h.drop()
		case h.silent || h.stalled:
			h.queue = h.queue[:h.landed]
		default:
			h.landed = len(h.queue)
		}
		h.wake()
	}
}

// over reports whether nothing can happen on it any more.
func (c *Connection) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken != nil || c.ends[dialler].closed && c.ends[accepter].closed
}
