package mesh

import "github.com/gravbus/gravbus/internal/wire"

// NewLink returns a link that its node does not know of.
func NewLink[T any](n *Node[T], id wire.ID) *Link[T] { return newLink(n, id) }

// Leave makes the node leave, as far as its links can see.
func (n *Node[T]) Leave() { n.leaving.Store(true) }

// Rest makes a writer say what is to be said beside the stream, with nothing left after it.
func (l *Link[T]) Rest() {
	c := &conn[T]{link: l}
	l.mu.Lock()
	l.idle = false
	l.mu.Unlock()
	c.appendControl()
}

// Chase does what is done when a link has lost its connection and is being dialled already.
func (n *Node[T]) Chase(l *Link[T]) {
	l.mu.Lock()
	l.chasing = true
	l.mu.Unlock()
	n.chase(l, 0)
}

// Lent returns how many goroutines count as lent.
func (n *Node[T]) Lent() int { return int(n.lent.Load()) }
