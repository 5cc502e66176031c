package mdns

import (
	"slices"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

const (
	// lifetime is how long a node counts as there after it has answered: the time for which its
	// records are valid (the TTL that the library gives them, after RFC 6762, section 10).
	lifetime = 120 * time.Second

	// maxKnown bounds how many nodes are known. When there are more, those that came first stay, so
	// that nobody can drive them out by inventing others.
	maxKnown = 1024
)

// known are the nodes that have answered, by their UUIDs. One goroutine at a time uses it.
type known map[string]*knownNode

type knownNode struct {
	endpoints []string
	heard     time.Time // when it has last answered
}

// hear takes what has come in one look. Answers of one node, as on several links, add up. It reports
// false if there were too many nodes.
func (k known) hear(answers []answer, now time.Time) (all bool) {
	all = true
	for uuid, n := range k {
		if now.Sub(n.heard) >= lifetime {
			delete(k, uuid)
		}
	}
	fresh := make(map[string]bool)
	for _, a := range answers {
		n := k[a.uuid]
		if n == nil {
			if len(k) == maxKnown {
				all = false
				continue
			}
			n = new(knownNode)
			k[a.uuid] = n
		}
		if !fresh[a.uuid] {
			fresh[a.uuid] = true
			n.heard, n.endpoints = now, nil
		}
		for _, endpoint := range a.endpoints {
			if len(n.endpoints) < maxEndpoints && !slices.Contains(n.endpoints, endpoint) {
				n.endpoints = append(n.endpoints, endpoint)
			}
		}
	}
	return all
}

// nodes returns them all, in no order.
func (k known) nodes() []discovery.Node {
	nodes := make([]discovery.Node, 0, len(k))
	for uuid, n := range k {
		nodes = append(nodes, discovery.Node{UUID: uuid, Endpoints: slices.Clone(n.endpoints)})
	}
	return nodes
}
