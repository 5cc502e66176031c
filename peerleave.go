package gravbus

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/gid"
)

// Withdraw takes the bus out of the mesh in order. It no longer listens; peers are told, and send
// nothing new; what was on its way in both directions is delivered; then the links are closed. The
// bus goes on to work for its own pods. If ctx ends first the links are closed all the same. The
// error is then a *ShutdownError that names the peers that were not done; so it is when a peer was away
// while something waited for it, or its connection was cut meanwhile. Called from inside a handler
// it does not wait for what is still on its way to this node. A bus that has withdrawn does not come
// back.
func (b *Bus) Withdraw(ctx context.Context) error {
	x := b.mesh
	if x == nil {
		return ErrTransportNotConfigured
	}
	ctx = orBackground(ctx)
	x.quiet.Store(true)
	peers := x.leave(ctx, b.insideHandler(gid.Current()))
	peers = append(peers, x.flush(ctx)...)
	x.close()
	if peers = x.undone(peers); len(peers) > 0 {
		return &ShutdownError{Peers: peers, Err: cmp.Or(ctx.Err(), ErrPeerLost)}
	}
	return nil
}

// undone returns rest, which were not done when a context ended, and the peers that have gone since
// the node leaves without all that was sent to them. The links are closed.
func (x *meshed) undone(rest []string) []string {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	all := append(rest, x.without...)
	slices.Sort(all)
	return slices.Compact(all)
}

// leave tells peers that the node leaves, and waits until they have sent what was on its way; called
// from inside a handler, which may be what that waits for, it does not wait. It returns the peers
// that were not done when ctx ended.
func (x *meshed) leave(ctx context.Context, inside bool) (rest []string) {
	if x == nil {
		return nil
	}
	x.node.Withdraw()
	if inside || x.node.Drained(ctx) == nil {
		return nil
	}
	return x.connected()
}

// flush waits until peers have everything that was sent to them. It returns those that have not
// when ctx ends.
func (x *meshed) flush(ctx context.Context) (rest []string) {
	if x == nil {
		return nil
	}
	x.quiet.Store(true)
	if x.node.Flushed(ctx) == nil {
		return nil
	}
	return x.connected()
}

func (x *meshed) connected() (all []string) {
	for _, l := range x.node.Links() {
		all = append(all, uuid.UUID(l.ID()).String())
	}
	slices.Sort(all)
	return all
}

// close closes the links at once.
func (x *meshed) close() {
	if x != nil {
		x.quiet.Store(true)
		x.cancel() // deliveries must not outlast the links
		x.node.Close()
	}
}
