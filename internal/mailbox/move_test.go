package mailbox_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// Every loss is told, whatever a reader does between losing and telling.
func TestLossesOutlastMoves(t *testing.T) {
	tests := []struct {
		name string
		then func(g *graph, r *reader) lag // told in the end
		want lag
	}{
		{"moved", func(g *graph, r *reader) lag {
			move(r, g.NewLane(4), all)
			_, lags := claimAll(&r.Reader)
			return lags[0]
		}, lag{Count: 2, From: 1, To: 2}},
		{"moved, lost more, and moved", func(g *graph, r *reader) lag {
			l := g.NewLane(4)
			move(r, l, all)
			put(l, 11, 12, 13, 14, 15)
			move(r, g.NewLane(4), all)
			_, lags := claimAll(&r.Reader)
			return lags[0]
		}, lag{Count: 3, From: 1, To: 11}},
		{"removed", func(_ *graph, r *reader) lag { return r.Remove().Lag }, lag{Count: 2, From: 1, To: 2}},
		{"moved and removed", func(g *graph, r *reader) lag {
			move(r, g.NewLane(4), all)
			return r.Remove().Lag
		}, lag{Count: 2, From: 1, To: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGraph(false)
			l := g.NewLane(4)
			r := on(l, 1, config(4, mailbox.DropOldest))
			put(l, 1, 2, 3, 4, 5, 6)
			if got := tt.then(g, r); got != tt.want {
				t.Errorf("told of %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A pod may be disconnected while it changes its interest: what comes after Remove does nothing, least of all to others.
func TestAfterRemove(t *testing.T) {
	run := func(name string, f func(*testing.T)) {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v := recover(); v != nil {
					t.Errorf("panic: %v", v)
				}
			}()
			f(t)
		})
	}
	run("Move", func(t *testing.T) {
		g := newGraph(false)
		l := g.NewLane(4)
		r, other := on(l, 1, config(4, mailbox.Wait)), on(l, 2, config(4, mailbox.Wait))
		r.Remove()
		next := g.NewLane(4)
		move(r, next, all)
		put(l, 1)
		if got, _ := claimAll(&other.Reader); !slices.Equal(got, []int{1}) {
			t.Errorf("another reader of the lane claimed %v, want 1", got)
		}
		if o := put(next, 2); o.N != 0 {
			t.Error("a removed reader is on a lane")
		}
	})
	run("Move of the last one", func(t *testing.T) {
		g := newGraph(false)
		r := on(g.NewLane(4), 1, config(4, mailbox.Wait))
		r.Remove()
		move(r, g.NewLane(4), all)
	})
	run("Rejoin", func(t *testing.T) {
		r := newReader(1, config(4, mailbox.Wait))
		r.Join(newGraph(false).NewLane(4), "all", all)
		r.Remove()
		r.Rejoin("none", none)
	})
	run("Begin", func(t *testing.T) {
		l := newGraph(false).NewLane(4)
		r := newReader(1, config(4, mailbox.Wait))
		r.Attach(l, false, true)
		r.Remove()
		r.Begin([]item{{Val: 1}}, 0)
		if got, _ := claimAll(&r.Reader); got != nil {
			t.Errorf("a removed reader claimed %v", got)
		}
	})
	run("Remove", func(t *testing.T) {
		l := newGraph(false).NewLane(4)
		r := on(l, 1, config(4, mailbox.Wait))
		put(l, 1)
		if rem := r.Remove(); !slices.Equal(values(rem.Discarded), []int{1}) {
			t.Errorf("left %+v, want 1", rem)
		}
		if rem := r.Remove(); rem.Discarded != nil {
			t.Errorf("left %+v the second time", rem)
		}
		if depth, _ := r.Depth(); depth != 0 || !r.Gone() || !r.Active() {
			t.Errorf("depth %d, gone %v, active %v", depth, r.Gone(), r.Active())
		}
		if got, _ := claim(&r.Reader); got != nil || r.Active() {
			t.Errorf("a removed reader claimed %v, and is active: %v", got, r.Active())
		}
	})
	run("nothing", func(t *testing.T) {
		r := newReader(1, config(4, mailbox.Wait))
		r.Remove()
		r.Quiet()
		if depth, _ := r.Depth(); depth != 0 || r.Active() || r.Drains(1) {
			t.Error("a reader that was never attached has something")
		}
	})
}

// A sender that came by an old route is heard by readers that have moved, once, if they still want it; and only they are counted.
func TestForward(t *testing.T) {
	tests := []struct {
		name     string
		wants    func(int) bool
		policy   mailbox.Policy
		newRoute bool // the sender's route has the new lane too
		gone     bool
		n        int
		got      []int
	}{
		{"wanted", odd, mailbox.Wait, false, false, 1, []int{1}},
		{"wanted by a queue", odd, mailbox.Block, false, false, 1, []int{1}},
		{"not wanted", even, mailbox.Wait, false, false, 0, nil},
		{"gone", odd, mailbox.Wait, false, true, 0, nil},
		{"on the route", odd, mailbox.Wait, true, false, 1, []int{1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, shared := range []bool{false, true} {
				g := newGraph(shared)
				l, next := g.NewLane(4), g.NewLane(4)
				r := on(l, 1, config(4, tt.policy))
				route := []*lane{l}
				if tt.newRoute {
					route = append(route, next)
				}
				move(r, next, tt.wants)
				if tt.gone {
					r.Remove()
				}
				var targets []mailbox.Target[int]
				o := outcome{Targets: &targets, Stale: func() bool { return true }}
				it := item{Val: 1, From: outsider}
				for _, l := range route {
					l.AppendSlow(ended, &it, nil, mailbox.Normal, route, &o)
				}
				if o.N != tt.n || len(targets) != tt.n {
					t.Errorf("counted %d readers and %d targets, want %d", o.N, len(targets), tt.n)
				}
				if got, _ := claimAll(&r.Reader); !tt.gone && !slices.Equal(got, tt.got) {
					t.Errorf("claimed %v, want %v", got, tt.got)
				}
			}
		})
	}
}

// What waits comes along if it is wanted, before what comes on the new lane.
func TestMoveTakesWhatWaits(t *testing.T) {
	for _, policy := range []mailbox.Policy{mailbox.Wait, mailbox.Block} {
		for _, width := range []int{1, 2} {
			g := newGraph(false)
			l, next := g.NewLane(8), g.NewLane(8)
			cfg := config(8, policy)
			cfg.Width = width
			r := on(l, 1, cfg)
			put(l, 1, 2, 3)
			send(ended, l, item{Val: 5, From: 1}, &r.Reader, mailbox.Normal)
			move(r, next, odd)
			put(next, 7)
			if depth, _ := r.Depth(); depth != 3 {
				t.Errorf("depth is %d, want 3", depth)
			}
			if o := put(l, 9); o.N != 0 {
				t.Error("a reader is on two lanes")
			}
			if got, _ := claimAll(&r.Reader); !slices.Equal(got, []int{1, 3, 7}) {
				t.Errorf("claimed %v, want 1, 3, 7", got)
			}
		}
	}
}

// A reader that changes its interest again and again without claiming keeps to its cap.
func TestMovesDoNotGrowTheMailbox(t *testing.T) {
	g := newGraph(false)
	l := g.NewLane(4)
	r := on(l, 1, config(4, mailbox.Wait))
	for i := range 100 {
		put(l, 4*i, 4*i+1, 4*i+2, 4*i+3)
		l = g.NewLane(4)
		move(r, l, all)
	}
	depth, tally := r.Depth()
	if depth > 16+4 {
		t.Errorf("%d messages wait in a mailbox with a cap of 16", depth)
	}
	if depth+int(tally.Dropped) != 400 {
		t.Errorf("of 400 messages %d wait and %d are counted as dropped", depth, tally.Dropped)
	}
}

// The sender's own reader is looked at by its lane's mutex only. The race detector is the judge.
func TestOwnReaderOnAnotherLane(t *testing.T) {
	g := newGraph(false)
	l, other := g.NewLane(64), g.NewLane(64)
	on(l, 1, config(64, mailbox.Wait))
	var wg sync.WaitGroup
	for range 50 {
		own := newReader(2, config(64, mailbox.Wait))
		own.Attach(other, false, false)
		wg.Go(func() { send(ended, l, item{Val: 1, From: 2}, &own.Reader, mailbox.Normal) })
		wg.Go(func() { own.Remove() })
	}
	watchdog(t, allDone(&wg))
}
