package mailbox_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/internal/mailbox"
)

func stalling(bound int) mailbox.Config {
	cfg := config(bound, mailbox.Wait)
	cfg.Stall = time.Second
	return cfg
}

// full returns a lane with a full reader whose drainer d has claimed one message.
func full(t *testing.T, g *graph, bound int) (l *lane, r *reader, d *worker) {
	l = g.NewLane(bound)
	r = on(l, 1, stalling(bound))
	d = newWorker(t)
	put(l, 0)
	d.do(func() { claim(&r.Reader) })
	for i := range bound {
		put(l, i+1)
	}
	return l, r, d
}

func TestStall(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l, r, d := full(t, g, 2)
		start := time.Now()
		o := send(context.Background(), l, item{Val: 3, From: outsider}, nil, mailbox.Normal)
		if waited := time.Since(start); waited != time.Second || len(o.Stalled) != 1 || o.Stalled[0] != &r.Reader || o.N != 1 || o.Err != nil {
			t.Errorf("after %v: %+v, want the reader to have stalled after 1s", waited, o)
		}
		// It holds up nobody until it has caught up.
		if o := send(context.Background(), l, item{Val: 4, From: outsider}, nil, mailbox.Normal); time.Since(start) != time.Second || len(o.Stalled) > 0 {
			t.Errorf("a sender waited for a reader that has stalled, or %+v", o)
		}
		d.do(func() {
			got, lags := claimAll(&r.Reader)
			if len(got) != 2 || got[0] != 3 || got[1] != 4 || len(lags) != 1 || lags[0] != (lag{Count: 2, From: 1, To: 2}) {
				t.Errorf("claimed %v, told of %+v", got, lags)
			}
		})
		// Now it is as before.
		put(l, 5)
		d.do(func() { claim(&r.Reader) })
		put(l, 6, 7)
		start = time.Now()
		if o := send(context.Background(), l, item{Val: 8, From: outsider}, nil, mailbox.Normal); time.Since(start) != time.Second || len(o.Stalled) != 1 {
			t.Errorf("after it has caught up: %+v after %v", o, time.Since(start))
		}
	})
}

// A reader that finishes one message per half limit never stalls.
func TestProgressIsNoStall(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l, r, d := full(t, g, 2)
		s := newWorker(t)
		sent := s.start(func() {
			if o := send(context.Background(), l, item{Val: 3, From: outsider}, nil, mailbox.Normal); len(o.Stalled) > 0 {
				t.Errorf("%+v", o)
			}
		})
		for range 10 {
			time.Sleep(500 * time.Millisecond) // the bubble's time
			if isClosed(sent) {
				t.Fatal("the sender did not wait")
			}
			if r.Watched() == 0 {
				t.Fatal("a sender waits, and the reader is not watched")
			}
			r.Progress()
		}
		d.do(func() { claim(&r.Reader) })
		<-sent
		if r.Watched() != 0 {
			t.Error("watched by nobody")
		}
	})
}

// The limit counts while senders wait: what was seen of a reader when somebody waited long ago says nothing, as its drainer reports what it
// finishes only while it is watched.
func TestStallCountsFromTheWait(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l, r, _ := full(t, g, 2)
		finish := func() { // as drainers do it
			if r.Watched() != 0 {
				r.Progress()
			}
		}
		for range 2 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			send(ctx, l, item{Val: 3, From: outsider}, nil, mailbox.Normal)
		}
		for range 10 { // the drainer works on what it has claimed
			time.Sleep(500 * time.Millisecond)
			finish()
		}
		start := time.Now()
		var o outcome
		s := newWorker(t)
		sent := s.start(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 900*time.Millisecond)
			defer cancel()
			o = send(ctx, l, item{Val: 4, From: outsider}, nil, mailbox.Normal)
		})
		time.Sleep(500 * time.Millisecond)
		finish()
		<-sent
		if len(o.Stalled) > 0 {
			t.Errorf("a reader that finishes two messages a second was declared to have stalled after a wait of %v", time.Since(start))
		}
	})
}

// A reader that waits in a Send of its own does not stand still.
func TestWaitingIsNoStall(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l, r, d := full(t, g, 2)
		next := g.NewLane(1)
		p := on(next, 2, config(1, mailbox.Block))
		put(next, 1)
		sent := d.start(func() { send(context.Background(), next, item{Val: 2, From: 1}, &r.Reader, mailbox.Normal) })
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if o := send(ctx, l, item{Val: 3, From: outsider}, nil, mailbox.Normal); len(o.Stalled) > 0 || len(o.Missed) != 1 {
			t.Errorf("%+v, want the context to have ended, and no stall", o)
		}
		p.Remove()
		<-sent
	})
}

// All that stall for one sender stall at once, others are waited for.
func TestStallOfSome(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l := g.NewLane(1)
		short, long := stalling(1), stalling(1)
		long.Stall = 3 * time.Second
		a, b, c := on(l, 1, short), on(l, 2, short), on(l, 3, long)
		put(l, 1)
		start := time.Now()
		o := send(context.Background(), l, item{Val: 2, From: outsider}, nil, mailbox.Normal)
		if time.Since(start) != 3*time.Second || len(o.Stalled) != 3 || o.N != 3 {
			t.Errorf("%d stalled, %d have it after %v; want 3 and 3 after 3s", len(o.Stalled), o.N, time.Since(start))
		}
		for _, r := range []*reader{a, b, c} {
			if got, lags := claimAll(&r.Reader); len(got) != 1 || got[0] != 2 || len(lags) != 1 {
				t.Errorf("claimed %v, told of %v", got, lags)
			}
		}
	})
}

// Quiet waits for the last drainer, and Close of the graph ends waits for room.
func TestQuietAndClose(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l, r, d := full(t, g, 2)
		s, q := newWorker(t), newWorker(t)
		var o outcome
		sent := s.start(func() { o = send(context.Background(), l, item{Val: 3, From: outsider}, nil, mailbox.Normal) })
		synctest.Wait()
		r.Remove()
		<-sent
		if o.N != 0 || o.Err != nil {
			t.Errorf("%+v after the full reader was removed", o)
		}
		quiet := q.start(r.Quiet)
		d.do(r.Quiet) // from inside: does not wait
		synctest.Wait()
		if isClosed(quiet) {
			t.Error("Quiet did not wait for the drainer")
		}
		d.do(func() { claim(&r.Reader) })
		<-quiet
	})
	synctest.Test(t, func(t *testing.T) {
		g := newGraph(false)
		l, r, _ := full(t, g, 2)
		s := newWorker(t)
		var o outcome
		sent := s.start(func() { o = send(context.Background(), l, item{Val: 3, From: outsider}, nil, mailbox.Normal) })
		synctest.Wait()
		g.Close()
		<-sent
		if !errors.Is(o.Err, mailbox.ErrClosed) || o.N != 0 {
			t.Errorf("%+v after Close", o)
		}
		if depth, _ := r.Depth(); depth != 2 {
			t.Errorf("depth is %d, want 2", depth)
		}
	})
}

// A reader whose drainer has not begun yet, and that sends, has the whole of its limit as well.
func TestStallCountsFromTheWaitForOneThatSends(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l := g.NewLane(2)
		r := on(l, 1, stalling(2))
		put(l, 0, 1)
		s, own := newWorker(t), newWorker(t)
		start := time.Now()
		sent := s.start(func() {
			o := send(context.Background(), l, item{Val: 2, From: outsider}, nil, mailbox.Normal)
			if waited := time.Since(start); waited != time.Second || len(o.Stalled) != 1 {
				t.Errorf("after %v: %+v, want the reader to have stalled after 1s", waited, o)
			}
		})
		time.Sleep(100 * time.Millisecond)
		own.do(func() { send(context.Background(), l, item{Val: 3, From: 1}, &r.Reader, mailbox.Normal) })
		<-sent
	})
}
