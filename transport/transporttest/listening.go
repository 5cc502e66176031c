package transporttest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"reflect"
	"strings"

	"github.com/gravbus/gravbus/transport"
)

// Close ends an Accept that waits, and all that follow, with ErrClosed. It may be called again.
func acceptEnds(t *test) {
	l := t.listen()
	accepting := t.start(func() error { _, err := l.Accept(); return err })
	t.mustWait("Accept", accepting)
	t.must("Close", waitAll(t.start(l.Close), t.start(l.Close)))
	t.mustBe("Accept in progress", accepting.wait(), transport.ErrClosed)
	for range 2 {
		c, err := l.Accept()
		if c != nil {
			t.Error("Accept returned a connection after Close")
		}
		t.mustBe("Accept after Close", err, transport.ErrClosed)
	}
	t.must("Close again", l.Close())
}

// sameAddress returns options by which Listen takes the address of a Listener.
func (t *test) sameAddress(l transport.Listener) transport.ListenOptions {
	host := t.endpoint(l)
	if u, err := url.Parse(host); err == nil && u.Host != "" {
		host = u.Host
	}
	_, port, err := net.SplitHostPort(host)
	if err != nil || strings.Trim(port, "0123456789") != "" {
		port = ""
	}
	return transport.ListenOptions{Port: port}
}

// That the address is in use is an error of Listen, at once, and does not disturb who uses it.
func addressInUse(t *test) {
	l := t.listen()
	second, err := t.Listener.Listen(t.Context(), t.sameAddress(l))
	if err == nil {
		t.closeLater(second)
		t.Error("Listen took an address that is in use")
	}
	a := t.dial(t.endpoint(l))
	t.carries(a, t.accept(l))
}

// Close frees the address before it returns, even while connections that came that way are open: a
// node that is started again has the same address.
func listenAgain(t *test) {
	first := t.listen()
	c := t.dial(t.endpoint(first))
	d := t.accept(first)
	for range 5 {
		again := t.sameAddress(first)
		t.must("Close", first.Close())
		second, err := t.Listener.Listen(t.Context(), again)
		t.must("Listen again", err)
		t.closeLater(second)
		a := t.dial(t.endpoint(second))
		t.carries(a, t.accept(second))
		first = second
	}
	t.carries(c, d)
}

// The context of Listen bounds Listen, not what comes after.
func listenContext(t *test) {
	ctx, cancel := context.WithCancel(t.Context())
	l, err := t.Listener.Listen(ctx, transport.ListenOptions{})
	t.must("Listen", err)
	t.closeLater(l)
	cancel()
	accepting := t.start(func() error {
		c, err := l.Accept()
		if err == nil {
			t.closeLater(c)
		}
		return err
	})
	t.mustWait("Accept", accepting)
	t.dial(t.endpoint(l))
	t.must("Accept after the context of Listen has ended", accepting.wait())
}

// Connections that were accepted live on when their Listener is closed.
func acceptedOutliveListener(t *test) {
	l := t.listen()
	a := t.dial(t.endpoint(l))
	b := t.accept(l)
	reading := t.start(func() error { return receive(b, 1, 100) })
	t.must("Close", l.Close())
	t.mustWait("ReadFrame", reading)
	t.must("after Close of the Listener", errors.Join(send(a, 1, 100), reading.wait()))
	t.carries(a, b)
}

// Connections that nobody has accepted are closed with their Listener: whoever has dialled must not
// wait for ever.
func pendingCloseWithListener(t *test) {
	l := t.listen()
	var dialled []transport.Conn
	for range 3 {
		dialled = append(dialled, t.dial(t.endpoint(l)))
	}
	reading := t.start(func() error { _, err := dialled[0].ReadFrame(nil); return err })
	t.mustWait("ReadFrame", reading)
	t.must("Close", l.Close())
	if err := reading.wait(); err == nil {
		t.Error("ReadFrame returned a frame that nobody wrote")
	}
	for _, c := range dialled[1:] {
		t.readFails(c, nil)
	}
}

// When a Listener is closed while others dial, each of them gets a connection or an error, and who
// gets a connection that nobody accepts hears that it is closed.
func closeWhileDialling(t *test) {
	for range 10 {
		l, err := t.Listener.Listen(t.Context(), transport.ListenOptions{})
		t.must("Listen", err)
		t.closeLater(l)
		endpoint := t.endpoint(l)
		var calls []*call
		for range 8 {
			calls = append(calls, t.start(func() error {
				c, err := t.Dialler.Dial(t.Context(), endpoint)
				if err != nil {
					return nil
				}
				t.closeLater(c)
				if _, err := c.ReadFrame(nil); err == nil {
					return errors.New("ReadFrame returned a frame that nobody wrote")
				}
				return c.Close()
			}))
		}
		c, err := l.Accept()
		t.must("Accept", err)
		t.must("Close", errors.Join(l.Close(), c.Close()))
		t.must("dialling", waitAll(calls...))
	}
}

// A node can be reached at each of its endpoints.
func endpointsAreDialable(t *test) {
	l := t.listen()
	t.endpoint(l)
	for _, endpoint := range l.Endpoints() {
		c, err := t.Dialler.Dial(t.Context(), endpoint)
		if err != nil {
			t.Errorf("Dial(%q): %v", endpoint, err)
			continue
		}
		t.closeLater(c)
		t.carries(c, t.accept(l))
	}
}

// Info tells both sides enough for a log, does not change, and tells apart who dialled. The binding
// of a secure connection is the same on both sides and on no other connection; one that is not
// secure has none.
func info(t *test) {
	l := t.listen()
	seen := make(map[string]bool)
	for range 3 {
		a := t.dial(t.endpoint(l))
		b := t.accept(l)
		dialled, accepted := a.Info(), b.Info()
		if dialled.Endpoint != t.endpoint(l) || accepted.Endpoint != "" {
			t.Errorf("Endpoint is %q for who dialled %q, %q for who accepted", dialled.Endpoint, t.endpoint(l), accepted.Endpoint)
		}
		for _, addr := range []string{dialled.LocalAddr, dialled.RemoteAddr, accepted.LocalAddr, accepted.RemoteAddr} {
			if addr == "" {
				t.Errorf("an address is missing: %+v, %+v", dialled, accepted)
			}
		}
		if dialled.Secure != accepted.Secure {
			t.Error("secure on one side only")
		}
		if string(dialled.Binding) != string(accepted.Binding) {
			t.Error("the sides have different bindings")
		}
		if dialled.Binding != nil && (len(dialled.Binding) < 16 || !dialled.Secure || seen[string(dialled.Binding)]) {
			t.Errorf("the binding %x is short, or that of another connection, or of one that is not secure", dialled.Binding)
		}
		seen[string(dialled.Binding)] = true
		t.carries(a, b)
		t.must("Close", errors.Join(a.Close(), b.Close()))
		if !reflect.DeepEqual(a.Info(), dialled) || !reflect.DeepEqual(b.Info(), accepted) {
			t.Error("Info has changed")
		}
	}
}

// Connections do not get into each other's way, nor do those who dial, and those who accept, at the
// same time.
func manyAtOnce(t *test) {
	l := t.listen()
	const conns, frames = 40, 30
	endpoint := t.endpoint(l)
	var calls []*call
	for i := range conns {
		calls = append(calls,
			t.start(func() error {
				c, err := t.Dialler.Dial(t.Context(), endpoint)
				if err != nil {
					return err
				}
				t.closeLater(c)
				return errors.Join(send(c, frames, 10+i), receive(c, frames, 10+i))
			}),
			t.start(func() error { // sends back what comes
				c, err := l.Accept()
				if err != nil {
					return err
				}
				t.closeLater(c)
				for range frames {
					frame, err := c.ReadFrame(nil)
					if err != nil {
						return err
					}
					if err := c.WriteFrame(frame); err != nil {
						return err
					}
				}
				return nil
			}))
	}
	t.must("many at once", waitAll(calls...))
}

// Who connects below the transport and sends nothing, garbage, or less than it takes, is not
// returned by Accept as a connection that carries frames, and keeps nobody else away.
func strangers(t *test) {
	if t.DialRaw == nil {
		t.Skip("the harness has no DialRaw")
	}
	l := t.listen()
	garbage := []string{
		"",
		"\x00",
		"hello\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: ",
		string(makeFrame(0, 1000)),
		strings.Repeat("\xff", 100_000),
	}
	for _, text := range garbage {
		for range 3 {
			c, err := t.DialRaw(t.endpoint(l))
			t.must("DialRaw", err)
			t.closeLater(c)
			_, _ = io.WriteString(c, text) // may be cut short
		}
	}
	a := t.dial(t.endpoint(l))
	t.carries(a, t.accept(l))
}
