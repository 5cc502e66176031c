package websocket_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
)

// response reads one from a connection.
func response(t *testing.T, c net.Conn) (status int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, ""
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil && !isReset(err) {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// tcpServer answers each connection by f, and returns its address.
func tcpServer(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with l and the last connection
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestDialOthers(t *testing.T) {
	answer := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, text)
		}
	}
	status := func(code int) string {
		return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\nwhy\x1b\n", code)
	}
	foreign := func(u gorilla.Upgrader) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if ws, err := u.Upgrade(w, r, nil); err == nil {
				ws.Close()
			}
		}
	}
	for _, c := range []struct {
		name    string
		tcp     func(net.Conn)
		http    http.HandlerFunc
		notPeer bool
		text    string
	}{
		{name: "foreign websocket server", http: foreign(gorilla.Upgrader{}), notPeer: true, text: `subprotocol ""`},
		{name: "with a subprotocol of its own", http: func(w http.ResponseWriter, r *http.Request) {
			u := gorilla.Upgrader{}
			if ws, err := u.Upgrade(w, r, http.Header{"Sec-Websocket-Protocol": {"chat"}}); err == nil {
				ws.Close()
			}
		}, notPeer: true, text: `subprotocol "chat"`},
		{name: "plain HTTP server", http: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "welcome") }, notPeer: true, text: "HTTP 200"},
		{name: "without the path", tcp: answer(status(404)), notPeer: true, text: "HTTP 404"},
		{name: "redirect", tcp: answer("HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), notPeer: true, text: "HTTP 302"},
		{name: "text with control characters", tcp: answer(status(400)), notPeer: true, text: `why\x1b`},
		{name: "busy", tcp: answer(status(429)), text: "HTTP 429"},
		{name: "proxy without its node", tcp: answer(status(502)), text: "HTTP 502"},
		{name: "no HTTP", tcp: answer("SSH-2.0-OpenSSH_9.2\r\n"), notPeer: true, text: "malformed"},
		{name: "garbage", tcp: answer(strings.Repeat("\x00\xff", 5000)), notPeer: true},
		{name: "closes", tcp: func(net.Conn) {}},
		{name: "closes in the answer", tcp: answer("HTTP/1.1 101 Swi")},
		{name: "wrong accept key", tcp: answer("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"), notPeer: true, text: "101"},
		{name: "headers without end", tcp: func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 101 X\r\n")
			for _, err := io.WriteString(c, "X: x\r\n"); err == nil; {
				_, err = io.WriteString(c, strings.Repeat("X: x\r\n", 1000))
			}
		}, notPeer: true, text: "too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := ""
			if c.tcp != nil {
				addr = tcpServer(t, c.tcp)
			} else {
				s := httptest.NewServer(c.http)
				t.Cleanup(s.Close)
				addr = strings.TrimPrefix(s.URL, "http://")
			}
			conn, err := websocket.New(websocket.Config{}).Dial(t.Context(), addr)
			if err == nil {
				conn.Close()
				t.Fatal("Dial works")
			}
			if errors.Is(err, transport.ErrNotPeer) != c.notPeer || !strings.Contains(err.Error(), c.text) {
				t.Errorf("Dial: %v; want ErrNotPeer: %v, and %q in it", err, c.notPeer, c.text)
			}
		})
	}
}

// A server that compresses unasked is refused: nothing bounds what comes out.
func TestDialCompression(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Sec-Websocket-Extensions", "permessage-deflate; client_max_window_bits")
		u := gorilla.Upgrader{EnableCompression: true, Subprotocols: []string{websocket.Subprotocol}}
		if ws, err := u.Upgrade(w, r, nil); err == nil {
			ws.Close()
		}
	}))
	t.Cleanup(s.Close)
	_, err := websocket.New(websocket.Config{}).Dial(t.Context(), strings.TrimPrefix(s.URL, "http://"))
	if !errors.Is(err, transport.ErrNotPeer) || !strings.Contains(err.Error(), "permessage-deflate") {
		t.Errorf("Dial: %v, want ErrNotPeer with the extension", err)
	}
}

// Dial ends with its context wherever it is: before the TLS handshake, and before the response.
func TestDialContext(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  websocket.Config
	}{{"response", websocket.Config{}}, {"TLS", websocket.Config{TLS: mesh().mutual("node")}}} {
		t.Run(c.name, func(t *testing.T) {
			called := make(chan struct{})
			addr := tcpServer(t, func(conn net.Conn) {
				conn.Read(make([]byte, 1))
				close(called)
				io.Copy(io.Discard, conn)
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			failed := make(chan error, 1)
			go func() { // ends with ctx
				_, err := websocket.New(c.cfg).Dial(ctx, addr)
				failed <- err
			}()
			eventually(t, "the request", called)
			cancel(errors.New("a cause"))
			if err := eventually(t, "Dial", failed); !errors.Is(err, context.Canceled) {
				t.Errorf("Dial: %v, want context.Canceled", err)
			}
		})
	}
}

func TestDialHandshakeTimeout(t *testing.T) {
	tr := websocket.New(websocket.Config{HandshakeTimeout: 50 * time.Millisecond})
	_, err := tr.Dial(context.Background(), deaf(t))
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "50ms") {
		t.Errorf("Dial: %v, want os.ErrDeadlineExceeded and the time", err)
	}
}

func TestDialThroughProxy(t *testing.T) {
	p := newProxy(t)
	for _, cfg := range []websocket.Config{{}, {TLS: mesh().mutual("node")}} {
		cfg.Addr = local
		cfg.Proxy = func(*http.Request) (*url.URL, error) { return p.url, nil }
		before := p.dialled()
		a, b := pair(t, cfg)
		carries(t, a, b)
		if p.dialled() != before+1 {
			t.Error("the proxy was not used")
		}
	}
}
