package websocket_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
)

// rawDial connects to a listener by TCP.
func rawDial(t *testing.T, l transport.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// isCut waits until the other side has closed c.
func isCut(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); err != nil && !isReset(err) {
		t.Errorf("it is not cut: %v", err)
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), "reset") }

// request is that of a node, as far as nobody has to compute anything for it.
func request(path string, more ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + strings.Join(more, "") + "\r\n"
}

const subprotocol = "Sec-WebSocket-Protocol: chat, gravbus.v1\r\n"

func TestRequests(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local}))
	const path = websocket.DefaultPath
	for _, c := range []struct {
		name, sent string
		status     int
		body       string
	}{
		{"node", request(path, subprotocol), 101, ""},
		{"other subprotocol", request(path, "Sec-WebSocket-Protocol: chat\r\n"), 400, "gravbus.v1"},
		{"no subprotocol", request(path), 400, "gravbus.v1"},
		{"other path", request("/other", subprotocol), 404, "path"},
		{"page of another site", request(path, subprotocol, "Origin: http://evil.example\r\n"), 403, "origin"},
		{"page of the same host", request(path, subprotocol, "Origin: http://node\r\n"), 101, ""},
		{"browser", "GET " + path + " HTTP/1.1\r\nHost: node\r\n\r\n", 426, "WebSocket"},
		{"post", strings.Replace(request(path, subprotocol), "GET", "POST", 1), 405, "GET"},
		{"other version", strings.Replace(request(path, subprotocol), "Version: 13", "Version: 8", 1), 400, "version"},
		{"long headers", request(path, "X: "+strings.Repeat("x", 20_000)+"\r\n"), 431, ""},
		{"garbage", strings.Repeat("\xff\x00\r\n", 100) + "\r\n", 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := rawDial(t, l)
			conn.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(conn, c.sent); err != nil && !isReset(err) {
				t.Fatal(err)
			}
			status, body := response(t, conn)
			if status != c.status || !strings.Contains(body, c.body) {
				t.Errorf("the answer is %d %q, want %d and %q in it", status, body, c.status, c.body)
			}
			if status == 101 {
				accept(t, l)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local}))
	if _, err := websocket.New(websocket.Config{Addr: l.Endpoints()[0]}).Listen(t.Context(), transport.ListenOptions{}); err == nil ||
		!strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Listen at a port in use: %v", err)
	}
}

func TestListenConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  websocket.Config
		o    transport.ListenOptions
		want string
	}{
		{"no port", websocket.Config{Addr: "127.0.0.1"}, transport.ListenOptions{}, "missing port"},
		{"no port to replace", websocket.Config{Addr: "127.0.0.1"}, transport.ListenOptions{Port: "0"}, "missing port"},
		{"port", websocket.Config{Addr: local}, transport.ListenOptions{Port: "70000"}, "invalid port"},
		{"path", websocket.Config{Addr: local, Path: "bus"}, transport.ListenOptions{}, "/"},
		{"path option", websocket.Config{Addr: local}, transport.ListenOptions{Path: "bus"}, "/"},
		{"advertised", websocket.Config{Addr: local, Advertise: []string{"http://a"}}, transport.ListenOptions{}, "Advertise"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := websocket.New(c.cfg).Listen(t.Context(), c.o)
			if err == nil {
				l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || l != nil {
				t.Errorf("Listen: %v, %v; want %q in the error", l, err, c.want)
			}
		})
	}
}

// ListenOptions come first, and Dial fills in what they say.
func TestListenOptions(t *testing.T) {
	port := freePort(t)
	tr := websocket.New(websocket.Config{Addr: "127.0.0.1:1", Path: "/other"})
	l, err := tr.Listen(t.Context(), transport.ListenOptions{Port: port, Path: "/bus"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, want := l.Endpoints()[0], "ws://127.0.0.1:"+port+"/bus"; got != want {
		t.Errorf("Endpoints: %q, want %q", got, want)
	}
	a := dial(t, tr, "127.0.0.1")
	carries(t, a, accept(t, l))
}

// freePort returns a port of 127.0.0.1 that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// Who does not get on with it is cut, however it goes about it.
func TestSlowStrangersAreCut(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local, HandshakeTimeout: 200 * time.Millisecond}))
	secure := listen(t, websocket.New(websocket.Config{
		Addr: local, HandshakeTimeout: 200 * time.Millisecond, TLS: mesh().oneSided("node"),
	}))
	idle := rawDial(t, l)
	half := rawDial(t, l)
	io.WriteString(half, "GET / HTTP/1.1\r\nHo")
	refused := rawDial(t, l) // does not get a second request
	io.WriteString(refused, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	upgraded := rawDial(t, l) // and is not accepted
	io.WriteString(upgraded, request(websocket.DefaultPath, subprotocol))
	dripping := rawDial(t, l)
	go func() { // ends with dripping
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(dripping, "G"); err != nil {
				return
			}
		}
	}()
	noHello, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(secure.Endpoints()[0], "wss://"), websocket.DefaultPath))
	if err != nil {
		t.Fatal(err)
	}
	defer noHello.Close()
	noRequest, err := tls.Dial("tcp", noHello.RemoteAddr().String(), &tls.Config{RootCAs: mesh().pool})
	if err != nil {
		t.Fatal(err)
	}
	defer noRequest.Close()
	for _, c := range []net.Conn{idle, half, refused, upgraded, dripping, noHello, noRequest} {
		isCut(t, c)
	}
}

// Once accepted, a connection has all the time in the world.
func TestAcceptedAreNotCut(t *testing.T) {
	const short = 200 * time.Millisecond
	for _, cfg := range []websocket.Config{{}, {TLS: mesh().mutual("node")}} {
		cfg.Addr, cfg.HandshakeTimeout = local, short
		a, b := pair(t, cfg)
		mounted := websocket.New(websocket.Config{Mounted: true, HandshakeTimeout: short})
		_, endpoint := serveMux(t, mounted, nil)
		l := listen(t, mounted)
		c := dial(t, mounted, endpoint)
		d := accept(t, l)

		late := rawDial(t, listen(t, websocket.New(websocket.Config{Addr: local, HandshakeTimeout: short})))
		isCut(t, late) // so the time of the others is over too
		carries(t, a, b)
		carries(t, c, d)
	}
}

// When all places are taken by who does nothing, the oldest makes room for who does.
func TestMaxPending(t *testing.T) {
	tr := websocket.New(websocket.Config{Addr: local, MaxPending: 4, HandshakeTimeout: time.Hour})
	l := listen(t, tr)
	var idle []net.Conn
	for range 10 {
		idle = append(idle, rawDial(t, l))
	}
	a, err := websocket.New(websocket.Config{}).Dial(t.Context(), l.Endpoints()[0])
	if err != nil {
		t.Fatalf("Dial while %d others do nothing: %v", len(idle), err)
	}
	defer a.Close()
	carries(t, a, accept(t, l))
	for _, c := range idle[:7] {
		isCut(t, c)
	}
	for _, c := range idle[7:] { // three have their places
		c.SetReadDeadline(time.Now())
		if _, err := c.Read(make([]byte, 1)); err == nil || isReset(err) || errors.Is(err, io.EOF) {
			t.Error("one was cut although there was room")
		}
	}
}

// The same for those that wait to be accepted, and in a server of the user's.
func TestMaxPendingAccepts(t *testing.T) {
	mounted := websocket.New(websocket.Config{Mounted: true, MaxPending: 2, HandshakeTimeout: time.Hour})
	_, endpoint := serveMux(t, mounted, nil)
	own := websocket.New(websocket.Config{Addr: local, MaxPending: 2, HandshakeTimeout: time.Hour})
	for _, c := range []struct {
		l        transport.Listener
		endpoint string
	}{{listen(t, mounted), endpoint}, {listen(t, own), ""}} {
		if c.endpoint == "" {
			c.endpoint = c.l.Endpoints()[0]
		}
		var conns []transport.Conn
		for range 5 {
			conns = append(conns, dial(t, own, c.endpoint))
		}
		for _, conn := range conns[:3] {
			if _, err := conn.ReadFrame(nil); !errors.Is(err, transport.ErrPeerClosed) {
				t.Errorf("ReadFrame of one that gave way: %v, want ErrPeerClosed", err)
			}
		}
		left := map[string]transport.Conn{}
		for _, conn := range conns[3:] {
			left[conn.Info().LocalAddr] = conn
		}
		for range 2 {
			conn := accept(t, c.l)
			other := left[conn.Info().RemoteAddr]
			if other == nil {
				t.Fatal("one was accepted that gave way")
			}
			carries(t, conn, other)
		}
	}
}

// Close does not wait for strangers.
func TestCloseWithStrangers(t *testing.T) {
	tr := websocket.New(websocket.Config{Addr: local, HandshakeTimeout: time.Hour})
	l := listen(t, tr)
	idle, half, waits := rawDial(t, l), rawDial(t, l), rawDial(t, l)
	io.WriteString(half, "GET / HTTP/1.1\r\nHo")
	io.WriteString(waits, request(websocket.DefaultPath, subprotocol))
	if status, _ := response(t, waits); status != 101 {
		t.Fatal(status)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{idle, half, waits} {
		isCut(t, c)
	}
}

// net/http stays a while with a stranger whose headers are too long, so that the answer is read: no
// goroutine of that is left after Close.
func TestCloseWaitsForServer(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local}))
	conn := rawDial(t, l)
	io.WriteString(conn, request(websocket.DefaultPath, "X: "+strings.Repeat("x", 20_000)+"\r\n"))
	if status, _ := response(t, conn); status != 431 {
		t.Fatal(status)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if strings.Contains(string(stacks), "closeWriteAndWait") {
		t.Errorf("a goroutine of the server is left:\n%s", stacks)
	}
}

// A listener at all addresses names them all, loopback ones last, and can be dialled at each.
func TestEndpointsOfAllAddresses(t *testing.T) {
	tr := websocket.New(websocket.Config{Addr: ":0"})
	l := listen(t, tr)
	if l.Exposure().Loopback {
		t.Error("it says that only this machine can connect")
	}
	endpoints := l.Endpoints()
	loopback := false
	for _, e := range endpoints {
		host, _, err := net.SplitHostPort(e)
		if err != nil {
			t.Fatalf("%q: %v", e, err)
		}
		ip := net.ParseIP(strings.Split(host, "%")[0])
		if loopback && !ip.IsLoopback() {
			t.Errorf("%q comes after a loopback address", e)
		}
		loopback = ip.IsLoopback()
		a := dial(t, tr, e)
		carries(t, a, accept(t, l))
	}
	if !loopback {
		t.Errorf("no loopback address in %q", endpoints)
	}
}

func TestAdvertise(t *testing.T) {
	want := []string{"ws://gravbus.example/bus", "10.1.2.3:99"}
	l := listen(t, websocket.New(websocket.Config{Addr: local, Advertise: want}))
	got := l.Endpoints()
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("Endpoints: %q, want %q", got, want)
	}
	got[0] = "changed"
	if l.Endpoints()[0] != want[0] {
		t.Error("who gets Endpoints can change them")
	}
}

// A node that listens is also an HTTP server, but for one request only.
func TestOneRequest(t *testing.T) {
	l := listen(t, websocket.New(websocket.Config{Addr: local}))
	status, body := get(t, "http://"+l.Endpoints()[0]+"/", http.Header{})
	if status != 404 || !strings.Contains(body, "gravbus") {
		t.Errorf("it answers %d %q", status, body)
	}
	c := rawDial(t, l)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	isCut(t, c)
}
