package mailbox

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/gid"
)

// A Reader is one receiver's place in a lane. Its zero value is not attached; Init and then Attach
// come first.
type Reader[T any] struct {
	lane  atomic.Pointer[Lane[T]] // written with the mutexes of the old and the new lane held
	done  atomic.Uint64           // progress: changes when messages are finished
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
	x      *rare[T]  // nil while nothing in it is needed
	tally  Tally
}

// rare is what few readers need, kept apart so that an idle reader is small.
type rare[T any] struct {
	before []Item[T]     // come before all else: replay, and what was waiting when the reader moved. Not bounded, but never added to by Append
	quiet  chan struct{} // closed when the reader is gone and its last drainer has ended
	wants  func(T) bool  // what it wants now, when it has changed its interest or shares a group with others that want other things
	want   string        // names wants: equal names want the same
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
	if private || r.cfg.private() {
		q := l.newQueue(r.cfg)
		q.adopt(r)
		l.addQueue(q)
	} else {
		l.share(r)
	}
}

// Join puts r into the group whose lane l is; all its readers compete for the messages. want names
// what it wants, and wants decides it; where all members give the same name nobody is asked.
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
	wake := r.wakeFor(int(l.queues[0].count))
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
	q.mixed = q.mixed || slices.ContainsFunc(q.members, func(m *Reader[T]) bool { return m.x.want != q.members[0].x.want })
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

// A leaver is a reader that went on to another lane.
//
// A sender that looked up its lanes before the new one was known has only the old one on its route.
// For it the reader is still here: what it appends is forwarded. A sender whose route has a later
// lane of the reader's finds it there. Once the new lane is known, only senders whose route is
// stale are concerned.
type leaver[T any] struct {
	r     *Reader[T]
	at    time.Time
	known bool
}

// leaverAge is how long leavers are remembered. A Send that is in progress for longer, because it
// waits for pods that may block it so long, could miss a reader that changed its interest
// meanwhile.
const leaverAge = 5 * time.Minute

// Move takes r to lane l, which must be younger than its own, and which nobody sends to yet. What
// was waiting comes along if it is wanted. private is as for Attach. publish is called to make the
// lane known. Nothing is lost or doubled by sends in progress.
func (r *Reader[T]) Move(l *Lane[T], private bool, wants func(T) bool, publish func()) {
	old := r.lock()
	if r.gone {
		old.mu.Unlock()
		publish()
		return
	}
	if l.mu != old.mu {
		l.mu.Lock()
	}
	x := r.rare()
	if r.q != nil {
		x.lag.add(r.q.lag)
	}
	most := max(r.cfg.Cap, len(x.before))
	backlog := r.detach(old)
	x.wants = wants
	x.before = slices.DeleteFunc(append(x.before, backlog...), func(it Item[T]) bool { return !wants(it.Val) })
	for len(x.before) > most {
		r.dropBefore()
	}
	old.remember(leaver[T]{r: r, at: time.Now()})
	r.lane.Store(l)
	r.attachLocked(l, private)
	wake := r.wakeFor(len(x.before) + int(min(x.lag.Count, 1)))
	if l.mu != old.mu {
		l.mu.Unlock()
	}
	old.pass()
	rousing := old.rousing // r may have been the one to do it
	old.rousing = nil
	old.mu.Unlock()
	old.rouse(rousing)
	if wake {
		r.waker.Wake()
	}
	publish()
	old.mu.Lock()
	for i := range old.leaving {
		if v := &old.leaving[i]; v.r == r && !v.known {
			v.known = true
			old.unknown--
		}
	}
	old.changed()
	old.mu.Unlock()
}

// dropBefore drops the oldest of what comes before all else.
func (r *Reader[T]) dropBefore() {
	x := r.x
	it := x.before[0]
	x.before[0] = Item[T]{}
	x.before = x.before[1:]
	r.tally.Dropped++
	if x.lag.Count == 0 {
		r.tally.Lags++
		x.lag.From = it.Val
	}
	x.lag.Count++
	x.lag.To = it.Val
}

// remember notes a leaver, and forgets those that have gone or left long ago.
func (l *Lane[T]) remember(v leaver[T]) {
	if len(l.leaving) >= l.leavingMost {
		l.leaving = slices.DeleteFunc(l.leaving, func(o leaver[T]) bool { return o.known && v.at.Sub(o.at) > leaverAge })
		l.leavingMost = max(16, 2*len(l.leaving))
	}
	l.leaving = append(l.leaving, v)
	l.unknown++
	l.changed()
}

// isOnAfter reports whether the route has a lane that r is on, or was, after it left l. The caller
// holds l.mu; lanes are locked in order of age.
func (r *Reader[T]) isOnAfter(l *Lane[T], route []*Lane[T]) bool {
	for _, other := range route {
		if other.id > l.id && (r.lane.Load() == other || other.hasLeft(r)) {
			return true
		}
	}
	return false
}

func (l *Lane[T]) hasLeft(r *Reader[T]) bool {
	if l.graph.shared == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
	}
	return slices.ContainsFunc(l.leaving, func(v leaver[T]) bool { return v.r == r })
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

// forward gives r an item that was sent to a lane it has left, and reports whether r wants it.
func (r *Reader[T]) forward(it *Item[T]) bool {
	l := r.lock()
	if r.gone || r.skips(it) || !r.wants(it) {
		l.mu.Unlock()
		return false
	}
	r.x.before = append(r.x.before, *it)
	if len(r.x.before) > r.cfg.Cap {
		r.dropBefore()
	}
	wake := r.wakeFor(1)
	l.mu.Unlock()
	if wake {
		r.waker.Wake()
	}
	return true
}

// Claim takes items in hand for the calling drainer: up to MaxBatch and len(buf), one where several
// drainers compete. It returns first what lag there is to be told, if any, then items. When it
// returns neither, the drainer must end: another one is woken when there is more.
func (r *Reader[T]) Claim(buf []Item[T]) (n int, lag Lag[T]) {
	l := r.lock()
	if r.gone {
		r.rest(l)
		rousing := l.rousing
		l.rousing = nil
		l.mu.Unlock()
		l.rouse(rousing)
		return 0, lag
	}
	r.note(gid.Current())
	var w wakes[T]
	rousing := l.rousing
	l.rousing = nil
	switch {
	case r.x != nil && r.x.lag.Count > 0:
		lag, r.x.lag = r.x.lag, lag
	case r.x != nil && len(r.x.before) > 0:
		n = r.claimBefore(l, buf, &w)
	case r.q == nil:
		n = r.claimRing(l, buf)
	default:
		if lag = r.q.dueLag(); lag.Count == 0 {
			n = r.q.take(r, buf[:min(len(buf), l.batch)])
			if n == 0 {
				lag = r.q.dueLag()
			}
		}
	}
	if n == 0 && lag.Count == 0 {
		r.rest(l)
	} else {
		r.done.Add(1)
	}
	l.mu.Unlock()
	if w.one != nil {
		w.run()
	}
	if rousing != nil {
		l.rouse(rousing)
	}
	return n, lag
}

// rouse wakes the readers and gives back the slice.
func (l *Lane[T]) rouse(rousing []*Reader[T]) {
	for _, r := range rousing {
		r.waker.Wake()
	}
	clear(rousing)
	l.mu.Lock()
	if cap(rousing) > cap(l.spare) {
		l.spare = rousing[:0]
	}
	l.mu.Unlock()
}

func (r *Reader[T]) claimRing(l *Lane[T], buf []Item[T]) (n int) {
	wasFull := r.isFull(l)
	mask := uint64(len(l.slots) - 1)
	buf = buf[:min(len(buf), l.batch)]
	for n < len(buf) && r.pos != l.head {
		s := &l.slots[r.pos&mask]
		r.pos++
		switch {
		case s.From == r.owner:
			r.own--
		case r.skips(s):
		default:
			buf[n] = *s
			n++
		}
	}
	if wasFull && !r.isFull(l) {
		l.released()
	}
	return n
}

// isFull reports whether senders to lane l have to wait for r, which shares its ring.
func (r *Reader[T]) isFull(l *Lane[T]) bool { return l.head-r.pos-uint64(r.own) >= l.bound }

// claimBefore takes from what comes before all else, and wakes more drainers if the reader may have
// them.
func (r *Reader[T]) claimBefore(l *Lane[T], buf []Item[T], w *wakes[T]) int {
	x := r.x
	buf = buf[:min(len(buf), l.batch)]
	if r.cfg.Width > 1 {
		buf = buf[:1]
	}
	n := copy(buf, x.before)
	clear(x.before[:n])
	x.before = x.before[n:]
	if len(x.before) == 0 {
		x.before = nil
	} else if int(r.active) < r.cfg.Width {
		r.active++
		r.q.spare--
		w.add(r)
	}
	return n
}

// note remembers which goroutine drains.
func (r *Reader[T]) note(g uintptr) {
	if r.cfg.Width == 1 {
		r.gid = g
	} else if x := r.rare(); !slices.Contains(x.gids, g) {
		x.gids = append(x.gids, g)
	}
}

// rest ends the calling drainer: the reader sleeps, or is quiet for good.
func (r *Reader[T]) rest(l *Lane[T]) {
	r.active--
	r.forget(gid.Current())
	switch {
	case r.gone:
		if r.active == 0 && r.x != nil && r.x.quiet != nil {
			close(r.x.quiet)
			r.x.quiet = nil
		}
	case r.q != nil:
		r.q.spare++
		if r.q.count == 0 && !r.q.group {
			r.q.caughtUp()
		} else if r.q.count == 0 {
			r.q.lagging = false
		} else {
			l.recheck() // the other members may all wait now
		}
	default:
		l.busy--
		l.swap(int(r.idx), l.busy)
		if l.busy == 0 {
			l.tidy()
		}
	}
}

// Return gives back items that the calling drainer claimed and will not handle; they come first
// again. The drainer is no longer one; another is to be started in its place.
func (r *Reader[T]) Return(items []Item[T]) {
	l := r.lock()
	defer l.mu.Unlock()
	r.forget(gid.Current())
	if !r.gone && len(items) > 0 {
		x := r.rare()
		x.before = append(items, x.before...)
	}
}

func (r *Reader[T]) forget(g uintptr) {
	r.gid = 0
	if r.cfg.Width > 1 && r.x != nil {
		r.x.gids = slices.DeleteFunc(r.x.gids, func(o uintptr) bool { return o == g })
	}
}

// Watched returns 0 if no senders wait where r reads. Otherwise, Progress is to be called when a
// message has been finished, once for each value.
func (r *Reader[T]) Watched() uint64 { return r.lane.Load().watched.Load() }

// Progress tells the senders that wait that r goes on.
func (r *Reader[T]) Progress() { r.done.Add(1) }

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

// GiveBack returns to a group what a member claimed that is being removed before it began with it,
// and reports whether a member can take it.
func (r *Reader[T]) GiveBack(it Item[T]) bool {
	l := r.lock()
	if len(l.queues) == 0 || !l.queues[0].group {
		l.mu.Unlock()
		return false
	}
	q := l.queues[0]
	if !q.wanted(&it) {
		l.mu.Unlock()
		return false
	}
	q.enqueueFirst(&it)
	var w wakes[T]
	q.rouse(&w)
	l.mu.Unlock()
	w.run()
	return true
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
		depth, tally = int(r.q.count), *r.q.tally
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
