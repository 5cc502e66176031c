package transporttest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gravbus/gravbus/transport"
)

// Close ends the ReadFrame and WriteFrame that are in progress, with ErrClosed, and so do all that
// follow.
func closeWakes(t *test) {
	t.bothWays(func(from, _ transport.Conn) {
		reading := t.start(func() error { _, err := from.ReadFrame(nil); return err })
		writing, _ := t.fill(from)
		t.mustWait("ReadFrame", reading)
		t.must("Close", from.Close())
		t.mustBe("ReadFrame in progress", reading.wait(), transport.ErrClosed)
		t.mustBe("WriteFrame in progress", writing.wait(), transport.ErrClosed)
		t.readFails(from, transport.ErrClosed)
		t.mustBe("WriteFrame after Close", from.WriteFrame(nil), transport.ErrClosed)
	})
}

// Close may be called again, by anybody, and returns nil. It wins over what was wrong before.
func closeTwice(t *test) {
	a, b := t.pair()
	t.must("Close", b.Close())
	t.readFails(a, nil)
	var calls []*call
	for range 4 {
		calls = append(calls, t.start(a.Close))
	}
	t.must("Close", waitAll(calls...))
	t.must("Close again", a.Close())
	t.readFails(a, transport.ErrClosed)
	t.mustBe("Shutdown after Close", a.Shutdown(t.Context()), transport.ErrClosed)
}

// When the other side closes, a ReadFrame that waits returns ErrPeerClosed, and WriteFrame an error
// some time after that. What the other side had read before does not matter.
func closeByOtherSide(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		t.must("one frame", errors.Join(send(from, 1, 100), receive(to, 1, 100)))
		reading := t.start(func() error { _, err := to.ReadFrame(nil); return err })
		t.mustWait("ReadFrame", reading)
		t.must("Close", from.Close())
		t.mustBe("ReadFrame in progress", reading.wait(), transport.ErrPeerClosed)
		t.readFails(to, nil)
		err := t.writeUntilError(to)
		if again := to.WriteFrame(nil); again == nil {
			t.Errorf("WriteFrame returned nil after %v", err)
		}
	})
}

// writeUntilError writes until that fails.
func (t *test) writeUntilError(c transport.Conn) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if err := c.WriteFrame([]byte("are you there?")); err != nil {
			return err
		}
		<-tick.C
	}
}

// A WriteFrame that waits, because the other side does not read, returns when that closes.
func closeByOtherSideFreesWriter(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		stuck, _ := t.fill(from)
		t.must("Close", to.Close())
		if err := stuck.wait(); err == nil || errors.Is(err, transport.ErrClosed) {
			t.Errorf("WriteFrame in progress: %v, want an error that says that the other side has closed", err)
		}
	})
}

// readAll reads what send writes, up to ErrPeerClosed, and closes.
func readAll(c transport.Conn, n int, sizes ...int) error {
	if err := receive(c, n, sizes...); err != nil {
		return err
	}
	for range 2 {
		if frame, err := c.ReadFrame(nil); !errors.Is(err, transport.ErrPeerClosed) {
			return fmt.Errorf("ReadFrame after the last frame: %q, %w, want ErrPeerClosed", frame, err)
		}
	}
	return c.Close()
}

// Shutdown loses nothing: the other side, however late, reads all that was written before, then
// ErrPeerClosed. Shutdown waits until the other side has closed too. The Conn is closed then.
func shutdownDelivers(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		const n = 50
		t.must("send", send(from, n, 1000))
		down := t.start(func() error { return from.Shutdown(t.Context()) })
		t.mustWait("Shutdown, while the other side has not closed,", down)
		t.must("what was written before Shutdown", readAll(to, n, 1000))
		t.must("Shutdown", down.wait())
		t.readFails(from, transport.ErrClosed)
		t.mustBe("WriteFrame after Shutdown", from.WriteFrame(nil), transport.ErrClosed)
		t.must("Close after Shutdown", from.Close())
	})
}

// Shutdown loses nothing when there are frames that its caller has not read and will not read, and
// frees the other side if that waits to write more of them. (A socket that is closed with unread
// data takes back what it has sent.)
func shutdownDeliversWithUnread(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		const n = 50
		t.must("send", errors.Join(send(from, n, 1000), send(to, n, 1000)))
		stuck, _ := t.fill(to)
		down := t.start(func() error { return from.Shutdown(t.Context()) })
		t.must("what was written before Shutdown", readAll(to, n, 1000))
		t.must("Shutdown", down.wait())
		_ = stuck.wait()
	})
}

// A caller of Shutdown that goes on to read loses nothing of what the other side wrote until that
// closed too.
func shutdownReadsOn(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		n := t.withoutPause(50)
		reading := t.start(func() error { return receiveAll(from, n, 1000) })
		t.mustWait("ReadFrame", reading)
		down := t.start(func() error { return from.Shutdown(t.Context()) })
		t.mustWait("Shutdown", down)
		t.must("send to one who shuts down", send(to, n, 1000))
		t.must("Shutdown of the other side", to.Shutdown(t.Context()))
		t.must("ReadFrame during Shutdown", reading.wait())
		t.must("Shutdown", down.wait())
	})
}

// withoutPause returns how many of n frames can be read without a pause. In real time it is one, as
// between two the machine may be busy with other things for any time.
func (t *test) withoutPause(n int) int {
	if t.bubble {
		return n
	}
	return 1
}

// receiveAll reads what send writes, and then that the connection has ended. Who has called
// Shutdown cannot know which side is first.
func receiveAll(c transport.Conn, n int, sizes ...int) error {
	if err := receive(c, n, sizes...); err != nil {
		return err
	}
	if _, err := c.ReadFrame(nil); !errors.Is(err, transport.ErrPeerClosed) && !errors.Is(err, transport.ErrClosed) {
		return fmt.Errorf("ReadFrame after the last frame: %w", err)
	}
	return nil
}

// Both sides may shut down at the same time. If both read, both get all.
func shutdownByBoth(t *test) {
	a, b := t.pair()
	n := t.withoutPause(50)
	readA := t.start(func() error { return receiveAll(a, n, 1000) })
	readB := t.start(func() error { return receiveAll(b, n, 1000) })
	t.mustWait("ReadFrame", readA)
	t.mustWait("ReadFrame", readB)
	t.must("send", errors.Join(send(a, n, 1000), send(b, n, 1000)))
	t.must("both at once", waitAll(readA, readB,
		t.start(func() error { return a.Shutdown(t.Context()) }),
		t.start(func() error { return b.Shutdown(t.Context()) }),
	))
	a, b = t.pair()
	t.must("send", errors.Join(send(a, n, 1000), send(b, n, 1000)))
	t.must("both at once, without reading", waitAll(
		t.start(func() error { return a.Shutdown(t.Context()) }),
		t.start(func() error { return b.Shutdown(t.Context()) }),
	))
}

// Shutdown returns soon after its context has ended, with the context's error, whatever the other
// side does. The Conn is closed then.
func shutdownEndsWithContext(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		t.must("send", errors.Join(send(from, 3, 100), send(to, 3, 100)))
		ctx, cancel := context.WithCancel(t.Context())
		down := t.start(func() error { return from.Shutdown(ctx) })
		t.mustWait("Shutdown, while the other side has not closed,", down)
		cancel()
		t.mustBe("Shutdown", down.wait(), context.Canceled)
		t.readFails(from, transport.ErrClosed)
		t.must("what was written before Shutdown", receive(to, 3, 100))
		t.readFails(to, transport.ErrPeerClosed)
	})
	t.bothWays(func(from, _ transport.Conn) {
		ctx, cancel := t.withTimeout()
		defer cancel()
		t.mustBe("Shutdown", from.Shutdown(ctx), context.DeadlineExceeded)
	})
}

// Close ends a Shutdown that waits, with ErrClosed: whoever has to be quick need not know whether
// somebody else is patient.
func shutdownEndsWithClose(t *test) {
	t.bothWays(func(from, _ transport.Conn) {
		down := t.start(func() error { return from.Shutdown(t.Context()) })
		t.mustWait("Shutdown, while the other side has not closed,", down)
		t.must("Close", from.Close())
		t.mustBe("Shutdown", down.wait(), transport.ErrClosed)
	})
}
