package websocket_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
)

// checkSecure checks what both sides of a TLS connection say, and whose certificates they have seen.
func checkSecure(t *testing.T, dialled, accepted transport.Info, server, client string) {
	t.Helper()
	if !dialled.Secure || !accepted.Secure {
		t.Error("not secure")
	}
	if len(dialled.Binding) != 32 || !bytes.Equal(dialled.Binding, accepted.Binding) {
		t.Errorf("bindings: %x and %x", dialled.Binding, accepted.Binding)
	}
	for _, c := range []struct {
		info transport.Info
		want string
	}{{dialled, server}, {accepted, client}} {
		var names []string
		for _, cert := range c.info.Certificates {
			names = append(names, cert.Subject.CommonName)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("certificates: %q, want %q", got, c.want)
		}
	}
}

func TestTLS(t *testing.T) {
	h2 := mesh().mutual("node")
	h2.NextProtos = []string{"h2", "http/1.1"}
	old := mesh().oneSided("node")
	old.MaxVersion = tls.VersionTLS12
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		certClient     string
		authenticated  bool
	}{
		{"server only", mesh().oneSided("node"), &tls.Config{RootCAs: mesh().pool}, "", false},
		{"server only, one configuration", mesh().oneSided("node"), nil, "", false},
		{"mutual, one configuration", mesh().mutual("node"), nil, "node", true},
		{"HTTP/2 in it", h2, nil, "node", true},
		{"TLS 1.2", old, nil, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := websocket.New(websocket.Config{Addr: local, TLS: c.server, ClientTLS: c.client})
			l := listen(t, tr)
			if got, want := l.Exposure(), (transport.Exposure{Loopback: true, Authenticated: c.authenticated}); got != want {
				t.Errorf("Exposure: %+v, want %+v", got, want)
			}
			endpoint := l.Endpoints()[0]
			if !strings.HasPrefix(endpoint, "wss://127.0.0.1:") || !strings.HasSuffix(endpoint, websocket.DefaultPath) {
				t.Errorf("Endpoints: %q", endpoint)
			}
			host := strings.TrimSuffix(strings.TrimPrefix(endpoint, "wss://"), websocket.DefaultPath)
			for _, e := range []string{endpoint, host} {
				a := dial(t, tr, e)
				b := accept(t, l)
				carries(t, a, b)
				checkSecure(t, a.Info(), b.Info(), "node", c.certClient)
			}
		})
	}
}

// Without an extended master secret TLS 1.2 has nothing that both sides share and nobody else. Such
// a connection has no binding, which the bus has to see.
func TestTLSWithoutBinding(t *testing.T) {
	cfg := mesh().oneSided("node")
	cfg.Renegotiation = tls.RenegotiateOnceAsClient // takes the exporter away, on the client's side
	cfg.MaxVersion = tls.VersionTLS12
	a, _ := pair(t, websocket.Config{TLS: cfg})
	if info := a.Info(); !info.Secure || info.Binding != nil {
		t.Errorf("Info: %+v, want Secure and no Binding", info)
	}
}

func TestTLSRefuses(t *testing.T) {
	secure := listen(t, websocket.New(websocket.Config{Addr: local, TLS: mesh().mutual("node")}))
	plain := listen(t, websocket.New(websocket.Config{Addr: local}))
	strip := func(e string) string { return strings.TrimPrefix(e, "wss") }
	mutual := mesh().mutual("node")
	for _, c := range []struct {
		name     string
		tls      *tls.Config
		endpoint string
		want     error // nil if none of the contract's
		text     string
	}{
		{"of another authority", foreign().mutual("node"), secure.Endpoints()[0], nil, "unknown authority"},
		{"certificate of another authority", &tls.Config{
			RootCAs: mesh().pool, Certificates: []tls.Certificate{foreign().node("evil")},
		}, secure.Endpoints()[0], nil, "unknown certificate authority"},
		{"no certificate", &tls.Config{RootCAs: mesh().pool}, secure.Endpoints()[0], nil, "certificate required"},
		{"plain to secure", nil, "ws" + strip(secure.Endpoints()[0]), transport.ErrNotPeer, "HTTPS"},
		{"secure to plain", mutual, plain.Endpoints()[0], transport.ErrNotPeer, "TLS"},
		{"never plain where TLS is configured", mutual, "ws://" + plain.Endpoints()[0], transport.ErrEndpoint, "not encrypted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := websocket.New(websocket.Config{ClientTLS: c.tls}).Dial(t.Context(), c.endpoint)
			if err == nil {
				conn.Close()
				t.Fatal("Dial works")
			}
			for _, sentinel := range []error{transport.ErrNotPeer, transport.ErrEndpoint} {
				if got := errors.Is(err, sentinel); got != (sentinel == c.want) { //nolint:errorlint // which of the two
					t.Errorf("Dial: %v; that it is %q is %v", err, sentinel, got)
				}
			}
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("Dial: %v, want %q in it", err, c.text)
			}
		})
	}
}

func TestTLSWithoutCertificate(t *testing.T) {
	_, err := websocket.New(websocket.Config{Addr: local, TLS: &tls.Config{}}).Listen(t.Context(), transport.ListenOptions{})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Listen: %v", err)
	}
}
