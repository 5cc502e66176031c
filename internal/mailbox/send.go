package mailbox

import (
	"context"
	"errors"
	"time"
)

// ErrClosed is the outcome of an append that was waiting when the graph closed.
var ErrClosed = errors.New("mailbox: closed")

// AppendSlow adds it for every reader of the lane but the sender's own, as their policies and the mode say, waiting if need be
// until ctx ends. route is all the lanes that it goes to.
func (l *Lane[T]) AppendSlow(ctx context.Context, it *Item[T], own *Reader[T], mode Mode, route []*Lane[T], o *Outcome[T]) {
	o.route = route
	l.mu.Lock()
	l.look()
	if l.full > 0 && mode == Normal {
		mode = l.await(ctx, o)
		if o.Err == ErrClosed {
			l.mu.Unlock()
			return
		}
	}
	l.commit(it, own, mode, o)
	if len(l.waiters) > 0 {
		if mode == force {
			l.wakeWaiters(len(l.waiters)) // who they wait for has changed: let them look again
		} else {
			l.pass()
		}
	}
	l.mu.Unlock()
	o.wakes.run()
	for _, r := range o.forward {
		r.forward(it)
	}
	o.forward = o.forward[:0]
}

// await waits until nobody is full, or there is a reason to go on without.
func (l *Lane[T]) await(ctx context.Context, o *Outcome[T]) (mode Mode) {
	w := l.graph.newWaiter()
	front := false
	for l.full > 0 {
		l.queueUp(w, front)
		deadline := l.watch(time.Now())
		l.mu.Unlock()
		why := l.graph.park(ctx, w, deadline)
		l.mu.Lock()
		l.leave(w)
		switch why {
		case closesCycle:
			mode = force
		case contextDone:
			mode, o.Err = drop, ctx.Err()
		case graphClosed:
			o.Err = ErrClosed
		case deadlinePassed:
			o.Stalled = append(o.Stalled, l.declareStalled(time.Now())...)
		}
		l.look()
		if mode != Normal || o.Err != nil {
			break
		}
		front = true
	}
	l.graph.release(w)
	return mode
}

// commit adds it for everybody. In mode Normal nobody is full.
func (l *Lane[T]) commit(it *Item[T], own *Reader[T], mode Mode, o *Outcome[T]) {
	if l.full > 0 && len(l.sharers) > 0 {
		for i := 0; i < l.busy; {
			if r := l.sharers[i]; l.head-r.pos >= l.bound {
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
		o.N += l.write(it, own, &o.wakes)
	}
	for _, v := range l.leaving {
		if v.r.owner != it.From && !v.r.isOnAfter(l, o.route) {
			o.forward = append(o.forward, v.r)
			o.N++
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

// A waiter is a goroutine that waits: a sender for the full readers of a lane, or somebody for one reader's handlers to end.
type waiter[T any] struct {
	gid   uintptr
	lane  *Lane[T]
	quiet *Reader[T]
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
	w.lane = l
	select {
	case <-w.ch: // left from the last time
	default:
	}
	l.waiters = append(l.waiters, w)
	if front {
		copy(l.waiters[1:], l.waiters)
		l.waiters[0] = w
	}
	l.watched.Store(true)
}

// leave takes w off the list if it was not taken off when it was woken.
func (l *Lane[T]) leave(w *waiter[T]) {
	for i := range l.waiters {
		if l.waiters[i] == w {
			last := len(l.waiters) - 1
			copy(l.waiters[i:], l.waiters[i+1:])
			l.waiters[last] = nil
			l.waiters = l.waiters[:last]
			l.watched.Store(last > 0)
			return
		}
	}
}

// seen is what the senders that wait for a reader know of its progress. It stalls when done stays the same from at on for its limit.
type seen struct {
	done uint64
	at   time.Time
}

// slow calls f for everybody whom senders wait for and who may stall: the readers, their progress as last seen and their limit.
func (l *Lane[T]) slow(f func(rs []*Reader[T], s *seen, limit time.Duration)) {
	for i := l.busy - 1; i >= 0; i-- { // f may demote the reader
		r := l.sharers[i]
		if l.head-r.pos >= l.bound && r.cfg.Stall > 0 {
			x := r.rare()
			f([]*Reader[T]{r}, &x.seen, r.cfg.Stall)
		}
	}
	for _, q := range l.queues {
		if q.full() && q.policy == Wait && q.members[0].cfg.Stall > 0 {
			f(q.members, &q.seen, q.members[0].cfg.Stall)
		}
	}
}

// progress sums up what the readers have finished, and reports whether one of them waits in a Send of its own, which is not standing still.
func (l *Lane[T]) progress(rs []*Reader[T]) (done uint64, waits bool) {
	for _, r := range rs {
		done += r.done.Load()
		for _, g := range r.drainers(nil) {
			waits = waits || l.graph.isBlocked(g)
		}
	}
	return done, waits
}

// watch notes the progress of all who are full, and returns when the first of them will have stalled, if it finishes nothing: zero for never.
func (l *Lane[T]) watch(now time.Time) (deadline time.Time) {
	l.slow(func(rs []*Reader[T], s *seen, limit time.Duration) {
		if done, waits := l.progress(rs); done != s.done || waits || s.at.IsZero() {
			s.done, s.at = done, now
		}
		if at := s.at.Add(limit); deadline.IsZero() || at.Before(deadline) {
			deadline = at
		}
	})
	return deadline
}

// declareStalled makes those lag who have finished nothing for their limit, and returns them.
func (l *Lane[T]) declareStalled(now time.Time) (stalled []*Reader[T]) {
	l.slow(func(rs []*Reader[T], s *seen, limit time.Duration) {
		done, waits := l.progress(rs)
		if done != s.done || waits {
			s.done, s.at = done, now
			return
		}
		if now.Sub(s.at) < limit {
			return
		}
		stalled = append(stalled, rs[0])
		q := rs[0].q
		if q == nil {
			q = l.demote(rs[0])
		}
		q.lagging = true
	})
	return stalled
}
