package gravbus_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
)

// A faultFlow sends numbered messages from each of two nodes to the other one, and checks that all
// come.
type faultFlow struct {
	t     testing.TB
	nodes []*faultHost
	pods  []*gravbus.Pod
	got   []*recorder
	sent  int
}

func newFaultFlow(t testing.TB, nodes ...*faultHost) *faultFlow {
	t.Helper()
	f := &faultFlow{t: t, nodes: nodes}
	for _, n := range nodes {
		p, got := meshListener(t, n.Bus, "fault.flow")
		f.pods, f.got = append(f.pods, p), append(f.got, got)
	}
	for _, n := range nodes {
		faultWanted(t, n.Bus, "fault.flow", len(nodes)-1)
	}
	return f
}

func (f *faultFlow) send(count int) {
	f.t.Helper()
	for i, p := range f.pods {
		for k := range count {
			if p.Send(nth("fault.flow", i, f.sent+k)) == nil {
				f.t.Fatal("not sent")
			}
		}
	}
	f.sent += count
}

// check waits until all has come, once and in order.
func (f *faultFlow) check() {
	f.t.Helper()
	for i, got := range f.got {
		next := map[int]int{}
		for _, m := range got.await(f.t, f.sent*(len(f.nodes)-1)) {
			sender, k := numberOf(m)
			if sender == i || k != next[sender] {
				f.t.Fatalf("%s got message %d of %d, %d was due", f.nodes[i].name, k, sender, next[sender])
			}
			next[sender]++
		}
	}
}

// faultOnly returns the connection of two nodes.
func faultOnly(t testing.TB, nodes ...*faultHost) *faultConn {
	t.Helper()
	var all []*faultConn
	for _, n := range nodes {
		all = append(all, n.proxy.live()...)
	}
	if len(all) != 1 {
		t.Fatalf("%d connections between %d nodes", len(all), len(nodes))
	}
	return all[0]
}

// A connection through which nothing comes any more, in one direction or both, counts as dead after
// DeadAfter. Then all goes on, on another one.
func TestFaultHalfOpen(t *testing.T) {
	for _, c := range []struct {
		name     string
		up, down bool
	}{{"both", true, true}, {"from the dialler", true, false}, {"to the dialler", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const deadAfter, grace = time.Second, time.Second
			nodes := newFaultMesh(t, 2, gravbus.UseDeadAfter(deadAfter), gravbus.UseLinkStallLimit(time.Minute))
			f := newFaultFlow(t, nodes...)
			f.send(100)
			f.check()
			faultOnly(t, nodes...).swallow(c.up, c.down)
			began := time.Now()
			f.send(100)
			for _, n := range nodes {
				n.events.await(t, gravbus.EventPeerDown, 1)
			}
			if took := time.Since(began); took > deadAfter+grace {
				t.Errorf("the connection counted as dead after %v", took)
			}
			f.check()
			f.send(100)
			f.check()
			for _, n := range nodes {
				if s := n.Stats().Peers[0]; s.Cuts != 1 || s.Lost != 0 {
					t.Errorf("%s: %d cuts, %d lost", n.name, s.Cuts, s.Lost)
				}
			}
		})
	}
}

// When one side has seen the end of a connection and the other one has not, the new connection takes
// the place of the old one at once; what comes late by the old one changes nothing.
func TestFaultReturningPeer(t *testing.T) {
	for _, c := range []struct {
		name    string
		dialler bool
	}{{"the dialler has seen the end", true}, {"the listener has seen the end", false}} {
		t.Run(c.name, func(t *testing.T) {
			nodes := newFaultMesh(t, 2, gravbus.UseDeadAfter(time.Hour), gravbus.UseLinkStallLimit(time.Minute))
			f := newFaultFlow(t, nodes...)
			for round := range 3 {
				old := faultOnly(t, nodes...)
				old.stall()
				f.send(1000)
				old.halve(c.dialler)
				f.check()
				f.send(1000)
				old.resume()
				f.check()
				faultUntil(t, "the old connection has ended", func() bool {
					return len(nodes[0].proxy.live())+len(nodes[1].proxy.live()) == 1
				})
				for _, n := range nodes {
					if s := n.Stats().Peers[0]; int(s.Cuts) != round+1 || s.Lost != 0 {
						t.Errorf("%s: %d cuts after %d rounds, %d lost", n.name, s.Cuts, round+1, s.Lost)
					}
				}
			}
		})
	}
}

// While a peer takes nothing, and somebody waits to send to it, others go on as before.
func TestFaultStalledPeer(t *testing.T) {
	const patient = time.Minute
	opts := []gravbus.Option{gravbus.UseLinkBounds(100, 0), gravbus.UseLinkStallLimit(patient), gravbus.UseDeadAfter(time.Hour)}
	nodes := newFaultMesh(t, 2, opts...)
	a, b := nodes[0], nodes[1]
	others := a.proxy.live()
	c := newFaultHost(t, "c", nodes[:1], opts...)
	faultUp(t, a.Bus, b.Bus, c.Bus)
	stalled := slices.DeleteFunc(a.proxy.live(), func(c *faultConn) bool { return slices.Contains(others, c) })[0]
	_, slow := meshListener(t, c.Bus, "fault.slow")
	meshReplier(t, b.Bus, "fault.ask", "b")
	faultWanted(t, a.Bus, "fault.slow", 1)
	faultWanted(t, a.Bus, "fault.ask", 1)
	stalled.stall()
	const count = 40_000
	var sending sync.WaitGroup
	sending.Go(func() { // ends when the peer goes on
		p := a.Connect()
		for i := range count {
			if p.Send(nth("fault.slow", 0, i)) == nil {
				t.Error("not sent")
			}
		}
	})
	faultUntil(t, "the link is full", func() bool { return meshPeerOf(t, a.Bus, "c").Depth == 100 })
	p := a.Connect()
	worst := time.Duration(0)
	for range 500 {
		began := time.Now()
		if _, err := p.Request(meshCtx(t, patience), gravbus.NewMsg("fault.ask", nil)); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, time.Since(began))
	}
	t.Logf("the slowest of 500 requests took %v", worst)
	if worst > time.Second {
		t.Errorf("a request to another peer took %v", worst)
	}
	if s := meshPeerOf(t, a.Bus, "c"); s.Depth != 100 {
		t.Errorf("%d wait for the peer that stands still", s.Depth)
	}
	stalled.resume()
	sending.Wait()
	if got := numbers(t, slow.await(t, count)); fmt.Sprint(got) != fmt.Sprint(span(0, count-1)) {
		t.Error("not all came in order")
	}
}

// Messages of the largest size in both directions do not make a connection count as dead, though
// heartbeats wait for them.
func TestFaultLargeMessages(t *testing.T) {
	const size, deadAfter = gravbus.DefaultMaxMessageSize, time.Second
	count := faultSized(40, 10)
	nodes := newFaultMesh(t, 2, gravbus.UseDeadAfter(deadAfter), gravbus.UseLinkStallLimit(time.Minute), gravbus.UseReplay(0))
	var all sync.WaitGroup
	var gots []*recorder
	for _, n := range nodes {
		p, got := meshListener(t, n.Bus, "fault.large")
		gots = append(gots, got)
		all.Go(func() { // ends when all is sent
			if err := n.WaitInterest(meshCtx(t, patience), "fault.large", 1); err != nil {
				t.Error(err)
			}
			for range count {
				if p.Send(gravbus.NewMsg("fault.large", make([]byte, size))) == nil {
					t.Error("not sent")
				}
			}
		})
	}
	faultOnly(t, nodes...).slow(6 << 20)
	for _, got := range gots {
		got.await(t, count)
	}
	all.Wait()
	for _, n := range nodes {
		if s := n.Stats().Peers[0]; s.Cuts != 0 || s.Resent != 0 {
			t.Errorf("%s: %d cuts", n.name, s.Cuts)
		}
	}
}

// A message that takes longer than DeadAfter on its way comes all the same: it is heard of all the
// time.
func TestFaultLargeAndSlow(t *testing.T) {
	const size, rate, deadAfter = 300 << 10, 100_000, time.Second
	nodes := newFaultMesh(t, 2, gravbus.UseDeadAfter(deadAfter), gravbus.UseLinkStallLimit(time.Minute))
	_, got := meshListener(t, nodes[1].Bus, "fault.large")
	faultWanted(t, nodes[0].Bus, "fault.large", 1)
	for _, n := range nodes {
		n.proxy.onEach(func(c *faultConn) { c.slow(rate) })
	}
	faultOnly(t, nodes...).slow(rate)
	if nodes[0].Connect().Send(gravbus.NewMsg("fault.large", make([]byte, size))) == nil {
		t.Fatal("not sent")
	}
	got.await(t, 1)
	for _, n := range nodes {
		if s := n.Stats().Peers[0]; s.Cuts != 0 {
			t.Errorf("%s: %d cuts", n.name, s.Cuts)
		}
	}
}

// A slow connection makes senders go at its pace: nothing is lost, though messages are on their way
// for much longer than the stall limit, and it does not count as dead, though a write takes longer
// than DeadAfter.
func TestFaultSlow(t *testing.T) {
	for _, c := range []struct{ rate, size, count int }{
		{4_000_000, 1000, 12_000},
		{100_000, 10_000, 700},
	} {
		t.Run(fmt.Sprintf("rate=%d", c.rate), func(t *testing.T) {
			t.Parallel()
			nodes := newFaultMesh(t, 2, gravbus.UseLinkBounds(64, 0), gravbus.UseReplay(0), gravbus.UseDeadAfter(2*time.Second))
			_, got := meshListener(t, nodes[1].Bus, "fault.slow")
			faultWanted(t, nodes[0].Bus, "fault.slow", 1)
			conn := faultOnly(t, nodes...)
			conn.slow(c.rate)
			var ids []string
			sent := make(chan struct{})
			go func() { // ends when all is sent
				defer close(sent)
				p := nodes[0].Connect()
				for range c.count {
					m := gravbus.NewMsg("fault.slow", make([]byte, c.size))
					if p.Send(m) == nil {
						t.Error("not sent")
						return
					}
					ids = append(ids, m.UUID())
				}
			}()
			if c.rate < 1_000_000 { // more than can be on its way: it would take a minute
				select {
				case <-sent:
					t.Error("senders are quicker than the connection")
				case <-time.After(7 * time.Second):
				}
				conn.slow(0)
			}
			awaitDone(t, patience, sent)
			for i, m := range got.await(t, c.count) {
				if m.UUID() != ids[i] {
					t.Fatalf("message %d is another one", i)
				}
			}
			for _, n := range nodes {
				if s := n.Stats().Peers[0]; s.Cuts != 0 || s.Lost != 0 {
					t.Errorf("%s: %d cuts, %d lost", n.name, s.Cuts, s.Lost)
				}
			}
		})
	}
}

// Messages each of which takes longer than the stall limit on its way are not lost: the peer sees them
// come, and says so.
func TestFaultSlowAndLarge(t *testing.T) {
	t.Parallel()
	const size, rate, count = 2_000_000, 1_300_000, 6
	nodes := newFaultMesh(t, 2, gravbus.UseLinkBounds(1, 0), gravbus.UseReplay(0), gravbus.UseMaxMessageSize(size))
	_, got := meshListener(t, nodes[1].Bus, "fault.large")
	faultWanted(t, nodes[0].Bus, "fault.large", 1)
	faultOnly(t, nodes...).slow(rate)
	p := nodes[0].Connect()
	for range count {
		p.Send(gravbus.NewMsg("fault.large", make([]byte, size)))
	}
	got.await(t, count)
	for _, n := range nodes {
		if s := n.Stats().Peers[0]; s.Cuts != 0 || s.Lost != 0 {
			t.Errorf("%s: %d cuts, %d lost", n.name, s.Cuts, s.Lost)
		}
	}
}

// A handshake that breaks for the dialler only keeps nobody out: it dials again, and the connection
// that the listener may believe in gives way.
func TestFaultHalfOpenHandshake(t *testing.T) {
	for carried := 0; carried <= 400; carried += 10 {
		t.Run(fmt.Sprint(carried), func(t *testing.T) {
			t.Parallel()
			a := newFaultHost(t, "a", nil, gravbus.UseDeadAfter(time.Hour))
			first := true
			a.proxy.onEach(func(c *faultConn) {
				if first {
					c.down.after(carried, func() { c.halve(true) })
				}
				first = false
			})
			b := newFaultHost(t, "b", []*faultHost{a}, gravbus.UseDeadAfter(time.Hour))
			faultUp(t, a.Bus, b.Bus)
			f := newFaultFlow(t, a, b)
			f.send(100)
			f.check()
		})
	}
}
