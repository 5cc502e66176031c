package gravbus_test

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/gravbus/gravbus/transport/websocket"
)

// TestStrangerIsDialled: a node that dials a stranger gives up by itself, says why, and does not
// say more than its Hello and a proof that is of no use elsewhere.
func TestStrangerIsDialled(t *testing.T) {
	hello := func(change func(*wire.Hello)) func(r *rogue, heard wire.Hello) [][]byte {
		return func(r *rogue, heard wire.Hello) [][]byte {
			h := r.hello
			change(&h)
			return [][]byte{wire.AppendHello(nil, &h)}
		}
	}
	then := func(packets ...[]byte) func(*rogue, wire.Hello) [][]byte {
		return func(r *rogue, _ wire.Hello) [][]byte {
			return append([][]byte{wire.AppendHello(nil, &r.hello)}, packets...)
		}
	}
	resume := wire.Resume{Stream: 1}
	tests := []struct {
		name   string
		answer func(r *rogue, heard wire.Hello) [][]byte // to the Hello, and to what follows
		want   error
	}{
		{"silent", func(*rogue, wire.Hello) [][]byte { return nil }, handshake.ErrBusy},
		{"silent after hello", then(), handshake.ErrBusy},
		{"empty packet", func(*rogue, wire.Hello) [][]byte { return [][]byte{{}} }, handshake.ErrProtocol},
		{"large", func(*rogue, wire.Hello) [][]byte { return [][]byte{make([]byte, 1<<20)} }, handshake.ErrTooLarge},
		{"wrong mesh", hello(func(h *wire.Hello) { h.Mesh = "elsewhere" }), handshake.ErrMeshMismatch},
		{"future version", hello(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 2, 2 }), handshake.ErrVersion},
		{"no ID", hello(func(h *wire.Hello) { h.Node = wire.ID{} }), handshake.ErrProtocol},
		{"its own hello", func(_ *rogue, heard wire.Hello) [][]byte { return [][]byte{wire.AppendHello(nil, &heard)} }, handshake.ErrSelf},
		{"no proof", then(wire.AppendUse(nil)), handshake.ErrProtocol},
		{"zero proof", then(wire.AppendWelcome(nil, &wire.Welcome{Resume: resume})), handshake.ErrUnauthorized},
		{"proof by key 3", then(wire.AppendWelcome(nil, &wire.Welcome{Key: 3, Resume: resume})), handshake.ErrProtocol},
		{"refused by name", then(wire.AppendRefuse(nil, &wire.Refuse{Code: wire.CodeRejected, Reason: "go\naway"})), handshake.ErrRejected},
		{"refused by another name", then(wire.AppendRefuse(nil, &wire.Refuse{Code: 99})), &handshake.Error{Code: 99, Remote: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				ln, err := n.Transport("rogue").Listen(t.Context(), transport.ListenOptions{})
				must(t, err)
				heard := make(chan [][]byte, 1)
				go func() {
					var all [][]byte
					defer func() { heard <- all }()
					c, err := ln.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					r := newRogue(t, false)
					rand.Read(r.hello.Nonce[:])
					var answers [][]byte
					for {
						packet, err := c.ReadFrame(nil)
						if err != nil {
							return
						}
						if all = append(all, packet); len(all) == 1 {
							_, body, _, _ := wire.Next(packet)
							h, err := wire.DecodeHello(body)
							mustToo(t, err)
							answers = tt.answer(r, h)
						}
						if len(answers) > 0 {
							c.WriteFrame(answers[0])
							answers = answers[1:]
						}
					}
				}()
				node := n.lone("node", gravbus.UseMeshKey(strangerKey))
				began := time.Now()
				err = node.ConnectEndpoint("rogue")
				var peerError *gravbus.PeerError
				if !errors.As(err, &peerError) || !errors.Is(err, tt.want) && !strings.Contains(err.Error(), tt.want.Error()) || strings.Contains(err.Error(), "\n") {
					t.Errorf("it fails with %v", err)
				}
				if d := time.Since(began); d > gravbus.DefaultHandshakeTime {
					t.Errorf("it took %v", d)
				}
				must(t, ln.Close())
				all := <-heard
				kinds := slices.Collect(func(yield func(wire.Kind) bool) {
					for _, p := range all {
						if !yield(wire.Kind(p[0])) {
							return
						}
					}
				})
				known := []wire.Kind{wire.KindHello, wire.KindProof, wire.KindRefuse}
				if slices.ContainsFunc(kinds, func(k wire.Kind) bool { return !slices.Contains(known, k) }) {
					t.Errorf("the stranger has heard %v", kinds)
				}
				if n := len(node.Stats().Peers); n != 0 {
					t.Errorf("%d peers", n)
				}
			})
		})
	}
}

// TestStrangerWithOurID: a connection with the node's own ID is refused, whatever key it has, and is
// no stranger: the node may have dialled itself.
func TestStrangerWithOurID(t *testing.T) {
	s := besiege(t)
	r := newRogue(t, true)
	r.dial(s.endpoint)
	must(t, r.shake())
	twin := newRogue(t, true)
	twin.hello.Node = r.result.Peer.ID
	twin.dial(s.endpoint)
	if err := twin.shake(); !errors.Is(err, handshake.ErrSelf) {
		t.Errorf("it is refused with %v", err)
	}
	s.undisturbed()
	if n := s.Stats().Strangers; n != 0 {
		t.Errorf("%d strangers", n)
	}
}

// unbound is a transport that claims to encrypt, but has no channel binding.
type unbound struct{ transport.Transport }

func (u unbound) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	l, err := u.Transport.Listen(ctx, o)
	return unboundListener{l}, err
}

func (u unbound) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	c, err := u.Transport.Dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	return unboundConn{c}, nil
}

type unboundListener struct{ transport.Listener }

func (l unboundListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return unboundConn{c}, nil
}

type unboundConn struct{ transport.Conn }

// Info implements transport.Conn.
func (c unboundConn) Info() transport.Info {
	i := c.Conn.Info()
	i.Secure, i.Binding = true, nil
	return i
}

// TestStrangerWithoutBinding: an encrypted connection that does not say which one it is might be
// that of somebody in the middle, so it proves no key.
func TestStrangerWithoutBinding(t *testing.T) {
	s := besiege(t)
	node := meshNode(t, nil, gravbus.UseTransport(unbound{websocket.New(websocket.Config{Addr: "127.0.0.1:0"})}),
		gravbus.UseMeshKey(strangerKey), gravbus.UseLogger(new(strangerLog).logger()))
	r := newRogue(t, true)
	r.dial(node.Endpoints()[0])
	if err := r.shake(); !errors.Is(err, handshake.ErrUnauthorized) {
		t.Errorf("as a listener it refuses with %v", err)
	}
	if err := node.ConnectEndpoint(s.endpoint); !errors.Is(err, gravbus.ErrUnauthorized) {
		t.Errorf("as a dialler it fails with %v", err)
	}
	eventually(t, "both are counted", func() bool { return node.Stats().Strangers == 2 })
}
