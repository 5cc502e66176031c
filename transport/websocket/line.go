package websocket

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// A line is a connection of the network, whose Read can also be bounded by how long nothing comes.
// It is under TLS, where single bytes can be seen, unless TLS is that of a server which the transport
// is mounted in: then what comes is a record.
//
// The deadline of the connection is not moved on with each Read, which costs more than a small frame,
// but with one that finds it nearer than half the idle time. When it comes, Read goes on if it may.
type line struct {
	net.Conn
	filled func() // called after a Read that gave something. Set when the handshake is over

	mu    sync.Mutex    // guards all below
	until time.Time     // when Read ends; zero: never
	idle  time.Duration // for how long nothing may come; 0: for ever
	since time.Time     // when the last Read began, or idle was set
	set   time.Time     // the deadline that is in force
}

func newLine(c net.Conn) *line { return &line{Conn: c} }

func (l *line) Read(p []byte) (int, error) {
	l.begin()
	for {
		n, err := l.Conn.Read(p)
		if n > 0 && l.filled != nil {
			l.filled()
		}
		if err == nil || n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !l.goesOn() {
			return n, err
		}
	}
}

// begin is told that a Read begins.
func (l *line) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.idle == 0 {
		return
	}
	l.since = time.Now()
	if due := l.dueLocked(); due != l.set && l.set.Sub(l.since) < l.idle/2 {
		_ = l.setLocked(due) // fails if the connection is closed, as Read will
	}
}

// goesOn is told that the deadline has come. It reports whether Read goes on, and sets the next
// deadline then.
func (l *line) goesOn() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := l.dueLocked()
	return (due.IsZero() || due.After(time.Now())) && l.setLocked(due) == nil
}

func (l *line) Close() error { return closeNow(l.Conn) }

func (l *line) SetDeadline(t time.Time) error {
	return errors.Join(l.SetReadDeadline(t), l.SetWriteDeadline(t))
}

func (l *line) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = t
	return l.setLocked(l.dueLocked())
}

// setReadIdle makes Read fail when nothing has come for d, or never if d is 0.
func (l *line) setReadIdle(d time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle, l.since = max(d, 0), time.Now()
	return l.setLocked(l.dueLocked())
}

// dueLocked returns when Read ends if nothing comes, or the zero time: never.
func (l *line) dueLocked() time.Time {
	if l.idle > 0 {
		if idle := l.since.Add(l.idle); l.until.IsZero() || idle.Before(l.until) {
			return idle
		}
	}
	return l.until
}

func (l *line) setLocked(due time.Time) error {
	l.set = due
	return l.Conn.SetReadDeadline(due)
}
