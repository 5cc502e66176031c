package transporttest

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/gravbus/gravbus/transport"
)

// Dial returns an error when nobody listens, and one that does not say that the endpoint is wrong:
// the node may be there later.
func dialNobody(t *test) {
	l := t.listen()
	endpoint := t.endpoint(l)
	t.must("Close", l.Close())
	c, err := t.Dialler.Dial(t.Context(), endpoint)
	if err == nil {
		t.closeLater(c)
		t.Fatal("Dial returned a connection to nobody")
	}
	if c != nil {
		t.Error("Dial returned a connection and an error")
	}
	if errors.Is(err, transport.ErrEndpoint) {
		t.Errorf("Dial to nobody: %v, which matches ErrEndpoint", err)
	}
}

// Dial returns ErrEndpoint for what it does not understand.
func dialInvalid(t *test) {
	for _, endpoint := range append([]string{"", " ", "\x00", "no such scheme://x"}, t.Invalid...) {
		c, err := t.Dialler.Dial(t.Context(), endpoint)
		if err == nil {
			t.closeLater(c)
		}
		if !errors.Is(err, transport.ErrEndpoint) {
			t.Errorf("Dial(%q): %v, want ErrEndpoint", endpoint, err)
		}
	}
}

// Dial with a context that has ended connects to nobody, and returns its error.
func dialContextBefore(t *test) {
	l := t.listen()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := t.Dialler.Dial(ctx, t.endpoint(l))
	if err == nil {
		t.closeLater(c)
	}
	t.mustBe("Dial", err, context.Canceled)
	a := t.dial(t.endpoint(l))
	b := t.accept(l)
	t.carries(a, b) // else b is from the Dial that failed
}

// Dial returns soon after its context ends, with its error, when the other side does not answer.
func dialContextDuring(t *test) {
	if t.Unanswered == "" {
		t.Skip("the harness has no Unanswered")
	}
	ctx, cancel := context.WithCancel(t.Context())
	dialling := t.start(func() error { _, err := t.Dialler.Dial(ctx, t.Unanswered); return err })
	t.mustWait("Dial", dialling)
	cancel()
	t.mustBe("Dial", dialling.wait(), context.Canceled)

	ctx, cancel = t.withTimeout()
	defer cancel()
	_, err := t.Dialler.Dial(ctx, t.Unanswered)
	t.mustBe("Dial", err, context.DeadlineExceeded)
}

// The context of Dial bounds Dial, not the connection.
func dialContextAfter(t *test) {
	l := t.listen()
	ctx, cancel := context.WithCancel(t.Context())
	a, err := t.Dialler.Dial(ctx, t.endpoint(l))
	t.must("Dial", err)
	t.closeLater(a)
	b := t.accept(l)
	reading := t.start(func() error { return receive(a, 1, 100) })
	t.mustWait("ReadFrame", reading)
	cancel()
	t.mustWait("ReadFrame, after the context of Dial has ended,", reading)
	t.must("after the context of Dial has ended", errors.Join(send(b, 1, 100), reading.wait()))
	t.carries(a, b)
}

// When the link goes silent nobody is told. Deadlines end what waits, Shutdown ends with its context
// and Close returns at once, although the other side does not answer.
func halfOpen(t *test) {
	if t.Silence == nil {
		t.Skip("the harness has no Silence")
	}
	a, b := t.pair()
	c, d := t.pair()
	t.carries(a, b)
	t.carries(c, d)
	t.Silence()

	t.must("SetReadDeadline", b.SetReadDeadline(time.Now().Add(moment)))
	reading := t.start(func() error { _, err := b.ReadFrame(nil); return err })
	stuck, _ := t.fill(a)
	t.mustBe("ReadFrame", reading.wait(), os.ErrDeadlineExceeded)
	t.must("SetWriteDeadline", a.SetWriteDeadline(time.Now().Add(moment)))
	t.mustBe("WriteFrame in progress", stuck.wait(), os.ErrDeadlineExceeded)

	reading = t.start(func() error { _, err := c.ReadFrame(nil); return err })
	ctx, cancel := t.withTimeout()
	defer cancel()
	t.mustBe("Shutdown", d.Shutdown(ctx), context.DeadlineExceeded)
	t.mustWait("ReadFrame, as word of Shutdown cannot have come,", reading)
	for _, end := range []transport.Conn{a, b, c, d} {
		closing := t.start(end.Close)
		if !closing.within(soon) {
			t.Error("Close waits for a side that does not answer")
		}
		t.must("Close", closing.wait())
	}
	t.mustBe("ReadFrame in progress", reading.wait(), transport.ErrClosed)
}
