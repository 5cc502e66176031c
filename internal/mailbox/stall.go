package mailbox

import (
	"slices"
	"time"
)

// seen is what the senders that wait for a reader know of its progress. It stalls when done stays
// the same from at on for its limit.
type seen struct {
	watch uint64 // of the lane, when at was set
	done  uint64
	at    time.Time
	look  time.Time // when somebody looked last
}

// notice is called whenever somebody looks. Who waits looks in quarters of the limit: a look that
// comes much later means that the whole process did not run, as after a SIGSTOP, so that the reader
// had no chance to go on. Then it begins anew.
func (s *seen) notice(now time.Time, limit time.Duration) {
	if !s.look.IsZero() && now.Sub(s.look) > limit/2 {
		s.at = now
	}
	s.look = now
}

// slow calls f for everybody for whom it waits and who may stall: the readers, their progress as
// last seen and their limit.
func (l *Lane[T]) slow(it *Item[T], exempt []*Queue[T], f func(rs []*Reader[T], s *seen, limit time.Duration)) {
	for i := l.busy - 1; i >= 0; i-- { // f may demote the reader
		r := l.sharers[i]
		if r.isFull(l) && r.cfg.Stall > 0 {
			x := r.rare()
			f([]*Reader[T]{r}, &x.seen, r.cfg.Stall)
		}
	}
	for _, q := range l.queues {
		if q.full() && q.policy == Wait && !slices.Contains(exempt, q) && q.wanted(it) {
			if limit := q.members[0].cfg.Stall; limit > 0 { // of who has been there longest
				f(q.members, &q.seen, limit)
			}
		}
	}
}

// progress sums up what the readers have finished, and reports whether one of them waits in a Send
// of its own, which is not standing still.
func (l *Lane[T]) progress(rs []*Reader[T]) (done uint64, waits bool) {
	for _, r := range rs {
		for _, g := range r.drainers(nil) {
			waits = waits || l.graph.isBlocked(g)
		}
	}
	for _, r := range rs { // after that: who stops waiting reports progress first
		done += r.done.Load()
	}
	return done, waits
}

// goesOnEvery is how often an append that is to tell so looks whether those who are full go on.
const goesOnEvery = 200 * time.Millisecond

// goesOnFor is how long a handler that waits in a Send of its own goes on without having finished
// anything. Two nodes whose handlers wait for each other must not keep telling each other so.
const goesOnFor = 10 * time.Second

// progressSum is what those who are full had finished, and since when it is so much.
type progressSum struct {
	done uint64
	at   time.Time
}

// moved reports whether those for whom it waits have finished something since seen was set, or have
// waited themselves for not too long, and sets it.
func (l *Lane[T]) moved(now time.Time, it *Item[T], exempt []*Queue[T], seen *progressSum) bool {
	sum, wait := uint64(0), false
	add := func(rs []*Reader[T]) {
		done, waits := l.progress(rs)
		sum, wait = sum+done, wait || waits
		for _, r := range rs {
			sum -= r.waits.Load() // who waits looks around now and then, and has finished nothing by that
		}
	}
	for _, r := range l.sharers[:l.busy] {
		if r.isFull(l) {
			add([]*Reader[T]{r})
		}
	}
	for _, q := range l.queues {
		if q.full() && !slices.Contains(exempt, q) && q.wanted(it) {
			add(q.members)
		}
	}
	if finished := sum != seen.done; finished || seen.at.IsZero() {
		first := seen.at.IsZero()
		*seen = progressSum{sum, now}
		return !first
	}
	return wait && now.Sub(seen.at) < goesOnFor
}

// watch notes the progress of all who are full, and returns when to look again: zero for never.
func (l *Lane[T]) watch(now time.Time, it *Item[T], exempt []*Queue[T]) (deadline time.Time) {
	l.slow(it, exempt, func(rs []*Reader[T], s *seen, limit time.Duration) {
		if done, waits := l.progress(rs); done != s.done || waits || s.watch != l.watches {
			s.watch, s.done, s.at, s.look = l.watches, done, now, time.Time{}
		}
		s.notice(now, limit)
		for _, at := range []time.Time{s.at.Add(limit), now.Add(limit / 4)} {
			if deadline.IsZero() || at.Before(deadline) {
				deadline = at
			}
		}
	})
	l.watched.Store(l.graph.looks.Add(1)) // after the look: what is finished from now on is progress
	return deadline
}

// declareStalled makes those lag who have finished nothing for their limit, and returns them.
func (l *Lane[T]) declareStalled(now time.Time, it *Item[T], exempt []*Queue[T]) (stalled []*Reader[T]) {
	l.slow(it, exempt, func(rs []*Reader[T], s *seen, limit time.Duration) {
		done, waits := l.progress(rs)
		if done != s.done || waits || s.watch != l.watches {
			*s = seen{watch: l.watches, done: done, at: now, look: now}
			return
		}
		s.notice(now, limit)
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
