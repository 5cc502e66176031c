package gravbus_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
	"github.com/sirupsen/logrus"
)

// A faultProxy stands in front of one node: whoever dials the node dials the proxy. It carries
// bytes, and does to connections what networks do to them.
type faultProxy struct {
	ln   net.Listener
	addr string
	wg   sync.WaitGroup

	mu     sync.Mutex // guards all below
	target string
	closed bool
	away   bool // connections are refused
	conns  []*faultConn
	each   func(*faultConn) // is called with every new connection, before it carries anything
}

// A faultConn is a connection through a proxy: dialled by one node, and taken by the other.
type faultConn struct {
	proxy *faultProxy
	in    *net.TCPConn // to the node that dialled
	out   *net.TCPConn // to the node behind the proxy
	up    faultPipe    // what the node that dialled sends
	down  faultPipe
}

// A faultPipe is one direction.
type faultPipe struct {
	mu      sync.Mutex // guards all below
	open    chan struct{}
	stalled bool
	swallow bool
	left    int    // bytes until fate; never if negative
	fate    func() // is called once
	rate    int    // bytes a second; unlimited if 0
	carried int
}

func newFaultProxy(t testing.TB) *faultProxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &faultProxy{ln: ln, addr: ln.Addr().String()}
	p.wg.Go(p.accept) // until close
	t.Cleanup(p.close)
	return p
}

func (p *faultProxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.carry(c.(*net.TCPConn)) }) // until both directions have ended
	}
}

func (p *faultProxy) carry(in *net.TCPConn) {
	defer in.Close()
	p.mu.Lock()
	target, away := p.target, p.away
	p.mu.Unlock()
	if away {
		in.SetLinger(0)
		return
	}
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	c := &faultConn{proxy: p, in: in, out: out.(*net.TCPConn)}
	for _, d := range []*faultPipe{&c.up, &c.down} {
		d.open, d.left = make(chan struct{}), -1
		close(d.open)
	}
	p.mu.Lock()
	if p.closed || p.away {
		p.mu.Unlock()
		return
	}
	p.conns = append(p.conns, c)
	if p.each != nil {
		p.each(c)
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.conns = slices.DeleteFunc(p.conns, func(o *faultConn) bool { return o == c })
		p.mu.Unlock()
	}()
	var both sync.WaitGroup
	both.Go(func() { c.copy(&c.up, c.out, c.in) })
	both.Go(func() { c.copy(&c.down, c.in, c.out) })
	both.Wait()
}

// copy carries one direction until it ends, or the connection is cut.
func (c *faultConn) copy(d *faultPipe, to, from *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for {
		d.mu.Lock()
		rate := d.rate
		d.mu.Unlock()
		part := buf
		if rate > 0 {
			part = buf[:min(len(buf), max(rate/50, 1))]
		}
		n, err := from.Read(part)
		d.pass()
		d.mu.Lock()
		if d.swallow { // what is sent goes nowhere, and an end is not seen
			d.mu.Unlock()
			if err != nil {
				return
			}
			continue
		}
		over := d.left >= 0 && n >= d.left
		some := n
		if over {
			some, d.left = d.left, -1
		} else if d.left >= 0 {
			d.left -= n
		}
		d.carried += n
		fate := d.fate
		d.mu.Unlock()
		_, failed := to.Write(part[:some])
		if over {
			fate()
			d.pass() // if it stalls now
			if _, late := to.Write(part[some:n]); failed == nil {
				failed = late
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			to.CloseWrite()
			return
		case err != nil || failed != nil:
			c.cut(true)
			return
		}
		if rate > 0 {
			pause := time.NewTimer(time.Duration(n) * time.Second / time.Duration(rate))
			<-pause.C
		}
	}
}

// pass waits while the direction is stalled.
func (d *faultPipe) pass() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.stalled {
		open := d.open
		d.mu.Unlock()
		<-open
		d.mu.Lock()
	}
}

func (d *faultPipe) set(f func(*faultPipe)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

// cut ends the connection for both sides, with a reset or in order.
func (c *faultConn) cut(rst bool) {
	if rst {
		c.in.SetLinger(0)
		c.out.SetLinger(0)
	}
	c.in.Close()
	c.out.Close()
	c.resume()
}

// cutAfter cuts the connection when so many more bytes have been carried: in the middle of a frame.
func (c *faultConn) cutAfter(d *faultPipe, bytes int, rst bool) {
	d.after(bytes, func() { c.cut(rst) })
}

// after calls fate when so many more bytes have been carried.
func (d *faultPipe) after(bytes int, fate func()) {
	d.set(func(d *faultPipe) { d.left, d.fate = bytes, fate })
}

// stall stops both directions, until resume.
func (c *faultConn) stall() {
	for _, d := range []*faultPipe{&c.up, &c.down} {
		d.set(func(d *faultPipe) {
			if !d.stalled {
				d.stalled, d.open = true, make(chan struct{})
			}
		})
	}
}

func (c *faultConn) resume() {
	for _, d := range []*faultPipe{&c.up, &c.down} {
		d.set(func(d *faultPipe) {
			if d.stalled {
				d.stalled = false
				close(d.open)
			}
		})
	}
}

// swallow lets nothing through any more, without an end.
func (c *faultConn) swallow(up, down bool) {
	c.up.set(func(d *faultPipe) { d.swallow = d.swallow || up })
	c.down.set(func(d *faultPipe) { d.swallow = d.swallow || down })
}

// slow limits both directions to so many bytes a second.
func (c *faultConn) slow(rate int) {
	for _, d := range []*faultPipe{&c.up, &c.down} {
		d.set(func(d *faultPipe) { d.rate = rate })
	}
}

// carried returns how many bytes the connection has carried.
func (c *faultConn) carried() (n int) {
	for _, d := range []*faultPipe{&c.up, &c.down} {
		d.set(func(d *faultPipe) { n += d.carried })
	}
	return n
}

// halve ends the connection for one side only: the other one does not see it, and what was under
// way to it comes later, with the end, when resume is called.
func (c *faultConn) halve(dialler bool) {
	c.stall()
	side := c.out
	if dialler {
		side = c.in
	}
	side.SetLinger(0)
	side.Close()
}

// live returns the connections that the proxy carries.
func (p *faultProxy) live() []*faultConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.conns)
}

// onEach makes f see every new connection before it carries anything.
func (p *faultProxy) onEach(f func(*faultConn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.each = f
}

// goAway cuts all connections and refuses new ones, until comeBack.
func (p *faultProxy) goAway() {
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	for _, c := range p.live() {
		c.cut(true)
	}
}

func (p *faultProxy) comeBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = false
}

func (p *faultProxy) close() {
	p.ln.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for _, c := range p.live() {
		c.cut(true)
	}
	p.wg.Wait()
}

// A faultTransport is the websocket transport, behind a proxy that others dial in its place.
type faultTransport struct {
	transport.Transport
	proxy *faultProxy
}

type faultListener struct {
	transport.Listener
	proxy *faultProxy
}

func (t faultTransport) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	l, err := t.Transport.Listen(ctx, o)
	if err != nil {
		return nil, err
	}
	t.proxy.mu.Lock()
	defer t.proxy.mu.Unlock()
	t.proxy.target = l.Endpoints()[0]
	return faultListener{l, t.proxy}, nil
}

func (l faultListener) Endpoints() []string { return []string{l.proxy.addr} }

// A faultHost is a node behind a proxy.
type faultHost struct {
	*gravbus.Bus
	name   string
	proxy  *faultProxy
	events *faultEvents
}

// newFaultHost starts a node that knows the nodes of these proxies.
func newFaultHost(t testing.TB, name string, seeds []*faultHost, opts ...gravbus.Option) *faultHost {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	n := &faultHost{name: name, proxy: newFaultProxy(t)}
	var known []string
	for _, s := range seeds {
		known = append(known, s.proxy.addr)
	}
	opts = append([]gravbus.Option{
		gravbus.UseLogger(log), gravbus.UseNodeName(name), gravbus.UseDiscovery(static.New(known...)),
		gravbus.UseTransport(faultTransport{websocket.New(websocket.Config{Addr: "127.0.0.1:0"}), n.proxy}),
	}, opts...)
	n.Bus = gravbus.New(opts...)
	t.Cleanup(func() { within(t, patience, func() { n.Close() }) })
	n.events = watchFaults(t, n.Bus)
	must(t, n.Start(t.Context()))
	return n
}

// newFaultMesh starts nodes that are all connected with each other, from one seed.
func newFaultMesh(t testing.TB, count int, opts ...gravbus.Option) []*faultHost {
	t.Helper()
	var all []*faultHost
	for i := range count {
		all = append(all, newFaultHost(t, string(rune('a'+i)), all[:min(i, 1)], opts...))
	}
	faultUp(t, faultBuses(all)...)
	return all
}

func faultBuses(nodes []*faultHost) (all []*gravbus.Bus) {
	for _, n := range nodes {
		all = append(all, n.Bus)
	}
	return all
}

// faultPart cuts nodes off from all others, until faultHeal.
func faultPart(nodes ...*faultHost) {
	for _, n := range nodes {
		n.proxy.goAway()
	}
}

func faultHeal(nodes ...*faultHost) {
	for _, n := range nodes {
		n.proxy.comeBack()
	}
}
