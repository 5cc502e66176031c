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

// A line fails exactly when nothing has come for the idle time; and as long as single bytes come it
// does not.
func TestLineIdle(t *testing.T) {
	const (
		idle  = time.Second
		never = time.Duration(-1)
	)
	for _, c := range []struct {
		name string
		// The other side writes a byte after each of these pauses, then no more.
		pauses []time.Duration
		change func(websocket.Line) // after one and a half idle times
		fails  time.Duration
	}{
		{name: "nothing comes", fails: idle},
		{name: "a byte comes early", pauses: times(1, idle/4), fails: idle * 5 / 4},
		{name: "a byte comes late", pauses: times(1, idle*3/4), fails: idle * 7 / 4},
		{name: "all comes", pauses: times(100, idle*9/10), fails: never},
		{
			name: "it is taken back", pauses: append(times(2, idle*3/4), times(98, 2*idle)...),
			change: func(l websocket.Line) { l.SetReadIdle(0) }, fails: never,
		},
		{
			name: "it begins anew", pauses: times(1, idle*3/4),
			change: func(l websocket.Line) { l.SetReadIdle(2 * idle) }, fails: idle*3/2 + 2*idle,
		},
		{
			name: "the deadline is earlier", pauses: times(100, idle/2),
			change: func(l websocket.Line) { l.SetReadDeadline(time.Now().Add(idle * 7 / 4)) }, fails: idle * 13 / 4,
		},
		{
			name: "the deadline is later", pauses: times(1, idle*3/4),
			change: func(l websocket.Line) { l.SetReadDeadline(time.Now().Add(time.Hour)) }, fails: idle * 7 / 4,
		},
		{
			name: "the deadline frees it at once", pauses: times(100, idle/2),
			change: func(l websocket.Line) { l.SetReadDeadline(time.Now().Add(-1)) }, fails: idle * 3 / 2,
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
				if c.change != nil {
					time.AfterFunc(idle*3/2, func() { c.change(l) })
				}
				_, err := io.ReadFull(l, make([]byte, 100))
				took := time.Since(began)
				switch {
				case c.fails == never && err != nil:
					t.Errorf("failed after %v: %v", took, err)
				case c.fails == never:
				case !errors.Is(err, os.ErrDeadlineExceeded):
					t.Errorf("after %v: %v, want a deadline", took, err)
				case took != c.fails:
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
		if counted.n > 3 { // one at the beginning, one after each half of idle
			t.Errorf("%d deadlines were set for %d calls in %v", counted.n, n, idle)
		}
	})
}

type deadlines struct {
	net.Conn
	n int
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.n++; return d.Conn.SetReadDeadline(t) }
