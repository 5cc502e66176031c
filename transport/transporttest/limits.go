package transporttest

import (
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/gravbus/gravbus/transport"
)

// Until SetReadLimit is called, a frame may have DefaultReadLimit bytes and no more. After a longer
// one the connection is of no use: nothing is read from it any more.
func readLimitDefault(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		const limit = transport.DefaultReadLimit
		sent := t.start(func() error { return send(from, 3, limit, limit+1, 1) })
		t.must("a frame at the limit", receive(to, 1, limit))
		t.readFails(to, transport.ErrFrameTooLarge)
		t.must("Close", to.Close())
		_ = sent.wait() // may notice that the other side has closed
	})
}

// SetReadLimit holds for the frames that are returned from then on, whatever was sent already: the
// bus reads a handshake with a low limit, and the rest with a high one.
func readLimitSet(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		sent := t.start(func() error { return send(from, 4, 10, 100_000, 1000, 1001) })
		to.SetReadLimit(10)
		frame, err := to.ReadFrame(nil)
		t.must("a frame at a low limit", err)
		to.SetReadLimit(100_000)
		frame, err = to.ReadFrame(frame)
		t.must("a frame at a raised limit", err)
		to.SetReadLimit(1000)
		_, err = to.ReadFrame(frame)
		t.must("a frame at a lowered limit", err)
		t.readFails(to, transport.ErrFrameTooLarge)
		t.must("Close", to.Close())
		_ = sent.wait()
	})
}

// A frame over the limit is refused before memory is spent on it, or strangers could spend it.
func readLimitSavesMemory(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		const size = 16 << 20
		frame := make([]byte, size)
		sent := t.start(func() error { return from.WriteFrame(frame) })
		t.returned(sent) // what it takes to send is not counted
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		t.readFails(to, transport.ErrFrameTooLarge)
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; spent > size/4 {
			t.Errorf("it took %d bytes of memory to refuse a frame of %d", spent, size)
		}
		t.must("Close", to.Close())
		_ = sent.wait()
	})
}

// WriteFrame waits while the other side does not read and what lies between is full, which it is
// some time; then nothing is lost, and when the other side reads it goes on.
func backpressure(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		to.SetReadLimit(64 << 10)
		stuck, written := t.fill(from)
		for i := range written() + 1 {
			frame, err := to.ReadFrame(nil)
			t.must("ReadFrame", err)
			if want := makeFrame(i, 64<<10); string(frame) != string(want) {
				t.Fatalf("frame %d is another one after WriteFrame has waited", i)
			}
		}
		t.must("Close", from.Close())
		if err := stuck.wait(); err == nil {
			t.Error("WriteFrame returned nil after Close")
		}
	})
}

// A read deadline ends ReadFrame with an error that matches os.ErrDeadlineExceeded: when it comes,
// when it is set while ReadFrame waits, and at once when it has passed before. It does not touch the
// other direction.
func readDeadline(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		t.must("SetReadDeadline", to.SetReadDeadline(time.Now().Add(-time.Hour)))
		t.readFails(to, os.ErrDeadlineExceeded)
		t.must("the other direction", errors.Join(send(to, 3, 100), receive(from, 3, 100)))
	})
	t.bothWays(func(_, to transport.Conn) {
		t.must("SetReadDeadline", to.SetReadDeadline(time.Now().Add(moment)))
		t.readFails(to, os.ErrDeadlineExceeded)
	})
	t.bothWays(func(_, to transport.Conn) {
		reading := t.start(func() error { _, err := to.ReadFrame(nil); return err })
		t.mustWait("ReadFrame", reading)
		t.must("SetReadDeadline", to.SetReadDeadline(time.Now().Add(-time.Hour)))
		t.mustBe("ReadFrame in progress", reading.wait(), os.ErrDeadlineExceeded)
	})
}

// The same for a write deadline and WriteFrame.
func writeDeadline(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		t.must("SetWriteDeadline", from.SetWriteDeadline(time.Now().Add(-time.Hour)))
		t.mustBe("WriteFrame", from.WriteFrame([]byte("late")), os.ErrDeadlineExceeded)
		if err := from.WriteFrame([]byte("late")); err == nil {
			t.Fatal("WriteFrame returned nil after an error")
		}
		t.must("the other direction", errors.Join(send(to, 3, 100), receive(from, 3, 100)))
	})
	t.bothWays(func(from, _ transport.Conn) {
		stuck, _ := t.fill(from)
		t.must("SetWriteDeadline", from.SetWriteDeadline(time.Now().Add(moment)))
		t.mustBe("WriteFrame in progress", stuck.wait(), os.ErrDeadlineExceeded)
	})
	t.bothWays(func(from, _ transport.Conn) {
		stuck, _ := t.fill(from)
		t.must("SetWriteDeadline", from.SetWriteDeadline(time.Now().Add(-time.Hour)))
		t.mustBe("WriteFrame in progress", stuck.wait(), os.ErrDeadlineExceeded)
	})
}

// A deadline that is moved, or taken back by the zero time, before it comes does not count. A
// handshake has one, what follows has not.
func deadlineTakenBack(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		for _, c := range []transport.Conn{from, to} {
			for _, at := range []time.Time{time.Now().Add(moment / 2), {}} {
				t.must("SetReadDeadline", c.SetReadDeadline(at))
				t.must("SetWriteDeadline", c.SetWriteDeadline(at))
			}
		}
		reading := t.start(func() error { return receive(to, 2, 100) })
		if reading.within(moment) {
			t.Fatalf("ReadFrame returned (%v), at a deadline that was taken back", reading.err)
		}
		t.must("after the deadline was taken back", errors.Join(send(from, 2, 100), reading.wait()))
	})
}
