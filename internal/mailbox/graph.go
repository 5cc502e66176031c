package mailbox

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/gid"
)

// A Graph is what the lanes of one bus have in common: who waits for whom. Create one with NewGraph.
//
// Its nodes are goroutines. A goroutine that waits to append to a lane waits for every reader that is full there; a reader waits where
// its drainers wait. A wait that closes a circle would never end by itself, so it is not begun: the sender lets the mailbox
// grow instead. Every wait looks for a circle before it begins, one at a time, and looks again whenever it is woken, so the
// last one to close a circle sees it.
type Graph[T any] struct {
	lanes  atomic.Uint64 // ids given out
	closed chan struct{}
	pool   sync.Pool // of *waiter[T]; per graph, as channels must not cross synctest bubbles

	check sync.Mutex // held while looking for a circle; lanes are locked under it, one at a time

	mu      sync.Mutex // guards blocked; nothing is locked under it
	blocked map[uintptr]*waiter[T]
}

// NewGraph returns a graph without lanes.
func NewGraph[T any]() *Graph[T] {
	return &Graph[T]{closed: make(chan struct{}), blocked: map[uintptr]*waiter[T]{}}
}

// Close ends every wait for room. It is called once.
func (g *Graph[T]) Close() { close(g.closed) }

func (g *Graph[T]) newWaiter() *waiter[T] {
	w, _ := g.pool.Get().(*waiter[T])
	if w == nil {
		w = &waiter[T]{ch: make(chan struct{}, 1)}
	}
	w.gid = gid.Current()
	return w
}

func (g *Graph[T]) release(w *waiter[T]) {
	w.lane, w.quiet = nil, nil
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

// park waits until w is signalled or there is another reason to go on. If waiting would close a circle it does not.
func (g *Graph[T]) park(ctx context.Context, w *waiter[T], deadline time.Time) reason {
	if !g.enter(w) {
		return closesCycle
	}
	defer g.exit(w)
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
		return woken
	case <-ctx.Done():
		return contextDone
	case <-timeout:
		return deadlinePassed
	case <-g.closed:
		return graphClosed
	}
}

// enter notes that w's goroutine waits, and reports false when that closes a circle, and it must not.
func (g *Graph[T]) enter(w *waiter[T]) bool {
	g.check.Lock()
	defer g.check.Unlock()
	if g.reaches(w, w.gid, nil) {
		return false
	}
	g.mu.Lock()
	g.blocked[w.gid] = w
	g.mu.Unlock()
	return true
}

func (g *Graph[T]) exit(w *waiter[T]) {
	g.mu.Lock()
	delete(g.blocked, w.gid)
	g.mu.Unlock()
}

// reaches reports whether w waits, directly or by others that wait, for goroutine id.
func (g *Graph[T]) reaches(w *waiter[T], id uintptr, visited map[*waiter[T]]bool) bool {
	for _, drainers := range w.waitsFor() {
		// Those drainers wait together only if all of them do: one that runs will make room.
		var next []*waiter[T]
		found, all := false, true
		g.mu.Lock()
		for _, d := range drainers {
			if d == id {
				found = true
			} else if b := g.blocked[d]; b != nil {
				next = append(next, b)
			} else {
				all = false
				break
			}
		}
		g.mu.Unlock()
		if !all {
			continue
		}
		if found {
			return true
		}
		for _, b := range next {
			if visited[b] {
				continue
			}
			if visited == nil {
				visited = map[*waiter[T]]bool{}
			}
			visited[b] = true
			if g.reaches(b, id, visited) {
				return true
			}
		}
	}
	return false
}

// waitsFor returns the drainers of each reader (or group) that w waits for.
func (w *waiter[T]) waitsFor() (sets [][]uintptr) {
	if w.quiet != nil {
		l := w.quiet.lock()
		defer l.mu.Unlock()
		return w.quiet.appendDrainers(nil)
	}
	l := w.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.sharers[:l.busy] {
		if l.head-r.pos >= l.bound {
			sets = r.appendDrainers(sets)
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
			sets = append(sets, set)
		}
	}
	return sets
}
