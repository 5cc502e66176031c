package websocket

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// recordSize is the longest record of TLS.
const recordSize = 16 << 10

// A line is a connection of the network, whose Read and Write can also be bounded by how long
// nothing passes. It is under TLS, where single bytes can be seen, unless TLS is that of a server
// which the transport is mounted in: then what passes is a record.
type line struct {
	net.Conn
	in, out pace
	final   bool // TLS is below: a Write that has timed out cannot go on
}

func newLine(c net.Conn) *line {
	l := &line{Conn: c}
	l.in = pace{apply: c.SetReadDeadline, step: 1, least: 0.5}
	l.out = pace{apply: c.SetWriteDeadline, step: 0.1, least: 0.05}
	if _, l.final = c.(*tls.Conn); l.final {
		l.out.step, l.out.least = 1.1, 1
	}
	return l
}

func (l *line) Read(p []byte) (int, error) {
	l.in.begin()
	for {
		n, err := l.Conn.Read(p)
		if err == nil || n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !l.in.goesOn(false) {
			return n, err
		}
	}
}

func (l *line) Write(p []byte) (n int, err error) {
	l.out.begin()
	for {
		part := p[n:]
		if l.final {
			part = part[:min(len(part), recordSize)]
		}
		m, err := l.Conn.Write(part)
		n += m
		switch {
		case err == nil && n == len(p):
			return n, nil
		case err == nil:
			l.out.begin()
		case l.final || !errors.Is(err, os.ErrDeadlineExceeded) || !l.out.goesOn(m > 0):
			return n, err
		}
	}
}

func (l *line) Close() error { return closeNow(l.Conn) }

func (l *line) SetDeadline(t time.Time) error {
	return errors.Join(l.SetReadDeadline(t), l.SetWriteDeadline(t))
}

func (l *line) SetReadDeadline(t time.Time) error  { return l.in.setUntil(t) }
func (l *line) SetWriteDeadline(t time.Time) error { return l.out.setUntil(t) }

// A pace bounds the calls of one direction of a line.
//
// The deadline of the connection is moved on in steps, not with each call. When it comes the call
// goes on if it may, so a reader's can be as far away as the bound itself. A writer's is nearer, as
// it is the occasion to see whether something has passed.
type pace struct {
	apply       func(time.Time) error // sets the deadline of the connection
	step, least float64               // where the deadline is put, and from where on it is; in parts of idle

	mu    sync.Mutex    // guards all below
	until time.Time     // when calls end; zero: never
	idle  time.Duration // for how long nothing may pass; 0: for ever
	since time.Time     // when something has passed last, or the call began
	set   time.Time     // the deadline that is in force
}

// begin is told that a call begins.
func (p *pace) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idle == 0 {
		return
	}
	p.since = time.Now()
	if p.set.Sub(p.since) < p.part(p.least) {
		if t := earlier(p.until, p.since.Add(p.part(p.step))); t != p.set {
			p.set = t
			_ = p.apply(t) // fails if the connection is closed, as the call will
		}
	}
}

// goesOn is told that the deadline has come, and whether something has passed in the call. It
// reports whether the call goes on, and sets the next deadline then.
func (p *pace) goesOn(passed bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if passed {
		p.since = now
	}
	if !p.until.IsZero() && !p.until.After(now) || p.idle > 0 && now.Sub(p.since) >= p.idle {
		return false
	}
	return p.setLocked(now) == nil
}

func (p *pace) setUntil(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = t
	return p.setLocked(time.Now())
}

func (p *pace) setIdle(d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.idle, p.since = max(d, 0), now
	return p.setLocked(now)
}

func (p *pace) setLocked(now time.Time) error {
	p.set = p.until
	if p.idle > 0 {
		p.set = earlier(p.until, earlier(now.Add(p.part(p.step)), p.since.Add(p.idle)))
	}
	return p.apply(p.set)
}

func (p *pace) part(of float64) time.Duration { return time.Duration(of * float64(p.idle)) }

// earlier returns the earlier one of two times, of which the first may be zero: never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
