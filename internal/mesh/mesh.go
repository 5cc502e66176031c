// Package mesh connects a bus with others: it finds and dials them, holds one link to each, and
// sees to it that nothing is lost or doubled when a connection is.
//
// A Node is this bus among its peers. For each peer it has a Link, which outlives the connections
// that carry it: it numbers what it sends, keeps it until the peer has acknowledged it, and goes on
// where the peer's last word was. What is generic here is the message: the bus, as a Host, turns
// messages into their wire form and back, and delivers them.
//
// Goroutines: a node has one that accepts, and one for each peer that is not connected (it dials).
// A connection has one that reads and one that writes, for which a sender may stand in; a link has one
// more while deliveries wait for room. All end before Close returns.
//
// Locks: the order is Node.mu, interests.mu, Link.mu. Nothing of the Host is called under any of
// them.
package mesh

import (
	"log/slog"
	"time"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
)

// Config says how a Node meshes. It must not change.
type Config struct {
	ID           wire.ID
	Name         string // for people
	Mesh         string
	Keys         [][]byte // accepted as proof; the first is preferred. None in an open mesh
	Open         bool     // listen for everybody though there is no key
	Capabilities []string
	Advertise    []string // endpoints to tell others, before those of the listener
	Transport    transport.Transport
	Listen       transport.ListenOptions
	Discoveries  []discovery.Discovery
	Accept       func(*Peer, transport.Info) error // nil: all
	MaxMessage   int                               // bytes of data
	WindowCount  uint64                            // items that a peer may have under way to here
	WindowCost   uint64                            // the same by cost
	DeadAfter    time.Duration                     // silence after which a connection counts as dead
	ResumeFor    time.Duration                     // how long a link waits for its peer to come back
	Handshake    time.Duration                     // most that a handshake may take
	Log          *slog.Logger
}

// Bounds of what strangers and peers can make a node keep.
const (
	MaxHandshakes   = 256   // connections in handshake; the oldest is closed for one more
	MaxKnown        = 1024  // peers whose addresses are remembered
	MaxDials        = 64    // at a time, for what discoveries find
	MaxWindowCount  = 65536 // items under way to one peer, whatever it offers
	MaxWindowCost   = 32 << 20
	strangerDials   = 8       // at a time, for nodes that others tell of
	MaxInterests    = 65536   // entries of one peer
	MaxInterestSize = 8 << 20 // bytes of patterns of one peer
	MaxReplays      = 1024    // requests of one peer that wait to be answered
)

// packetSize is what a packet is filled up to. With its header it fits into the buffers of the
// websocket transport, which costs one system call.
const packetSize = 64<<10 - 64

// readLimit bounds a packet: one message of the largest size and what may come with it.
func readLimit(maxMessage int) int64 { return int64(maxMessage) + 256<<10 }

// A Host is the bus, as its links see it. Its methods are called without locks. For one link Decode is
// called by who reads; Deliver by that goroutine or by the one that empties the inbox, one at a time; Encode,
// Replay and Unsendable by who writes. These work at the same time, and beside them whoever has something
// to tell calls the rest. What came before Lost may be delivered after it.
type Host[T any] interface {
	// Open makes the bus's side of a link, which the link's Side returns from then on, and returns
	// what reads the messages for it. Its Waker must be the link. Nothing is sent there before the
	// peer's interest is known.
	Open(l *Link[T]) (side any, r *mailbox.Reader[T])

	// Cost returns what v counts in windows. If v is no message, but says that a pod has gone which
	// the peer was told of, gone is its number.
	Cost(v T) (cost, gone uint64)

	// Encode fills in m for v. An error means that v cannot be sent at all.
	Encode(l *Link[T], v T, m *wire.Message) error

	// Decode makes a message of m, whose memory it must not keep.
	Decode(l *Link[T], m *wire.Message) (T, error)

	// Deliver brings in to whom it is for. If block is not set it does not wait: it returns false
	// when it would have to, notes in the Inbound how far it has come, and is called again.
	Deliver(l *Link[T], in *Inbound[T], block bool) bool

	// Interested tells of a change in what the peer wants.
	Interested(l *Link[T], add, remove []wire.Entry)

	// Replay returns what the bus has in its buffer for r, oldest first, up to which position the
	// buffer went, and a function that tells whether a message that comes through the link's Reader
	// from a position up to there is among them.
	Replay(l *Link[T], r *wire.Replay) (items []T, latest uint64, has func(at uint64, v T) bool)

	// Up is called when a link is connected and the peer's interest is known, Down when it has lost
	// its connection, Lost when it is given up: gap is what was not, or perhaps not, delivered.
	// Between Open and Lost, Up and Down take turns.
	Up(l *Link[T])
	Down(l *Link[T], err error)
	Lost(l *Link[T], err error, gap Gap)

	// Gap tells that the peer goes without messages that were sent to it, or this node without
	// some that were sent to it.
	Gap(l *Link[T], g Gap, incoming bool)

	// Unsendable tells that v could not be sent to the peer.
	Unsendable(l *Link[T], v T, err error)

	// Refused tells of a connection that did not become a link.
	Refused(remote string, peer *Peer, err error)

	// UUID returns the ID of a message.
	UUID(v T) wire.ID
}

// Gap is Count messages, the first From and the last To.
type Gap struct {
	Count    uint64
	From, To wire.ID
}

// Woken has something to do. One of its methods is to be called, once.
type Woken interface {
	Wake() // does it in a goroutine of its own
	Run()  // does it here; it may take as long as it likes, and end the goroutine
}

// An Inbound is an item on its way from a link into the bus.
type Inbound[T any] struct {
	Val   T
	Tag   byte       // of the item, without the flags of messages
	Flags byte       // of a message
	Rare  *wire.Rare // of a message; not to be changed
	Extra any        // of others: wire.Gap, wire.Targets, uint64

	// Lend says that Deliver, if what it does makes just one receiver have something to do, may leave it
	// in Woken instead of waking it: the goroutine that reads sees to it then, see conn.lend.
	Lend  bool
	Woken Woken

	Found any    // the host's, between calls of Deliver
	Next  int    // the host's, between calls of Deliver
	At    uint64 // the host's, between calls of Deliver

	Stream uint64 // of the peer, in which it came

	seq  uint64
	cost uint64
}
