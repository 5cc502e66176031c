package memory

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/gravbus/gravbus/transport"
)

// An end is the Conn of one side of a Connection, whose mutex guards all of it but what stands first,
// which does not change once it is in use.
type end struct {
	c       *Connection
	info    transport.Info
	out, in *half

	limit                       int64
	readDeadline, writeDeadline time.Time
	readIdle                    time.Duration
	readSince                   time.Time // when the ReadFrame that is in progress began, or readIdle was set
	readErr, writeErr           error     // what the next calls return, too

	reading bool      // ReadFrame is in progress
	hasRead time.Time // when the last one returned
	shut    bool      // Shutdown was called
	closed  bool
}

func (e *end) init(c *Connection, out, in *half) {
	*e = end{c: c, out: out, in: in, limit: transport.DefaultReadLimit}
}

func (e *end) ReadFrame(buf []byte) ([]byte, error) {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	var now time.Time
	e.reading, e.readSince = true, time.Now()
	defer func() { e.reading, e.hasRead = false, now }()
	for {
		now = time.Now()
		e.in.land(now)
		if err := e.readErrorLocked(now); err != nil {
			e.readErr = err
			e.in.readable.Broadcast() // Shutdown may wait for it
			return nil, err
		}
		if p := e.in.head(); p != nil {
			buf = append(buf[:0], p.frame...)
			e.in.pop()
			return buf, nil
		}
		wait(&e.in.readable, now, e.readDeadline, after(e.readSince, e.readIdle), e.in.next())
	}
}

// readErrorLocked returns why nothing can be read, or nil if there may be something to read.
func (e *end) readErrorLocked(now time.Time) error {
	switch p := e.in.head(); {
	case e.closed:
		return transport.ErrClosed
	case e.readErr != nil:
		return e.readErr
	case passed(e.readDeadline, now):
		return os.ErrDeadlineExceeded
	case p != nil && int64(len(p.frame)) > e.limit:
		return transport.ErrFrameTooLarge
	case p != nil:
		return nil
	case e.c.broken != nil && !e.in.fin:
		return e.c.broken
	case e.in.fin:
		return transport.ErrPeerClosed
	case passed(after(e.readSince, e.readIdle), now): // a frame comes whole, and would be here
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (e *end) WriteFrame(frame []byte) error {
	cut, err := e.write(frame)
	if cut {
		e.c.network.forget(e.c)
	}
	return err
}

func (e *end) write(frame []byte) (cut bool, err error) {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	p := parcel{kind: data, frame: frame}
	var now time.Time
	for {
		now = time.Now()
		e.in.land(now)  // word that the other side has gone
		e.out.land(now) // a closed one makes room by that
		if err := e.writeErrorLocked(now); err != nil {
			e.writeErr = err
			return false, err
		}
		if e.out.size == 0 || e.out.size+p.cost() <= e.c.network.config.Buffer {
			break
		}
		wait(&e.out.writable, now, e.writeDeadline, e.in.next(), e.out.next())
	}
	if e.c.cutIn == 0 {
		e.c.breakLocked(true)
		return true, nil
	}
	if e.c.cutIn > 0 {
		e.c.cutIn--
	}
	p.frame = append([]byte(nil), frame...)
	e.out.push(now, p)
	return false, nil
}

// writeErrorLocked returns why nothing can be written.
func (e *end) writeErrorLocked(now time.Time) error {
	switch {
	case e.closed || e.shut:
		return transport.ErrClosed
	case e.writeErr != nil:
		return e.writeErr
	case passed(e.writeDeadline, now):
		return os.ErrDeadlineExceeded
	case e.in.gone:
		return transport.ErrPeerClosed
	case e.c.broken != nil:
		return e.c.broken
	}
	return nil
}

func (e *end) SetReadLimit(n int64) {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	e.limit = max(n, 0)
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	e.readDeadline = t
	e.in.readable.Broadcast()
	return e.closedErrorLocked()
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	e.writeDeadline = t
	e.out.writable.Broadcast()
	return e.closedErrorLocked()
}

func (e *end) SetReadIdle(d time.Duration) error {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	e.readIdle, e.readSince = d, time.Now()
	e.in.readable.Broadcast()
	return e.closedErrorLocked()
}

// OnPart implements transport.Conn. Frames come whole.
func (e *end) OnPart(func()) {}

func (e *end) closedErrorLocked() error {
	if e.closed {
		return transport.ErrClosed
	}
	return nil
}

// handOver is how long Shutdown leaves the reading to a caller that has read before.
const handOver = 25 * time.Millisecond

// Shutdown implements transport.Conn. A caller that goes on to read gets all that still comes if it
// does not pause for longer than 25 ms.
func (e *end) Shutdown(ctx context.Context) error {
	err := e.finish(ctx)
	_ = e.Close()
	return err
}

// finish tells the other side that no more comes, and waits for the same from there.
func (e *end) finish(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		e.c.mu.Lock()
		defer e.c.mu.Unlock()
		e.in.readable.Broadcast()
	})()
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	if !e.shut && !e.closed && e.c.broken == nil {
		e.shut = true
		e.out.push(time.Now(), parcel{kind: fin})
		e.out.writable.Broadcast()
	}
	for {
		now := time.Now()
		e.in.land(now)
		var pause time.Time // when the caller has paused for too long
		if !e.reading && !e.hasRead.IsZero() {
			pause = e.hasRead.Add(handOver)
		}
		reads := e.readErr == nil && (e.reading || pause.After(now))
		for !reads && e.in.head() != nil {
			e.in.pop()
		}
		switch {
		case e.closed:
			return transport.ErrClosed
		case e.in.fin && !reads:
			return nil
		case e.c.broken != nil:
			return e.c.broken
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if !reads {
			pause = time.Time{}
		}
		wait(&e.in.readable, now, e.in.next(), pause)
	}
}

func (e *end) Close() error {
	e.c.mu.Lock()
	if e.closed {
		e.c.mu.Unlock()
		return nil
	}
	now := time.Now()
	e.closed = true
	if e.c.broken == nil {
		if !e.shut {
			e.out.push(now, parcel{kind: fin})
		}
		e.out.push(now, parcel{kind: gone})
	}
	e.in.deaf = true
	e.in.land(now)
	e.in.wake()
	e.out.wake()
	e.c.mu.Unlock()
	if e.c.over() {
		e.c.network.forget(e.c)
	}
	return nil
}

func (e *end) Info() transport.Info { return e.info }

// after returns when so long has passed since then, or the zero time if d is zero: never.
func after(since time.Time, d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return since.Add(d)
}

// passed reports whether a deadline has passed.
func passed(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// wait waits for a broadcast on c, or the earliest of some times; zero times do not count.
func wait(c *sync.Cond, now time.Time, times ...time.Time) {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if !first.IsZero() {
		timer := time.AfterFunc(first.Sub(now), func() {
			c.L.Lock()
			defer c.L.Unlock()
			c.Broadcast()
		})
		defer timer.Stop()
	}
	c.Wait()
}
