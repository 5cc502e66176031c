// Package peer says what a library has to do to be measured beside the others.
//
// An adapter uses its library as the library's documentation shows for the case at hand, with limits
// lifted where it would lose, and adds as little as it can: what an adapter costs is charged to the
// library.
package peer

import (
	"context"
	"errors"
)

// ErrUnsupported is what an adapter returns, wrapped with the reason, where the library has no such
// thing. A workload that gets it is left out for that peer, and the report says why.
var ErrUnsupported = errors.New("not supported")

// A Kind says with what a peer may be compared.
type Kind string

const (
	// Limit is no bus but what any bus is made of: a figure nobody can be far ahead of.
	Limit Kind = "limit"
	// Async hands messages over to receivers that run beside the sender.
	Async Kind = "async"
	// Sync runs the receivers' functions within the call that publishes: no queue, no hand-over,
	// and a slow receiver stops the sender and all other receivers.
	Sync Kind = "sync"
)

// A Peer is one way of using one library.
type Peer struct {
	ID     string // for the command line: nats-cluster
	Name   string // for people: NATS, cluster
	Module string // the module whose version the report states. Empty: the standard library
	Kind   Kind
	Note   string // one sentence: how it is used, and what to know when reading its figures

	Local  func() (Bus, error) // starts it for use in one process. Nil if that is not its use
	Remote Remote              // how it works between processes. Nil if it does not
}

// A Bus is a library at work.
type Bus interface {
	// Subscribe has fn called with the data of each message published to topic from now on. The
	// calls of one subscription come one at a time, in the order of the library. data is valid
	// during the call. No message published to topic after Subscribe has returned is missed, if
	// the bus is Local.
	Subscribe(topic string, fn func(data []byte)) (Subscription, error)
	// Publisher returns what publishes to topic. It is used from one goroutine.
	Publisher(topic string) (Publisher, error)
	// Close frees everything, subscriptions included.
	Close() error
}

// A Subscription is what Subscribe returns.
type Subscription interface {
	// Cancel ends it.
	Cancel() error
}

// A Publisher publishes to one topic.
type Publisher interface {
	// Message makes a message that carries data, in the form the library sends. It may be
	// published several times. Data is not changed afterwards.
	Message(data []byte) any
	// Publish publishes what Message made. It waits where the library can make it wait.
	Publish(msg any) error
	// Flush returns when what was published needs no further call to get out. It is called after
	// the last Publish, and whenever the next message is not due yet.
	Flush() error
}

// A Requester is a Bus that has requests with one reply. Request may be called from many goroutines.
type Requester interface {
	// Respond answers each request to topic with what fn returns. fn may be called from several
	// goroutines.
	Respond(topic string, fn func(data []byte) []byte) error
	// Request returns the answer.
	Request(ctx context.Context, topic string, data []byte) ([]byte, error)
}

// A Remote starts a library in two processes: the far one, which has subscribers and responders,
// and the near one, which publishes and asks.
type Remote interface {
	// Listen starts n far nodes, each of its own as it would be on a machine of its own, and
	// returns the address (one line) by which the near node reaches them all.
	Listen(n int) (nodes []Bus, addr string, err error)
	// Join starts the near node in another process.
	Join(addr string) (Near, error)
}

// Near is the node that publishes and asks.
type Near interface {
	Bus
	// Ready returns when n far nodes get what is published to topic, or answer it. Afterwards
	// nothing may be missed because a subscription was not known yet.
	Ready(ctx context.Context, topic string, n int) error
}
