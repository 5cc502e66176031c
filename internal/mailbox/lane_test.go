package mailbox_test

import (
	"slices"
	"testing"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// What everybody has read is let go of.
func TestLaneForgetsWhatIsRead(t *testing.T) {
	for _, bound := range []int{1, 3, 8, 100} {
		l := newGraph(false).NewLane(bound)
		a, b := on(l, 1, config(bound, mailbox.Wait)), on(l, 2, config(bound, mailbox.Wait))
		for round := range 40 {
			for v := range round%bound + 1 {
				put(l, v+1)
			}
			claimAll(&a.Reader)
			if round%3 == 0 {
				b.Remove()
				b = on(l, uint64(round+3), config(bound, mailbox.Wait))
			}
			claimAll(&b.Reader)
			if n, used := l.LaneSlots(func(it *item) bool { return it.Val != 0 }); used > 0 || n > max(8, 2*bound) {
				t.Fatalf("bound %d, round %d: %d of %d slots hold what everybody has read", bound, round, used, n)
			}
		}
	}
}

// One ring serves readers at different places in it, and one who sends to himself and others.
func TestSharers(t *testing.T) {
	l := newGraph(false).NewLane(4)
	a, b := on(l, 1, config(4, mailbox.Wait)), on(l, 2, config(4, mailbox.Wait))
	if o := put(l, 1, 2); o.N != 2 {
		t.Errorf("%d have it, want 2", o.N)
	}
	claimAll(&a.Reader)
	for v := range 2 { // b keeps up; a, who sends them, does not come
		if o := send(ended, l, item{Val: 10 + v, From: 1}, &a.Reader, mailbox.Normal); o.N != 1 || o.Err != nil {
			t.Errorf("%+v", o)
		}
	}
	if depth, _ := a.Depth(); depth != 0 || a.Active() {
		t.Errorf("a reader has %d messages of its own", depth)
	}
	// b is full. a is not, whatever it sends.
	if o := put(l, 3); o.N != 1 || len(o.Missed) != 1 || o.Missed[0] != &b.Reader {
		t.Errorf("%+v, want b to miss it", o)
	}
	if got, _ := claimAll(&a.Reader); !slices.Equal(got, []int{3}) {
		t.Errorf("a claimed %v", got)
	}
	got, lags := claimAll(&b.Reader)
	if !slices.Equal(got, []int{1, 2, 10, 11}) || !slices.Equal(lags, []lag{{Count: 1, From: 3, To: 3}}) {
		t.Errorf("b claimed %v, told of %v", got, lags)
	}
	for v := range 100 {
		if o := send(ended, l, item{Val: v, From: 1}, &a.Reader, mailbox.Normal); o.N != 1 || o.Err != nil {
			t.Fatalf("%+v", o)
		}
		claimAll(&b.Reader)
	}
	c := on(l, 3, config(4, mailbox.Wait))
	put(l, 4)
	for i, r := range []*reader{a, b, c} {
		if got, _ := claimAll(&r.Reader); !slices.Equal(got, []int{4}) {
			t.Errorf("reader %d claimed %v, want 4", i, got)
		}
	}
}

// A reader in the midst of its own messages is not full by them, and skips them.
func TestOwnMessagesTakeNoRoom(t *testing.T) {
	l := newGraph(false).NewLane(4)
	a := on(l, 1, config(4, mailbox.Wait))
	on(l, 2, config(4, mailbox.DropOldest))
	put(l, 1)
	for v := range 20 {
		send(ended, l, item{Val: 100 + v, From: 1}, &a.Reader, mailbox.Normal)
	}
	if o := put(l, 2, 3, 4); o.N != 2 || o.Err != nil {
		t.Errorf("%+v", o)
	}
	if depth, _ := a.Depth(); depth != 4 {
		t.Errorf("depth is %d, want 4", depth)
	}
	if o := put(l, 5); len(o.Missed) != 1 {
		t.Errorf("%+v, want one full", o)
	}
	if got, _ := claimAll(&a.Reader); !slices.Equal(got, []int{1, 2, 3, 4}) {
		t.Errorf("claimed %v", got)
	}
}

// An event of the bus is counted neither twice nor by a lane nobody finds any more.
func TestSent(t *testing.T) {
	g := newGraph(false)
	l := g.NewLane(4)
	on(l, 1, config(4, mailbox.DropNewest))
	put(l, 1, 2, 3, 4, 5)
	if l.Sent() != 5 || g.Sent() != 0 {
		t.Errorf("sent %d and %d, want 5 and 0", l.Sent(), g.Sent())
	}
	l.Retire()
	put(l, 6)
	if l.Sent() != 0 || g.Sent() != 6 {
		t.Errorf("sent %d and %d, want 0 and 6", l.Sent(), g.Sent())
	}
}
