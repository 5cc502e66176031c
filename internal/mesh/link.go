package mesh

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// Peer is what the handshake has told about the other side.
type Peer = handshake.Peer

// A State is how a link stands.
type State int

// States of a link. Every link begins and ends as Lost.
const (
	Lost      State = iota // given up, or not up yet: nothing is kept for the peer
	Away                   // without a connection; what is for the peer is kept
	Connected              // with a connection, but the peer's interest is not known yet
	Ready                  // with a connection, and what the peer wants is known
)

// A Link is the connection to one peer. It survives the connections of the transport that carry
// it: each direction is a stream of numbered items, which are kept until the other side has
// acknowledged them.
//
// Invariant: out holds the items with the numbers [acked+1, next), and all of them have been handed
// to a connection at least once, or are about to. The slots past them are the writer's. Only the
// writer changes how many there are.
//
// Invariant: every item of the peer's stream up to received has been put into the inbox, once;
// those up to delivered have left it.
type Link[T any] struct {
	node *Node[T]
	id   wire.ID
	turn chan struct{} // holds one token: whoever has it may attach a connection

	// Owned by the writer of the present connection, and between connections by whoever has the
	// turn.
	hand      []mailbox.Item[T] // claimed, and not sent yet
	handBuf   []mailbox.Item[T] // what hand is a part of
	inject    []outItem[T]      // come before hand
	answers   []replayAnswer[T] // made and not sent yet
	aside     []mailbox.Item[T] // in hand, but newer than the first of answers
	claimed   uint64            // highest position in the buffer of what was claimed
	covers    []cover[T]        // replays that cover some of what was in the buffer when they were made
	coverSize int
	coverTop  uint64 // highest latest of covers

	side    atomic.Value            // the host's
	writes  atomic.Pointer[conn[T]] // whose pen may lie there
	ready   atomic.Bool             // the reader has something to claim
	wake    chan struct{}           // capacity 1: the writer is to look around
	waiting atomic.Bool             // the inbox is in use: deliveries have to go through it

	mu        sync.Mutex // guards all below
	state     State
	reader    *mailbox.Reader[T] // nil while Lost
	peer      *Peer              // of the latest handshake
	conn      *conn[T]           // nil unless Connected or Ready
	deciding  bool               // a connection has been chosen, and the peer has not spoken on it yet
	decidedAt time.Time          // when deciding was set
	choice    uint64             // how often a connection was chosen
	left      bool               // the peer has said goodbye: when the connection ends, so does the link
	drained   bool               // the peer has said that it sends nothing more
	endpoints []string           // where the peer was seen or says it is, the best first
	met       bool               // it was met where it says that it listens
	dialled   bool               // the present or last connection was dialled by this node
	attached  uint64             // Node.attached at the present or last connection
	since     time.Time          // of state
	chasing   bool               // a goroutine tries to connect
	poke      chan struct{}      // capacity 1: try now
	delay     time.Duration      // before the next attempt to connect

	stream      uint64 // of the items that are sent
	epoch       uint64 // how often the link was given up
	next        uint64 // number of the next new item
	acked       uint64
	out         ring[T]
	cost        uint64 // of all in out
	pendingCost uint64
	pending     []outItem[T] // to be sent when there is room, before what the reader has
	idle        bool         // there was nothing to send, and nothing to be acknowledged, when the writer last looked
	starved     bool         // the writer waits for the window to open
	missed      Gap          // what was lost when the link was given up, and the peer has not been told

	inStream  uint64 // of the items that are received; 0 for none yet
	received  uint64 // written by the reader at the end of a batch
	delivered uint64
	fresh     bool // the first batch says where the stream begins
	inbox     []Inbound[T]
	spare     [][]Inbound[T] // empty ones, kept for their memory
	inCount   uint64         // items in inbox or being delivered from there
	inCost    uint64         // their cost
	before    former         // what of them is of streams that are over
	ackSaid   uint64         // what the peer was told last of delivered
	ackCost   uint64         // of what was delivered since
	ackArmed  bool           // ackTimer is running
	ackTimer  *time.Timer

	control  control
	wanted   map[string]wire.Entry // what the peer wants
	wantSize int                   // bytes of patterns in wanted
	sync     map[string]wire.Entry // what it wants, between Reset and Done; nil otherwise
	syncSize int
	replayed uint64 // ID of the latest replay that was asked for

	count counts
}

// control is what is to be said beside the stream.
type control struct {
	ack        bool // even if there is nothing else to be sent
	pongs      []uint64
	full       [][]wire.Entry // chunks of all interests, to be sent before dirty
	fullNext   int
	dirty      map[string]wire.Entry // interests that have changed
	asks       []wire.Replay         // requests that the peer has not answered; all are repeated on a new connection
	asked      int                   // asks[:asked] were sent on this connection
	askedSize  int                   // what they count, unless asked is 0
	peers      []wire.Peer
	withdraw   bool
	bye        bool          // say that nothing more comes, when all is acknowledged
	byeSent    bool          //
	replays    []wire.Replay // of the peer, to be answered
	replaySize int           // bytes of patterns in them
}

// counts is what a link counts over its life.
type counts struct {
	sent, received, resent, gaps, lost atomic.Uint64
	bytesOut, bytesIn                  atomic.Uint64
	cuts                               atomic.Uint64
	rtt                                atomic.Int64
}

// cover is a replay, up to which position of the buffer it goes, and what of that is in it.
type cover[T any] struct {
	id, latest uint64
	has        func(at uint64, v T) bool
	size       int // of its patterns
}

// replayAnswer is the answer to a replay: what was in the buffer up to a position.
type replayAnswer[T any] struct {
	ask    wire.Replay
	items  []T
	latest uint64
	has    func(at uint64, v T) bool
}

// outItem is an item of the stream that is sent.
type outItem[T any] struct {
	val   T
	cost  uint64
	extra *extra // nil for an ordinary message
}

// extra is what few items have.
type extra struct {
	tag     byte     // wire.TagMessage for a message
	replay  uint64   // only for the pod that asked for this replay
	covered []uint64 // not for the pods that asked for these
	gap     Gap
	id      uint64 // of a replay that ends, or a pod that has gone
	targets *wire.Targets
}

func newLink[T any](n *Node[T], id wire.ID) *Link[T] {
	l := &Link[T]{
		node: n, id: id, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), poke: make(chan struct{}, 1),
		since: time.Now(), next: 1,
	}
	l.ackTimer = time.AfterFunc(time.Hour, l.ackDue)
	l.ackTimer.Stop()
	l.turn <- struct{}{}
	return l
}

// ID returns the peer's ID.
func (l *Link[T]) ID() wire.ID { return l.id }

// Peer returns what the latest handshake told of the peer; nil before the first.
func (l *Link[T]) Peer() *Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer
}

// State returns how the link stands.
func (l *Link[T]) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Side returns what the host's Open returned last.
func (l *Link[T]) Side() any { return l.side.Load() }

// Wake is called when the reader has something to claim.
func (l *Link[T]) Wake() {
	l.ready.Store(true)
	l.signal()
}

// signal makes the writer look around.
func (l *Link[T]) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// What packages above need to tell apart.
var (
	ErrReplaced  = handshake.ErrReplaced
	ErrTooLarge  = handshake.ErrTooLarge
	ErrWithdrawn = handshake.ErrWithdrawn
)

// ErrClosed is why a node that is closed or leaves takes no part any more.
var ErrClosed = errors.New("mesh: node is closed")

// cut is why this side ends a connection.
func cut(code wire.Code, format string, args ...any) *handshake.Error {
	return &handshake.Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

func protocolError(format string, args ...any) *handshake.Error {
	return cut(wire.CodeProtocol, format, args...)
}

// quietLocked reports whether nothing waits to be sent or acknowledged, as far as can be seen
// without the writer.
func (l *Link[T]) quietLocked() bool {
	return l.unackedLocked() == 0 && !l.ready.Load() && len(l.pending) == 0
}

// unackedLocked returns how many items the peer has not acknowledged.
func (l *Link[T]) unackedLocked() uint64 { return l.next - l.acked - 1 }

// IsRefusal reports whether err is why a connection did not become a link, or a link has lost it,
// as one of the two nodes wanted it so.
func IsRefusal(err error) bool {
	var e *handshake.Error
	return errors.As(err, &e)
}

// Leaving reports whether the peer has said that it leaves.
func (l *Link[T]) Leaving() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left
}

// Stats is a snapshot of a link.
type Stats struct {
	State                              State
	Since                              time.Time
	Dialled                            bool
	RTT                                time.Duration
	Unacked                            int
	Sent, Received, Resent, Gaps, Lost uint64
	Cuts, BytesOut, BytesIn            uint64
}

// Stats returns a snapshot of the link.
func (l *Link[T]) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &l.count
	return Stats{
		State: l.state, Since: l.since, Dialled: l.dialled, RTT: time.Duration(c.rtt.Load()), Unacked: int(l.unackedLocked()),
		Sent: c.sent.Load(), Received: c.received.Load(), Resent: c.resent.Load(), Gaps: c.gaps.Load(), Lost: c.lost.Load(),
		Cuts: c.cuts.Load(), BytesOut: c.bytesOut.Load(), BytesIn: c.bytesIn.Load(),
	}
}
