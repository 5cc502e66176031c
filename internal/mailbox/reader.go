package mailbox

import (
	"slices"
	"sync/atomic"

	"github.com/gravbus/gravbus/internal/gid"
)

// A Reader is one receiver's place in a lane. Its zero value is not attached; Init and then Attach
// come first.
type Reader[T any] struct {
	lane  atomic.Pointer[Lane[T]] // written with the mutexes of the old and the new lane held
	done  atomic.Uint64           // progress: changes when messages are finished
	waits atomic.Uint64           // of done: not messages, but ends of waits
	owner uint64
	cfg   *Config
	waker Waker

	// Guarded by mu of the lane.
	q      *Queue[T] // nil while it shares the ring
	pos    uint64    // in the ring: the next item to read
	skip   uint64    // items up to this Seq came by replay
	gid    uintptr   // the drainer's goroutine, or the last one's; with Width 1 only
	idx    int32     // in lane.sharers
	own    uint32    // items of its own in [pos, head)
	active int32     // drainers, from the decision to wake one until its last Claim
	gone   bool      // removed for good
	hand   uint16    // so many items before pos are read where they lie in the ring
	x      *rare[T]  // nil while nothing in it is needed
	tally  Tally
}

// rare is what few readers need, kept apart so that an idle reader is small.
type rare[T any] struct {
	before []Item[T]     // come before all else: replay, and what was waiting when the reader moved. Not bounded, but never added to by Append
	quiet  chan struct{} // closed when the reader is gone and its last drainer has ended
	wants  func(T) bool  // what it wants now, when it has changed its interest or shares a group with others that want other things
	want   string        // names wants: equal names want the same. Empty: no other does
	seen   seen
	lag    Lag[T]    // lost on the lane before
	gids   []uintptr // with Width > 1: the goroutines of the active drainers
}

// Init says who the reader is. It is called once, before anything else.
func (r *Reader[T]) Init(owner uint64, cfg *Config, w Waker) { r.owner, r.cfg, r.waker = owner, cfg, w }

func (r *Reader[T]) rare() *rare[T] {
	if r.x == nil {
		r.x = new(rare[T])
	}
	return r.x
}

// lock locks the lane that r is on, and returns it.
func (r *Reader[T]) lock() *Lane[T] {
	for {
		l := r.lane.Load()
		l.mu.Lock()
		if r.lane.Load() == l {
			return l
		}
		l.mu.Unlock()
	}
}

func (r *Reader[T]) skips(it *Item[T]) bool { return it.Seq <= r.skip && it.Seq != 0 }

func (r *Reader[T]) wants(it *Item[T]) bool {
	return r.x == nil || r.x.wants == nil || r.x.wants(it.Val)
}

// Attach puts r on lane l. With private it gets a queue of its own in any case. With held it counts
// as being drained already: nobody wakes it, and the caller is to call Begin.
func (r *Reader[T]) Attach(l *Lane[T], private, held bool) {
	l.mu.Lock()
	r.lane.Store(l)
	if held {
		r.active = 1
	}
	r.attachLocked(l, private)
	l.mu.Unlock()
}

func (r *Reader[T]) attachLocked(l *Lane[T], private bool) {
	if private || r.cfg.Private() {
		q := l.newQueue(r.cfg)
		q.adopt(r)
		l.addQueue(q)
	} else {
		l.share(r)
	}
}

// Join puts r into the group whose lane l is; all its readers compete for the messages. want names
// what it wants, and wants decides it; where all members give the same name, which is not empty,
// nobody is asked.
func (r *Reader[T]) Join(l *Lane[T], want string, wants func(T) bool) {
	l.mu.Lock()
	r.lane.Store(l)
	r.rare().want, r.x.wants = want, wants
	if len(l.queues) == 0 {
		q := l.newQueue(r.cfg)
		q.group = true
		l.addQueue(q)
	}
	l.queues[0].adopt(r)
	l.queues[0].mix()
	wake := r.wakeFor(int(l.queues[0].holds.count))
	l.mu.Unlock()
	if wake {
		r.waker.Wake()
	}
}

// Rejoin changes what a member of a group wants, and returns how many waiting messages nobody wants
// any more; they are dropped.
func (r *Reader[T]) Rejoin(want string, wants func(T) bool) int {
	l := r.lock()
	if r.gone {
		l.mu.Unlock()
		return 0
	}
	r.rare().want, r.x.wants = want, wants
	r.q.mixed = true // what waits may have come for what it wanted before
	n := r.q.purge()
	var w wakes[T]
	r.q.rouse(&w)
	l.pass()
	l.mu.Unlock()
	w.run()
	return n
}

func (q *Queue[T]) mix() {
	q.mixed = q.mixed || slices.ContainsFunc(q.members, func(m *Reader[T]) bool { return m.x.want == "" || m.x.want != q.members[0].x.want })
}

// Enter tells who the drainer is that was woken, before its first Claim, which tells so too.
func (r *Reader[T]) Enter() {
	l := r.lock()
	r.note(gid.Current())
	l.mu.Unlock()
}

// Begin ends a held Attach: items come first, and live ones up to Seq seq, which they cover, are
// skipped. The reader is then woken.
func (r *Reader[T]) Begin(items []Item[T], seq uint64) {
	l := r.lock()
	if r.gone {
		items = nil
	}
	r.skip = seq
	if len(items) > 0 {
		r.rare().before = append(items, r.x.before...)
	}
	l.mu.Unlock()
	r.waker.Wake()
}

// Give puts an item before all that waits for r.
func (r *Reader[T]) Give(it Item[T]) {
	l := r.lock()
	if r.gone {
		l.mu.Unlock()
		return
	}
	r.rare().before = append(r.x.before, it)
	wake := r.wakeFor(1)
	l.mu.Unlock()
	if wake {
		r.waker.Wake()
	}
}

// wakeFor makes r active if it sleeps and has n items before it; the caller is to wake it.
func (r *Reader[T]) wakeFor(n int) bool {
	if n == 0 || r.active > 0 {
		return false
	}
	l := r.lane.Load()
	if r.q != nil {
		r.q.spare--
	} else {
		l.swap(int(r.idx), l.busy)
		l.busy++
		r.pos, r.own = l.head, 0
	}
	r.active = 1
	return true
}

// detach takes r off its ring or queue and returns what it had not claimed.
func (r *Reader[T]) detach(l *Lane[T]) (backlog []Item[T]) {
	if q := r.q; q != nil {
		if q.group {
			q.disown(r)
			return nil
		}
		backlog = slices.DeleteFunc(q.rest(), func(it Item[T]) bool { return r.skips(&it) })
		q.disown(r)
		l.removeQueue(q)
		r.q = nil
		return backlog
	}
	if r.active > 0 {
		for p := r.pos; p != l.head; p++ {
			if it := &l.slots[p&uint64(len(l.slots)-1)]; it.From != r.owner && !r.skips(it) {
				backlog = append(backlog, *it)
			}
		}
	}
	l.unshare(r)
	return backlog
}

// Removed is what a reader left behind.
type Removed[T any] struct {
	Discarded []Item[T] // messages that it had not claimed; the last of a group's members leaves the group's
	Lag       Lag[T]    // what it, or its group, had lost and not been told
	Tally     Tally     // its losses, or with the last of its members those of its group
}

// Remove takes r off its lane for good. Claims return nothing from now on. Calling it again has no
// effect.
func (r *Reader[T]) Remove() (rem Removed[T]) {
	if r.lane.Load() == nil {
		return rem
	}
	l := r.lock()
	if r.gone {
		l.mu.Unlock()
		return rem
	}
	q := r.q
	if q != nil && (!q.group || len(q.members) == 1) {
		rem.Lag, q.lag = q.lag, rem.Lag
		rem.Tally = *q.tally
		if q.group {
			rem.Discarded = q.rest()
		}
	} else if q == nil {
		rem.Tally = r.tally
	}
	if r.x != nil {
		rem.Discarded = append(rem.Discarded, r.x.before...)
		r.x.before = nil
	}
	rem.Discarded = append(rem.Discarded, r.detach(l)...)
	var w wakes[T]
	if q != nil && q.group {
		if len(q.members) > 0 {
			q.mixed = true // what waits may have come for what r wanted
			q.purge()
			q.rouse(&w) // r may have been woken for something
		} else {
			l.removeQueue(q)
		}
	}
	if r.x != nil { // lost on lanes before
		lag := r.x.lag
		lag.add(rem.Lag)
		rem.Lag, r.x.lag = lag, Lag[T]{}
	}
	r.gone = true
	r.q = nil
	l.pass()
	l.mu.Unlock()
	w.run()
	return rem
}

// GiveBack returns to a group what a member claimed and will not handle, as it has been removed or
// wants it no more, and reports whether a member can take it. If none can it is dropped, and counted
// unless r has been removed.
func (r *Reader[T]) GiveBack(it Item[T]) bool {
	l := r.lock()
	if len(l.queues) == 0 || !l.queues[0].group {
		l.mu.Unlock()
		return false
	}
	q := l.queues[0]
	given := q.wanted(&it)
	if given {
		q.enqueueFirst(&it)
	} else if !r.gone {
		q.lost(&it, q.pos-1) // it came before all that waits
	}
	var w wakes[T]
	q.rouse(&w)
	l.mu.Unlock()
	w.run()
	return given
}

// Quiet waits until no drainer of r is active, which is for ever only after Remove. Called from
// inside one it does not wait, nor where that would close a circle of waits.
func (r *Reader[T]) Quiet() {
	if r.lane.Load() == nil {
		return
	}
	l := r.lock()
	if r.active == 0 || r.drainsLocked(gid.Current()) {
		l.mu.Unlock()
		return
	}
	x := r.rare()
	if x.quiet == nil {
		x.quiet = make(chan struct{})
	}
	quiet := x.quiet
	l.mu.Unlock()
	g := l.graph
	w := g.newWaiter()
	defer g.release(w)
	if len(g.enter(w, edge[T]{quiet: r})) > 0 {
		return
	}
	defer g.exit(w)
	<-quiet
}

// Drains reports whether goroutine g is a drainer of r.
func (r *Reader[T]) Drains(g uintptr) bool {
	if r.lane.Load() == nil {
		return false
	}
	l := r.lock()
	defer l.mu.Unlock()
	return r.drainsLocked(g)
}

func (r *Reader[T]) drainsLocked(g uintptr) bool {
	return r.active > 0 && slices.Contains(r.drainers(nil), g)
}

func (r *Reader[T]) drainers(set []uintptr) []uintptr {
	if r.gid != 0 {
		set = append(set, r.gid)
	}
	if r.x != nil {
		set = append(set, r.x.gids...)
	}
	return set
}

// Active reports whether r is being drained, or about to be.
func (r *Reader[T]) Active() bool {
	if r.lane.Load() == nil {
		return false
	}
	l := r.lock()
	defer l.mu.Unlock()
	return r.active > 0
}

// Gone reports whether Remove was called.
func (r *Reader[T]) Gone() bool {
	if r.lane.Load() == nil {
		return false
	}
	l := r.lock()
	defer l.mu.Unlock()
	return r.gone
}

// Owner returns what Init was given.
func (r *Reader[T]) Owner() uint64 { return r.owner }

// Cost returns what the messages cost that wait, as the graph's SetCost says; members of a group
// share it. It is 0 without a MaxCost.
func (r *Reader[T]) Cost() int {
	if r.lane.Load() == nil {
		return 0
	}
	l := r.lock()
	defer l.mu.Unlock()
	if r.gone || r.q == nil {
		return 0
	}
	return int(r.sizeBefore(l).cost + r.q.holds.cost)
}

// Depth returns how many messages wait, and the reader's losses so far; members of a group share
// both.
func (r *Reader[T]) Depth() (depth int, tally Tally) {
	if r.lane.Load() == nil {
		return 0, r.tally
	}
	l := r.lock()
	defer l.mu.Unlock()
	switch {
	case r.gone:
		return 0, r.tally
	case r.q != nil:
		depth, tally = int(r.q.holds.count), *r.q.tally
	default:
		tally = r.tally
		if r.active > 0 {
			depth = int(l.head - r.pos - uint64(r.own))
		}
	}
	if r.x != nil {
		depth += len(r.x.before)
	}
	return depth, tally
}
