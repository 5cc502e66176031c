package websocket

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"

	gorilla "github.com/gorilla/websocket"

	"github.com/gravbus/gravbus/transport"
)

// readBuffer takes a frame's header and what of its bytes came with it; the rest of a long frame
// goes straight to the reader's memory.
const readBuffer = 4 << 10

// writeBuffers are shared by all connections: a connection has one only while it writes.
var writeBuffers sync.Pool

func (t *Transport) wantsCert() bool {
	return t.serverTLS != nil && t.serverTLS.ClientAuth == tls.RequireAndVerifyClientCert
}

// serveMounted is Transport.Handler.
func (t *Transport) serveMounted(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	l := t.mounted
	t.mu.Unlock()
	switch {
	case l != nil:
		l.upgrade(w, r)
	case t.cfg.Mounted:
		t.refuse(w, r, http.StatusServiceUnavailable, "the node does not listen at present")
	default:
		t.refuse(w, r, http.StatusServiceUnavailable,
			"the node listens at an address of its own: Config.Mounted is not set")
	}
}

// serve is the handler of the listener's own server.
func (l *listener) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != l.path {
		l.t.refuse(w, r, http.StatusNotFound, "nothing here: the path is another one")
		return
	}
	l.upgrade(w, r)
}

// upgrade makes a connection of a request and waits until it is accepted.
func (l *listener) upgrade(w http.ResponseWriter, r *http.Request) {
	t := l.t
	if !l.enter() {
		t.refuse(w, r, http.StatusServiceUnavailable, "the node does not listen at present")
		return
	}
	defer l.leave()

	switch {
	case t.wantsCert() && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0):
		t.refuse(w, r, http.StatusForbidden, "a verified client certificate is required")
		return
	case !gorilla.IsWebSocketUpgrade(r):
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		t.refuse(w, r, http.StatusUpgradeRequired, "nodes connect here by WebSocket, with subprotocol "+Subprotocol)
		return
	case !slices.Contains(gorilla.Subprotocols(r), Subprotocol):
		t.refuse(w, r, http.StatusBadRequest,
			"only nodes connect here: the WebSocket subprotocol has to be "+Subprotocol)
		return
	}

	var (
		sock *socket
		wait *waiter
	)
	hijacker := &hijacker{ResponseWriter: w, took: func(c net.Conn) net.Conn {
		if wait = l.pending.find(c); wait == nil { // it is the mux's server's, or has been cut
			wait = l.pending.add(c)
		}
		sock = newSocket(c)
		return sock
	}}
	upgrader := gorilla.Upgrader{
		HandshakeTimeout: t.cfg.HandshakeTimeout,
		ReadBufferSize:   readBuffer,
		WriteBufferSize:  FrameSize,
		WriteBufferPool:  &writeBuffers,
		Subprotocols:     []string{Subprotocol},
		Error: func(w http.ResponseWriter, r *http.Request, status int, reason error) {
			if hijacker.err != nil {
				t.cfg.Log.Warn("websocket: the handler cannot take over connections", "error", reason)
			}
			t.refuse(w, r, status, reason.Error())
		},
	}
	ws, err := upgrader.Upgrade(hijacker, r, nil)
	if err != nil {
		if wait != nil {
			l.pending.remove(wait) // gorilla has closed the connection
		}
		t.cfg.Log.Debug("websocket: upgrade", "remote", r.RemoteAddr, "error", err)
		return
	}
	info := transport.Info{LocalAddr: ws.LocalAddr().String(), RemoteAddr: ws.RemoteAddr().String()}
	if r.TLS != nil {
		secured(&info, r.TLS)
	}
	l.offer(newConn(ws, sock, info), wait)
}

// refuse answers a request with an error.
func (t *Transport) refuse(w http.ResponseWriter, r *http.Request, status int, reason string) {
	t.cfg.Log.Debug("websocket: request refused", "remote", r.RemoteAddr, "status", status, "reason", reason)
	http.Error(w, "gravbus: "+reason, status)
}

// A hijacker is a ResponseWriter of which gorilla gets a connection that took has wrapped.
type hijacker struct {
	http.ResponseWriter
	took func(net.Conn) net.Conn
	err  error
}

// Hijack finds the connection below middleware that can be unwrapped.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		h.err = err
		return nil, nil, fmt.Errorf("the connection cannot be taken over (%w): "+
			"the request has to be HTTP/1.1, and middleware that wraps the ResponseWriter (here %T) "+
			"has to implement http.Hijacker or Unwrap() http.ResponseWriter", err, h.ResponseWriter)
	}
	return h.took(c), rw, nil
}
