package memory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test in a synctest bubble, where latency takes no real time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// listen makes a node listen until the end of the test.
func listen(t *testing.T, network *memory.Network, name string) transport.Listener {
	t.Helper()
	l, err := network.Transport(name).Listen(t.Context(), transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// connect returns both ends of a new connection, which are closed at the end of the test.
func connect(t *testing.T, network *memory.Network, from string, l transport.Listener) (dialled, accepted transport.Conn) {
	t.Helper()
	dialled, err := network.Transport(from).Dial(t.Context(), l.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dialled.Close() })
	accepted, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	return dialled, accepted
}

// write writes frames that hold the numbers from first to last.
func write(t *testing.T, c transport.Conn, first, last int) {
	t.Helper()
	for i := first; i <= last; i++ {
		if err := c.WriteFrame(fmt.Append(nil, i)); err != nil {
			t.Fatalf("WriteFrame(%d): %v", i, err)
		}
	}
}

// read reads frames that hold the numbers from first to last.
func read(t *testing.T, c transport.Conn, first, last int) {
	t.Helper()
	for i := first; i <= last; i++ {
		frame, err := c.ReadFrame(nil)
		if err != nil {
			t.Fatalf("ReadFrame, at %d: %v", i, err)
		}
		if string(frame) != fmt.Sprint(i) {
			t.Fatalf("ReadFrame() = %q, want %d", frame, i)
		}
	}
}

// readErr reads on to an error, and fails the test if it is another one.
func readErr(t *testing.T, c transport.Conn, want error) {
	t.Helper()
	if frame, err := c.ReadFrame(nil); !errors.Is(err, want) {
		t.Fatalf("ReadFrame() = %q, %v, want the error %v", frame, err, want)
	}
}

// hears reports whether what one end sends arrives at the other within a while of fake time. It is
// the last thing to be done with that direction.
func hears(t *testing.T, from, to transport.Conn) bool {
	t.Helper()
	write(t, from, 7, 7)
	if err := to.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err := to.ReadFrame(nil)
	return err == nil
}

// only returns the one connection that is open.
func only(t *testing.T, network *memory.Network) *memory.Connection {
	t.Helper()
	open := network.Connections()
	if len(open) != 1 {
		t.Fatalf("%d connections are open, want one", len(open))
	}
	return open[0]
}

// dialWithin dials with a timeout.
func dialWithin(t *testing.T, timeout time.Duration, network *memory.Network, from, to string) (transport.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return network.Transport(from).Dial(ctx, to)
}
