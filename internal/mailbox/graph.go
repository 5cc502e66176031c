package mailbox

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/gid"
)

// A Graph is what the lanes of one bus have in common: who waits for whom. Create one with
// NewGraph.
//
// Its nodes are goroutines. A goroutine that waits to append to a lane waits for every reader that
// is full there; a reader waits where its drainers wait. A wait that closes a circle would never
// end by itself, so it is not begun: the sender lets the mailbox grow instead. Every wait looks for
// a circle before it begins, one at a time, and looks again whenever it is woken, so the last one
// to close a circle sees it.
type Graph[T any] struct {
	shared *sync.Mutex   // of all lanes, nil if each has its own
	lanes  atomic.Uint64 // ids given out
	looks  atomic.Uint64 // at who makes progress
	sent   atomic.Int64  // see CountSent
	closed chan struct{}
	cost   func(T) int // see SetCost
	pool   sync.Pool   // of *waiter[T]; per graph, as channels must not cross synctest bubbles

	check sync.Mutex // held while looking for a circle; lanes are locked under it, one at a time

	mu      sync.Mutex // guards blocked; nothing is locked under it
	blocked map[uintptr]edge[T]
}

// NewGraph returns a graph without lanes. With a shared mutex its lanes have that one in common: it
// is meant for senders that have to take it anyway, so that they take one less.
func NewGraph[T any](shared *sync.Mutex) *Graph[T] {
	return &Graph[T]{shared: shared, closed: make(chan struct{}), blocked: map[uintptr]edge[T]{}}
}

// SetCost says what a message costs, at least 0, for the readers with a MaxCost. It is called
// before the first of them is attached; without it nothing costs anything. f is called with a lane
// locked, so it must be quick, and call nobody. Once a message waits, its cost is what f returned
// then.
func (g *Graph[T]) SetCost(f func(T) int) { g.cost = f }

// Close ends every wait for room. It is called once.
func (g *Graph[T]) Close() { close(g.closed) }

// CountSent adds n, which may be negative, to what Sent returns: items that no lane counts.
func (g *Graph[T]) CountSent(n int) { g.sent.Add(int64(n)) }

// Sent returns the sum of what CountSent was given.
func (g *Graph[T]) Sent() uint64 { return uint64(g.sent.Load()) }

func (g *Graph[T]) newWaiter() *waiter[T] {
	w, _ := g.pool.Get().(*waiter[T])
	if w == nil {
		w = &waiter[T]{ch: make(chan struct{}, 1)}
	}
	w.gid = gid.Current()
	return w
}

func (g *Graph[T]) release(w *waiter[T]) {
	w.own = nil
	g.pool.Put(w)
}

func (g *Graph[T]) isBlocked(id uintptr) bool {
	g.mu.Lock()
	_, ok := g.blocked[id]
	g.mu.Unlock()
	return ok
}

type reason int

const (
	woken reason = iota
	closesCycle
	contextDone
	deadlinePassed
	graphClosed
)

// park waits for what e says until w is signalled or there is another reason to go on. If waiting
// would close a circle it does not, and returns those of whom one must not be waited for.
func (g *Graph[T]) park(ctx context.Context, w *waiter[T], e edge[T], deadline time.Time) (reason, []target[T]) {
	if closing := g.enter(w, e); len(closing) > 0 {
		return closesCycle, closing
	}
	defer func() {
		if w.own != nil {
			w.own.waits.Add(1)
			w.own.Progress() // a handler that waited has not stood still. Before it counts as running again: then at no time it looks as if it had
		}
		g.exit(w)
	}()
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		d := time.Until(deadline)
		if w.timer == nil {
			w.timer = time.NewTimer(d)
		} else {
			w.timer.Reset(d)
		}
		timeout = w.timer.C
		defer w.timer.Stop()
	}
	select {
	case <-w.ch:
		return woken, nil
	case <-ctx.Done():
		return contextDone, nil
	case <-timeout:
		return deadlinePassed, nil
	case <-g.closed:
		return graphClosed, nil
	}
}

// enter notes that w's goroutine waits for what e says. If that closes a circle it does not, and
// returns by whom. It is noted before the search, so that of two changes at the same time (a wait
// begins, a lane becomes full) one sees the other; see Lane.recheck.
func (g *Graph[T]) enter(w *waiter[T], e edge[T]) (closing []target[T]) {
	g.check.Lock()
	defer g.check.Unlock()
	g.mu.Lock()
	g.blocked[w.gid] = e
	g.mu.Unlock()
	for _, t := range e.targets() {
		if g.closes(t, w.gid, map[uintptr]bool{w.gid: true}) {
			closing = append(closing, t)
		}
	}
	if len(closing) > 0 {
		g.exit(w)
	}
	return closing
}

func (g *Graph[T]) exit(w *waiter[T]) {
	g.mu.Lock()
	delete(g.blocked, w.gid)
	g.mu.Unlock()
}

// An edge is what a goroutine waits for: to append it to a lane, or that one reader's handlers end.
type edge[T any] struct {
	lane   *Lane[T]
	it     *Item[T]
	exempt []*Queue[T]
	quiet  *Reader[T]
}

// A target is one of those whom an edge leads to: a full sharer, a full queue or, when a reader is
// to be quiet, one of its drainers. The wait for it does not end while all its drainers wait.
type target[T any] struct {
	sharer   *Reader[T]
	queue    *Queue[T]
	drainers []uintptr
}

// targets returns whom e leads to. Those of whom a drainer is not known, as it has only just been
// started, are left out: it runs.
func (e edge[T]) targets() (ts []target[T]) {
	if e.quiet != nil {
		l := e.quiet.lock()
		defer l.mu.Unlock()
		for _, d := range e.quiet.drainers(nil) { // all of them have to end
			ts = append(ts, target[T]{drainers: []uintptr{d}})
		}
		return ts
	}
	e.lane.mu.Lock()
	defer e.lane.mu.Unlock()
	for _, t := range e.lane.fullTargets() {
		if t.queue == nil || !slices.Contains(e.exempt, t.queue) && t.queue.wanted(e.it) {
			ts = append(ts, t)
		}
	}
	return ts
}

// fullTargets returns all who are full and of whom all drainers are known.
func (l *Lane[T]) fullTargets() (ts []target[T]) {
	for _, r := range l.sharers[:l.busy] {
		if r.isFull(l) {
			if set := r.drainers(nil); len(set) == int(r.active) {
				ts = append(ts, target[T]{sharer: r, drainers: set})
			}
		}
	}
	for _, q := range l.queues {
		if !q.full() {
			continue
		}
		var set []uintptr
		running := 0
		for _, m := range q.members {
			running += int(m.active)
			set = m.drainers(set)
		}
		if len(set) == running {
			ts = append(ts, target[T]{queue: q, drainers: set})
		}
	}
	return ts
}

// grow lets t grow past its bound and returns the queues that now may.
func (t target[T]) grow(l *Lane[T]) []*Queue[T] {
	switch {
	case t.queue != nil:
		return []*Queue[T]{t.queue}
	case t.sharer.gone || t.sharer.lane.Load() != l:
		return nil
	case t.sharer.q != nil:
		return []*Queue[T]{t.sharer.q}
	default:
		return []*Queue[T]{l.demote(t.sharer)}
	}
}

// closes reports whether t waits, itself or by others that wait, for goroutine id. Its drainers
// wait together only if all of them do: one that runs will make room. Goroutines visited before are
// not looked at again.
func (g *Graph[T]) closes(t target[T], id uintptr, visited map[uintptr]bool) bool {
	var next []edge[T]
	found := false
	g.mu.Lock()
	for _, d := range t.drainers {
		e, blocked := g.blocked[d]
		switch {
		case d == id:
			found = true
		case !blocked:
			g.mu.Unlock()
			return false
		case !visited[d]:
			visited[d] = true
			next = append(next, e)
		}
	}
	g.mu.Unlock()
	if found {
		return true
	}
	for _, e := range next {
		for _, t := range e.targets() {
			if g.closes(t, id, visited) {
				return true
			}
		}
	}
	return false
}

// recheck is called when the lane is full while senders wait: they may wait for others now than
// those they looked at. If all drainers of one of these wait, that may close a circle, and the
// senders are woken to look again.
func (l *Lane[T]) recheck() {
	if len(l.waiters) == 0 {
		return
	}
	for _, t := range l.fullTargets() {
		if len(t.drainers) > 0 && !slices.ContainsFunc(t.drainers, func(d uintptr) bool { return !l.graph.isBlocked(d) }) {
			l.wakeWaiters(len(l.waiters))
			return
		}
	}
}
