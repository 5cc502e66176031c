package gravbus_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/gravbus/gravbus/transport/websocket"
)

// TestStrangerIsRefused: both sides hear the same error, and the node counts it.
func TestStrangerIsRefused(t *testing.T) {
	keyed := besiege(t)
	open := &besieged{t: t, events: map[string][]gravbus.PeerEvent{}, Bus: meshNode(t, nil, gravbus.UseLogger(new(strangerLog).logger()))}
	open.endpoint = open.Endpoints()[0]
	open.watch()
	choosy := besiege(t, gravbus.UseAccept(func(p gravbus.PeerInfo) error {
		if strings.HasPrefix(p.Name, "rogue") {
			return errors.New("no rogues here")
		}
		return nil
	}))
	count := map[*besieged]int{}
	tests := []struct {
		name   string
		to     *besieged
		change func(r *rogue)
		want   error
		text   string
	}{
		{"wrong key", keyed, func(r *rogue) { r.keys = [][]byte{bytes.Repeat([]byte("x"), 32)} }, handshake.ErrUnauthorized, "no key in common"},
		{"four wrong keys", keyed, func(r *rogue) { r.keys = slices.Repeat([][]byte{[]byte("x")}, 4) }, handshake.ErrUnauthorized, "no key in common"},
		{"no key", keyed, func(r *rogue) { r.keys = nil }, handshake.ErrUnauthorized, "has no mesh key"},
		{"key where none is", open, func(*rogue) {}, handshake.ErrUnauthorized, "the listening node has none"},
		{"wrong mesh", keyed, func(r *rogue) { r.hello.Mesh = "elsewhere" }, handshake.ErrMeshMismatch, "elsewhere"},
		{"wrong mesh and key", keyed, func(r *rogue) { r.hello.Mesh, r.keys = "elsewhere", nil }, handshake.ErrMeshMismatch, "elsewhere"},
		{"future version", keyed, func(r *rogue) { r.hello.MinVersion, r.hello.MaxVersion = 2, 9 }, handshake.ErrVersion, "versions 2 to 9"},
		{"version 0", keyed, func(r *rogue) { r.hello.MinVersion, r.hello.MaxVersion = 0, 0 }, handshake.ErrVersion, "version 0"},
		{"not accepted", choosy, func(*rogue) {}, handshake.ErrRejected, "no rogues here"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRogue(t, i%2 == 0)
			tt.change(r)
			r.dial(tt.to.endpoint)
			err := r.shake()
			var e *handshake.Error
			if !errors.As(err, &e) || !e.Remote || !errors.Is(err, tt.want) || !strings.Contains(e.Reason, tt.text) {
				t.Errorf("it is refused with %v", err)
			}
			if _, err := r.conn.ReadFrame(nil); !errors.Is(err, transport.ErrPeerClosed) {
				t.Errorf("the connection goes on: %v", err)
			}
			count[tt.to]++
			got := tt.to.refused(count[tt.to], tt.want.Error())
			if !strings.Contains(got.Error, tt.text) {
				t.Errorf("the node says %q", got.Error)
			}
			if tt.to == choosy && (got.Peer.NodeUUID == "" || got.Peer.Name != r.hello.Name) {
				t.Errorf("it is told as %+v", got.Peer)
			}
		})
	}
	keyed.undisturbed()
}

// TestStrangerGarbage: whatever comes where a frame of the handshake is due is refused by name.
func TestStrangerGarbage(t *testing.T) {
	s := besiege(t)
	large := newRogue(t, true)
	large.hello.Capabilities = slices.Repeat([]string{strings.Repeat("c", 255)}, 64)
	many := newRogue(t, true)
	many.hello.Capabilities = make([]string, 257)
	nobody := newRogue(t, true)
	nobody.hello.Node = wire.ID{}
	tests := []struct {
		name   string
		packet []byte
		want   error
	}{
		{"empty packet", nil, handshake.ErrProtocol},
		{"zeros", make([]byte, 1000), handshake.ErrProtocol},
		{"text", []byte("GET / HTTP/1.1\r\n\r\n"), handshake.ErrProtocol},
		{"hello without fields", []byte{byte(wire.KindHello), 0}, handshake.ErrProtocol},
		{"hello with 257 capabilities", wire.AppendHello(nil, &many.hello), handshake.ErrProtocol},
		{"hello without an ID", wire.AppendHello(nil, &nobody.hello), handshake.ErrProtocol},
		{"hello over 16 KiB", wire.AppendHello(nil, &large.hello), handshake.ErrTooLarge},
		{"1 MiB", make([]byte, 1<<20), handshake.ErrTooLarge},
		{"welcome", wire.AppendWelcome(nil, &wire.Welcome{Resume: wire.Resume{Stream: 1}}), handshake.ErrProtocol},
		{"ping", wire.AppendPing(nil, 1), handshake.ErrProtocol},
		{"batch", []byte{byte(wire.KindBatch), 1, 1}, handshake.ErrProtocol},
		{"two frames", wire.AppendUse(wire.AppendUse(nil)), handshake.ErrProtocol},
		{"five proofs", wire.AppendProof(nil, &wire.Proof{MACs: make([][32]byte, 5), Resume: wire.Resume{Stream: 1}}), handshake.ErrProtocol},
		{"stream 0", wire.AppendProof(nil, &wire.Proof{MACs: make([][32]byte, 1)}), handshake.ErrProtocol},
	}
	n := 0
	for _, tt := range tests {
		for stage, due := range []string{"hello", "proof", "use"} {
			t.Run(tt.name+" where "+due+" is due", func(t *testing.T) {
				r := newRogue(t, true) // it decides
				r.dial(s.endpoint)
				m := r.machine()
				packet := m.Start()[0]
				for range stage {
					must(t, r.conn.WriteFrame(packet))
					answer, err := r.conn.ReadFrame(nil)
					must(t, err)
					send, _, err := m.Receive(answer)
					must(t, err)
					packet = send[0]
				}
				r.conn.WriteFrame(tt.packet)
				n++
				s.refused(n, tt.want.Error())
				answer, err := r.conn.ReadFrame(nil)
				if err != nil { // it does not read more of what is too large, and so may not be heard
					if !errors.Is(tt.want, handshake.ErrTooLarge) {
						t.Errorf("it was not told: %v", err)
					}
					return
				}
				if _, _, err := m.Receive(answer); !errors.Is(err, tt.want) {
					t.Errorf("it was told %v", err)
				}
			})
		}
	}
	s.undisturbed()
}

// TestStrangerReplaysAHandshake: what was recorded of another node's handshake proves nothing.
func TestStrangerReplaysAHandshake(t *testing.T) {
	s := besiege(t)
	for i, low := range []bool{true, false} {
		honest := newRogue(t, low).join(s.endpoint)
		thief := newRogue(t, low)
		thief.dial(s.endpoint)
		for _, packet := range honest.sent {
			thief.conn.WriteFrame(packet)
		}
		s.refused(i+1, handshake.ErrUnauthorized.Error())
		honest.ping() // and its link stays
		if p, _ := s.peer(honest); p.Cuts != 0 {
			t.Error("the honest node was cut")
		}
	}
	s.undisturbed()
}

// TestStrangerAcceptPanics: a decision that panics is a refusal.
func TestStrangerAcceptPanics(t *testing.T) {
	s := besiege(t, gravbus.UseAccept(func(p gravbus.PeerInfo) error {
		if strings.HasPrefix(p.Name, "rogue") {
			panic("what is this?")
		}
		return nil
	}))
	for i, low := range []bool{true, false} {
		r := newRogue(t, low)
		r.dial(s.endpoint)
		if err := r.shake(); !errors.Is(err, handshake.ErrRejected) || strings.Contains(err.Error(), "what is this?") {
			t.Errorf("it is refused with %v", err)
		}
		s.refused(i+1, handshake.ErrRejected.Error())
	}
	s.undisturbed()
}

// rawConn dials the node's port without a websocket.
func rawConn(t testing.TB, s *besieged) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.endpoint)
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { c.Close() })
	return c
}

// TestStrangerSpeaksSomethingElse: what is no websocket of a node is answered, if at all, and
// dropped.
func TestStrangerSpeaksSomethingElse(t *testing.T) {
	s := besiege(t, gravbus.UseTransport(websocket.New(websocket.Config{Addr: "127.0.0.1:0", HandshakeTimeout: time.Second})))
	upgrade := "GET /meta/message HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	tests := []struct {
		name, bytes string
		want        string
	}{
		{"noise", "\x00\x01\x02\r\n\r\n", "HTTP/1.1 400"},
		{"TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", ""},
		{"a web browser", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404"},
		{"no websocket", "GET /meta/message HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 426"},
		{"no node", upgrade + "\r\n", "HTTP/1.1 400"},
		{"endless header", "GET /meta/message HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20), "HTTP/1.1 431"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := rawConn(t, s)
			go io.WriteString(c, tt.bytes)
			answer := make([]byte, 100)
			n, _ := io.ReadFull(c, answer[:max(len(tt.want), 1)])
			if got := string(answer[:n]); tt.want != "" && got != tt.want && tt.name != "endless header" {
				t.Errorf("it is answered with %q", got)
			}
			c.Close()
		})
	}
	upgraded := func(t *testing.T) net.Conn {
		t.Helper()
		c := rawConn(t, s)
		io.WriteString(c, upgrade+"Sec-WebSocket-Protocol: gravbus.v1\r\n\r\n")
		var got []byte
		for b := make([]byte, 1); !bytes.HasSuffix(got, []byte("\r\n\r\n")); got = append(got, b...) {
			if _, err := c.Read(b); err != nil {
				t.Fatalf("%v after %q", err, got)
			}
		}
		return c
	}
	t.Run("frame of 2^62 bytes", func(t *testing.T) {
		before := heapNow()
		io.WriteString(upgraded(t), "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00mask")
		s.refused(1, handshake.ErrTooLarge.Error())
		if grown := heapNow() - before; grown > 1<<20 {
			t.Errorf("%d bytes more are in use", grown)
		}
	})
	t.Run("frame that comes byte by byte", func(t *testing.T) {
		c := upgraded(t)
		began := time.Now()
		io.WriteString(c, "\x82\xfe\x10\x00mask")
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			io.ReadAll(c)
		}()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for open := true; open; {
			select {
			case <-tick.C:
				io.WriteString(c, "x")
			case <-ended:
				open = false
			}
		}
		if d := time.Since(began); d > patience/2 {
			t.Errorf("it took %v", d)
		}
		s.refused(2, handshake.ErrBusy.Error())
	})
	t.Run("text frame", func(t *testing.T) {
		io.WriteString(upgraded(t), "\x81\x81mask\x0c")
		s.refused(3, handshake.ErrProtocol.Error())
	})
	s.undisturbed()
}

// TestStrangerTakesLong: a handshake that is not over in time is ended, however slowly it goes on.
func TestStrangerTakesLong(t *testing.T) {
	for stage, name := range []string{"silent", "after hello", "after proof"} {
		t.Run(name, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				node := n.node("a", "", gravbus.UseMeshKey(strangerKey))
				events := meshWatch(t, node)
				c, err := n.Transport("rogue").Dial(t.Context(), "a")
				must(t, err)
				defer c.Close()
				r := newRogue(t, true)
				r.conn = c
				m, began := r.machine(), time.Now()
				packet := m.Start()[0]
				for range stage {
					must(t, c.WriteFrame(packet))
					answer, err := c.ReadFrame(nil)
					must(t, err)
					send, _, err := m.Receive(answer)
					must(t, err)
					packet = send[0]
				}
				answer, err := c.ReadFrame(nil) // nothing more is said
				must(t, err)
				if _, _, err := m.Receive(answer); !errors.Is(err, handshake.ErrBusy) {
					t.Errorf("it is told %v", err)
				}
				if d := time.Since(began); d != gravbus.DefaultHandshakeTime {
					t.Errorf("it took %v", d)
				}
				synctest.Wait()
				if all := events.take(); len(all) != 1 || !strings.HasPrefix(all[0], "refused") {
					t.Errorf("events %q", all)
				}
			})
		})
	}
}

// TestStrangerDrips: a connection that sends byte by byte has no more time than others.
func TestStrangerDrips(t *testing.T) {
	const limit = 300 * time.Millisecond
	s := besiege(t, gravbus.UseTransport(websocket.New(websocket.Config{Addr: "127.0.0.1:0", HandshakeTimeout: limit})))
	c := rawConn(t, s)
	ended := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(c)
		ended <- err
	}()
	tick := time.NewTicker(limit / 20)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
			c.Write([]byte("GET /meta/message HTTP/1.1\r\nX: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")[i%80 : i%80+1])
			if i > 1000 {
				t.Fatal("it goes on for ever")
			}
			continue
		case err := <-ended:
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		break
	}
	s.undisturbed()
}
