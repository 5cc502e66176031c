package memory_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

func TestLatency(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const out, back = 30 * time.Millisecond, 50 * time.Millisecond
		network := memory.NewNetwork(memory.Config{Latency: out})
		network.SetLatency("b", "a", back)
		l := listen(t, network, "b")

		began := time.Now()
		a, b := connect(t, network, "a", l)
		if took := time.Since(began); took != out+back {
			t.Errorf("Dial took %v, want a round trip, %v", took, out+back)
		}

		began = time.Now()
		write(t, a, 1, 100) // does not wait for the other side
		read(t, b, 1, 100)
		if took := time.Since(began); took != out {
			t.Errorf("frames took %v one way, want %v", took, out)
		}
		write(t, b, 1, 1)
		read(t, a, 1, 1)
		if took := time.Since(began); took != out+back {
			t.Errorf("frames took %v there and back, want %v", took, out+back)
		}

		// Order is kept whatever the latency does.
		write(t, a, 1, 1)
		network.SetLatency("a", "b", 0)
		write(t, a, 2, 2)
		began = time.Now()
		read(t, b, 1, 2)
		if took := time.Since(began); took != out {
			t.Errorf("what was on its way took %v, want %v as before", took, out)
		}

		// Word of a Close is no faster than a frame.
		write(t, b, 2, 2)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		began = time.Now()
		read(t, a, 2, 2)
		readErr(t, a, transport.ErrPeerClosed)
		if took := time.Since(began); took != back {
			t.Errorf("word of a Close took %v, want %v", took, back)
		}
	})
}

func TestCut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{})
		l := listen(t, network, "b")
		a, b := connect(t, network, "a", l)
		c, d := connect(t, network, "c", l)
		write(t, a, 1, 3)
		write(t, c, 1, 3)
		read(t, b, 1, 1)
		blocked := make(chan error)
		go func() { _, err := a.ReadFrame(nil); blocked <- err }()
		synctest.Wait()

		network.Cut("a", "b")
		readErr(t, b, memory.ErrCut) // 2 and 3 are lost
		if err := <-blocked; !errors.Is(err, memory.ErrCut) {
			t.Errorf("a ReadFrame in progress returned %v", err)
		}
		for _, end := range []transport.Conn{a, b} {
			if err := end.WriteFrame(nil); !errors.Is(err, memory.ErrCut) {
				t.Errorf("WriteFrame: %v", err)
			}
			if err := end.Shutdown(t.Context()); !errors.Is(err, memory.ErrCut) {
				t.Errorf("Shutdown: %v", err)
			}
			readErr(t, end, transport.ErrClosed)
		}

		read(t, d, 1, 3) // others are not touched
		if conn := only(t, network); conn.From() != "c" || conn.To() != "b" {
			t.Errorf("open is that from %s to %s", conn.From(), conn.To())
		}
		e, f := connect(t, network, "a", l)
		if !hears(t, e, f) {
			t.Error("there is no new connection after a cut")
		}
	})
}

func TestCutAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, latency := range []time.Duration{0, time.Second} {
			network := memory.NewNetwork(memory.Config{
				Latency:   latency,
				Connected: func(c *memory.Connection) { c.CutAfter(5) },
			})
			l := listen(t, network, "b")
			a, b := connect(t, network, "a", l)
			write(t, a, 1, 3)
			write(t, b, 1, 2)
			write(t, a, 4, 4) // is lost
			if err := a.WriteFrame(nil); !errors.Is(err, memory.ErrCut) {
				t.Errorf("WriteFrame after the cut: %v", err)
			}
			read(t, b, 1, 3)
			readErr(t, b, memory.ErrCut)
			read(t, a, 1, 2)
			readErr(t, a, memory.ErrCut)
			if open := network.Connections(); len(open) != 0 {
				t.Errorf("%d connections are open", len(open))
			}
			_ = l.Close()
		}
	})
}

// What a silence held up when the connection was cut does not arrive.
func TestCutAfterInSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{})
		a, b := connect(t, network, "a", listen(t, network, "b"))
		only(t, network).CutAfter(4)
		write(t, a, 1, 2)
		write(t, b, 1, 1)
		network.Silence("a", "b")
		write(t, a, 3, 4)
		network.Heal()
		read(t, b, 1, 2)
		readErr(t, b, memory.ErrCut)
		read(t, a, 1, 1)
		readErr(t, a, memory.ErrCut)
	})
}

func TestCutAfterTakenBack(t *testing.T) {
	network := memory.NewNetwork(memory.Config{})
	a, b := connect(t, network, "a", listen(t, network, "b"))
	only(t, network).CutAfter(1)
	write(t, a, 1, 1)
	only(t, network).CutAfter(-1)
	write(t, a, 2, 3)
	read(t, b, 1, 3)
}

// A silence is one that nobody can tell from a slow network, and no more: what was sent is there
// when it ends.
func TestSilence(t *testing.T) {
	silences := map[string]func(*memory.Network){
		"Silence":   func(n *memory.Network) { n.Silence("a", "b") },
		"Partition": func(n *memory.Network) { n.Partition([]string{"a", "x"}, []string{"y", "b"}) },
		"Stall":     func(n *memory.Network) { n.Connections()[0].Stall() },
	}
	for name, silence := range silences {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				network := memory.NewNetwork(memory.Config{Buffer: 1 << 10, Latency: time.Second})
				a, b := connect(t, network, "a", listen(t, network, "b"))
				write(t, a, 1, 2)
				time.Sleep(time.Second) // they have arrived
				write(t, a, 3, 3)       // is on its way
				silence(network)
				read(t, b, 1, 2)
				write(t, a, 4, 5)

				done := make(chan error)
				go func() {
					err := a.WriteFrame(make([]byte, 1<<10))
					done <- errors.Join(err, a.Close())
				}()
				arrived := make(chan error)
				go func() { _, err := b.ReadFrame(nil); arrived <- err }()
				time.Sleep(time.Hour)
				select {
				case err := <-done:
					t.Fatalf("WriteFrame found room in a silence: %v", err)
				case err := <-arrived:
					t.Fatalf("ReadFrame heard in a silence: %v", err)
				default:
				}

				network.Heal()
				if err := <-arrived; err != nil { // 3
					t.Fatal(err)
				}
				read(t, b, 4, 5)
				if _, err := b.ReadFrame(nil); err != nil {
					t.Fatal(err)
				}
				readErr(t, b, transport.ErrPeerClosed)
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestSilenceIsOneWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{})
		a, b := connect(t, network, "a", listen(t, network, "b"))
		network.Silence("a", "b")
		if hears(t, a, b) {
			t.Error("b hears a")
		}
		if !hears(t, b, a) {
			t.Error("a does not hear b")
		}
	})
}

// Half-open: one side has closed, or is gone, and the other one cannot know.
func TestHalfOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{Buffer: 1 << 10})
		l := listen(t, network, "b")
		a, b := connect(t, network, "a", l)
		only(t, network).Stall()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := a.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		readErr(t, a, os.ErrDeadlineExceeded)
		if err := a.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil { // what lies between gets full
			err = a.WriteFrame(make([]byte, 100))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("WriteFrame: %v", err)
		}
		c, d := connect(t, network, "a", l) // others are not touched
		if !hears(t, c, d) {
			t.Error("the new connection is silent too")
		}
		if n := len(network.Connections()); n != 2 {
			t.Errorf("%d connections are open, want the half-open one too", n)
		}
	})
}

func TestPartition(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{})
		nodes := []string{"a", "b", "c", "d", "free"}
		listeners := make(map[string]transport.Listener)
		for _, name := range nodes {
			listeners[name] = listen(t, network, name)
		}
		network.Partition([]string{"a", "b"}, []string{"c"}, []string{"d"})
		group := map[string]int{"a": 1, "b": 1, "c": 2, "d": 3}
		check := func(healed bool) {
			t.Helper()
			for _, from := range nodes {
				for _, to := range nodes {
					want := healed || group[from] == group[to] || group[from] == 0 || group[to] == 0
					c, err := dialWithin(t, time.Second, network, from, to)
					if (err == nil) != want {
						t.Errorf("healed %v, dial from %s to %s: %v", healed, from, to, err)
					}
					if err != nil && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("dial from %s to %s: %v", from, to, err)
					}
					if err != nil {
						continue
					}
					other, err := listeners[to].Accept()
					if err != nil {
						t.Fatal(err)
					}
					_, _ = c.Close(), other.Close()
				}
			}
		}
		check(false)
		network.Heal()
		check(true)
	})
}

// A Dial during a silence gets through when that ends, as with a real network.
func TestDialDuringSilence(t *testing.T) {
	for _, p := range [][2]string{{"a", "b"}, {"b", "a"}} {
		bubble(t, func(t *testing.T) {
			network := memory.NewNetwork(memory.Config{})
			l := listen(t, network, "b")
			network.Silence(p[0], p[1])
			time.AfterFunc(time.Minute, network.Heal)
			began := time.Now()
			a, b := connect(t, network, "a", l)
			if took := time.Since(began); took != time.Minute {
				t.Errorf("Dial took %v, want as long as the silence from %s to %s", took, p[0], p[1])
			}
			if !hears(t, a, b) {
				t.Error("the connection is silent")
			}
		})
	}
}

// What was dialled for somebody who has given up is closed for the one who accepted, too.
func TestDialGivenUpHalfway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{Latency: time.Second})
		l := listen(t, network, "b")
		if _, err := dialWithin(t, 1500*time.Millisecond, network, "a", "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Dial: %v", err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		readErr(t, b, transport.ErrPeerClosed)
		_ = b.Close()
		if open := network.Connections(); len(open) != 0 {
			t.Errorf("%d connections are open", len(open))
		}
	})
}

func TestRefuse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		network := memory.NewNetwork(memory.Config{Latency: time.Second})
		l := listen(t, network, "b")
		a, b := connect(t, network, "a", l)
		network.Refuse("b", true)
		began := time.Now()
		if _, err := network.Transport("a").Dial(t.Context(), "b"); !errors.Is(err, memory.ErrRefused) {
			t.Errorf("Dial: %v, want ErrRefused", err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("it took %v to be refused, want a round trip", took)
		}
		if !hears(t, a, b) {
			t.Error("an open connection was hit")
		}
		network.Refuse("b", false)
		connect(t, network, "a", l)
	})
}

func TestConnections(t *testing.T) {
	network := memory.NewNetwork(memory.Config{})
	l := listen(t, network, "b")
	ends := make(map[string][2]transport.Conn)
	for _, from := range []string{"a", "c", "d"} {
		a, b := connect(t, network, from, l)
		ends[from] = [2]transport.Conn{a, b}
	}
	check := func(want ...string) {
		t.Helper()
		var got []string
		for _, c := range network.Connections() {
			got = append(got, c.From())
		}
		if len(got) != len(want) {
			t.Fatalf("connections from %v, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("connections from %v, want %v", got, want)
			}
		}
	}
	check("a", "c", "d")
	_ = ends["c"][0].Close()
	check("a", "c", "d") // the other side is still open
	_ = ends["c"][1].Close()
	check("a", "d")
}
