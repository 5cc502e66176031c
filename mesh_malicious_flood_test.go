package gravbus_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// flood joins a rogue that floods the node until it is cut, with the error if it is not nil, or has
// no more to say. Meanwhile the node takes at most so much memory more, and in the end none.
func flood(t *testing.T, s *besieged, want error, most int64, act func(r *rogue) bool) {
	t.Helper()
	r := newRogue(t, true)
	r.hello.WindowCount = 16
	r.join(s.endpoint)
	mine := func(e gravbus.PeerEvent) bool { return e.Peer.Name == r.hello.Name }
	before, peak := heapNow(), int64(0)
	began := time.Now()
	for i := 0; act(r); i++ {
		if i%64 == 0 {
			peak = max(peak, heapNow()-before)
			if peak > 4*most {
				break
			}
		}
		if time.Since(began) > patience {
			t.Errorf("it goes on for ever")
			break
		}
	}
	if want == nil {
		r.ping()
	}
	peak = max(peak, heapNow()-before)
	if s.undisturbed(); want != nil {
		if down := s.event(gravbus.EventPeerDown, 1, mine); !strings.Contains(down.Error, want.Error()) {
			t.Errorf("it is cut with %q, not %q", down.Error, want)
		}
	}
	r.conn.Close()
	s.event(gravbus.EventPeerLost, 1, mine)
	s.undisturbed()
	left := heapNow() - before
	t.Logf("it took %v; %d KiB at most, %d KiB are left", time.Since(began).Round(time.Millisecond), peak>>10, left>>10)
	if peak > most {
		t.Errorf("the node took %d KiB, at most %d are wanted", peak>>10, most>>10)
	}
	if left > 24<<20 { // tables keep the room of what they once had
		t.Errorf("%d KiB are left behind", left>>10)
	}
}

// TestMaliciousInterest: a peer may want a lot, and change its mind all the time, but not more than
// the bounds.
func TestMaliciousInterest(t *testing.T) {
	s := besiege(t)
	entry := func(i int) wire.Entry { return wire.Entry{Allow: []string{fmt.Sprint("want.", i)}} }
	n := 0
	send := func(r *rogue, count int, remove bool, make func(i int) wire.Entry) bool {
		var f wire.Interest
		for range count {
			e := make(n)
			e.Remove = remove
			f.Entries = append(f.Entries, e)
			n++
		}
		return r.write(wire.AppendInterest(nil, &f))
	}
	t.Run("70000 entries", func(t *testing.T) {
		flood(t, s, handshake.ErrTooMuch, 160<<20, func(r *rogue) bool { return send(r, 1000, false, entry) })
	})
	t.Run("70000 patterns in an entry", func(t *testing.T) {
		n = 0
		flood(t, s, nil, 160<<20, func(r *rogue) bool {
			n++
			var e wire.Entry
			for i := range 70_000 {
				e.Allow = append(e.Allow, fmt.Sprint("p", i))
			}
			return r.write(wire.AppendInterest(nil, &wire.Interest{Entries: []wire.Entry{e}})) && n < 2
		})
	})
	t.Run("too many bytes", func(t *testing.T) {
		flood(t, s, handshake.ErrTooMuch, 160<<20, func(r *rogue) bool {
			return send(r, 1000, false, func(i int) wire.Entry {
				return wire.Entry{Allow: []string{fmt.Sprint(strings.Repeat("x.", 120), i)}, Deny: []string{strings.Repeat("*.", 120) + ">"}}
			})
		})
	})
	// Each counts what it takes: the bound of 64 MiB is one of memory.
	tokens := func(i, n int) string {
		all := make([]string, n)
		for j := range all {
			all[j] = fmt.Sprintf("%x", i*131+j)
		}
		return strings.Join(all, ".") + ".>"
	}
	for name, entry := range map[string]func(i int) wire.Entry{
		"many tokens": func(i int) wire.Entry { return wire.Entry{Allow: []string{tokens(i, 30)}} },
		"many short tokens": func(i int) wire.Entry {
			return wire.Entry{Allow: []string{fmt.Sprint(i, strings.Repeat(".a", 110), ".>")}}
		},
		"many stars":      func(i int) wire.Entry { return wire.Entry{Allow: []string{fmt.Sprint(i, strings.Repeat(".*", 110))}} },
		"stars and names": func(i int) wire.Entry { return wire.Entry{Allow: []string{fmt.Sprint(i, strings.Repeat(".*.a", 50))}} },
		"long":            func(i int) wire.Entry { return wire.Entry{Allow: []string{fmt.Sprintf("%0255d", i)}} },
		"many patterns": func(i int) wire.Entry {
			var e wire.Entry
			for j := range 64 {
				e.Allow = append(e.Allow, tokens(i*64+j, 2), fmt.Sprint("p.", i, j))
			}
			return e
		},
		"denied": func(i int) wire.Entry {
			e := wire.Entry{Allow: []string{">"}}
			for j := range 64 {
				e.Deny = append(e.Deny, fmt.Sprintf("%0240d", i*64+j))
			}
			return e
		},
		"groups": func(i int) wire.Entry { return wire.Entry{Group: fmt.Sprint("g", i), Allow: []string{"friends.of.*"}} },
	} {
		t.Run(name, func(t *testing.T) {
			n = 0
			flood(t, s, handshake.ErrTooMuch, 96<<20, func(r *rogue) bool { return send(r, 10, false, entry) })
		})
	}
	t.Run("never done", func(t *testing.T) {
		flood(t, s, handshake.ErrTooMuch, 160<<20, func(r *rogue) bool {
			if n%1000 == 0 {
				n = 1
				r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true}))
			}
			return send(r, 1000, false, entry)
		})
	})
	t.Run("add and remove", func(t *testing.T) {
		n = 0
		flood(t, s, nil, 64<<20, func(r *rogue) bool {
			n = 0
			send(r, 1000, false, func(i int) wire.Entry {
				return wire.Entry{Group: fmt.Sprint("g", i%7), Allow: []string{"a.*.b", fmt.Sprint(i, ".>")}}
			})
			n = 0
			send(r, 1000, true, func(i int) wire.Entry {
				return wire.Entry{Group: fmt.Sprint("g", i%7), Allow: []string{"a.*.b", fmt.Sprint(i, ".>")}}
			})
			r.seq++
			return r.seq < 20
		})
	})
	t.Run("observer and not", func(t *testing.T) {
		n = 0
		flood(t, s, nil, 64<<20, func(r *rogue) bool {
			var f wire.Interest
			for i := range 2000 {
				f.Entries = append(f.Entries, wire.Entry{Observer: i%2 == 0, Allow: []string{"turn.coat"}})
			}
			r.seq++
			return r.write(wire.AppendInterest(nil, &f)) && r.seq < 20
		})
	})
	if err := s.WaitInterest(meshCtx(t, time.Second/10), "turn.coat", 1); err == nil {
		t.Error("there is interest left")
	}
}

// blocked connects a pod that handles nothing until the test ends.
func (s *besieged) blocked(t *testing.T, pattern string, opts ...gravbus.PodOption) {
	t.Helper()
	free := make(chan struct{})
	p := s.Connect(append([]gravbus.PodOption{gravbus.Mailbox(16), gravbus.MailboxCap(16), gravbus.Overflow(gravbus.Block)}, opts...)...)
	must(t, p.OnType(pattern, func(gravbus.Message) error { <-free; return nil }))
	t.Cleanup(func() {
		close(free)
		p.Disconnect()
	})
}

// behind puts other items between messages that nobody takes.
func behind(add func(*wire.BatchWriter, []byte) []byte) func(*wire.BatchWriter, []byte) []byte {
	n := 0
	return func(w *wire.BatchWriter, b []byte) []byte {
		if n++; n%2 == 1 {
			return message("blocked", 0)(w, b)
		}
		return add(w, b)
	}
}

// TestMaliciousWindow: a peer that goes on sending what nobody takes is cut when it is beyond the
// window.
func TestMaliciousWindow(t *testing.T) {
	tests := []struct {
		name string
		add  func(*wire.BatchWriter, []byte) []byte
		n    int // in a packet
	}{
		{"many", message("blocked", 0), 500},
		{"large", message("blocked", 100_000), 5},
		{"parents", func(w *wire.BatchWriter, b []byte) []byte {
			return w.Message(b, &wire.Message{ID: randomID(), Type: "blocked", Rare: &wire.Rare{Parent: strings.Repeat("p", wire.MaxText)}})
		}, 10},
		{"groups", func(w *wire.BatchWriter, b []byte) []byte {
			return w.Message(b, &wire.Message{ID: randomID(), Type: "blocked", Rare: &wire.Rare{Groups: strings.Split(strings.Repeat("g", 100_000), "")}})
		}, 2},
		{"covered", func(w *wire.BatchWriter, b []byte) []byte {
			return w.Message(b, &wire.Message{ID: randomID(), Type: "blocked", Rare: &wire.Rare{Covered: make([]uint64, 100_000)}})
		}, 2},
		{"targets", behind(func(w *wire.BatchWriter, b []byte) []byte {
			return w.Targets(b, &wire.Targets{List: []wire.Target{{Pods: make([]uint64, 100_000), Names: make([]string, 100_000)}}})
		}), 2},
		{"gaps", behind(func(w *wire.BatchWriter, b []byte) []byte { return w.Gap(b, &wire.Gap{Count: 1}) }), 500},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := besiege(t)
			s.blocked(t, "blocked")
			flood(t, s, handshake.ErrTooMuch, 64<<20, func(r *rogue) bool { return r.items(tt.n, tt.add) })
		})
	}
}

// TestMaliciousNeverReads: a peer that takes nothing from its socket holds up who sends to it for a
// stall limit, and the others not at all.
func TestMaliciousNeverReads(t *testing.T) {
	s := besiege(t, gravbus.UseLinkStallLimit(200*time.Millisecond), gravbus.UseLinkBounds(1000, 1<<20), gravbus.UseDeadAfter(3*time.Second))
	r := newRogue(t, true)
	r.dial(s.endpoint)
	must(t, r.shake())
	r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true, Entries: []wire.Entry{{Allow: []string{"data"}}}}))
	meshWanted(t, s.Bus, "data", 1)
	var got atomic.Int32
	must(t, s.Connect().OnType("data", func(gravbus.Message) error {
		got.Add(1)
		return nil
	}))
	before := heapNow()
	p := s.Connect()
	began := time.Now()
	data := make([]byte, 10_000)
	for range 5000 {
		p.Send(gravbus.NewMsg("data", data))
	}
	t.Logf("5000 messages were sent in %v", time.Since(began))
	if d := time.Since(began); d > patience/3 {
		t.Errorf("senders are held up for %v", d)
	}
	eventually(t, "all messages came to the pod", func() bool { return got.Load() == 5000 })
	if more := heapNow() - before; more > 64<<20 {
		t.Errorf("%d KiB more are in use", more>>10)
	}
	mine := func(e gravbus.PeerEvent) bool { return e.Peer.Name == r.hello.Name }
	down := s.event(gravbus.EventPeerDown, 1, mine)
	if !strings.Contains(down.Error, handshake.ErrSilent.Error()) {
		t.Errorf("it is cut with %q", down.Error)
	}
	s.event(gravbus.EventPeerLost, 1, mine)
	s.undisturbed()
}

// TestMaliciousWindowClaim: a peer that says that it takes any number of messages, and acknowledges
// none, makes the node keep a bounded amount.
func TestMaliciousWindowClaim(t *testing.T) {
	s := besiege(t, gravbus.UseLinkStallLimit(200*time.Millisecond), gravbus.UseLinkBounds(1000, 1<<20))
	r := newRogue(t, true)
	r.hello.WindowCount, r.hello.WindowCost = math.MaxUint64, math.MaxUint64
	r.join(s.endpoint)
	r.write(wire.AppendInterest(nil, &wire.Interest{Entries: []wire.Entry{{Allow: []string{"data"}}}}))
	meshWanted(t, s.Bus, "data", 1)
	before := heapNow()
	p := s.Connect()
	for range 10_000 {
		p.Send(gravbus.NewMsg("data", make([]byte, 20_000)))
	}
	s.undisturbed()
	if more := heapNow() - before; more > 64<<20 {
		t.Errorf("%d KiB more are in use", more>>10)
	}
	if p, _ := s.peer(r); p.Unacked+p.Depth > 5000 {
		t.Errorf("%d messages are not acknowledged, %d wait", p.Unacked, p.Depth)
	}
}

// TestMaliciousPings: pings that are not answered yet take no memory, however many there are.
func TestMaliciousPings(t *testing.T) {
	s := besiege(t)
	var pings []byte
	for i := range uint64(1000) {
		pings = wire.AppendPing(pings, i)
	}
	n := 0
	flood(t, s, nil, 16<<20, func(r *rogue) bool {
		n++
		return r.write(pings) && n < 2000
	})
}

// TestMaliciousReplays: requests for replays wait, and take a bounded amount of memory, if the peer
// does not take the answers.
func TestMaliciousReplays(t *testing.T) {
	patterns := make([]string, 500_000)
	tests := []struct {
		name string
		ask  wire.Replay
	}{
		{"small", wire.Replay{Allow: []string{">"}, Since: wire.NoTime}},
		{"large", wire.Replay{Allow: patterns, Since: wire.NoTime}},
		{"after", wire.Replay{After: strings.Repeat("x", wire.MaxText), Since: wire.NoTime}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := besiege(t)
			p := s.Connect()
			for range 1000 {
				p.Send(gravbus.NewMsg("past", make([]byte, 1000)))
			}
			flood(t, s, handshake.ErrTooMuch, 128<<20, func(r *rogue) bool {
				tt.ask.ID++
				return r.write(wire.AppendReplay(nil, &tt.ask))
			})
		})
	}
}

// TestMaliciousPolls: a peer that asks who got its messages, and acknowledges nothing, is cut before
// the answers take much memory.
func TestMaliciousPolls(t *testing.T) {
	s := besiege(t)
	for i := range 100 {
		must(t, s.Connect(gravbus.Name(fmt.Sprint(strings.Repeat("long name ", 20), i))).OnType("poll", func(gravbus.Message) error { return nil }))
	}
	n := 0
	flood(t, s, handshake.ErrTooMuch, 64<<20, func(r *rogue) bool {
		n++
		return n < 2000 && r.items(100, func(w *wire.BatchWriter, b []byte) []byte {
			return w.Message(b, &wire.Message{ID: randomID(), Flags: wire.FlagPoll, Type: "poll"})
		})
	})
}

// TestMaliciousPollWords: what a peer says about a request of this node, again and again, does not
// pile up while that goes on.
func TestMaliciousPollWords(t *testing.T) {
	words := map[string]func(request wire.ID) func(*wire.BatchWriter, []byte) []byte{
		"gone": func(wire.ID) func(*wire.BatchWriter, []byte) []byte {
			pod := uint64(0)
			return func(w *wire.BatchWriter, b []byte) []byte { pod++; return w.Gone(b, pod) }
		},
		"targets": func(request wire.ID) func(*wire.BatchWriter, []byte) []byte {
			all := wire.Targets{Request: request}
			for i := range uint64(10) {
				all.List = append(all.List, wire.Target{Pods: []uint64{i}, Names: []string{"pod"}})
			}
			return func(w *wire.BatchWriter, b []byte) []byte { return w.Targets(b, &all) }
		},
		"answers": func(request wire.ID) func(*wire.BatchWriter, []byte) []byte {
			pod := uint64(0)
			return func(w *wire.BatchWriter, b []byte) []byte {
				pod++
				return w.Message(b, &wire.Message{
					ID: randomID(), Flags: wire.FlagReplyTo | wire.FlagAnswer | wire.FlagSkip, Type: "re", ReplyTo: request, Rare: &wire.Rare{From: pod},
				})
			}
		},
	}
	for name, word := range words {
		t.Run(name, func(t *testing.T) {
			s := besiege(t, gravbus.UseReplay(0))
			must(t, s.Connect().OnType("ask", func(gravbus.Message) error { return nil }))
			ctx, stop := context.WithCancel(t.Context())
			over := make(chan struct{})
			p, ask := s.Connect(), gravbus.NewMsg("ask", nil)
			go func() { // ends when ctx does
				defer close(over)
				for range p.RequestAll(ctx, ask) {
				}
			}()
			r := newRogue(t, true).join(s.endpoint)
			say := word(wire.ID(uuid.MustParse(ask.UUID())))
			before := heapNow()
			rounds := map[string]int{"gone": 200, "targets": 20, "answers": 100}
			for range rounds[name] {
				r.items(5000, say)
				r.paced(5000)
			}
			r.ping()
			if more := heapNow() - before; more > 12<<20 {
				t.Errorf("%d KiB more are in use", more>>10)
			}
			stop()
			awaitDone(t, patience, over)
			s.undisturbed()
		})
	}
}

// TestMaliciousPeers: a peer that tells of thousands of nodes makes a node dial a few at a time.
func TestMaliciousPeers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var open, most, all atomic.Int32
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Add(1)
			if n := open.Add(1); n > most.Load() {
				most.Store(n)
			}
			go func() { // ends with the dial
				defer c.Close()
				for b := make([]byte, 1000); ; {
					if _, err := c.Read(b); err != nil {
						open.Add(-1)
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	s := besiege(t)
	r := newRogue(t, true).join(s.endpoint)
	before := heapNow()
	for i := range 2000 {
		p := wire.Peer{Node: randomID()}
		for j := range 32 {
			p.Endpoints = append(p.Endpoints, fmt.Sprintf("ws://%s/%d/%d", ln.Addr(), i, j))
		}
		r.write(wire.AppendPeers(nil, &wire.Peers{Nodes: []wire.Peer{p}}))
	}
	r.ping()
	<-time.After(2 * time.Second) // there is nothing to wait for: no more dials come
	t.Logf("%d dials, %d at a time, %d KiB", all.Load(), most.Load(), (heapNow()-before)>>10)
	if n := most.Load(); n > 2*64 {
		t.Errorf("%d dials at a time", n)
	}
	if more := heapNow() - before; more > 64<<20 {
		t.Errorf("%d KiB more are in use", more>>10)
	}
	// Who was there before is found again, and others come in.
	peer := meshNode(t, s.Endpoints(), gravbus.UseMeshKey(strangerKey), gravbus.UseLogger(new(strangerLog).logger()))
	must(t, peer.WaitPeers(soon(t), 2))
	s.undisturbed()
}
