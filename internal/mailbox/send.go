package mailbox

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"
)

// ErrClosed is the outcome of an append that was waiting when the graph closed.
var ErrClosed = errors.New("mailbox: closed")

// AppendSlow adds it for every reader of the lane but the sender's own, as their policies and the
// mode say, waiting if need be until ctx ends. own is as for AppendLocked; route is all the lanes
// that it goes to.
func (l *Lane[T]) AppendSlow(ctx context.Context, it *Item[T], own *Reader[T], mode Mode, route []*Lane[T], o *Outcome[T]) {
	o.route = route
	l.mu.Lock()
	for yields := 0; yields < maxYields && mode == Normal && l.waiting == 0 && l.isFullFor(it, own, nil); yields++ {
		l.mu.Unlock()
		runtime.Gosched()
		l.mu.Lock()
	}
	if mode == Normal && l.isFullFor(it, own, nil) {
		mode = l.await(ctx, it, own, o)
		if errors.Is(o.Err, ErrClosed) {
			l.mu.Unlock()
			return
		}
	}
	l.finish(it, own, mode, o)
}

// maxYields is how often a sender lets others run before it waits: they may make room meanwhile, and
// more of it than a reader has when it is just no longer full. To park and be woken costs more; 15 %
// less time for one to one and one to ten.
const maxYields = 2

// TryAppend is AppendSlow in mode Normal if that need not wait. Else it does nothing and returns
// false.
func (l *Lane[T]) TryAppend(it *Item[T], own *Reader[T], route []*Lane[T], o *Outcome[T]) bool {
	o.route = route
	l.mu.Lock()
	if l.isFullFor(it, own, nil) {
		l.mu.Unlock()
		return false
	}
	l.finish(it, own, Normal, o)
	return true
}

// finish adds it, unlocks the lane and wakes whom that concerns.
func (l *Lane[T]) finish(it *Item[T], own *Reader[T], mode Mode, o *Outcome[T]) {
	l.commit(it, own, mode, o)
	l.pass()
	l.mu.Unlock()
	o.wakes.run()
	for _, r := range o.forward {
		if r.Forward(it) && !r.cfg.Extra {
			o.N++
			if o.Targets != nil {
				*o.Targets = append(*o.Targets, Target[T]{[]*Reader[T]{r}})
			}
		}
	}
	o.forward = o.forward[:0]
}

// Wanted reports whether a reader of the lane would take it.
func (l *Lane[T]) Wanted(it *Item[T]) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.queues, func(q *Queue[T]) bool { return q.wanted(it) }) ||
		slices.ContainsFunc(l.sharers, func(r *Reader[T]) bool { return r.owner != it.From })
}

// isFullFor reports whether it has to wait for somebody: a full reader that would get it, and that
// is not exempt.
func (l *Lane[T]) isFullFor(it *Item[T], own *Reader[T], exempt []*Queue[T]) bool {
	l.look()
	if l.full == 0 {
		return false
	}
	if own != nil && own.lane.Load() == l && !own.gone && own.q == nil && own.active > 0 && own.isFull(l) {
		l.demote(own) // it does not get what it sends itself, and must not be in the way of it
		l.look()
	}
	n := l.full
	for _, q := range l.queues {
		if q.full() && (slices.Contains(exempt, q) || !q.wanted(it)) {
			n--
		}
	}
	return n > 0
}

// await waits until nobody that has to be waited for is full, or there is a reason to go on
// without. Readers that wait for the sender themselves need not be waited for: they are made
// exempt, and grow.
func (l *Lane[T]) await(ctx context.Context, it *Item[T], own *Reader[T], o *Outcome[T]) (mode Mode) {
	w := l.graph.newWaiter()
	defer l.graph.release(w)
	waitsWith := *it // a copy, so that it does not escape where nobody waits
	l.waiting++
	if l.waiting == 1 {
		l.watches++ // all begin anew to stand still
	}
	front := false
	var seen progressSum
	for mode == Normal && l.isFullFor(it, own, o.exempt) {
		w.picky = len(o.exempt) > 0 || own != nil && own.lane.Load() == l ||
			slices.ContainsFunc(l.queues, func(q *Queue[T]) bool { return !q.wanted(it) })
		l.queueUp(w, front)
		now := time.Now()
		deadline := l.watch(now, it, o.exempt)
		goesOn := false
		if o.GoesOn != nil {
			goesOn = l.moved(now, it, o.exempt, &seen)
			if look := now.Add(goesOnEvery); deadline.IsZero() || look.Before(deadline) {
				deadline = look
			}
		}
		l.mu.Unlock()
		if goesOn {
			o.GoesOn()
		}
		if !front && own != nil && own.Drains(w.gid) {
			w.own = own
		}
		front = true
		why, closing := l.graph.park(ctx, w, edge[T]{lane: l, it: &waitsWith, exempt: o.exempt}, deadline)
		l.mu.Lock()
		l.leave(w)
		switch why {
		case closesCycle:
			for _, c := range closing {
				o.exempt = append(o.exempt, c.grow(l)...)
			}
		case contextDone:
			mode, o.Err = drop, ctx.Err()
		case graphClosed:
			mode, o.Err = drop, ErrClosed
		case deadlinePassed:
			o.Stalled = append(o.Stalled, l.declareStalled(time.Now(), it, o.exempt)...)
		}
	}
	l.waiting--
	if l.waiting == 0 {
		l.watched.Store(0)
	}
	return mode
}

// commit adds it for everybody. In mode Normal nobody is full but those who are exempt.
func (l *Lane[T]) commit(it *Item[T], own *Reader[T], mode Mode, o *Outcome[T]) {
	l.look()
	if l.full > 0 && len(l.sharers) > 0 {
		for i := 0; i < l.busy; {
			if r := l.sharers[i]; r.isFull(l) {
				l.demote(r)
			} else {
				i++
			}
		}
		l.look()
	}
	for _, q := range l.queues {
		q.push(it, mode, o)
	}
	if len(l.sharers) > 0 {
		if o.Targets != nil {
			for _, r := range l.sharers {
				if r.owner != it.From {
					*o.Targets = append(*o.Targets, Target[T]{[]*Reader[T]{r}})
				}
			}
		}
		l.put(it)
		n, wake := l.wrote(it.From, own)
		o.N += n
		if wake != nil {
			o.wakes.add(wake)
		}
	}
	l.count()
	stale := o.Stale != nil && o.Stale()
	if l.unknown == 0 && !stale {
		return
	}
	for _, v := range l.leaving {
		if !stale && v.known {
			continue
		}
		if r := v.r.Value(); r != nil && r.owner != it.From && !r.isOnAfter(l, o.route) {
			o.forward = append(o.forward, r)
		}
	}
}

// wakes collects the readers to wake once the lock is released.
type wakes[T any] struct {
	one  *Reader[T]
	more []*Reader[T]
}

func (w *wakes[T]) add(r *Reader[T]) {
	if w.one == nil {
		w.one = r
		return
	}
	w.more = append(w.more, r)
}

func (w *wakes[T]) run() {
	if w.one != nil {
		w.one.waker.Wake()
		for _, r := range w.more {
			r.waker.Wake()
		}
		*w = wakes[T]{}
	}
}

// A waiter is a goroutine that waits: a sender for the full readers of a lane, or somebody for one
// reader's handlers to end.
type waiter[T any] struct {
	gid   uintptr
	own   *Reader[T]    // that it drains, if that is known
	picky bool          // it need not wait for all who are full: it looks at every release
	ch    chan struct{} // capacity 1
	timer *time.Timer
}

func (w *waiter[T]) signal() {
	select {
	case w.ch <- struct{}{}:
	default:
	}
}

func (l *Lane[T]) queueUp(w *waiter[T], front bool) {
	select {
	case <-w.ch: // left from the last time
	default:
	}
	l.waiters = append(l.waiters, w)
	if front {
		copy(l.waiters[1:], l.waiters)
		l.waiters[0] = w
	}
}

// leave takes w off the list if it was not taken off when it was woken.
func (l *Lane[T]) leave(w *waiter[T]) {
	for i := range l.waiters {
		if l.waiters[i] == w {
			last := len(l.waiters) - 1
			copy(l.waiters[i:], l.waiters[i+1:])
			l.waiters[last] = nil
			l.waiters = l.waiters[:last]
			return
		}
	}
}
