package mailbox

import (
	"slices"
	"sync"
	"sync/atomic"
)

const minSlots = 8

// A Lane carries the messages of one interest to all who have it. Create one with NewLane.
//
// Invariant: a sharer's unread items are ring[pos:head), and its drainer may read the hand items
// before pos without the mutex, so head-(pos-hand) <= len(slots) for every sharer: no slot is written
// that somebody may read. If a sharer leaves while it has some in hand, the ring goes on in another
// array. A sharer with more than the bound unread, not counting its own, is not a sharer for long: it
// is given a queue.
//
// Invariant: a sharer that sleeps has nothing unread but messages of its own. So its cursor says
// nothing, and is set when it wakes.
//
// Invariant: while senders wait, full counts the readers they wait for, and each of those lowers it
// when it is no longer full; at zero the first waiters are woken. A waiter that is woken either
// appends or waits again at the front, and whoever leaves the waiting list passes on what room is
// left, so no wake is lost.
type Lane[T any] struct {
	Group string // that the readers compete in; empty if each gets every message. Set before anybody sends

	id      uint64 // order of age; lanes on a route are sorted by it
	graph   *Graph[T]
	bound   uint64      // of every sharer
	batch   int         // most items of one claim
	inPlace bool        // claims may leave items in the ring
	mu      *sync.Mutex // guards all below but watched; the graph's, if its lanes share one

	watched atomic.Uint64 // not 0 while senders wait; changes with every look at who makes progress

	// What senders write at every append is kept off the cache line that drainers read at every
	// message.
	_   [64]byte
	own sync.Mutex // what mu points to, if the graph's lanes do not share one

	head        uint64    // the next position to write
	limit       uint64    // up to here head may go without looking at the sharers
	slots       []Item[T] // the ring; its length is a power of two
	sharers     []*Reader[T]
	busy        int       // sharers[:busy] are being drained, sharers[busy:] sleep
	sent        uint64    // items added, until it is retired
	retired     bool      // the graph counts instead
	plain       bool      // sharers only: the straight way may be tried
	alone       *Queue[T] // the only reader or group there is, if it has a queue: the straight way may be tried too
	clean       uint64    // ring positions below are zeroed
	queues      []*Queue[T]
	leaving     []leaver[T]
	leavingMost int // length of leaving at which to look for some to forget
	unknown     int // leavers whose new lane is not known yet
	full        int
	waiters     []*waiter[T]
	waiting     int          // senders in await, in waiters or just woken
	watches     uint64       // times that waiting began
	rousing     []*Reader[T] // readers that are to be woken by the next Claim
	spare       []*Reader[T] // empty, kept for its memory
}

// NewLane returns a lane for readers that may be bound messages behind.
func (g *Graph[T]) NewLane(bound int) *Lane[T] {
	l := &Lane[T]{id: g.lanes.Add(1), graph: g, bound: uint64(bound), batch: batchFor(bound), mu: g.shared}
	l.inPlace = bound >= minInPlace
	if l.mu == nil {
		l.mu = &l.own
	}
	return l
}

// batchFor bounds what one claim takes in hand: a quarter of the mailbox, so that a reader that
// stands still holds few messages that can no longer give way, and MaxBatch, past which more does
// not pay.
func batchFor(bound int) int { return min(max(bound/4, 1), MaxBatch) }

// MaxBatch is the most items a Claim returns.
const MaxBatch = 256

// minInPlace is the least bound with which claims leave items in the ring: it needs room for those
// beside the bound, so that it may become twice as long.
const minInPlace = 16

// Lock locks the mutex that guards the lane, for AppendLocked.
func (l *Lane[T]) Lock() { l.mu.Lock() }

// Unlock undoes Lock.
func (l *Lane[T]) Unlock() { l.mu.Unlock() }

// Left reports whether readers have gone on to other lanes, so that it matters whether a sender's
// route is stale. The caller has locked the lane.
func (l *Lane[T]) Left() bool { return len(l.leaving) > 0 }

// AppendLocked adds it for every reader of the lane but the sender's own and reports how many that
// are. If wake is not nil, the caller is to call its Rouse once it has unlocked the lane.
//
// It does nothing and returns false when the way is not straight: somebody is full, or has a queue,
// or has left. Then AppendSlow is to be called. own is the sending pod's reader, which may be on
// this lane or not, or nil. stale tells that the route by which the sender came has changed
// meanwhile.
func (l *Lane[T]) AppendLocked(it *Item[T], own *Reader[T], stale bool) (n int, wake *Reader[T], ok bool) {
	if stale && len(l.leaving) > 0 {
		return 0, nil, false
	}
	if l.plain && l.head < l.limit {
		l.put(it)
		l.sent++ // a lane that is retired has no sharers
		n = len(l.sharers)
		if l.busy < n || own != nil && own.lane.Load() == l {
			n, wake = l.wrote(it.From, own)
		}
		if l.head >= l.limit && len(l.waiters) > 0 {
			l.pass()
		}
		return n, wake, true
	}
	if l.alone != nil {
		return l.alone.appendStraight(it)
	}
	return 0, nil, false
}

// Straight reports whether AppendLocked would append one that is not stale.
func (l *Lane[T]) Straight() bool { return l.plain && l.head < l.limit }

// Rouse wakes a reader that AppendLocked returned.
func (r *Reader[T]) Rouse() { r.waker.Wake() }

// Waker returns what Init was given.
func (r *Reader[T]) Waker() Waker { return r.waker }

// put puts it on the ring, where there is room. wrote is to be called after it.
func (l *Lane[T]) put(it *Item[T]) {
	l.slots[l.head&uint64(len(l.slots)-1)] = *it
	l.head++
}

// wrote wakes who is to read what was put on the ring last, and returns how many will.
func (l *Lane[T]) wrote(from uint64, own *Reader[T]) (n int, wake *Reader[T]) {
	n = len(l.sharers)
	if own != nil && own.lane.Load() == l && own.q == nil && !own.gone {
		own.own++
		n--
	}
	if l.busy < len(l.sharers) {
		wake = l.wakeSharers(from)
	}
	return n, wake
}

// count counts an item.
func (l *Lane[T]) count() {
	if l.retired {
		l.graph.CountSent(1)
	} else {
		l.sent++
	}
}

// Sent returns how many items were added before the lane was retired, and 0 afterwards.
func (l *Lane[T]) Sent() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// Retire makes the graph count for the lane: nobody finds it any more, but a sender who found it
// before may still come.
func (l *Lane[T]) Retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.graph.CountSent(int(l.sent))
	l.sent, l.retired = 0, true
}

// wakeSharers makes all sleeping sharers but from's busy, to read what was written last. It returns
// one of them to be woken by the sender; that one's Claim wakes the others, so that a sender to
// many is not held up by starting them.
func (l *Lane[T]) wakeSharers(from uint64) (first *Reader[T]) {
	for i := l.busy; i < len(l.sharers); i++ {
		r := l.sharers[i]
		if r.owner == from {
			continue
		}
		l.swap(i, l.busy)
		l.busy++
		r.pos, r.own = l.head-1, 0
		r.active = 1
		if first == nil {
			first = r
			continue
		}
		if l.rousing == nil {
			l.rousing, l.spare = l.spare, nil
		}
		l.rousing = append(l.rousing, r)
	}
	return first
}

func (l *Lane[T]) swap(i, j int) {
	if i == j {
		return
	}
	a, b := l.sharers[i], l.sharers[j]
	l.sharers[i], l.sharers[j] = b, a
	a.idx, b.idx = int32(j), int32(i)
}

// look finds out who is full and sets full and limit. Sharers that are behind only by messages of
// their own get a queue, into which those do not go.
func (l *Lane[T]) look() {
	l.full = 0
	if len(l.sharers) > 0 && l.head >= l.limit {
		l.lookAtRing()
	}
	for _, q := range l.queues {
		if q.full() {
			l.full++
		}
	}
}

func (l *Lane[T]) lookAtRing() {
	low, held := l.head, l.head // what is unread and what is read begin there
	for i := 0; i < l.busy; i++ {
		r := l.sharers[i]
		if behind := l.head - r.pos; behind >= l.bound {
			if behind-uint64(r.own) < l.bound {
				l.demote(r)
				i--
				continue
			}
			l.full++
		}
		low = min(low, r.pos)
		held = min(held, r.pos-uint64(r.hand))
	}
	if len(l.sharers) == 0 {
		return
	}
	if n := uint64(len(l.slots)); l.head-held >= n && (n < l.bound || l.head-low < l.bound) {
		l.slots = grow(l.slots, low, l.head) // what is read stays where it is
	}
	l.limit = min(low+l.bound, held+uint64(len(l.slots)))
}

// grow doubles a ring that holds [low, head).
func grow[E any](slots []E, low, head uint64) []E {
	bigger := make([]E, max(2*len(slots), minSlots))
	for p := low; p != head; p++ {
		bigger[p&uint64(len(bigger)-1)] = slots[p&uint64(len(slots)-1)]
	}
	return bigger
}

// tidy lets go of messages that everybody has read. It is called when no sharer is busy.
func (l *Lane[T]) tidy() {
	if n := uint64(len(l.slots)); l.head-l.clean >= n {
		clear(l.slots)
	} else {
		a, b := l.clean&(n-1), l.head&(n-1)
		if a <= b {
			clear(l.slots[a:b])
		} else {
			clear(l.slots[a:])
			clear(l.slots[:b])
		}
	}
	l.clean = l.head
}

// share makes r read from the ring, from now on.
func (l *Lane[T]) share(r *Reader[T]) {
	if len(l.sharers) == 0 { // nobody read the ring meanwhile: all in it is old
		l.limit = l.head
		l.clean = l.head
	}
	r.q, r.pos, r.own = nil, l.head, 0
	r.idx = int32(len(l.sharers))
	l.sharers = append(l.sharers, r)
	if r.active > 0 {
		l.swap(int(r.idx), l.busy)
		l.busy++
	}
	l.changed()
}

// unshare takes r off the ring.
func (l *Lane[T]) unshare(r *Reader[T]) {
	if r.active > 0 {
		l.busy--
		l.swap(int(r.idx), l.busy)
	}
	last := len(l.sharers) - 1
	l.swap(int(r.idx), last)
	l.sharers[last] = nil
	l.sharers = l.sharers[:last]
	if r.hand > 0 {
		r.hand = 0
		l.slots = slices.Clone(l.slots)
	}
	if l.busy == 0 && len(l.slots) > 0 {
		l.tidy()
	}
	if last == 0 {
		l.slots = nil
	}
	l.limit = min(l.limit, l.head) // the next append looks again
	l.changed()
}

// demote gives sharer r a queue with its unread messages.
func (l *Lane[T]) demote(r *Reader[T]) *Queue[T] {
	q := l.newQueue(r.cfg)
	q.detached = true
	if r.x != nil {
		q.seen = r.x.seen
	}
	for p := r.pos; p != l.head; p++ {
		it := &l.slots[p&uint64(len(l.slots)-1)]
		if it.From != r.owner && !r.skips(it) {
			q.enqueue(it)
		}
	}
	l.unshare(r)
	q.adopt(r)
	l.addQueue(q)
	return q
}

func (l *Lane[T]) addQueue(q *Queue[T]) {
	q.lane = l
	q.idx = len(l.queues)
	l.queues = append(l.queues, q)
	l.changed()
}

func (l *Lane[T]) removeQueue(q *Queue[T]) {
	last := len(l.queues) - 1
	l.queues[q.idx] = l.queues[last]
	l.queues[q.idx].idx = q.idx
	l.queues[last] = nil
	l.queues = l.queues[:last]
	l.changed()
}

func (l *Lane[T]) changed() {
	l.plain = len(l.queues) == 0 && l.unknown == 0 && len(l.sharers) > 0
	l.alone = nil
	if len(l.queues) == 1 && l.unknown == 0 && len(l.sharers) == 0 {
		l.alone = l.queues[0]
	}
}

// released is told that a reader that was full no longer is.
func (l *Lane[T]) released() {
	if l.full == 0 {
		return
	}
	l.full--
	if l.full == 0 {
		l.pass()
		return
	}
	l.wakePicky()
}

// wakePicky wakes the waiters who need not wait for all who are full.
func (l *Lane[T]) wakePicky() {
	for i := 0; i < len(l.waiters); {
		if w := l.waiters[i]; w.picky {
			l.leave(w)
			w.signal()
		} else {
			i++
		}
	}
}

// pass wakes as many waiting senders as there is room for.
func (l *Lane[T]) pass() {
	if len(l.waiters) == 0 {
		return
	}
	l.look()
	if l.full > 0 {
		l.wakePicky()
		l.recheck()
		return
	}
	room := l.bound
	if len(l.sharers) > 0 {
		room = l.limit - l.head
	}
	for _, q := range l.queues {
		if q.waits() {
			room = min(room, q.room())
		}
	}
	l.wakeWaiters(int(max(room, 1)))
}

func (l *Lane[T]) wakeWaiters(n int) {
	n = min(n, len(l.waiters))
	for _, w := range l.waiters[:n] {
		w.signal()
	}
	rest := copy(l.waiters, l.waiters[n:])
	clear(l.waiters[rest:])
	l.waiters = l.waiters[:rest]
}
