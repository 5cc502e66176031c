package gravbus_test

import (
	"context"
	"fmt"
	"sync"
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
	rate   *atomic.Int64
	onPart atomic.Pointer[func()]
}

func (c *slowConn) OnPart(f func()) { c.onPart.Store(&f) }

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
		(*c.onPart.Load())()
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

// As long as something comes through, however slowly, senders wait and nothing is lost: in one
// direction, and in both at the same time, where acknowledgements are behind large messages.
func TestMeshSlowLosesNothing(t *testing.T) {
	tests := []struct {
		size, rate int
	}{
		{500_000, 300_000},
		{1_000_000, 10_000}, // 100 s each
		{100, 2_000},        // 60 KB a packet
	}
	for _, tt := range tests {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("size=%d/rate=%d/both=%v", tt.size, tt.rate, both), func(t *testing.T) {
				meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
					a, b, rate := n.slowPair(gravbus.UseLinkBounds(8, 0), gravbus.UseReplay(0))
					nodes := []*gravbus.Bus{a, b}
					var pods []*gravbus.Pod // a pod does not get what it sends
					var gots []*recorder
					for _, b := range nodes {
						pod, got := meshListener(t, b, "slow")
						pods, gots = append(pods, pod), append(gots, got)
					}
					for _, b := range nodes {
						meshWanted(t, b, "slow", 1)
					}
					rate.Store(int64(tt.rate))
					count := 24
					if tt.size < 1000 {
						count = 5000
					}
					if !both {
						nodes = nodes[:1]
					}
					var all sync.WaitGroup
					for _, pod := range pods[:len(nodes)] {
						all.Go(func() {
							for range count {
								pod.Send(gravbus.NewMsg("slow", make([]byte, tt.size)))
							}
						})
					}
					all.Wait()
					for i := range nodes {
						got := gots[1-i]
						for range 3600 {
							if len(got.all()) >= count {
								break
							}
							time.Sleep(time.Second)
						}
						if n := len(got.all()); n != count {
							t.Errorf("%d messages have come, want %d", n, count)
						}
						if s := nodes[i].Stats().Peers[0]; s.Lost != 0 || s.Cuts != 0 {
							t.Errorf("%d were lost, %d cuts", s.Lost, s.Cuts)
						}
					}
				})
			})
		}
	}
}

// A peer that takes nothing does not hold up senders by what it sends itself.
func TestMeshSlowAndStandingStill(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, rate := n.slowPair(gravbus.UseLinkBounds(8, 0), gravbus.UseReplay(0))
		free := make(chan struct{})
		defer close(free)
		must(t, b.Connect(gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block)).OnType("stuck", func(gravbus.Message) error { <-free; return nil }))
		meshListener(t, a, "flow")
		meshWanted(t, a, "stuck", 1)
		meshWanted(t, b, "flow", 1)
		rate.Store(1_000_000)
		ctx, stop := context.WithCancel(t.Context())
		var flow sync.WaitGroup
		pod := b.Connect()
		flow.Go(func() {
			for ctx.Err() == nil {
				pod.Send(gravbus.NewMsg("flow", make([]byte, 900_000)))
			}
		})
		defer flow.Wait()
		defer stop()
		sender := a.Connect()
		longest := time.Duration(0)
		for range 20_000 { // more than the window of 16384
			start := time.Now()
			sender.Send(gravbus.NewMsg("stuck", nil))
			longest = max(longest, time.Since(start))
		}
		if longest > 4*time.Second { // the stall limit, and three packets of a second
			t.Errorf("a sender waited %v for a peer that stands still", longest)
		}
		if s := a.Stats().Peers[0]; s.Cuts != 0 {
			t.Errorf("%d cuts", s.Cuts)
		}
	})
}
