package mailbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// modelLag is a notice to come, with the places in the order of the first and the last of the lost.
type modelLag struct {
	lag
	at, to int
}

func (m *modelLag) lost(v, at int) {
	if m.Count == 0 || at < m.at {
		m.From, m.at = v, at
	}
	if m.Count == 0 || at >= m.to {
		m.To, m.to = v, at
	}
	m.Count++
}

func (m *modelLag) told(got lag) error {
	want := *m
	*m = modelLag{}
	if got != want.lag {
		return fmt.Errorf("told of %+v, want %+v", got, want)
	}
	return nil
}

// modelReader is a mailbox as a list.
type modelReader struct {
	r      *reader
	owner  uint64
	cfg    mailbox.Config
	items  []int
	first  int // place of items[0]
	lag    modelLag
	tally  mailbox.Tally
	active int
	ended  int64 // drainers

	hand    []item // what was claimed last: it must not change until the next claim, whatever becomes of the reader
	handWas []int
}

// drainers is how many drainers have been woken and have not ended.
func (m *modelReader) drainers() int { return int(m.r.wakes.Load() - m.ended) }

func (m *modelReader) lost(v, at int) {
	m.tally.Dropped++
	if m.lag.Count == 0 {
		m.tally.Lags++
	}
	m.lag.lost(v, at)
}

func (m *modelReader) cost() (sum int) {
	for _, v := range m.items {
		sum += cost(v)
	}
	return sum
}

func (m *modelReader) full() bool {
	return len(m.items) >= m.cfg.Bound || m.cfg.MaxCost > 0 && m.cost() >= m.cfg.MaxCost
}

// push returns whether m has it now, and whether the sender is told that it has not.
func (m *modelReader) push(v int, shed bool) (has, missed bool) {
	waits := m.cfg.Policy <= mailbox.Block
	switch {
	case !m.full():
	case m.cfg.Policy == mailbox.DropOldest, waits && shed:
		now := m.cost()
		for m.full() && (len(m.items) >= m.cfg.Bound || m.cost()+cost(v) > now) {
			m.lost(m.items[0], m.first)
			m.items = m.items[1:]
			m.first++
		}
	default:
		m.lost(v, m.first+len(m.items))
		return false, m.cfg.Policy != mailbox.DropNewest
	}
	m.items = append(m.items, v)
	if m.active < m.cfg.Width {
		m.active++
	}
	return true, false
}

// claim checks what a claim has returned.
func (m *modelReader) claim(got []int, told lag, most int) error {
	due := m.lag.Count > 0 && (m.first >= m.lag.at || len(m.items) == 0)
	if told.Count > 0 && due {
		return m.lag.told(told)
	}
	want := min(most, len(m.items))
	if m.cfg.Width > 1 {
		want = min(want, 1)
	}
	if m.lag.Count > 0 {
		want = min(want, m.lag.at-m.first)
	}
	if m.cfg.MaxCost > 0 {
		sum := 0
		for i := range want {
			if sum += cost(m.items[i]); sum >= max(m.cfg.MaxCost/4, 1) {
				want = i + 1
				break
			}
		}
	}
	if n := len(got); m.cfg.Bound >= 16 && !m.cfg.Private() && 0 < n && n < want {
		want = n // the rest begins at the other end of the ring
	}
	if due || told.Count > 0 || !slices.Equal(got, m.items[:want]) {
		return fmt.Errorf("claimed %v, told of %+v; has %v, lag %+v, at most %d", got, told, m.items, m.lag, most)
	}
	m.items = m.items[want:]
	m.first += want
	if want == 0 {
		m.active--
		m.ended++
	}
	return nil
}

// One lane with readers of all kinds is what a list for each of them is.
func TestModelLane(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bound := rapid.SampledFrom([]int{1, 2, 3, 5, 8, 13, 16, 20, 40}).Draw(t, "bound")
		batch := max(bound/4, 1)
		l := newGraph(rapid.Bool().Draw(t, "shared")).NewLane(bound)
		drainer := startWorker() // the drainers' goroutine; it is not the sender's, which would be a circle
		defer drainer.stop()
		var readers, left []*modelReader
		owners, last := uint64(0), 0
		pick := func(t *rapid.T, f func(*modelReader) bool) *modelReader {
			var some []*modelReader
			for _, m := range readers {
				if f(m) {
					some = append(some, m)
				}
			}
			if len(some) == 0 {
				t.Skip("nobody")
			}
			return rapid.SampledFrom(some).Draw(t, "reader")
		}
		claimFor := func(t *rapid.T, m *modelReader, room int) {
			var got []int
			var told lag
			drainer.do(func() {
				buf := make([]item, room)
				items, lost := m.r.Claim(buf)
				got, told = values(items), lost
				m.hand, m.handWas = items, got
			})
			if err := m.claim(got, told, min(room, batch)); err != nil {
				t.Fatalf("reader %d: %v", m.owner, err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"attach": func(t *rapid.T) {
				if len(readers) > 5 {
					t.Skip("enough")
				}
				owners++
				cfg := config(bound, rapid.SampledFrom([]mailbox.Policy{mailbox.Wait, mailbox.Wait, mailbox.Wait, mailbox.Block, mailbox.DropOldest, mailbox.DropNewest, mailbox.Fail}).Draw(t, "policy"))
				cfg.Width = rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "width")
				cfg.MaxCost = rapid.SampledFrom([]int{0, 0, 0, 1, 8, 30, 100}).Draw(t, "max cost")
				m := &modelReader{r: newReader(owners, cfg), owner: owners, cfg: cfg}
				m.r.Attach(l, rapid.IntRange(0, 3).Draw(t, "private") == 0, false)
				readers = append(readers, m)
			},
			"append": func(t *rapid.T) {
				it := item{Val: last, From: outsider}
				var own *mailbox.Reader[int]
				if from := rapid.IntRange(0, 2*len(readers)).Draw(t, "from"); from < len(readers) {
					it.From, own = readers[from].owner, &readers[from].r.Reader
				}
				mode := rapid.SampledFrom([]mailbox.Mode{mailbox.Normal, mailbox.Normal, mailbox.Normal, mailbox.Shed}).Draw(t, "mode")
				for range rapid.IntRange(1, 10).Draw(t, "n") {
					last++
					it.Val = last
					n, missed, waits := 0, 0, false
					for _, m := range readers {
						if m.owner == it.From {
							continue
						}
						waits = waits || m.cfg.Policy <= mailbox.Block && m.full()
						has, miss := m.push(it.Val, mode == mailbox.Shed)
						if has {
							n++
						}
						if miss {
							missed++
						}
					}
					o := send(ended, l, it, own, mode)
					if o.N != n || len(o.Missed) != missed {
						t.Fatalf("item %d: %d have it and %d missed it, want %d and %d", it.Val, o.N, len(o.Missed), n, missed)
					}
					if waits && mode == mailbox.Normal && !errors.Is(o.Err, context.Canceled) {
						t.Fatalf("item %d: error %v", it.Val, o.Err)
					}
				}
			},
			"claim": func(t *rapid.T) {
				m := pick(t, func(m *modelReader) bool { return m.drainers() > 0 })
				claimFor(t, m, rapid.IntRange(1, 12).Draw(t, "room"))
			},
			"drain": func(t *rapid.T) {
				m := pick(t, func(m *modelReader) bool { return m.drainers() > 0 })
				for m.drainers() > 0 {
					claimFor(t, m, mailbox.MaxBatch)
				}
			},
			"remove": func(t *rapid.T) {
				m := pick(t, func(m *modelReader) bool { return rapid.IntRange(0, 3).Draw(t, "now") == 0 })
				rem := m.r.Remove()
				if !slices.Equal(values(rem.Discarded), m.items) || rem.Tally != m.tally {
					t.Fatalf("reader %d left %+v, want %v and %+v", m.owner, rem, m.items, m.tally)
				}
				if m.lag.Count > 0 || rem.Lag.Count > 0 {
					if err := m.lag.told(rem.Lag); err != nil {
						t.Fatal(err)
					}
				}
				readers = slices.DeleteFunc(readers, func(o *modelReader) bool { return o == m })
				left = append(left, m)
				for m.drainers() > 0 { // so that it wakes whom it is to wake
					drainer.do(func() {
						if got, _ := claimAll(&m.r.Reader); got != nil {
							t.Fatalf("a removed reader claimed %v", got)
						}
					})
					m.ended = m.r.wakes.Load()
				}
			},
			"": func(t *rapid.T) {
				for _, m := range slices.Concat(readers, left) {
					if now := values(m.hand); !slices.Equal(now, m.handWas) {
						t.Fatalf("reader %d had %v in hand, which became %v", m.owner, m.handWas, now)
					}
				}
				for _, m := range readers {
					depth, tally := m.r.Depth()
					if depth != len(m.items) || tally != m.tally {
						t.Fatalf("reader %d has %d items and %+v, want %v and %+v", m.owner, depth, tally, m.items, m.tally)
					}
					if got := m.r.Cost(); m.cfg.MaxCost > 0 && got != m.cost() || m.cfg.MaxCost == 0 && got != 0 {
						t.Fatalf("reader %d has %v, which cost %d; bound %d", m.owner, m.items, got, m.cfg.MaxCost)
					}
					if m.drainers() > m.active || m.r.Active() != (m.active > 0) {
						t.Fatalf("reader %d has %d drainers, and is active: %v; want %d", m.owner, m.drainers(), m.r.Active(), m.active)
					}
				}
			},
		})
		for busy := true; busy; {
			busy = false
			for _, m := range readers {
				for m.drainers() > 0 {
					busy = true
					claimFor(t, m, mailbox.MaxBatch)
				}
			}
		}
		for _, m := range readers {
			if m.active > 0 || len(m.items) > 0 || m.lag.Count > 0 {
				t.Fatalf("reader %d is not woken for %v, lag %+v", m.owner, m.items, m.lag)
			}
		}
	})
}

// modelMember is a member of a group, which wants the classes (mod 4) in its mask.
type modelMember struct {
	r     *reader
	owner uint64
	width int
	mask  int
	ended int64
}

func (m *modelMember) drainers() int { return int(m.r.wakes.Load() - m.ended) }

func (m *modelMember) takes(e modelEntry) bool {
	return m.owner != e.from && maskWants(m.mask)(e.v)
}

func maskWants(mask int) func(int) bool { return func(v int) bool { return mask>>(v%4)&1 == 1 } }

type modelEntry struct {
	v    int
	from uint64
	pos  int
}

// modelGroup is a group's queue as a list.
type modelGroup struct {
	bound   int
	maxCost int
	policy  mailbox.Policy
	members []*modelMember
	entries []modelEntry
	head    int
	lag     modelLag
	tally   mailbox.Tally
}

func (g *modelGroup) pos() int {
	if len(g.entries) == 0 {
		return g.head
	}
	return g.entries[0].pos
}

func (g *modelGroup) wanted(e modelEntry) bool {
	return slices.ContainsFunc(g.members, func(m *modelMember) bool { return m.takes(e) })
}

func (g *modelGroup) lost(v, at int) {
	g.tally.Dropped++
	if g.lag.Count == 0 {
		g.tally.Lags++
	}
	g.lag.lost(v, at)
}

func (g *modelGroup) cost() (sum int) {
	for _, e := range g.entries {
		sum += cost(e.v)
	}
	return sum
}

func (g *modelGroup) full() bool {
	return len(g.entries) >= g.bound || g.maxCost > 0 && g.cost() >= g.maxCost
}

func (g *modelGroup) push(v int, from uint64, shed bool) (has, missed bool) {
	e := modelEntry{v, from, g.head}
	if !g.wanted(e) {
		return false, false
	}
	if g.full() {
		if g.policy != mailbox.DropOldest && !(shed && g.policy <= mailbox.Block) {
			g.lost(v, g.head)
			return false, g.policy != mailbox.DropNewest
		}
		now := g.cost()
		for g.full() && (len(g.entries) >= g.bound || g.cost()+cost(v) > now) {
			g.lost(g.entries[0].v, g.entries[0].pos)
			g.entries = g.entries[1:]
		}
	}
	g.entries = append(g.entries, e)
	g.head++
	return true, false
}

func (g *modelGroup) purge() (n int) {
	for i := 0; i < len(g.entries); {
		if e := g.entries[i]; !g.wanted(e) {
			g.entries = slices.Delete(g.entries, i, i+1)
			g.lost(e.v, e.pos)
			n++
		} else {
			i++
		}
	}
	return n
}

func (g *modelGroup) claim(m *modelMember, got []int, told lag) error {
	due := g.lag.Count > 0 && (g.pos() >= g.lag.at || len(g.entries) == 0)
	if told.Count > 0 && due {
		return g.lag.told(told)
	}
	i := slices.IndexFunc(g.entries, m.takes)
	if told.Count > 0 || due || i < 0 && len(got) > 0 || i >= 0 && !slices.Equal(got, []int{g.entries[i].v}) {
		return fmt.Errorf("claimed %v, told of %+v; has %v, lag %+v", got, told, g.entries, g.lag)
	}
	if i < 0 {
		m.ended++
	} else {
		g.entries = slices.Delete(g.entries, i, i+1)
	}
	return nil
}

// A group is one list, of which each member takes the first that it wants and did not send.
func TestModelGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := &modelGroup{
			bound:   rapid.SampledFrom([]int{1, 2, 3, 5, 8}).Draw(t, "bound"),
			maxCost: rapid.SampledFrom([]int{0, 0, 1, 8, 30}).Draw(t, "max cost"),
			policy:  rapid.SampledFrom([]mailbox.Policy{mailbox.Wait, mailbox.Block, mailbox.DropOldest, mailbox.DropNewest, mailbox.Fail}).Draw(t, "policy"),
		}
		l := newGraph(rapid.Bool().Draw(t, "shared")).NewLane(g.bound)
		mixed := rapid.Bool().Draw(t, "mixed")
		drainer := startWorker()
		defer drainer.stop()
		owners, last := uint64(0), 0
		drawMask := func(t *rapid.T) int {
			if !mixed {
				return 15
			}
			return rapid.IntRange(0, 15).Draw(t, "mask")
		}
		join := func(mask, width int) {
			owners++
			cfg := costly(g.bound, g.maxCost, g.policy)
			cfg.Width = width
			m := &modelMember{r: newReader(owners, cfg), owner: owners, width: width, mask: mask}
			m.r.Join(l, fmt.Sprint(mask), maskWants(mask))
			g.members = append(g.members, m)
		}
		if mixed { // two that differ for good, so that the group is always asked
			join(0, 1)
			join(15, 1)
		}
		member := func(t *rapid.T, f func(*modelMember) bool) *modelMember {
			var some []*modelMember
			for i, m := range g.members {
				if (!mixed || i > 1 || m.drainers() > 0) && f(m) {
					some = append(some, m)
				}
			}
			if len(some) == 0 {
				t.Skip("nobody")
			}
			return rapid.SampledFrom(some).Draw(t, "member")
		}
		claimFor := func(t *rapid.T, m *modelMember) {
			var got []int
			var told lag
			drainer.do(func() { got, told = claim(&m.r.Reader) })
			if err := g.claim(m, got, told); err != nil {
				t.Fatalf("member %d: %v", m.owner, err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(t *rapid.T) {
				if len(g.members) > 5 {
					t.Skip("enough")
				}
				join(drawMask(t), rapid.IntRange(1, 2).Draw(t, "width"))
			},
			"append": func(t *rapid.T) {
				if len(g.members) == 0 {
					t.Skip("nobody")
				}
				from, own := uint64(outsider), (*mailbox.Reader[int])(nil)
				if i := rapid.IntRange(0, 2*len(g.members)).Draw(t, "from"); i < len(g.members) {
					from, own = g.members[i].owner, &g.members[i].r.Reader
				}
				mode := rapid.SampledFrom([]mailbox.Mode{mailbox.Normal, mailbox.Normal, mailbox.Shed}).Draw(t, "mode")
				last += rapid.IntRange(1, 4).Draw(t, "class")
				idle := 0
				before := int64(0)
				for _, m := range g.members {
					if m.takes(modelEntry{v: last, from: from}) && m.drainers() < m.width {
						idle++
					}
					before += m.r.wakes.Load()
				}
				has, missed := g.push(last, from, mode == mailbox.Shed)
				o := send(ended, l, item{Val: last, From: from}, own, mode)
				if o.N == 1 != has || len(o.Missed) == 1 != missed {
					t.Fatalf("item %d: %d have it and %d missed it, want %v and %v", last, o.N, len(o.Missed), has, missed)
				}
				woken := -before
				for _, m := range g.members {
					woken += m.r.wakes.Load()
				}
				if want := min(idle, o.N); int(woken) != want {
					t.Fatalf("item %d: %d woken, want %d", last, woken, want)
				}
			},
			"claim": func(t *rapid.T) { claimFor(t, member(t, func(m *modelMember) bool { return m.drainers() > 0 })) },
			"rejoin": func(t *rapid.T) {
				if !mixed {
					t.Skip("all want the same")
				}
				m := member(t, func(m *modelMember) bool { return m.mask != 0 || m.owner > 2 })
				if m.owner <= 2 {
					t.Skip("these do not change")
				}
				m.mask = drawMask(t)
				if n, want := m.r.Rejoin(fmt.Sprint(m.mask), maskWants(m.mask)), g.purge(); n != want {
					t.Fatalf("%d were dropped, want %d", n, want)
				}
			},
			"remove": func(t *rapid.T) {
				m := member(t, func(m *modelMember) bool { return !mixed || m.owner > 2 })
				g.members = slices.DeleteFunc(g.members, func(o *modelMember) bool { return o == m })
				rem := m.r.Remove()
				if len(g.members) > 0 {
					if rem.Discarded != nil || rem.Lag.Count > 0 || rem.Tally.Dropped > 0 {
						t.Fatalf("one of several members left %+v", rem)
					}
					g.purge()
				} else {
					var left []int
					for _, e := range g.entries {
						left = append(left, e.v)
					}
					if !slices.Equal(values(rem.Discarded), left) || rem.Tally != g.tally || rem.Lag.Count != g.lag.Count {
						t.Fatalf("the last member left %+v, want %v, %+v, %+v", rem, left, g.tally, g.lag)
					}
					*g = modelGroup{bound: g.bound, maxCost: g.maxCost, policy: g.policy}
				}
			},
			"": func(t *rapid.T) {
				for _, m := range g.members {
					if depth, tally := m.r.Depth(); depth != len(g.entries) || tally != g.tally {
						t.Fatalf("%d items and %+v, want %v and %+v", depth, tally, g.entries, g.tally)
					}
					if got := m.r.Cost(); g.maxCost > 0 && got != g.cost() {
						t.Fatalf("%v cost %d, want %d", g.entries, got, g.cost())
					}
					if n := m.drainers(); n > m.width || m.r.Active() != (n > 0) {
						t.Fatalf("member %d has %d drainers, and is active: %v", m.owner, n, m.r.Active())
					}
				}
			},
		})
		for busy := true; busy; {
			busy = false
			for _, m := range g.members {
				for m.drainers() > 0 {
					busy = true
					claimFor(t, m)
				}
			}
		}
		if len(g.entries) > 0 {
			t.Fatalf("nobody is woken for %v", g.entries)
		}
	})
}
