package gravbus_test

import (
	"bytes"
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
)

// A rogue is a peer whose every word is the test's.
type rogue struct {
	t      testing.TB
	hello  wire.Hello
	keys   [][]byte
	resume wire.Resume // that it tells
	conn   transport.Conn
	result *handshake.Result
	sent   [][]byte // in the handshake

	batch wire.BatchWriter
	seq   uint64 // of the last item that it has sent
	acks  bool   // it acknowledges what comes

	writing sync.Mutex

	mu    sync.Mutex    // guards all below
	bye   *wire.Bye     // what it has heard last
	pongs []uint64      // the tokens it has heard
	acked uint64        // what it has heard is acknowledged
	asks  []wire.Replay // the requests it has heard
	over  chan struct{} // closed when nothing more comes
	err   error         // why
}

// newRogue returns a peer with the right key. Its ID is above those of others unless low is set: the
// node with the lower ID decides.
func newRogue(t testing.TB, low bool) *rogue {
	r := &rogue{t: t, keys: [][]byte{strangerKey}, resume: wire.Resume{Stream: 7}, over: make(chan struct{})}
	r.hello = wire.Hello{
		MinVersion: 1, MaxVersion: 1, Mesh: gravbus.DefaultMesh, Name: "rogue " + rand.Text(),
		MaxMessage: 1 << 20, WindowCount: 1 << 20, WindowCost: 1 << 30,
	}
	rand.Read(r.hello.Node[:])
	first := byte(0xff)
	if low {
		first = 0
	}
	copy(r.hello.Node[:], bytes.Repeat([]byte{first}, 8)) // that of a node is random
	return r
}

// dial makes the connection.
func (r *rogue) dial(endpoint string) {
	r.t.Helper()
	r.dialBy(websocket.New(websocket.Config{}), endpoint)
}

func (r *rogue) dialBy(t transport.Transport, endpoint string) {
	r.t.Helper()
	c, err := t.Dial(meshCtx(r.t, patience), endpoint)
	must(r.t, err)
	must(r.t, c.SetReadDeadline(time.Now().Add(2*patience)))
	must(r.t, c.SetWriteDeadline(time.Now().Add(2*patience)))
	r.conn = c
	r.t.Cleanup(func() { c.Close() })
}

// machine returns the handshake of a rogue that keeps to it.
func (r *rogue) machine() *handshake.Machine {
	r.t.Helper()
	rand.Read(r.hello.Nonce[:])
	m, err := handshake.Dial(&handshake.Config{
		Hello: r.hello, Keys: r.keys, Binding: r.conn.Info().Binding,
		Resume: func(wire.ID) wire.Resume { return r.resume },
	})
	must(r.t, err)
	return m
}

// shake shakes hands. The error is what the node refuses it with, or how the connection ended.
func (r *rogue) shake() error {
	m := r.machine()
	send, done := m.Start(), false
	for {
		for _, p := range send {
			r.sent = append(r.sent, p)
			if err := r.conn.WriteFrame(p); err != nil {
				return err
			}
		}
		if done {
			r.result = m.Result()
			r.conn.SetReadLimit(1 << 30)
			return nil
		}
		packet, err := r.conn.ReadFrame(nil)
		if err != nil {
			return err
		}
		if send, done, err = m.Receive(packet); err != nil {
			return err
		}
	}
}

// join shakes hands, says that it wants nothing, and listens.
func (r *rogue) join(endpoint string) *rogue {
	r.t.Helper()
	r.dial(endpoint)
	r.settle()
	return r
}

// settle is join on a connection that is there.
func (r *rogue) settle() {
	r.t.Helper()
	must(r.t, r.shake())
	go r.listen() // ends with the connection
	r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true}))
	r.ping()
}

// listen reads until the end.
func (r *rogue) listen() {
	defer close(r.over)
	var items wire.BatchReader
	var item wire.Item
	var buf []byte
	for {
		packet, err := r.conn.ReadFrame(buf)
		if err != nil {
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
			return
		}
		for rest := packet; len(rest) > 0; {
			kind, body, more, err := wire.Next(rest)
			mustToo(r.t, err)
			rest = more
			r.mu.Lock()
			switch kind {
			case wire.KindBye:
				bye, err := wire.DecodeRefuse(body)
				mustToo(r.t, err)
				r.bye = &bye
			case wire.KindPong:
				token, err := wire.DecodePong(body)
				mustToo(r.t, err)
				r.pongs = append(r.pongs, token)
			case wire.KindAck:
				r.acked, err = wire.DecodeAck(body)
				mustToo(r.t, err)
			case wire.KindReplay:
				ask, err := wire.DecodeReplay(body)
				mustToo(r.t, err)
				r.asks = append(r.asks, ask)
			case wire.KindBatch:
				_, err := items.Begin(body)
				mustToo(r.t, err)
				for ok := true; ok; {
					if ok, err = items.Next(&item); err != nil {
						r.t.Error(err)
						return
					}
				}
				if r.acks {
					r.write(wire.AppendAck(nil, item.Seq))
				}
			}
			r.mu.Unlock()
		}
		buf = packet
	}
}

// write writes a packet. That it cannot is no error: the node may have cut it.
func (r *rogue) write(packet []byte) bool {
	r.writing.Lock()
	defer r.writing.Unlock()
	return r.conn.WriteFrame(packet) == nil
}

// items writes a packet with items that append makes, numbered on from the last.
func (r *rogue) items(n int, add func(w *wire.BatchWriter, b []byte) []byte) bool {
	b := r.batch.Begin(nil, r.seq+1)
	for range n {
		b = add(&r.batch, b)
	}
	r.seq += uint64(n)
	return r.write(r.batch.End(b))
}

// message writes a packet with a message.
func (r *rogue) message(typ, data string) bool {
	return r.items(1, func(w *wire.BatchWriter, b []byte) []byte {
		return w.Message(b, &wire.Message{ID: randomID(), Type: typ, Data: []byte(data)})
	})
}

func randomID() (id wire.ID) {
	rand.Read(id[:])
	return id
}

// ping waits until the node has read what was sent before.
func (r *rogue) ping() {
	r.t.Helper()
	token := uint64(time.Now().UnixNano())
	if !r.write(wire.AppendPing(nil, token)) {
		r.t.Fatal("the node has cut the connection")
	}
	eventually(r.t, "the answer to a ping", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err != nil {
			r.t.Fatalf("the node has ended the connection: %v, %+v", r.err, r.bye)
		}
		return slices.Contains(r.pongs, token)
	})
}

// paced waits until fewer than so many items are under way.
func (r *rogue) paced(limit uint64) {
	r.t.Helper()
	eventually(r.t, "an acknowledgement", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.seq-r.acked < limit || r.err != nil
	})
}

// ended waits until the node has ended the connection, and returns what it said.
func (r *rogue) ended() *wire.Bye {
	r.t.Helper()
	awaitDone(r.t, patience, r.over)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bye
}
