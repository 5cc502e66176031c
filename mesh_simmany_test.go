package gravbus_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
)

// Eight nodes start at the same time, in many rounds: always exactly 28 links that stay, and no
// message is lost. In some rounds all know one of them, in others all know all.
func TestSimEightNodes(t *testing.T) {
	rounds := 50
	if raceOn || testing.Short() {
		rounds = 10
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			simulate(t, memory.Config{}, func(s *sim) { simEight(s, rand.New(rand.NewPCG(uint64(round), 8)), round%2 == 0) })
		})
	}
}

func simEight(s *sim, random *rand.Rand, oneSeed bool) {
	const count, each = 8, 50
	var names []string
	for i := range count {
		names = append(names, fmt.Sprint("n", i))
	}
	for _, from := range names {
		for _, to := range names {
			s.net.SetLatency(from, to, time.Duration(random.IntN(20))*time.Millisecond)
		}
	}
	seeds := names
	if oneSeed {
		seeds = names[:1]
	}
	var all sync.WaitGroup
	nodes := make([]*simNode, count)
	records := make([]*recorder, count)
	for i, name := range names {
		nodes[i] = s.node(name, seeds)
		_, records[i] = nodes[i].listen("x.*")
	}
	for i, n := range nodes {
		all.Go(func() {
			mustToo(s, n.Start(s.Context()))
			mustToo(s, n.WaitPeers(s.within(20*time.Second), count-1))
			mustToo(s, n.WaitInterest(s.within(20*time.Second), "x.y", count-1))
			p := n.Connect()
			for k := range each {
				p.Send(nth("x.y", i, k))
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	all.Wait()
	time.Sleep(5 * time.Second)
	s.meshed(nodes...)
	cuts := s.cuts(nodes...)
	for i, r := range records {
		next := map[int]int{}
		for _, msg := range r.all() {
			from, k := numberOf(msg)
			if k != next[from] {
				s.Errorf("%s: message %d of %d came, and %d was due", names[i], k, from, next[from])
			}
			next[from] = k + 1
		}
		for from := range count {
			if from != i && next[from] != each {
				s.Errorf("%s: %d messages of %d came", names[i], next[from], from)
			}
		}
	}
	time.Sleep(2 * time.Minute)
	if again := s.cuts(nodes...); again != cuts {
		s.Errorf("%d connections were lost later on", again-cuts)
	}
	if cuts > 8 {
		s.Errorf("%d connections were lost at the start", cuts)
	}
	for _, n := range nodes {
		if lost := n.count(gravbus.EventPeerLost); lost > 0 || len(n.gaps) > 0 {
			s.Errorf("%s: %d peers were lost, %d gaps", n.name, lost, len(n.gaps))
		}
	}
}
