package gravbus_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

// slowly is a transport whose connections carry so many bytes a second: frames go in parts. Both ends
// must have it.
type slowly struct {
	transport.Transport
	rate *atomic.Int64 // 0: as fast as can be
}

func (s slowly) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	l, err := s.Transport.Listen(ctx, o)
	return slowListener{l, s}, err
}

func (s slowly) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	c, err := s.Transport.Dial(ctx, endpoint)
	return &slowConn{Conn: c, rate: s.rate}, err
}

type slowListener struct {
	transport.Listener
	s slowly
}

func (l slowListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	return &slowConn{Conn: c, rate: l.s.rate}, err
}

type slowConn struct {
	transport.Conn
	rate *atomic.Int64
}

// slowPart is how long a part of a frame takes.
const slowPart = 50 * time.Millisecond

func (c *slowConn) WriteFrame(frame []byte) error {
	for {
		size := len(frame)
		if rate := c.rate.Load(); rate > 0 {
			size = min(size, int(rate*int64(slowPart)/int64(time.Second)))
			time.Sleep(time.Duration(size) * time.Second / time.Duration(rate))
		}
		last := byte(0)
		if size == len(frame) {
			last = 1
		}
		if err := c.Conn.WriteFrame(append([]byte{last}, frame[:size]...)); err != nil || last == 1 {
			return err
		}
		frame = frame[size:]
	}
}

func (c *slowConn) ReadFrame(buf []byte) ([]byte, error) {
	buf = buf[:0]
	for {
		part, err := c.Conn.ReadFrame(nil)
		if err != nil {
			return nil, err
		}
		if buf = append(buf, part[1:]...); part[0] == 1 {
			return buf, nil
		}
	}
}

// slowPair returns two nodes whose connection can be made slow.
func (n meshNet) slowPair(opts ...gravbus.Option) (a, b *gravbus.Bus, rate *atomic.Int64) {
	n.t.Helper()
	rate = new(atomic.Int64)
	node := func(name, seeds string) *gravbus.Bus {
		return n.node(name, seeds, append([]gravbus.Option{gravbus.UseTransport(slowly{n.Transport(name), rate})}, opts...)...)
	}
	a, b = node("a", ""), node("b", "a")
	meshUp(n.t, a, b)
	return a, b, rate
}

// A message may take as long as it likes: the heartbeats of the peer, which are not answered
// meanwhile, do not end the connection.
func TestMeshSlowAndLarge(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, rate := n.slowPair(gravbus.UseDeadAfter(time.Second))
		_, got := meshListener(t, b, "large")
		meshWanted(t, a, "large", 1)
		rate.Store(10_000)
		a.Connect().Send(gravbus.NewMsg("large", make([]byte, 1_000_000)))
		time.Sleep(2 * time.Minute)
		if n := len(got.all()); n != 1 {
			t.Errorf("%d messages have come, want 1", n)
		}
		for _, b := range []*gravbus.Bus{a, b} {
			if s := b.Stats().Peers[0]; s.Cuts != 0 {
				t.Errorf("the connection was cut %d times", s.Cuts)
			}
		}
	})
}
