package memory

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/gravbus/gravbus/transport"
)

const scheme = "memory:"

// A Transport is the network as one node sees it.
type Transport struct {
	network *Network
	name    string
}

// Transport returns the transport of the node of this name. A name is not empty and has no colon,
// slash, space or unprintable character; others panic. Transports of the same name are the same
// node, and one at a time can listen: that is how a node comes back after a restart.
func (n *Network) Transport(name string) *Transport {
	if !validName(name) {
		panic(fmt.Sprintf("memory: %q cannot be the name of a node", name))
	}
	return &Transport{network: n, name: name}
}

func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r == ':' || r == '/' || r == ' ' || !unicode.IsPrint(r)
	})
}

// Listen takes connections to this node. The options do not matter here: a node has one address.
func (t *Transport) Listen(ctx context.Context, _ transport.ListenOptions) (transport.Listener, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memory: listen: %w", err)
	}
	n := t.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[t.name] != nil {
		return nil, fmt.Errorf("memory: listen at %s%s: %w", scheme, t.name, ErrInUse)
	}
	l := &listener{network: n, name: t.name}
	n.listeners[t.name] = l
	return l, nil
}

// Dial connects to a node, as "memory:name" or "name". It takes the latency of both directions; in
// a silence, or if too many wait to be accepted, it waits for the end of that.
func (t *Transport) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	name := strings.TrimPrefix(endpoint, scheme)
	if !validName(name) {
		return nil, fmt.Errorf("memory: dial %q: %w", endpoint, transport.ErrEndpoint)
	}
	c, err := t.dial(ctx, endpoint, name)
	if err != nil {
		return nil, fmt.Errorf("memory: dial %s: %w", endpoint, err)
	}
	return c, nil
}

func (t *Transport) dial(ctx context.Context, endpoint, name string) (transport.Conn, error) {
	n := t.network
	out, back := path{t.name, name}, path{name, t.name}
	if err := n.travel(ctx, out); err != nil {
		return nil, err
	}
	c, err := n.connect(ctx, out, endpoint)
	if ended := n.travel(ctx, back); ended != nil {
		if c != nil {
			_ = c.Close()
		}
		return nil, ended
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// travel takes as long as a frame does on a path.
func (n *Network) travel(ctx context.Context, p path) error {
	defer n.wakeWhenDone(ctx)()
	n.mu.Lock()
	for n.onLocked(p).silent && ctx.Err() == nil {
		n.changed.Wait()
	}
	latency := n.onLocked(p).latency
	n.mu.Unlock()
	if latency > 0 && ctx.Err() == nil {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// connect makes a connection and lines it up to be accepted.
func (n *Network) connect(ctx context.Context, p path, endpoint string) (*end, error) {
	l, c, err := n.reserve(ctx, p)
	if err != nil {
		return nil, err
	}
	c.ends[dialler].info = n.info(c, endpoint, p.from, p.to)
	c.ends[accepter].info = n.info(c, "", p.to, p.from)
	if n.config.Connected != nil {
		n.config.Connected(c)
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	l.coming--
	n.changed.Broadcast()
	if l.closed {
		return nil, ErrRefused
	}
	c.setConditions(n.onLocked(p), n.onLocked(path{p.to, p.from}))
	if !c.over() {
		n.open = append(n.open, c)
	}
	l.pending = append(l.pending, &c.ends[accepter])
	return &c.ends[dialler], nil
}

// reserve waits until one more connection may wait to be accepted.
func (n *Network) reserve(ctx context.Context, p path) (*listener, *Connection, error) {
	defer n.wakeWhenDone(ctx)()
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		l := n.listeners[p.to]
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case l == nil || n.refusing[p.to]:
			return nil, nil, ErrRefused
		case len(l.pending)+l.coming < n.config.MaxPending:
			l.coming++
			n.made++
			return l, newConnection(n, p.from, p.to, n.made), nil
		}
		n.changed.Wait()
	}
}

func (n *Network) info(c *Connection, endpoint, local, remote string) transport.Info {
	info := transport.Info{Endpoint: endpoint, LocalAddr: scheme + local, RemoteAddr: scheme + remote}
	if n.config.Secure {
		info.Secure = true
		info.Binding = binary.BigEndian.AppendUint64(make([]byte, 24), c.number)
	}
	return info
}

// wakeWhenDone wakes those who wait for a change when ctx ends, until the returned function is
// called.
func (n *Network) wakeWhenDone(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})
}

// A listener takes the connections to one node. The mutex of the Network guards what changes.
type listener struct {
	network *Network
	name    string

	pending []*end
	coming  int // will be in pending soon
	closed  bool
}

func (l *listener) Accept() (transport.Conn, error) {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	for len(l.pending) == 0 && !l.closed {
		l.network.changed.Wait()
	}
	if l.closed {
		return nil, transport.ErrClosed
	}
	c := l.pending[0]
	l.pending = l.pending[1:]
	l.network.changed.Broadcast()
	return c, nil
}

func (l *listener) Endpoints() []string { return []string{scheme + l.name} }

func (l *listener) Exposure() transport.Exposure { return transport.Exposure{Loopback: true} }

func (l *listener) Close() error {
	n := l.network
	n.mu.Lock()
	if l.closed {
		n.mu.Unlock()
		return nil
	}
	l.closed = true
	delete(n.listeners, l.name)
	pending := l.pending
	l.pending = nil
	n.changed.Broadcast()
	n.mu.Unlock()
	for _, c := range pending {
		_ = c.Close()
	}
	return nil
}
