package websocket_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/transport/transporttest"
	"github.com/gravbus/gravbus/transport/websocket"
)

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name string
		tls  func(name string) *tls.Config
	}{
		{"plain", func(string) *tls.Config { return nil }},
		{"TLS", mesh().oneSided},
		{"mutual TLS", mesh().mutual},
	} {
		t.Run(c.name, func(t *testing.T) {
			transporttest.Run(t, func(t *testing.T) transporttest.Harness {
				p, unanswered := newProxy(t), deaf(t)
				return transporttest.Harness{
					Listener: websocket.New(websocket.Config{Addr: local, TLS: c.tls("listener")}),
					Dialler: websocket.New(websocket.Config{TLS: c.tls("dialler"), Proxy: func(r *http.Request) (*url.URL, error) {
						if r.URL.Host == unanswered {
							return nil, nil
						}
						return p.url, nil
					}}),
					Silence:    p.silence,
					Drip:       p.drip,
					Unanswered: unanswered,
					Invalid:    []string{"http://127.0.0.1:80", "ws://user@127.0.0.1:80", "127.0.0.1:0", "127.0.0.1:65536", "wss://", "wss://host#x"},
					DialRaw: func(endpoint string) (io.ReadWriteCloser, error) {
						_, host, found := strings.Cut(endpoint, "://")
						if !found {
							host = endpoint
						}
						host, _, _ = strings.Cut(host, "/")
						return net.Dial("tcp", host)
					},
				}
			})
		})
	}
}

// deaf returns the address of a socket that takes connections and says nothing.
func deaf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
