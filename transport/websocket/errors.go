package websocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	gorilla "github.com/gorilla/websocket"

	"github.com/gravbus/gravbus/transport"
)

var errText = errors.New("a text message")

// readError returns err as the contract names it.
func (c *conn) readError(err error) error {
	var (
		closing *gorilla.CloseError
		sock    *socketError
		network net.Error
	)
	switch {
	case c.isClosed():
		return transport.ErrClosed
	case errors.Is(err, gorilla.ErrReadLimit):
		return fmt.Errorf("%w of %d bytes", transport.ErrFrameTooLarge, c.limit.Load())
	case errors.As(err, &closing), isReset(err):
		return fmt.Errorf("%w: %w", transport.ErrPeerClosed, err)
	case errors.As(err, &sock), errors.As(err, &network):
		return fmt.Errorf("websocket: read: %w", err)
	default: // gorilla does not like what it has read
		return fmt.Errorf("%w: %w", transport.ErrMalformed, err)
	}
}

// writeError returns err as the contract names it.
func (c *conn) writeError(err error) error {
	switch {
	case c.isClosed():
		return transport.ErrClosed
	case errors.Is(err, gorilla.ErrCloseSent) && c.shut.Load():
		return transport.ErrClosed
	case errors.Is(err, gorilla.ErrCloseSent): // by the reader, which is about to end, and says why
		select {
		case <-c.readOver:
			return c.readErr
		case <-c.closed:
			return transport.ErrClosed
		}
	case isReset(err):
		return fmt.Errorf("%w: %w", transport.ErrPeerClosed, err)
	default:
		return fmt.Errorf("websocket: write: %w", err)
	}
}

// usable returns err, of a method that only fails when the connection is closed.
func (c *conn) usable(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return transport.ErrClosed
	}
	return err
}

func (c *conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// isReset reports whether the other side has closed without a word.
func isReset(err error) bool {
	return !errors.Is(err, os.ErrDeadlineExceeded) &&
		(errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
			errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}
