package mesh_test

import (
	"crypto/rand"
	"errors"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fuzzHost is a bus that keeps nothing. Every third message has to wait a moment, so that some go
// through the inbox.
type fuzzHost struct {
	graph *mailbox.Graph[*wire.Message]
	n     int
}

var fuzzQueue = mailbox.Config{Bound: 64, Cap: 64, Width: 1, Policy: mailbox.DropOldest}

func (h *fuzzHost) Open(l *mesh.Link[*wire.Message]) (any, *mailbox.Reader[*wire.Message]) {
	r := new(mailbox.Reader[*wire.Message])
	r.Init(1, &fuzzQueue, l)
	lane := h.graph.NewLane(fuzzQueue.Bound)
	r.Attach(lane, true, false)
	return lane, r
}

func (*fuzzHost) Cost(m *wire.Message) (cost, gone uint64) { return wire.Cost(len(m.Data)), 0 }

func (*fuzzHost) Encode(_ *mesh.Link[*wire.Message], v *wire.Message, m *wire.Message) error {
	*m = *v
	return nil
}

func (*fuzzHost) Decode(_ *mesh.Link[*wire.Message], m *wire.Message) (*wire.Message, error) {
	if m.Type == "bad" {
		return nil, errors.New("a bad type")
	}
	return &wire.Message{ID: m.ID, Type: m.Type, Data: append([]byte(nil), m.Data...)}, nil
}

func (h *fuzzHost) Deliver(l *mesh.Link[*wire.Message], in *mesh.Inbound[*wire.Message], block bool) bool {
	if in.Tag != wire.TagMessage {
		return true
	}
	if h.n++; h.n%3 == 0 && !block {
		return false
	}
	if in.Flags&wire.FlagPoll != 0 {
		l.SendTargets(&wire.Targets{Request: in.Val.ID})
	}
	lane := l.Side().(*mailbox.Lane[*wire.Message]) // it is sent back
	lane.Lock()
	_, wake, _ := lane.AppendLocked(&mailbox.Item[*wire.Message]{Val: in.Val, From: 2}, nil, false)
	lane.Unlock()
	if wake != nil {
		wake.Rouse()
	}
	return true
}

func (*fuzzHost) Replay(*mesh.Link[*wire.Message], *wire.Replay) ([]*wire.Message, uint64, func(uint64, *wire.Message) bool) {
	return []*wire.Message{{Type: "past"}}, 1, func(uint64, *wire.Message) bool { return true }
}

func (*fuzzHost) Interested(*mesh.Link[*wire.Message], []wire.Entry, []wire.Entry) {}
func (*fuzzHost) Up(*mesh.Link[*wire.Message])                                     {}
func (*fuzzHost) Down(*mesh.Link[*wire.Message], error)                            {}
func (*fuzzHost) Lost(*mesh.Link[*wire.Message], error, mesh.Gap)                  {}
func (*fuzzHost) Gap(*mesh.Link[*wire.Message], mesh.Gap, bool)                    {}
func (*fuzzHost) Unsendable(*mesh.Link[*wire.Message], *wire.Message, error)       {}
func (*fuzzHost) Refused(string, *mesh.Peer, error)                                {}
func (*fuzzHost) UUID(m *wire.Message) wire.ID                                     { return m.ID }

// fuzzPeer shakes hands with the node at "node".
func fuzzPeer(t *testing.T, network *memory.Network, low bool) transport.Conn {
	t.Helper()
	c, err := network.Transport("peer").Dial(t.Context(), "node")
	if err != nil {
		t.Fatal(err)
	}
	hello := wire.Hello{
		MinVersion: 1, MaxVersion: 1, Node: wire.ID{0: 0xff}, Mesh: "m",
		MaxMessage: 1 << 16, WindowCount: 32, WindowCost: 1 << 16, Endpoints: []string{"memory:nobody"},
	}
	if low {
		hello.Node = wire.ID{15: 1}
	}
	rand.Read(hello.Nonce[:])
	m, err := handshake.Dial(&handshake.Config{Hello: hello, Resume: func(wire.ID) wire.Resume { return wire.Resume{Stream: 1} }})
	if err != nil {
		t.Fatal(err)
	}
	for send, done := m.Start(), false; ; {
		for _, p := range send {
			if err := c.WriteFrame(p); err != nil {
				t.Fatal(err)
			}
		}
		if done {
			c.SetReadLimit(1 << 24)
			return c
		}
		p, err := c.ReadFrame(nil)
		if err != nil {
			t.Fatal(err)
		}
		if send, done, err = m.Receive(p); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzMeshPeer: whatever a peer says after the handshake, the node answers its next ping or ends the
// connection, takes memory in proportion to what it was sent, and can be closed.
func FuzzMeshPeer(f *testing.F) {
	var w wire.BatchWriter
	id := wire.ID{1}
	batch := w.End(w.Gone(w.Targets(w.ReplayEnd(w.Gap(w.Message(w.Message(w.Begin(nil, 1),
		&wire.Message{ID: id, Type: "a", Data: []byte("data")}),
		&wire.Message{ID: id, Type: "b", Flags: wire.FlagReplyTo | wire.FlagPoll | wire.FlagAnswer, Rare: &wire.Rare{
			Parent: "p", Groups: []string{"g"}, Covered: []uint64{1}, Replay: 2,
		}}),
		&wire.Gap{Count: 3}), 1), &wire.Targets{List: []wire.Target{{Pods: []uint64{1}, Names: []string{"n"}}}}), 1))
	interest := wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true, Entries: []wire.Entry{{Allow: []string{"a.>"}, Deny: []string{"a.b"}}, {Group: "g", Allow: []string{"c"}}}})
	for _, frames := range [][]byte{
		batch, interest, wire.AppendAck(nil, 1), wire.AppendPing(wire.AppendPong(nil, 1), 2), wire.AppendWithdraw(nil),
		wire.AppendReplay(interest, &wire.Replay{ID: 1, Allow: []string{">"}, Types: []string{"a"}, Last: 2, After: "x"}),
		wire.AppendPeers(nil, &wire.Peers{Nodes: []wire.Peer{{Node: id, Endpoints: []string{"memory:nobody", "memory:node"}}}}),
		wire.AppendBye(nil, &wire.Bye{Code: wire.CodeLeaving}), wire.AppendUse(nil),
		{99, 1, 2},
		nil,
	} {
		f.Add(true, frames, batch)
		f.Add(false, interest, frames)
	}
	f.Fuzz(func(t *testing.T, low bool, first, second []byte) {
		network := memory.NewNetwork(memory.Config{})
		host := &fuzzHost{graph: mailbox.NewGraph[*wire.Message](nil)}
		host.graph.SetCost(func(m *wire.Message) int { return len(m.Data) })
		node := mesh.NewNode(&mesh.Config{
			ID: wire.ID{0: 0x80}, Mesh: "m", Open: true, Transport: network.Transport("node"),
			MaxMessage: 1 << 16, WindowCount: 16, WindowCost: 1 << 16,
			DeadAfter: time.Minute, ResumeFor: time.Minute, Handshake: time.Minute, Log: slog.New(slog.DiscardHandler),
		}, mesh.Host[*wire.Message](host))
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		watchdog := time.AfterFunc(20*time.Second, func() { panic("the node hangs") })
		defer watchdog.Stop()

		c := fuzzPeer(t, network, low)
		for _, p := range [][]byte{first, second, wire.AppendPing(nil, 1<<60)} {
			if c.WriteFrame(p) != nil {
				break
			}
		}
		hears(t, c, 1<<60)
		c.Close()
		node.Close()
		host.graph.Close()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20+100*uint64(len(first)+len(second)) {
			t.Errorf("%d bytes were allocated for %d", n, len(first)+len(second))
		}
	})
}

// hears waits until the node has answered the ping with the token, or has ended the connection.
func hears(t *testing.T, c transport.Conn, token uint64) {
	t.Helper()
	for {
		packet, err := c.ReadFrame(nil)
		if err != nil {
			if !errors.Is(err, transport.ErrPeerClosed) {
				t.Fatal(err)
			}
			return
		}
		for len(packet) > 0 {
			kind, body, rest, err := wire.Next(packet)
			if err != nil {
				t.Fatalf("the node sends %x: %v", packet, err)
			}
			if packet = rest; kind == wire.KindPong {
				if got, err := wire.DecodePong(body); err != nil || got == token {
					return
				}
			}
		}
	}
}
