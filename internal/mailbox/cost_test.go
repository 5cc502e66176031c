package mailbox_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// One more is added while the others cost less than the bound, whatever it costs; past the bound each policy does what it does past the count.
func TestMaxCost(t *testing.T) {
	tests := []struct {
		name    string
		policy  mailbox.Policy
		maxCost int
		mode    mailbox.Mode
		send    []int
		has     []int
		lost    []int // in order of age
		missed  int
	}{
		{"below", mailbox.Fail, 10, mailbox.Normal, []int{3, 3, 3}, []int{3, 3, 3}, nil, 0},
		{"below, and one that costs much", mailbox.Fail, 10, mailbox.Normal, []int{4, 5, 9, 1}, []int{4, 5, 9}, []int{1}, 1},
		{"larger than the bound", mailbox.Fail, 3, mailbox.Normal, []int{9, 1}, []int{9}, []int{1}, 1},
		{"of no cost", mailbox.Fail, 3, mailbox.Normal, []int{0, 10, 20, 2, 1, 30}, []int{0, 10, 20, 2, 1}, []int{30}, 1},
		{"by count", mailbox.Fail, 100, mailbox.Normal, []int{1, 2, 3, 4, 5, 6, 7, 8, 9}, []int{1, 2, 3, 4, 5, 6, 7, 8}, []int{9}, 1},
		{"newest", mailbox.DropNewest, 10, mailbox.Normal, []int{5, 5, 6}, []int{5, 5}, []int{6}, 0},
		{"given up", mailbox.Block, 10, mailbox.Normal, []int{5, 5, 6}, []int{5, 5}, []int{6}, 1},
		{"oldest", mailbox.DropOldest, 10, mailbox.Normal, []int{5, 15, 6}, []int{15, 6}, []int{5}, 0},
		{"several of the oldest", mailbox.DropOldest, 10, mailbox.Normal, []int{1, 2, 3, 9, 5}, []int{9, 5}, []int{1, 2, 3}, 0},
		{"all", mailbox.DropOldest, 5, mailbox.Normal, []int{1, 2, 9, 4}, []int{4}, []int{1, 2, 9}, 0},
		{"no larger than before", mailbox.DropOldest, 5, mailbox.Normal, []int{4, 9, 3}, []int{9, 3}, []int{4}, 0},
		{"shed", mailbox.Wait, 10, mailbox.Shed, []int{5, 15, 6, 7}, []int{6, 7}, []int{5, 15}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newGraph(false).NewLane(8)
			r := on(l, 1, costly(8, tt.maxCost, tt.policy))
			missed := 0
			for _, v := range tt.send {
				missed += len(send(ended, l, item{Val: v, From: outsider}, nil, tt.mode).Missed)
			}
			want := 0
			for _, v := range tt.has {
				want += cost(v)
			}
			if got := r.Cost(); got != want {
				t.Errorf("what waits costs %d, want %d", got, want)
			}
			d := newWorker(t)
			d.do(func() {
				got, lags := claimAll(&r.Reader)
				if !slices.Equal(got, tt.has) || missed != tt.missed {
					t.Errorf("%v, and %d missed it; want %v and %d", got, missed, tt.has, tt.missed)
				}
				var want []lag
				if n := len(tt.lost); n > 0 {
					want = []lag{{Count: uint64(n), From: tt.lost[0], To: tt.lost[n-1]}}
				}
				if !slices.Equal(lags, want) {
					t.Errorf("told of %+v, want %+v", lags, want)
				}
			})
			if got := r.Cost(); got != 0 {
				t.Errorf("an empty mailbox costs %d", got)
			}
		})
	}
}

// Senders wait until what waits costs less than the bound, and each of them goes on.
func TestSendersWaitForTheCost(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		const senders = 10
		l := g.NewLane(64)
		r := on(l, 1, costly(64, 12, mailbox.Wait))
		d := newWorker(t)
		put(l, 9, 19)
		var sent []<-chan struct{}
		for range senders {
			sent = append(sent, newWorker(t).start(func() {
				if o := send(context.Background(), l, item{Val: 5, From: outsider}, nil, mailbox.Normal); o.N != 1 || o.Err != nil {
					t.Errorf("%+v", o)
				}
			}))
		}
		waiting := func() (n int) {
			synctest.Wait()
			for _, s := range sent {
				if !isClosed(s) {
					n++
				}
			}
			return n
		}
		if n := waiting(); n != senders {
			t.Fatalf("%d senders wait, want %d", n, senders)
		}
		// Each claim is of one, as that costs a quarter of the bound.
		for i, want := range []int{9, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0} {
			d.do(func() {
				if got, _ := claim(&r.Reader); len(got) != 1 {
					t.Errorf("claimed %v, want one", got)
				}
			})
			if n := waiting(); n != want {
				t.Errorf("after %d claims %d senders wait, want %d", i+1, n, want)
			}
		}
	})
}

// What a claim takes in hand costs about a quarter of the bound, as it is a quarter of the mailbox by count; what was replayed no less.
func TestClaimIsBoundedByCost(t *testing.T) {
	l := newGraph(false).NewLane(64)
	cfg := costly(64, 40, mailbox.Block)
	r := newReader(1, cfg)
	r.Attach(l, false, true)
	var replay []item
	for _, v := range []int{3, 3, 3, 3, 3} {
		replay = append(replay, item{Val: v})
	}
	put(l, 4, 4, 4, 4, 9, 1)
	r.Begin(replay, 0)
	if got, want := r.Cost(), 15+26; got != want {
		t.Errorf("what waits costs %d, want %d", got, want)
	}
	d := newWorker(t)
	for _, want := range [][]int{{3, 3, 3, 3}, {3}, {4, 4, 4}, {4, 9}, {1}} {
		d.do(func() {
			if got, _ := claim(&r.Reader); !slices.Equal(got, want) {
				t.Errorf("claimed %v, want %v", got, want)
			}
		})
	}
}

// In a circle the cost grows as the count does, and then the oldest give way.
func TestCostInACircle(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l := g.NewLane(64)
		cfg := costly(64, 10, mailbox.Block)
		r := on(l, 1, cfg)
		d := newWorker(t)
		put(l, 1)
		d.do(func() {
			claim(&r.Reader)
			for v := range 12 { // to itself under another name
				send(context.Background(), l, item{Val: 10*v + 5, From: outsider}, &r.Reader, mailbox.Normal)
			}
		})
		if got := r.Cost(); got != 4*10 {
			t.Errorf("what waits costs %d, want four times the bound of 10", got)
		}
		if depth, tally := r.Depth(); depth != 8 || tally.Dropped != 4 {
			t.Errorf("%d wait and %d are lost, want 8 and 4", depth, tally.Dropped)
		}
		// Back at work, it is given no more than it has, and loses no more than it must.
		send(context.Background(), l, item{Val: 5, From: outsider}, nil, mailbox.Shed)
		if depth, tally := r.Depth(); depth != 8 || tally.Dropped != 5 {
			t.Errorf("%d wait and %d are lost, want 8 and 5", depth, tally.Dropped)
		}
	})
}

// A reader that moves takes along what its mailbox may grow to, and no more however often it moves.
func TestMoveBoundsTheCost(t *testing.T) {
	g := newGraph(false)
	l := g.NewLane(64)
	r := on(l, 1, costly(64, 10, mailbox.DropOldest))
	for round := range 10 {
		put(l, 10*round+9, 10*round+9)
		next := g.NewLane(64)
		move(r, next, all)
		l = next
	}
	// 4 of 9 fit into four times the bound of 10, which is the proportion of Cap to Bound.
	if depth, tally := r.Depth(); depth != 4 || r.Cost() != 36 || tally.Dropped != 16 {
		t.Errorf("%d wait and cost %d, %d are lost; want 4, 36 and 16", depth, r.Cost(), tally.Dropped)
	}
	d := newWorker(t)
	d.do(func() {
		got, lags := claimAll(&r.Reader)
		if !slices.Equal(got, []int{89, 89, 99, 99}) || !slices.Equal(lags, []lag{{Count: 16, From: 9, To: 79}}) {
			t.Errorf("claimed %v, told of %+v", got, lags)
		}
	})
}

// What is replayed stays, though it costs more than the bound, and though the reader moves.
func TestReplayMayCostMore(t *testing.T) {
	g := newGraph(false)
	l, next := g.NewLane(8), g.NewLane(8)
	r := newReader(1, costly(8, 3, mailbox.Block))
	r.Attach(l, false, true)
	r.Begin([]item{{Val: 9}, {Val: 19}, {Val: 29}, {Val: 39}}, 0)
	move(r, next, all)
	if _, tally := r.Depth(); r.Cost() != 36 || tally.Dropped != 0 {
		t.Errorf("what waits costs %d, want 36; %d are lost", r.Cost(), tally.Dropped)
	}
}

// A message costs what it cost when it came, whatever it would cost later.
func TestCostIsRemembered(t *testing.T) {
	g := newGraph(false)
	each := 3
	g.SetCost(func(int) int { return each })
	l := g.NewLane(64)
	for _, width := range []int{1, 2} {
		cfg := costly(64, 100, mailbox.Block)
		cfg.Width = width
		r := on(l, 1, cfg)
		each = 3
		put(l, 1, 2)
		each = 7
		put(l, 3)
		if got := r.Cost(); got != 13 {
			t.Errorf("width %d: what waits costs %d, want 13", width, got)
		}
		d := newWorker(t)
		d.do(func() { claimAll(&r.Reader) })
		if got := r.Cost(); got != 0 {
			t.Errorf("width %d: an empty mailbox costs %d", width, got)
		}
		r.Remove()
	}
}

// A reader that has caught up keeps no large ring; one with a MaxCost lets go of it when it is told
// to.
func TestRingShrinks(t *testing.T) {
	for _, tt := range []struct{ messages, want int }{{1, 8}, {1000, 1024}, {1024, 1024}, {1025, 0}, {5000, 0}} {
		for _, maxCost := range []int{0, 1 << 20} {
			l := newGraph(false).NewLane(8192)
			r := on(l, 1, costly(8192, maxCost, mailbox.Block))
			d := newWorker(t)
			for round := range 3 {
				for v := range tt.messages {
					put(l, v)
				}
				d.do(func() {
					if got, _ := claimAll(&r.Reader); len(got) != tt.messages || got[len(got)-1] != tt.messages-1 {
						t.Errorf("round %d: claimed %d, want %d", round, len(got), tt.messages)
					}
				})
				if maxCost > 0 {
					r.Trim()
				}
				if n := r.QueueSlots(); n != tt.want {
					t.Errorf("a mailbox that had %d messages keeps %d slots, want %d", tt.messages, n, tt.want)
				}
			}
		}
	}
}
