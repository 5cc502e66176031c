package mesh

import (
	"errors"
	"fmt"
	"slices"
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
// Invariant: out holds exactly the items with the numbers [acked+1, next), in this order, and all
// of them have been handed to a connection at least once, or are about to.
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

	side    atomic.Value  // the host's
	ready   atomic.Bool   // the reader has something to claim
	wake    chan struct{} // capacity 1: the writer is to look around
	waiting atomic.Bool   // the inbox is in use: deliveries have to go through it

	mu        sync.Mutex // guards all below
	state     State
	reader    *mailbox.Reader[T] // nil while Lost
	peer      *Peer              // of the latest handshake
	conn      *conn[T]           // nil unless Connected or Ready
	deciding  bool               // a connection has been chosen, and the peer has not spoken on it yet
	decidedAt time.Time          // when deciding was set
	left      bool               // the peer has said goodbye: when the connection ends, so does the link
	drained   bool               // the peer has said that it sends nothing more
	endpoints []string           // where the peer was seen or says it is, the best first
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

// resume tells the peer, in a handshake, where the streams go on.
func (l *Link[T]) resume() wire.Resume {
	l.mu.Lock()
	defer l.mu.Unlock()
	return wire.Resume{Stream: l.node.streamID(l.id, l.epoch), Known: l.inStream, Received: l.received}
}

// attach makes c carry the link from now on, in the place of the connection that did. It returns
// an error if the peer's word on the streams cannot be true.
func (l *Link[T]) attach(c *conn[T], r *handshake.Result) error {
	peer, theirs := r.Peer, r.PeerResume
	<-l.turn
	defer func() { l.turn <- struct{}{} }()
	n := l.node
	l.mu.Lock()
	if l.state != Lost && theirs.Known == l.stream && theirs.Received >= l.next {
		l.mu.Unlock() // before the connection that is there is given up for it
		return protocolError("it says that it has item %d, and %d were sent", theirs.Received, l.next-1)
	}
	l.mu.Unlock()
	for {
		l.mu.Lock()
		old := l.conn
		l.mu.Unlock()
		if old == nil {
			break
		}
		old.fail(cut(wire.CodeReplaced, ""))
		<-old.done
	}

	l.mu.Lock()
	reopen := l.state == Lost
	if reopen {
		l.reopenLocked()
	}
	err := l.rewindLocked(c, theirs)
	if l.stream != r.Mine.Stream {
		err = cut(wire.CodeReplaced, "the link was given up during the handshake")
	}
	if err != nil {
		l.mu.Unlock()
		return err
	}
	l.peer, l.conn, l.dialled = peer, c, c.dialled
	l.left, l.drained = false, false
	l.attached = n.attached.Add(1)
	l.learnLocked(c.c.Info().Endpoint, peer.Endpoints, nil)
	l.setLocked(Connected)
	l.mu.Unlock()

	if reopen {
		side, r := n.host.Open(l)
		l.side.Store(side)
		l.mu.Lock()
		l.reader = r
		l.mu.Unlock()
	}
	n.interests.syncTo(l)
	if !n.running(func() { c.start() }) {
		l.mu.Lock()
		l.conn = nil
		l.setLocked(Away)
		l.mu.Unlock()
		return ErrClosed
	}
	return nil
}

// reopenLocked begins a new stream on a link that was given up.
func (l *Link[T]) reopenLocked() {
	l.stream = l.node.streamID(l.id, l.epoch)
	l.next, l.acked = 1, 0
	l.control = control{}
	l.wanted, l.sync, l.wantSize, l.syncSize = nil, nil, 0, 0
	l.replayed = 0
	if l.missed.Count > 0 {
		l.inject = append(l.inject, outItem[T]{cost: wire.Cost(0), extra: &extra{tag: wire.TagGap, gap: l.missed}})
		l.missed = Gap{}
	}
}

// rewindLocked goes back to where the peer's word says.
func (l *Link[T]) rewindLocked(c *conn[T], theirs wire.Resume) error {
	c.send = l.acked + 1
	if theirs.Known == l.stream {
		if theirs.Received >= l.next {
			return protocolError("it says that it has item %d, and %d were sent", theirs.Received, l.next-1)
		}
		c.send = max(c.send, theirs.Received+1)
	}
	if theirs.Stream == 0 {
		return protocolError("stream 0")
	}
	if theirs.Stream != l.inStream {
		l.inStream, l.fresh = theirs.Stream, true
		l.received, l.delivered, l.ackSaid, l.ackCost = 0, 0, 0, 0
	}
	l.control.ack = true
	l.control.pongs = nil
	l.control.asked = 0
	l.control.byeSent = false
	l.count.resent.Add(l.next - c.send)
	return nil
}

func (l *Link[T]) setLocked(s State) {
	l.state = s
	l.since = time.Now()
}

// learnLocked notes where the peer can be reached: what worked comes first, then what the peer says,
// and what others say comes last.
func (l *Link[T]) learnLocked(worked string, own, hearsay []string) {
	var all []string
	add := func(e string) {
		if e != "" && !slices.Contains(all, e) && len(all) < maxEndpoints {
			all = append(all, e)
		}
	}
	add(worked)
	for _, e := range own {
		add(e)
	}
	for _, e := range l.endpoints {
		add(e)
	}
	for _, e := range hearsay {
		add(e)
	}
	l.endpoints = all
}

// maxEndpoints is how many addresses of one peer are tried.
const maxEndpoints = 32

// detached is called when c has ended.
func (l *Link[T]) detached(c *conn[T]) {
	n := l.node
	l.mu.Lock()
	if !c.spoken.Load() {
		l.deciding = false // it was this one that was chosen
	}
	wasReady := l.state == Ready
	if wasReady && time.Since(l.since) > lastDelay {
		l.delay = 0 // it was a good connection
	} else if wasReady && !wanted(c.err) {
		l.delay = min(l.delay, 2*firstDelay) // it was cut soon: not at once again
	}
	l.conn = nil
	l.setLocked(Away)
	rejected := !wasReady && refusal(c.err) // a Refuse that crossed this side's Use
	l.left = l.left || rejected && l.count.cuts.Load() == 0
	over := l.left || n.leaving.Load()
	said := l.left || l.drained
	l.count.cuts.Add(1)
	l.mu.Unlock()
	switch {
	case rejected:
		n.refused(c.c, c.peer, c.err)
	case over && said: // it said so before it closed
		c.err = &handshake.Error{Code: wire.CodeLeaving, Remote: true, Err: c.err}
	}
	if wasReady {
		n.host.Down(l, c.err)
	}
	close(c.done)
	n.changed()
	if over {
		l.lose(c.err)
		return
	}
	n.hurry()
	n.chase(l, courtesy)
}

// wanted reports whether one of the two nodes wanted a connection to end, for what the other did.
func wanted(err error) bool {
	var e *handshake.Error
	return errors.As(err, &e) && e.Code != wire.CodeSilent && e.Code != wire.CodeReplaced
}

// refusal reports whether err is the other side's word that it does not want this node.
func refusal(err error) bool {
	var e *handshake.Error
	if !errors.As(err, &e) || !e.Remote {
		return false
	}
	switch e.Code {
	case wire.CodeLeaving, wire.CodeReplaced, wire.CodeBusy, wire.CodeSilent:
		return false
	}
	return true
}

// lose gives the link up: what was kept for the peer is discarded, and counted. Should the peer
// come back, the link begins anew; what was received before stays known, so that nothing is
// received twice.
func (l *Link[T]) lose(err error) {
	select {
	case <-l.turn:
	default:
		return // it is coming back
	}
	defer func() { l.turn <- struct{}{} }()
	l.mu.Lock()
	if l.state != Away {
		l.mu.Unlock()
		return
	}
	l.setLocked(Lost)
	r := l.reader
	l.reader = nil
	unacked := l.out.all()
	pending := l.pending
	l.out, l.cost, l.pending, l.pendingCost = ring[T]{}, 0, nil, 0
	l.epoch++
	l.mu.Unlock()

	var lost []T
	gap := Gap{}
	l.ready.Store(false)
	rem := r.Remove()
	for _, it := range unacked {
		lost = it.lostTo(lost, &gap, l.node.host)
	}
	for _, it := range append(l.inject, pending...) {
		lost = it.lostTo(lost, &gap, l.node.host)
	}
	for _, it := range append(l.hand, l.aside...) {
		if _, gone := l.node.host.Cost(it.Val); gone == 0 {
			lost = append(lost, it.Val)
		}
	}
	if rem.Lag.Count > 0 {
		gap.add(Gap{rem.Lag.Count, l.node.host.UUID(rem.Lag.From), l.node.host.UUID(rem.Lag.To)})
	}
	for _, it := range rem.Discarded {
		if _, gone := l.node.host.Cost(it.Val); gone == 0 {
			lost = append(lost, it.Val)
		}
	}
	if len(lost) > 0 {
		more := Gap{uint64(len(lost)), l.node.host.UUID(lost[0]), l.node.host.UUID(lost[len(lost)-1])}
		gap.add(more)
	}
	l.answers, l.aside, l.claimed = nil, nil, 0
	l.hand, l.inject, l.covers, l.coverTop, l.coverSize = nil, nil, nil, 0, 0
	if gap.Count > 0 {
		l.count.gaps.Add(1)
		l.count.lost.Add(gap.Count)
	}
	l.mu.Lock()
	left := l.left
	if !left {
		l.missed = gap
	}
	var wanted []wire.Entry
	for _, e := range l.wanted {
		wanted = append(wanted, e)
	}
	l.wanted, l.wantSize = nil, 0
	l.mu.Unlock()
	l.node.interests.forget(l)
	if len(wanted) > 0 {
		l.node.host.Interested(l, nil, wanted)
	}
	l.node.host.Lost(l, err, gap)
	l.node.changed()
	if left {
		l.node.forget(l)
	}
}

// lostTo adds to what is lost: a message to lost, a gap to gap.
func (o *outItem[T]) lostTo(lost []T, gap *Gap, h Host[T]) []T {
	switch {
	case o.extra == nil || o.extra.tag == wire.TagMessage && o.extra.replay == 0:
		return append(lost, o.val)
	case o.extra.tag == wire.TagGap:
		gap.add(o.extra.gap)
	}
	return lost
}

func (g *Gap) add(more Gap) {
	if more.Count == 0 {
		return
	}
	if g.Count == 0 {
		g.From = more.From
	}
	g.Count += more.Count
	g.To = more.To
}

// ring is a queue of items.
type ring[T any] struct {
	slots []outItem[T] // its length is a power of two
	first uint64       // number of slots ever taken
	n     int
}

func (r *ring[T]) at(i int) *outItem[T] {
	return &r.slots[(r.first+uint64(i))&uint64(len(r.slots)-1)]
}

func (r *ring[T]) push(it outItem[T]) {
	if r.n == len(r.slots) {
		bigger := make([]outItem[T], max(2*len(r.slots), 16))
		for i := range r.n {
			bigger[(r.first+uint64(i))&uint64(len(bigger)-1)] = *r.at(i)
		}
		r.slots = bigger
	}
	r.n++
	*r.at(r.n - 1) = it
}

// pop takes the oldest.
func (r *ring[T]) pop() (cost uint64) {
	s := r.at(0)
	cost = s.cost
	*s = outItem[T]{}
	r.first++
	r.n--
	return cost
}

func (r *ring[T]) all() []outItem[T] {
	all := make([]outItem[T], r.n)
	for i := range all {
		all[i] = *r.at(i)
	}
	return all
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
func (l *Link[T]) quietLocked() bool { return l.out.n == 0 && !l.ready.Load() && len(l.pending) == 0 }

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
		State: l.state, Since: l.since, Dialled: l.dialled, RTT: time.Duration(c.rtt.Load()), Unacked: l.out.n,
		Sent: c.sent.Load(), Received: c.received.Load(), Resent: c.resent.Load(), Gaps: c.gaps.Load(), Lost: c.lost.Load(),
		Cuts: c.cuts.Load(), BytesOut: c.bytesOut.Load(), BytesIn: c.bytesIn.Load(),
	}
}
