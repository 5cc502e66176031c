package gravbus_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/gravbus/gravbus/transport/websocket"
)

// TestMaliciousResume: a peer that says that it has what was never sent is refused by name, and what
// is true of its link stays so.
func TestMaliciousResume(t *testing.T) {
	for _, low := range []bool{true, false} {
		t.Run(fmt.Sprintf("low %t", low), func(t *testing.T) {
			s := besiege(t, gravbus.UseResumeFor(time.Minute))
			r := newRogue(t, low).join(s.endpoint)
			known := r.result.PeerResume.Stream
			r.message("a", "")
			r.ping()
			for i, received := range []uint64{1, 1 << 62, 1<<63 - 1} {
				liar := newRogue(t, low)
				liar.hello.Node, liar.hello.Name = r.hello.Node, r.hello.Name
				liar.resume = wire.Resume{Stream: 7, Known: known, Received: received}
				liar.dial(s.endpoint)
				err := liar.shake()
				if err == nil {
					_, err = liar.refusal()
				}
				if !errors.Is(err, handshake.ErrProtocol) {
					t.Errorf("having %d, it is refused with %v", received, err)
				}
				s.refused(i+1, handshake.ErrProtocol.Error())
			}
			r.ping() // the connection that was there stays
			if p, _ := s.peer(r); p.Cuts != 0 {
				t.Errorf("it was cut %d times", p.Cuts)
			}
			// Another stream of this node, of which it may say anything, and its own.
			again := newRogue(t, low)
			again.hello.Node = r.hello.Node
			again.resume = wire.Resume{Stream: 7, Known: known + 1, Received: 1 << 62}
			again.dial(s.endpoint)
			must(t, again.shake())
			if got := again.result.PeerResume; got.Stream != known || got.Known != 7 || got.Received != 1 {
				t.Errorf("the node goes on at %+v", got)
			}
			s.undisturbed()
		})
	}
}

// refusal waits for a Refuse or Bye after the handshake.
func (r *rogue) refusal() (wire.Kind, error) {
	for {
		packet, err := r.conn.ReadFrame(nil)
		if err != nil {
			return 0, err
		}
		for len(packet) > 0 {
			kind, body, rest, err := wire.Next(packet)
			if err != nil {
				return 0, err
			}
			if packet = rest; kind == wire.KindRefuse || kind == wire.KindBye {
				f, err := wire.DecodeRefuse(body)
				if err != nil {
					return 0, err
				}
				return kind, handshake.Remote(&f)
			}
		}
	}
}

// TestMaliciousTwin: of two connections with the same ID one carries the link; nothing else comes of
// it, however often they take turns.
func TestMaliciousTwin(t *testing.T) {
	s := besiege(t, gravbus.UseResumeFor(time.Minute))
	_, got := meshListener(t, s.Bus, "twin")
	id := newRogue(t, true).hello.Node
	var before *rogue
	const turns = 50
	for i := range turns {
		r := newRogue(t, true)
		r.hello.Node, r.hello.Name = id, "rogue twin"
		r.resume.Stream = 7
		r.join(s.endpoint)
		r.seq = r.result.PeerResume.Received
		if want := uint64(i); r.seq != want {
			t.Fatalf("the node has %d items, not %d", r.seq, want)
		}
		r.message("twin", "")
		r.ping()
		if before != nil {
			if bye := before.ended(); bye == nil || bye.Code != wire.CodeReplaced {
				t.Errorf("turn %d: the other connection ended with %+v", i, bye)
			}
		}
		before = r
	}
	if all := got.await(t, turns); len(all) != turns {
		t.Errorf("%d messages came", len(all))
	}
	if n := len(s.Stats().Peers); n != 2 {
		t.Errorf("%d peers", n)
	}
	if p, _ := s.peer(before); p.Cuts != turns-1 {
		t.Errorf("%d cuts", p.Cuts)
	}
	s.undisturbed()
}

// TestMaliciousPeersPoison: what a peer says of others does not push out where they are.
func TestMaliciousPeersPoison(t *testing.T) {
	s := besiege(t)
	other := meshNode(t, nil, gravbus.UseMeshKey(strangerKey), gravbus.UseNodeName("other"), gravbus.UseLogger(new(strangerLog).logger()))
	must(t, s.ConnectEndpoint(other.Endpoints()[0]))
	r := newRogue(t, true).join(s.endpoint)
	id := wire.ID(uuid.MustParse(other.NodeUUID))
	p := wire.Peer{Node: id}
	for i := range 32 {
		p.Endpoints = append(p.Endpoints, fmt.Sprintf("ws://127.0.0.1:1/%d", i))
	}
	r.write(wire.AppendPeers(nil, &wire.Peers{Nodes: []wire.Peer{p}}))
	r.ping()
	// An impostor takes the link, and goes.
	twin := newRogue(t, true)
	twin.hello.Node, twin.hello.Name = id, "twin"
	twin.join(s.endpoint)
	r.write(wire.AppendPeers(nil, &wire.Peers{Nodes: []wire.Peer{p}}))
	r.ping()
	twin.conn.Close()
	eventually(t, "the other is found again", func() bool {
		for _, p := range s.Stats().Peers {
			if p.Name == "other" && p.State == gravbus.PeerUp {
				return true
			}
		}
		return false
	})
	s.undisturbed()
}

// TestMaliciousByeStorm: a peer that takes every connection and ends it at once is not dialled all
// the time, and does not fill the log.
func TestMaliciousByeStorm(t *testing.T) {
	s := besiege(t, gravbus.UseResumeFor(time.Minute))
	ln, err := websocket.New(websocket.Config{Addr: "127.0.0.1:0"}).Listen(t.Context(), transport.ListenOptions{})
	must(t, err)
	var taken atomic.Int32
	done := make(chan struct{})
	id := newRogue(t, true)
	go func() { // ends with the listener
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			taken.Add(1)
			r := newRogue(t, true)
			r.hello.Node, r.hello.Name, r.conn = id.hello.Node, id.hello.Name, c
			r.hello.Endpoints = ln.Endpoints()
			if r.answer() == nil {
				r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true}))
				r.write(wire.AppendBye(nil, &wire.Bye{Code: wire.CodeProtocol}))
				c.Shutdown(context.Background())
			}
			c.Close()
		}
	}()
	s.ConnectEndpoint(ln.Endpoints()[0])
	began := time.Now()
	<-time.After(4 * time.Second)           // there is nothing to wait for: few dials come
	if n := taken.Load(); n < 2 || n > 12 { // it waits 0.1 s, 0.2 s, 0.4 s …
		t.Errorf("it was dialled %d times in %v", n, time.Since(began))
	}
	if n := s.log.of("gravbus: peer lost its connection; what is sent to it is kept"); n > int(time.Since(began)/time.Second)+2 {
		t.Errorf("%d warnings in %v", n, time.Since(began))
	}
	t.Logf("%d connections", taken.Load())
	s.undisturbed()
	must(t, ln.Close())
	awaitDone(t, patience, done)
}

// answer shakes hands as the side that was dialled.
func (r *rogue) answer() error {
	rand.Read(r.hello.Nonce[:])
	m, err := handshake.Listen(&handshake.Config{
		Hello: r.hello, Keys: r.keys, Binding: r.conn.Info().Binding,
		Resume: func(wire.ID) wire.Resume { return r.resume },
	})
	if err != nil {
		return err
	}
	for done := false; !done; {
		packet, err := r.conn.ReadFrame(nil)
		if err != nil {
			return err
		}
		var send [][]byte
		send, done, err = m.Receive(packet)
		for _, p := range send {
			r.conn.WriteFrame(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestMaliciousReplayAnswers: a peer whose answer to a replay never ends, or that says of everything
// that a replay has it, makes the node keep a bounded amount.
func TestMaliciousReplayAnswers(t *testing.T) {
	tests := []struct {
		name string
		size int
		rare func(id uint64) *wire.Rare
		typ  string
	}{
		{"never ends", 0, func(id uint64) *wire.Rare { return &wire.Rare{Replay: id} }, "asked"},
		{"large", 50_000, func(id uint64) *wire.Rare { return &wire.Rare{Replay: id} }, "asked"},
		{"live meanwhile", 50_000, func(uint64) *wire.Rare { return nil }, "asked"},
		{"covered", 0, func(id uint64) *wire.Rare { return &wire.Rare{Covered: []uint64{id}} }, "asked"},
		{"covered and not wanted", 0, func(id uint64) *wire.Rare { return &wire.Rare{Covered: []uint64{id}} }, "other"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := besiege(t)
			meshListener(t, s.Bus, "nothing") // the messages have somewhere to go
			p := s.Connect(gravbus.Replay(), gravbus.Mailbox(100), gravbus.MailboxCap(5000))
			must(t, p.OnType("asked", func(gravbus.Message) error { return nil }))
			r := newRogue(t, true).join(s.endpoint)
			var id uint64
			eventually(t, "a request for a replay", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.asks) > 0 {
					id = r.asks[0].ID
				}
				return id != 0
			})
			before := heapNow()
			data := []byte(strings.Repeat("x", tt.size))
			packets, most, limit := 100, int64(5<<20), uint64(4096) // a map of 100,000 IDs has more
			if tt.size > 0 {
				packets, most, limit = 120, 80<<20, 40 // of 120 MB; the window is one of bytes too
			}
			for range packets {
				ok := r.items(max(1000-tt.size, 20), func(w *wire.BatchWriter, b []byte) []byte {
					return w.Message(b, &wire.Message{ID: randomID(), Type: tt.typ, Rare: tt.rare(id), Data: data})
				})
				if !ok {
					t.Fatalf("it was cut: %+v", r.ended())
				}
				r.paced(limit)
			}
			r.ping()
			if more := heapNow() - before; more > most {
				t.Errorf("%d KiB more are in use", more>>10)
			}
			s.undisturbed()
		})
	}
}

// TestMaliciousAcks: a peer that only says that it goes on, and takes nothing, does not hold up
// those who do not send to it.
func TestMaliciousAcks(t *testing.T) {
	s := besiege(t)
	r := newRogue(t, true).join(s.endpoint)
	for range 10_000 {
		if !r.write(wire.AppendAck(nil, 0)) {
			t.Fatalf("it was cut: %+v", r.ended())
		}
	}
	r.ping()
	s.undisturbed()
}

// TestMaliciousAnswers: answers that nobody waits for are kept for a while, but not without bound.
func TestMaliciousAnswers(t *testing.T) {
	s := besiege(t)
	r := newRogue(t, true).join(s.endpoint)
	before := heapNow()
	for range 300 {
		ok := r.items(20, func(w *wire.BatchWriter, b []byte) []byte {
			return w.Message(b, &wire.Message{ID: randomID(), Type: "answer", Flags: wire.FlagReplyTo | wire.FlagAnswer, ReplyTo: randomID(), Data: make([]byte, 20_000)})
		})
		if !ok {
			t.Fatalf("it was cut: %+v", r.ended())
		}
	}
	r.ping()
	if more := heapNow() - before; more > 50<<20 { // 16 MiB of them, and as much in the buffer
		t.Errorf("%d KiB more are in use", more>>10)
	}
	if lost := s.Stats().RepliesLost; lost == 0 {
		t.Error("no reply is counted as lost")
	}
	s.undisturbed()
}

// TestMaliciousRepeatedAcks: a peer that says all the time that it goes on, and takes nothing, is
// believed for ten minutes.
func TestMaliciousRepeatedAcks(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		b := n.node("node", "", gravbus.UseMeshKey(strangerKey), gravbus.UseLinkBounds(100, 0))
		r := newRogue(t, true)
		r.hello.WindowCount = 100
		c, err := n.Transport("rogue").Dial(t.Context(), "memory:node")
		must(t, err)
		r.conn = c
		must(t, r.shake())
		go r.listen() // ends with the connection
		r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true, Entries: []wire.Entry{{Allow: []string{"data"}}}}))
		meshWanted(t, b, "data", 1)
		over := make(chan struct{})
		go func() { // ends with the connection
			defer close(over)
			for r.write(wire.AppendAck(nil, 0)) {
				time.Sleep(100 * time.Millisecond)
			}
		}()
		defer func() { c.Close(); <-over; <-r.over }()
		pod := b.Connect()
		var took []time.Duration
		for range 1000 {
			start := time.Now()
			pod.Send(gravbus.NewMsg("data", nil))
			if d := time.Since(start); d > 0 {
				took = append(took, d)
			}
		}
		if len(took) != 1 || took[0] < 10*time.Minute || took[0] > 10*time.Minute+2*time.Second {
			t.Errorf("senders have waited %v, want ten minutes and a stall limit, once", took)
		}
	})
}

// TestMeshWindowOfNewStream: a peer that had given up the link, and is back, has its whole window, though
// what it sent before still waits here; and what waits is bounded, however often it says so.
func TestMeshWindowOfNewStream(t *testing.T) {
	s := besiege(t)
	s.blocked(t, "t")
	r := newRogue(t, true).join(s.endpoint)
	item := message("t", 0)
	whole := func(r *rogue) {
		for range gravbus.DefaultWindowMessages / 1024 {
			r.items(1024, item)
		}
	}
	whole(r)
	r.ping()
	again := func(stream uint64) *rogue {
		next := newRogue(t, true)
		next.hello.Node, next.hello.Name = r.hello.Node, r.hello.Name
		next.resume.Stream = stream
		return next.join(s.endpoint)
	}
	second := again(8)
	second.items(1024, item)
	second.ping()
	third := again(9)
	whole(third)
	if bye := third.ended(); bye == nil || bye.Code != wire.CodeTooMuch {
		t.Errorf("the third stream ends with %+v, want %v", bye, wire.CodeTooMuch)
	}
}
