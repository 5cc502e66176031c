package gravbus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
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

var errBroken = errors.New("broken")

// breaking is a transport whose connections fail at the next frame that they are to write.
type breaking struct {
	transport.Transport
	next atomic.Bool
}

func (t *breaking) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	l, err := t.Transport.Listen(ctx, o)
	return &breakingListener{l, t}, err
}

func (t *breaking) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	c, err := t.Transport.Dial(ctx, endpoint)
	return &breakingConn{Conn: c, t: t}, err
}

type breakingListener struct {
	transport.Listener
	t *breaking
}

func (l *breakingListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	return &breakingConn{Conn: c, t: l.t}, err
}

type breakingConn struct {
	transport.Conn
	t      *breaking
	broken atomic.Bool
}

func (c *breakingConn) WriteFrame(frame []byte) error {
	if c.t.next.CompareAndSwap(true, false) {
		c.broken.Store(true)
	}
	if c.broken.Load() {
		return errBroken
	}
	return c.Conn.WriteFrame(frame)
}
