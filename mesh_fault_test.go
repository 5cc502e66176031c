package gravbus_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
)

// faultEvents keeps the events of a node, and lets a test wait for them.
type faultEvents struct {
	mu   sync.Mutex
	all  []gravbus.Message
	more chan struct{} // closed at the next event
}

func watchFaults(t testing.TB, b *gravbus.Bus) *faultEvents {
	t.Helper()
	e := &faultEvents{more: make(chan struct{})}
	must(t, b.Connect(gravbus.Name("watch")).OnType("gravbus.peer.>", func(msg gravbus.Message) error {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.all = append(e.all, msg)
		close(e.more)
		e.more = make(chan struct{})
		return nil
	}))
	return e
}

// await waits until n events of the type have come.
func (e *faultEvents) await(t testing.TB, typ string, n int) {
	t.Helper()
	e.until(t, fmt.Sprintf("%d × %s", n, typ), func() bool { return e.countLocked(typ) >= n })
}

func (e *faultEvents) count(typ string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.countLocked(typ)
}

func (e *faultEvents) countLocked(typ string) (n int) {
	for _, m := range e.all {
		if m.Type() == typ {
			n++
		}
	}
	return n
}

// until waits until ok is true, looking at every event.
func (e *faultEvents) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	for {
		e.mu.Lock()
		done, more := ok(), e.more
		var seen []string
		for _, m := range e.all {
			seen = append(seen, m.Type())
		}
		e.mu.Unlock()
		if done {
			return
		}
		select {
		case <-more:
		case <-late:
			stacks := make([]byte, 1<<20)
			t.Fatalf("waited for %s, events were %q\n%s", what, seen, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// gapsLocked returns the gaps in one direction.
func (e *faultEvents) gapsLocked(incoming bool) (all []gravbus.Gap) {
	for _, m := range e.all {
		if m.Type() != gravbus.EventPeerGap {
			continue
		}
		if g, err := gravbus.Decode[gravbus.Gap](m); err == nil && g.Incoming == incoming {
			all = append(all, g)
		}
	}
	return all
}

// gaps waits until so many messages are told to be missing, and returns the gaps.
func (e *faultEvents) gaps(t testing.TB, incoming bool, count int) (all []gravbus.Gap) {
	t.Helper()
	sum := func() (n int) {
		for _, g := range e.gapsLocked(incoming) {
			n += int(g.Count)
		}
		return n
	}
	e.until(t, fmt.Sprintf("gaps of %d messages, incoming %v", count, incoming), func() bool { return sum() >= count })
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := sum(); n != count {
		t.Errorf("gaps of %d messages are told, incoming %v; %d are missing", n, incoming, count)
	}
	return e.gapsLocked(incoming)
}

// A faultTally counts what comes from each sender, and notes what does not come once and in order.
type faultTally struct {
	want int
	done chan struct{}
	got  atomic.Int64
	tick func()

	mu   sync.Mutex // guards all below
	next map[int]int
	bad  []string
}

func newFaultTally(want int, tick func()) *faultTally {
	return &faultTally{want: want, done: make(chan struct{}), next: map[int]int{}, tick: tick}
}

func (c *faultTally) handle(msg gravbus.Message) error {
	sender, i := numberOf(msg)
	c.mu.Lock()
	if want := c.next[sender]; i != want && len(c.bad) < 10 {
		c.bad = append(c.bad, fmt.Sprintf("%s: message %d of %d, %d is due", msg.Type(), i, sender, want))
	}
	c.next[sender] = i + 1
	c.mu.Unlock()
	if c.tick != nil {
		c.tick()
	}
	if n := c.got.Add(1); n == int64(c.want) {
		close(c.done)
	}
	return nil
}

func (c *faultTally) check(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, bad := range c.bad {
		t.Error(bad)
	}
	if n := int(c.got.Load()); n != c.want {
		t.Errorf("%d messages came, %d were sent", n, c.want)
	}
}

// faultSized is one number for a full run, and another one where time is short.
func faultSized(full, small int) int {
	if raceOn || testing.Short() {
		return small
	}
	return full
}

// A faultChaos does something to some connection of a mesh, by chance.
type faultChaos struct {
	nodes  []*faultHost
	rand   *rand.Rand
	struck map[*faultConn]bool
	halves []*faultConn // whose one side has not seen the end
}

func newFaultChaos(nodes []*faultHost, seed uint64) *faultChaos {
	return &faultChaos{nodes: nodes, rand: rand.New(rand.NewPCG(seed, 0)), struck: map[*faultConn]bool{}}
}

// pick returns a connection to which nothing has been done, or nil. Mostly it is one that carries a
// link, and sometimes one in handshake. If there is none, those go that were to be cut later: little
// may come any more.
func (x *faultChaos) pick() *faultConn {
	var fresh []*faultConn
	early := x.rand.IntN(8) == 0
	for _, n := range x.nodes {
		for _, c := range n.proxy.live() {
			if !x.struck[c] && (early || c.carried() > 4096) {
				fresh = append(fresh, c)
			}
		}
	}
	if len(fresh) == 0 {
		for c := range x.struck {
			if !slices.Contains(x.halves, c) {
				c.cut(true)
				delete(x.struck, c)
			}
		}
		return nil
	}
	c := fresh[x.rand.IntN(len(fresh))]
	x.struck[c] = true
	return c
}

// strike ends a connection somehow, now or soon.
func (x *faultChaos) strike(c *faultConn) {
	if len(x.halves) > 0 && x.rand.IntN(2) == 0 { // what was late comes now, behind what came by a newer connection
		x.halves[0].resume()
		x.halves = x.halves[1:]
	}
	direction := &c.up
	if x.rand.IntN(2) == 0 {
		direction = &c.down
	}
	switch x.rand.IntN(8) {
	case 0, 1:
		c.cut(true)
	case 2:
		c.cut(false)
	case 3:
		c.cutAfter(direction, x.rand.IntN(100), true)
	case 4:
		c.cutAfter(direction, x.rand.IntN(50_000), x.rand.IntN(2) == 0)
	case 5:
		c.slow(1 << 20)
		c.cutAfter(direction, x.rand.IntN(50_000), false)
	case 6, 7:
		c.halve(x.rand.IntN(2) == 0)
		x.halves = append(x.halves, c)
	}
}

// faultCuts returns how many connections of links have ended.
func faultCuts(nodes []*faultHost) int {
	cuts := uint64(0)
	for _, n := range nodes {
		for _, p := range n.Stats().Peers {
			cuts += p.Cuts
		}
	}
	return int(cuts / 2) // both sides count
}

// A faultGate lets senders go on step by step.
type faultGate struct {
	mu   sync.Mutex
	wake sync.Cond
	open int // steps that may be taken
}

func newFaultGate(open int) *faultGate {
	g := &faultGate{open: open}
	g.wake.L = &g.mu
	return g
}

func (g *faultGate) pass(step int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for step >= g.open {
		g.wake.Wait()
	}
}

func (g *faultGate) more() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open++
	g.wake.Broadcast()
}

// Whatever happens to connections, every message comes once and in order.
func TestFaultCuts(t *testing.T) {
	for _, c := range []struct{ nodes, messages, cuts int }{
		{2, faultSized(1_000_000, 50_000), faultSized(200, 25)},
		{5, faultSized(1_000_000, 40_000), faultSized(200, 25)},
	} {
		t.Run(fmt.Sprintf("nodes=%d", c.nodes), func(t *testing.T) {
			const bound, window, patient = 4096, gravbus.DefaultWindowMessages, time.Minute
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			nodes := newFaultMesh(t, c.nodes,
				gravbus.UseLinkBounds(bound, 0), gravbus.UseLinkStallLimit(patient), gravbus.UseDeadAfter(5*time.Second),
				gravbus.UsePodDefaults(gravbus.StallLimit(patient)))
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)

			each := c.messages / c.nodes
			total := int64(each) * int64(c.nodes) * int64(c.nodes-1)
			// Between two cuts so many messages come, and senders are at most three cuts ahead: what
			// is under way then is never all that there is.
			steps := c.cuts + 3
			step, gate := total/int64(steps+1), newFaultGate(3)
			var delivered atomic.Int64
			ticks := make(chan struct{}, 2*steps)
			tick := func() {
				if delivered.Add(1)%step == 0 {
					ticks <- struct{}{}
				}
			}
			var pods []*gravbus.Pod
			var tallies []*faultTally
			for _, n := range nodes {
				p, got := n.Connect(gravbus.Name(n.name)), newFaultTally(each*(c.nodes-1), tick)
				must(t, p.OnType("fault.run", got.handle))
				pods, tallies = append(pods, p), append(tallies, got)
			}
			for _, n := range nodes {
				faultWanted(t, n.Bus, "fault.run", c.nodes-1)
			}
			began := time.Now()
			var running sync.WaitGroup
			for i, p := range pods {
				running.Go(func() { // until all is sent
					for k := range each {
						if k%(each/steps) == 0 {
							gate.pass(k / (each / steps))
						}
						if p.Send(nth("fault.run", i, k)) == nil {
							t.Errorf("node %d could not send message %d", i, k)
							return
						}
					}
				})
			}
			over := make(chan struct{})
			running.Go(func() { // until all has come
				defer close(over)
				for _, got := range tallies {
					<-got.done
				}
			})
			x := newFaultChaos(nodes, seed)
			heap, due, cuts := uint64(0), 0, 0
			var last time.Time                             // that a connection was struck: it may take a moment to end
			again := time.NewTicker(10 * time.Millisecond) // there may be a connection now
			defer again.Stop()
			for watchdog, on := time.After(4*time.Minute), true; on; {
				for now := faultCuts(nodes); cuts < now; cuts++ {
					gate.more()
					last = time.Time{}
				}
				if cuts < due && time.Since(last) > 100*time.Millisecond {
					if c := x.pick(); c != nil {
						x.strike(c)
						last = time.Now()
					}
				}
				select {
				case <-again.C:
				case <-ticks:
					due++
					var now runtime.MemStats
					runtime.ReadMemStats(&now)
					heap = max(heap, now.HeapAlloc)
					for _, n := range nodes {
						for _, p := range n.Stats().Peers {
							if p.Depth > bound || p.Unacked > window {
								t.Errorf("%s has %d waiting for %s, %d under way", n.name, p.Depth, p.Name, p.Unacked)
							}
						}
					}
				case <-over:
					on = false
				case <-watchdog:
					for i, got := range tallies {
						t.Logf("%s: %d of %d came; %+v", nodes[i].name, got.got.Load(), got.want, nodes[i].Stats().Peers)
					}
					stacks := make([]byte, 1<<20)
					t.Fatalf("seed %d: not over\n%s", seed, stacks[:runtime.Stack(stacks, true)])
				}
			}
			running.Wait()
			took := time.Since(began)
			for _, c := range x.halves {
				c.resume()
			}
			cuts = faultCuts(nodes)
			resent := uint64(0)
			for _, n := range nodes {
				for _, p := range n.Stats().Peers {
					resent += p.Resent
					if p.Gaps != 0 || p.Lost != 0 {
						t.Errorf("%s and %s: %d gaps, %d lost", n.name, p.Name, p.Gaps, p.Lost)
					}
				}
			}
			for i, n := range nodes {
				// A cut may have kept back the last acknowledgements.
				if err := n.Shutdown(meshCtx(t, patience)); err != nil && !errors.Is(err, gravbus.ErrPeerLost) {
					t.Error(err)
				}
				tallies[i].check(t)
			}
			t.Logf("%d deliveries, %d cuts, %d sent again, in %v; heap of %d MB before, at most %d MB", total, cuts, resent, took, before.HeapAlloc>>20, heap>>20)
			if cuts < c.cuts {
				t.Errorf("only %d cuts", cuts)
			}
			// What waits and what is under way counts with 144 bytes and its data, and the collector
			// lets that much again become garbage.
			links := c.nodes * (c.nodes - 1)
			if most := before.HeapAlloc + uint64(2*links*(bound+window)*200+32<<20); heap > most && !raceOn {
				t.Errorf("the heap had %d bytes, %d are what the bounds allow", heap, most)
			}
		})
	}
}

// faultUp waits until all nodes are connected with each other.
func faultUp(t testing.TB, nodes ...*gravbus.Bus) {
	t.Helper()
	ctx := meshCtx(t, patience)
	for i, b := range nodes {
		if err := b.WaitPeers(ctx, len(nodes)-1); err != nil {
			for k, n := range nodes {
				for _, p := range n.Stats().Peers {
					t.Logf("node %d %s: %s is %s since %v, %d cuts, dialled %v", k, n.NodeUUID, p.NodeUUID, p.State, p.Since, p.Cuts, p.Dialled)
				}
			}
			stacks := make([]byte, 4<<20)
			t.Fatalf("node %d, %s: %v\n%s", i, b.NodeUUID, err, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// faultWanted waits until n peers of b want the type.
func faultWanted(t testing.TB, b *gravbus.Bus, typ string, n int) {
	t.Helper()
	must(t, b.WaitInterest(meshCtx(t, patience), typ, n))
}

// faultUntil waits until ok is true, which is a matter of moments.
func faultUntil(t testing.TB, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for late := time.After(patience); !ok(); {
		select {
		case <-look.C:
		case <-late:
			stacks := make([]byte, 1<<20)
			t.Fatalf("waited for this: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
