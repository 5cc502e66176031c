package gravbus_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// cutOff joins a rogue, lets it act, and checks that the node cuts it with an error, tells why, and
// lives on with its friend.
func cutOff(t *testing.T, s *besieged, low bool, want error, act func(r *rogue)) {
	t.Helper()
	r := newRogue(t, low).join(s.endpoint)
	mine := func(e gravbus.PeerEvent) bool { return e.Peer.Name == r.hello.Name }
	s.event(gravbus.EventPeerUp, 1, mine)
	act(r)
	down := s.event(gravbus.EventPeerDown, 1, mine)
	if !strings.Contains(down.Error, want.Error()) {
		t.Errorf("the node says %q, not %q", down.Error, want)
	}
	bye := r.ended()
	if bye == nil && errors.Is(want, handshake.ErrTooLarge) {
		bye = &wire.Bye{Code: wire.CodeTooLarge, Reason: "not heard, as the node did not read on"}
	}
	if code, _ := handshake.CodeOf(want); bye == nil || bye.Code != code || bye.Reason == "" {
		t.Errorf("the rogue has heard %+v, not code %d", bye, code)
	}
	s.event(gravbus.EventPeerLost, 1, mine)
	s.undisturbed()
}

// message appends a message of a type, with some bytes of data.
func message(typ string, size int) func(*wire.BatchWriter, []byte) []byte {
	return func(w *wire.BatchWriter, b []byte) []byte {
		return w.Message(b, &wire.Message{ID: randomID(), Type: typ, Data: make([]byte, size)})
	}
}

// TestMaliciousIsCut: what the protocol does not allow ends the connection, with its name on both
// sides.
func TestMaliciousIsCut(t *testing.T) {
	s := besiege(t, gravbus.UseMaxMessageSize(10_000))
	batch := func(body ...byte) []byte { return append([]byte{byte(wire.KindBatch), byte(len(body))}, body...) }
	whole := func() []byte {
		var w wire.BatchWriter
		return w.End(message("a", 3)(&w, w.Begin(nil, 1)))
	}()
	tests := []struct {
		name string
		want error
		act  func(r *rogue)
	}{
		{"frame beyond its packet", handshake.ErrProtocol, func(r *rogue) { r.write([]byte{byte(wire.KindPing), 50, 1}) }},
		{"frame without a length", handshake.ErrProtocol, func(r *rogue) { r.write([]byte{99}) }},
		{"frame of 2^64 bytes", handshake.ErrProtocol, func(r *rogue) {
			r.write(append([]byte{byte(wire.KindBatch)}, binary.AppendUvarint(nil, math.MaxUint64)...))
		}},
		{"truncated packet", handshake.ErrProtocol, func(r *rogue) { r.write(whole[:len(whole)-1]) }},
		{"truncated item", handshake.ErrProtocol, func(r *rogue) { r.write(batch(1, 45, 0, 1)) }},
		{"item without a tag", handshake.ErrProtocol, func(r *rogue) { r.write(batch(1, 0)) }},
		{"message without a time", handshake.ErrProtocol, func(r *rogue) { r.write(batch(append([]byte{1, 17}, make([]byte, 17)...)...)) }},
		{"second item broken", handshake.ErrProtocol, func(r *rogue) {
			b := r.batch.Begin(nil, 1)
			r.write(r.batch.End(append(message("a", 3)(&r.batch, b), 200)))
		}},
		{"item 0", handshake.ErrProtocol, func(r *rogue) { r.write(batch(0)) }},
		{"item 2^63", handshake.ErrProtocol, func(r *rogue) { r.write(batch(binary.AppendUvarint(nil, 1<<63)...)) }},
		{"missing items", handshake.ErrSequence, func(r *rogue) {
			r.message("a", "")
			r.seq++
			r.message("a", "")
		}},
		{"acknowledged before it was sent", handshake.ErrSequence, func(r *rogue) { r.write(wire.AppendAck(nil, 1)) }},
		{"acknowledged up to 2^64-1", handshake.ErrSequence, func(r *rogue) { r.write(wire.AppendAck(nil, math.MaxUint64)) }},
		{"second hello", handshake.ErrProtocol, func(r *rogue) { r.write(wire.AppendHello(nil, &r.hello)) }},
		{"second use", handshake.ErrProtocol, func(r *rogue) { r.write(wire.AppendUse(wire.AppendUse(nil))) }},
		{"reserved type", handshake.ErrProtocol, func(r *rogue) { r.message(gravbus.EventPeerUp, "{}") }},
		{"type with a space", handshake.ErrProtocol, func(r *rogue) { r.message("a b", "") }},
		{"pattern as a type", handshake.ErrProtocol, func(r *rogue) { r.message("a.>", "") }},
		{"type that is no text", handshake.ErrProtocol, func(r *rogue) { r.message("a\xff", "") }},
		{"type number that was not given", handshake.ErrProtocol, func(r *rogue) {
			r.write(batch(append(append([]byte{1, 20, 0}, make([]byte, 16)...), 0, 77, 0)...))
		}},
		{"5000 types", handshake.ErrProtocol, func(r *rogue) {
			// The writer of this package gives 4096 of them a number. A connection of its own gives one more.
			var other wire.BatchWriter
			b := r.batch.Begin(nil, 1)
			for i := range wire.MaxTypes {
				b = message(fmt.Sprint("t.", i), 0)(&r.batch, b)
			}
			r.write(r.batch.End(b))
			r.write(other.End(message("one.more", 0)(&other, other.Begin(nil, wire.MaxTypes+1))))
		}},
		{"message over the limit", handshake.ErrTooLarge, func(r *rogue) { r.items(1, message("a", 10_001)) }},
		{"packet over the limit", handshake.ErrTooLarge, func(r *rogue) { r.write(make([]byte, 10_000+256<<10+1)) }},
		{"endpoints beyond the limit", handshake.ErrProtocol, func(r *rogue) {
			r.write(wire.AppendPeers(nil, &wire.Peers{Nodes: []wire.Peer{{Node: randomID(), Endpoints: make([]string, 33)}}}))
		}},
		{"pattern beyond the limit", handshake.ErrProtocol, func(r *rogue) {
			r.write(wire.AppendInterest(nil, &wire.Interest{Entries: []wire.Entry{{Allow: []string{strings.Repeat("a", 256)}}}}))
		}},
		{"more entries than bytes", handshake.ErrProtocol, func(r *rogue) {
			r.write(append([]byte{byte(wire.KindInterest), 6, 0}, binary.AppendUvarint(nil, 1<<32)...))
		}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { cutOff(t, s, i%2 == 0, tt.want, tt.act) })
	}
}

// TestMaliciousBye: whatever code a peer leaves with, it is told, and the link ends or waits.
func TestMaliciousBye(t *testing.T) {
	s := besiege(t)
	for _, code := range []wire.Code{0, wire.CodeProtocol, wire.CodeSilent, wire.CodeReplaced, 15, 1 << 63} {
		r := newRogue(t, code%2 == 0).join(s.endpoint)
		r.write(wire.AppendBye(nil, &wire.Bye{Code: code, Reason: "\x1b[31mred\nline"}))
		mine := func(e gravbus.PeerEvent) bool { return e.Peer.Name == r.hello.Name }
		down := s.event(gravbus.EventPeerDown, 1, mine)
		if want := (&handshake.Error{Code: code, Remote: true}).Error(); !strings.HasPrefix(down.Error, want) || strings.ContainsAny(down.Error, "\x1b\n") {
			t.Errorf("code %d is told as %q", code, down.Error)
		}
		r.ended()
		s.event(gravbus.EventPeerLost, 1, mine)
	}
	s.undisturbed()
}

// TestMaliciousIsTolerated: what a later version might say, and what merely makes no sense, changes
// nothing.
func TestMaliciousIsTolerated(t *testing.T) {
	s := besiege(t)
	_, got := meshListener(t, s.Bus, "rogue.*")
	meshListener(t, s.Bus, "rogue.replayed", gravbus.Replay())
	type tolerated struct {
		name string
		act  func(r *rogue)
		more int // messages that come from it
	}
	frame := func(kind byte, body ...byte) func(r *rogue) {
		return func(r *rogue) { r.write(append([]byte{kind, byte(len(body))}, body...)) }
	}
	item := func(add func(w *wire.BatchWriter, b []byte) []byte) func(r *rogue) {
		return func(r *rogue) { r.items(1, add) }
	}
	rare := func(flags byte, rare wire.Rare) func(r *rogue) {
		return item(func(w *wire.BatchWriter, b []byte) []byte {
			return w.Message(b, &wire.Message{ID: randomID(), Flags: flags, Type: "rogue.rare", ReplyTo: randomID(), Rare: &rare})
		})
	}
	tests := []tolerated{
		{"empty packet", func(r *rogue) { r.write(nil) }, 0},
		{"kind 0", frame(0), 0},
		{"kind 15", frame(15, 1, 2, 3), 0},
		{"kind 255", frame(255, 1, 2, 3), 0},
		{"longer ack", frame(byte(wire.KindAck), 0, 1, 2, 3), 0},
		{"pong to nothing", func(r *rogue) { r.write(wire.AppendPong(wire.AppendPong(nil, 0), math.MaxUint64)) }, 0},
		{"unknown item", item(func(_ *wire.BatchWriter, b []byte) []byte { return append(b, 3, 200, 1, 2) }), 0},
		{"unknown flags", rare(0xe0&0x7f, wire.Rare{}), 1},
		{"sent again", func(r *rogue) {
			r.message("rogue.twice", "")
			r.seq--
			r.message("rogue.twice", "")
		}, 1},
		{"answer to nothing", rare(wire.FlagReplyTo|wire.FlagAnswer, wire.Rare{From: 5}), 1},
		{"answer by text to nothing", rare(wire.FlagAnswer, wire.Rare{ReplyTo: "nobody asked"}), 1},
		{"answer without a question", rare(wire.FlagAnswer, wire.Rare{}), 1},
		{"unknown group", rare(wire.FlagSkip, wire.Rare{Groups: []string{"nobody", strings.Repeat("x", 255)}}), 0},
		{"skip without anything", rare(wire.FlagSkip, wire.Rare{}), 0},
		{"replay that nobody asked for", rare(0, wire.Rare{Replay: math.MaxUint64}), 0},
		{"covered by what nobody asked for", rare(0, wire.Rare{Covered: []uint64{0, 1000, math.MaxUint64}}), 1},
		{"poll", rare(wire.FlagPoll, wire.Rare{}), 1},
		{"end of no replay", item(func(w *wire.BatchWriter, b []byte) []byte { return w.ReplayEnd(b, 99) }), 0},
		{"targets of no request", item(func(w *wire.BatchWriter, b []byte) []byte {
			return w.Targets(b, &wire.Targets{Request: randomID(), List: []wire.Target{{Pods: []uint64{0, math.MaxUint64}, Names: []string{"a", "b"}}}})
		}), 0},
		{"nobody has gone", item(func(w *wire.BatchWriter, b []byte) []byte { return w.Gone(b, 1<<63) }), 0},
		{"endless gap", item(func(w *wire.BatchWriter, b []byte) []byte { return w.Gap(b, &wire.Gap{Count: math.MaxUint64}) }), 0},
		{"interests that are none", func(r *rogue) {
			r.write(wire.AppendInterest(nil, &wire.Interest{Entries: []wire.Entry{
				{},
				{Group: "g"},
				{Allow: []string{""}},
				{Allow: []string{"a..b", "a b", ">.a", "gravbus.>", "\xff"}, Deny: []string{"x y"}},
				{Remove: true, Allow: []string{"never.there"}},
				{Allow: []string{"a", "a"}, Deny: []string{"a"}},
				{Observer: true, Group: "g", Allow: []string{"b"}},
			}}))
		}, 0},
		{"interest anew", func(r *rogue) {
			r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true, Entries: []wire.Entry{{Allow: []string{"x.>"}}}}))
			r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true}))
			r.write(wire.AppendInterest(nil, &wire.Interest{Done: true}))
			r.write(wire.AppendInterest(nil, &wire.Interest{Done: true}))
		}, 0},
		{"flags of interest", frame(byte(wire.KindInterest), 0xfc, 0x01, 0), 0},
		{"peers that are none", func(r *rogue) {
			r.write(wire.AppendPeers(nil, &wire.Peers{Nodes: []wire.Peer{
				{},
				{Node: randomID()},
				{Node: r.result.Peer.ID, Endpoints: []string{s.endpoint}},
				{Node: r.hello.Node, Endpoints: []string{"", "\x00", "http://[::1", "nowhere"}},
			}}))
		}, 0},
		{"replay of nothing", func(r *rogue) {
			r.write(wire.AppendReplay(nil, &wire.Replay{ID: 1, Allow: []string{"a b", ""}, Types: []string{"x y"}, Since: wire.NoTime, After: "no UUID"}))
			r.write(wire.AppendReplay(nil, &wire.Replay{ID: 1}))
			r.write(wire.AppendReplay(nil, &wire.Replay{ID: math.MaxUint64, Last: math.MaxUint64}))
		}, 0},
		{"withdraw, and more", func(r *rogue) {
			r.write(wire.AppendWithdraw(wire.AppendWithdraw(nil)))
			r.message("rogue.late", "")
			r.write(wire.AppendInterest(nil, &wire.Interest{Entries: []wire.Entry{{Allow: []string{"late"}}}}))
		}, 1},
		{"bye, and more", func(r *rogue) {
			r.write(wire.AppendBye(nil, &wire.Bye{Code: wire.CodeLeaving}))
			r.message("rogue.later", "")
		}, 1},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRogue(t, i%2 == 0)
			r.acks = true
			r.join(s.endpoint)
			before := len(got.all())
			tt.act(r)
			r.message("rogue.after", "")
			r.ping()
			all := got.await(t, before+tt.more+1)
			if len(all) != before+tt.more+1 || all[len(all)-1].Type() != "rogue.after" {
				t.Errorf("%d messages came, not %d", len(all)-before, tt.more+1)
			}
			if p, _ := s.peer(r); p.Cuts != 0 {
				t.Errorf("it was cut %d times", p.Cuts)
			}
			s.undisturbed()
		})
	}
}
