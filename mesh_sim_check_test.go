package gravbus_test

import (
	"slices"
	"time"

	"github.com/gravbus/gravbus"
)

// check compares what came with what was sent.
func (m *simModel) check() {
	var live []*simMember
	for _, n := range m.live {
		live = append(live, n)
	}
	slices.SortFunc(live, func(a, b *simMember) int { return a.number - b.number })
	settled := len(m.members)
	last := make([]int, settled) // how many each had sent when all had healed
	for _, n := range live {
		last[n.number] = len(n.sent)
		m.burst(n, 20, time.Millisecond)
	}
	m.sends.Wait()
	m.await(time.Hour, "all is handled", func() bool {
		time.Sleep(5 * time.Second)
		for _, n := range live {
			st := n.Stats()
			if st.Working > 0 {
				return false
			}
			for _, p := range st.Pods {
				if p.Depth > 0 {
					return false
				}
			}
		}
		return true
	})
	var nodes []*simNode
	for _, n := range live {
		nodes = append(nodes, n.simNode)
	}
	m.settle(nodes)
	for _, n := range m.members {
		for _, p := range n.pods {
			p.mu.Lock()
			for _, fault := range p.faults {
				m.Errorf("a pod at %s (%d): %s", n.name, n.number, fault)
			}
			p.mu.Unlock()
		}
	}
	for _, to := range live {
		lost := map[[2]int]bool{} // messages that did not come to the node: by sender and number
		for _, from := range live {
			m.checkPair(from, to, last[from.number], lost)
		}
		for _, p := range to.pods {
			if p.steady && to.first {
				m.checkPod(p, live, lost)
			}
		}
	}
}

// settle waits for passing connections to end, and checks that the mesh is full.
func (m *simModel) settle(nodes []*simNode) {
	for range 100 {
		if len(m.net.Connections()) == len(nodes)*(len(nodes)-1)/2 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	m.meshed(nodes...)
}

// checkPair checks what came from one node to another.
func (m *simModel) checkPair(from, to *simMember, healed int, lost map[[2]int]bool) {
	got := map[int]bool{}
	for _, i := range to.all.got[from.number] {
		got[i] = true
	}
	for i := range from.sent {
		if !got[i] {
			lost[[2]int{from.number, i}] = true
			if i >= healed {
				m.Errorf("%s to %s: message %d was sent after all had healed, and did not come", from.name, to.name, i)
			}
		}
	}
	if !from.first || !to.first || from == to {
		if from == to && len(got) != len(from.sent) {
			m.Errorf("%s: %d of %d of its own messages came", to.name, len(got), len(from.sent))
		}
		return
	}
	// It was away from when it was given up until it was back: what was sent then was not for it.
	type span struct{ from, to time.Duration }
	var away []span
	from.mu.Lock()
	for _, e := range from.events {
		if e.Peer.NodeUUID != to.NodeUUID {
			continue
		}
		switch e.typ {
		case gravbus.EventPeerLost:
			away = append(away, span{e.at, 1 << 62})
		case gravbus.EventPeerUp:
			if len(away) > 0 && away[len(away)-1].to == 1<<62 {
				away[len(away)-1].to = e.at
			}
		}
	}
	from.mu.Unlock()
	all, missing := 0, 0
	for i, s := range from.sent {
		if got[i] {
			continue
		}
		all++
		if !slices.ContainsFunc(away, func(a span) bool { return s.before <= a.to && s.after >= a.from }) {
			missing++
		}
	}
	out, in := from.missing(to.simNode, false), to.missing(from.simNode, true)
	others := m.asked[[2]string{from.name, to.name}] + m.asked[[2]string{to.name, from.name}] // requests and answers
	if missing > in || in > out || out > missing+others && len(away) == 0 || out != in && len(away) == 0 {
		m.Errorf("%s to %s: %d of %d messages are missing, %d of them were sent while it was there; one tells of %d and the other of %d; it was given up %d times; %d requests",
			from.name, to.name, all, len(from.sent), missing, out, in, len(away), others)
	}
}

// checkPod checks that a pod has got all that came to its node, but for what it was told to have
// lost.
func (m *simModel) checkPod(p *simPod, live []*simMember, lost map[[2]int]bool) {
	missing := 0
	for _, from := range live {
		got := map[int]bool{}
		for _, i := range p.got[from.number] {
			got[i] = true
		}
		for i, s := range from.sent {
			if from.first && p.types[s.typ] && !got[i] && !lost[[2]int{from.number, i}] {
				missing++
			}
		}
	}
	if missing > p.lagged || missing < p.lagged && len(live) == len(m.members) {
		m.Errorf("a pod at %s: %d are missing, and it was told of %d", p.on.name, missing, p.lagged)
	}
}
