package mesh

import (
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/gid"
)

// lendSize bounds the packet after which the reader lends itself. After a larger one there is likely
// to be another one at once, and two goroutines get on faster than one.
const lendSize = 1 << 10

// recallTime is how often recall looks.
const recallTime = time.Millisecond

// loan is about the goroutine that reads a connection, which lends itself to whom a packet has woken.
//
// Invariant: one goroutine at a time reads, and has all that the reader owns, and its place in
// node.wg. While it is lent nobody reads. Then who changes state first has the place: the goroutine
// itself when it comes back, or one that replaces it. The number of the loan tells a goroutine that
// comes back late that it has been replaced.
type loan struct {
	state  atomic.Uint64  // the number of the last loan, and in the lowest two bits how it stands
	to     atomic.Uintptr // the goroutine that is lent. Of use only while it is
	recall atomic.Bool    // timer runs, or is about to be started
	timer  *time.Timer
	seen   uint64 // what state was when recall looked last. Its own
	number uint64 // of the last loan. The reader's
}

// How a loan stands.
const (
	loanOver = 0
	loanOut  = 1
	loanLong = 2 // it was out already when recall looked last
	loanBits = 2
)

// wake notes who has been woken by the packet that is being read: one to whom the reader may lend
// itself. If there are more they are woken in the ordinary way, and it returns false.
func (c *conn[T]) wake(w Woken) bool {
	if c.woken == nil {
		c.woken = w
		return true
	}
	c.woken.Wake()
	w.Wake()
	c.woken = nil
	return false
}

// lend does in the goroutine that reads what w has to do. To start another one takes longer than what
// most handlers do, and wakes a processor, which the peer may be in need of.
//
// It may take long, though, and it may wait for something that the peer is to say. So another goroutine
// reads in the place of this one when w says that it waits, see StepAside, or has not been done in one
// to two times recallTime. Then lend returns false.
func (c *conn[T]) lend(w Woken) (back bool) {
	l := &c.loan
	l.number++
	id := l.number << loanBits
	l.to.Store(gid.Current())
	c.link.node.lent.Add(1)
	l.state.Store(id | loanOut)
	if !l.recall.Load() {
		c.watch()
	}
	returned := false
	defer func() {
		back = c.endLoan(id)
		if back && !returned {
			go c.read() // the handler has called runtime.Goexit
		}
	}()
	w.Run()
	returned = true
	return back
}

// endLoan ends a loan and reports whether it had not been ended. Who ends it is to read, or to see to it
// that another goroutine does.
func (c *conn[T]) endLoan(id uint64) bool {
	l := &c.loan
	if !l.state.CompareAndSwap(id|loanOut, id) && !l.state.CompareAndSwap(id|loanLong, id) {
		return false
	}
	c.link.node.lent.Add(-1)
	return true
}

// replace lets another goroutine read in the place of the one that is lent, if it still is.
func (c *conn[T]) replace(state uint64) {
	if c.endLoan(state >> loanBits << loanBits) {
		go c.read()
	}
}

// watch sees to it that recall is called.
func (c *conn[T]) watch() {
	if !c.loan.recall.Swap(true) {
		c.loan.timer.Reset(recallTime)
	}
}

// recall replaces a reader that has been lent for too long. It is called again and again while there
// are new loans.
func (c *conn[T]) recall() {
	l := &c.loan
	state := l.state.Load()
	fresh := state != l.seen
	l.seen = state
	switch state & (1<<loanBits - 1) {
	case loanOut:
		l.state.CompareAndSwap(state, state-loanOut+loanLong)
	case loanLong:
		c.replace(state)
	case loanOver:
		if !fresh {
			l.recall.Store(false)
			if l.state.Load() != state {
				c.watch() // lend may have seen recall as it was
			}
			return
		}
	}
	l.timer.Reset(recallTime)
}

// StepAside is to be called by a goroutine that is about to wait for something that may have to come
// from a peer. If it is one that reads from a peer and is lent, another one takes its place.
func (n *Node[T]) StepAside() {
	if n.lent.Load() == 0 {
		return
	}
	self := gid.Current()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.mu.Lock()
		c := l.conn
		l.mu.Unlock()
		if c != nil && c.loan.to.Load() == self {
			c.replace(c.loan.state.Load())
		}
	}
}
