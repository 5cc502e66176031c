package gravbus_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus/transport/memory"
)

// Both sides dial at the same instant, whatever the latencies: one link remains, and nothing that
// was sent since it was there is lost.
func TestSimSimultaneousDials(t *testing.T) {
	latencies := []time.Duration{0, time.Millisecond, 30 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond}
	for _, there := range latencies {
		for _, back := range latencies {
			t.Run(fmt.Sprintf("%v and %v", there, back), func(t *testing.T) {
				for range 6 { // the IDs of nodes are random, and the lower one decides
					simulate(t, memory.Config{}, func(s *sim) { simSimultaneous(s, there, back) })
				}
			})
		}
	}
}

func simSimultaneous(s *sim, there, back time.Duration) {
	s.net.SetLatency("a", "b", there)
	s.net.SetLatency("b", "a", back)
	a, b := s.start("a", nil), s.start("b", nil)
	_, atA := a.listen("to.a")
	_, atB := b.listen("to.b")
	var all sync.WaitGroup
	run := func(n *simNode, endpoint, typ string) {
		if err := n.ConnectEndpoint(endpoint); err != nil {
			s.Errorf("%s: connect: %v", n.name, err)
		}
		mustToo(s, n.WaitInterest(s.within(30*time.Second), typ, 1))
		n.feed(n.Connect(), typ, 0, 299, 10*time.Millisecond)
	}
	all.Go(func() { run(a, "memory:b", "to.b") })
	all.Go(func() { run(b, "memory:a", "to.a") })
	all.Wait()
	time.Sleep(10 * time.Second)
	cuts := s.cuts(a, b)
	s.exactly("to a", atA, 300)
	s.exactly("to b", atB, 300)
	s.meshed(a, b)
	time.Sleep(time.Minute)
	if again := s.cuts(a, b); again != cuts {
		s.Errorf("%d connections were lost in a minute in which nothing happened", again-cuts)
	}
	if cuts > 2 { // each counts on both sides
		s.Errorf("%d connections were lost", cuts)
	}
}

// The same with nodes that are each other's seeds, and start at the same instant.
func TestSimSimultaneousStarts(t *testing.T) {
	latencies := []time.Duration{0, time.Millisecond, 30 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond}
	for _, there := range latencies {
		for _, back := range latencies {
			t.Run(fmt.Sprintf("%v and %v", there, back), func(t *testing.T) {
				for range 6 {
					simulate(t, memory.Config{}, func(s *sim) {
						s.net.SetLatency("a", "b", there)
						s.net.SetLatency("b", "a", back)
						a, b := s.start("a", []string{"a", "b"}), s.start("b", []string{"a", "b"})
						must(s, a.WaitPeers(s.within(30*time.Second), 1))
						time.Sleep(10 * time.Second)
						s.meshed(a, b)
						cuts := s.cuts(a, b)
						time.Sleep(time.Minute)
						if again := s.cuts(a, b); again != cuts || cuts > 2 {
							s.Errorf("%d connections were lost while they started, and %d in the minute after", cuts, again-cuts)
						}
					})
				}
			})
		}
	}
}

// A cut between any two frames of a connection, handshake included, on the first connection and on
// the second one: every message comes once, in order, in both directions.
func TestSimCutSweep(t *testing.T) {
	for _, latency := range []time.Duration{0, 2 * time.Millisecond} {
		for first := range 90 {
			seconds := []int{-1, first % 7, first % 23}
			if raceOn || testing.Short() {
				seconds = seconds[first%3:][:1]
			}
			for _, second := range seconds {
				t.Run(fmt.Sprintf("%v, after %d and %d", latency, first, second), func(t *testing.T) {
					made := 0
					connected := func(c *memory.Connection) {
						switch made++; made {
						case 1:
							c.CutAfter(first)
						case 2:
							c.CutAfter(second)
						}
					}
					simulate(t, memory.Config{Latency: latency, Connected: connected}, simExchange)
				})
			}
		}
	}
}

// simExchange lets two nodes send to each other, each what the other one has just got, and more.
func simExchange(s *sim) {
	const n = 60
	a, b := s.start("a", nil), s.start("b", []string{"a"})
	_, atA := a.listen("to.a")
	_, atB := b.listen("to.b")
	must(s, a.WaitInterest(s.within(time.Minute), "to.b", 1))
	must(s, b.WaitInterest(s.within(time.Minute), "to.a", 1))
	var all sync.WaitGroup
	all.Go(func() { a.feed(a.Connect(), "to.b", 0, n-1, 3*time.Millisecond) })
	all.Go(func() { b.feed(b.Connect(), "to.a", 0, n-1, 5*time.Millisecond) })
	all.Wait()
	time.Sleep(30 * time.Second)
	s.exactly("to a", atA, n)
	s.exactly("to b", atB, n)
	s.meshed(a, b)
	for _, x := range []*simNode{a, b} {
		if len(x.gaps) > 0 {
			s.Errorf("%s tells of gaps: %v", x.name, x.gaps)
		}
	}
}
