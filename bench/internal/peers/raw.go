package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

// rawBuffer is the size of the buffers of the raw connections, and of a batch.
const rawBuffer = 64 << 10

// unsupported is peer.ErrUnsupported with the reason.
func unsupported(why string) error { return fmt.Errorf("%w: %s", peer.ErrUnsupported, why) }

var errOneWay = unsupported("a raw connection carries messages one way")

// rawFar is the far end of raw connections: at most one subscription and one responder, whatever
// the topic. There is one near node.
type rawFar struct {
	fn      atomic.Pointer[func([]byte)]
	respond atomic.Pointer[func([]byte) []byte]

	serving sync.WaitGroup // one for each connection
	mu      sync.Mutex
	conns   map[net.Conn]struct{} // guarded by mu; nil after close
}

func (f *rawFar) Subscribe(_ string, fn func([]byte)) (peer.Subscription, error) {
	if !f.fn.CompareAndSwap(nil, &fn) {
		return nil, unsupported("a raw connection has one receiver")
	}
	return &cancelOnce{stop: func() error { f.fn.Store(nil); return nil }}, nil
}

func (f *rawFar) Publisher(string) (peer.Publisher, error) { return nil, errOneWay }

func (f *rawFar) Respond(_ string, fn func([]byte) []byte) error {
	if !f.respond.CompareAndSwap(nil, &fn) {
		return unsupported("a raw connection has one responder")
	}
	return nil
}

func (f *rawFar) Request(context.Context, string, []byte) ([]byte, error) { return nil, errOneWay }

func (f *rawFar) deliver(data []byte) {
	if fn := f.fn.Load(); fn != nil {
		(*fn)(data)
	}
}

// answer serves a connection for requests until it breaks.
func (f *rawFar) answer(c rawFrames) {
	for {
		number, data, err := c.read()
		if err != nil {
			return
		}
		fn := f.respond.Load()
		if fn == nil {
			return // the near node sees the connection end
		}
		if c.write(number, (*fn)(data), c.pending()) != nil {
			return
		}
	}
}

// add has close end c, and reports whether it is still time. Each add is followed by a remove.
func (f *rawFar) add(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		return false
	}
	f.conns[c] = struct{}{}
	f.serving.Add(1)
	return true
}

func (f *rawFar) remove(c net.Conn) {
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
	_ = c.Close() // it is over already, or nobody reads it any more
	f.serving.Done()
}

// close ends all connections and waits for those who serve them.
func (f *rawFar) close() {
	f.mu.Lock()
	for c := range f.conns {
		_ = c.Close() // all that matters is that its reader ends
	}
	f.conns = nil
	f.mu.Unlock()
	f.serving.Wait()
}

// rawNear is the near end of raw connections, but for publishing. Requests go to the first far
// node.
type rawNear struct {
	dial func() (rawFrames, error) // a connection for requests

	mu     sync.Mutex
	calls  *rawCalls // guarded by mu; made by the first Request
	closed bool      // guarded by mu
}

func (*rawNear) Subscribe(string, func([]byte)) (peer.Subscription, error) { return nil, errOneWay }

func (*rawNear) Respond(string, func([]byte) []byte) error { return errOneWay }

// Ready returns at once: what is written to a connection waits there.
func (*rawNear) Ready(context.Context, string, int) error { return nil }

func (n *rawNear) Request(ctx context.Context, _ string, data []byte) ([]byte, error) {
	calls, err := n.connect()
	if err != nil {
		return nil, err
	}
	return calls.request(ctx, data)
}

func (n *rawNear) connect() (*rawCalls, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return nil, net.ErrClosed
	case n.calls != nil:
		return n.calls, nil
	}
	alone, err := n.dial()
	if err != nil {
		return nil, err
	}
	shared, err := n.dial()
	if err != nil {
		return nil, errors.Join(err, alone.Close())
	}
	n.calls = newRawCalls(alone, shared)
	return n.calls, nil
}

func (n *rawNear) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	if n.calls == nil {
		return nil
	}
	return n.calls.close()
}

// rawFrames is a connection for requests and replies, each of which has a number.
type rawFrames interface {
	io.Closer
	// write is called by one goroutine at a time. If another write follows at once, this one may
	// wait for it.
	write(number uint64, data []byte, follows bool) error
	// read is called by one goroutine. Data is valid until the next read.
	read() (number uint64, data []byte, err error)
	// pending says whether at least a part of another frame is here already. It belongs to read.
	pending() bool
}

// rawCalls sends requests. One that is alone has a connection to itself, where its own goroutine
// reads the reply: nothing is faster. Those that come meanwhile share a second connection, where a
// reader hands the replies to those who wait for them.
type rawCalls struct {
	busy  sync.Mutex // held while alone is in use
	alone rawFrames

	sending atomic.Int32 // those who are about to write to shared
	mu      sync.Mutex
	shared  rawFrames              // its write side is guarded by mu
	last    uint64                 // guarded by mu
	waiting map[uint64]chan []byte // guarded by mu; nil once shared is broken
	reading sync.WaitGroup
}

func newRawCalls(alone, shared rawFrames) *rawCalls {
	c := &rawCalls{alone: alone, shared: shared, waiting: make(map[uint64]chan []byte)}
	c.reading.Go(c.receive) // until shared is closed
	return c
}

// request returns the reply to data. One that is alone ends before its reply only by close.
func (c *rawCalls) request(ctx context.Context, data []byte) ([]byte, error) {
	if !c.busy.TryLock() {
		return c.requestShared(ctx, data)
	}
	defer c.busy.Unlock()
	if err := c.alone.write(0, data, false); err != nil {
		return nil, err
	}
	_, reply, err := c.alone.read()
	return append([]byte(nil), reply...), err
}

func (c *rawCalls) requestShared(ctx context.Context, data []byte) ([]byte, error) {
	reply := make(chan []byte, 1)
	number, err := c.send(data, reply)
	if err != nil {
		return nil, err
	}
	select {
	case data, ok := <-reply:
		if !ok {
			return nil, net.ErrClosed
		}
		return data, nil
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, number)
		c.mu.Unlock()
		return nil, ctx.Err()
	}
}

func (c *rawCalls) send(data []byte, reply chan []byte) (uint64, error) {
	c.sending.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	follows := c.sending.Add(-1) > 0
	if c.waiting == nil {
		return 0, net.ErrClosed
	}
	c.last++
	c.waiting[c.last] = reply
	if err := c.shared.write(c.last, data, follows); err != nil {
		delete(c.waiting, c.last)
		return 0, err
	}
	return c.last, nil
}

func (c *rawCalls) receive() {
	for {
		number, data, err := c.shared.read()
		c.mu.Lock()
		if err != nil {
			for _, reply := range c.waiting {
				close(reply)
			}
			c.waiting = nil
			c.mu.Unlock()
			return
		}
		reply := c.waiting[number]
		delete(c.waiting, number)
		c.mu.Unlock()
		if reply != nil {
			reply <- append([]byte(nil), data...)
		}
	}
}

func (c *rawCalls) close() error {
	err := errors.Join(c.alone.Close(), c.shared.Close())
	c.reading.Wait()
	return err
}

// rawNumber is the size of a request's number.
const rawNumber = 8

// appendRaw appends a request or a reply as it is sent.
func appendRaw(to []byte, number uint64, data []byte) []byte {
	return append(binary.BigEndian.AppendUint64(to, number), data...)
}

// parseRaw is its reverse.
func parseRaw(frame []byte) (uint64, []byte, error) {
	if len(frame) < rawNumber {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return binary.BigEndian.Uint64(frame), frame[rawNumber:], nil
}

// closeAll closes all, whatever comes of it, and returns what did.
func closeAll[T io.Closer](all []T) error {
	errs := make([]error, len(all))
	for i, c := range all {
		errs[i] = c.Close()
	}
	return errors.Join(errs...)
}
