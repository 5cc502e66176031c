package handshake_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// node is a machine together with what the properties compare it with.
type node struct {
	*handshake.Machine
	config *handshake.Config
	dialer bool
	other  *node
	proved bool // it has sent a Proof, or a Welcome
	done   bool // it has believed in the link, perhaps until a Refuse came
	err    *handshake.Error
}

// receive lets the node receive a packet, checks what holds in every case, and returns what it
// sends.
func (n *node) receive(t *rapid.T, packet []byte) [][]byte {
	packet = bytes.Clone(packet)
	send, done, err := n.Receive(packet)
	for i := range packet { // nothing of it may be kept
		packet[i] = 0xff
	}
	n.done = n.done || done
	if done != (n.Result() != nil) || done && err != nil {
		t.Fatalf("done is %t, the result %v, the error %v", done, n.Result(), err)
	}
	if err != nil && n.err == nil {
		if !errors.As(err, &n.err) {
			t.Fatalf("an error of type %T: %v", err, err)
		}
	}
	n.sent(t, send)
	return send
}

func (n *node) sent(t *rapid.T, packets [][]byte) {
	for _, p := range packets {
		kind, _, rest, err := wire.Next(p)
		if err != nil || len(rest) > 0 || len(p) > wire.MaxHandshake {
			t.Fatalf("it sends %x", p)
		}
		n.proved = n.proved || kind == wire.KindProof || kind == wire.KindWelcome
	}
}

func (n *node) decider() bool {
	return bytes.Compare(n.config.Hello.Node[:], n.other.config.Hello.Node[:]) < 0
}

// drawNode draws a node that gets on with most others, but not all.
func drawNode(t *rapid.T, name string, dialer bool) *node {
	seldom := func(what string) bool { return rapid.IntRange(0, 11).Draw(t, what) == 11 }
	ids := rapid.SampledFrom([]byte{1, 2, 3, 4, 5, 6})
	failure := func(what string) error {
		if !seldom(what) {
			return nil
		}
		return rapid.SampledFrom([]error{errors.New("no"), handshake.ErrReplaced}).Draw(t, "error")
	}
	list := rapid.SliceOfN(rapid.StringN(0, -1, 255), 0, 3)
	c := &handshake.Config{
		Hello: wire.Hello{
			MinVersion: 1, MaxVersion: rapid.Uint64Range(1, 2).Draw(t, "max version"),
			Node: wire.ID{15: ids.Draw(t, "node")}, Mesh: "gravbus", Name: name,
			MaxMessage:   rapid.Uint64().Draw(t, "max message"),
			WindowCount:  rapid.Uint64().Draw(t, "window count"),
			WindowCost:   rapid.Uint64().Draw(t, "window cost"),
			Endpoints:    list.Draw(t, "endpoints"),
			Capabilities: list.Draw(t, "capabilities"),
		},
	}
	copy(c.Hello.Nonce[:], name)
	keys := rapid.SampledFrom([][]string{{"a"}, {"a", "b"}, {"b", "a"}, {"c", "d", "e", "a"}, {"a", "c"}})
	for _, key := range keys.Draw(t, "keys") {
		c.Keys = append(c.Keys, []byte(key))
	}
	if seldom("other keys") {
		c.Keys = rapid.SampledFrom([][][]byte{nil, {[]byte("b")}, {[]byte("z")}}).Draw(t, "keys")
	}
	if seldom("other versions") {
		c.Hello.MaxVersion++
		c.Hello.MinVersion = c.Hello.MaxVersion
	}
	if seldom("other mesh") {
		c.Hello.Mesh = rapid.SampledFrom([]string{"blue", "*", ""}).Draw(t, "mesh")
	}
	if seldom("binding") {
		c.Binding = []byte("tls")
	}
	if seldom("expects somebody") {
		c.Expect = wire.ID{15: ids.Draw(t, "expect")}
	}
	resume := wire.Resume{
		Stream:   rapid.Uint64Min(1).Draw(t, "stream"),
		Known:    rapid.Uint64().Draw(t, "known"),
		Received: rapid.Uint64Max(1<<62).Draw(t, "received"),
	}
	c.Resume = func(wire.ID) wire.Resume { return resume }
	accept, decide := failure("accept"), failure("decide")
	c.Accept = func(*handshake.Peer) error { return accept }
	c.Decide = func(*handshake.Peer) error { return decide }
	return create(t, c, dialer)
}

func create(t *rapid.T, c *handshake.Config, dialer bool) *node {
	m, err := handshake.Listen(c)
	if dialer {
		m, err = handshake.Dial(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &node{Machine: m, config: c, dialer: dialer}
}

// verdict is what a handshake of d and l should come to: 0 for success.
func verdict(d, l *handshake.Config) wire.Code {
	common := slices.ContainsFunc(d.Keys, func(k []byte) bool {
		return slices.ContainsFunc(l.Keys, func(m []byte) bool { return bytes.Equal(k, m) })
	})
	first, second := l, d // in the order in which they admit each other
	decider := d
	if bytes.Compare(l.Hello.Node[:], d.Hello.Node[:]) < 0 {
		decider = l
	}
	switch {
	case min(d.Hello.MaxVersion, l.Hello.MaxVersion) < max(d.Hello.MinVersion, l.Hello.MinVersion):
		return wire.CodeVersion
	case d.Hello.Node == l.Hello.Node:
		return wire.CodeSelf
	case d.Hello.Mesh != l.Hello.Mesh && d.Hello.Mesh != "*" && l.Hello.Mesh != "*":
		return wire.CodeMesh
	case d.Expect != (wire.ID{}) && d.Expect != l.Hello.Node:
		return wire.CodeNode
	case len(d.Keys)+len(l.Keys) > 0 && (!common || !bytes.Equal(d.Binding, l.Binding)):
		return wire.CodeUnauthorized
	}
	for _, c := range []*handshake.Config{first, second} {
		err := c.Accept(nil)
		if err == nil && c == decider {
			err = c.Decide(nil)
		}
		if err != nil {
			if code, ok := handshake.CodeOf(err); ok {
				return code
			}
			return wire.CodeRejected
		}
	}
	return 0
}

// mirrors reports whether n holds what its other side said of itself.
func (n *node) mirrors(o *node) bool {
	h := &o.config.Hello
	return reflect.DeepEqual(n.Result().Peer, &handshake.Peer{
		ID: h.Node, Mesh: h.Mesh, Name: h.Name,
		Version:    min(h.MaxVersion, n.config.Hello.MaxVersion),
		MaxMessage: h.MaxMessage, WindowCount: h.WindowCount, WindowCost: h.WindowCost,
		Endpoints: nilIfEmpty(h.Endpoints), Capabilities: nilIfEmpty(h.Capabilities),
		Authenticated: len(n.config.Keys) > 0,
	})
}

func nilIfEmpty(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

// TestAgreement: over a connection that changes nothing, both sides come to the same end, whatever
// they bring along. Over one that is cut, or when time is up on a side, the one who waits for Use
// still believes in the link only after the decider.
func TestAgreement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, l := drawNode(t, "d", true), drawNode(t, "l", false)
		d.other, l.other = l, d
		toL, toD := d.Start(), l.Start()
		calm, disturbed := rapid.Bool().Draw(t, "calm"), false
		for len(toL)+len(toD) > 0 {
			event := 0
			if !calm {
				event = rapid.IntRange(0, 12).Draw(t, "event")
			}
			switch event {
			case 10: // cut: what is on its way does not arrive
				toL, toD, disturbed = nil, nil, true
				continue
			case 11:
				send := d.Refuse(wire.CodeBusy, "time is up")
				toL, disturbed = append(toL, send...), disturbed || len(send) > 0
			case 12:
				send := l.Refuse(wire.CodeBusy, "time is up")
				toD, disturbed = append(toD, send...), disturbed || len(send) > 0
			}
			// Each direction keeps its order; which one is faster is open.
			if len(toD) == 0 || len(toL) > 0 && rapid.Bool().Draw(t, "to l") {
				packet := toL[0]
				toL = toL[1:]
				toD = append(toD, l.receive(t, packet)...)
			} else {
				packet := toD[0]
				toD = toD[1:]
				toL = append(toL, d.receive(t, packet)...)
			}
			if d.done && !d.decider() && !l.done || l.done && !l.decider() && !d.done {
				t.Fatal("who waits for Use is done before the decider")
			}
		}
		if d.Result() != nil && l.Result() != nil {
			if !d.mirrors(l) || !l.mirrors(d) || d.Result().Mine != l.Result().PeerResume || l.Result().Mine != d.Result().PeerResume {
				t.Fatalf("%v and %v do not fit", d.Result(), l.Result())
			}
		}
		if disturbed {
			return
		}
		want := verdict(d.config, l.config)
		if want == 0 {
			if d.Result() == nil || l.Result() == nil {
				t.Fatalf("no success: %v, %v", d.err, l.err)
			}
			return
		}
		if d.Result() != nil || l.Result() != nil {
			t.Fatalf("success with code %d", want)
		}
		if d.err == nil || l.err == nil || d.err.Code != want || l.err.Code != want || d.err.Remote == l.err.Remote ||
			d.err.Reason != l.err.Reason {
			t.Fatalf("%v and %v, not code %d", d.err, l.err, want)
		}
	})
}

// TestHostileNetwork lets somebody without the key do as they like between two pairs of nodes that
// have it: lose, repeat, reorder, redirect, change and make up packets. Then whoever is done, is
// so with a node that sent exactly this Hello, took this one's, and proved it; and no two are done
// with the same one.
func TestHostileNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []*node
		for i, dialer := range []bool{true, false, true, false} {
			c := config(byte(i + 1))
			if rapid.Bool().Draw(t, "dialler decides") {
				c.Hello.Node[0] = byte(5 - i)
			}
			c.Hello.Name = fmt.Sprint(i)
			c.Keys = [][]byte{[]byte("secret")}
			nodes = append(nodes, create(t, c, dialer))
		}
		for i, n := range nodes {
			n.other = nodes[i^1]
		}
		type flight struct {
			to     *node
			packet []byte
		}
		var queue, seen []flight // in order; all there ever were
		sent := func(n *node, packets [][]byte) {
			for _, p := range packets {
				f := flight{n.other, p}
				queue, seen = append(queue, f), append(seen, f)
			}
		}
		for _, n := range nodes {
			sent(n, n.Start())
		}
		for range rapid.IntRange(4, 40).Draw(t, "steps") {
			var f flight
			if len(queue) > 0 {
				f, queue = queue[0], queue[1:]
			} else {
				f = rapid.SampledFrom(seen).Draw(t, "old")
			}
			switch rapid.IntRange(0, 32).Draw(t, "event") {
			case 24:
				continue // lost
			case 25:
				queue = append(queue, f) // late
				continue
			case 26: // to somebody else
				f.to = rapid.SampledFrom(nodes).Draw(t, "to")
			case 27: // repeated instead
				f = rapid.SampledFrom(seen).Draw(t, "again")
			case 28: // changed
				f.packet = bytes.Clone(f.packet)
				i := rapid.IntRange(0, len(f.packet)-1).Draw(t, "at")
				f.packet[i] ^= rapid.ByteRange(1, 255).Draw(t, "bits")
			case 29: // cut short, or extended
				f.packet = bytes.Clone(f.packet)[:rapid.IntRange(0, len(f.packet)).Draw(t, "bytes")]
				f.packet = append(f.packet, rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "more")...)
			case 30: // one of another connection in its place
				other := rapid.SampledFrom(seen).Draw(t, "other")
				f.packet = other.packet
			case 31: // made up
				f.packet = forged(t)
			case 32: // back to its sender, as if it were the other side's
				f = flight{f.to.other, reflected(f.packet)}
			}
			sent(f.to, f.to.receive(t, f.packet))

			claimed := map[string]bool{}
			for _, n := range nodes {
				r := n.Result()
				if r == nil {
					continue
				}
				i := slices.IndexFunc(nodes, func(o *node) bool { return o.config.Hello.Name == r.Peer.Name })
				if i < 0 {
					t.Fatalf("%s is done with %v, who does not exist", n.config.Hello.Name, r.Peer)
				}
				peer := nodes[i]
				if peer == n || peer.dialer == n.dialer || !peer.proved || !n.mirrors(peer) {
					t.Fatalf("%s is done with %v, who sent %v", n.config.Hello.Name, r.Peer, peer.config.Hello)
				}
				if o := peer.Result(); o != nil && o.Peer.Name != n.config.Hello.Name {
					t.Fatalf("%s is done with %s, who is done with %s", n.config.Hello.Name, r.Peer.Name, o.Peer.Name)
				}
				if claimed[r.Peer.Name] {
					t.Fatalf("two are done with %s", r.Peer.Name)
				}
				claimed[r.Peer.Name] = true
			}
		}
	})
}

// reflected makes a Welcome of a Proof, and a Proof of a Welcome.
func reflected(packet []byte) []byte {
	kind, body, _, _ := wire.Next(packet)
	if kind == wire.KindProof {
		if p, err := wire.DecodeProof(body); err == nil && len(p.MACs) > 0 {
			return wire.AppendWelcome(nil, &wire.Welcome{MAC: p.MACs[0], Resume: p.Resume})
		}
	}
	if kind == wire.KindWelcome {
		if w, err := wire.DecodeWelcome(body); err == nil {
			return wire.AppendProof(nil, &wire.Proof{MACs: [][32]byte{w.MAC}, Resume: w.Resume})
		}
	}
	return packet
}

// forged draws a well-formed packet that a stranger could make.
func forged(t *rapid.T) []byte {
	resume := wire.Resume{Stream: 1}
	switch rapid.IntRange(0, 4).Draw(t, "forged") {
	case 0:
		return wire.AppendHello(nil, &config(rapid.ByteRange(1, 5).Draw(t, "as")).Hello)
	case 1:
		macs := make([][32]byte, rapid.IntRange(0, wire.MaxKeys).Draw(t, "macs"))
		return wire.AppendProof(nil, &wire.Proof{MACs: macs, Resume: resume})
	case 2:
		return wire.AppendWelcome(nil, &wire.Welcome{Key: rapid.Uint64Max(4).Draw(t, "key"), Resume: resume})
	case 3:
		return wire.AppendUse(nil)
	default:
		return wire.AppendRefuse(nil, &wire.Refuse{Code: wire.Code(rapid.Uint64Max(16).Draw(t, "code"))})
	}
}
