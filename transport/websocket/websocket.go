// Package websocket carries the frames of a bus over WebSocket connections.
//
// The zero Config listens at port 8080 of all addresses, in plain. With TLS the same configuration
// serves both directions, so mutual TLS between nodes that have one certificate each from one
// authority is
//
//	websocket.New(websocket.Config{TLS: &tls.Config{
//		Certificates: []tls.Certificate{cert},
//		ClientCAs:    authority,
//		ClientAuth:   tls.RequireAndVerifyClientCert,
//		ServerName:   "node.mesh.example", // if the certificates name this rather than addresses
//	}})
//
// TLS must end at the node. What ends it on the way is somebody in the middle, and as the mesh key
// is bound to the TLS connection, its proof fails then.
//
// # In a server of yours
//
// With Config.Mounted the transport opens no port. Its Handler takes the connections, beside the
// routes of the server that it is part of:
//
//	t := websocket.New(websocket.Config{Mounted: true, Advertise: []string{"ws://10.0.0.7:80/bus"}})
//	mux.Handle("/bus", t.Handler())
//
// A WebSocket takes over the connection of its request. So middleware that wraps the
// http.ResponseWriter has to implement http.Hijacker or Unwrap() http.ResponseWriter, and the
// request has to come by HTTP/1.1, which nodes ask for. The time that a stranger may take until
// its request is complete is what the server allows (http.Server.ReadHeaderTimeout), and closing
// the server leaves the connections of nodes open: they are the bus's.
//
// # What is sent
//
// Nodes use the subprotocol "gravbus.v1" and refuse who does not. Each frame is one binary message
// (RFC 6455), uncompressed. Pings are answered; none are sent, as the bus has its own.
package websocket

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// What is used where Config has the zero value.
const (
	DefaultAddr             = ":8080"
	DefaultPath             = "/meta/message"
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultMaxPending       = 256
)

// Subprotocol is the WebSocket subprotocol of nodes.
const Subprotocol = "gravbus.v1"

// FrameSize is how many bytes a frame may have to cost one write to the network (one for each
// 16 KiB with TLS). It is the best size for frames that gather many messages. Longer ones are
// written in parts of this size.
const FrameSize = 64 << 10

// Config is how a Transport listens and dials. The zero value works.
type Config struct {
	// Addr is the address to listen at, DefaultAddr if empty. Without a host it is all addresses;
	// port 0 is any free one.
	Addr string

	// Path is where nodes connect, DefaultPath if empty.
	Path string

	// TLS is for connections that are accepted; it has a certificate then. If ClientTLS is nil, it
	// is for connections that are dialled too, with ClientCAs in place of RootCAs if that is nil.
	// With ClientAuth RequireAndVerifyClientCert only nodes whose certificate was verified can
	// connect. Nodes are dialled by address: their certificates need to be for these, or for the
	// ServerName that is set here.
	//
	// With TLS or ClientTLS nothing is dialled in plain, whatever a discovery has heard.
	TLS, ClientTLS *tls.Config

	// Advertise is what others should dial, in place of the addresses of this machine. It is for
	// nodes behind a proxy or address translation.
	Advertise []string

	// HandshakeTimeout bounds the time from TCP connection to Accept, and that of Dial.
	// DefaultHandshakeTimeout unless it is positive.
	HandshakeTimeout time.Duration

	// MaxPending is how many connections may be on their way to Accept. When there is one more, the
	// one that has taken longest is cut. DefaultMaxPending unless it is positive.
	MaxPending int

	// Mounted makes the transport part of a server of yours: Listen opens no port, and connections
	// come from Handler. Addr and Path are only defaults of Dial then, and TLS is what is required:
	// the server has to be configured so by you.
	Mounted bool

	// MountedLoopback says that the server that Handler is part of can be reached from this machine
	// only. It tells Exposure what Listen cannot find out.
	MountedLoopback bool

	// Proxy is asked for the proxy to dial through, as in http.Transport. No proxy is used if it is
	// nil, whatever the environment says: nodes are on the same network.
	Proxy func(*http.Request) (*url.URL, error)

	// Log hears at debug level of strangers that were turned away, and at warn level of a Handler
	// that cannot work where it is mounted. Nil is silence.
	Log *slog.Logger
}

// A Transport implements transport.Transport over WebSocket connections.
type Transport struct {
	cfg       Config
	serverTLS *tls.Config // nil for plain
	clientTLS *tls.Config // never nil
	plain     bool        // what is dialled without a scheme

	mu         sync.Mutex // guards all below
	port, path string     // what Dial fills in
	mounted    *listener  // that Handler feeds; nil while there is none
}

// New returns a transport. What is wrong with its configuration, Listen and Dial tell.
func New(cfg Config) *Transport {
	if cfg.Addr == "" {
		cfg.Addr = DefaultAddr
	}
	if cfg.Path == "" {
		cfg.Path = DefaultPath
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = DefaultMaxPending
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Advertise = slices.Clone(cfg.Advertise)
	t := &Transport{
		cfg:       cfg,
		serverTLS: serverTLS(cfg.TLS),
		clientTLS: clientTLS(cfg.ClientTLS, cfg.TLS),
		plain:     cfg.TLS == nil && cfg.ClientTLS == nil,
		path:      cfg.Path,
	}
	if _, port, err := net.SplitHostPort(cfg.Addr); err == nil {
		t.setPort(port)
	}
	if t.port == "" {
		_, t.port, _ = net.SplitHostPort(DefaultAddr)
	}
	return t
}

// Handler returns what takes connections when Config.Mounted is set. It may be mounted before Listen
// is called, and stays when the Listener is closed: it answers 503 whenever nobody listens.
func (t *Transport) Handler() http.Handler { return http.HandlerFunc(t.serveMounted) }
