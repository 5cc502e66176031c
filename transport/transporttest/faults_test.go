package transporttest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

// onConn makes a fault of a Conn of which some methods are replaced.
func onConn(replace func(w *world, h *hooks)) func(*world, transport.Conn) transport.Conn {
	return func(w *world, c transport.Conn) transport.Conn {
		h := &hooks{Conn: c}
		replace(w, h)
		return h
	}
}

// onListener does the same for a Listener.
func onListener(replace func(w *world, h *listenerHooks)) func(*world, transport.Listener) transport.Listener {
	return func(w *world, l transport.Listener) transport.Listener {
		h := &listenerHooks{Listener: l}
		replace(w, h)
		return h
	}
}

// onInfo makes a fault of what Info returns.
func onInfo(change func(*transport.Info)) func(*world, transport.Conn) transport.Conn {
	return onConn(func(_ *world, h *hooks) {
		h.info = func() transport.Info {
			info := h.Conn.Info()
			change(&info)
			return info
		}
	})
}

var faults = []fault{
	{name: "none"},

	{name: "reorders", found: "Order", says: "came as", conn: onConn(func(_ *world, h *hooks) {
		var held []byte
		n := 0
		h.write = func(frame []byte) error {
			if n++; n == 7 {
				held = bytes.Clone(frame)
				return nil
			}
			err := h.Conn.WriteFrame(frame)
			if n == 8 {
				err = h.Conn.WriteFrame(held)
			}
			return err
		}
	})},
	{name: "drops one", found: "Order", says: "came as", conn: onConn(func(_ *world, h *hooks) {
		n := 0
		h.write = func(frame []byte) error {
			if n++; n == 7 {
				return nil
			}
			return h.Conn.WriteFrame(frame)
		}
	})},
	{name: "drops the last", found: "ShutdownDelivers", says: "at frame 49: transport: closed by the other side", conn: onConn(func(_ *world, h *hooks) {
		n := 0
		h.write = func(frame []byte) error {
			if n++; n == 50 {
				return nil
			}
			return h.Conn.WriteFrame(frame)
		}
	})},
	{name: "doubles one", found: "Order", says: "came as", conn: onConn(func(_ *world, h *hooks) {
		n := 0
		h.write = func(frame []byte) error {
			if n++; n == 7 {
				_ = h.Conn.WriteFrame(frame)
			}
			return h.Conn.WriteFrame(frame)
		}
	})},
	{name: "merges", found: "Order", says: "came as", conn: onConn(func(_ *world, h *hooks) {
		n := 0
		h.read = func(buf []byte) ([]byte, error) {
			first, err := h.Conn.ReadFrame(buf)
			if n++; n != 7 || err != nil {
				return first, err
			}
			second, err := h.Conn.ReadFrame(nil)
			return append(first, second...), err
		}
	})},
	{name: "splits large frames", found: "Sizes", says: "came as", conn: onConn(func(_ *world, h *hooks) {
		h.write = func(frame []byte) error {
			for part := range slices.Chunk(frame, math.MaxUint16) {
				if err := h.Conn.WriteFrame(part); err != nil {
					return err
				}
			}
			return nil
		}
	})},
	{name: "has no empty frames", found: "Sizes", says: "frame 0 of 0 bytes", conn: onConn(func(_ *world, h *hooks) {
		h.write = func(frame []byte) error {
			if len(frame) == 0 {
				return nil
			}
			return h.Conn.WriteFrame(frame)
		}
	})},
	{name: "appends to all of buf", found: "ReadFrameAppends", says: "came as", conn: onConn(func(_ *world, h *hooks) {
		h.read = func(buf []byte) ([]byte, error) {
			frame, err := h.Conn.ReadFrame(nil)
			return append(buf, frame...), err
		}
	})},
	{name: "reads into its own memory", found: "FrameBelongsToReader", says: "changed in the hands", conn: onConn(func(_ *world, h *hooks) {
		var own []byte
		h.read = func([]byte) (_ []byte, err error) {
			own, err = h.Conn.ReadFrame(own)
			return own, err
		}
	})},
	{name: "keeps the frame", found: "WriteFrameKeepsNothing", says: "overwritten after WriteFrame", conn: onConn(func(_ *world, h *hooks) {
		var mu sync.Mutex
		var kept [][]byte
		h.write = func(frame []byte) error {
			mu.Lock()
			defer mu.Unlock()
			kept = append(kept, frame)
			time.AfterFunc(time.Millisecond, func() {
				mu.Lock()
				defer mu.Unlock()
				for _, frame := range kept {
					_ = h.Conn.WriteFrame(frame)
				}
				kept = nil
			})
			return nil
		}
	})},
	{name: "masks in place", found: "WriteFrameChangesNothing", says: "one frame for several peers", conn: onConn(func(_ *world, h *hooks) {
		h.write = func(frame []byte) error {
			for i := range frame {
				frame[i] ^= 0x55
			}
			return h.Conn.WriteFrame(frame)
		}
		h.read = func(buf []byte) ([]byte, error) {
			frame, err := h.Conn.ReadFrame(buf)
			for i := range frame {
				frame[i] ^= 0x55
			}
			return frame, err
		}
	})},
	{name: "writes behind the frame", found: "WriteFrameChangesNothing", says: "the memory behind it", conn: onConn(func(_ *world, h *hooks) {
		h.write = func(frame []byte) error { return h.Conn.WriteFrame(append(frame, 1)[:len(frame)]) }
	})},
	{name: "has methods that cannot run beside ReadFrame", found: "ConcurrentUse", says: "busy", conn: onConn(func(_ *world, h *hooks) {
		var reading atomic.Bool
		h.read = func(buf []byte) ([]byte, error) {
			reading.Store(true)
			defer reading.Store(false)
			return h.Conn.ReadFrame(buf)
		}
		h.setReadDeadline = func(t time.Time) error {
			if reading.Load() {
				return errors.New("busy")
			}
			return h.Conn.SetReadDeadline(t)
		}
	})},

	{name: "has no limit at first", found: "ReadLimitDefault", says: "want an error", conn: onConn(func(_ *world, h *hooks) {
		h.Conn.SetReadLimit(math.MaxInt64)
	})},
	{name: "has a limit that can be set once", found: "ReadLimitSet", says: "at a raised limit", conn: onConn(func(_ *world, h *hooks) {
		var once sync.Once
		h.setReadLimit = func(n int64) { once.Do(func() { h.Conn.SetReadLimit(n) }) }
	})},
	{name: "checks the limit after reading", found: "ReadLimitSavesMemory", says: "bytes of memory to refuse", conn: onConn(func(_ *world, h *hooks) {
		h.Conn.SetReadLimit(math.MaxInt64)
		h.read = func(buf []byte) ([]byte, error) {
			frame, err := h.Conn.ReadFrame(buf)
			if len(frame) > transport.DefaultReadLimit {
				_ = h.Conn.SetReadDeadline(time.Unix(1, 0))
				return nil, transport.ErrFrameTooLarge
			}
			return frame, err
		}
	})},
	{name: "has no bound", found: "Backpressure", says: "no end of writing", config: memory.Config{Buffer: 1 << 40}},
	{name: "drops when full", found: "Backpressure", says: "no end of writing", conn: onConn(func(_ *world, h *hooks) {
		written := 0
		h.write = func(frame []byte) error {
			if written += len(frame); written > 200_000 {
				return nil
			}
			return h.Conn.WriteFrame(frame)
		}
	})},
	{name: "has no read deadline", found: "ReadDeadline", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		h.setReadDeadline = func(time.Time) error { return nil }
	})},
	{name: "has a read deadline for the next call only", found: "ReadDeadline", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		var mu sync.Mutex
		var at time.Time
		h.setReadDeadline = func(t time.Time) error {
			mu.Lock()
			defer mu.Unlock()
			at = t
			return nil
		}
		h.read = func(buf []byte) ([]byte, error) {
			mu.Lock()
			_ = h.Conn.SetReadDeadline(at)
			mu.Unlock()
			return h.Conn.ReadFrame(buf)
		}
	})},
	{name: "has one deadline for both directions", found: "ReadDeadline", says: "the other direction", conn: onConn(func(_ *world, h *hooks) {
		h.setReadDeadline = func(t time.Time) error {
			return errors.Join(h.Conn.SetReadDeadline(t), h.Conn.SetWriteDeadline(t))
		}
	})},
	{name: "has deadlines with another error", found: "ReadDeadline", says: "want i/o timeout", conn: onConn(func(_ *world, h *hooks) {
		h.read = func(buf []byte) ([]byte, error) {
			frame, err := h.Conn.ReadFrame(buf)
			if err != nil {
				err = errors.New("too late")
			}
			return frame, err
		}
	})},
	{name: "has no write deadline", found: "WriteDeadline", says: "want i/o timeout", conn: onConn(func(_ *world, h *hooks) {
		h.setWriteDeadline = func(time.Time) error { return nil }
	})},
	{name: "has deadlines that stay", found: "DeadlineTakenBack", says: "taken back", conn: onConn(func(_ *world, h *hooks) {
		h.setReadDeadline = func(t time.Time) error {
			if t.IsZero() {
				return nil
			}
			return h.Conn.SetReadDeadline(t)
		}
	})},

	{name: "reads for ever when nothing comes", found: "ReadIdle", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		h.setReadIdle = func(time.Duration) error { return nil }
	})},
	{name: "has an idle time for the next call only", found: "ReadIdle", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		var idle atomic.Int64
		h.setReadIdle = func(d time.Duration) error { idle.Store(int64(d)); return nil }
		h.read = func(buf []byte) ([]byte, error) {
			_ = h.Conn.SetReadIdle(time.Duration(idle.Load()))
			return h.Conn.ReadFrame(buf)
		}
	})},
	{name: "counts from one frame to the next", found: "IdleInCallsOnly", says: "i/o timeout", conn: onConn(func(_ *world, h *hooks) {
		var idle, last atomic.Int64
		start := time.Now()
		h.setReadIdle = func(d time.Duration) error {
			idle.Store(int64(d))
			last.Store(int64(time.Since(start)))
			return nil
		}
		h.read = func(buf []byte) ([]byte, error) {
			if d := idle.Load(); d > 0 {
				_ = h.Conn.SetReadDeadline(start.Add(time.Duration(last.Load() + d)))
			}
			frame, err := h.Conn.ReadFrame(buf)
			last.Store(int64(time.Since(start)))
			return frame, err
		}
	})},
	{name: "counts from when it was set", found: "IdleInCallsOnly", says: "i/o timeout", conn: onConn(func(_ *world, h *hooks) {
		h.setReadIdle = func(d time.Duration) error {
			if d == 0 {
				return h.Conn.SetReadDeadline(time.Time{})
			}
			return h.Conn.SetReadDeadline(time.Now().Add(d))
		}
	})},
	{name: "has idle times that stay", found: "IdleTakenBack", says: "taken back", conn: onConn(func(_ *world, h *hooks) {
		h.setReadIdle = func(d time.Duration) error {
			if d == 0 {
				return nil
			}
			return h.Conn.SetReadIdle(d)
		}
	})},
	{name: "has an idle time in place of a deadline", found: "IdleBesideDeadline", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		h.setReadIdle = func(d time.Duration) error {
			return errors.Join(h.Conn.SetReadDeadline(time.Time{}), h.Conn.SetReadIdle(d))
		}
	})},
	{name: "has a deadline in place of an idle time", found: "IdleBesideDeadline", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		h.setReadDeadline = func(t time.Time) error {
			return errors.Join(h.Conn.SetReadIdle(0), h.Conn.SetReadDeadline(t))
		}
	})},
	{name: "counts from the beginning of a frame", found: "IdleWhileBytesCome", says: "i/o timeout", conn: onConn(func(_ *world, h *hooks) {
		var idle atomic.Int64
		h.setReadIdle = func(d time.Duration) error { idle.Store(int64(d)); return nil }
		h.read = func(buf []byte) ([]byte, error) {
			if d := time.Duration(idle.Load()); d > 0 {
				_ = h.Conn.SetReadDeadline(time.Now().Add(d))
			}
			return h.Conn.ReadFrame(buf)
		}
	})},

	{name: "says nothing of parts", found: "Parts", says: "told 0 times", conn: onConn(func(_ *world, h *hooks) {
		h.onPart = func(func()) {}
	})},
	{name: "goes on to tell of parts", found: "Parts", says: "after OnPart(nil)", conn: onConn(func(_ *world, h *hooks) {
		h.onPart = func(f func()) {
			if f != nil {
				h.Conn.OnPart(f)
			}
		}
	})},

	{name: "closes when it is done with reading", found: "CloseWakes", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		var reading atomic.Bool
		h.read = func(buf []byte) ([]byte, error) {
			reading.Store(true)
			defer reading.Store(false)
			return h.Conn.ReadFrame(buf)
		}
		h.closes = func() error {
			if reading.Load() {
				return nil
			}
			return h.Conn.Close()
		}
	})},
	{name: "returns EOF after Close", found: "CloseWakes", says: "want transport: closed", conn: onConn(func(_ *world, h *hooks) {
		h.read = func(buf []byte) ([]byte, error) {
			frame, err := h.Conn.ReadFrame(buf)
			if errors.Is(err, transport.ErrClosed) {
				err = io.EOF
			}
			return frame, err
		}
	})},
	{name: "fails in the second Close", found: "CloseTwice", says: "closed already", conn: onConn(func(_ *world, h *hooks) {
		var closed atomic.Bool
		h.closes = func() error {
			if closed.Swap(true) {
				return errors.New("closed already")
			}
			return h.Conn.Close()
		}
	})},
	{name: "returns EOF when the other side closes", found: "CloseByOtherSide", says: "want transport: closed by the other side", conn: onConn(func(_ *world, h *hooks) {
		h.read = func(buf []byte) ([]byte, error) {
			frame, err := h.Conn.ReadFrame(buf)
			if errors.Is(err, transport.ErrPeerClosed) {
				err = io.EOF
			}
			return frame, err
		}
	})},
	{name: "recovers from errors", found: "CloseByOtherSide", says: "want an error", conn: onConn(func(_ *world, h *hooks) {
		failed := false
		h.read = func(buf []byte) ([]byte, error) {
			if failed {
				return buf[:0], nil
			}
			frame, err := h.Conn.ReadFrame(buf)
			failed = err != nil
			return frame, err
		}
	})},
	{name: "writes to who has gone", found: "CloseByOtherSide", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		h.write = func(frame []byte) error {
			err := h.Conn.WriteFrame(frame)
			if errors.Is(err, transport.ErrPeerClosed) {
				err = nil
			}
			return err
		}
	})},
	{name: "closes without a word", found: "CloseByOtherSideFreesWriter", says: "stuck", conn: onConn(func(w *world, h *hooks) {
		h.closes = func() error {
			for _, c := range w.network.Connections() {
				c.Stall()
			}
			return h.Conn.Close()
		}
	})},
	{name: "shuts down at once", found: "ShutdownDelivers", says: "it should wait", conn: onConn(func(_ *world, h *hooks) {
		h.shutdown = func(context.Context) error { return h.Conn.Close() }
	})},
	{name: "resets in Shutdown", found: "ShutdownDeliversWithUnread", says: "what was written before Shutdown", conn: onConn(func(w *world, h *hooks) {
		h.shutdown = func(context.Context) error {
			for _, c := range w.network.Connections() {
				c.Cut()
			}
			return nil
		}
	})},
	{name: "steals from who reads during Shutdown", found: "ShutdownReadsOn", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		h.shutdown = func(ctx context.Context) error {
			for {
				if _, err := h.Conn.ReadFrame(nil); err != nil {
					return h.Conn.Shutdown(ctx)
				}
			}
		}
	})},
	{name: "cannot shut down on both sides", found: "ShutdownByBoth", says: "stuck", conn: onConn(func(w *world, h *hooks) {
		h.shutdown = func(ctx context.Context) error {
			select {
			case w.turn <- struct{}{}:
				defer func() { <-w.turn }()
				return h.Conn.Shutdown(ctx)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})},
	{name: "shuts down without end", found: "ShutdownEndsWithContext", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		h.shutdown = func(ctx context.Context) error { return h.Conn.Shutdown(context.WithoutCancel(ctx)) }
	})},

	{name: "shuts down to the end", found: "ShutdownEndsWithClose", says: "stuck", conn: onConn(func(_ *world, h *hooks) {
		h.shutdown = func(ctx context.Context) error {
			<-ctx.Done()
			return h.Conn.Shutdown(ctx)
		}
	})},

	{name: "accepts nothing after Close", found: "AcceptEnds", says: "Accept after Close: <nil>", accept: onListener(func(_ *world, h *listenerHooks) {
		var ended atomic.Bool
		h.accept = func() (transport.Conn, error) {
			c, err := h.Listener.Accept()
			if err != nil && ended.Swap(true) {
				return nil, nil
			}
			return c, err
		}
	})},
	{name: "accepts on after Close", found: "AcceptEnds", says: "stuck", accept: onListener(func(_ *world, h *listenerHooks) {
		h.closes = func() error { return nil }
	})},
	{name: "shares its address", found: "AddressInUse", says: "took an address that is in use", listen: func(w *world, ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
		l, err := w.network.Transport("b").Listen(ctx, o)
		if err != nil {
			return w.network.Transport("c").Listen(ctx, o)
		}
		return l, nil
	}},
	{name: "keeps its address", found: "ListenAgain", says: "address in use", accept: onListener(func(_ *world, h *listenerHooks) {
		h.closes = func() error {
			time.AfterFunc(time.Millisecond, func() { _ = h.Listener.Close() })
			return nil
		}
	})},
	{name: "listens as long as the context", found: "ListenContext", says: "Accept returned", listen: func(w *world, ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
		l, err := w.network.Transport("b").Listen(ctx, o)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = l.Close() })
		}
		return l, err
	}},
	{name: "closes what it has accepted", found: "AcceptedOutliveListener", says: "ReadFrame returned", accept: onListener(func(_ *world, h *listenerHooks) {
		var accepted []transport.Conn
		h.accept = func() (transport.Conn, error) {
			c, err := h.Listener.Accept()
			accepted = append(accepted, c)
			return c, err
		}
		h.closes = func() error {
			for _, c := range accepted {
				_ = c.Close()
			}
			return h.Listener.Close()
		}
	})},
	{name: "forgets who waits", found: "PendingCloseWithListener", says: "stuck", accept: onListener(func(w *world, h *listenerHooks) {
		h.closes = func() error {
			for _, c := range w.network.Connections() {
				c.Stall()
			}
			return h.Listener.Close()
		}
	})},
	{name: "forgets who dials", found: "CloseWhileDialling", says: "stuck", dial: func(w *world, ctx context.Context, endpoint string) (transport.Conn, error) {
		c, err := w.network.Transport("a").Dial(ctx, endpoint)
		if err != nil {
			<-ctx.Done()
		}
		return c, err
	}},
	{name: "has an endpoint of somebody else", found: "EndpointsAreDialable", says: `Dial("memory:c")`, accept: onListener(func(_ *world, h *listenerHooks) {
		h.endpoints = func() []string { return append(h.Listener.Endpoints(), "memory:c") }
	})},

	{name: "finds nobody wrong", found: "DialNobody", says: "matches ErrEndpoint", dial: func(w *world, ctx context.Context, endpoint string) (transport.Conn, error) {
		c, err := w.network.Transport("a").Dial(ctx, endpoint)
		if err != nil {
			return nil, transport.ErrEndpoint
		}
		return c, nil
	}},
	{name: "finds nothing wrong", found: "DialInvalid", says: "cannot dial, want ErrEndpoint", dial: func(w *world, ctx context.Context, endpoint string) (transport.Conn, error) {
		c, err := w.network.Transport("a").Dial(ctx, endpoint)
		if err != nil {
			return nil, errors.New("cannot dial")
		}
		return c, nil
	}},
	{name: "dials without its context, before", found: "DialContextBefore", says: "want context canceled", dial: dialWithoutContext},
	{name: "dials without its context, during", found: "DialContextDuring", says: "stuck", dial: dialWithoutContext},
	{name: "leaves what it has begun to dial", found: "DialContextBefore", says: "stuck", dial: func(w *world, ctx context.Context, endpoint string) (transport.Conn, error) {
		c, err := dialWithoutContext(w, ctx, endpoint)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return c, err
	}},
	{name: "connects as long as the context", found: "DialContextAfter", says: "after the context of Dial has ended", dial: func(w *world, ctx context.Context, endpoint string) (transport.Conn, error) {
		c, err := w.network.Transport("a").Dial(ctx, endpoint)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = c.Close() })
		}
		return c, err
	}},
	{name: "leaves a goroutine", found: "DialNobody", says: "goroutines are left", dial: func(w *world, ctx context.Context, endpoint string) (transport.Conn, error) {
		go func() { select {} }()
		return w.network.Transport("a").Dial(ctx, endpoint)
	}},
	{name: "has endpoints on both sides", found: "Info", says: "for who accepted", conn: onInfo(func(i *transport.Info) { i.Endpoint = "memory:b" })},
	{name: "has no addresses", found: "Info", says: "an address is missing", conn: onInfo(func(i *transport.Info) { i.LocalAddr = "" })},
	{name: "is secure on one side", found: "Info", says: "secure on one side", conn: onInfo(func(i *transport.Info) { i.Secure = i.Endpoint != "" })},
	{name: "has a binding for each side", found: "Info", says: "different bindings", config: memory.Config{Secure: true}, conn: onInfo(func(i *transport.Info) {
		i.Binding = append([]byte(i.LocalAddr), i.Binding...)
	})},
	{name: "has one binding for all", found: "Info", says: "that of another connection", config: memory.Config{Secure: true}, conn: onInfo(func(i *transport.Info) {
		i.Binding = make([]byte, 32)
	})},
	{name: "has a binding without security", found: "Info", says: "not secure", config: memory.Config{Secure: true}, conn: onInfo(func(i *transport.Info) { i.Secure = false })},
	{name: "has other addresses after Close", found: "Info", says: "Info has changed", conn: onConn(func(_ *world, h *hooks) {
		var closed atomic.Bool
		h.closes = func() error { closed.Store(true); return h.Conn.Close() }
		h.info = func() transport.Info {
			info := h.Conn.Info()
			if closed.Load() {
				info.LocalAddr = "closed"
			}
			return info
		}
	})},
	{name: "dials one at a time", found: "ManyAtOnce", says: "stuck", dial: func(w *world, ctx context.Context, endpoint string) (transport.Conn, error) {
		select {
		case w.turn <- struct{}{}: // and keeps it, as long as the connection
			return w.network.Transport("a").Dial(ctx, endpoint)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}},
	{name: "accepts strangers", found: "Strangers", says: "from the dialler", dialRaw: func(w *world, endpoint string) (io.ReadWriteCloser, error) {
		c, err := w.network.Transport("a").Dial(context.Background(), endpoint)
		return raw{c}, err
	}},
	{name: "closes in order only", found: "HalfOpen", says: "Close waits", conn: onConn(func(_ *world, h *hooks) {
		h.closes = func() error {
			_ = h.Conn.Shutdown(context.Background())
			return nil
		}
	})},
}

func dialWithoutContext(w *world, ctx context.Context, endpoint string) (transport.Conn, error) {
	return w.network.Transport("a").Dial(context.WithoutCancel(ctx), endpoint)
}

// raw writes frames of garbage.
type raw struct{ transport.Conn }

func (r raw) Read([]byte) (int, error) { return 0, io.EOF }

func (r raw) Write(p []byte) (int, error) { return len(p), r.WriteFrame(p) }
