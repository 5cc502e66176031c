// Package discoverytest checks that a discovery meets the contract of package discovery.
//
//	func TestContract(t *testing.T) {
//		discoverytest.Test(t, func(t *testing.T) discoverytest.Network {
//			dir := t.TempDir()
//			return discoverytest.Network{
//				New:       func() discovery.Discovery { return shareddir.New(dir) },
//				Announces: true,
//				Bubble:    true,
//			}
//		})
//	}
//
// Each rule of the contract is a subtest, whose failure says what was expected. No other test should
// run at the same time: the goroutines of all are looked at.
package discoverytest

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

// Nodes is how many nodes the suite has at a time, at most.
const Nodes = 3

// Endpoint returns where node number i of the suite, from 0 to Nodes-1, is to be reached. Nothing
// listens there. A discovery that has to be told of the nodes beforehand is told of all these.
func Endpoint(i int) string { return fmt.Sprintf("192.0.2.%d:7%03d", i+1, i+1) }

// Network is where the discoveries of one subtest look for each other.
type Network struct {
	// New returns a discovery that was not started yet. The suite starts each for one node at a
	// time. All that come from one Network can find each other.
	New func() discovery.Discovery

	// Announces says that nodes hear of each other what is in discovery.Self: UUIDs and the present
	// endpoints, for as long as they are there. If not, a node is told of by its Endpoint, whether
	// it is there or not.
	Announces bool

	// Bubble says to run in bubbles of testing/synctest, where hours take no time and every rule can
	// be checked. It needs a discovery that waits for nothing but time, channels and the like, not
	// for sockets. If not, the rules about minutes are not checked, and others loosely.
	Bubble bool

	// Within is how long finding a node may take without a bubble, and Close or the like, 20 s if 0.
	Within time.Duration
}

// Test checks all rules. It calls network for each of them, with the T of the subtest and inside the
// bubble.
func Test(t *testing.T, network func(t *testing.T) Network) {
	t.Helper()
	probe := network(t)
	for _, r := range rules {
		if !r.holds(probe) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			check := func(t *testing.T) {
				if err := r.run(network(t)); err != nil {
					t.Error(err)
				}
			}
			if probe.Bubble {
				synctest.Test(t, check)
			} else {
				check(t)
			}
		})
	}
}

// A rule is one sentence of the contract.
type rule struct {
	name      string
	bubble    bool // it can be checked in a bubble only
	announces bool // it is about what a node announces
	check     func(*env) error
}

func (r rule) holds(n Network) bool {
	return (n.Bubble || !r.bubble) && (n.Announces || !r.announces)
}

// run checks a rule, and those that hold always.
func (r rule) run(n Network) error {
	e := newEnv(n)
	err := r.check(e)
	err = errors.Join(err, e.close())
	return errors.Join(e.heardErr(), err)
}
