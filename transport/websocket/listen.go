package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/gravbus/gravbus/transport"
)

// maxHeader is how many bytes of headers a stranger may send; net/http adds 4 KiB.
const maxHeader = 4 << 10

// A listener takes connections from a server of its own, or from Transport.Handler.
type listener struct {
	t       *Transport
	path    string // empty if mounted: the mux knows
	addr    netip.AddrPort
	pending pending
	ready   chan offer
	done    chan struct{} // closed by Close

	server *http.Server  // nil if mounted
	served chan struct{} // closed when the server has ended
	err    error         // why, if not by Close. Set before served is closed

	conns sync.WaitGroup // connections that the server serves. Added to by Serve only, so not after served

	mu       sync.Mutex // guards closed, and requests against Wait
	closed   bool
	requests sync.WaitGroup // those that may still become connections
}

// An offer is a connection that waits to be accepted.
type offer struct {
	conn *conn
	w    *waiter
}

// Listen implements transport.Transport. Unless the transport is mounted it may be called again
// while a Listener is open, for another address.
func (t *Transport) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	for _, e := range t.cfg.Advertise {
		if _, err := t.parse(e); err != nil {
			return nil, fmt.Errorf("websocket: Advertise: %w", err)
		}
	}
	l := &listener{
		t:       t,
		pending: pending{max: t.cfg.MaxPending, time: t.cfg.HandshakeTimeout},
		ready:   make(chan offer),
		done:    make(chan struct{}),
		served:  make(chan struct{}),
	}
	begin := func() error { return l.listen(ctx, o) }
	if t.cfg.Mounted {
		begin = func() error { return t.mount(ctx, l) }
	}
	if err := begin(); err != nil {
		return nil, fmt.Errorf("websocket: listen: %w", err)
	}
	return l, nil
}

func (l *listener) listen(ctx context.Context, o transport.ListenOptions) error {
	t := l.t
	addr := t.cfg.Addr
	if o.Port != "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return err
		}
		addr = net.JoinHostPort(host, o.Port)
	}
	l.path = o.Path
	if l.path == "" {
		l.path = t.cfg.Path
	}
	if !strings.HasPrefix(l.path, "/") {
		return fmt.Errorf("path %q does not begin with /", l.path)
	}
	if c := t.serverTLS; c != nil &&
		len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return errors.New("Config.TLS has no certificate")
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	l.addr = ln.Addr().(*net.TCPAddr).AddrPort()
	t.mu.Lock()
	t.path = l.path
	if o.Port != "" {
		t.setPort(o.Port)
	}
	t.mu.Unlock()

	if t.serverTLS != nil {
		ln = tls.NewListener(lines{ln}, t.serverTLS)
	}
	l.server = &http.Server{
		Handler:           http.HandlerFunc(l.serve),
		ReadHeaderTimeout: t.cfg.HandshakeTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         l.track,
		ErrorLog:          slog.NewLogLogger(t.cfg.Log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	l.server.Protocols.SetHTTP1(true)
	l.server.SetKeepAlivesEnabled(false) // one request is all a stranger gets
	go func() {                          // ends with the server, for which Close waits
		defer close(l.served)
		if err := l.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			l.err = fmt.Errorf("websocket: accept: %w", err)
		}
	}()
	return nil
}

// lines is a listener that makes lines of what it accepts, to be under TLS.
type lines struct{ net.Listener }

func (l lines) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newLine(c), nil
}

// mount makes l the listener that Handler feeds.
func (t *Transport) mount(ctx context.Context, l *listener) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mounted != nil {
		return errors.New("the mounted transport listens already")
	}
	t.mounted = l
	return nil
}

// track knows of each connection from its beginning: the server calls it.
func (l *listener) track(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		l.conns.Add(1)
		l.pending.add(c)
	case http.StateHijacked: // and the handler, for which requests waits, has it
		l.conns.Done()
	case http.StateClosed:
		if w := l.pending.find(c); w != nil {
			l.pending.remove(w)
		}
		l.conns.Done()
	}
}

// enter reports whether l is open, and makes Close wait for leave if it is.
func (l *listener) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.requests.Add(1)
	return true
}

func (l *listener) leave() { l.requests.Done() }

// offer waits until c is accepted, or was cut or the listener closed: then it closes c.
func (l *listener) offer(c *conn, w *waiter) {
	select {
	case l.ready <- offer{c, w}:
		return
	case <-w.gone:
	case <-l.done:
	}
	c.Close()
}

// Accept implements transport.Listener.
func (l *listener) Accept() (transport.Conn, error) {
	for {
		select {
		case <-l.done:
			return nil, transport.ErrClosed
		default:
		}
		select {
		case o := <-l.ready:
			if !l.pending.remove(o.w) {
				o.conn.Close()
				continue
			}
			return o.conn, nil
		case <-l.done:
		case <-l.served:
			if l.err != nil {
				return nil, l.err
			}
			<-l.done // it was Close, or Close is about to say so
		}
	}
}

// Endpoints implements transport.Listener.
func (l *listener) Endpoints() []string {
	if len(l.t.cfg.Advertise) > 0 {
		return slices.Clone(l.t.cfg.Advertise)
	}
	if l.server == nil {
		return nil
	}
	var endpoints []string
	for _, a := range reachable(l.addr.Addr()) {
		endpoints = append(endpoints, format(netip.AddrPortFrom(a, l.addr.Port()), l.t.serverTLS != nil, l.path))
	}
	return endpoints
}

// Exposure implements transport.Listener.
func (l *listener) Exposure() transport.Exposure {
	e := transport.Exposure{Loopback: l.t.cfg.MountedLoopback, Authenticated: l.t.wantsCert()}
	if l.server != nil {
		e.Loopback = l.addr.Addr().Unmap().IsLoopback()
	}
	return e
}

// Close implements transport.Listener.
func (l *listener) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.done)
	}
	l.mu.Unlock()

	if l.server != nil {
		l.server.Close()
		<-l.served
	} else {
		l.t.mu.Lock()
		if l.t.mounted == l {
			l.t.mounted = nil
		}
		l.t.mu.Unlock()
	}
	l.pending.close()
	l.conns.Wait() // net/http lingers for 500 ms over a request it could not read
	l.requests.Wait()
	return nil
}
