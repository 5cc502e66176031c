package mesh

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
)

// A conn is one connection that carries a link. It has one goroutine that reads and one that
// writes; the last of them to end tells the link.
type conn[T any] struct {
	link    *Link[T]
	c       transport.Conn
	peer    *Peer
	dialled bool
	choice  uint64 // Link.choice when it was attached

	stop   chan struct{} // closed by fail
	done   chan struct{} // closed when both goroutines have ended and the link knows
	failed sync.Once
	err    error // why it ended; set before stop is closed
	ended  atomic.Int32

	spoken atomic.Bool // the peer has said something

	// pen holds one token: whoever has it is the writer, with all that the writer owns here and in
	// the link. It is the goroutine that writes, but lies there while that one has nothing to do:
	// a sender may take it then, see Link.Speak.
	pen      chan struct{}
	writer   uintptr // the goroutine that writes. Set before the pen lies there first
	writeErr error   // of a sender that had the pen: the writer ends for it

	ponged atomic.Uint64 // the token of the last pong. Set by the reader

	// Owned by the writer.
	send    uint64 // number of the next item to send on this connection
	written uint64 // what the packets that were written count
	taken   uint64 // of written, what the peer has read for sure
	before  uint64 // written when the last ping was said
	token   uint64 // of that ping
	ask     bool   // say one with the next packet
	batch   wire.BatchWriter
	buf     []byte
	scratch []outItem[T]
	msg     wire.Message
	rare    wire.Rare
	pinged  time.Time // when the last ping was said

	loan loan // of the goroutine that reads

	// Owned by the reader.
	items  wire.BatchReader
	item   wire.Item
	packet []byte    // the last one's memory
	woken  Woken     // by the packet that is being read
	heard  time.Time // when arriving last said that something comes
	slow   bool      // it has, of the packet that is being read
	unsaid int       // packets of which it has, since the last acknowledgement
	stays  time.Time // since when the peer has acknowledged nothing new, though senders wait; zero: it has
}

func newConn[T any](l *Link[T], c transport.Conn, peer *Peer, dialled bool) *conn[T] {
	own := *peer
	own.WindowCount, own.WindowCost = min(own.WindowCount, MaxWindowCount), min(own.WindowCost, MaxWindowCost)
	peer = &own
	cn := &conn[T]{link: l, c: c, peer: peer, dialled: dialled, stop: make(chan struct{}), done: make(chan struct{}), pen: make(chan struct{}, 1)}
	cn.loan.timer = time.AfterFunc(time.Hour, cn.recall)
	cn.loan.timer.Stop()
	return cn
}

// start starts both goroutines. They end when the connection does, see fail.
func (c *conn[T]) start() {
	c.c.SetReadLimit(readLimit(c.link.node.cfg.MaxMessage))
	c.c.OnPart(c.arriving)
	n := c.link.node
	n.wg.Add(1)
	go c.read()
	n.wg.Go(func() {
		if err := c.write(); err != nil {
			c.hearOut()
			c.fail(err)
		}
		c.farewell()
		c.c.Close()
		c.end()
	})
}

// hearOut waits a moment for the reader to come to what the other side said before it closed.
func (c *conn[T]) hearOut() {
	t := time.NewTimer(farewellTime)
	defer t.Stop()
	select {
	case <-c.stop:
	case <-t.C:
	}
}

// fail ends the connection: the first reason counts. It does not wait. The writer says goodbye, if
// it can at once, and closes.
func (c *conn[T]) fail(err error) {
	c.failed.Do(func() {
		c.err = refine(err)
		close(c.stop)
		c.c.SetWriteDeadline(time.Now().Add(farewellTime)) // frees the writer, if it is stuck
	})
}

// farewellTime is how long the goodbye on a connection may take.
const farewellTime = 250 * time.Millisecond

// farewell tells the peer why the connection ends, if the reason is this side's.
func (c *conn[T]) farewell() {
	var e *handshake.Error
	if errors.As(c.err, &e) && !e.Remote {
		c.c.WriteFrame(wire.AppendBye(nil, &wire.Bye{Code: e.Code, Reason: e.Reason}))
	}
}

func (c *conn[T]) end() {
	if c.ended.Add(1) == 2 {
		c.link.detached(c)
	}
}

// refine gives what the transport says the names that the mesh uses.
func refine(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &handshake.Error{Code: wire.CodeSilent, Err: err}
	case errors.Is(err, transport.ErrFrameTooLarge):
		return &handshake.Error{Code: wire.CodeTooLarge, Reason: "a packet is too large", Err: err}
	case errors.Is(err, transport.ErrMalformed):
		return &handshake.Error{Code: wire.CodeProtocol, Reason: err.Error(), Err: err}
	case err == nil:
		return io.EOF
	}
	var w *wire.Error
	if errors.As(err, &w) {
		return &handshake.Error{Code: wire.CodeProtocol, Reason: err.Error(), Err: err}
	}
	return err
}
