// Package handshake decides whether two nodes become peers. It is a pure state machine: no I/O, no
// clock, no goroutine, and no randomness but the nonce it is given. The owner carries packets
// between it and a connection, and bounds the time.
//
//	D: Hello →   L: Hello →   D: Proof →   L: Welcome →   the decider: Use
//
// D has dialled, L listens. Each packet holds one frame. The decider is the node with the lower ID:
// of several connections between two nodes it says which one carries the link. L as decider sends
// its Use right behind the Welcome, D once it has checked the Welcome. Either side may send Refuse
// at any point; that ends the handshake.
//
// A proof is an HMAC by the mesh key over both Hellos as they crossed the connection, the role of
// the one who proves, and the channel binding. So with a mesh key this is guaranteed for a side
// whose Receive has reported done:
//
//   - The other side knows one of the keys, and proved it on this connection: nonces and binding
//     rule out proofs of another one, and the roles one's own proof sent back.
//   - Both saw the same two Hellos: ID, mesh, version and limits are those that the other side
//     sent.
//   - D is the first to prove. Whoever dials without a key learns nothing from L but its Hello.
//
// Not guaranteed:
//
//   - That the decider's belief is shared. Its Use may be lost, and the other side may have
//     refused before it arrived: a decider that is done may next see a Refuse or the end of the
//     connection. The other way round it holds: one who waits for Use is done only after the
//     decider, unless somebody forged the Use.
//   - Anything about what the proofs do not cover: Resume, Use, Refuse, and all that follows the
//     handshake. Who can write into a connection can forge those, unless it runs over TLS.
//   - That a node is the one it says, among those with the key: all of them can make its proofs.
//   - In an open mesh, which has no key, anything at all.
//   - That a weak key stays secret: a node that was dialled gets proofs to try guesses against. A
//     key has to be random, not a word.
package handshake

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/gravbus/gravbus/internal/wire"
)

// AnyMesh as the name of a node's mesh lets it meet nodes of every mesh.
const AnyMesh = "*"

// Config is what a node brings into a handshake. Nothing in it may change before the handshake has
// ended. The functions are called from within Receive.
type Config struct {
	Hello   wire.Hello // with a nonce that was never used before
	Keys    [][]byte   // at most wire.MaxKeys, the preferred one first; none for an open mesh
	Binding []byte     // of the channel (transport.Info), or nil

	// Expect is the only node that a dialler wants to meet. Zero means any.
	Expect wire.ID

	// Resume tells where the streams with peer go on; its Stream is not 0. It is required. A
	// dialler calls it before the other side has proved to be peer, so it must change nothing.
	Resume func(peer wire.ID) wire.Resume

	// Accept may refuse a peer that has proved its key, or needs none. The other side is sent the
	// text of the error, and its code if it is, or wraps, an error of this package; else it is told
	// wire.CodeRejected. Nil accepts everyone.
	Accept func(*Peer) error

	// Decide is called on the decider alone, after Accept. Once it returns nil, this connection
	// carries the link: Use is sent. An error is treated as Accept's. On a listener it comes before
	// Resume, which then tells the state after the decision. Nil uses every connection.
	Decide func(*Peer) error
}

// Peer is the other node as its Hello describes it. It is not changed once it has been passed on.
type Peer struct {
	ID            wire.ID
	Mesh          string
	Name          string
	Version       uint64 // that both speak from now on
	MaxMessage    uint64
	WindowCount   uint64
	WindowCost    uint64
	Endpoints     []string
	Capabilities  []string
	Authenticated bool // it has proved a mesh key
}

// Result is what a handshake came to.
type Result struct {
	Peer       *Peer
	PeerResume wire.Resume
	Mine       wire.Resume // what the other side was sent
}

// state is the frame that a Machine waits for next, or that it has ended.
type state int

const (
	wantHello state = iota
	wantProof
	wantWelcome
	wantUse
	done
	failed
)

var wanted = [...]wire.Kind{
	wantHello:   wire.KindHello,
	wantProof:   wire.KindProof,
	wantWelcome: wire.KindWelcome,
	wantUse:     wire.KindUse,
}

// A Machine is one side of one handshake. It is not safe for concurrent use.
type Machine struct {
	c      Config
	dialer bool
	hello  []byte // the packet with c.Hello
	state  state

	// Set by the other side's Hello.
	peer   *Peer
	hashes [2][32]byte // of the bodies of both Hellos, the dialler's first

	result Result // complete when done
}

// Dial returns the machine of the side that dialled. The error tells what is wrong with c: no
// handshake could succeed.
func Dial(c *Config) (*Machine, error) { return newMachine(c, true) }

// Listen returns the machine of the side that was dialled. The error is as for Dial.
func Listen(c *Config) (*Machine, error) { return newMachine(c, false) }

func newMachine(c *Config, dialer bool) (*Machine, error) {
	m := &Machine{c: *c, dialer: dialer, hello: wire.AppendHello(nil, &c.Hello)}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return m, nil
}

// check finds faults of this side before they look like faults of the other.
func (m *Machine) check() error {
	h := &m.c.Hello
	switch {
	case m.c.Resume == nil:
		return errors.New("no Resume in the configuration")
	case h.Node == wire.ID{}:
		return errors.New("no node ID")
	case h.Nonce == [32]byte{}:
		return errors.New("no nonce")
	case len(m.c.Keys) > wire.MaxKeys:
		return fmt.Errorf("%d mesh keys, at most %d are allowed", len(m.c.Keys), wire.MaxKeys)
	case len(m.hello) > wire.MaxHandshake:
		return fmt.Errorf("a Hello of %d bytes, at most %d are allowed: fewer endpoints or capabilities are needed",
			len(m.hello), wire.MaxHandshake)
	}
	for _, key := range m.c.Keys {
		if len(key) == 0 {
			return errors.New("an empty mesh key")
		}
	}
	_, body, err := frame(m.hello)
	if err != nil {
		return err
	}
	_, err = wire.DecodeHello(body)
	return err
}

// Start returns the packets that this side sends before it has received one.
func (m *Machine) Start() [][]byte {
	if m.dialer {
		return [][]byte{m.hello}
	}
	return nil
}

// Receive takes the next packet from the other side, and returns those to send. It keeps nothing of
// packet, and what it returns must not be changed. Once it reports that this side is done, this
// side believes in the link, and the handshake is over.
//
// Every error is an *Error and ends the handshake: nothing more need be received. In both cases
// what it returned is still to be sent; with an error, that is a Refuse or nothing.
func (m *Machine) Receive(packet []byte) (send [][]byte, end bool, err error) {
	if m.state == failed {
		return nil, false, protocol("the handshake has ended")
	}
	send, err = m.receive(packet)
	if err == nil {
		return send, m.state == done, nil
	}
	m.state = failed
	e := asError(err)
	if e.Remote {
		return nil, false, e
	}
	return refuse(e.Code, e.Reason), false, e
}

// Refuse ends the handshake from this side, as when it takes too long, and returns the packets to
// send before the connection is closed: none if it had ended before.
func (m *Machine) Refuse(code wire.Code, reason string) [][]byte {
	if m.state == done || m.state == failed {
		return nil
	}
	m.state = failed
	return refuse(code, reason)
}

// Result returns what the handshake came to, once Receive has reported done; nil before that, and
// if it failed.
func (m *Machine) Result() *Result {
	if m.state != done {
		return nil
	}
	return &m.result
}

func (m *Machine) receive(packet []byte) ([][]byte, error) {
	kind, body, err := frame(packet)
	if err != nil {
		return nil, err
	}
	if kind == wire.KindRefuse {
		r, err := wire.DecodeRefuse(body)
		if err != nil {
			return nil, err
		}
		return nil, Remote(&r)
	}
	if m.state == done {
		return nil, protocol("%s after the end of the handshake", kind)
	}
	if want := wanted[m.state]; kind != want {
		return nil, protocol("%s where %s was due", kind, want)
	}
	switch kind {
	case wire.KindHello:
		return m.onHello(body)
	case wire.KindProof:
		return m.onProof(body)
	case wire.KindWelcome:
		return m.onWelcome(body)
	default: // Use. Fields that a later version gives it do not matter to this one.
		m.state = done
		return nil, nil
	}
}

// onHello: both sides get one, the dialler in answer to its own.
func (m *Machine) onHello(body []byte) ([][]byte, error) {
	h, err := wire.DecodeHello(body)
	if err != nil {
		return nil, err
	}
	if m.peer, err = m.meet(&h); err != nil {
		return nil, err
	}
	m.hash(body)
	if !m.dialer {
		m.state = wantProof
		return [][]byte{m.hello}, nil
	}
	m.state = wantWelcome
	m.result.Mine = m.c.Resume(m.peer.ID)
	proof := wire.Proof{MACs: m.macs(dialLabel), Resume: m.result.Mine}
	return [][]byte{wire.AppendProof(nil, &proof)}, nil
}

// onProof is the listener's.
func (m *Machine) onProof(body []byte) ([][]byte, error) {
	p, err := wire.DecodeProof(body)
	if err != nil {
		return nil, err
	}
	welcome, err := m.answer(p.MACs)
	if err != nil {
		return nil, err
	}
	if err := m.admit(p.Resume); err != nil {
		return nil, err
	}
	m.result.Mine = m.c.Resume(m.peer.ID)
	welcome.Resume = m.result.Mine
	send := [][]byte{wire.AppendWelcome(nil, &welcome)}
	if m.decider() {
		send = append(send, wire.AppendUse(nil))
	}
	return send, nil
}

// onWelcome is the dialler's.
func (m *Machine) onWelcome(body []byte) ([][]byte, error) {
	w, err := wire.DecodeWelcome(body)
	if err != nil {
		return nil, err
	}
	if err := m.verify(&w); err != nil {
		return nil, err
	}
	if err := m.admit(w.Resume); err != nil {
		return nil, err
	}
	if m.decider() {
		return [][]byte{wire.AppendUse(nil)}, nil
	}
	return nil, nil
}

// admit comes after the other side's proof. It asks the application, then the decider's own node,
// and moves on.
func (m *Machine) admit(theirs wire.Resume) error {
	m.peer.Authenticated = len(m.c.Keys) > 0
	m.result.Peer, m.result.PeerResume = m.peer, theirs
	if m.c.Accept != nil {
		if err := m.c.Accept(m.peer); err != nil {
			return rejection(err)
		}
	}
	if !m.decider() {
		m.state = wantUse
		return nil
	}
	if m.c.Decide != nil {
		if err := m.c.Decide(m.peer); err != nil {
			return rejection(err)
		}
	}
	m.state = done
	return nil
}

// decider reports whether this side sends Use.
func (m *Machine) decider() bool {
	return bytes.Compare(m.c.Hello.Node[:], m.peer.ID[:]) < 0
}

// frame returns the one frame of a packet.
func frame(packet []byte) (wire.Kind, []byte, error) {
	if len(packet) > wire.MaxHandshake {
		return 0, nil, protocol("a packet of %d bytes, at most %d are allowed", len(packet), wire.MaxHandshake)
	}
	kind, body, rest, err := wire.Next(packet)
	if err != nil {
		return 0, nil, err
	}
	if len(rest) > 0 {
		return 0, nil, protocol("%s and more in one packet", kind)
	}
	return kind, body, nil
}

func refuse(code wire.Code, reason string) [][]byte {
	return [][]byte{wire.AppendRefuse(nil, &wire.Refuse{Code: code, Reason: strings.ToValidUTF8(reason, "\uFFFD")})}
}
