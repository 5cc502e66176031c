package transporttest

import (
	"bytes"
	"errors"
	"time"

	"github.com/gravbus/gravbus/transport"
)

// Frames come in the order in which they were written, each once and whole, in both directions at
// the same time.
func order(t *test) {
	a, b := t.pair()
	sizes := []int{1, 1000, 8, 4096, 16, 125, 126, 127, 10_000}
	const n = 1000
	t.must("both directions at once", waitAll(
		t.start(func() error { return send(a, n, sizes...) }),
		t.start(func() error { return send(b, n, sizes...) }),
		t.start(func() error { return receive(a, n, sizes...) }),
		t.start(func() error { return receive(b, n, sizes...) }),
	))
}

// A frame has the size it was written with: an empty one is a frame, and no size is special,
// whatever lengths are in what the transport puts around it.
func sizes(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		to.SetReadLimit(1 << 20)
		sizes := []int{0, 1, 0, 0, 124, 125, 126, 127, 128, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, 0, 1}
		sent := t.start(func() error {
			return errors.Join(send(from, len(sizes), sizes...), from.WriteFrame(nil))
		})
		t.must("sizes", receive(to, len(sizes), sizes...))
		if frame, err := to.ReadFrame(nil); err != nil || len(frame) != 0 {
			t.Errorf("WriteFrame(nil) came as %d bytes, %v; want an empty frame", len(frame), err)
		}
		t.must("sizes", sent.wait())
	})
}

// ReadFrame appends to buf[:0]: what was in buf is no part of the frame, whether the frame fits into
// it or not.
func readFrameAppends(t *test) {
	a, b := t.pair()
	sizes := []int{100, 0, 5000, 3, 100}
	t.must("send", send(a, len(sizes), sizes...))
	for i, size := range sizes {
		buf := bytes.Repeat([]byte("old"), 50)
		frame, err := b.ReadFrame(buf)
		t.must("ReadFrame", err)
		if !bytes.Equal(frame, makeFrame(i, size)) {
			t.Errorf("a frame of %d bytes, read into a buffer of %d, came as %d other bytes", size, len(buf), len(frame))
		}
	}
}

// What ReadFrame returns belongs to the caller: reading on does not change it, and what the caller
// does with it changes nothing that comes.
func frameBelongsToReader(t *test) {
	a, b := t.pair()
	const n, size = 20, 1000
	t.must("send", send(a, n, size))
	var frames [][]byte
	for range n {
		frame, err := b.ReadFrame(nil)
		t.must("ReadFrame", err)
		frames = append(frames, frame)
		clear(frame[size/2:])
	}
	for i, frame := range frames {
		want := makeFrame(i, size)
		clear(want[size/2:])
		if !bytes.Equal(frame, want) {
			t.Fatalf("frame %d changed in the hands of its reader", i)
		}
	}
}

// WriteFrame does not keep the frame: when it has returned the caller may use the memory for other
// things, even if nobody has read the frame yet.
func writeFrameKeepsNothing(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		const n, size = 20, 1000
		frame := make([]byte, size)
		for i := range n {
			copy(frame, makeFrame(i, size))
			t.must("WriteFrame", from.WriteFrame(frame))
			clear(frame)
		}
		t.must("a frame overwritten after WriteFrame", receive(to, n, size))
	})
}

// WriteFrame does not change the frame, nor what is behind it, and others may read it at the same
// time: one frame goes to several peers. (Under -race, that others write it is an error too.)
func writeFrameChangesNothing(t *test) {
	l := t.listen()
	const size, peers = 5000, 3
	frame := makeFrame(0, size)
	behind := frame[size:cap(frame)]
	copy(behind, "what is behind")
	want := bytes.Clone(behind)
	var calls []*call
	for i := range peers {
		from := t.dial(t.endpoint(l))
		to := t.accept(l)
		if i == 1 {
			from, to = to, from
		}
		calls = append(calls,
			t.start(func() error {
				for range 20 {
					if err := from.WriteFrame(frame); err != nil {
						return err
					}
				}
				return nil
			}),
			t.start(func() error {
				for range 20 {
					if err := receive(to, 1, size); err != nil {
						return err
					}
				}
				return nil
			}))
	}
	t.must("one frame for several peers", waitAll(calls...))
	if !bytes.Equal(frame, makeFrame(0, size)) || !bytes.Equal(behind, want) {
		t.Error("WriteFrame changed the frame, or the memory behind it")
	}
}

// ReadFrame and WriteFrame may run at the same time, and all other methods at any time. (Under
// -race, what is wrong about it shows.)
func concurrentUse(t *test) {
	a, b := t.pair()
	const n = 300
	control := func(c transport.Conn) error {
		for i := range n {
			c.SetReadLimit(int64(1000 + i))
			if err := errors.Join(
				c.SetReadDeadline(time.Now().Add(time.Hour)),
				c.SetWriteDeadline(time.Now().Add(time.Hour)),
				c.SetReadDeadline(time.Time{}),
				c.SetWriteDeadline(time.Time{}),
				c.SetReadIdle(time.Hour),
				c.SetReadIdle(0),
			); err != nil {
				return err
			}
			c.OnPart(func() {})
			_ = c.Info()
		}
		return nil
	}
	var calls []*call
	for _, c := range []transport.Conn{a, b} {
		reading := t.start(func() error { return receive(c, n, 1000) })
		t.mustWait("ReadFrame", reading)
		t.must("during ReadFrame", control(c))
		calls = append(calls, reading)
	}
	for _, c := range []transport.Conn{a, b} {
		calls = append(calls,
			t.start(func() error { return send(c, n, 1000) }),
			t.start(func() error { return control(c) }),
			t.start(func() error { return control(c) }))
	}
	t.must("all at once", waitAll(calls...))

	calls = nil
	ctx, cancel := t.withTimeout()
	defer cancel()
	for _, c := range []transport.Conn{a, b} {
		for range 2 {
			calls = append(calls,
				t.start(func() error { _ = c.Shutdown(ctx); return nil }),
				t.start(func() error { return c.Close() }))
		}
	}
	t.must("Close at once with Shutdown", waitAll(calls...))
}
