// Package transport is the contract between a bus and what carries its frames to other nodes.
//
// A Transport moves whole frames of bytes between two nodes, in order, and knows nothing of the
// bus. Package websocket is the one for networks, package memory the one for tests. Package
// transporttest checks every rule that stands here; a transport of your own should pass it.
package transport

import (
	"context"
	"crypto/x509"
	"errors"
	"time"
)

var (
	// ErrClosed is returned by the methods of a Listener or Conn after its Close.
	ErrClosed = errors.New("transport: closed")

	// ErrPeerClosed is returned by ReadFrame once the other side has closed and all its frames have
	// been read, and by WriteFrame some time after that.
	ErrPeerClosed = errors.New("transport: closed by the other side")

	// ErrFrameTooLarge is returned by ReadFrame for a frame over the limit. The Conn is of no use
	// any more: close it.
	ErrFrameTooLarge = errors.New("transport: frame over the limit")

	// ErrMalformed is returned by ReadFrame for bytes that are no frame of this transport. The Conn
	// is of no use any more: close it.
	ErrMalformed = errors.New("transport: malformed frame")

	// ErrEndpoint is returned by Dial for an endpoint that the transport does not understand.
	// Dialling it again will not help.
	ErrEndpoint = errors.New("transport: invalid endpoint")

	// ErrNotPeer is returned by Dial when something answered that is no node, such as a web server
	// at the same address.
	ErrNotPeer = errors.New("transport: the other side is no node")
)

// DefaultReadLimit is how many bytes a frame may have before SetReadLimit is called: enough for a
// handshake, little to waste on a stranger.
const DefaultReadLimit = 16 << 10

// A Transport makes connections. It is used by one bus at a time; its methods are safe for
// concurrent use.
type Transport interface {
	// Listen begins to take connections and returns once it does: an address that is in use, or a
	// bad configuration, is an error here. The context bounds Listen only. After the Listener is
	// closed, Listen may be called again.
	Listen(ctx context.Context, o ListenOptions) (Listener, error)

	// Dial connects to a node. It returns soon after ctx ends, whatever it was doing, with an error
	// that is the context's. Nothing of a failed Dial stays: no goroutine, no socket.
	//
	// An endpoint is what a Listener somewhere returned from Endpoints, or what a person would
	// write for one. Dial fills in what is left out with the transport's defaults.
	Dial(ctx context.Context, endpoint string) (Conn, error)
}

// ListenOptions come from the bus. A transport that does not know one ignores it.
type ListenOptions struct {
	Port string // if not empty, listen at this port instead of the configured one
	Path string // if not empty, listen at this path instead of the configured one
}

// A Listener takes connections. Its methods are safe for concurrent use.
type Listener interface {
	// Accept returns the next connection, or ErrClosed after Close. A connection that fails before
	// it can carry frames is not returned, and does not end Accept; any other error is final. How
	// many connections may wait to be accepted is bounded, and so is the time that a stranger may
	// take until it can carry frames.
	Accept() (Conn, error)

	// Endpoints returns what other nodes may Dial to reach this Listener, the best first: all
	// addresses of all interfaces for one that listens on all of them. It is looked up anew at each
	// call. It is empty if nothing is known, as behind a mux at an unknown address.
	Endpoints() []string

	// Exposure tells who can connect.
	Exposure() Exposure

	// Close ends Accept and frees the address before it returns. Connections that were accepted
	// stay; those that wait are closed. Calling it again returns nil.
	Close() error
}

// Exposure tells who can connect to a Listener. The bus refuses to listen for everybody without a
// mesh key.
type Exposure struct {
	Loopback      bool // only this machine (or this process) can connect
	Authenticated bool // others need a certificate that was checked before Accept returns them
}

// A Conn carries frames in both directions.
//
// One goroutine at a time may call ReadFrame, and one WriteFrame, at the same time as each other.
// All other methods may be called by any goroutine at any time.
type Conn interface {
	// ReadFrame returns the next whole frame. It appends it to buf[:0], so the result may share
	// buf's memory, and belongs to the caller; a nil buf is allowed. Frames come in the order in
	// which they were written, none twice and none in part. An empty frame is a frame.
	//
	// After an error every further call returns an error.
	ReadFrame(buf []byte) ([]byte, error)

	// WriteFrame writes a frame and sends it on its way. It neither keeps frame nor modifies it, or
	// the memory behind it: others may read both meanwhile. It waits while the other side does not
	// read and what lies between is full, which has room for at least 64 KiB of frames, and a bound.
	// When it returns nil the frame may still be lost, if the connection is.
	//
	// After an error every further call returns an error.
	WriteFrame(frame []byte) error

	// SetReadLimit sets how many bytes the frames that ReadFrame returns from now on may have,
	// DefaultReadLimit until it is called. A longer frame is ErrFrameTooLarge, as soon as its
	// length is known and before memory is spent on it.
	SetReadLimit(n int64)

	// SetReadDeadline and SetWriteDeadline make ReadFrame and WriteFrame, present calls too, return
	// an error that matches os.ErrDeadlineExceeded at t. The zero time means never. A deadline that
	// has passed may leave the direction of no use.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error

	// SetReadIdle makes ReadFrame, a present call too, return an error that matches
	// os.ErrDeadlineExceeded when for d not one byte has come: a frame that takes longer is not cut
	// off while its bytes come. Time in which no call waits does not count, nor does that before d was
	// set. Zero means never. It holds beside the deadline, and may leave the direction of no use too.
	SetReadIdle(d time.Duration) error

	// OnPart makes ReadFrame, from its next call on, call f whenever bytes have come after others that
	// the same call has waited for: so one hears of a long frame while it is on its way. What comes
	// whole is not told, and the last part of a frame need not be. f must be quick, and must not call
	// methods of the Conn. Nil means none.
	OnPart(f func())

	// Shutdown closes in order: the other side reads all that was written before, then
	// ErrPeerClosed. It returns when the other side has closed too or ctx has ended, and the Conn
	// is closed then. The caller no longer writes. If it goes on to read without a pause it gets
	// all that still comes; what nobody reads Shutdown discards.
	Shutdown(ctx context.Context) error

	// Close closes at once. What was written and not sent may be lost. ReadFrame and WriteFrame
	// that are in progress return soon, with ErrClosed. Calling it again returns nil.
	Close() error

	// Info tells about the connection. It does not change.
	Info() Info
}

// Info tells about a connection.
type Info struct {
	Endpoint     string              // what was dialled; empty for a connection that was accepted
	LocalAddr    string              // for logs
	RemoteAddr   string              // for logs; for an accepted connection its host is that of the other node
	Secure       bool                // encrypted
	Binding      []byte              // the same on both sides and on no other connection (RFC 5705 keying material); nil when not Secure
	Certificates []*x509.Certificate // that the other side has shown and that were checked, its own first
}
