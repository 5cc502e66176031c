package mailbox

import (
	"slices"

	"github.com/gravbus/gravbus/internal/gid"
)

// Claim takes items in hand for the calling drainer: up to MaxBatch and len(buf), one where several
// drainers compete; with a MaxCost no more once they cost a quarter of that. It returns first what
// lag there is to be told, if any, then items. When it returns neither, the drainer must end:
// another one is woken when there is more.
//
// The items are in buf, or, of a reader that shares a ring, where they lie there, which saves copying
// them under the mutex: then they are only to be read. They are good until the drainer's next Claim.
//
// Its frame is kept small, and so are those below it on the way to waking a sender, so that the
// stack of a drainer that has just been started need not grow for that: it takes a microsecond, and
// with a fast sender there is one in a thousand messages.
func (r *Reader[T]) Claim(buf []Item[T]) (items []Item[T], lag Lag[T]) {
	return r.ClaimAs(gid.Current(), buf)
}

// ClaimAs is Claim in the place of goroutine g, which is the drainer, as who else must be at work if
// those that wait for r are to go on. The caller does not wait for anybody while it stands in.
func (r *Reader[T]) ClaimAs(g uintptr, buf []Item[T]) (items []Item[T], lag Lag[T]) {
	l := r.lock()
	r.hand = 0
	n := 0
	rousing := l.rousing
	l.rousing = nil
	help := false
	if !r.gone {
		r.note(g)
		switch {
		case r.x != nil && r.x.isFirst():
			n, lag, help = r.claimFirst(l, buf)
		case r.q == nil:
			items = r.claimRing(l, buf)
		default:
			if !r.q.lagIsDue() {
				n = r.q.take(r, buf[:min(len(buf), l.batch)])
			}
			if n == 0 && r.q.lagIsDue() {
				lag, r.q.lag = r.q.lag, lag
			}
		}
	}
	if n > 0 {
		items = buf[:n]
	}
	if len(items) == 0 && lag.Count == 0 {
		r.rest(l, g)
	} else {
		r.done.Add(1)
	}
	l.mu.Unlock()
	if help {
		r.waker.Wake()
	}
	if rousing != nil {
		l.rouse(rousing)
	}
	return items, lag
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

func (r *Reader[T]) claimRing(l *Lane[T], buf []Item[T]) (items []Item[T]) {
	wasFull := r.isFull(l)
	mask := uint64(len(l.slots) - 1)
	buf = buf[:min(len(buf), l.batch)]
	if at := int(r.pos & mask); l.inPlace && r.own == 0 && r.skip == 0 && r.pos != l.head {
		n := min(int(l.head-r.pos), len(buf), len(l.slots)-at)
		items = l.slots[at : at+n : at+n]
		r.pos += uint64(n)
		r.hand = uint16(n)
		if wasFull && !r.isFull(l) {
			l.released() // the ring may go on in another array after it
		}
		return items
	}
	n := 0
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
	return buf[:n]
}

// isFull reports whether senders to lane l have to wait for r, which shares its ring.
func (r *Reader[T]) isFull(l *Lane[T]) bool { return l.head-r.pos-uint64(r.own) >= l.bound }

// isFirst reports whether there is something that comes before all that is on the lane.
func (x *rare[T]) isFirst() bool { return x.lag.Count > 0 || len(x.before) > 0 }

// claimFirst takes from what comes before all that is on the lane. With help another drainer is to
// be woken for the rest.
func (r *Reader[T]) claimFirst(l *Lane[T], buf []Item[T]) (n int, lag Lag[T], help bool) {
	x := r.x
	if x.lag.Count > 0 {
		lag, x.lag = x.lag, lag
		return 0, lag, false
	}
	buf = buf[:min(len(buf), l.batch)]
	if r.cfg.Width > 1 {
		buf = buf[:1]
	}
	buf = buf[:r.affordableBefore(l, x.before[:min(len(buf), len(x.before))])]
	n = copy(buf, x.before)
	clear(x.before[:n])
	x.before = x.before[n:]
	if len(x.before) == 0 {
		x.before = nil
	} else if int(r.active) < r.cfg.Width {
		r.active++
		r.q.spare--
		help = true
	}
	return n, lag, help
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
func (r *Reader[T]) rest(l *Lane[T], g uintptr) {
	r.active--
	r.forget(g)
	switch {
	case r.gone:
		if r.active == 0 && r.x != nil && r.x.quiet != nil {
			close(r.x.quiet)
			r.x.quiet = nil
		}
	case r.q != nil:
		r.q.spare++
		if r.q.holds.count == 0 {
			r.q.caughtUp()
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
