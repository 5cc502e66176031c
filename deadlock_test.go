package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// Most tests here run in a synctest bubble: when it is idle everything that could move has moved, so "nothing is lost" and "nobody is stuck" are
// exact, and its clock tells whether a stall limit was needed, as time stands still unless everybody waits for it.

// faultNever is a stall limit that no test reaches.
const faultNever = 1000 * time.Hour

// faultHop is where a token goes next.
type faultHop struct {
	to   int
	ring string
	hops int // how often it is still passed on
}

// faultNode is one pod of a faultNet.
type faultNode struct {
	pod  *gravbus.Pod
	by   *gravbus.Pod // sends what the pod's handler sends
	sent atomic.Int64 // messages that were sent to it
	got  atomic.Int64 // messages that its handler got
	told atomic.Int64 // messages that it was told it lost
}

// faultNet is pods that pass tokens on from inside their handlers. The type of a token is to.<node>.<ring>, its payload how often it is to be
// passed on.
type faultNet struct {
	bus   *gravbus.Bus
	nodes []*faultNode
	next  func(at faultHop) []faultHop // at.to has got the token
	stop  atomic.Bool                  // handlers pass nothing on any more
	got   atomic.Int64                 // by all nodes together
	reach atomic.Int64                 // when to close reached
	full  chan struct{}                // closed when got is at reach
}

func newFaultNet(t *testing.T, nodes int, next func(faultHop) []faultHop, opts ...gravbus.PodOption) *faultNet {
	t.Helper()
	n := &faultNet{bus: gravbus.New(quiet()), next: next, full: make(chan struct{})}
	for range nodes {
		n.add(t, opts...)
	}
	return n
}

// add adds a node.
func (n *faultNet) add(t *testing.T, opts ...gravbus.PodOption) {
	t.Helper()
	i := len(n.nodes)
	node := &faultNode{pod: n.bus.Connect(append([]gravbus.PodOption{gravbus.Name("node-" + strconv.Itoa(i))}, opts...)...)}
	node.by = node.pod
	n.nodes = append(n.nodes, node)
	if err := node.pod.OnType(fmt.Sprintf("to.%d.>", i), func(msg gravbus.Message) error { return n.handle(i, msg) }); err != nil {
		t.Fatal(err)
	}
}

func (n *faultNet) handle(i int, msg gravbus.Message) error {
	node := n.nodes[i]
	if msg.Type() == gravbus.MsgTypeLagged {
		lagged, err := gravbus.Decode[gravbus.Lagged](msg)
		node.told.Add(int64(lagged.Count))
		return err
	}
	hops, err := gravbus.Decode[int](msg)
	if err != nil {
		return err
	}
	node.got.Add(1)
	if n.got.Add(1) == n.reach.Load() {
		close(n.full)
	}
	if hops == 0 || n.stop.Load() {
		return nil
	}
	ring := msg.Type()[strings.LastIndexByte(msg.Type(), '.')+1:]
	for _, hop := range n.next(faultHop{i, ring, hops}) {
		n.send(context.Background(), node.by, hop)
	}
	return nil
}

// send sends a token and counts it, unless the bus or the pod is closed.
func (n *faultNet) send(ctx context.Context, by *gravbus.Pod, hop faultHop) error {
	_, err := by.SendContext(ctx, gravbus.NewTyped(fmt.Sprintf("to.%d.%s", hop.to, hop.ring), hop.hops))
	if err == nil || errors.As(err, new(*gravbus.UndeliveredError)) {
		n.nodes[hop.to].sent.Add(1)
	}
	return err
}

// inject sends tokens from pods of their own, all at the same time, and returns when they are sent or everybody is stuck.
func (n *faultNet) inject(tokens []faultHop) {
	for _, hop := range tokens {
		pod := n.bus.Connect()
		go n.send(context.Background(), pod, hop)
	}
	synctest.Wait()
}

// check fails unless every message to a node was either handled or is counted as lost, and the losses were told.
func (n *faultNet) check(t *testing.T) (dropped uint64) {
	t.Helper()
	for _, node := range n.nodes {
		s := node.pod.Stats()
		sent, got, told := node.sent.Load(), node.got.Load(), node.told.Load()
		if uint64(sent) != uint64(got)+s.Dropped || s.Depth != 0 {
			t.Errorf("%s: %d sent to it, %d handled + %d dropped, %d waiting", s.Name, sent, got, s.Dropped, s.Depth)
		}
		if uint64(told) != s.Dropped {
			t.Errorf("%s: was told of %d losses, lost %d", s.Name, told, s.Dropped)
		}
		dropped += s.Dropped
	}
	return dropped
}

// checkLossless fails unless total tokens were handled and none is lost.
func (n *faultNet) checkLossless(t *testing.T, total int) {
	t.Helper()
	if n.check(t) != 0 {
		t.Error("tokens were lost")
	}
	for _, node := range n.nodes {
		if s := node.pod.Stats(); s.Dropped != 0 || s.Lags != 0 || s.Failed != 0 {
			t.Errorf("%s: dropped %d, lags %d, failed %d", s.Name, s.Dropped, s.Lags, s.Failed)
		}
	}
	if got := n.got.Load(); got != int64(total) {
		t.Errorf("%d hops, want %d", got, total)
	}
}

// faultBubble runs fn in a bubble and fails if its clock moved: then somebody was freed by a limit and not by the bus.
func faultBubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	watchdog(t, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		fn(t)
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v of waiting for a limit", d)
		}
	})
}

// faultTopology is a way for tokens. Unless a token splits it makes hops+1 deliveries.
type faultTopology struct {
	name  string
	nodes int
	next  func(at faultHop) []faultHop
	start func(i int) faultHop // token i; hops are set by the test
	each  func(hops int) int   // deliveries per token
}

func faultRing(n int) faultTopology {
	return faultTopology{
		name: fmt.Sprintf("ring=%d", n), nodes: n,
		next:  func(at faultHop) []faultHop { return []faultHop{{(at.to + 1) % n, at.ring, at.hops - 1}} },
		start: func(i int) faultHop { return faultHop{to: i % n, ring: "r"} },
		each:  func(hops int) int { return hops + 1 },
	}
}

func faultTopologies() []faultTopology {
	var all []faultTopology
	for _, n := range []int{2, 3, 5, 8, 16} {
		all = append(all, faultRing(n))
	}
	one := func(hops int) int { return hops + 1 }
	return append(
		all,
		faultTopology{
			name: "two-way", nodes: 5,
			next: func(at faultHop) []faultHop {
				step := 1
				if at.ring == "ccw" {
					step = 4
				}
				return []faultHop{{(at.to + step) % 5, at.ring, at.hops - 1}}
			},
			start: func(i int) faultHop { return faultHop{to: i % 5, ring: []string{"cw", "ccw"}[i%2]} },
			each:  one,
		},
		faultTopology{ // three rings of four nodes that share node 0
			name: "clover", nodes: 10,
			next: func(at faultHop) []faultHop {
				ring, _ := strconv.Atoi(at.ring)
				first := 1 + 3*ring
				to := at.to + 1
				if at.to == 0 {
					to = first
				} else if to == first+3 {
					to = 0
				}
				return []faultHop{{to, at.ring, at.hops - 1}}
			},
			start: func(i int) faultHop { return faultHop{to: 0, ring: strconv.Itoa(i % 3)} },
			each:  one,
		},
		faultTopology{ // hub and seven spokes
			name: "star", nodes: 8,
			next: func(at faultHop) []faultHop {
				spoke, _ := strconv.Atoi(at.ring)
				if at.to != 0 {
					return []faultHop{{0, strconv.Itoa(spoke%7 + 1), at.hops - 1}}
				}
				return []faultHop{{spoke, at.ring, at.hops - 1}}
			},
			start: func(i int) faultHop { return faultHop{to: 0, ring: strconv.Itoa(i%7 + 1)} },
			each:  one,
		},
		faultTopology{ // every handler sends into two rings: on, and a message across that ends there
			name: "two rings per handler", nodes: 6,
			next: func(at faultHop) []faultHop {
				return []faultHop{{(at.to + 1) % 6, "main", at.hops - 1}, {(at.to + 3) % 6, "side", 0}}
			},
			start: func(i int) faultHop { return faultHop{to: i % 6, ring: "main"} },
			each:  func(hops int) int { return 2*hops + 1 },
		},
		faultTopology{
			name: "at random", nodes: 7,
			next: func(at faultHop) []faultHop {
				return []faultHop{{(at.to + 1 + rand.IntN(6)) % 7, at.ring, at.hops - 1}}
			},
			start: func(i int) faultHop { return faultHop{to: i % 7, ring: "r"} },
			each:  one,
		},
	)
}
