package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"

	"github.com/gravbus/gravbus/transport"
)

// Dial implements transport.Transport. It takes "host:port", "host", and with a path behind these,
// "ws://host:port/path" and the same with wss; IPv6 addresses stand in brackets. A host without a
// scheme is dialled with TLS if that is configured, and what else is left out is as in Config, or
// in the ListenOptions of the last Listen.
//
// ErrNotPeer is for answers that will stay as they are. A server that is busy or whose node does not
// listen yet (HTTP 429 and 5xx), certificates that do not fit, and connections that break off give
// other errors.
func (t *Transport) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	u, err := t.parse(endpoint)
	if err != nil {
		return nil, err
	}
	c, err := t.dial(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("websocket: dial %s: %w", endpoint, err)
	}
	c.info.Endpoint = endpoint
	return c, nil
}

func (t *Transport) dial(ctx context.Context, url string) (*conn, error) {
	limited, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()

	var guard closer
	dialer := gorilla.Dialer{
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			l := newLine(c)
			s := &socket{Conn: l, line: l, budget: maxHandshake}
			guard.set(s)
			return s, nil
		},
		Proxy:           t.cfg.Proxy,
		TLSClientConfig: t.clientTLS,
		ReadBufferSize:  readBuffer,
		WriteBufferSize: FrameSize,
		WriteBufferPool: &writeBuffers,
		Subprotocols:    []string{Subprotocol},
	}
	// gorilla does not look at the context while it waits for the response.
	closed := make(chan struct{})
	stop := context.AfterFunc(limited, func() {
		defer close(closed)
		guard.close()
	})
	ws, resp, err := dialer.DialContext(limited, url, nil) //nolint:bodyclose // gorilla has read and replaced it
	if end, _ := limited.Deadline(); err != nil && !time.Now().Before(end) {
		<-limited.Done() // the socket was first to hear of it
	}
	if !stop() {
		<-closed
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil && limited.Err() != nil:
		err = fmt.Errorf("nothing complete within %v: %w", t.cfg.HandshakeTimeout, os.ErrDeadlineExceeded)
	case err != nil:
		err = notPeer(err, resp)
	case limited.Err() != nil: // just now, so it is closed
		err = os.ErrDeadlineExceeded
	default:
		err = checkAnswer(ws, resp)
	}
	if err != nil {
		guard.close()
		return nil, err
	}
	info := transport.Info{LocalAddr: ws.LocalAddr().String(), RemoteAddr: ws.RemoteAddr().String()}
	if c, ok := ws.NetConn().(*tls.Conn); ok {
		state := c.ConnectionState()
		secured(&info, &state)
	}
	return newConn(ws, guard.sock, info), nil
}

// checkAnswer looks at what gorilla takes for granted.
func checkAnswer(ws *gorilla.Conn, resp *http.Response) error {
	if got := ws.Subprotocol(); got != Subprotocol {
		return fmt.Errorf("%w: it speaks WebSocket, with subprotocol %.40q instead of %q",
			transport.ErrNotPeer, got, Subprotocol)
	}
	// Not asked for, and gorilla would decompress: what comes out has no bound.
	if ext := resp.Header.Get("Sec-WebSocket-Extensions"); ext != "" {
		return fmt.Errorf("%w: it wants the WebSocket extensions %.40q", transport.ErrNotPeer, ext)
	}
	return nil
}

// notPeer tells apart why a dial has failed without the context's doing.
func notPeer(err error, resp *http.Response) error {
	var (
		network *net.OpError
		record  tls.RecordHeaderError
		verify  *tls.CertificateVerificationError
	)
	switch {
	case resp != nil && (resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests):
		return errors.New(answer(resp))
	case resp != nil:
		return fmt.Errorf("%w: %s", transport.ErrNotPeer, answer(resp))
	case errors.As(err, &record):
		return fmt.Errorf("%w: it does not speak TLS: %w", transport.ErrNotPeer, err)
	case errors.As(err, &network), errors.As(err, &verify),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	default: // what came was no response
		return fmt.Errorf("%w: %w", transport.ErrNotPeer, err)
	}
}

// answer describes a response that is not the one wanted.
func answer(resp *http.Response) string {
	body, _ := io.ReadAll(resp.Body) // 1 KiB at most: gorilla has read it
	text, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return fmt.Sprintf("it answers HTTP %d %.400q", resp.StatusCode, text)
}

// A closer closes the socket of a dial, even one that is only made later.
type closer struct {
	mu     sync.Mutex // guards all
	sock   *socket
	closed bool
}

func (c *closer) set(s *socket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sock = s
	if c.closed {
		s.Close()
	}
}

func (c *closer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.sock != nil {
		c.sock.Close()
	}
}
