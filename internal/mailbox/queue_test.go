package mailbox_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/gravbus/gravbus/internal/mailbox"
)

func odd(v int) bool  { return v%2 == 1 }
func even(v int) bool { return v%2 == 0 }

// A notice of lag comes where the first of the lost would have come, and goes from the oldest to the newest.
func TestLag(t *testing.T) {
	shed := func(l *lane, v int) {
		send(context.Background(), l, item{Val: v}, nil, mailbox.Shed)
	}
	tests := []struct {
		name   string
		policy mailbox.Policy
		do     func(l *lane)
		first  []int // what is claimed before the notice
		lag    lag
		then   []int
	}{
		{
			"oldest", mailbox.DropOldest, func(l *lane) { put(l, 1, 2, 3, 4, 5, 6, 7) },
			nil,
			lag{Count: 3, From: 1, To: 3},
			[]int{4, 5, 6, 7},
		},
		{
			"newest", mailbox.DropNewest, func(l *lane) { put(l, 1, 2, 3, 4, 5, 6, 7) },
			[]int{1, 2, 3, 4},
			lag{Count: 3, From: 5, To: 7},
			nil,
		},
		{
			"refused", mailbox.Fail, func(l *lane) { put(l, 1, 2, 3, 4, 5) },
			[]int{1, 2, 3, 4},
			lag{Count: 1, From: 5, To: 5},
			nil,
		},
		{
			"given up by a sender whose context ended", mailbox.Wait, func(l *lane) { put(l, 1, 2, 3, 4, 5) },
			[]int{1, 2, 3, 4},
			lag{Count: 1, From: 5, To: 5},
			nil,
		},
		{
			"shed", mailbox.Block, func(l *lane) { put(l, 1, 2, 3, 4); shed(l, 5); shed(l, 6) },
			nil,
			lag{Count: 2, From: 1, To: 2},
			[]int{3, 4, 5, 6},
		},
		{
			"the oldest, then the newest", mailbox.Wait, func(l *lane) { put(l, 1, 2, 3, 4); shed(l, 5); put(l, 6) },
			nil,
			lag{Count: 2, From: 1, To: 6},
			[]int{2, 3, 4, 5},
		},
		{
			"the newest, then the oldest", mailbox.Wait, func(l *lane) { put(l, 1, 2, 3, 4, 5); shed(l, 6); shed(l, 7) },
			nil,
			lag{Count: 3, From: 1, To: 5},
			[]int{3, 4, 6, 7},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newGraph(false).NewLane(4)
			r := on(l, 1, config(4, tt.policy))
			d := newWorker(t)
			tt.do(l)
			var first, then []int
			var lost lag
			d.do(func() {
				for lost.Count == 0 {
					var vs []int
					if vs, lost = claim(&r.Reader); len(vs) == 0 && lost.Count == 0 {
						t.Error("no notice")
						return
					}
					first = append(first, vs...)
				}
				then, _ = claimAll(&r.Reader)
			})
			if !slices.Equal(first, tt.first) || lost != tt.lag || !slices.Equal(then, tt.then) {
				t.Errorf("%v, %+v, %v, want %v, %+v, %v", first, lost, then, tt.first, tt.lag, tt.then)
			}
			if _, tally := r.Depth(); tally.Dropped != tt.lag.Count || tally.Lags != 1 {
				t.Errorf("tally is %+v", tally)
			}
		})
	}
}

// A reader that replays gets what is in the replay once, however many handlers it has.
func TestReplayIsNotDoubled(t *testing.T) {
	for _, width := range []int{1, 2} {
		for _, policy := range []mailbox.Policy{mailbox.Wait, mailbox.Block} {
			l := newGraph(false).NewLane(8)
			cfg := config(8, policy)
			cfg.Width = width
			r := newReader(1, cfg)
			r.Attach(l, false, true)
			items := []item{{Val: 1, From: outsider, Seq: 1}, {Val: 2, From: outsider, Seq: 2}, {Val: 3, From: outsider, Seq: 3}, {Val: 4, From: outsider, Seq: 4}}
			for _, it := range items[1:] {
				send(ended, l, it, nil, mailbox.Normal)
			}
			r.Begin(items[:3:3], 3)
			if got, _ := claimAll(&r.Reader); !slices.Equal(got, []int{1, 2, 3, 4}) {
				t.Errorf("policy %d, width %d: claimed %v, want each of 1 to 4 once", policy, width, got)
			}
		}
	}
}

// What nobody in the group wants any more makes room, which the senders that wait must be told.
func TestRejoinWakesSenders(t *testing.T) {
	scenario(t, func(t *testing.T, g *graph) {
		l := g.NewLane(2)
		r := newReader(1, config(2, mailbox.Block))
		r.Join(l, "odd", odd)
		newReader(2, config(2, mailbox.Block)).Join(l, "none", none)
		d, s := newWorker(t), newWorker(t)
		put(l, 1)
		d.do(func() { claim(&r.Reader) })
		put(l, 3, 5)
		sent := s.start(func() { send(context.Background(), l, item{Val: 7, From: outsider}, nil, mailbox.Normal) })
		synctest.Wait()
		if isClosed(sent) {
			t.Fatal("the sender did not wait")
		}
		if n := r.Rejoin("even", even); n != 2 {
			t.Errorf("%d messages were dropped, want 2", n)
		}
		synctest.Wait()
		if !isClosed(sent) {
			t.Error("there is room, and the sender waits on")
		}
	})
}

// Losses by a change of interest are told at once, not when something more comes.
func TestRejoinTellsLosses(t *testing.T) {
	l := newGraph(false).NewLane(4)
	m1, m2 := newReader(1, config(4, mailbox.Wait)), newReader(2, config(4, mailbox.Wait))
	m1.Join(l, "odd", odd)
	m2.Join(l, "even", even)
	d := newWorker(t)
	put(l, 1)
	d.do(func() { claim(&m1.Reader) })
	put(l, 3)
	m1.Remove() // 3 is lost: m2, which sleeps, does not want it
	if m2.wakes.Load() == 0 {
		t.Error("the group lost a message, and nobody is woken to tell")
	}
}

// A message that is in progress while the only member of a group changes its interest is not for it any more.
func TestGroupGetsOnlyWhatItWants(t *testing.T) {
	l := newGraph(false).NewLane(4)
	m1, m2 := newReader(1, config(4, mailbox.Wait)), newReader(2, config(4, mailbox.Wait))
	m1.Join(l, "odd", odd)
	m2.Join(l, "odd", odd)
	m1.Rejoin("even", even)
	m2.Rejoin("even", even)
	if o := put(l, 1); o.N != 0 {
		t.Errorf("a message that no member wants any more went to %d", o.N)
	}
	if got, _ := claimAll(&m1.Reader); len(got) > 0 {
		t.Errorf("claimed %v, which is not wanted", got)
	}
}

// A message that only a stuck member may take does not hold up the rest, and takes no more room than its own.
func TestGroupPastAMessageThatStays(t *testing.T) {
	l := newGraph(false).NewLane(8)
	stuck, other := newReader(1, config(8, mailbox.Wait)), newReader(2, config(8, mailbox.Wait))
	stuck.Join(l, "odd", odd)
	other.Join(l, "even", even)
	put(l, 1)
	claim(&stuck.Reader)
	put(l, 3)
	for i := range 100_000 {
		put(l, 2*i)
		if got, _ := claimAll(&other.Reader); len(got) != 1 || got[0] != 2*i {
			t.Fatalf("claimed %v, want %d", got, 2*i)
		}
		if n := stuck.QueueSlots(); n > 64 {
			t.Fatalf("a queue with %d messages has %d slots after %d that have been claimed", 1, n, i)
		}
	}
	if got, _ := claimAll(&stuck.Reader); !slices.Equal(got, []int{3}) {
		t.Errorf("claimed %v, want 3", got)
	}
}

// Each message of a group goes to one member that wants it and did not send it, the first in order.
func TestGroup(t *testing.T) {
	l := newGraph(false).NewLane(16)
	var ms []*reader
	for i := range 3 {
		m := newReader(uint64(i+1), config(16, mailbox.Wait))
		m.Join(l, "all", all)
		ms = append(ms, m)
	}
	put(l, 1, 2, 3)
	for i, m := range ms {
		if m.wakes.Load() != 1 {
			t.Errorf("member %d was woken %d times by 3 messages for 3 members, want 1", i, m.wakes.Load())
		}
	}
	send(ended, l, item{Val: 4, From: 1}, &ms[0].Reader, mailbox.Normal)
	for i, want := range [][]int{{1}, {2}, {3}} {
		if got, _ := claim(&ms[i].Reader); !slices.Equal(got, want) {
			t.Errorf("member %d claimed %v, want %v", i, got, want)
		}
	}
	if got, _ := claim(&ms[0].Reader); got != nil {
		t.Errorf("a member claimed %v, its own", got)
	}
	if depth, _ := ms[0].Depth(); depth != 1 {
		t.Errorf("depth is %d, want 1", depth)
	}
	for _, m := range ms[1:] {
		if rem := m.Remove(); len(rem.Discarded) > 0 || rem.Tally.Dropped > 0 {
			t.Errorf("a member that is not the last left %+v", rem)
		}
	}
	// The first, which sent it, is alone: nobody can take 4.
	if _, tally := ms[0].Depth(); tally.Dropped != 1 {
		t.Errorf("tally is %+v, want 1 dropped", tally)
	}
	put(l, 5)
	rem := ms[0].Remove()
	if got := values(rem.Discarded); !slices.Equal(got, []int{5}) || rem.Lag.Count != 1 || rem.Lag.From != 4 || rem.Tally.Dropped != 1 {
		t.Errorf("the last member left %+v", rem)
	}
	// The lane of a group that has gone can be joined again.
	again := newReader(9, config(16, mailbox.Wait))
	again.Join(l, "all", all)
	put(l, 6)
	if got, _ := claimAll(&again.Reader); !slices.Equal(got, []int{6}) {
		t.Errorf("claimed %v, want 6", got)
	}
}

// At most one drainer per handler is started, each claim is of one message, and what comes is shared out.
func TestWidth(t *testing.T) {
	l := newGraph(false).NewLane(16)
	cfg := config(16, mailbox.Wait)
	cfg.Width = 3
	r := on(l, 1, cfg)
	put(l, 1, 2, 3, 4, 5)
	if n := r.wakes.Load(); n != 3 {
		t.Fatalf("%d drainers were started, want 3", n)
	}
	ds := []*worker{newWorker(t), newWorker(t), newWorker(t)}
	for i := range 5 {
		ds[i%3].do(func() {
			if got, _ := claim(&r.Reader); !slices.Equal(got, []int{i + 1}) {
				t.Errorf("claimed %v, want %d", got, i+1)
			}
		})
	}
	for i, d := range ds {
		d.do(func() {
			if !r.Active() {
				t.Errorf("not active after %d of 3 drainers have ended", i)
			}
			claim(&r.Reader)
		})
	}
	if r.Active() {
		t.Error("active without drainers")
	}
	put(l, 6)
	if n := r.wakes.Load(); n != 4 {
		t.Errorf("%d drainers were started, want 4", n)
	}
}

// What a drainer gives back comes first again, and with several handlers others help.
func TestReturn(t *testing.T) {
	for _, width := range []int{1, 3} {
		l := newGraph(false).NewLane(64)
		cfg := config(64, mailbox.Wait)
		cfg.Width = width
		r := on(l, 1, cfg)
		put(l, 1, 2, 3, 4)
		buf := make([]item, 2)
		items, _ := r.Claim(buf)
		r.Return(slices.Clone(items))
		if r.Drains(0) {
			t.Error("a drainer that returned its items still is one")
		}
		put(l, 5)
		if got, _ := claimAll(&r.Reader); !slices.Equal(got, []int{1, 2, 3, 4, 5}) {
			t.Errorf("width %d: claimed %v", width, got)
		}
	}
}

// A member that was woken for a message and leaves, or turns to other things, before it claims leaves the message to one who sleeps.
func TestGroupPassesTheWakeOn(t *testing.T) {
	tests := map[string]func(m *reader){
		"removed": func(m *reader) { m.Remove() },
		"rejoins": func(m *reader) { m.Rejoin("even", even) },
	}
	for name, leave := range tests {
		t.Run(name, func(t *testing.T) {
			l := newGraph(false).NewLane(4)
			ms := []*reader{newReader(1, config(4, mailbox.Wait)), newReader(2, config(4, mailbox.Wait))}
			for _, m := range ms {
				m.Join(l, "all", all)
			}
			put(l, 1)
			if ms[1].wakes.Load() > 0 {
				slices.Reverse(ms)
			}
			leave(ms[0])
			claimAll(&ms[0].Reader)
			if ms[1].wakes.Load() == 0 {
				t.Error("a message waits, and everybody sleeps")
			}
		})
	}
}

// What a member that is removed gives back comes first again, for the others; and a notice of lag keeps its place.
func TestGiveBack(t *testing.T) { guarded(t, testGiveBack) }

func testGiveBack(t *testing.T) {
	l := newGraph(false).NewLane(2)
	ms := []*reader{newReader(1, config(2, mailbox.DropNewest)), newReader(2, config(2, mailbox.DropNewest)), newReader(3, config(2, mailbox.DropNewest))}
	ms[0].Join(l, "odd", odd)
	ms[1].Join(l, "even", even)
	put(l, 1, 2)
	buf := make([]item, 8)
	if items, _ := ms[1].Claim(buf); len(items) != 1 || buf[0].Val != 2 { // out of turn
		t.Errorf("claimed %v", values(items))
		return
	}
	ms[2].Join(l, "all", all)
	claimed := buf[0]
	ms[1].Remove()
	if !ms[1].GiveBack(claimed) {
		t.Error("it was not given back")
	}
	claim(&ms[1].Reader)
	put(l, 3) // lost
	ms[0].Remove()
	got, lags := claimAll(&ms[2].Reader)
	if !slices.Equal(got, []int{2, 1}) || !slices.Equal(lags, []lag{{Count: 1, From: 3, To: 3}}) {
		t.Errorf("claimed %v, told of %v", got, lags)
	}

	put(l, 4)
	put(l, 6)
	if items, _ := ms[2].Claim(buf); len(items) != 1 {
		t.Errorf("claimed %v", values(items))
		return
	}
	last := buf[0]
	ms[2].Remove()
	if ms[2].GiveBack(last) {
		t.Error("given back to nobody")
	}
}

func TestNoticeKeepsItsPlaceAfterGiveBack(t *testing.T) { guarded(t, testNoticeAfterGiveBack) }

func testNoticeAfterGiveBack(t *testing.T) {
	l := newGraph(false).NewLane(2)
	a, b, c := newReader(1, config(2, mailbox.DropNewest)), newReader(2, config(2, mailbox.DropNewest)), newReader(3, config(2, mailbox.DropNewest))
	a.Join(l, "odd", odd)
	b.Join(l, "even", even)
	put(l, 1, 2)
	buf := make([]item, 8)
	b.Claim(buf)
	c.Join(l, "all", all)
	b.Remove()
	b.GiveBack(buf[0])
	put(l, 3)
	a.Remove()
	for i, want := range []int{2, 1} {
		got, lost := claim(&c.Reader)
		if lost.Count > 0 || !slices.Equal(got, []int{want}) {
			t.Errorf("claim %d returned %v and %+v, want %d", i, got, lost, want)
			return
		}
	}
	if _, lost := claim(&c.Reader); lost != (lag{Count: 1, From: 3, To: 3}) {
		t.Errorf("told of %+v", lost)
	}
}
