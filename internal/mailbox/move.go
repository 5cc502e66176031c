package mailbox

import (
	"slices"
	"time"
	"weak"
)

// A leaver is a reader that went on to another lane.
//
// A sender that looked up its lanes before the new one was known has only the old one on its route.
// For it the reader is still here: what it appends is forwarded. A sender whose route has a later
// lane of the reader's finds it there. Once the new lane is known, only senders whose route is
// stale are concerned.
//
// A lane does not keep alive who has left it. A reader that nobody else refers to is on no lane.
type leaver[T any] struct {
	r     weak.Pointer[Reader[T]]
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
	left := weak.Make(r)
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
	most := r.mostBefore(old)
	backlog := r.detach(old)
	x.wants = wants
	x.before = slices.DeleteFunc(append(x.before, backlog...), func(it Item[T]) bool { return !wants(it.Val) })
	r.trimBefore(old, most)
	old.remember(leaver[T]{r: left, at: time.Now()})
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
	for i := len(old.leaving) - 1; i >= 0; i-- { // it is among the last
		if v := &old.leaving[i]; v.r == left && !v.known {
			v.known = true
			old.unknown--
			break
		}
	}
	old.changed()
	old.mu.Unlock()
}

// sizeBefore returns the size of what comes before all else.
func (r *Reader[T]) sizeBefore(l *Lane[T]) (s size) {
	if r.x == nil {
		return s
	}
	s.count = uint64(len(r.x.before))
	if r.cfg.MaxCost > 0 {
		for i := range r.x.before {
			s.cost += l.graph.costOf(&r.x.before[i])
		}
	}
	return s
}

// mostBefore returns how much may come before all else once more is added: what a queue may grow
// to, or what replay has put there.
func (r *Reader[T]) mostBefore(l *Lane[T]) size {
	_, most := r.cfg.bounds()
	now := r.sizeBefore(l)
	return size{max(most.count, now.count), max(most.cost, now.cost)}
}

// trimBefore drops the oldest of what comes before all else until it is no larger than most, or one
// is left.
func (r *Reader[T]) trimBefore(l *Lane[T], most size) {
	items := r.x.before
	kept := min(len(items), int(most.count))
	if r.cfg.MaxCost > 0 {
		left := most.cost
		for i := range kept {
			cost := l.graph.costOf(&items[len(items)-1-i])
			if cost > left {
				kept = max(i, 1)
				break
			}
			left -= cost
		}
	}
	for range len(items) - kept {
		r.dropBefore()
	}
}

// dropBefore drops the oldest of what comes before all else.
func (r *Reader[T]) dropBefore() {
	x := r.x
	it := x.before[0]
	x.before[0] = Item[T]{}
	x.before = x.before[1:]
	r.lostBefore(it.Val)
}

func (r *Reader[T]) lostBefore(val T) {
	x := r.rare()
	r.tally.Dropped++
	if x.lag.Count == 0 {
		r.tally.Lags++
		x.lag.From = val
	}
	x.lag.Count++
	x.lag.To = val
}

// remember notes a leaver, and forgets those that nobody refers to any more or that left long ago.
func (l *Lane[T]) remember(v leaver[T]) {
	if len(l.leaving) >= l.leavingMost {
		l.leaving = slices.DeleteFunc(l.leaving, func(o leaver[T]) bool {
			return o.known && (v.at.Sub(o.at) > leaverAge || o.r.Value() == nil)
		})
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
	left := weak.Make(r)
	return slices.ContainsFunc(l.leaving, func(v leaver[T]) bool { return v.r == left })
}

// Lose counts a message that was for r and is not given to it.
func (r *Reader[T]) Lose(val T) {
	l := r.lock()
	r.lostBefore(val)
	l.mu.Unlock()
}

// Forward gives r an item beside its lane, such as one that was sent to a lane it has left: before
// all that waits there. It does not wait; if too much comes so, the oldest of that gives way. It
// reports whether r takes the item.
func (r *Reader[T]) Forward(it *Item[T]) bool {
	l := r.lock()
	if r.gone || r.skips(it) || !r.wants(it) {
		l.mu.Unlock()
		return false
	}
	most := r.mostBefore(l)
	r.rare().before = append(r.x.before, *it)
	r.trimBefore(l, most)
	wake := r.wakeFor(1)
	l.mu.Unlock()
	if wake {
		r.waker.Wake()
	}
	return true
}
