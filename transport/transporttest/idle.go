package transporttest

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/transport"
)

// An idle time ends ReadFrame with an error that matches os.ErrDeadlineExceeded when nothing has come
// for so long, also when it is set while ReadFrame waits. It does not touch the other direction.
func readIdle(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		t.must("SetReadIdle", to.SetReadIdle(moment))
		t.readFails(to, os.ErrDeadlineExceeded)
		t.must("the other direction", errors.Join(send(to, 3, 100), receive(from, 3, 100)))
	})
	t.bothWays(func(_, to transport.Conn) {
		t.must("SetReadIdle", to.SetReadIdle(time.Hour))
		reading := t.start(func() error { _, err := to.ReadFrame(nil); return err })
		t.mustWait("ReadFrame", reading)
		t.must("SetReadIdle", to.SetReadIdle(moment))
		t.mustBe("ReadFrame in progress", reading.wait(), os.ErrDeadlineExceeded)
	})
}

// Only a call that waits is idle: a connection that nobody uses for longer goes on as before. And
// each call has the whole time, so that frames may come for ever.
func idleInCallsOnly(t *test) {
	const idle = 10 * moment
	a, b := t.pair()
	t.must("SetReadIdle", errors.Join(a.SetReadIdle(idle), b.SetReadIdle(idle)))
	t.carries(a, b)
	t.pause(idle + moment)
	t.carries(a, b)
	reading := t.start(func() error { return receive(b, 4, 100) })
	for i := range 4 {
		t.pause(idle / 2)
		t.must("WriteFrame", a.WriteFrame(makeFrame(i, 100)))
	}
	t.must("frames that come within the idle time", reading.wait())
}

// An idle time that is taken back, by zero, before it has passed does not count.
func idleTakenBack(t *test) {
	t.bothWays(func(from, to transport.Conn) {
		t.must("SetReadIdle", to.SetReadIdle(10*moment))
		reading := t.start(func() error { return receive(to, 2, 100) })
		for _, d := range []time.Duration{10 * moment, 0} {
			t.must("SetReadIdle", to.SetReadIdle(d))
		}
		if reading.within(11 * moment) {
			t.Fatalf("ReadFrame returned (%v), after an idle time that was taken back", reading.err)
		}
		t.must("after the idle time was taken back", errors.Join(send(from, 2, 100), reading.wait()))
	})
}

// Deadline and idle time hold beside each other: what comes first ends the call, and neither one is
// taken back with the other.
func idleBesideDeadline(t *test) {
	for _, idle := range []time.Duration{0, time.Hour} { // of which neither comes
		t.bothWays(func(_, to transport.Conn) {
			t.must("SetReadDeadline", to.SetReadDeadline(time.Now().Add(moment)))
			t.must("SetReadIdle", to.SetReadIdle(idle))
			t.readFails(to, os.ErrDeadlineExceeded)
		})
	}
	for _, at := range []time.Time{{}, time.Now().Add(time.Hour)} {
		t.bothWays(func(_, to transport.Conn) {
			t.must("SetReadIdle", to.SetReadIdle(moment))
			t.must("SetReadDeadline", to.SetReadDeadline(at))
			t.readFails(to, os.ErrDeadlineExceeded)
		})
	}
}

// A frame that takes longer than the idle time gets through while its bytes come.
func idleWhileBytesCome(t *test) {
	if t.Drip == nil {
		t.Skip("the harness has no Drip")
	}
	const idle, part, parts = 20 * moment, 100, 60
	a, b := t.pair()
	t.carries(a, b)
	t.must("SetReadIdle", errors.Join(a.SetReadIdle(idle), b.SetReadIdle(idle)))
	t.Drip(part, moment)
	began := time.Now()
	t.must("a frame that comes slowly", waitAll(
		t.start(func() error { return send(a, 1, part*parts) }),
		t.start(func() error { return send(b, 1, part*parts) }),
		t.start(func() error { return receive(a, 1, part*parts) }),
		t.start(func() error { return receive(b, 1, part*parts) }),
	))
	if took := time.Since(began); took < 2*idle {
		t.Errorf("the frame came in %v: the harness does not drip", took)
	}
}

// Who reads hears of a long frame while it is on its way, as long as it wants to.
func parts(t *test) {
	if t.Drip == nil {
		t.Skip("the harness has no Drip")
	}
	const part, count = 100, 20
	a, b := t.pair()
	t.carries(a, b)
	t.Drip(part, moment)
	for _, c := range [][2]transport.Conn{{a, b}, {b, a}} {
		from, to := c[0], c[1]
		var heard atomic.Int64
		frame := func() int64 {
			before := heard.Load()
			t.must("a frame that comes slowly", waitAll(
				t.start(func() error { return send(from, 1, part*count) }),
				t.start(func() error { return receive(to, 1, part*count) }),
			))
			return heard.Load() - before
		}
		to.OnPart(func() { heard.Add(1) })
		if n := frame(); n < count/2 {
			t.Errorf("OnPart was told %d times of a frame in %d parts", n, count)
		}
		to.OnPart(nil)
		if n := frame(); n > 0 {
			t.Errorf("after OnPart(nil): told %d times of a frame", n)
		}
	}
}
