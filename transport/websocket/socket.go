package websocket

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// maxHandshake is how many bytes the server may send until the handshake is over: certificates and
// a response. net/http does not bound the latter.
const maxHandshake = 256 << 10

var errHandshakeSize = errors.New("handshake too long")

// A socket is what gorilla takes for the network. gorilla sets the write deadline at the start of
// each write, so a deadline of the user's would not last; here the earlier one of both counts. And
// gorilla makes other errors of those that it can recognise as temporary, which it cannot here.
//
// It is under TLS on the side that has dialled, and over it on the other.
type socket struct {
	net.Conn // line, or TLS over it
	line     *line
	conn     *conn // set when the handshake is over
	budget   int   // bytes that may still be read until then

	mu   sync.Mutex // guards all below
	op   time.Time  // write deadline set by gorilla
	user time.Time  // write deadline set by the user
	set  time.Time  // write deadline that is in force
}

// newSocket returns the socket for a connection that was taken over from a server.
func newSocket(c net.Conn) *socket {
	if secure, ok := c.(*tls.Conn); ok {
		if l, ok := secure.NetConn().(*line); ok { // the listener's own server
			return &socket{Conn: c, line: l}
		}
	}
	l := newLine(c)
	return &socket{Conn: l, line: l}
}

// A socketError is an error of the network.
type socketError struct{ err error }

func (e *socketError) Error() string { return e.err.Error() }
func (e *socketError) Unwrap() error { return e.err }

func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if s.conn != nil {
		s.conn.applyLimit() // before gorilla looks at the lengths in p
	} else if s.budget -= n; s.budget < 0 {
		return 0, errHandshakeSize
	}
	if err != nil && err != io.EOF { //nolint:errorlint // a Reader's EOF is never wrapped
		err = &socketError{err}
	}
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err != nil {
		err = &socketError{err}
	}
	return n, err
}

func (s *socket) Close() error { return closeNow(s.Conn) }

func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetWriteDeadline is called by gorilla.
func (s *socket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.op = t
	return s.applyLocked()
}

func (s *socket) setUserWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = t
	return s.applyLocked()
}

func (s *socket) applyLocked() error {
	t := s.user
	if t.IsZero() || !s.op.IsZero() && s.op.Before(t) {
		t = s.op
	}
	if t == s.set {
		return nil
	}
	s.set = t
	return s.Conn.SetWriteDeadline(t)
}
