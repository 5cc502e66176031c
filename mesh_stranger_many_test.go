package gravbus_test

import (
	"context"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/gravbus/gravbus/transport/websocket"
)

// TestStrangersIdle: a thousand connections that do nothing keep nobody out, take a bounded amount
// of memory, and leave nothing behind.
func TestStrangersIdle(t *testing.T) {
	const strangers = 1000
	stages := []struct {
		name  string
		begin func(t *testing.T, s *besieged) io.Closer
	}{
		{"connected", func(t *testing.T, s *besieged) io.Closer { return rawConn(t, s) }},
		{"upgraded", func(t *testing.T, s *besieged) io.Closer {
			r := newRogue(t, true)
			r.dial(s.endpoint)
			return r.conn
		}},
		{"after hello", func(t *testing.T, s *besieged) io.Closer {
			r := newRogue(t, true)
			r.dial(s.endpoint)
			r.conn.WriteFrame(r.machine().Start()[0])
			return r.conn
		}},
	}
	for _, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			s := besiege(t)
			s.undisturbed()
			routines, heap := runtime.NumGoroutine(), heapNow()
			var all []io.Closer
			for i := range strangers {
				all = append(all, stage.begin(t, s))
				if i%100 == 99 { // a legitimate peer comes in between
					r := newRogue(t, i%200 == 99).join(s.endpoint)
					r.conn.Close()
				}
			}
			began := time.Now()
			peer := meshNode(t, s.Endpoints(), gravbus.UseMeshKey(strangerKey), gravbus.UseLogger(new(strangerLog).logger()))
			must(t, peer.WaitPeers(soon(t), 2))
			t.Logf("a peer is in after %v; %d goroutines and %d KiB more for %d strangers", time.Since(began),
				runtime.NumGoroutine()-routines, (heapNow()-heap)>>10, strangers)
			if more := runtime.NumGoroutine() - routines; more > 256*4+50 {
				t.Errorf("%d goroutines more for %d strangers", more, strangers)
			}
			if more := heapNow() - heap; more > 64<<20 {
				t.Errorf("%d bytes more for %d strangers", more, strangers)
			}
			s.undisturbed()
			if n := s.Stats().Strangers; stage.name != "connected" && n < strangers-256 {
				t.Errorf("%d strangers are counted, though 256 fit at a time", n)
			}
			if n := s.log.of("gravbus: node refused"); n > 30 {
				t.Errorf("%d warnings", n)
			}
			must(t, peer.Close())
			for _, c := range all {
				c.Close()
			}
			eventually(t, "all goroutines of strangers have ended", func() bool { return runtime.NumGoroutine() <= routines+10 })
			if more := heapNow() - heap; more > 16<<20 {
				t.Errorf("%d bytes are left behind", more)
			}
		})
	}
}

// While a stranger gives way to another one, and its connection takes long to close, the node is not held up.
func TestStrangersGiveWay(t *testing.T) {
	watchdog(t, patience)
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		slow := &closing{Transport: n.Transport("a")}
		a := n.lone("a", gravbus.UseTransport(slow))
		var closed atomic.Int32
		slow.hook = func() {
			a.Endpoints() // locks the node
			closed.Add(1)
		}
		must(t, a.Start(t.Context()))
		const strangers = 300
		for range strangers {
			c, err := n.Transport("b").Dial(t.Context(), "a")
			must(t, err)
			defer c.Close()
		}
		synctest.Wait()
		if n := closed.Load(); n < strangers-256 {
			t.Errorf("%d of %d connections were closed, though 256 fit", n, strangers)
		}
	})
}

// closing is a transport that calls hook before it closes a connection that it has accepted.
type closing struct {
	transport.Transport
	hook func()
}

func (t *closing) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	l, err := t.Transport.Listen(ctx, o)
	return &closingListener{l, t}, err
}

type closingListener struct {
	transport.Listener
	t *closing
}

func (l *closingListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	return &closingConn{c, l.t}, err
}

type closingConn struct {
	transport.Conn
	t *closing
}

func (c *closingConn) Close() error {
	c.t.hook()
	return c.Conn.Close()
}

// TestStrangersNoise: strangers are counted each, but do not fill the log.
func TestStrangersNoise(t *testing.T) {
	const strangers = 1000
	s := besiege(t)
	began := time.Now()
	var group atomic.Int32
	done := make(chan struct{})
	for range 8 {
		go func() {
			for group.Add(1) <= strangers {
				r := newRogue(t, true)
				r.keys = nil
				c, err := websocket.New(websocket.Config{}).Dial(t.Context(), s.endpoint)
				if err != nil {
					t.Error(err)
					break
				}
				r.conn = c
				r.shake()
				c.Close()
			}
			done <- struct{}{}
		}()
	}
	for range 8 {
		awaitDone(t, patience, done)
	}
	eventually(t, "all are counted", func() bool { return s.Stats().Strangers >= strangers })
	if n, most := s.log.of("gravbus: node refused"), int(time.Since(began)/time.Second)+2; n == 0 || n > most {
		t.Errorf("%d warnings, at most %d are wanted", n, most)
	}
	if n := s.Stats().Strangers; n != strangers {
		t.Errorf("%d strangers are counted, not %d", n, strangers)
	}
	s.undisturbed()
}
