package mailbox

import "slices"

// A Queue is a ring for one reader, or for the members of one group.
//
// Invariant: slots[pos&mask] holds an item that nobody has taken, or pos == head.
// Invariant: holds.count items in [pos, head) are not taken; holds.count <= cap.count. holds.cost is
// the sum of what they cost when they were added, costs[i] for the one in slots[i]; it is 0 without
// a MaxCost, and costs nil.
// Invariant: spent == (holds.cost >= bound.cost). It is there so that a queue without a MaxCost looks
// at one number more, not two: 5 % with ten of them.
type Queue[T any] struct {
	lane      *Lane[T]
	idx       int // in lane.queues
	slots     []Item[T]
	pos, head uint64
	holds     size
	bound     size
	policy    Policy
	detached  bool // its reader goes back to the ring when it has caught up
	lagging   bool // its readers stalled and have not caught up
	group     bool
	mixed     bool         // members want different things, or did when messages came that wait
	spent     bool         // what waits costs as much as it may
	members   []*Reader[T] // who has been there longest comes first
	spare     int          // drainers that could be woken: sum of width-active over members
	next      int          // member to begin with when looking for one to wake
	costs     []uint64
	cap       size
	lag       Lag[T]
	lagAt     uint64 // where lag.From would be; there the lag is to be told
	lagTo     uint64 // where lag.To would be
	tally     *Tally
	ownTally  Tally
	seen      seen
}

// Tally counts what a reader lost.
type Tally struct {
	Dropped uint64 // messages
	Lags    uint64 // times it began to lose some
}

// firstPos is where positions begin: far enough from zero that items given back fit before.
const firstPos = 1 << 32

func (l *Lane[T]) newQueue(c *Config) *Queue[T] {
	q := &Queue[T]{lane: l, pos: firstPos, head: firstPos, policy: c.Policy}
	q.bound, q.cap = c.bounds()
	q.tally = &q.ownTally
	return q
}

// adopt makes r a reader of q.
func (q *Queue[T]) adopt(r *Reader[T]) {
	r.q = q
	q.members = append(q.members, r)
	q.spare += r.cfg.Width - int(r.active)
	if !q.group {
		q.tally = &r.tally
	}
}

func (q *Queue[T]) disown(r *Reader[T]) {
	for i, m := range q.members {
		if m == r {
			last := len(q.members) - 1
			copy(q.members[i:], q.members[i+1:])
			q.members[last] = nil
			q.members = q.members[:last]
			q.spare -= r.cfg.Width - int(r.active)
			return
		}
	}
}

// waits reports whether a full q makes senders wait.
func (q *Queue[T]) waits() bool { return q.policy <= Block && !q.lagging }

// full reports whether senders have to wait for q.
func (q *Queue[T]) full() bool { return q.atBound() && q.waits() }

// wanted reports whether a member can take it.
func (q *Queue[T]) wanted(it *Item[T]) bool {
	for _, m := range q.members {
		if m.owner != it.From && (!q.mixed || m.wants(it)) {
			return true
		}
	}
	return false
}

func (q *Queue[T]) enqueue(it *Item[T]) {
	if n := uint64(len(q.slots)); q.head-q.pos == n {
		if n > 0 && q.holds.count <= n/2 {
			q.squeeze()
		} else {
			q.grow()
		}
	}
	i := q.head & uint64(len(q.slots)-1)
	q.slots[i] = *it
	q.head++
	q.holds.count++
	if q.costs != nil {
		q.addCost(i)
	}
}

// enqueueFirst puts it before all others.
func (q *Queue[T]) enqueueFirst(it *Item[T]) {
	if q.head-q.pos == uint64(len(q.slots)) {
		q.grow()
	}
	q.pos--
	i := q.pos & uint64(len(q.slots)-1)
	q.slots[i] = *it
	q.holds.count++
	if q.costs != nil {
		q.addCost(i)
	}
}

func (q *Queue[T]) grow() {
	q.slots = grow(q.slots, q.pos, q.head)
	if q.costed() {
		q.costs = grow(q.costs, q.pos, q.head)
	}
}

// squeeze closes the holes that members have left who took items out of turn.
func (q *Queue[T]) squeeze() {
	low := q.head - q.holds.count
	moved := func(at uint64) uint64 {
		if at <= q.pos || at >= q.head {
			return at
		}
		to := low
		for p := q.pos; p != at; p++ {
			if q.slots[p&uint64(len(q.slots)-1)].From != taken {
				to++
			}
		}
		return to
	}
	q.lagAt, q.lagTo = moved(q.lagAt), moved(q.lagTo)
	mask := uint64(len(q.slots) - 1)
	for from, to := q.head, q.head; from != q.pos; {
		from--
		s := q.slots[from&mask]
		q.slots[from&mask] = Item[T]{}
		if s.From == taken {
			continue
		}
		to--
		q.slots[to&mask] = s
		if q.costs != nil {
			q.costs[to&mask] = q.costs[from&mask]
		}
	}
	q.pos = low
}

// push adds it as the policy and the mode say.
func (q *Queue[T]) push(it *Item[T], mode Mode, o *Outcome[T]) {
	if !q.wanted(it) {
		return
	}
	switch {
	case !q.atBound():
	case q.lagging, q.policy == DropOldest, mode == Shed && q.waits():
		q.makeRoom(it, q.bound)
	case slices.Contains(o.exempt, q):
		if q.holds.reaches(q.cap) {
			q.makeRoom(it, q.cap)
		}
	case q.policy >= DropNewest, mode == drop:
		q.lost(it, q.head)
		if q.policy != DropNewest {
			o.Missed = append(o.Missed, q.members[0])
		}
		return
	}
	q.enqueue(it)
	o.N += q.counts()
	if o.Targets != nil && q.counts() > 0 {
		*o.Targets = append(*o.Targets, Target[T]{slices.Clone(q.members)})
	}
	if q.spare > 0 {
		q.wake(it, &o.wakes)
	}
}

// appendStraight adds it if there is room and no doubt that a member wants it.
func (q *Queue[T]) appendStraight(it *Item[T]) (n int, wake *Reader[T], ok bool) {
	l := q.lane
	if q.atBound() || q.mixed || len(q.members) == 0 || len(q.members) > 8 || len(l.waiters) > 0 {
		return 0, nil, false
	}
	for _, m := range q.members {
		if m.owner == it.From {
			return 0, nil, false
		}
	}
	q.enqueue(it)
	l.count()
	if q.spare > 0 {
		var w wakes[T]
		q.wake(it, &w)
		wake = w.one
	}
	return q.counts(), wake, true
}

// counts returns how many receivers q stands for.
func (q *Queue[T]) counts() int {
	if q.members[0].cfg.Extra && !q.group {
		return 0
	}
	return 1
}

// wake wakes one sleeping member that can take it.
func (q *Queue[T]) wake(it *Item[T], w *wakes[T]) {
	for i := range q.members {
		m := q.members[(q.next+i)%len(q.members)]
		if int(m.active) < m.cfg.Width && m.owner != it.From && (!q.mixed || m.wants(it)) {
			m.active++
			q.spare--
			q.next = (q.next + i + 1) % len(q.members)
			w.add(m)
			return
		}
	}
}

// rouse wakes sleeping members for all that waits, after members have changed.
func (q *Queue[T]) rouse(w *wakes[T]) {
	for p := q.pos; p != q.head && q.spare > 0; p++ {
		if s := &q.slots[p&uint64(len(q.slots)-1)]; s.From != taken {
			q.wake(s, w)
		}
	}
	if q.lag.Count == 0 || slices.ContainsFunc(q.members, func(m *Reader[T]) bool { return m.active > 0 }) {
		return
	}
	m := q.members[0] // to be told
	m.active++
	q.spare--
	w.add(m)
}

// dropOldest drops one.
func (q *Queue[T]) dropOldest() {
	at := q.pos
	s := &q.slots[at&uint64(len(q.slots)-1)]
	it := *s
	q.remove(at)
	q.lost(&it, at)
}

// lost counts it and remembers where in the order to tell of it.
func (q *Queue[T]) lost(it *Item[T], at uint64) {
	q.tally.Dropped++
	if q.lag.Count == 0 {
		q.tally.Lags++
	}
	if q.lag.Count == 0 || at < q.lagAt {
		q.lag.From, q.lagAt = it.Val, at
	}
	if q.lag.Count == 0 || at >= q.lagTo {
		q.lag.To, q.lagTo = it.Val, at
	}
	q.lag.Count++
}

// remove takes the item at position p out of the queue.
func (q *Queue[T]) remove(p uint64) {
	i := p & uint64(len(q.slots)-1)
	q.slots[i] = Item[T]{From: taken}
	q.holds.count--
	if q.costs != nil {
		q.setCost(q.holds.cost - q.costs[i])
	}
	for q.pos != q.head {
		s := &q.slots[q.pos&uint64(len(q.slots)-1)]
		if s.From != taken {
			return
		}
		s.From = 0
		q.pos++
	}
}

// lagIsDue reports whether the readers have lost something and the order has come to it.
func (q *Queue[T]) lagIsDue() bool {
	return q.lag.Count > 0 && (q.pos >= q.lagAt || q.holds.count == 0)
}

// take moves up to len(buf) items to buf, one if several compete for them, and no more once they
// cost enough.
func (q *Queue[T]) take(r *Reader[T], buf []Item[T]) int {
	wasFull := q.full()
	n := 0
	if q.group || r.cfg.Width > 1 {
		for p := q.pos; p != q.head; p = max(p+1, q.pos) {
			s := &q.slots[p&uint64(len(q.slots)-1)]
			if s.From == taken || s.From == r.owner || q.mixed && !r.wants(s) {
				continue
			}
			if !q.group && r.skips(s) {
				q.remove(p)
				continue
			}
			buf[0] = *s
			n = 1
			q.remove(p)
			break
		}
	} else {
		start, end := q.pos, q.head
		if q.lag.Count > 0 && q.lagAt > q.pos {
			end = q.lagAt
		}
		if q.costs != nil {
			return q.takeCosted(r, buf, end)
		}
		for n < len(buf) && q.pos != end {
			s := &q.slots[q.pos&uint64(len(q.slots)-1)]
			if !r.skips(s) {
				buf[n] = *s
				n++
			}
			*s = Item[T]{}
			q.pos++
		}
		q.holds.count -= q.pos - start
	}
	if wasFull && !q.full() {
		q.lane.released()
	}
	return n
}

// takeCosted moves up to len(buf) items before position end to buf, and no more once they cost
// enough.
func (q *Queue[T]) takeCosted(r *Reader[T], buf []Item[T], end uint64) (n int) {
	wasFull, start := q.full(), q.pos
	most := enough(q.bound.cost)
	claimed, gone := uint64(0), uint64(0)
	for n < len(buf) && q.pos != end && claimed < most {
		i := q.pos & uint64(len(q.slots)-1)
		s, cost := &q.slots[i], q.costs[i]
		if !r.skips(s) {
			buf[n] = *s
			n++
			claimed += cost
		}
		gone += cost
		*s = Item[T]{}
		q.pos++
	}
	q.holds.count -= q.pos - start
	q.setCost(q.holds.cost - gone)
	if wasFull && !q.full() {
		q.lane.released()
	}
	return n
}

// rest returns what has not been taken.
func (q *Queue[T]) rest() (rest []Item[T]) {
	for p := q.pos; p != q.head; p++ {
		if it := &q.slots[p&uint64(len(q.slots)-1)]; it.From != taken {
			rest = append(rest, *it)
		}
	}
	return rest
}

// purge drops what no member can take any more, and reports how many that were.
func (q *Queue[T]) purge() int {
	n := 0
	for p := q.pos; p != q.head; p = max(p+1, q.pos) {
		s := &q.slots[p&uint64(len(q.slots)-1)]
		if s.From != taken && !q.wanted(s) {
			it := *s
			q.remove(p)
			q.lost(&it, p)
			n++
		}
	}
	return n
}

// keptSlots is how long a ring may be that is kept while q is empty.
const keptSlots = 1024

// Trim lets go of memory that an empty mailbox holds. Mailboxes without a MaxCost do so themselves
// whenever they are empty.
func (r *Reader[T]) Trim() {
	l := r.lock()
	defer l.mu.Unlock()
	if q := r.q; q != nil && q.holds.count == 0 && r.active == 0 && len(q.slots) > keptSlots {
		q.slots, q.costs = nil, nil
	}
}

// caughtUp is called when q is empty and a drainer about to end.
func (q *Queue[T]) caughtUp() {
	q.lagging = false
	if len(q.slots) > keptSlots && !q.costed() { // one with a cost is used in bursts: its owner calls Trim
		q.slots = nil
	}
	if q.detached {
		r := q.members[0]
		q.disown(r)
		q.lane.removeQueue(q)
		q.lane.share(r)
	}
}
