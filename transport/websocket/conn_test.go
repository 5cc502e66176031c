package websocket_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
)

// stranger connects to a listener as a node would, and returns what gorilla makes of it.
func stranger(t *testing.T, l transport.Listener) *gorilla.Conn {
	t.Helper()
	d := gorilla.Dialer{Subprotocols: []string{websocket.Subprotocol}, WriteBufferSize: 1 << 20}
	ws, resp, err := d.DialContext(t.Context(), "ws://"+l.Endpoints()[0]+websocket.DefaultPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	t.Cleanup(func() { ws.Close() })
	return ws
}

// closeCode returns why the other side ends the connection.
func closeCode(t *testing.T, ws *gorilla.Conn) int {
	t.Helper()
	_, _, err := ws.ReadMessage()
	var closing *gorilla.CloseError
	if !errors.As(err, &closing) {
		t.Fatalf("instead of a close message there is %v", err)
	}
	return closing.Code
}

// header returns the header of a masked frame.
func header(first byte, length uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, length)
	return append(b, 1, 2, 3, 4)
}

func TestMalformed(t *testing.T) {
	const fin, text, binaryMsg, ping = 0x80, 1, 2, 9
	for _, c := range []struct {
		name string
		sent []byte
		want error
		code int // of the close message that comes back
	}{
		{"text", append([]byte{fin | text, 0x80 | 2, 0, 0, 0, 0}, "hi"...), transport.ErrMalformed, gorilla.CloseUnsupportedData},
		{"not masked", append([]byte{fin | binaryMsg, 2}, "hi"...), transport.ErrMalformed, gorilla.CloseProtocolError},
		{"compressed", append([]byte{fin | 0x40 | binaryMsg, 0x80 | 2, 0, 0, 0, 0}, "hi"...), transport.ErrMalformed, gorilla.CloseProtocolError},
		{"unknown kind", []byte{fin | 3, 0x80, 0, 0, 0, 0}, transport.ErrMalformed, gorilla.CloseProtocolError},
		{"continues nothing", []byte{fin, 0x80, 0, 0, 0, 0}, transport.ErrMalformed, gorilla.CloseProtocolError},
		{"endless ping", header(fin|ping, 1000), transport.ErrMalformed, gorilla.CloseProtocolError},
		{"above the limit", header(fin|binaryMsg, transport.DefaultReadLimit+1), transport.ErrFrameTooLarge, gorilla.CloseMessageTooBig},
		{"huge", header(fin|binaryMsg, 1<<62), transport.ErrFrameTooLarge, gorilla.CloseMessageTooBig},
		{"in parts above the limit", append(append(header(binaryMsg, 10_000), make([]byte, 10_000)...), header(fin, 10_000)...), transport.ErrFrameTooLarge, gorilla.CloseMessageTooBig},
		{"cut short", append(header(fin|binaryMsg, 1000), "not so many"...), transport.ErrPeerClosed, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t, websocket.New(websocket.Config{Addr: local}))
			ws := stranger(t, l)
			conn := accept(t, l)
			if _, err := ws.NetConn().Write(c.sent); err != nil {
				t.Fatal(err)
			}
			if c.code == 0 {
				ws.NetConn().(*net.TCPConn).CloseWrite()
			}
			frame, err := conn.ReadFrame(nil)
			if !errors.Is(err, c.want) {
				t.Fatalf("ReadFrame: %q, %v; want %v", frame, err, c.want)
			}
			if c.code == 0 {
				return
			}
			if code := closeCode(t, ws); code != c.code {
				t.Errorf("the stranger is told code %d, want %d", code, c.code)
			}
			if err := conn.WriteFrame(nil); !errors.Is(err, c.want) {
				t.Errorf("WriteFrame after that: %v, want %v", err, c.want)
			}
		})
	}
}

// A length of 2^63 or more is no length (RFC 6455, 5.2), and no reason to tell anybody.
func TestLengthOverflow(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local}))
	ws := stranger(t, l)
	conn := accept(t, l)
	if _, err := ws.NetConn().Write(header(0x82, 1<<63)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ReadFrame(nil); !errors.Is(err, transport.ErrFrameTooLarge) {
		t.Fatalf("ReadFrame: %v, want ErrFrameTooLarge", err)
	}
}

// Memory follows the bytes that have come, not the length that a stranger says.
func TestClaimedLengthCostsNothing(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local}))
	ws := stranger(t, l)
	conn := accept(t, l)
	conn.SetReadLimit(1 << 40)
	if _, err := ws.NetConn().Write(append(header(0x82, 1<<30), make([]byte, 1000)...)); err != nil {
		t.Fatal(err)
	}
	ws.NetConn().(*net.TCPConn).CloseWrite()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := conn.ReadFrame(nil); !errors.Is(err, transport.ErrPeerClosed) {
		t.Fatalf("ReadFrame: %v, want ErrPeerClosed", err)
	}
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 1<<20 {
		t.Errorf("a GiB that did not come has cost %d bytes", spent)
	}
}

// A limit that is raised while ReadFrame waits holds for the frame that it waits for.
func TestReadLimitRaisedWhileReading(t *testing.T) {
	for _, cfg := range []websocket.Config{{}, {TLS: mesh().mutual("node")}} {
		a, b := pair(t, cfg)
		for _, c := range [][2]transport.Conn{{a, b}, {b, a}} {
			from, to := c[0], c[1]
			read := make(chan error, 1)
			go func() { // ends with the frame
				_, err := to.ReadFrame(make([]byte, 0, 1<<20))
				read <- err
			}()
			waitBlocked(t, "ReadFrame")
			to.SetReadLimit(1 << 20)
			if err := from.WriteFrame(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			if err := eventually(t, "ReadFrame", read); err != nil {
				t.Errorf("ReadFrame: %v", err)
			}
		}
	}
}

// waitBlocked waits until a goroutine that waits for the network has such a method on its stack.
func waitBlocked(t *testing.T, method string) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "[IO wait") && strings.Contains(g, method) {
				return
			}
		}
	}
	t.Fatalf("no %s waits", method)
}

// Of a frame of FrameSize both sides make one WebSocket frame, and so one write: gorilla writes
// frames whole.
func TestFrameSizeIsOneWrite(t *testing.T) {
	for _, c := range []struct{ name, from string }{{"dialled", "client"}, {"accepted", "server"}} {
		t.Run(c.name, func(t *testing.T) {
			taps := make(chan *tap, 2)
			t1 := websocket.New(websocket.Config{Mounted: true})
			_, endpoint := serveMux(t, t1, func(conn net.Conn) net.Conn {
				w := &tap{Conn: conn}
				taps <- w
				return w
			})
			l := listen(t, t1)
			dialled := dial(t, websocket.New(websocket.Config{}), endpoint)
			accepted := accept(t, l)
			tap := <-taps
			from, to := dialled, accepted
			if c.from == "server" {
				from, to = to, from
			}
			to.SetReadLimit(1 << 20)
			for _, size := range []int{0, 200, 16 << 10, websocket.FrameSize} {
				before := tap.writes
				sent := make(chan error, 1)
				go func() { sent <- from.WriteFrame(make([]byte, size)) }() // ends when it is read
				frame, err := to.ReadFrame(nil)
				if err != nil || len(frame) != size {
					t.Fatalf("ReadFrame: %d bytes, %v", len(frame), err)
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				if c.from == "server" {
					if got := tap.writes - before; got != 1 {
						t.Errorf("a frame of %d bytes costs %d writes", size, got)
					}
				} else if tap.last&0x8f != 0x82 {
					t.Errorf("a frame of %d bytes does not begin with FIN and binary, but %#x", size, tap.last)
				}
			}
		})
	}
}

// A tap is what a server writes to, and reads from.
type tap struct {
	net.Conn
	writes int
	last   byte // the first byte of the frame that was read last, as frames come one at a time
	left   int  // bytes that are still to come of it
}

func (c *tap) Write(p []byte) (int, error) {
	c.writes++
	return c.Conn.Write(p)
}

func (c *tap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	b := p[:n]
	if c.left == 0 && n > 1 && b[0]&0xf <= 2 { // not the request
		c.last = b[0]
		switch size := int(b[1] & 0x7f); size {
		case 126:
			c.left = int(binary.BigEndian.Uint16(b[2:])) + 8
		case 127:
			c.left = int(binary.BigEndian.Uint64(b[2:])) + 14
		default:
			c.left = size + 6
		}
	}
	c.left = max(c.left-n, 0)
	return n, err
}

// Frames cost no memory but what gorilla needs for itself: 3 small objects for the client's frame and
// 1 for the server's to write, 1 to read.
func TestAllocations(t *testing.T) {
	a, b := pair(t, websocket.Config{})
	for _, c := range []struct {
		name     string
		from, to transport.Conn
		want     float64
	}{{"dialler writes", a, b, 4}, {"dialler reads", b, a, 3}} {
		c.to.SetReadLimit(1 << 20)
		frame, buf := make([]byte, 1000), make([]byte, 0, 1000) // exactly so much
		got := testing.AllocsPerRun(100, func() {
			if err := c.from.WriteFrame(frame); err != nil {
				t.Fatal(err)
			}
			got, err := c.to.ReadFrame(buf)
			if err != nil || &got[0] != &buf[:1][0] {
				t.Fatalf("ReadFrame: %v, or it has not used the buffer", err)
			}
		})
		if got > c.want && !raceOn {
			t.Errorf("%s: %v allocations, want at most %v", c.name, got, c.want)
		}
	}
}

// Pings of the other side are answered, also when a writer is stuck, and then the reader goes on.
func TestPings(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local}))
	ws := stranger(t, l)
	conn := accept(t, l)
	pongs := make(chan string, 10)
	ws.SetPongHandler(func(s string) error { pongs <- s; return nil })

	stuck := make(chan error, 1)
	go func() { // ends when the stranger reads, or with conn
		for {
			if err := conn.WriteFrame(make([]byte, websocket.FrameSize)); err != nil {
				stuck <- err
				return
			}
		}
	}()
	waitBlocked(t, "WriteFrame")
	for _, s := range []string{"one", "two", ""} {
		if err := ws.WriteControl(gorilla.PingMessage, []byte(s), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ws.WriteMessage(gorilla.BinaryMessage, []byte("behind pings")); err != nil {
		t.Fatal(err)
	}
	if frame, err := conn.ReadFrame(nil); err != nil || string(frame) != "behind pings" {
		t.Fatalf("ReadFrame behind pings, while a writer is stuck: %q, %v", frame, err)
	}
	var last string
	for first := true; first || last != ""; first = false { // of several the last is answered
		for len(pongs) == 0 {
			if _, _, err := ws.NextReader(); err != nil {
				t.Fatal(err)
			}
		}
		last = <-pongs
	}
	conn.Close()
	if err := eventually(t, "WriteFrame", stuck); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("WriteFrame: %v, want ErrClosed", err)
	}
}

// Close waits for a pong that cannot be written, and frees it.
func TestCloseWithPong(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local}))
	ws := stranger(t, l)
	conn := accept(t, l)
	go func() { // ends with conn
		for conn.WriteFrame(make([]byte, websocket.FrameSize)) == nil {
		}
	}()
	waitBlocked(t, "WriteFrame")
	if err := errors.Join(
		ws.WriteControl(gorilla.PingMessage, nil, time.Time{}),
		ws.WriteMessage(gorilla.BinaryMessage, nil),
	); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ReadFrame(nil); err != nil {
		t.Fatal(err)
	}
	conn.Close() // goleak looks at the rest
}

// A caller that reads on through Shutdown gets all, also if it takes some time between two frames.
func TestShutdownLeavesReadingToReader(t *testing.T) {
	a, b := pair(t, websocket.Config{})
	const n = 200
	for i := range n {
		if err := b.WriteFrame(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.ReadFrame(nil); err != nil {
		t.Fatal(err)
	}
	down := make(chan error, 1)
	go func() { down <- a.Shutdown(t.Context()) }() // ends when b has closed
	go b.Shutdown(t.Context())                      // likewise
	for i := 1; i < n; i++ {
		frame, err := a.ReadFrame(nil)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if got := binary.BigEndian.Uint32(frame); got != uint32(i) {
			t.Fatalf("frame %d came in place of %d", got, i)
		}
	}
	if _, err := a.ReadFrame(nil); !errors.Is(err, transport.ErrPeerClosed) {
		t.Errorf("ReadFrame at the end: %v, want ErrPeerClosed", err)
	}
	if err := eventually(t, "Shutdown", down); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// Deadlines that were for frames do not end Shutdown.
func TestShutdownAfterDeadlines(t *testing.T) {
	a, b := pair(t, websocket.Config{})
	past := time.Now().Add(-time.Hour)
	if err := errors.Join(a.SetReadDeadline(past), a.SetWriteDeadline(past), a.SetReadIdle(1)); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { // ends with Shutdown
		_, err := b.ReadFrame(nil)
		read <- err
	}()
	if err := a.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := eventually(t, "ReadFrame", read); !errors.Is(err, transport.ErrPeerClosed) {
		t.Errorf("ReadFrame of the other side: %v, want ErrPeerClosed", err)
	}
}

// WriteFrame to one who has shut down says so.
func TestWriteAfterPeerShutdown(t *testing.T) {
	a, b := pair(t, websocket.Config{})
	down := make(chan error, 1)
	go func() { down <- a.Shutdown(context.Background()) }() // ends with b's ReadFrame
	if _, err := b.ReadFrame(nil); !errors.Is(err, transport.ErrPeerClosed) {
		t.Errorf("ReadFrame: %v, want ErrPeerClosed", err)
	}
	if err := b.WriteFrame(nil); !errors.Is(err, transport.ErrPeerClosed) {
		t.Errorf("WriteFrame: %v, want ErrPeerClosed", err)
	}
	if err := eventually(t, "Shutdown", down); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
