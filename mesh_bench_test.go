package gravbus_test

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	ws "github.com/gorilla/websocket"

	"github.com/gravbus/gravbus"
)

// pair starts two nodes that know each other, or one and n more.
func benchNodes(b *testing.B, n int) (from *gravbus.Bus, to []*gravbus.Bus) {
	b.Helper()
	from = meshNode(b, nil)
	for range n {
		to = append(to, meshNode(b, from.Endpoints()))
	}
	if err := from.WaitPeers(soon(b), n); err != nil {
		b.Fatal(err)
	}
	return from, to
}

// arrivals counts what arrives, and tells when it is all there.
type arrivals struct {
	n, want atomic.Int64
	all     chan struct{}
}

func (a *arrivals) expect(n int) {
	a.n.Store(0)
	a.want.Store(int64(n))
	a.all = make(chan struct{})
}

func (a *arrivals) one(gravbus.Message) error {
	if a.n.Add(1) == a.want.Load() {
		close(a.all)
	}
	return nil
}

func (a *arrivals) wait(b *testing.B) {
	b.Helper()
	select {
	case <-a.all:
	case <-time.After(time.Minute):
		b.Fatalf("%d of %d messages have arrived", a.n.Load(), a.want.Load())
	}
}

// BenchmarkMesh is one way between two nodes over a real websocket on loopback, beside the same
// over a raw one: with as many messages in a frame as fit into 64 KiB, and with one in each.
func BenchmarkMesh(b *testing.B) {
	for _, size := range []int{128, 1024, 16384} {
		data := make([]byte, size)
		b.Run(fmt.Sprintf("size=%d/gravbus", size), func(b *testing.B) {
			from, to := benchNodes(b, 1)
			var got arrivals
			to[0].Connect().OnType("bench", got.one)
			if err := from.WaitInterest(soon(b), "bench", 1); err != nil {
				b.Fatal(err)
			}
			pod := from.Connect()
			b.ReportAllocs()
			got.expect(b.N)
			b.ResetTimer()
			for range b.N {
				pod.Send(gravbus.NewMsg("bench", data))
			}
			got.wait(b)
		})
		b.Run(fmt.Sprintf("size=%d/raw-batched", size), func(b *testing.B) { benchRaw(b, size, max(1, 65000/size)) })
		b.Run(fmt.Sprintf("size=%d/raw-single", size), func(b *testing.B) { benchRaw(b, size, 1) })
	}
}

// BenchmarkMeshFanOut is one node to 8, per delivery.
func BenchmarkMeshFanOut(b *testing.B) {
	const nodes = 8
	from, to := benchNodes(b, nodes)
	var got arrivals
	for _, t := range to {
		t.Connect().OnType("bench", got.one)
	}
	if err := from.WaitInterest(soon(b), "bench", nodes); err != nil {
		b.Fatal(err)
	}
	pod := from.Connect()
	data := make([]byte, 128)
	n := (b.N + nodes - 1) / nodes
	got.expect(n * nodes)
	b.ResetTimer()
	for range n {
		pod.Send(gravbus.NewMsg("bench", data))
	}
	got.wait(b)
}

// BenchmarkMeshRequest is a request and its reply across nodes, beside a ping-pong over a raw
// websocket.
func BenchmarkMeshRequest(b *testing.B) {
	setUp := func(b *testing.B) *gravbus.Pod {
		from, to := benchNodes(b, 1)
		echo := to[0].Connect()
		echo.OnType("ask", func(m gravbus.Message) error {
			echo.ReplyTo(m, gravbus.NewMsg("answer", m.Data()))
			return nil
		})
		if err := from.WaitInterest(soon(b), "ask", 1); err != nil {
			b.Fatal(err)
		}
		return from.Connect()
	}
	data := make([]byte, 128)
	b.Run("sequential", func(b *testing.B) {
		pod := setUp(b)
		for b.Loop() {
			if _, err := pod.Request(b.Context(), gravbus.NewMsg("ask", data)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("inflight=64", func(b *testing.B) {
		pod := setUp(b)
		b.SetParallelism((64 + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := pod.Request(b.Context(), gravbus.NewMsg("ask", data)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("raw", func(b *testing.B) {
		client := rawWebsocket(b, func(c *ws.Conn) {
			for {
				kind, msg, err := c.ReadMessage()
				if err != nil || c.WriteMessage(kind, msg) != nil {
					return
				}
			}
		})
		for b.Loop() {
			if client.WriteMessage(ws.BinaryMessage, data) != nil {
				b.Fatal("write")
			}
			if _, _, err := client.ReadMessage(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMeshIdleLink reports the memory of a link on which nothing happens, both ends.
func BenchmarkMeshIdleLink(b *testing.B) {
	const nodes = 8
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, to := benchNodes(b, nodes)
		for _, n := range to {
			if err := n.WaitPeers(soon(b), nodes); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		links := nodes * (nodes + 1)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc+after.StackInuse-before.StackInuse)/float64(links), "B/link-end")
	}
}

func benchRaw(b *testing.B, size, perFrame int) {
	var got atomic.Int64
	all := make(chan struct{})
	total := b.N
	client := rawWebsocket(b, func(c *ws.Conn) {
		for {
			_, msg, err := c.ReadMessage()
			if err != nil {
				return
			}
			if got.Add(int64(len(msg)/size)) >= int64(total) {
				close(all)
				return
			}
		}
	})
	frame := make([]byte, size*perFrame)
	b.ResetTimer()
	for sent := 0; sent < total; sent += perFrame {
		if err := client.WriteMessage(ws.BinaryMessage, frame); err != nil {
			b.Fatal(err)
		}
	}
	<-all
}

// rawWebsocket dials a server that serves each connection by serve.
func rawWebsocket(b *testing.B, serve func(*ws.Conn)) *ws.Conn {
	b.Helper()
	up := ws.Upgrader{ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		serve(c)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go srv.Serve(ln)
	b.Cleanup(func() { srv.Close() })
	d := ws.Dialer{ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10}
	c, resp, err := d.Dial("ws://"+ln.Addr().String(), nil)
	if err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
	b.Cleanup(func() { c.Close() })
	return c
}
