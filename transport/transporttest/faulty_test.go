package transporttest_test

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/gravbus/gravbus/transport/transporttest"
)

// A fault is one way in which a transport breaks the rules.
type fault struct {
	name  string
	found string // the case that finds it
	says  string // a part of what that says

	config  memory.Config
	conn    func(*world, transport.Conn) transport.Conn // on both sides
	accept  func(*world, transport.Listener) transport.Listener
	listen  func(w *world, ctx context.Context, o transport.ListenOptions) (transport.Listener, error)
	dial    func(w *world, ctx context.Context, endpoint string) (transport.Conn, error)
	dialRaw func(w *world, endpoint string) (io.ReadWriteCloser, error)
}

// A world is a network on which the nodes have a fault.
type world struct {
	fault
	network *memory.Network
	turn    chan struct{} // for what only one may do at a time
	drip    atomic.Pointer[drip]
}

func newHarness(f fault) transporttest.Harness {
	w := &world{fault: f, network: memory.NewNetwork(f.config), turn: make(chan struct{}, 1)}
	w.network.Silence("a", "unanswered")
	h := transporttest.Harness{
		Listener:   &faulty{world: w, inner: w.network.Transport("b")},
		Dialler:    &faulty{world: w, inner: w.network.Transport("a")},
		Silence:    func() { w.network.Partition([]string{"a"}, []string{"b"}) },
		Drip:       func(part int, interval time.Duration) { w.drip.Store(&drip{part, interval}) },
		Unanswered: "memory:unanswered",
		DialRaw:    func(string) (io.ReadWriteCloser, error) { return nothing{}, nil },
	}
	if f.dialRaw != nil {
		h.DialRaw = func(endpoint string) (io.ReadWriteCloser, error) { return f.dialRaw(w, endpoint) }
	}
	return h
}

// nothing is a connection below a transport that has nothing below it.
type nothing struct{}

func (nothing) Read([]byte) (int, error)    { return 0, io.EOF }
func (nothing) Write(p []byte) (int, error) { return len(p), nil }
func (nothing) Close() error                { return nil }

// faulty is a transport of memory, but for the fault.
type faulty struct {
	*world
	inner *memory.Transport
}

func (f *faulty) Listen(ctx context.Context, o transport.ListenOptions) (l transport.Listener, err error) {
	if f.fault.listen != nil {
		l, err = f.fault.listen(f.world, ctx, o)
	} else {
		l, err = f.inner.Listen(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	l = &faultyListener{l, f.world}
	if f.accept != nil {
		l = f.accept(f.world, l)
	}
	return l, nil
}

func (f *faulty) Dial(ctx context.Context, endpoint string) (c transport.Conn, err error) {
	if f.fault.dial != nil {
		c, err = f.fault.dial(f.world, ctx, endpoint)
	} else {
		c, err = f.inner.Dial(ctx, endpoint)
	}
	if err != nil {
		return nil, err
	}
	return f.wrap(c), nil
}

func (w *world) wrap(c transport.Conn) transport.Conn {
	c = &dripping{Conn: c, world: w}
	if w.conn != nil {
		return w.conn(w, c)
	}
	return c
}

// A drip is how frames pass in parts.
type drip struct {
	part     int
	interval time.Duration
}

// dripping is a Conn whose frames pass in parts, each a frame of memory, when the world drips. The
// first byte of a part tells whether it is the last one.
type dripping struct {
	transport.Conn
	*world
	part atomic.Pointer[func()]
}

func (c *dripping) OnPart(f func()) {
	c.part.Store(nil)
	if f != nil {
		c.part.Store(&f)
	}
}

func (c *dripping) WriteFrame(frame []byte) error {
	d := c.drip.Load()
	if d == nil {
		return c.Conn.WriteFrame(frame)
	}
	for len(frame) > d.part {
		if err := c.Conn.WriteFrame(append([]byte{0}, frame[:d.part]...)); err != nil {
			return err
		}
		frame = frame[d.part:]
		<-time.After(d.interval)
	}
	return c.Conn.WriteFrame(append([]byte{1}, frame...))
}

func (c *dripping) ReadFrame(buf []byte) ([]byte, error) {
	buf, err := c.Conn.ReadFrame(buf)
	if err != nil || c.drip.Load() == nil {
		return buf, err
	}
	for last, frame := buf[0], buf[1:]; ; {
		if last == 1 {
			return frame, nil
		}
		part, err := c.Conn.ReadFrame(nil)
		if err != nil {
			return nil, err
		}
		last, frame = part[0], append(frame, part[1:]...)
		if f := c.part.Load(); f != nil {
			(*f)()
		}
	}
}

type faultyListener struct {
	transport.Listener
	*world
}

func (l *faultyListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

// hooks is a Conn some methods of which are replaced.
type hooks struct {
	transport.Conn
	read             func(buf []byte) ([]byte, error)
	write            func(frame []byte) error
	setReadLimit     func(n int64)
	setReadDeadline  func(t time.Time) error
	setWriteDeadline func(t time.Time) error
	setReadIdle      func(d time.Duration) error
	onPart           func(f func())
	shutdown         func(ctx context.Context) error
	closes           func() error
	info             func() transport.Info
}

func (h *hooks) ReadFrame(buf []byte) ([]byte, error) {
	if h.read != nil {
		return h.read(buf)
	}
	return h.Conn.ReadFrame(buf)
}

func (h *hooks) WriteFrame(frame []byte) error {
	if h.write != nil {
		return h.write(frame)
	}
	return h.Conn.WriteFrame(frame)
}

func (h *hooks) SetReadLimit(n int64) {
	if h.setReadLimit != nil {
		h.setReadLimit(n)
		return
	}
	h.Conn.SetReadLimit(n)
}

func (h *hooks) SetReadDeadline(t time.Time) error {
	if h.setReadDeadline != nil {
		return h.setReadDeadline(t)
	}
	return h.Conn.SetReadDeadline(t)
}

func (h *hooks) SetWriteDeadline(t time.Time) error {
	if h.setWriteDeadline != nil {
		return h.setWriteDeadline(t)
	}
	return h.Conn.SetWriteDeadline(t)
}

func (h *hooks) SetReadIdle(d time.Duration) error {
	if h.setReadIdle != nil {
		return h.setReadIdle(d)
	}
	return h.Conn.SetReadIdle(d)
}

func (h *hooks) OnPart(f func()) {
	if h.onPart != nil {
		h.onPart(f)
		return
	}
	h.Conn.OnPart(f)
}

func (h *hooks) Shutdown(ctx context.Context) error {
	if h.shutdown != nil {
		return h.shutdown(ctx)
	}
	return h.Conn.Shutdown(ctx)
}

func (h *hooks) Close() error {
	if h.closes != nil {
		return h.closes()
	}
	return h.Conn.Close()
}

func (h *hooks) Info() transport.Info {
	if h.info != nil {
		return h.info()
	}
	return h.Conn.Info()
}

// listenerHooks is a Listener some methods of which are replaced.
type listenerHooks struct {
	transport.Listener
	accept    func() (transport.Conn, error)
	endpoints func() []string
	closes    func() error
}

func (h *listenerHooks) Accept() (transport.Conn, error) {
	if h.accept != nil {
		return h.accept()
	}
	return h.Listener.Accept()
}

func (h *listenerHooks) Endpoints() []string {
	if h.endpoints != nil {
		return h.endpoints()
	}
	return h.Listener.Endpoints()
}

func (h *listenerHooks) Close() error {
	if h.closes != nil {
		return h.closes()
	}
	return h.Listener.Close()
}
