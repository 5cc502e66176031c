package peers

import (
	"slices"
	"sync"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var ringPeer = peer.Peer{
	ID:   "ring",
	Name: "shared ring",
	Kind: peer.Limit,
	Note: "no library: one ring of 1,024 slots per topic behind a mutex, and a goroutine per subscription that takes all there is at once; the sender stores a message once for all and waits for the slowest receiver; order is kept.",

	Local: func() (peer.Bus, error) { return &ringBus{}, nil },
}

type ringBus struct {
	topics  topics[ring]
	running sync.WaitGroup
}

// A ring holds the last messages of a topic, once for all receivers.
type ring struct {
	mu    sync.Mutex
	more  sync.Cond // there is something new, or a cursor is to end
	room  sync.Cond // the slowest have moved on
	slots [queue][]byte
	head  uint64 // guarded by mu: number of messages published; the next goes to slots[head%queue]

	// Invariant: no cursor is below low, so that slots from head to low+queue are free.
	low     uint64        // guarded by mu
	slowest int           // guarded by mu: how many cursors were at low when it was last found, and still are
	cursors []*ringCursor // guarded by mu
}

// A ringCursor is one subscription.
type ringCursor struct {
	ring *ring
	next uint64 // guarded by ring.mu: the first message it has not finished
	end  bool   // guarded by ring.mu: cancelled
}

func newRing() *ring {
	r := &ring{}
	r.more.L, r.room.L = &r.mu, &r.mu
	return r
}

func (b *ringBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	r := b.topics.of(topic, newRing)
	r.mu.Lock()
	c := &ringCursor{ring: r, next: r.head}
	r.cursors = append(r.cursors, c)
	r.mu.Unlock()
	b.running.Go(func() { c.receive(fn) }) // until Cancel
	return c, nil
}

// receive calls fn with what is new, outside the lock: publishers do not touch a slot before its
// last receiver has moved on. So a cursor that is cancelled stays until the calls are done.
func (c *ringCursor) receive(fn func([]byte)) {
	r := c.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for c.next == r.head && !c.end {
			r.more.Wait()
		}
		if c.end {
			r.cursors = slices.DeleteFunc(r.cursors, func(have *ringCursor) bool { return have == c })
			r.movesOnLocked(c)
			return
		}
		from, to := c.next, r.head
		r.mu.Unlock()
		for ; from < to; from++ {
			fn(r.slots[from%queue])
		}
		r.mu.Lock()
		r.movesOnLocked(c)
		c.next = to
	}
}

// movesOnLocked says that c leaves where it is, and wakes publishers if it was the last there.
func (r *ring) movesOnLocked(c *ringCursor) {
	if c.next != r.low {
		return
	}
	if r.slowest--; r.slowest == 0 {
		r.room.Broadcast()
	}
}

func (c *ringCursor) Cancel() error {
	c.ring.mu.Lock()
	c.end = true
	c.ring.mu.Unlock()
	c.ring.more.Broadcast()
	return nil
}

func (b *ringBus) Publisher(topic string) (peer.Publisher, error) {
	return ringPublisher{ring: b.topics.of(topic, newRing)}, nil
}

func (b *ringBus) Close() error {
	for _, r := range b.topics.all() {
		r.mu.Lock()
		cursors := slices.Clone(r.cursors)
		r.mu.Unlock()
		for _, c := range cursors {
			_ = c.Cancel() // always nil
		}
	}
	b.running.Wait()
	return nil
}

type ringPublisher struct {
	plainData
	ring *ring
}

func (p ringPublisher) Publish(msg any) error {
	r, data := p.ring, msg.([]byte)
	r.mu.Lock()
	for r.head-r.low == queue {
		if r.findLowLocked(); r.head-r.low == queue {
			r.room.Wait()
		}
	}
	r.slots[r.head%queue] = data
	r.head++
	r.mu.Unlock()
	r.more.Broadcast()
	return nil
}

// findLowLocked looks for the slowest receivers. It is called when the ring seems full, so that
// other messages cost nothing for it.
func (r *ring) findLowLocked() {
	r.low, r.slowest = r.head, 0
	for _, c := range r.cursors {
		if c.next < r.low {
			r.low, r.slowest = c.next, 0
		}
		if c.next == r.low {
			r.slowest++
		}
	}
}
