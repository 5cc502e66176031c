package websocket_test

import (
	"crypto/tls"
	"net/netip"
	"testing"

	"github.com/gravbus/gravbus/transport/websocket"
)

func TestEndpointForms(t *testing.T) {
	plain := websocket.Config{}
	secure := websocket.Config{TLS: &tls.Config{}}
	other := websocket.Config{Addr: "10.0.0.1:99", Path: "/bus"}
	for _, c := range []struct {
		cfg            websocket.Config
		endpoint, want string
	}{
		{plain, "host:1234", "ws://host:1234/meta/message"},
		{plain, "host", "ws://host:8080/meta/message"},
		{plain, "host:", "ws://host:8080/meta/message"},
		{plain, "10.0.0.1/bus?a=b", "ws://10.0.0.1:8080/bus?a=b"},
		{plain, "host:1/", "ws://host:1/"},
		{plain, "::1", "ws://[::1]:8080/meta/message"},
		{plain, "[::1]", "ws://[::1]:8080/meta/message"},
		{plain, "[::1]:1", "ws://[::1]:1/meta/message"},
		{plain, "[fe80::1%eth0]:1", "ws://[fe80::1%25eth0]:1/meta/message"},
		{plain, "ws://host:1/bus", "ws://host:1/bus"},
		{plain, "ws://host", "ws://host/meta/message"},
		{plain, "wss://host:1", "wss://host:1/meta/message"},
		{plain, "wss://[::1]:1/", "wss://[::1]:1/"},
		{secure, "host", "wss://host:8080/meta/message"},
		{secure, "host:1/bus", "wss://host:1/bus"},
		{other, "host", "ws://host:99/bus"},
		{other, "host:1", "ws://host:1/bus"},
		{websocket.Config{Addr: ":0"}, "host", "ws://host:8080/meta/message"},

		{plain, "", ""},
		{plain, ":80", ""},
		{plain, "host:0", ""},
		{plain, "host:65536", ""},
		{plain, "host:http", ""},
		{plain, "host:80:90", ""},
		{plain, "a b", ""},
		{plain, "a%b", ""},
		{plain, "ws://", ""},
		{plain, "ws:///path", ""},
		{plain, "ws://user@host", ""},
		{plain, "ws://host#part", ""},
		{plain, "http://host", ""},
		{plain, "mem://host", ""},
		{plain, "[::1", ""},
		{secure, "ws://host", ""},
	} {
		got, err := websocket.Parse(websocket.New(c.cfg), c.endpoint)
		if got != c.want {
			t.Errorf("%q is %q (%v), want %q", c.endpoint, got, err, c.want)
		}
	}
}

func TestEndpointsAreShort(t *testing.T) {
	for _, c := range []struct {
		addr   string
		secure bool
		path   string
		want   string
	}{
		{"10.0.0.1:99", false, websocket.DefaultPath, "10.0.0.1:99"},
		{"[2001:db8::1]:99", false, websocket.DefaultPath, "[2001:db8::1]:99"},
		{"10.0.0.1:99", false, "/bus", "ws://10.0.0.1:99/bus"},
		{"10.0.0.1:99", true, websocket.DefaultPath, "wss://10.0.0.1:99/meta/message"},
		{"[fe80::1%eth0]:99", true, "/bus", "wss://[fe80::1%25eth0]:99/bus"},
	} {
		if got := websocket.Format(netip.MustParseAddrPort(c.addr), c.secure, c.path); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestRanking(t *testing.T) {
	for _, c := range []struct{ name, found, want string }{
		{
			"all kinds", "::1 127.0.0.1 fe80::1%a 169.254.1.1 2001:db8::1 192.168.1.2 fd00::1 8.8.8.8",
			"192.168.1.2 8.8.8.8 2001:db8::1 fd00::1 169.254.1.1 127.0.0.1 ::1",
		},
		{"link-local alone", "127.0.0.1 fe80::1%a ::1", "fe80::1%a 127.0.0.1 ::1"},
		{"loopback alone", "::1 127.0.0.1", "127.0.0.1 ::1"},
		{"none", "", ""},
	} {
		if got := websocket.Rank(c.found); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
