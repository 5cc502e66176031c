package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
)

// shake is a connection in handshake that was accepted.
type shake struct {
	c       transport.Conn
	evicted atomic.Bool
}

// accept takes connections until the listener is closed.
func (n *Node[T]) accept(ln transport.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			if !errors.Is(err, transport.ErrClosed) {
				n.cfg.Log.Error("mesh: no more connections are taken", "error", err)
			}
			return
		}
		s := &shake{c: c}
		var oldest *shake
		started := n.running(func() {
			oldest = n.admitLocked(s)
			n.wg.Go(func() {
				defer n.dismiss(s)
				if _, err := n.shakeHands(n.ctx, c, false, wire.ID{}); err != nil {
					c.Close()
					if s.evicted.Load() {
						n.refused(c, nil, cut(wire.CodeBusy, "too many connections in handshake"))
					}
				}
			})
		})
		if !started {
			c.Close()
		}
		if oldest != nil {
			oldest.c.Close()
		}
	}
}

// admitLocked counts s among the connections in handshake. If there are too many it returns the
// oldest, which is to be closed, so that many who do nothing cannot keep out the one that does.
func (n *Node[T]) admitLocked(s *shake) (oldest *shake) {
	if len(n.shaking) == MaxHandshakes {
		oldest = n.shaking[0]
		oldest.evicted.Store(true)
		n.shaking = n.shaking[1:]
	}
	n.shaking = append(n.shaking, s)
	return oldest
}

func (n *Node[T]) dismiss(s *shake) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, o := range n.shaking {
		if o == s {
			n.shaking = append(n.shaking[:i], n.shaking[i+1:]...)
			return
		}
	}
}

// shakeHands leads a handshake on c, which becomes the connection of the link that it returns. On
// an error the caller closes c.
func (n *Node[T]) shakeHands(ctx context.Context, c transport.Conn, dialled bool, expect wire.ID) (*Link[T], error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	m, err := n.machine(c, dialled, expect)
	if err != nil {
		sayNo(c, err)
		n.refused(c, nil, err)
		return nil, err
	}
	var chosen *Link[T] // by Decide
	m.decided = func(l *Link[T]) { chosen = l }
	link, err := n.converse(c, m)
	if err != nil {
		if chosen != nil {
			chosen.undecide()
		}
		if dialled && (errors.Is(err, handshake.ErrSelf) || m.present != nil) {
			n.answered(c.Info().Endpoint, answer[T]{link: m.present, unproved: time.Now()})
			if m.present != nil {
				n.supersede(m.present, m.present.Peer(), c.Info().Endpoint)
			}
		}
		n.refused(c, m.peer, err)
		return nil, err
	}
	return link, nil
}

// machine is a handshake and what it has told.
type machine[T any] struct {
	*handshake.Machine
	dialled bool
	began   uint64   // Node.attached when the handshake began
	present *Link[T] // to the peer, if this side dials and has a connection to it already
	peer    *Peer    // once it has proved itself
	decided func(*Link[T])
}

// ask asks the application about a peer that has proved itself.
func (n *Node[T]) ask(p *Peer, i transport.Info) (err error) {
	if n.cfg.Accept == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			n.cfg.Log.Error("mesh: the application panicked when it was asked about a peer", "panic", v, "stack", string(debug.Stack()))
			err = handshake.ErrRejected
		}
	}()
	return n.cfg.Accept(p, i)
}

func (n *Node[T]) machine(c transport.Conn, dialled bool, expect wire.ID) (*machine[T], error) {
	if i := c.Info(); i.Secure && len(i.Binding) == 0 && len(n.cfg.Keys) > 0 {
		return nil, cut(wire.CodeUnauthorized, "the connection is encrypted but has no channel binding, so the mesh key proves nothing")
	}
	m := &machine[T]{dialled: dialled, began: n.attached.Load()}
	cfg := &handshake.Config{
		Hello:   n.hello(),
		Keys:    n.cfg.Keys,
		Binding: c.Info().Binding,
		Expect:  expect,
		Resume: func(id wire.ID) wire.Resume {
			if l := n.Find(id); l != nil {
				if dialled && l.State() >= Connected {
					m.present = l
				}
				return l.resume()
			}
			return wire.Resume{Stream: n.streamID(id, n.nextEpoch())}
		},
		Accept: func(p *Peer) error {
			m.peer = p
			return n.ask(p, c.Info())
		},
		Decide: func(p *Peer) error {
			l, err := n.link(p.ID)
			if err != nil {
				return err
			}
			if err := l.decide(m.began); err != nil {
				return err
			}
			m.decided(l)
			return nil
		},
	}
	var err error
	if dialled {
		m.Machine, err = handshake.Dial(cfg)
	} else {
		m.Machine, err = handshake.Listen(cfg)
	}
	return m, err
}

// nextEpoch is the epoch of a link that is not there yet.
func (n *Node[T]) nextEpoch() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forgotten
}

func (n *Node[T]) hello() wire.Hello {
	h := wire.Hello{
		MinVersion: wire.Version, MaxVersion: wire.Version,
		Node: n.cfg.ID, Mesh: n.cfg.Mesh, Name: n.cfg.Name,
		MaxMessage:  uint64(n.cfg.MaxMessage),
		WindowCount: n.cfg.WindowCount, WindowCost: n.cfg.WindowCost,
		Endpoints: n.Endpoints(), Capabilities: n.cfg.Capabilities,
	}
	rand.Read(h.Nonce[:])
	return h
}

// converse carries packets between m and c until the handshake is over, and attaches c to its link.
func (n *Node[T]) converse(c transport.Conn, m *machine[T]) (*Link[T], error) {
	until := time.Now().Add(n.cfg.Handshake)
	if err := errors.Join(c.SetReadDeadline(until), c.SetWriteDeadline(until)); err != nil {
		return nil, err
	}
	send, done := m.Start(), false
	var failed error
	for {
		for _, packet := range send {
			if err := c.WriteFrame(packet); err != nil && failed == nil {
				return nil, err
			}
		}
		if failed != nil {
			return nil, failed
		}
		if done {
			l, err := n.welcome(c, m)
			sayNo(c, err)
			return l, err
		}
		packet, err := c.ReadFrame(nil)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.SetWriteDeadline(time.Now().Add(farewellTime))
				for _, packet := range m.Refuse(wire.CodeBusy, "the handshake took too long") {
					c.WriteFrame(packet)
				}
				return nil, cut(wire.CodeBusy, "the handshake took too long")
			}
			return nil, refine(err)
		}
		send, done, failed = m.Receive(packet)
		if m.present != nil && failed == nil && !done {
			failed, send = errPresent, m.Refuse(errPresent.Code, errPresent.Reason)
		}
	}
}

// sayNo tells the other side why this one does not want the connection, if that is why it ends.
func sayNo(c transport.Conn, err error) {
	var e *handshake.Error
	if errors.As(err, &e) && !e.Remote {
		c.SetWriteDeadline(time.Now().Add(farewellTime))
		c.WriteFrame(wire.AppendRefuse(nil, &wire.Refuse{Code: e.Code, Reason: e.Reason}))
	}
}

// errPresent is why this node does not go on to dial a peer.
var errPresent = cut(wire.CodeReplaced, "it has one to this peer already")

// welcome attaches the connection of a handshake that has succeeded.
func (n *Node[T]) welcome(c transport.Conn, m *machine[T]) (*Link[T], error) {
	r := m.Result()
	l, err := n.link(r.Peer.ID)
	if err != nil {
		return nil, err
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		return nil, err
	}
	e := c.Info().Endpoint
	if e != "" {
		n.answered(e, answer[T]{link: l})
	}
	n.supersede(l, r.Peer, e)
	if err := l.attach(newConn(l, c, r.Peer, m.dialled), r); err != nil {
		return nil, err
	}
	return l, nil
}

// decide chooses a connection for the link, unless another one has just been chosen: the peer is
// about to take that. So a choice is never overtaken by another one. Nor is one that was made since
// the handshake began: when the peer dialled, it did not know of it.
func (l *Link[T]) decide(began uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deciding && time.Since(l.decidedAt) < firstWord || l.attached > began {
		return cut(wire.CodeReplaced, "another connection is being made")
	}
	l.deciding = true
	l.choice++
	l.decidedAt = time.Now()
	return nil
}

// firstWord is how long the choice of a connection keeps out others before the peer has spoken on
// it, which it does at once. If it dials again later, it has lost that one.
const firstWord = time.Second

func (l *Link[T]) undecide() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deciding = false
}

// refused counts and tells of a connection that did not become a link.
func (n *Node[T]) refused(c transport.Conn, p *Peer, err error) {
	var e *handshake.Error
	if n.ctx.Err() != nil || !errors.As(err, &e) {
		return // it just ended
	}
	switch e.Code {
	case wire.CodeSelf, wire.CodeReplaced, wire.CodeLeaving, wire.CodeNode: // nobody was kept out who wanted in
		return
	case wire.CodeBusy:
		if c.Info().Endpoint != "" { // the other side was slow, or has to do with others
			return
		}
	}
	n.mu.Lock()
	n.refusals++
	n.mu.Unlock()
	n.host.Refused(c.Info().RemoteAddr, p, err)
}

// Refusals returns how many connections did not become a link.
func (n *Node[T]) Refusals() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refusals
}

// supersede is called when another node than some peers that are not connected says that it listens
// exactly where those did: a process that was started again has a new ID at the old address, and
// the old one is given up. Addresses need not be unique, though, as they are private ones of
// several hosts, or that of something in front of several nodes. So this node has to have met the
// old one there, and dialled endpoint to find the other one. If it has not dialled, endpoint is
// empty, and it looks.
func (n *Node[T]) supersede(l *Link[T], p *Peer, endpoint string) {
	if len(p.Endpoints) == 0 {
		return
	}
	for _, old := range n.all() {
		if old == l {
			continue
		}
		old.mu.Lock()
		same := old.state < Connected && old.peer != nil && slices.Equal(old.peer.Endpoints, p.Endpoints)
		gone := same && old.met && (slices.Contains(old.endpoints, endpoint) || slices.Contains(p.Endpoints, endpoint))
		lost := old.state == Lost
		if gone {
			old.left = true
		}
		old.mu.Unlock()
		switch {
		case gone && lost:
			n.forgetFree(old)
		case gone:
			old.lose(fmt.Errorf("node %s listens at its address now", uuidText(p.ID)))
		case same:
			old.hurry()
		}
	}
}

// meets reports whether a connection to a node came from, or went to, where the node says that it listens.
func meets(i transport.Info, endpoints []string) bool {
	from := host(i.RemoteAddr)
	return slices.ContainsFunc(endpoints, func(e string) bool { return e == i.Endpoint || host(e) == from })
}

// host returns the host of an address or endpoint that names one with a port, and else all of it.
func host(addr string) string {
	if _, rest, ok := strings.Cut(addr, "://"); ok {
		addr, _, _ = strings.Cut(rest, "/")
	}
	h, port, err := net.SplitHostPort(addr)
	if err != nil || strings.Trim(port, "0123456789") != "" {
		return addr
	}
	return h
}
