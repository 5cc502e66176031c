package mesh

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
)

// A Node is a bus among its peers.
type Node[T any] struct {
	cfg       Config
	host      Host[T]
	interests interests[T]
	secret    [32]byte // makes stream IDs
	began     time.Time
	leaving   atomic.Bool   // Withdraw or Close has begun
	attached  atomic.Uint64 // connections that have become those of a link

	lent      atomic.Int32  // goroutines that are lent and have not been replaced, see conn.lend
	strangers chan struct{} // one for each dial to a peer that never was connected; capacity strangerDials

	ctx    context.Context // of all dialling; ends at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines; see running

	mu        sync.Mutex // guards all below
	started   bool
	closed    bool
	listener  transport.Listener
	sessions  []discovery.Session
	links     map[wire.ID]*Link[T]
	shaking   []*shake             // connections in handshake that were accepted, the oldest first
	dialling  map[string]bool      // endpoints and IDs that are being dialled
	at        map[string]answer[T] // who answered at an endpoint last
	change    chan struct{}        // closed at the next change of links or interests
	refusals  uint64
	forgotten uint64 // above the epochs of all links that were forgotten
}

// NewNode returns a node that is not started.
func NewNode[T any](cfg *Config, host Host[T]) *Node[T] {
	n := &Node[T]{
		cfg: *cfg, host: host, began: time.Now(),
		links: map[wire.ID]*Link[T]{}, dialling: map[string]bool{}, at: map[string]answer[T]{},
		change: make(chan struct{}), strangers: make(chan struct{}, strangerDials),
	}
	rand.Read(n.secret[:])
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// ErrOpen is returned by Start when everybody could connect, and nobody said that this is wanted.
var ErrOpen = errors.New("mesh: it would listen beyond this machine without a mesh key or client certificates")

// Start listens and begins to look for others. It is called once.
func (n *Node[T]) Start(ctx context.Context) error {
	n.mu.Lock()
	if n.closed || n.leaving.Load() {
		n.mu.Unlock()
		return ErrClosed
	}
	if n.started {
		n.mu.Unlock()
		return ErrStarted
	}
	n.started = true
	n.mu.Unlock()
	err := n.start(ctx)
	if err != nil {
		n.stopFinding()
		n.mu.Lock()
		n.started = false
		n.mu.Unlock()
	}
	return err
}

// ErrStarted is returned by Start when it has been called before.
var ErrStarted = errors.New("mesh: node has been started")

func (n *Node[T]) start(ctx context.Context) error {
	if _, err := handshake.Listen(&handshake.Config{Hello: n.hello(), Keys: n.cfg.Keys, Resume: func(wire.ID) wire.Resume { return wire.Resume{} }}); err != nil {
		return fmt.Errorf("mesh: nobody could connect: %w", err) // a name that is too long, or the like
	}
	ln, err := n.cfg.Transport.Listen(ctx, n.cfg.Listen)
	if err != nil {
		return fmt.Errorf("mesh: listen: %w", err)
	}
	if !n.keep(ln, func() { n.listener = ln }) {
		return ErrClosed
	}
	if x := ln.Exposure(); len(n.cfg.Keys) == 0 && !n.cfg.Open && !x.Loopback && !x.Authenticated {
		return ErrOpen
	}
	if !n.running(func() { n.wg.Go(func() { n.accept(ln) }) }) {
		return ErrClosed
	}
	self := discovery.Self{UUID: uuidText(n.cfg.ID), Mesh: n.cfg.Mesh, Endpoints: n.Endpoints, Log: n.cfg.Log}
	for _, d := range n.cfg.Discoveries {
		s, err := d.Start(ctx, self, n.found)
		if err != nil {
			return fmt.Errorf("mesh: discovery: %w", err)
		}
		if !n.keep(s, func() { n.sessions = append(n.sessions, s) }) {
			return ErrClosed
		}
	}
	return nil
}

// keep calls f, which notes under mu what stopFinding is to close, or closes it itself if that has been
// called, or is about to be.
func (n *Node[T]) keep(c io.Closer, f func()) bool {
	n.mu.Lock()
	kept := !n.leaving.Load()
	if kept {
		f()
	}
	n.mu.Unlock()
	if !kept {
		c.Close()
	}
	return kept
}

// running calls f, which starts goroutines, unless the node is closed: Close waits for them.
func (n *Node[T]) running(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	f()
	return true
}

// Endpoints returns where this node can be reached, the best first.
func (n *Node[T]) Endpoints() []string {
	n.mu.Lock()
	ln := n.listener
	n.mu.Unlock()
	all := slices.Clone(n.cfg.Advertise)
	if ln != nil {
		all = append(all, ln.Endpoints()...)
	}
	return all[:min(len(all), maxEndpoints)]
}

// sinceStart is the clock of pings.
func (n *Node[T]) sinceStart() time.Duration { return time.Since(n.began) }

// streamID returns the ID of the epoch-th stream to a peer. It is computed, not stored, so that
// several handshakes with one peer at a time tell it the same.
func (n *Node[T]) streamID(peer wire.ID, epoch uint64) uint64 {
	mac := hmac.New(sha256.New, n.secret[:])
	mac.Write(peer[:])
	mac.Write(binary.BigEndian.AppendUint64(nil, epoch))
	return binary.BigEndian.Uint64(mac.Sum(nil)) | 1 // never 0
}

// changed wakes those who wait for peers or interests.
func (n *Node[T]) changed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.change)
	n.change = make(chan struct{})
}

// Await waits until ok returns true, looking again after every change of links and interests.
func (n *Node[T]) Await(ctx context.Context, ok func() bool) error {
	for {
		n.mu.Lock()
		changed, closed := n.change, n.closed
		n.mu.Unlock()
		if ok() {
			return nil
		}
		if closed {
			return ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Links returns all links that are not lost.
func (n *Node[T]) Links() []*Link[T] {
	return slices.DeleteFunc(n.all(), func(l *Link[T]) bool { return l.State() == Lost })
}

func (n *Node[T]) all() []*Link[T] {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]*Link[T], 0, len(n.links))
	for _, l := range n.links {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *Link[T]) int { return bytes.Compare(a.id[:], b.id[:]) })
	return all
}

// Find returns the link to a peer, or nil.
func (n *Node[T]) Find(id wire.ID) *Link[T] {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[id]
}

// link returns the link to a peer, which may be new.
func (n *Node[T]) link(id wire.ID) (*Link[T], error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.linkLocked(id)
}

// linkIfRoom returns the link to a node that others tell of, or nil if there are too many.
func (n *Node[T]) linkIfRoom(id wire.ID) *Link[T] {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[id] == nil && len(n.links) >= MaxKnown {
		return nil
	}
	l, err := n.linkLocked(id)
	if err != nil {
		return nil
	}
	return l
}

func (n *Node[T]) linkLocked(id wire.ID) (*Link[T], error) {
	if n.closed || n.leaving.Load() {
		return nil, cut(wire.CodeLeaving, "")
	}
	l := n.links[id]
	if l == nil {
		if len(n.links) >= MaxKnown && !n.dropLostLocked() {
			return nil, cut(wire.CodeBusy, "it has %d peers already", len(n.links))
		}
		l = newLink(n, id)
		l.epoch = n.forgotten // so that its stream is not that of a link that was forgotten
		n.links[id] = l
	}
	return l, nil
}

// dropLostLocked forgets the link that was lost longest ago, or rather one that never was there.
func (n *Node[T]) dropLostLocked() bool {
	var oldest *Link[T]
	met := false // oldest was connected once
	for _, l := range n.links {
		l.mu.Lock()
		if l.state == Lost && !l.deciding && len(l.turn) > 0 {
			if here := l.peer != nil; oldest == nil || met && !here || met == here && l.since.Before(oldest.since) {
				oldest, met = l, here
			}
		}
		l.mu.Unlock()
	}
	if oldest != nil {
		n.forgetLocked(oldest)
	}
	return oldest != nil
}

// forget is called when a peer has left for good, by who has the turn of its link.
func (n *Node[T]) forget(l *Link[T]) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLocked(l)
}

// forgetFree forgets a link unless somebody has its turn: the peer may be coming back.
func (n *Node[T]) forgetFree(l *Link[T]) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(l.turn) > 0 {
		n.forgetLocked(l)
	}
}

// forgetLocked forgets a link whose turn the caller has, or nobody.
//
// Invariant: a link with a connection is known to the node, as Close has to end that. Whoever
// attaches one has the turn, and has looked after it got that, under mu.
func (n *Node[T]) forgetLocked(l *Link[T]) {
	if n.links[l.id] == l {
		delete(n.links, l.id)
	}
	l.mu.Lock()
	n.forgotten = max(n.forgotten, l.epoch+1)
	l.left = true // nobody dials it any more
	l.mu.Unlock()
	l.hurry()
	for e, at := range n.at {
		if at.link == l {
			delete(n.at, e)
		}
	}
}

// up is called when a peer's interest is known for the first time on a connection.
func (n *Node[T]) up(l *Link[T]) {
	n.host.Up(l)
	l.mu.Lock()
	if n.leaving.Load() {
		l.control.withdraw = true
	}
	var known []wire.Peer
	l.mu.Unlock()
	for _, other := range n.Links() {
		if other == l {
			continue
		}
		other.mu.Lock()
		if other.state == Ready && len(other.peer.Endpoints) > 0 {
			known = append(known, wire.Peer{Node: other.id, Endpoints: other.peer.Endpoints})
		}
		other.mu.Unlock()
	}
	l.mu.Lock()
	l.control.peers = known
	l.mu.Unlock()
	l.signal()
}

// Close ends everything at once. Peers are told, if that can be done at once.
func (n *Node[T]) Close() {
	n.leaving.Store(true)
	n.stopFinding()
	n.mu.Lock()
	n.closed = true
	shaking := slices.Clone(n.shaking)
	n.mu.Unlock()
	n.cancel()
	for _, s := range shaking {
		s.c.Close()
	}
	for _, l := range n.all() {
		l.mu.Lock()
		c := l.conn
		l.mu.Unlock()
		l.ackTimer.Stop()
		if c != nil {
			c.fail(cut(wire.CodeLeaving, ""))
		}
	}
	n.wg.Wait()
	for _, l := range n.all() {
		l.lose(ErrClosed)
		l.ackTimer.Stop()
	}
	n.changed()
}

// Leaving reports whether Withdraw or Close has begun.
func (n *Node[T]) Leaving() bool { return n.leaving.Load() }

// stopFinding stops listening and discovery.
func (n *Node[T]) stopFinding() {
	n.mu.Lock()
	sessions, ln := n.sessions, n.listener
	n.sessions, n.listener = nil, nil
	n.mu.Unlock()
	for _, s := range sessions {
		s.Close()
	}
	if ln != nil {
		ln.Close()
	}
}

// Withdraw tells the peers that this node leaves: they send nothing new. It takes no new peers.
func (n *Node[T]) Withdraw() {
	if n.leaving.Swap(true) {
		return
	}
	n.stopFinding()
	for _, l := range n.all() {
		l.mu.Lock()
		l.control.withdraw = true
		c := l.conn
		l.mu.Unlock()
		if c == nil {
			l.lose(ErrClosed)
		}
		l.signal()
	}
	n.changed()
}

// Drained waits, after Withdraw, until everything that peers have sent has been delivered here.
func (n *Node[T]) Drained(ctx context.Context) error {
	return n.Await(ctx, func() bool {
		return n.every(func(l *Link[T]) bool { return l.drained && l.inCount == 0 })
	})
}

// Flushed waits, after Withdraw, until the peers have everything that was sent to them.
func (n *Node[T]) Flushed(ctx context.Context) error {
	for _, l := range n.all() {
		l.signal()
	}
	return n.Await(ctx, func() bool { return n.every(func(l *Link[T]) bool { return l.idle && l.quietLocked() }) })
}

// every reports whether ok is true of all links with a connection. ok is called with mu.
func (n *Node[T]) every(ok func(*Link[T]) bool) bool {
	for _, l := range n.all() {
		l.mu.Lock()
		fine := l.conn == nil || ok(l)
		l.mu.Unlock()
		if !fine {
			return false
		}
	}
	return true
}

// parseID reads a UUID of 36 characters. The empty string is the zero ID.
func parseID(s string) (id wire.ID, err error) {
	if s == "" {
		return id, nil
	}
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, errors.New("mesh: not a UUID of 36 characters")
	}
	_, err = hex.Decode(id[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:]))
	return id, err
}

func uuidText(id wire.ID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
