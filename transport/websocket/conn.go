package websocket

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/gravbus/gravbus/transport"
)

// A conn is an open connection. gorilla allows one reader and one writer; WriteControl and Close
// may run beside them.
type conn struct {
	ws   *gorilla.Conn
	sock *socket
	info transport.Info

	limit atomic.Int64

	reading  sync.Mutex    // held by who reads: ReadFrame, or Shutdown if nobody else does
	calls    atomic.Uint64 // of ReadFrame
	fills    int           // Reads of the line that gave something in this call of ReadFrame. Guarded by reading
	onPart   atomic.Pointer[func()]
	readErr  error         // why nothing more can be read. Guarded by reading until readOver is closed
	readOver chan struct{} // closed when readErr is set

	shut   atomic.Bool // by Shutdown
	closed chan struct{}

	mu      sync.Mutex // guards all below, and pongs against Wait
	isOver  bool       // Close was called
	pinged  bool       // and not answered yet
	ping    string     // the payload
	ponging bool       // a goroutine answers
	pongs   sync.WaitGroup
}

func newConn(ws *gorilla.Conn, sock *socket, info transport.Info) *conn {
	c := &conn{
		ws: ws, sock: sock, info: info,
		readOver: make(chan struct{}),
		closed:   make(chan struct{}),
	}
	c.limit.Store(transport.DefaultReadLimit)
	ws.SetPingHandler(c.pong)
	sock.conn = c
	sock.line.filled = c.filled
	return c
}

// Info implements transport.Conn.
func (c *conn) Info() transport.Info { return c.info }

// SetReadLimit implements transport.Conn.
func (c *conn) SetReadLimit(n int64) { c.limit.Store(max(n, 0)) }

// applyLimit is called by the reading goroutine.
func (c *conn) applyLimit() {
	c.ws.SetReadLimit(max(c.limit.Load(), 1)) // 0 means no limit there
}

// ReadFrame implements transport.Conn.
func (c *conn) ReadFrame(buf []byte) ([]byte, error) {
	c.calls.Add(1)
	c.reading.Lock()
	defer c.reading.Unlock()
	switch {
	case c.isClosed():
		return nil, transport.ErrClosed
	case c.readErr != nil:
		return nil, c.readErr
	}
	c.fills = 0
	buf, err := c.read(buf[:0])
	if err != nil {
		return nil, c.endRead(err)
	}
	return buf, nil
}

// read appends the next message to buf. What it allocates is a small multiple of what has come, not
// of the length that the other side says.
func (c *conn) read(buf []byte) ([]byte, error) {
	c.applyLimit() // the message may be here already
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return nil, err
	}
	if kind != gorilla.BinaryMessage {
		c.hint(gorilla.CloseUnsupportedData, "binary only")
		return nil, errText
	}
	for {
		// With buf full this reads nothing, but tells whether there is more.
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			if int64(len(buf)) > c.limit.Load() {
				return nil, gorilla.ErrReadLimit
			}
			return buf, nil
		case err != nil:
			return nil, err
		case n == 0 && len(buf) == cap(buf):
			buf = slices.Grow(buf, max(len(buf), 512))
		}
	}
}

// endRead remembers why reading has ended. The caller holds c.reading.
func (c *conn) endRead(err error) error {
	c.readErr = c.readError(err)
	close(c.readOver)
	return c.readErr
}

// WriteFrame implements transport.Conn.
func (c *conn) WriteFrame(frame []byte) error {
	if err := c.ws.WriteMessage(gorilla.BinaryMessage, frame); err != nil {
		return c.writeError(err)
	}
	return nil
}

// SetReadDeadline implements transport.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.usable(c.sock.SetReadDeadline(t)) }

// SetWriteDeadline implements transport.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.usable(c.sock.setUserWriteDeadline(t)) }

// SetReadIdle implements transport.Conn. With a Handler in a server that has TLS, a record of TLS
// counts when it is complete: 16 KiB at most.
func (c *conn) SetReadIdle(d time.Duration) error { return c.usable(c.sock.line.setReadIdle(d)) }

// OnPart implements transport.Conn. With a Handler in a server that has TLS, a record of TLS is the
// smallest part: 16 KiB at most.
func (c *conn) OnPart(f func()) {
	if f == nil {
		c.onPart.Store(nil)
		return
	}
	c.onPart.Store(&f)
}

// filled is called when a Read of the line has given something.
func (c *conn) filled() {
	if c.fills++; c.fills == 1 {
		return
	}
	if f := c.onPart.Load(); f != nil {
		(*f)()
	}
}

// hint tells the other side why the connection ends, if that is possible at once.
func (c *conn) hint(code int, why string) {
	// What fails here fails again where somebody can tell.
	_ = c.ws.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, why), time.Now().Add(time.Second))
}

// pong answers a ping, in a goroutine as the reader must not wait for the writer. Of several pings
// the last one is answered.
func (c *conn) pong(payload string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pinged, c.ping = true, payload
	if c.isOver || c.ponging {
		return nil
	}
	c.ponging = true
	c.pongs.Go(func() { // ends when all pings are answered, or by Close
		for {
			c.mu.Lock()
			payload, pinged := c.ping, c.pinged
			c.pinged = false
			c.ponging = pinged
			c.mu.Unlock()
			if !pinged {
				return
			}
			// If it fails so does the next WriteFrame, and nobody waits for the answer.
			_ = c.ws.WriteControl(gorilla.PongMessage, []byte(payload), time.Time{})
		}
	})
	return nil
}

// handOver is how long Shutdown leaves the reading to a caller that does not call ReadFrame.
const handOver = 25 * time.Millisecond

// Shutdown implements transport.Conn. It returns nil when the other side has read everything. A
// caller that goes on to read gets all that still comes if it does not pause for longer than a
// moment (25 ms); if it does Shutdown discards the rest.
func (c *conn) Shutdown(ctx context.Context) error {
	if c.isClosed() {
		return transport.ErrClosed
	}
	defer c.Close()
	c.shut.Store(true)
	stop := context.AfterFunc(ctx, func() { c.Close() }) // whatever waits below
	defer stop()

	// A deadline, if there was one, was for frames.
	err := c.usable(c.sock.setUserWriteDeadline(time.Time{}))
	if err == nil {
		bye := gorilla.FormatCloseMessage(gorilla.CloseNormalClosure, "")
		// Fails if it was sent already, in answer to that of the other side, or if the connection is
		// lost, which the reader will see too.
		_ = c.ws.WriteControl(gorilla.CloseMessage, bye, time.Time{})
		err = c.drain()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, transport.ErrPeerClosed):
		return nil
	default:
		return err
	}
}

// drain waits until nothing more can be read and returns why. It reads itself unless the caller
// does.
func (c *conn) drain() error {
	tick := time.NewTicker(handOver)
	defer tick.Stop()
	var known uint64 // calls of ReadFrame: who has made none gets no time
	for {
		if calls := c.calls.Load(); calls != known || !c.reading.TryLock() {
			known = calls
		} else {
			defer c.reading.Unlock()
			return c.discard()
		}
		select {
		case <-c.readOver:
			return c.readErr
		case <-c.closed:
			return transport.ErrClosed
		case <-tick.C:
		}
	}
}

// discard reads until nothing more can be read and returns why. The caller holds c.reading.
func (c *conn) discard() error {
	if c.readErr != nil {
		return c.readErr
	}
	// These were for frames that are wanted.
	_ = c.sock.SetReadDeadline(time.Time{})
	_ = c.sock.line.setReadIdle(0)
	c.SetReadLimit(math.MaxInt64)
	c.OnPart(nil)
	c.applyLimit()
	for {
		if _, _, err := c.ws.NextReader(); err != nil {
			return c.endRead(err)
		}
	}
}

// Close implements transport.Conn.
func (c *conn) Close() error {
	c.mu.Lock()
	first := !c.isOver
	c.isOver = true
	c.mu.Unlock()
	if first {
		close(c.closed)
		c.sock.Close()
	}
	c.pongs.Wait()
	return nil
}
