package handshake_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// stages are the states in which a stranger's packet may find a machine.
var stages = []struct {
	dialler, listener byte // IDs
	dialer            bool // which one is meant
	packets           int  // that it has received
	wants             wire.Kind
}{
	{1, 2, false, 0, wire.KindHello},
	{1, 2, false, 1, wire.KindProof},
	{1, 2, false, 2, wire.KindUse},
	{2, 1, false, 2, 0}, // it has decided, and is done
	{1, 2, true, 0, wire.KindHello},
	{1, 2, true, 1, wire.KindWelcome},
	{2, 1, true, 2, wire.KindUse},
	{1, 2, true, 2, 0},
}

// enter returns a machine in a state, brought there by an honest other side with the same keys.
func enter(t testing.TB, stage int) *handshake.Machine {
	s := stages[stage]
	dc, lc := config(s.dialler), config(s.listener)
	dc.Keys = [][]byte{[]byte("secret"), []byte("older")}
	lc.Keys = dc.Keys
	d, l := dial(t, dc), listen(t, lc)
	m, other, packet := l, d, d.Start()[0]
	if s.dialer {
		m, other, packet = d, l, receive(t, l, packet)[0]
	}
	for i := range s.packets {
		send := receive(t, m, packet)
		if i < s.packets-1 {
			packet = receive(t, other, send[0])[0]
		}
	}
	return m
}

// FuzzReceive feeds a stranger's packets to a node that has a key, in each role and state. Only Use
// at its place makes it believe in a link; whatever is wrong is answered with one Refuse at most.
func FuzzReceive(f *testing.F) {
	hello, resume := config(3).Hello, wire.Resume{Stream: 1}
	use := wire.AppendUse(nil)
	for stage := range stages {
		for _, p := range [][]byte{
			wire.AppendHello(nil, &hello),
			wire.AppendHello(nil, &hello)[:20],
			wire.AppendProof(nil, &wire.Proof{Resume: resume}),
			wire.AppendProof(nil, &wire.Proof{MACs: make([][32]byte, wire.MaxKeys), Resume: resume}),
			wire.AppendWelcome(nil, &wire.Welcome{Resume: resume}),
			wire.AppendWelcome(nil, &wire.Welcome{Key: 2, Resume: resume}),
			use,
			wire.AppendUse(use),
			wire.AppendRefuse(nil, &wire.Refuse{Code: wire.CodeBusy, Reason: "busy"}),
			wire.AppendPing(nil, 1),
			{},
		} {
			f.Add(byte(stage), p, use)
		}
	}
	f.Fuzz(func(t *testing.T, stage byte, first, second []byte) {
		n := int(stage) % len(stages)
		m, wants := enter(t, n), stages[n].wants
		for _, packet := range [][]byte{first, second} {
			send, done, err := m.Receive(packet)
			if due := wants == wire.KindUse && bytes.Equal(packet, use); due && !done ||
				done && (wants != wire.KindUse || packet[0] != byte(wire.KindUse)) {
				t.Fatalf("done is %t after %x where %v was due: %v", done, packet, wants, err)
			}
			if err == nil {
				wants = 0
				if !done && !bytes.HasPrefix(packet, []byte{byte(wire.KindHello)}) {
					t.Fatalf("%x is accepted", packet)
				}
				if len(send) > 1 {
					t.Fatalf("it sends %x", send)
				}
				continue
			}
			var e *handshake.Error
			if !errors.As(err, &e) {
				t.Fatalf("an error of type %T: %v", err, err)
			}
			for _, p := range send {
				kind, body, rest, _ := wire.Next(p)
				r, err := wire.DecodeRefuse(body)
				if kind != wire.KindRefuse || len(rest) > 0 || err != nil || r.Code != e.Code || e.Remote {
					t.Fatalf("it sends %x because of %v", p, e)
				}
			}
			again, _, _ := m.Receive(packet)
			if len(send) > 1 || again != nil || m.Refuse(wire.CodeBusy, "") != nil || m.Result() != nil {
				t.Fatalf("it goes on after %v", e)
			}
			return
		}
	})
}
