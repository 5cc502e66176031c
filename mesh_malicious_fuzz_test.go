package gravbus_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

// FuzzMaliciousPeer: whatever a peer says after the handshake, a bus with pods of all sorts answers
// its next ping or ends the connection, and delivers its own messages.
func FuzzMaliciousPeer(f *testing.F) {
	id := wire.ID{1}
	item := func(add func(w *wire.BatchWriter, b []byte) []byte) []byte {
		var w wire.BatchWriter
		return w.End(add(&w, w.Begin(nil, 1)))
	}
	message := func(flags byte, rare *wire.Rare) []byte {
		return item(func(w *wire.BatchWriter, b []byte) []byte {
			return w.Message(b, &wire.Message{ID: id, Type: "fuzz.a", Flags: flags, ReplyTo: id, Rare: rare, Data: []byte("data")})
		})
	}
	interest := wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true, Entries: []wire.Entry{
		{Allow: []string{"fuzz.>"}, Deny: []string{"fuzz.b"}}, {Group: "g", Allow: []string{"fuzz.*"}}, {Observer: true, Allow: []string{"own"}},
	}})
	for _, packet := range [][]byte{
		message(0, nil), message(wire.FlagReplyTo|wire.FlagAnswer, nil), message(wire.FlagPoll, nil),
		message(wire.FlagSkip, &wire.Rare{Groups: []string{"g"}}), message(wire.FlagAnswer, &wire.Rare{Parent: "p", Name: "n", ReplyTo: "r", From: 2}),
		message(0, &wire.Rare{Replay: 1}), message(0, &wire.Rare{Covered: []uint64{1, 2}}),
		item(func(w *wire.BatchWriter, b []byte) []byte { return w.ReplayEnd(b, 1) }),
		item(func(w *wire.BatchWriter, b []byte) []byte { return w.Gap(b, &wire.Gap{Count: 2}) }),
		item(func(w *wire.BatchWriter, b []byte) []byte { return w.Gone(b, 3) }),
		item(func(w *wire.BatchWriter, b []byte) []byte {
			return w.Targets(b, &wire.Targets{Request: id, List: []wire.Target{{Pods: []uint64{1, 2}, Names: []string{"a", "b"}}}})
		}),
		wire.AppendReplay(interest, &wire.Replay{ID: 1, Allow: []string{">"}, Types: []string{"own"}, Last: 2, After: "x"}),
		wire.AppendPeers(nil, &wire.Peers{Nodes: []wire.Peer{{Node: id, Endpoints: []string{"memory:nobody", "memory:node"}}}}),
		wire.AppendWithdraw(nil), wire.AppendBye(nil, &wire.Bye{Code: wire.CodeLeaving}), wire.AppendAck(nil, 1),
	} {
		f.Add(true, interest, packet)
		f.Add(false, packet, packet)
	}
	f.Fuzz(func(t *testing.T, low bool, first, second []byte) {
		n := meshNet{memory.NewNetwork(memory.Config{}), t}
		node := n.node("node", "", gravbus.UseMeshKey(strangerKey))
		var got recorder
		for _, opts := range [][]gravbus.PodOption{nil, {gravbus.InGroup("g")}, {gravbus.Replay()}, {gravbus.Observer(), gravbus.Mailbox(1), gravbus.Overflow(gravbus.DropOldest)}} {
			must(t, node.Connect(opts...).OnType("fuzz.*", func(gravbus.Message) error { return nil }))
		}
		must(t, node.Connect().OnType("own", got.handle))
		p := node.Connect()
		p.Send(gravbus.NewMsg("own", nil))

		r := newRogue(t, low)
		c, err := n.Transport("rogue").Dial(t.Context(), "node")
		must(t, err)
		defer c.Close()
		r.conn, r.hello.Endpoints = c, []string{"memory:rogue"}
		must(t, r.shake())
		must(t, c.SetReadDeadline(time.Now().Add(patience)))
		for _, packet := range [][]byte{first, second, wire.AppendPing(nil, 1<<60)} {
			r.write(packet)
		}
		p.Send(gravbus.NewMsg("own", nil))
		pong := wire.AppendPong(nil, 1<<60)
		for packet := []byte(nil); !bytes.Contains(packet, pong); {
			if packet, err = c.ReadFrame(nil); err != nil {
				if !errors.Is(err, transport.ErrPeerClosed) {
					t.Fatal(err)
				}
				break
			}
		}
		eventually(t, "its own messages", func() bool {
			own := slices.DeleteFunc(got.all(), func(m gravbus.Message) bool { return m.Data() != nil })
			return len(own) >= 2
		})
		within(t, patience, func() { node.Close() })
	})
}
