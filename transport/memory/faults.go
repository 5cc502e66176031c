package memory

import (
	"slices"
	"time"
)

// SetLatency sets how long what is sent from one node to another takes from now on. What is on its
// way arrives as it would have, and nothing overtakes it.
func (n *Network) SetLatency(from, to string, latency time.Duration) {
	n.change(func() {
		c := n.onLocked(path{from, to})
		c.latency = latency
		n.paths[path{from, to}] = c
	})
}

// Silence makes nothing arrive at one node that another one sends, from now on, until Heal. Nobody
// notices: writers go on until what lies between is full, and diallers wait. Nothing is lost by it:
// after Heal, what was sent arrives.
func (n *Network) Silence(from, to string) {
	n.change(func() { n.silenceLocked(from, to) })
}

// Partition makes a silence between nodes of different groups. Nodes that are in no group hear, and
// are heard by, all. Further partitions add to it, until Heal.
func (n *Network) Partition(groups ...[]string) {
	n.change(func() {
		for i, group := range groups {
			for _, from := range group {
				for _, to := range slices.Concat(slices.Concat(groups[:i]...), slices.Concat(groups[i+1:]...)) {
					n.silenceLocked(from, to)
				}
			}
		}
	})
}

func (n *Network) silenceLocked(from, to string) {
	if from == to {
		return
	}
	c := n.onLocked(path{from, to})
	c.silent = true
	n.paths[path{from, to}] = c
}

// Heal ends all silences, partitions and stalls. What was held up arrives. It does not bring back
// what was cut.
func (n *Network) Heal() {
	n.change(func() {
		for p, c := range n.paths {
			c.silent = false
			n.paths[p] = c
		}
		for _, c := range n.open {
			c.setStalled(false)
		}
	})
}

// change makes a change to the paths and lets everybody know.
func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	for _, c := range n.open {
		c.setConditions(n.onLocked(path{c.from, c.to}), n.onLocked(path{c.to, c.from}))
	}
	n.changed.Broadcast()
}

// Cut cuts all connections between two nodes, whoever dialled, as Connection.Cut does. New ones can
// be made.
func (n *Network) Cut(a, b string) {
	for _, c := range n.Connections() {
		if c.from == a && c.to == b || c.from == b && c.to == a {
			c.Cut()
		}
	}
}

// Refuse sets whether a node refuses connections although it listens: Dial to it returns
// ErrRefused. Those that were made stay.
func (n *Network) Refuse(name string, refuse bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refusing[name] = refuse
	n.changed.Broadcast()
}

// Connections returns the connections that are open on at least one side, in the order in which
// they were made.
func (n *Network) Connections() []*Connection {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.open)
}
