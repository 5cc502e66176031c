package websocket_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
)

// serveMux serves t at /bus beside an ordinary route, and returns its URL and the endpoint.
func serveMux(tb testing.TB, t *websocket.Transport, wrap func(net.Conn) net.Conn) (url, endpoint string) {
	tb.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	mux.Handle("/bus", t.Handler())
	s := httptest.NewUnstartedServer(mux)
	if wrap != nil {
		s.Listener = wrappingListener{s.Listener, wrap}
	}
	s.Start()
	tb.Cleanup(s.Close)
	return s.URL, "ws" + strings.TrimPrefix(s.URL, "http") + "/bus"
}

type wrappingListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l wrappingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

// get returns the status and the body of a response.
func get(tb testing.TB, url string, header http.Header) (int, string) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, url, nil)
	if err != nil {
		tb.Fatal(err)
	}
	req.Header = header
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestMounted(t *testing.T) {
	tr := websocket.New(websocket.Config{Mounted: true})
	url, endpoint := serveMux(t, tr, nil)

	_, err := tr.Dial(t.Context(), endpoint)
	if err == nil || errors.Is(err, transport.ErrNotPeer) || !strings.Contains(err.Error(), "503") {
		t.Errorf("Dial before Listen: %v, want 503 and not ErrNotPeer: it may be there later", err)
	}

	l := listen(t, tr)
	if got := l.Endpoints(); len(got) != 0 {
		t.Errorf("Endpoints at an unknown address: %q", got)
	}
	if got := l.Exposure(); got != (transport.Exposure{}) {
		t.Errorf("Exposure: %+v, want everybody", got)
	}
	if _, err := tr.Listen(t.Context(), transport.ListenOptions{}); err == nil {
		t.Error("Listen works twice at the same time")
	}

	a := dial(t, tr, endpoint)
	b := accept(t, l)
	carries(t, a, b)
	if status, body := get(t, url+"/hello", nil); status != 200 || body != "hello" {
		t.Errorf("the route beside it: %d %q", status, body)
	}

	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	carries(t, a, b)
	if _, err := tr.Dial(t.Context(), endpoint); err == nil {
		t.Error("Dial works after Close")
	}
	l = listen(t, tr)
	a = dial(t, tr, endpoint)
	carries(t, a, accept(t, l))
}

func TestMountedSaysWhatItKnows(t *testing.T) {
	advertised := []string{"wss://gravbus.example/bus"}
	tr := websocket.New(websocket.Config{
		Mounted: true, MountedLoopback: true, Advertise: advertised,
		TLS: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert},
	})
	l := listen(t, tr)
	if got, want := l.Exposure(), (transport.Exposure{Loopback: true, Authenticated: true}); got != want {
		t.Errorf("Exposure: %+v, want %+v", got, want)
	}
	if got := l.Endpoints(); len(got) != 1 || got[0] != advertised[0] {
		t.Errorf("Endpoints: %q, want %q", got, advertised)
	}
}

// What Exposure promises is checked, whatever the server lets through.
func TestMountedWantsCertificates(t *testing.T) {
	tr := websocket.New(websocket.Config{Mounted: true, TLS: mesh().mutual("node")})
	_, endpoint := serveMux(t, tr, nil) // without TLS
	listen(t, tr)
	_, err := websocket.New(websocket.Config{}).Dial(t.Context(), endpoint)
	if !errors.Is(err, transport.ErrNotPeer) || !strings.Contains(err.Error(), "client certificate") {
		t.Errorf("Dial without a certificate: %v, want ErrNotPeer with the reason", err)
	}
}

func TestMountedWithTLS(t *testing.T) {
	cfg := mesh().mutual("node")
	tr := websocket.New(websocket.Config{Mounted: true, TLS: cfg})
	s := httptest.NewUnstartedServer(tr.Handler())
	s.EnableHTTP2 = true // for browsers; nodes do not ask for it
	s.TLS = cfg.Clone()
	s.StartTLS()
	t.Cleanup(s.Close)
	l := listen(t, tr)
	a := dial(t, tr, s.Listener.Addr().String()+"/any/path")
	b := accept(t, l)
	carries(t, a, b)
	checkSecure(t, a.Info(), b.Info(), "node", "node")
}

// Handler of a transport that listens by itself is a mistake, and says so.
func TestHandlerOfUnmounted(t *testing.T) {
	tr := websocket.New(websocket.Config{Addr: local})
	listen(t, tr)
	url, _ := serveMux(t, tr, nil)
	if status, body := get(t, url+"/bus", nil); status != 503 || !strings.Contains(body, "Config.Mounted") {
		t.Errorf("it answers %d %q", status, body)
	}
}

// recorder is middleware of which a hijacker cannot be got.
type recorder struct{ http.ResponseWriter }

// unwrapper is one of which it can.
type unwrapper struct{ recorder }

func (u unwrapper) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func TestMiddleware(t *testing.T) {
	log := new(logged)
	tr := websocket.New(websocket.Config{Mounted: true, Log: slog.New(log)})
	l := listen(t, tr)
	var wrap func(http.ResponseWriter) http.ResponseWriter
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.Handler().ServeHTTP(wrap(w), r)
	}))
	t.Cleanup(s.Close)
	endpoint := strings.TrimPrefix(s.URL, "http://")

	wrap = func(w http.ResponseWriter) http.ResponseWriter { return recorder{w} }
	_, err := tr.Dial(t.Context(), endpoint)
	if err == nil || !strings.Contains(err.Error(), "Unwrap() http.ResponseWriter") {
		t.Errorf("Dial: %v, want what is needed", err)
	}
	if got := log.at(slog.LevelWarn); !strings.Contains(got, "websocket_test.recorder") {
		t.Errorf("logged: %q, want the middleware's name", got)
	}

	wrap = func(w http.ResponseWriter) http.ResponseWriter { return unwrapper{recorder{w}} }
	a := dial(t, tr, endpoint)
	carries(t, a, accept(t, l))
}

// logged keeps what was logged.
type logged struct {
	slog.Handler // nil: With is not used
	mu           sync.Mutex
	text         map[slog.Level]string // guarded by mu
}

func (l *logged) Enabled(context.Context, slog.Level) bool { return true }

func (l *logged) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text == nil {
		l.text = make(map[slog.Level]string)
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	l.text[r.Level] += text + "\n"
	return nil
}

func (l *logged) at(level slog.Level) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text[level]
}
