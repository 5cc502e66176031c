package memory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

func TestNames(t *testing.T) {
	network := memory.NewNetwork(memory.Config{})
	for _, name := range []string{"", "a:1", "a/b", "a b", "a\n", "\x00"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Transport(%q) did not panic", name)
				}
			}()
			network.Transport(name)
		}()
	}
	for _, name := range []string{"a", "node-1.example", "Knoten_ä"} {
		l := listen(t, network, name)
		if l.Exposure() != (transport.Exposure{Loopback: true}) {
			t.Errorf("Exposure() = %+v", l.Exposure())
		}
		for _, endpoint := range []string{name, "memory:" + name, l.Endpoints()[0]} {
			c, err := network.Transport("x").Dial(t.Context(), endpoint)
			if err != nil {
				t.Errorf("Dial(%q): %v", endpoint, err)
				continue
			}
			_ = c.Close()
		}
	}
}

// A node that comes back after a crash is the same node.
func TestRestart(t *testing.T) {
	network := memory.NewNetwork(memory.Config{})
	first := listen(t, network, "b")
	if _, err := network.Transport("b").Listen(t.Context(), transport.ListenOptions{}); !errors.Is(err, memory.ErrInUse) {
		t.Errorf("the second Listen: %v, want ErrInUse", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := network.Transport("a").Dial(t.Context(), "b"); !errors.Is(err, memory.ErrRefused) {
		t.Errorf("Dial: %v, want ErrRefused", err)
	}
	a, b := connect(t, network, "a", listen(t, network, "b"))
	write(t, a, 1, 1)
	read(t, b, 1, 1)
}

func TestDeadlinesAfterClose(t *testing.T) {
	network := memory.NewNetwork(memory.Config{})
	a, _ := connect(t, network, "a", listen(t, network, "b"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, set := range []func(time.Time) error{a.SetReadDeadline, a.SetWriteDeadline} {
		if err := set(time.Time{}); !errors.Is(err, transport.ErrClosed) {
			t.Errorf("a deadline after Close: %v", err)
		}
	}
}

func TestListenAfterContext(t *testing.T) {
	network := memory.NewNetwork(memory.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := network.Transport("b").Listen(ctx, transport.ListenOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Listen: %v", err)
	}
	listen(t, network, "b")
}

// Small frames are bounded, too, and those that are larger than the buffer get through.
func TestBufferIsBounded(t *testing.T) {
	for _, size := range []int{0, 1, 100, 1 << 10, 1 << 20} {
		bubble(t, func(t *testing.T) {
			const buffer = 10 << 10
			n := 4*buffer/(size+16) + 10 // more than fit in
			network := memory.NewNetwork(memory.Config{Buffer: buffer})
			a, b := connect(t, network, "a", listen(t, network, "b"))
			b.SetReadLimit(1 << 20)
			written := 0
			done := make(chan error, 1)
			go func() {
				for range n {
					if err := a.WriteFrame(make([]byte, size)); err != nil {
						done <- err
						return
					}
					written++
				}
				done <- nil
			}()
			synctest.Wait()
			if written == 0 || written*size > max(buffer, size) || written > buffer/16 {
				t.Errorf("%d frames of %d bytes are in a buffer of %d", written, size, buffer)
			}
			for i := range n {
				if frame, err := b.ReadFrame(nil); err != nil || len(frame) != size {
					t.Fatalf("frame %d of %d bytes came as %d bytes, %v", i, size, len(frame), err)
				}
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMaxPending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{MaxPending: 2})
		l := listen(t, network, "b")
		for range 2 {
			c, err := dialWithin(t, time.Second, network, "a", "b")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		if _, err := dialWithin(t, time.Second, network, "a", "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the third Dial that nobody accepts: %v", err)
		}
		dialled := make(chan error)
		go func() {
			c, err := dialWithin(t, time.Second, network, "a", "b")
			if err == nil {
				err = c.Close()
			}
			dialled <- err
		}()
		synctest.Wait()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := <-dialled; err != nil {
			t.Errorf("Dial when there is room again: %v", err)
		}

		full := make(chan error)
		go func() {
			_, err := network.Transport("a").Dial(t.Context(), "b")
			full <- err
		}()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-full; !errors.Is(err, memory.ErrRefused) {
			t.Errorf("Dial that waits for room when the Listener is closed: %v", err)
		}
	})
}

// Connected sees each connection before anybody can use it, and nothing of a Dial that was refused.
func TestConnected(t *testing.T) {
	var network *memory.Network
	var seen []string
	network = memory.NewNetwork(memory.Config{Connected: func(c *memory.Connection) {
		seen = append(seen, fmt.Sprintf("%s to %s, %d open", c.From(), c.To(), len(network.Connections())))
		if len(seen) == 2 {
			c.Cut()
		}
	}})
	if _, err := network.Transport("a").Dial(t.Context(), "b"); err == nil {
		t.Fatal("Dial found a node that does not listen")
	}
	l := listen(t, network, "b")
	connect(t, network, "a", l)
	c, d := connect(t, network, "c", l)
	readErr(t, c, memory.ErrCut)
	readErr(t, d, memory.ErrCut)
	connect(t, network, "d", l)
	want := fmt.Sprint([]string{"a to b, 0 open", "c to b, 1 open", "d to b, 1 open"})
	if fmt.Sprint(seen) != want {
		t.Errorf("Connected saw %v, want %v", seen, want)
	}
}

// A caller that does not read on holds up Shutdown no longer than the pause that it may make.
func TestShutdownAfterReading(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{Buffer: 100})
		a, b := connect(t, network, "a", listen(t, network, "b"))
		write(t, b, 1, 1)
		read(t, a, 1, 1)
		written := make(chan error)
		go func() {
			var err error
			for range 10 {
				err = errors.Join(err, b.WriteFrame(make([]byte, 100)))
			}
			written <- errors.Join(err, b.Close())
		}()
		began := time.Now()
		if err := a.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(began); took > 25*time.Millisecond {
			t.Errorf("Shutdown took %v", took)
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}

// Whatever befalls a connection, its frames arrive in order, and none is missing among them: what
// is read is the beginning of what was written, and all of it if the connection was closed in order.
func TestFramesAreABeginning(t *testing.T) {
	for seed := range uint64(300) {
		bubble(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			inOrder, cutAfter := seed%2 == 0, random.IntN(100)
			network := memory.NewNetwork(memory.Config{
				Buffer:  1 + random.IntN(2000),
				Latency: time.Duration(random.IntN(20)) * time.Millisecond,
			})
			a, b := connect(t, network, "a", listen(t, network, "b"))
			conn := only(t, network)

			const n = 100
			written := 0
			writing := make(chan struct{})
			go func() {
				defer close(writing)
				for ; written < n; written++ {
					if a.WriteFrame(fmt.Append(nil, written)) != nil {
						return
					}
				}
				if err := a.Shutdown(t.Context()); err != nil && inOrder {
					t.Errorf("seed %d: Shutdown: %v", seed, err)
				}
			}()
			over := make(chan struct{})
			meddling := make(chan struct{})
			go func() {
				defer close(meddling)
				for i := 0; ; i++ {
					timer := time.NewTimer(time.Duration(random.IntN(30)) * time.Millisecond)
					select {
					case <-timer.C:
					case <-over:
						timer.Stop()
						return
					}
					switch random.IntN(6) {
					case 0:
						network.SetLatency("a", "b", time.Duration(random.IntN(50))*time.Millisecond)
					case 1:
						network.Silence("a", "b")
					case 2:
						network.Partition([]string{"a"}, []string{"b"})
					case 3:
						conn.Stall()
					default:
						network.Heal()
					}
					switch {
					case inOrder || i < 5:
					case random.IntN(2) == 0:
						conn.Cut()
					default:
						conn.CutAfter(random.IntN(20))
					}
				}
			}()
			if !inOrder && seed%3 == 0 {
				conn.CutAfter(cutAfter)
			} else if !inOrder {
				time.AfterFunc(time.Second, conn.Cut) // at the latest
			}

			read := 0
			var err error
			for {
				var frame []byte
				if frame, err = b.ReadFrame(nil); err != nil {
					break
				}
				if string(frame) != fmt.Sprint(read) {
					t.Fatalf("seed %d: frame %d came as %q", seed, read, frame)
				}
				read++
			}
			if inOrder && (read != n || !errors.Is(err, transport.ErrPeerClosed)) {
				t.Errorf("seed %d: only %d frames came, then %v", seed, read, err)
			}
			if !inOrder && !errors.Is(err, memory.ErrCut) && !errors.Is(err, transport.ErrPeerClosed) {
				t.Errorf("seed %d: %v", seed, err)
			}
			_ = b.Close()
			close(over)
			<-meddling
			network.Heal()
			<-writing
			if read > written+1 {
				t.Errorf("seed %d: %d frames were read, %d written", seed, read, written)
			}
			_ = a.Close()
			if open := network.Connections(); len(open) != 0 {
				t.Errorf("seed %d: %d connections are open", seed, len(open))
			}
		})
	}
}

// All methods of a Network and its Connections may be called at any time. Under -race, and as none
// may wait for another, it ends.
func TestFaultsAtOnce(t *testing.T) {
	network := memory.NewNetwork(memory.Config{})
	nodes := []string{"a", "b", "c"}
	var traffic, meddlers sync.WaitGroup
	var listeners []transport.Listener
	for _, name := range nodes {
		l := listen(t, network, name)
		listeners = append(listeners, l)
		traffic.Go(func() { // sends back what comes, until l is closed
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				traffic.Go(func() {
					defer c.Close()
					for {
						frame, err := c.ReadFrame(nil)
						if err != nil || c.WriteFrame(frame) != nil {
							return
						}
					}
				})
			}
		})
	}
	var diallers sync.WaitGroup
	for i := range 6 {
		diallers.Go(func() {
			for range 100 {
				c, err := dialWithin(t, 10*time.Millisecond, network, nodes[i%3], nodes[(i+1)%3])
				if err != nil {
					continue
				}
				for range 20 {
					_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
					if c.WriteFrame(nil) != nil {
						break
					}
					if _, err := c.ReadFrame(nil); err != nil {
						break
					}
				}
				_ = c.Close()
			}
		})
	}
	over := make(chan struct{})
	for i := range uint64(2) {
		meddlers.Go(func() {
			random := rand.New(rand.NewPCG(i, 2))
			for {
				select {
				case <-over:
					return
				default:
				}
				from, to := nodes[random.IntN(3)], nodes[random.IntN(3)]
				switch random.IntN(12) {
				case 0:
					network.Cut(from, to)
				case 1:
					network.Silence(from, to)
				case 2:
					network.Partition([]string{from}, []string{to})
				case 3:
					network.SetLatency(from, to, time.Duration(random.IntN(100))*time.Microsecond)
				case 4:
					network.Refuse(from, random.IntN(2) == 0)
				case 5:
					for _, c := range network.Connections() {
						c.CutAfter(random.IntN(10))
					}
				case 6:
					for _, c := range network.Connections() {
						c.Stall()
					}
				default:
					network.Heal()
				}
			}
		})
	}
	diallers.Wait()
	close(over)
	meddlers.Wait()
	for _, l := range listeners {
		_ = l.Close()
	}
	for _, c := range network.Connections() {
		c.Cut()
	}
	traffic.Wait()
	if open := network.Connections(); len(open) != 0 {
		t.Errorf("%d connections are open", len(open))
	}
}
