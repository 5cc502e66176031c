package websocket

import (
	"net"
	"slices"
	"sync"
	"time"
)

// pending holds the connections that have not been accepted yet. Each has the same time, and when
// there are too many the oldest gives way: honest nodes need a moment only, so whoever takes up
// places to keep them out has to be faster than they are.
type pending struct {
	max  int
	time time.Duration

	mu     sync.Mutex // guards all below
	all    []*waiter  // the oldest first
	closed bool
}

// A waiter is one connection of them.
type waiter struct {
	conn  net.Conn
	timer *time.Timer
	gone  chan struct{} // closed when it was cut
}

func (p *pending) add(conn net.Conn) *waiter {
	w := &waiter{conn: conn, gone: make(chan struct{})}
	p.mu.Lock()
	p.all = append(p.all, w)
	w.timer = time.AfterFunc(p.time, func() { p.cut(w) })
	var leaves *waiter
	switch {
	case p.closed:
		leaves = w
	case len(p.all) > p.max:
		leaves = p.all[0]
	}
	p.mu.Unlock()
	if leaves != nil {
		p.cut(leaves)
	}
	return w
}

// find returns the waiter that conn was added as, if it still waits.
func (p *pending) find(conn net.Conn) *waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.all, func(w *waiter) bool { return w.conn == conn }); i >= 0 {
		return p.all[i]
	}
	return nil
}

// remove ends the wait. It reports whether w still waited: nobody cuts it then.
func (p *pending) remove(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.all, w)
	if i < 0 {
		return false
	}
	p.all = slices.Delete(p.all, i, i+1)
	w.timer.Stop()
	return true
}

func (p *pending) cut(w *waiter) {
	if !p.remove(w) {
		return
	}
	close(w.gone)
	closeNow(w.conn)
}

// close cuts all, and from now on whatever is added.
func (p *pending) close() {
	p.mu.Lock()
	p.closed = true
	all := slices.Clone(p.all)
	p.mu.Unlock()
	for _, w := range all {
		p.cut(w)
	}
}
