// Package discovery is the contract between a bus and what finds other nodes.
//
// A discovery tells the bus where nodes might be. That is a hint and no more: the bus dials them
// and lets the handshake decide. Package mdns finds nodes on the same LAN, package static knows
// them from the configuration. Package discoverytest checks the rules that stand here; a discovery
// of your own should pass it.
package discovery

import (
	"context"
	"log/slog"
)

// A Discovery finds nodes. It is used by one bus at a time.
type Discovery interface {
	// Start begins to announce this node and to look for others, and returns once it does. An
	// error that will not go away by itself, such as a bad configuration, is returned here; what
	// goes wrong later is logged, and tried again. The context bounds Start only.
	//
	// found is called for each node that turns up, itself and nodes of other meshes included if
	// they cannot be told apart: the bus knows. It is called again and again, as long as the node
	// is there or might be, as the bus dials only when it is told of a node: at most every second
	// for one node, at least every minute. It may be called from any goroutine, but is not called
	// twice at the same time. It returns soon, and must not be called after Close has returned.
	Start(ctx context.Context, self Self, found func(Node)) (Session, error)
}

// Self is this node.
type Self struct {
	UUID      string          // 36 characters
	Mesh      string          // nodes of other meshes need not be found
	Endpoints func() []string // where it can be reached, the best first; empty if it only dials. May change
	Log       *slog.Logger    // never nil
}

// A Node is one that may be there.
type Node struct {
	UUID      string   // empty if not known
	Endpoints []string // where it may be reached, the best first; not empty
}

// A Session is a Discovery at work. Its methods are safe for concurrent use.
type Session interface {
	// Hurry makes it look at once and often for a while, as when a peer was lost. It does not wait.
	Hurry()

	// Close ends it. When it returns, no goroutine of it is left, found is not running and will
	// not be called any more, and this node is no longer announced. Calling it again returns nil.
	Close() error
}
