package websocket_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/transport/websocket"
)

// A line fails exactly when nothing has passed for the idle time, a writer's at the next look; and
// as long as single bytes pass it does not.
func TestLineIdle(t *testing.T) {
	const (
		idle  = time.Second
		late  = idle / 10
		never = time.Duration(-1)
	)
	read := func(l websocket.Line) error { _, err := io.ReadFull(l, make([]byte, 100)); return err }
	write := func(l websocket.Line) error { _, err := l.Write(make([]byte, 100)); return err }
	for _, c := range []struct {
		name string
		do   func(websocket.Line) error
		// The other side reads or writes a byte after each of these pauses, then no more.
		pauses []time.Duration
		change func(websocket.Line) // after one and a half idle times
		fails  time.Duration
	}{
		{name: "nothing comes", do: read, fails: idle},
		{name: "nothing goes", do: write, fails: idle},
		{name: "a byte comes", do: read, pauses: []time.Duration{idle * 3 / 4}, fails: idle * 7 / 4},
		{name: "a byte goes", do: write, pauses: []time.Duration{idle * 3 / 4}, fails: idle * 7 / 4},
		{name: "all comes", do: read, pauses: times(100, idle*9/10), fails: never},
		{name: "all goes", do: write, pauses: times(100, idle*8/10), fails: never},
		{
			name: "it is taken back for a reader", do: read, pauses: append(times(2, idle*3/4), times(98, 2*idle)...),
			change: func(l websocket.Line) { l.SetReadIdle(0) }, fails: never,
		},
		{
			name: "it is taken back for a writer", do: write, pauses: append(times(2, idle*3/4), times(98, 2*idle)...),
			change: func(l websocket.Line) { l.SetWriteIdle(0) }, fails: never,
		},
		{
			name: "it begins anew for a reader", do: read, pauses: times(1, idle*3/4),
			change: func(l websocket.Line) { l.SetReadIdle(2 * idle) }, fails: idle*3/2 + 2*idle,
		},
		{
			name: "it begins anew for a writer", do: write, pauses: times(1, idle*3/4),
			change: func(l websocket.Line) { l.SetWriteIdle(2 * idle) }, fails: idle*3/2 + 2*idle,
		},
		{
			name: "a reader's deadline is earlier", do: read, pauses: times(100, idle/2),
			change: func(l websocket.Line) { l.SetReadDeadline(time.Now().Add(idle * 7 / 4)) }, fails: idle * 13 / 4,
		},
		{
			name: "a writer's deadline is earlier", do: write, pauses: times(100, idle/2),
			change: func(l websocket.Line) { l.SetWriteDeadline(time.Now().Add(idle * 7 / 4)) }, fails: idle * 13 / 4,
		},
		{
			name: "a reader's deadline is later", do: read, pauses: times(1, idle*3/4),
			change: func(l websocket.Line) { l.SetReadDeadline(time.Now().Add(time.Hour)) }, fails: idle * 7 / 4,
		},
		{
			name: "a writer's deadline is later", do: write, pauses: times(1, idle*3/4),
			change: func(l websocket.Line) { l.SetWriteDeadline(time.Now().Add(time.Hour)) }, fails: idle * 7 / 4,
		},
		{
			name: "a reader's deadline frees it at once", do: read, pauses: times(100, idle/2),
			change: func(l websocket.Line) { l.SetReadDeadline(time.Now().Add(-1)) }, fails: idle * 3 / 2,
		},
		{
			name: "a writer's deadline frees it at once", do: write, pauses: times(100, idle/2),
			change: func(l websocket.Line) { l.SetWriteDeadline(time.Now().Add(-1)) }, fails: idle * 3 / 2,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				var others sync.WaitGroup
				defer others.Wait()
				defer near.Close()
				defer far.Close()
				l := websocket.NewLine(near)
				<-time.After(time.Hour) // what was before does not count
				l.SetReadIdle(idle)
				l.SetWriteIdle(idle)
				<-time.After(time.Hour)

				began := time.Now()
				others.Go(func() { // ends with the pipe
					for _, pause := range c.pauses {
						<-time.After(pause)
						if _, err := far.Write([]byte{1}); err != nil {
							return
						}
					}
				})
				others.Go(func() { // likewise
					for _, pause := range c.pauses {
						<-time.After(pause)
						if _, err := far.Read(make([]byte, 1)); err != nil {
							return
						}
					}
				})
				if c.change != nil {
					time.AfterFunc(idle*3/2, func() { c.change(l) })
				}
				err := c.do(l)
				took := time.Since(began)
				switch {
				case c.fails == never && err != nil:
					t.Errorf("failed after %v: %v", took, err)
				case c.fails == never:
				case !errors.Is(err, os.ErrDeadlineExceeded):
					t.Errorf("after %v: %v, want a deadline", took, err)
				case took < c.fails || took > c.fails+late:
					t.Errorf("failed after %v, want %v", took, c.fails)
				}
			})
		})
	}
}

func times(n int, d time.Duration) []time.Duration {
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = d
	}
	return all
}

// A deadline that does not come is not set with each call: it costs more than a small frame.
func TestLineSetsFewDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = 10 * time.Second
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		counted := &deadlines{Conn: near}
		l := websocket.NewLine(counted)
		l.SetReadIdle(idle)
		l.SetWriteIdle(idle)
		go io.Copy(far, far) // ends with the pipe
		buf := make([]byte, 1)
		const n = 10_000 // a millisecond each
		for range n {
			if _, err := l.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Read(buf); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Millisecond)
		}
		if counted.n > 30 { // 20 for the writer, which looks after itself in tenths
			t.Errorf("%d deadlines were set for %d calls in %v", counted.n, 2*n, idle)
		}
	})
}

type deadlines struct {
	net.Conn
	n int
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.n++; return d.Conn.SetReadDeadline(t) }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.n++; return d.Conn.SetWriteDeadline(t) }
