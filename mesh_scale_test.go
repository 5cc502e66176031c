package gravbus_test

import (
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport/websocket"
	"github.com/sirupsen/logrus"
)

// newScaleNode returns a node on a loopback websocket that knows the seeds. It is not started.
func newScaleNode(t testing.TB, seeds []string, opts ...gravbus.Option) *gravbus.Bus {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	b := gravbus.New(append([]gravbus.Option{
		gravbus.UseLogger(log), gravbus.UseDiscovery(static.New(seeds...)),
		gravbus.UseTransport(websocket.New(websocket.Config{Addr: "127.0.0.1:0"})),
	}, opts...)...)
	t.Cleanup(func() { within(t, patience, func() { b.Close() }) })
	return b
}

// scaleLinks returns how many links the nodes have. Each pair has to have one, both sides up and
// agreeing on who has dialled.
func scaleLinks(t testing.TB, nodes []*gravbus.Bus) (links int) {
	t.Helper()
	dialled := map[[2]string]bool{}
	for _, n := range nodes {
		peers := n.Stats().Peers
		if len(peers) != len(nodes)-1 {
			t.Errorf("%s has %d peers", n.NodeUUID, len(peers))
		}
		for _, p := range peers {
			if p.State != gravbus.PeerUp {
				t.Errorf("%s: %s is %s", n.NodeUUID, p.NodeUUID, p.State)
			}
			dialled[[2]string{n.NodeUUID, p.NodeUUID}] = p.Dialled
		}
	}
	for pair, by := range dialled {
		other, both := dialled[[2]string{pair[1], pair[0]}]
		if !both || other == by {
			t.Errorf("%s has a link to %s and dialled %v; the other side has it: %v, and dialled %v", pair[0], pair[1], by, both, other)
		}
	}
	return len(dialled) / 2
}

func scaleCuts(nodes []*gravbus.Bus) (cuts uint64) {
	for _, n := range nodes {
		for _, p := range n.Stats().Peers {
			cuts += p.Cuts
		}
	}
	return cuts
}

// A scaleRound is one message from every node to all others.
type scaleRound struct {
	pods    []*gravbus.Pod
	tallies []*faultTally
}

func newScaleRound(t testing.TB, nodes []*gravbus.Bus, typ string) *scaleRound {
	t.Helper()
	r := new(scaleRound)
	for _, n := range nodes {
		p, got := n.Connect(), newFaultTally(len(nodes)-1, nil)
		must(t, p.OnType(typ, got.handle))
		r.pods, r.tallies = append(r.pods, p), append(r.tallies, got)
	}
	for _, n := range nodes {
		faultWanted(t, n, typ, len(nodes)-1)
	}
	for i, p := range r.pods {
		if p.Send(nth(typ, i, 0)) == nil {
			t.Error("not sent")
		}
	}
	for i := range nodes {
		awaitDone(t, patience, r.tallies[i].done)
	}
	return r
}

// check is called when nothing can come any more.
func (r *scaleRound) check(t testing.TB) {
	t.Helper()
	for _, got := range r.tallies {
		got.check(t)
	}
}

// Twenty nodes that know one seed become a full mesh of 190 links, which stay. It does without the
// seed too.
func TestScaleOneSeed(t *testing.T) {
	count := faultSized(20, 12)
	seed := newScaleNode(t, nil)
	must(t, seed.Start(t.Context()))
	nodes := []*gravbus.Bus{seed}
	for range count - 1 {
		nodes = append(nodes, newScaleNode(t, seed.Endpoints()))
	}
	var starting sync.WaitGroup
	for _, n := range nodes[1:] {
		starting.Go(func() { mustToo(t, n.Start(t.Context())) }) // ends by itself
	}
	starting.Wait()
	faultUp(t, nodes...)
	if links := scaleLinks(t, nodes); links != count*(count-1)/2 {
		t.Errorf("%d nodes have %d links", count, links)
	}
	first := newScaleRound(t, nodes, "scale.first")
	cuts := scaleCuts(nodes)
	t.Logf("%d connections were lost while the mesh was made", cuts/2)

	// Discoveries look again after 1, 2, 4 s …: nothing changes by that.
	stable := time.After(time.Duration(faultSized(10, 2)) * time.Second)
	<-stable
	if links, now := scaleLinks(t, nodes), scaleCuts(nodes); links != count*(count-1)/2 || now != cuts {
		t.Errorf("after a while there are %d links, and %d connections were lost since", links, now-cuts)
	}

	must(t, seed.Shutdown(meshCtx(t, patience)))
	rest := nodes[1:]
	for _, n := range rest {
		faultUntil(t, "the seed has gone", func() bool { return len(n.Stats().Peers) == count-2 })
	}
	if links := scaleLinks(t, rest); links != (count-1)*(count-2)/2 {
		t.Errorf("without the seed there are %d links", links)
	}
	late := newScaleNode(t, rest[count/2].Endpoints())
	must(t, late.Start(t.Context()))
	rest = append(rest, late)
	faultUp(t, rest...)
	if links := scaleLinks(t, rest); links != count*(count-1)/2 {
		t.Errorf("with a new node there are %d links", links)
	}
	second := newScaleRound(t, rest, "scale.second")
	for _, n := range rest {
		must(t, n.Shutdown(meshCtx(t, patience)))
	}
	first.check(t)
	second.check(t)
}

// scaleSuffix checks that a node has got all that another one sent from some message on, to the last.
type scaleSuffix struct {
	mu   sync.Mutex
	next map[int]int
	bad  []string
}

func (s *scaleSuffix) handle(msg gravbus.Message) error {
	sender, i := numberOf(msg)
	s.mu.Lock()
	defer s.mu.Unlock()
	if sender < 0 {
		s.bad = append(s.bad, fmt.Sprintf("a message %s came", msg.Type()))
	}
	if next, known := s.next[sender]; known && i != next {
		s.bad = append(s.bad, fmt.Sprintf("message %d of %d came, %d was due", i, sender, next))
	}
	s.next[sender] = i + 1
	return nil
}

// has reports whether all has come up to the last message of each sender.
func (s *scaleSuffix) has(self int, sent []int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sender, n := range sent {
		if sender != self && s.next[sender] != n {
			return false
		}
	}
	return true
}

// Eight nodes that start at once always end up with one link for each pair, and from the first
// message on that a node gets of another one it gets all, while they are still connecting.
func TestScaleSimultaneousStarts(t *testing.T) {
	const count = 8
	for round := range faultSized(50, 10) {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			// Each knows all others: the addresses are taken before.
			proxies := make([]*faultProxy, count)
			var known []string
			for i := range proxies {
				proxies[i] = newFaultProxy(t)
				known = append(known, proxies[i].addr)
			}
			var nodes []*gravbus.Bus
			var pods []*gravbus.Pod
			var got []*scaleSuffix
			for i := range count {
				n := newScaleNode(t, known, gravbus.UseTransport(faultTransport{websocket.New(websocket.Config{Addr: "127.0.0.1:0"}), proxies[i]}))
				p, s := n.Connect(), &scaleSuffix{next: map[int]int{}}
				must(t, p.OnType("scale.round", s.handle))
				nodes, pods, got = append(nodes, n), append(pods, p), append(got, s)
			}
			release, meshed := make(chan struct{}), make(chan struct{})
			sent := make([]int, count)
			var running sync.WaitGroup
			for i, n := range nodes {
				running.Go(func() { // until all are connected
					<-release
					mustToo(t, n.Start(t.Context()))
					for last := false; ; {
						if pods[i].Send(nth("scale.round", i, sent[i])) == nil {
							t.Error("not sent")
						}
						if sent[i]++; last {
							return
						}
						select {
						case <-meshed:
							last = true
						case <-time.After(2 * time.Millisecond):
						}
					}
				})
			}
			finish := sync.OnceFunc(func() {
				close(meshed)
				running.Wait()
			})
			defer finish()
			close(release)
			faultUp(t, nodes...)
			for _, n := range nodes {
				faultWanted(t, n, "scale.round", count-1)
			}
			finish()
			for i := range nodes {
				faultUntil(t, "the last messages have come", func() bool { return got[i].has(i, sent) })
			}
			if links := scaleLinks(t, nodes); links != count*(count-1)/2 {
				t.Errorf("%d links", links)
			}
			faultUntil(t, "there is one connection for each pair", func() bool {
				connections := 0
				for _, p := range proxies {
					connections += len(p.live())
				}
				return connections == count*(count-1)/2
			})
			for _, n := range nodes {
				for _, p := range n.Stats().Peers {
					if p.Gaps != 0 || p.Lost != 0 {
						t.Errorf("%d messages were lost", p.Lost)
					}
				}
			}
			t.Logf("%d connections of links were lost", scaleCuts(nodes)/2)
			var stopping sync.WaitGroup
			for _, n := range nodes {
				stopping.Go(func() { mustToo(t, n.Shutdown(meshCtx(t, patience))) }) // ends by itself
			}
			stopping.Wait()
			for i, s := range got {
				for _, bad := range s.bad {
					t.Errorf("node %d: %s", i, bad)
				}
			}
		})
	}
}
