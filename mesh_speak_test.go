package gravbus_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

// A small message to a peer with which nothing is under way has left when Send returns: the sender
// writes it itself. Another one, or a large one, is for the goroutine that writes.
func TestMeshSenderWrites(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		meshListener(t, b, "news")
		meshWanted(t, a, "news", 1)
		pod := a.Connect()
		out := func() uint64 { return a.Stats().Peers[0].BytesOut }
		for _, size := range []int{0, 100, 7000} {
			time.Sleep(time.Second) // all is acknowledged
			synctest.Wait()
			before := out()
			pod.Send(gravbus.NewMsg("news", make([]byte, size)))
			if sent := out() - before; sent < uint64(size) || sent == 0 {
				t.Errorf("%d bytes: %d were written when Send returned", size, sent)
			}
		}
	})
}

// A connection that fails under a sender's hand costs it no message, and no time.
func TestMeshSenderWritesAndFails(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		broken := &breaking{Transport: n.Transport("a")}
		a := n.lone("a", gravbus.UseTransport(broken))
		must(t, a.Start(t.Context()))
		b := n.node("b", "a")
		meshUp(t, a, b)
		var got arrivals
		got.expect(20)
		must(t, b.Connect().OnType("news", got.one))
		meshWanted(t, a, "news", 1)
		pod := a.Connect()
		for range 20 {
			time.Sleep(time.Minute)
			synctest.Wait()
			broken.next.Store(true)
			start := time.Now()
			pod.Send(gravbus.NewMsg("news", nil))
			if d := time.Since(start); d != 0 {
				t.Errorf("Send took %v", d)
			}
		}
		time.Sleep(time.Minute)
		if n := got.n.Load(); n != 20 {
			t.Errorf("%d messages have come, want 20", n)
		}
		if cuts := a.Stats().Peers[0].Cuts; cuts < 20 {
			t.Errorf("%d connections were cut, want 20: the senders did not write", cuts)
		}
	})
}

// A peer that acknowledges what it does not read holds up no sender: what a sender writes itself is
// bounded by what the peer has read.
func TestMeshSenderDoesNotWait(t *testing.T) {
	meshBubble(t, memory.Config{Buffer: 64 << 10}, func(t *testing.T, n meshNet) {
		b := n.node("node", "", gravbus.UseMeshKey(strangerKey))
		pod := b.Connect()
		var took []time.Duration
		must(t, pod.OnType("ask", func(m gravbus.Message) error {
			start := time.Now()
			pod.ReplyTo(m, gravbus.NewMsg("answer", make([]byte, 7500)))
			took = append(took, time.Since(start))
			return nil
		}))
		r := newRogue(t, true)
		c, err := n.Transport("rogue").Dial(t.Context(), "memory:node")
		must(t, err)
		defer c.Close()
		r.conn = c
		must(t, r.shake())
		r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true}))
		for i := range uint64(50) {
			r.message("ask", "")
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			r.write(wire.AppendAck(nil, min(i+1, 8))) // so many certainly fit in
		}
		if len(took) != 50 {
			t.Fatalf("%d requests were handled, want 50", len(took))
		}
		for i, d := range took {
			if d != 0 {
				t.Errorf("answer %d took %v", i, d)
			}
		}
		if s := b.Stats().Peers[0]; s.Cuts != 0 {
			t.Errorf("%d cuts", s.Cuts)
		}
	})
}

// Senders go on to write themselves when much has been written: the peer is asked now and then what it
// has read.
func TestMeshSenderGoesOnToWrite(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		meshListener(t, b, "news")
		meshWanted(t, a, "news", 1)
		pod := a.Connect()
		out := func() uint64 { return a.Stats().Peers[0].BytesOut }
		for _, size := range []int{10, 5000} {
			written := 0
			for range 1000 {
				before := out()
				pod.Send(gravbus.NewMsg("news", make([]byte, size)))
				if out() > before {
					written++
				}
				time.Sleep(30 * time.Millisecond) // it is acknowledged
				synctest.Wait()
			}
			if written < 990 {
				t.Errorf("%d bytes: %d of 1000 messages were written by their sender", size, written)
			}
		}
	})
}

// A sender is not held for long by a transport in which there is no room, and the connection that does
// not come to its end is given up.
func TestMeshSenderIsStuck(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		broken := &breaking{Transport: n.Transport("a"), stuck: true}
		a := n.lone("a", gravbus.UseTransport(broken))
		must(t, a.Start(t.Context()))
		b := n.node("b", "a")
		meshUp(t, a, b)
		_, got := meshListener(t, b, "news")
		meshWanted(t, a, "news", 1)
		pod := a.Connect()
		for i := range 5 {
			time.Sleep(time.Minute)
			synctest.Wait()
			broken.next.Store(true)
			start := time.Now()
			pod.Send(gravbus.NewMsg("news", nil))
			if d := time.Since(start); d == 0 || d > 5*time.Second {
				t.Errorf("Send %d took %v, want some seconds", i, d)
			}
		}
		time.Sleep(time.Minute)
		if n := len(got.all()); n != 5 {
			t.Errorf("%d messages have come, want 5", n)
		}
	})
}

// A panic below a sender that writes costs the connection, and no message.
func TestMeshSenderPanics(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		broken := &breaking{Transport: n.Transport("a"), panics: true}
		a := n.lone("a", gravbus.UseTransport(broken))
		must(t, a.Start(t.Context()))
		b := n.node("b", "a")
		meshUp(t, a, b)
		_, got := meshListener(t, b, "news")
		meshWanted(t, a, "news", 1)
		pod := a.Connect()
		for i := range 5 {
			time.Sleep(time.Minute)
			synctest.Wait()
			broken.next.Store(true)
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("Send %d did not write", i)
					}
				}()
				pod.Send(gravbus.NewMsg("news", nil))
			}()
		}
		time.Sleep(time.Minute)
		if n := len(got.all()); n != 5 {
			t.Errorf("%d messages have come, want 5", n)
		}
	})
}

var errBroken = errors.New("broken")

// breaking is a transport whose connections fail at the next frame that they are to write: at once,
// when a deadline is set, or by a panic.
type breaking struct {
	transport.Transport
	stuck, panics bool
	next          atomic.Bool
}

func (t *breaking) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	l, err := t.Transport.Listen(ctx, o)
	return &breakingListener{l, t}, err
}

func (t *breaking) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	c, err := t.Transport.Dial(ctx, endpoint)
	return &breakingConn{Conn: c, t: t, freed: make(chan struct{})}, err
}

type breakingListener struct {
	transport.Listener
	t *breaking
}

func (l *breakingListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	return &breakingConn{Conn: c, t: l.t, freed: make(chan struct{})}, err
}

type breakingConn struct {
	transport.Conn
	t      *breaking
	broken atomic.Bool
	freed  chan struct{} // closed when there is a deadline
	once   sync.Once

	panicked atomic.Bool
}

func (c *breakingConn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() && c.broken.Load() {
		c.once.Do(func() { close(c.freed) })
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *breakingConn) WriteFrame(frame []byte) error {
	if c.t.next.CompareAndSwap(true, false) {
		c.broken.Store(true)
	}
	if c.broken.Load() {
		switch {
		case c.t.stuck:
			<-c.freed
		case c.t.panics && !c.panicked.Swap(true):
			panic("on purpose")
		}
		return errBroken
	}
	return c.Conn.WriteFrame(frame)
}
