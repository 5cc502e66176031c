package demo

import (
	"context"
	"errors"
	"sync"

	"github.com/gravbus/gravbus/transport"
)

// A cable is a transport that can be pulled out: then all connections break, and none can be made
// until it is plugged in again.
type cable struct {
	transport.Transport

	mu    sync.Mutex // guards all below
	out   bool
	conns map[*cableConn]bool
}

var errPulled = errors.New("the cable is out")

func newCable(t transport.Transport) *cable {
	return &cable{Transport: t, conns: map[*cableConn]bool{}}
}

func (c *cable) pull() {
	c.mu.Lock()
	c.out = true
	var all []*cableConn
	for conn := range c.conns {
		all = append(all, conn)
	}
	c.mu.Unlock()
	for _, conn := range all {
		conn.Close()
	}
}

func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = false
}

// through returns conn as one that breaks when the cable is pulled out, or nil if it is out.
func (c *cable) through(conn transport.Conn) transport.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out {
		return nil
	}
	own := &cableConn{Conn: conn, cable: c}
	c.conns[own] = true
	return own
}

// Dial implements transport.Transport.
func (c *cable) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	conn, err := c.Transport.Dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	if own := c.through(conn); own != nil {
		return own, nil
	}
	conn.Close()
	return nil, errPulled
}

// Listen implements transport.Transport.
func (c *cable) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	ln, err := c.Transport.Listen(ctx, o)
	if err != nil {
		return nil, err
	}
	return &cableListener{ln, c}, nil
}

type cableListener struct {
	transport.Listener
	cable *cable
}

// Accept implements transport.Listener.
func (l *cableListener) Accept() (transport.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if own := l.cable.through(conn); own != nil {
			return own, nil
		}
		conn.Close()
	}
}

type cableConn struct {
	transport.Conn
	cable *cable
}

func (c *cableConn) forget() {
	c.cable.mu.Lock()
	defer c.cable.mu.Unlock()
	delete(c.cable.conns, c)
}

// Shutdown implements transport.Conn.
func (c *cableConn) Shutdown(ctx context.Context) error {
	defer c.forget()
	return c.Conn.Shutdown(ctx)
}

// Close implements transport.Conn.
func (c *cableConn) Close() error {
	defer c.forget()
	return c.Conn.Close()
}
