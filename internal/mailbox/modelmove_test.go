package mailbox_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// A mover is a reader that changes its interest, which is a mask of classes.
type mover struct {
	r    *reader
	lane *routedLane
	mask int
	old  int  // the mask before, which the routes still have
	mid  bool // its new lane is not in the routes yet
	gone bool
	got  []int
	from map[uint64]int // the last value of each sender
}

// routedLane is a lane in the routes.
type routedLane struct {
	lane *lane
	mask int
	uses int
}

// A trip is a message on its way: what each reader is to make of it.
type trip struct {
	v       int
	from    uint64
	own     *mailbox.Reader[int]
	route   []*lane
	version int
	next    int // lane of the route
	n       int
	must    map[*mover]bool // it has to get it
	may     map[*mover]bool // its interest changed meanwhile: once at most
	quiet   bool            // nobody changed while it was in progress
}

// Senders that looked up the routes before a reader moved, and those that looked them up later, in any order of steps: everybody who wants a message all
// the time gets it once, and in the order of its sender.
func TestModelMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			g       = newGraph(rapid.Bool().Draw(t, "shared"))
			readers []*mover
			routes  []*routedLane
			current = map[string]*routedLane{} // the lane that new readers get
			version int
			going   = map[uint64]*trip{}
			trips   []*trip
			values  = map[uint64]int{}
			drainer = startWorker()
		)
		defer drainer.stop()
		key := func(mask int, p mailbox.Policy) string { return fmt.Sprint(mask, p) }
		publish := func(l *routedLane, k string) {
			routes = append(routes, l)
			current[k] = l
			version++
		}
		leave := func(l *routedLane, k string) {
			if l.uses--; l.uses > 0 {
				return
			}
			if current[k] == l {
				delete(current, k)
			}
			routes = slices.DeleteFunc(routes, func(o *routedLane) bool { return o == l })
			version++
		}
		changed := func(m *mover, mask int) {
			for _, tr := range going {
				tr.quiet = false
			}
			for _, tr := range trips {
				before, after := maskWants(m.mask)(tr.v), maskWants(mask)(tr.v)
				_, inProgress := going[tr.from]
				inProgress = inProgress && going[tr.from] == tr
				switch {
				case before && !after && tr.must[m]:
					delete(tr.must, m)
					tr.may[m] = true
				case !before && after && inProgress && tr.from != m.r.Owner():
					tr.may[m] = true
				}
			}
			m.mask = mask
		}
		step := func(tr *trip) {
			if tr.next == len(tr.route) {
				delete(going, tr.from)
				if tr.quiet && tr.n != len(tr.must) {
					t.Fatalf("item %d: counted %d readers, want %d", tr.v, tr.n, len(tr.must))
				}
				return
			}
			l := tr.route[tr.next]
			tr.next++
			it := item{Val: tr.v, From: tr.from}
			for _, m := range readers { // it may have been attached meanwhile
				if m.r.Owner() == tr.from {
					tr.own = &m.r.Reader
				}
			}
			stale := func() bool { return tr.version != version }
			if n, ok := straight(l, &it, tr.own, stale()); ok {
				tr.n += n
				return
			}
			o := outcome{Stale: stale}
			l.AppendSlow(ended, &it, tr.own, mailbox.Normal, tr.route, &o)
			tr.n += o.N
		}
		anyStep := func(t *rapid.T) bool {
			var froms []uint64
			for f := range going {
				froms = append(froms, f)
			}
			if len(froms) == 0 {
				return false
			}
			slices.Sort(froms)
			step(going[rapid.SampledFrom(froms).Draw(t, "step")])
			return true
		}
		begin := func(t *rapid.T) bool {
			from := uint64(rapid.IntRange(1, 6).Draw(t, "from"))
			if going[from] != nil {
				return false
			}
			tr := &trip{from: from, version: version, must: map[*mover]bool{}, may: map[*mover]bool{}, quiet: true}
			values[from]++
			tr.v = values[from]*4 + rapid.IntRange(0, 3).Draw(t, "class")
			for _, l := range routes {
				if maskWants(l.mask)(tr.v) {
					tr.route = append(tr.route, l.lane)
				}
			}
			for _, m := range readers {
				tr.quiet = tr.quiet && !m.mid
				switch {
				case m.r.Owner() == from:
					tr.own = &m.r.Reader
				case m.gone || !maskWants(m.mask)(tr.v):
				case m.mid && !maskWants(m.old)(tr.v):
					tr.may[m] = true
				default:
					tr.must[m] = true
				}
			}
			going[from] = tr
			trips = append(trips, tr)
			return true
		}
		meanwhile := func(t *rapid.T) {
			for range rapid.IntRange(0, 4).Draw(t, "meanwhile") {
				if rapid.Bool().Draw(t, "begin") {
					begin(t)
				} else {
					anyStep(t)
				}
			}
		}
		claimFor := func(m *mover) {
			drainer.do(func() {
				buf := make([]item, 3)
				items, lost := m.r.Claim(buf)
				if lost.Count > 0 {
					t.Fatalf("lost %+v", lost)
				}
				if len(items) == 0 {
					m.r.wakes.Add(-1)
				}
				for _, it := range items {
					if it.Val <= m.from[it.From] {
						t.Fatalf("reader %d claimed %d of sender %d after %d", m.r.Owner(), it.Val, it.From, m.from[it.From])
					}
					m.from[it.From] = it.Val
					m.got = append(m.got, int(it.From)*1_000_000+it.Val)
				}
			})
		}
		policy := func(m *mover) mailbox.Policy {
			if m.r.Owner() == 1 {
				return mailbox.Block
			}
			return mailbox.Wait
		}
		pick := func(t *rapid.T) *mover {
			if len(readers) == 0 {
				t.Skip("nobody")
			}
			m := rapid.SampledFrom(readers).Draw(t, "reader")
			if m.gone {
				t.Skip("gone")
			}
			return m
		}
		t.Repeat(map[string]func(*rapid.T){
			"attach": func(t *rapid.T) {
				if len(readers) == 4 {
					t.Skip("enough")
				}
				m := &mover{from: map[uint64]int{}}
				p := mailbox.Wait
				if len(readers) == 0 {
					p = mailbox.Block
				}
				m.r = newReader(uint64(len(readers)+1), config(1<<12, p))
				mask := rapid.IntRange(0, 15).Draw(t, "mask")
				l := current[key(mask, p)]
				if l == nil {
					l = &routedLane{lane: g.NewLane(1 << 12), mask: mask}
					publish(l, key(mask, p))
				}
				l.uses++
				m.lane = l
				changed(m, mask)
				m.r.Attach(l.lane, false, false)
				readers = append(readers, m)
			},
			"move": func(t *rapid.T) {
				m := pick(t)
				mask := rapid.IntRange(0, 15).Draw(t, "mask")
				if mask == m.mask {
					t.Skip("the same")
				}
				p := policy(m)
				old, was := m.lane, m.mask
				m.lane = &routedLane{lane: g.NewLane(1 << 12), mask: mask, uses: 1}
				changed(m, mask)
				m.r.Move(m.lane.lane, p != mailbox.Wait, maskWants(mask), func() {
					m.old, m.mid = was, true
					meanwhile(t)
					m.mid = false
					publish(m.lane, key(mask, p))
					meanwhile(t)
				})
				meanwhile(t)
				leave(old, key(was, p))
			},
			"remove": func(t *rapid.T) {
				m := pick(t)
				if rapid.IntRange(0, 5).Draw(t, "now") > 0 {
					t.Skip("not yet")
				}
				changed(m, 0)
				m.gone = true
				m.r.Remove()
				leave(m.lane, key(m.lane.mask, policy(m)))
			},
			"begin": func(t *rapid.T) { begin(t) },
			"step":  func(t *rapid.T) { anyStep(t) },
			"claim": func(t *rapid.T) {
				m := pick(t)
				if m.r.wakes.Load() == 0 {
					t.Skip("sleeps")
				}
				claimFor(m)
			},
		})
		for anyStep(t) {
		}
		for busy := true; busy; {
			busy = false
			for _, m := range readers {
				for m.r.wakes.Load() > 0 {
					busy = true
					claimFor(m)
				}
			}
		}
		for _, tr := range trips {
			for _, m := range readers {
				n := 0
				for _, v := range m.got {
					if v == int(tr.from)*1_000_000+tr.v {
						n++
					}
				}
				if n > 1 || n == 0 && tr.must[m] || n == 1 && !tr.must[m] && !tr.may[m] {
					t.Errorf("reader %d got item %d of sender %d %d times; must %v, may %v", m.r.Owner(), tr.v, tr.from, n, tr.must[m], tr.may[m])
				}
			}
		}
	})
}
