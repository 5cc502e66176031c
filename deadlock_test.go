package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/sirupsen/logrus"
)

// Most tests here run in a synctest bubble: when it is idle everything that could move has moved, so "nothing is lost" and "nobody is stuck" are
// exact, and its clock tells whether a stall limit was needed, as time stands still unless everybody waits for it.

// faultNever is a stall limit that no test reaches.
const faultNever = 1000 * time.Hour

// faultWatchdog ends the process with a dump of all goroutines when the test takes longer than d of real time: a test that is stuck
// on a mutex cannot be ended in any other way. It is to be called outside of a bubble.
func faultWatchdog(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.AfterFunc(d, func() {
		buf := make([]byte, 4<<20)
		panic(fmt.Sprintf("%s: no end after %v\n%s", t.Name(), d, buf[:runtime.Stack(buf, true)]))
	})
	t.Cleanup(func() { timer.Stop() })
}

// faultScaled returns n, or a sixth of it when the machine has no time for n.
func faultScaled(n int) int {
	if testing.Short() || raceOn {
		return n / 6
	}
	return n
}

// faultLog is a logger that keeps quiet.
func faultLog() gravbus.Option {
	log := logrus.New()
	log.SetLevel(logrus.PanicLevel)
	return gravbus.UseLogger(log)
}

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
	n := &faultNet{bus: gravbus.New(faultLog()), next: next, full: make(chan struct{})}
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
	faultWatchdog(t, time.Minute)
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

// Rings of pods that send to each other from their handlers neither stop nor lose, however small the mailboxes and however many the tokens, and
// without help by stall limits.
func TestDeadlockRingsLoseNothing(t *testing.T) {
	hops := faultScaled(60)
	for _, top := range faultTopologies() {
		for _, mailbox := range []int{1, 2} {
			for _, tokens := range []int{1, 110} {
				for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
					name := fmt.Sprintf("%s/mailbox=%d/tokens=%d/block=%t", top.name, mailbox, tokens, policy == gravbus.Block)
					t.Run(name, func(t *testing.T) {
						faultBubble(t, func(t *testing.T) {
							n := newFaultNet(t, top.nodes, top.next,
								gravbus.Mailbox(mailbox), gravbus.Overflow(policy), gravbus.StallLimit(faultNever))
							defer n.bus.Close()
							var start []faultHop
							for i := range tokens {
								hop := top.start(i)
								hop.hops = hops
								start = append(start, hop)
							}
							n.inject(start)
							n.checkLossless(t, tokens*top.each(hops))
						})
					})
				}
			}
		}
	}
}

// The same with several handler calls at a time: a pod waits only when all its handlers do.
func TestDeadlockRingsWithConcurrency(t *testing.T) {
	for _, top := range faultTopologies() {
		for _, width := range []int{2, 5} {
			t.Run(fmt.Sprintf("%s/width=%d", top.name, width), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					n := newFaultNet(t, top.nodes, top.next,
						gravbus.Mailbox(1), gravbus.Concurrency(width), gravbus.StallLimit(faultNever))
					defer n.bus.Close()
					var start []faultHop
					for i := range 100 {
						hop := top.start(i)
						hop.hops = faultScaled(20)
						start = append(start, hop)
					}
					n.inject(start)
					n.checkLossless(t, 100*top.each(faultScaled(20)))
				})
			})
		}
	}
}

// A ring whose stations are groups of pods.
func TestDeadlockRingOfGroups(t *testing.T) {
	const stations, members, tokens, hops = 4, 3, 100, 40
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(faultLog())
		defer bus.Close()
		var got atomic.Int64
		for i := range stations {
			for range members {
				pod := bus.Connect(gravbus.Mailbox(1), gravbus.InGroup("g"+strconv.Itoa(i)), gravbus.StallLimit(faultNever))
				err := gravbus.On(pod, fmt.Sprintf("to.%d", i), func(_ context.Context, hops int) error {
					got.Add(1)
					if hops > 0 {
						pod.Send(gravbus.NewTyped(fmt.Sprintf("to.%d", (i+1)%stations), hops-1))
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range tokens {
			pod := bus.Connect()
			go pod.Send(gravbus.NewTyped(fmt.Sprintf("to.%d", i%stations), hops))
		}
		synctest.Wait()
		s := bus.Stats()
		if want := int64(tokens * (hops + 1)); got.Load() != want || s.Dropped != 0 {
			t.Errorf("%d hops, want %d; %d dropped", got.Load(), want, s.Dropped)
		}
	})
}

// Pods that all want the same type share a ring buffer; here each answers what it gets with a message to all others.
func TestDeadlockPodsThatShareALane(t *testing.T) {
	for _, mailbox := range []int{1, 2, 4} {
		for _, pods := range []int{2, 4} {
			t.Run(fmt.Sprintf("mailbox=%d/pods=%d", mailbox, pods), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					bus := gravbus.New(faultLog())
					defer bus.Close()
					var got atomic.Int64
					for range pods {
						pod := bus.Connect(gravbus.Mailbox(mailbox), gravbus.StallLimit(faultNever))
						err := gravbus.On(pod, "all", func(_ context.Context, hops int) error {
							got.Add(1)
							if hops > 0 {
								pod.Send(gravbus.NewTyped("all", hops-1))
							}
							return nil
						})
						if err != nil {
							t.Fatal(err)
						}
					}
					const tokens, hops = 10, 4
					for range tokens {
						pod := bus.Connect()
						go pod.Send(gravbus.NewTyped("all", hops))
					}
					synctest.Wait()
					want, layer := 0, tokens*pods
					for range hops + 1 {
						want += layer
						layer *= pods - 1
					}
					if s := bus.Stats(); got.Load() != int64(want) || s.Dropped != 0 {
						t.Errorf("%d deliveries, want %d; %d dropped", got.Load(), want, s.Dropped)
					}
				})
			})
		}
	}
}

// Under the policies that drop, tokens get lost, but every one is accounted for, and the rings come to rest.
func TestDeadlockRingsUnderDroppingPolicies(t *testing.T) {
	policies := map[string]gravbus.OverflowPolicy{
		"DropOldest": gravbus.DropOldest, "DropNewest": gravbus.DropNewest, "Fail": gravbus.Fail,
	}
	for name, policy := range policies {
		for _, top := range faultTopologies() {
			for _, mailbox := range []int{1, 2} {
				t.Run(fmt.Sprintf("%s/%s/mailbox=%d", name, top.name, mailbox), func(t *testing.T) {
					faultBubble(t, func(t *testing.T) {
						n := newFaultNet(t, top.nodes, top.next, gravbus.Mailbox(mailbox), gravbus.Overflow(policy))
						defer n.bus.Close()
						var start []faultHop
						for i := range 150 {
							hop := top.start(i)
							hop.hops = 40
							start = append(start, hop)
						}
						n.inject(start)
						n.check(t)
					})
				})
			}
		}
	}
}

// A ring in which pods have all policies, widths and bounds.
func TestDeadlockMixedRing(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		options := [][]gravbus.PodOption{
			{gravbus.Mailbox(1)},
			{gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block)},
			{gravbus.Mailbox(3), gravbus.Overflow(gravbus.DropOldest)},
			{gravbus.Mailbox(1), gravbus.Concurrency(3)},
			{gravbus.Mailbox(2), gravbus.Overflow(gravbus.DropNewest)},
			{gravbus.Mailbox(1), gravbus.Overflow(gravbus.Fail)},
			{gravbus.Mailbox(2), gravbus.MailboxCap(2)},
		}
		n := newFaultNet(t, 0, nil)
		defer n.bus.Close()
		for _, o := range options {
			n.add(t, append(o, gravbus.StallLimit(faultNever))...)
		}
		n.next = faultRing(len(options)).next
		var start []faultHop
		for i := range 200 {
			start = append(start, faultHop{i % len(options), "r", 100})
		}
		n.inject(start)
		n.check(t)
	})
}

// Networks as chance has it: any mailboxes, widths and ways.
func TestDeadlockNetworksAtRandom(t *testing.T) {
	for seed := range uint64(faultScaled(60)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			faultBubble(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 0))
				n := newFaultNet(t, 0, nil)
				defer n.bus.Close()
				nodes := 2 + r.IntN(8)
				ways := make([][]int, nodes)
				for i := range nodes {
					policy := gravbus.Backpressure
					if r.IntN(4) == 0 {
						policy = gravbus.Block
					}
					group := ""
					if r.IntN(4) == 0 {
						group = "group " + strconv.Itoa(i)
					}
					n.add(t, gravbus.Mailbox(1+r.IntN(3)), gravbus.Overflow(policy), gravbus.Concurrency(1+r.IntN(3)*r.IntN(2)),
						gravbus.InGroup(group), gravbus.StallLimit(faultNever))
					for range 1 + r.IntN(3) {
						ways[i] = append(ways[i], (i+1+r.IntN(nodes-1))%nodes)
					}
				}
				n.next = func(at faultHop) []faultHop {
					way := ways[at.to]
					return []faultHop{{way[at.hops%len(way)], at.ring, at.hops - 1}}
				}
				const tokens = 80
				hops := 10 + r.IntN(60)
				var start []faultHop
				for range tokens {
					start = append(start, faultHop{r.IntN(nodes), "r", hops})
				}
				n.inject(start)
				n.checkLossless(t, tokens*(hops+1))
			})
		})
	}
}

// Pods of a ring that change what they listen to all the time, with mailboxes that are full.
func TestDeadlockRestlessRings(t *testing.T) {
	for _, nodes := range []int{2, 3, 8} {
		for _, width := range []int{1, 2} {
			for _, every := range []int64{1, 3, 10} {
				t.Run(fmt.Sprintf("ring=%d/width=%d/every=%d", nodes, width, every), func(t *testing.T) {
					faultBubble(t, func(t *testing.T) {
						n := newFaultNet(t, nodes, nil, gravbus.Mailbox(2), gravbus.Concurrency(width), gravbus.StallLimit(faultNever))
						defer n.bus.Close()
						ring := faultRing(nodes).next
						n.next = func(at faultHop) []faultHop {
							node := n.nodes[at.to]
							if got := node.got.Load(); got%every == 0 {
								err := node.pod.OnType(fmt.Sprintf("to.%d.*", at.to), func(msg gravbus.Message) error { return n.handle(at.to, msg) },
									fmt.Sprintf("other.%d", got))
								if err != nil {
									t.Error(err)
								}
							}
							return ring(at)
						}
						const tokens = 60
						hops := faultScaled(60)
						var start []faultHop
						for i := range tokens {
							start = append(start, faultHop{i % nodes, "r", hops})
						}
						n.inject(start)
						n.checkLossless(t, tokens*(hops+1))
					})
				})
			}
		}
	}
}

// Pods that come and go in full rings: what they had is discarded, but nobody is stuck.
func TestDeadlockPodsComeAndGoInRings(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		const nodes = 5
		n := newFaultNet(t, nodes, faultRing(nodes).next, gravbus.Mailbox(1), gravbus.StallLimit(faultNever))
		defer n.bus.Close()
		var sent atomic.Int64
		guests := func(i int) {
			for range faultScaled(300) {
				guest := n.bus.Connect(gravbus.Mailbox(1), gravbus.StallLimit(faultNever))
				err := guest.OnType(fmt.Sprintf("to.%d.>", i), func(gravbus.Message) error {
					if n.send(context.Background(), guest, faultHop{(i + 1) % nodes, "guest", 0}) == nil {
						sent.Add(1)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				runtime.Gosched()
				guest.Disconnect()
			}
		}
		for i := range nodes {
			go guests(i)
		}
		var start []faultHop
		for i := range 60 {
			start = append(start, faultHop{i % nodes, "r", faultScaled(600)})
		}
		n.inject(start)
		n.check(t)
		if tokens := n.got.Load() - sent.Load(); tokens != int64(60*(faultScaled(600)+1)) {
			t.Errorf("%d hops, want %d", tokens, 60*(faultScaled(600)+1))
		}
	})
}

// Rings in real time, on as many threads as there are, and with limits as they come.
func TestDeadlockRingsInRealTime(t *testing.T) {
	faultWatchdog(t, 2*time.Minute)
	hops := faultScaled(240)
	for _, top := range faultTopologies() {
		t.Run(top.name, func(t *testing.T) {
			n := newFaultNet(t, top.nodes, top.next, gravbus.Mailbox(1), gravbus.StallLimit(time.Minute))
			defer n.bus.Close()
			const tokens = 100
			total := tokens * top.each(hops)
			n.reach.Store(int64(total))
			var wg sync.WaitGroup
			for i := range tokens {
				hop := top.start(i)
				hop.hops = hops
				pod := n.bus.Connect()
				wg.Go(func() { n.send(context.Background(), pod, hop) })
			}
			wg.Wait()
			select {
			case <-n.full:
			case <-time.After(time.Minute):
				t.Fatalf("%d of %d hops", n.got.Load(), total)
			}
			if err := n.bus.Shutdown(context.Background()); err != nil {
				t.Fatal(err)
			}
			if s := n.bus.Stats(); s.Dropped != 0 || s.Delivered != uint64(total) {
				t.Errorf("dropped %d, delivered %d, want %d", s.Dropped, s.Delivered, total)
			}
		})
	}
}

// A cycle that multiplies messages cannot be lossless. It meets the cap, loses with true counts, and goes on until it is stopped.
func TestDeadlockMultiplyingCycleMeetsTheCap(t *testing.T) {
	for _, mailbox := range []int{1, 4} {
		for _, limit := range []int{1, 16, 100} {
			t.Run(fmt.Sprintf("mailbox=%d/cap=%d", mailbox, limit), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					const nodes = 3
					n := newFaultNet(t, nodes, func(at faultHop) []faultHop {
						return []faultHop{{(at.to + 1) % nodes, "a", 1}, {(at.to + 2) % nodes, "b", 1}}
					}, gravbus.Mailbox(mailbox), gravbus.MailboxCap(limit), gravbus.StallLimit(faultNever))
					defer n.bus.Close()
					n.reach.Store(int64(faultScaled(20_000)))
					for i := range nodes {
						pod := n.bus.Connect()
						go n.send(context.Background(), pod, faultHop{i, "a", 1})
					}
					<-n.full // it goes on and on
					for _, node := range n.nodes {
						if s := node.pod.Stats(); s.Depth > max(limit, mailbox) {
							t.Errorf("%s: %d waiting, more than its cap", s.Name, s.Depth)
						}
					}
					n.stop.Store(true)
					synctest.Wait()
					if n.check(t) == 0 {
						t.Error("nothing was lost: the cap was not met")
					}
					for _, node := range n.nodes {
						if s := node.pod.Stats(); s.Dropped > 0 && s.Lags == 0 || s.Lags > s.Dropped {
							t.Errorf("%s: %d lags, %d dropped", s.Name, s.Lags, s.Dropped)
						}
					}
				})
			})
		}
	}
}

// Handlers that send through other pods than their own are seen as waiting all the same.
func TestDeadlockCycleByForeignPods(t *testing.T) {
	faultWatchdog(t, time.Minute)
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared=%t", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const stall = time.Second
				top := faultRing(4)
				n := newFaultNet(t, top.nodes, top.next, gravbus.Mailbox(1), gravbus.StallLimit(stall))
				defer n.bus.Close()
				sender := n.bus.Connect()
				for _, node := range n.nodes {
					node.by = sender
					if !shared {
						node.by = n.bus.Connect()
					}
				}
				var tokens []faultHop
				for i := range 50 {
					tokens = append(tokens, faultHop{i % 4, "r", 100})
				}
				n.inject(tokens)
				<-time.After(time.Hour) // in the bubble's time: every stall limit is over long before
				synctest.Wait()
				if n.check(t) == 0 && n.got.Load() != 50*101 {
					t.Errorf("%d hops, want %d", n.got.Load(), 50*101)
				}
			})
		})
	}
}

// A handler that sends to its own pod through another one waits for itself.
func TestDeadlockHandlerSendsToItselfByForeignPod(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		n := newFaultNet(t, 1, func(at faultHop) []faultHop {
			return slices.Repeat([]faultHop{{0, "r", at.hops - 1}}, 3)
		}, gravbus.Mailbox(1), gravbus.StallLimit(faultNever))
		defer n.bus.Close()
		n.nodes[0].by = n.bus.Connect()
		n.inject([]faultHop{{0, "r", 6}})
		want := 0
		for i, layer := 0, 1; i <= 6; i, layer = i+1, layer*3 {
			want += layer
		}
		n.checkLossless(t, want)
	})
}

// What the bus cannot see, a handler that waits for another goroutine which sends to it, ends with the stall limit.
func TestDeadlockHiddenCycleEndsWithStallLimit(t *testing.T) {
	faultWatchdog(t, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		const stall = 3 * time.Second
		n := newFaultNet(t, 1, nil, gravbus.Mailbox(1), gravbus.StallLimit(stall))
		defer n.bus.Close()
		other := n.bus.Connect()
		var took atomic.Int64
		n.next = func(faultHop) []faultHop {
			start := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 10 {
					n.send(context.Background(), other, faultHop{0, "r", 0})
				}
			})
			wg.Wait()
			took.Store(int64(time.Since(start)))
			return nil
		}
		n.inject([]faultHop{{0, "r", 1}})
		<-time.After(10 * stall)
		synctest.Wait()
		if dropped := n.check(t); dropped != 9 { // one fits in
			t.Errorf("%d dropped, want 9", dropped)
		}
		if d := time.Duration(took.Load()); d != stall {
			t.Errorf("it took %v, want one stall limit of %v", d, stall)
		}
	})
}

// A handler may call every method of its own pod.
func TestDeadlockHandlerCallsItsOwnPod(t *testing.T) {
	faultWatchdog(t, time.Minute)
	nop := func(gravbus.Message) error { return nil }
	brief := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		context.AfterFunc(ctx, cancel)
		return ctx
	}
	calls := []struct {
		name string
		call func(*testing.T, *gravbus.Bus, *gravbus.Pod, gravbus.Message)
	}{
		{"Name", func(_ *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) { p.Name() }},
		{"Stats", func(_ *testing.T, b *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) { p.Stats(); b.Stats() }},
		{"On", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			if err := errors.Join(p.On(nop), p.On(nil), p.OnType("a", nop, "b"), p.OnType("c", nil)); err != nil {
				t.Error(err)
			}
		}},
		{"typed On", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			err := gravbus.On(p, "a", func(context.Context, int) error { return nil })
			if err := errors.Join(err, gravbus.Handle(p, "b", func(context.Context, int) (int, error) { return 0, nil })); err != nil {
				t.Error(err)
			}
		}},
		{"filters", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, m gravbus.Message) {
			p.FilterUUID(m.UUID(), false)
			p.FilterUUID(m.UUID(), true)
			if err := errors.Join(p.FilterType("x.*", false), p.FilterType("x.*", true)); err != nil {
				t.Error(err)
			}
		}},
		{"Send", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, m gravbus.Message) {
			if p.Send(gravbus.NewMsg("in", nil)) == nil || p.Send(m) == nil || p.ReplyTo(m, gravbus.NewMsg("r", nil)) == nil {
				t.Error("not sent")
			}
		}},
		{"Request", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			if _, err := p.Request(context.Background(), gravbus.NewMsg("echo", nil)); err != nil {
				t.Error(err)
			}
		}},
		{"RequestAll", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			n := 0
			for _, err := range p.RequestAll(context.Background(), gravbus.NewMsg("echo", nil)) {
				if n++; err != nil {
					t.Error(err)
				}
			}
			if n != 1 {
				t.Errorf("%d replies, want 1", n)
			}
		}},
		{"receipt", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			r := p.Send(gravbus.NewMsg("echo", nil))
			if err := r.OnReply(func(gravbus.Message) error { return gravbus.ErrMsgNotWanted }); err != nil {
				t.Error(err)
			}
			if err := r.WaitOn(nop); err != nil {
				t.Error(err)
			}
		}},
		{"WaitUntil", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			if err := p.WaitUntil(gravbus.TimeoutAfter(time.Millisecond), nop); !errors.Is(err, gravbus.ErrWaitTimeout) {
				t.Error(err)
			}
		}},
		{"Wait", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			if _, err := p.Wait(brief(), "never"); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}},
		{"Messages", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			for range p.Messages(brief(), "never") {
				t.Error("a message of a type that nobody sends")
			}
		}},
		{"Connect", func(t *testing.T, b *gravbus.Bus, _ *gravbus.Pod, _ gravbus.Message) {
			p := b.Connect(gravbus.Replay())
			if err := p.On(nop); err != nil {
				t.Error(err)
			}
			p.Disconnect()
		}},
		{"Disconnect", func(t *testing.T, _ *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			p.Disconnect()
			p.Disconnect()
			if err := p.On(nop); !errors.Is(err, gravbus.ErrDisconnected) {
				t.Error(err)
			}
		}},
		{"Shutdown", func(t *testing.T, b *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			if err := b.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			if err := p.On(nop); !errors.Is(err, gravbus.ErrClosed) {
				t.Error(err)
			}
		}},
		{"Disconnect, Close", func(t *testing.T, b *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			p.Disconnect()
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}},
		{"Disconnect, Shutdown", func(t *testing.T, b *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			p.Disconnect()
			if err := b.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		}},
		{"Shutdown, Close", func(t *testing.T, b *gravbus.Bus, _ *gravbus.Pod, _ gravbus.Message) {
			if err := errors.Join(b.Shutdown(context.Background()), b.Close(), b.Shutdown(context.Background())); err != nil {
				t.Error(err)
			}
		}},
		{"Close", func(t *testing.T, b *gravbus.Bus, p *gravbus.Pod, _ gravbus.Message) {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			p.Disconnect()
		}},
	}
	for _, c := range calls {
		for _, width := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/width=%d", c.name, width), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := gravbus.New(faultLog())
					defer bus.Close()
					echo := bus.Connect(gravbus.Mailbox(1))
					if err := echo.OnType("echo", func(m gravbus.Message) error { echo.ReplyTo(m, gravbus.NewMsg("r", nil)); return nil }); err != nil {
						t.Fatal(err)
					}
					pod := bus.Connect(gravbus.Mailbox(1), gravbus.Concurrency(width))
					done := make(chan struct{}, 1)
					err := pod.OnType("in", func(m gravbus.Message) error {
						c.call(t, bus, pod, m)
						done <- struct{}{}
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
					if bus.Connect().Send(gravbus.NewMsg("in", nil)) == nil {
						t.Fatal("not sent")
					}
					<-done // a bubble that cannot go on panics
				})
			})
		}
	}
}

// Handlers that disconnect each other, at the same time and in a circle, wait for nobody who waits for them.
func TestDeadlockHandlersDisconnectEachOther(t *testing.T) {
	for _, n := range []int{2, 3, 7} {
		for _, width := range []int{1, 2} {
			t.Run(fmt.Sprintf("pods=%d/width=%d", n, width), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					for range 20 {
						bus := gravbus.New(faultLog())
						var ready, done sync.WaitGroup
						ready.Add(n)
						done.Add(n)
						pods := make([]*gravbus.Pod, n)
						for i := range pods {
							pods[i] = bus.Connect(gravbus.Concurrency(width))
						}
						for i, pod := range pods {
							err := pod.OnType("go", func(gravbus.Message) error {
								ready.Done()
								ready.Wait()
								pods[(i+1)%n].Disconnect()
								done.Done()
								return nil
							})
							if err != nil {
								t.Fatal(err)
							}
						}
						bus.Connect().Send(gravbus.NewMsg("go", nil))
						done.Wait()
						for _, pod := range pods {
							pod.Disconnect()
						}
						bus.Close()
					}
				})
			})
		}
	}
}

// A sender that waits for a pod is freed when that pod goes, and one whose own pod goes too.
func TestDeadlockDisconnectFreesSenders(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(faultLog())
		defer bus.Close()
		stuck := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block))
		gate := make(chan struct{})
		if err := stuck.On(func(gravbus.Message) error { <-gate; return nil }); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 100 {
			pod := bus.Connect()
			wg.Go(func() {
				if pod.Send(gravbus.NewMsg("x", nil)) == nil {
					t.Error("not sent")
				}
			})
		}
		synctest.Wait()
		gone := make(chan struct{})
		go func() { stuck.Disconnect(); close(gone) }()
		wg.Wait()
		select {
		case <-gone:
			t.Error("Disconnect did not wait for the handler")
		default:
		}
		close(gate)
		<-gone
	})
}

// Close and Shutdown in a storm of rings, from outside and from inside a handler.
func TestDeadlockCloseInAStorm(t *testing.T) {
	ends := map[string]func(*testing.T, *gravbus.Bus){
		"Close": func(_ *testing.T, b *gravbus.Bus) { b.Close() },
		"Shutdown": func(t *testing.T, b *gravbus.Bus) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			// Endless rings do not drain.
			if err := b.Shutdown(ctx); err != nil && !errors.As(err, new(*gravbus.ShutdownError)) {
				t.Error(err)
			}
		},
	}
	for name, end := range ends {
		for _, inside := range []bool{false, true} {
			for _, top := range faultTopologies() {
				t.Run(fmt.Sprintf("%s/inside=%t/%s", name, inside, top.name), func(t *testing.T) {
					faultBubble(t, func(t *testing.T) {
						n := newFaultNet(t, top.nodes, top.next, gravbus.Mailbox(1), gravbus.StallLimit(faultNever))
						ended := make(chan struct{})
						next := n.next
						var once sync.Once
						n.next = func(at faultHop) []faultHop {
							if inside && n.got.Load() > 500 {
								once.Do(func() { end(t, n.bus); close(ended) })
							}
							return next(at)
						}
						n.reach.Store(500)
						for i := range 30 {
							hop := top.start(i)
							hop.hops = 1 << 40
							pod := n.bus.Connect()
							go n.send(context.Background(), pod, hop)
						}
						<-n.full
						if !inside {
							end(t, n.bus)
							close(ended)
						}
						<-ended
						if err := n.send(context.Background(), n.nodes[0].pod, faultHop{1, "r", 0}); !errors.Is(err, gravbus.ErrClosed) {
							t.Errorf("Send after the end: %v", err)
						}
						// The bubble ends only when all its goroutines have.
					})
				})
			}
		}
	}
}

// Shutdown lets rings that come to an end run to it.
func TestDeadlockShutdownDrainsRings(t *testing.T) {
	for _, top := range faultTopologies() {
		t.Run(top.name, func(t *testing.T) {
			faultBubble(t, func(t *testing.T) {
				n := newFaultNet(t, top.nodes, top.next, gravbus.Mailbox(1), gravbus.StallLimit(faultNever))
				const tokens, hops = 40, 50
				sender := n.bus.Connect()
				for i := range tokens {
					hop := top.start(i)
					hop.hops = hops
					n.send(context.Background(), sender, hop)
				}
				if err := n.bus.Shutdown(context.Background()); err != nil {
					t.Fatal(err)
				}
				if want := int64(tokens * top.each(hops)); n.got.Load() != want {
					t.Errorf("%d hops, want %d", n.got.Load(), want)
				}
				if s := n.bus.Stats(); s.Dropped != 0 {
					t.Errorf("%d dropped", s.Dropped)
				}
			})
		})
	}
}

// A sender whose context ends while it waits leaves without the message, and without anybody else's wake-up.
func TestDeadlockContextEndsWhileWaiting(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(faultLog())
		defer bus.Close()
		var got, other atomic.Int64
		gate := make(chan struct{})
		slow := bus.Connect(gravbus.Name("slow"), gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block))
		lost := int64(0)
		err := slow.OnType("x", func(m gravbus.Message) error {
			if m.Type() == gravbus.MsgTypeLagged {
				lagged, err := gravbus.Decode[gravbus.Lagged](m)
				lost += int64(lagged.Count)
				return err
			}
			<-gate
			got.Add(1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		quick := bus.Connect(gravbus.Mailbox(1000))
		if err := quick.OnType("x", func(gravbus.Message) error { other.Add(1); return nil }); err != nil {
			t.Fatal(err)
		}
		const senders = 200
		ctx, cancel := context.WithCancel(context.Background())
		var patient, gaveUp atomic.Int64
		var wg sync.WaitGroup
		for i := range senders {
			pod := bus.Connect()
			wg.Go(func() {
				use := context.Background()
				if i%2 == 0 {
					use = ctx
				}
				r, err := pod.SendContext(use, gravbus.NewMsg("x", nil))
				if r == nil {
					t.Error("no receipt")
				}
				var undelivered *gravbus.UndeliveredError
				switch {
				case err == nil:
					patient.Add(1)
				case errors.As(err, &undelivered) && errors.Is(err, context.Canceled):
					gaveUp.Add(1)
					if undelivered.Type != "x" || !slices.Equal(undelivered.Pods, []string{"slow"}) {
						t.Errorf("%+v", undelivered)
					}
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if n := gaveUp.Load(); n < senders/2-2 {
			t.Errorf("%d gave up, want %d, or two less", n, senders/2)
		}
		close(gate) // from here on everything has to flow
		wg.Wait()
		synctest.Wait()
		if got.Load() != patient.Load() || patient.Load()+gaveUp.Load() != senders {
			t.Errorf("%d handled; %d sent, %d gave up", got.Load(), patient.Load(), gaveUp.Load())
		}
		if s := slow.Stats(); int64(s.Dropped) != gaveUp.Load() || lost != gaveUp.Load() {
			t.Errorf("%d dropped, told of %d, want %d", s.Dropped, lost, gaveUp.Load())
		}
		if other.Load() != senders {
			t.Errorf("the other pod got %d of %d", other.Load(), senders)
		}
	})
}

// Contexts that end at the same moment as room appears: a wake-up that comes to a sender which leaves goes to the next one.
func TestDeadlockNoLostWakeup(t *testing.T) {
	faultWatchdog(t, time.Minute)
	rounds := faultScaled(300)
	for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
		for _, width := range []int{1, 2} {
			t.Run(fmt.Sprintf("block=%t/width=%d", policy == gravbus.Block, width), func(t *testing.T) {
				bus := gravbus.New(faultLog())
				defer bus.Close()
				var got atomic.Int64
				pod := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(policy), gravbus.Concurrency(width), gravbus.StallLimit(faultNever))
				if err := gravbus.On(pod, "x", func(context.Context, int) error { runtime.Gosched(); got.Add(1); return nil }); err != nil {
					t.Fatal(err)
				}
				sent, gaveUp := int64(0), int64(0)
				for range rounds {
					ctx, cancel := context.WithCancel(context.Background())
					var ok, failed atomic.Int64
					var wg sync.WaitGroup
					for i := range 12 {
						sender := bus.Connect()
						wg.Go(func() {
							defer sender.Disconnect()
							use := ctx
							if i%3 == 0 {
								use = context.Background()
							}
							for range 5 {
								if _, err := sender.SendContext(use, gravbus.NewTyped("x", i)); err == nil {
									ok.Add(1)
								} else {
									failed.Add(1)
								}
							}
						})
					}
					for range rand.IntN(200) {
						runtime.Gosched()
					}
					cancel()
					wg.Wait() // hangs if a wake-up is lost
					sent += ok.Load()
					gaveUp += failed.Load()
				}
				if err := bus.Shutdown(context.Background()); err != nil {
					t.Fatal(err)
				}
				if s := bus.Stats(); got.Load() != sent || int64(s.Dropped) != gaveUp {
					t.Errorf("%d handled, want %d; %d dropped, want %d", got.Load(), sent, s.Dropped, gaveUp)
				}
			})
		}
	}
}

// Hundreds of senders that wait for one mailbox of one all get through, each in its own order.
func TestDeadlockHundredsOfSenders(t *testing.T) {
	const senders, each = 400, 5
	for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
		for _, receivers := range []int{1, 3} {
			t.Run(fmt.Sprintf("block=%t/receivers=%d", policy == gravbus.Block, receivers), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					bus := gravbus.New(faultLog())
					defer bus.Close()
					var got atomic.Int64
					for range receivers {
						pod := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(policy), gravbus.StallLimit(faultNever))
						last := map[int]int{}
						err := gravbus.On(pod, "x", func(_ context.Context, v [2]int) error {
							if v[1] != last[v[0]] {
								t.Errorf("sender %d: %d after %d", v[0], v[1], last[v[0]]-1)
							}
							last[v[0]] = v[1] + 1
							got.Add(1)
							return nil
						})
						if err != nil {
							t.Fatal(err)
						}
					}
					var wg sync.WaitGroup
					for i := range senders {
						pod := bus.Connect()
						wg.Go(func() {
							for k := range each {
								pod.Send(gravbus.NewTyped("x", [2]int{i, k}))
							}
						})
					}
					wg.Wait()
					synctest.Wait()
					if s := bus.Stats(); got.Load() != senders*each*int64(receivers) || s.Dropped != 0 {
						t.Errorf("%d handled, want %d; %d dropped", got.Load(), senders*each*receivers, s.Dropped)
					}
				})
			})
		}
	}
}

// A pod that changes what it listens to while senders wait for it frees them, and gets all that it wants before and after, once.
func TestDeadlockInterestChangesWhileSendersWait(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(faultLog())
		defer bus.Close()
		pod := bus.Connect(gravbus.Mailbox(1), gravbus.StallLimit(faultNever))
		seen := map[string]int{}
		count := func(m gravbus.Message) error { seen[m.UUID()]++; return nil }
		changes := 0
		var handler gravbus.MsgFunc
		handler = func(m gravbus.Message) error {
			changes++
			var err error
			switch changes % 4 {
			case 0:
				err = pod.On(handler)
			case 1:
				err = pod.OnType("x", handler)
			case 2:
				err = pod.OnType("x", handler, "y.*")
			default:
				err = pod.FilterType("z", changes%8 == 3)
			}
			return errors.Join(err, count(m))
		}
		if err := pod.On(handler); err != nil {
			t.Fatal(err)
		}
		const senders, each = 50, 40
		for range senders {
			sender := bus.Connect()
			go func() {
				for range each {
					sender.Send(gravbus.NewMsg("x", nil))
				}
			}()
		}
		synctest.Wait()
		if len(seen) != senders*each {
			t.Errorf("%d messages, want %d", len(seen), senders*each)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
		if s := pod.Stats(); s.Dropped != 0 || s.Failed != 0 {
			t.Errorf("%d dropped, %d failed", s.Dropped, s.Failed)
		}
	})
}

// A member of a group cannot take what it sent itself. When the only others wait, senders to the group wait for those.
func TestDeadlockGroupMemberThatCannotHelp(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(faultLog())
		defer bus.Close()
		member := []gravbus.PodOption{gravbus.InGroup("g"), gravbus.Mailbox(1), gravbus.StallLimit(faultNever)}
		m1, m2 := bus.Connect(member...), bus.Connect(member...)
		x := bus.Connect(gravbus.Mailbox(1), gravbus.StallLimit(faultNever))
		outside := bus.Connect()
		helped, busy := make(chan struct{}), make(chan struct{}, 2)
		var inGroup, inX atomic.Int64
		handler := func(by *gravbus.Pod) func(context.Context, string) error {
			return func(_ context.Context, what string) error {
				inGroup.Add(1)
				switch what {
				case "send to x":
					busy <- struct{}{}
					<-helped
					for range 3 {
						by.Send(gravbus.NewTyped("x", "nothing"))
					}
				case "end":
					busy <- struct{}{}
					<-helped
				}
				return nil
			}
		}
		start := make(chan struct{})
		err := errors.Join(
			gravbus.On(m1, "group", handler(m1)),
			gravbus.On(x, "x", func(_ context.Context, what string) error {
				inX.Add(1)
				if what == "start" {
					<-start
					x.Send(gravbus.NewTyped("group", "nothing"))
				}
				return nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		outside.Send(gravbus.NewTyped("group", "send to x")) // to m1, the only one
		<-busy
		release := make(chan struct{})
		err = gravbus.On(m2, "group", func(context.Context, string) error { inGroup.Add(1); busy <- struct{}{}; <-release; return nil })
		if err != nil {
			t.Fatal(err)
		}
		outside.Send(gravbus.NewTyped("group", "hold m2"))
		<-busy
		m2.Send(gravbus.NewTyped("group", "nothing")) // fills the group's mailbox; only m1 can take it
		outside.Send(gravbus.NewTyped("x", "start"))
		close(helped)
		synctest.Wait() // m1 waits for x
		close(start)
		synctest.Wait() // x waits for the group, where m2 runs
		close(release)
		synctest.Wait() // m2 has ended: x waits for m1, and m1 for x
		if g, n := inGroup.Load(), inX.Load(); g != 4 || n != 4 {
			t.Errorf("the group has handled %d of 4, x %d of 4", g, n)
		}
	})
}

// Disconnect waits for all handlers of a pod, so one that waits for the caller is enough for a circle, whatever the others do.
func TestDeadlockDisconnectOfOneOfSeveralHandlers(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(faultLog())
		defer bus.Close()
		p, q := bus.Connect(gravbus.Concurrency(2)), bus.Connect()
		var inP sync.WaitGroup
		inP.Add(2)
		release, inQ := make(chan struct{}), make(chan struct{})
		var ended atomic.Int64
		err := errors.Join(
			p.OnType("p.*", func(msg gravbus.Message) error {
				inP.Done()
				if msg.Type() == "p.disconnect" {
					<-inQ
					q.Disconnect()
				} else {
					<-release
				}
				ended.Add(1)
				return nil
			}),
			q.OnType("q", func(gravbus.Message) error {
				inP.Wait()
				close(inQ)
				p.Disconnect()
				ended.Add(1)
				return nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		sender := bus.Connect()
		sender.Send(gravbus.NewMsg("q", nil))
		sender.Send(gravbus.NewMsg("p.disconnect", nil))
		sender.Send(gravbus.NewMsg("p.run", nil))
		synctest.Wait()
		close(release)
		synctest.Wait()
		if n := ended.Load(); n != 3 {
			t.Errorf("%d of 3 handlers have ended", n)
		}
	})
}

// Stations of a ring that are wait functions and loops over Messages send from inside as handlers do.
func TestDeadlockRingsOfWaitsAndLoops(t *testing.T) {
	for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
		for _, kinds := range []string{"ll", "lll", "ww", "www", "hl", "hw", "lw", "hlwhlw"} {
			t.Run(fmt.Sprintf("%s/block=%t", kinds, policy == gravbus.Block), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					bus := gravbus.New(faultLog())
					defer bus.Close()
					var got atomic.Int64
					for i := range kinds {
						pod := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(policy), gravbus.StallLimit(faultNever))
						own := fmt.Sprintf("to.%d", i)
						pass := func(msg gravbus.Message) error {
							if msg.Type() != own {
								return gravbus.ErrMsgNotWanted
							}
							got.Add(1)
							if hops, err := gravbus.Decode[int](msg); err != nil || hops > 0 {
								pod.Send(gravbus.NewTyped(fmt.Sprintf("to.%d", (i+1)%len(kinds)), hops-1))
							}
							return gravbus.ErrMsgNotWanted
						}
						switch kinds[i] {
						case 'h':
							if err := pod.OnType(own, pass); err != nil {
								t.Fatal(err)
							}
						case 'l':
							go func() { // ends with the bus
								for msg := range pod.Messages(context.Background(), own) {
									pass(msg)
								}
							}()
						default:
							go func() { // ends with the bus
								if err := pod.WaitOn(pass); !errors.Is(err, gravbus.ErrClosed) {
									t.Errorf("WaitOn: %v", err)
								}
							}()
						}
					}
					synctest.Wait()
					const tokens, hops = 30, 20
					for i := range tokens {
						pod := bus.Connect()
						go pod.Send(gravbus.NewTyped(fmt.Sprintf("to.%d", i%len(kinds)), hops))
					}
					synctest.Wait()
					if got.Load() != tokens*(hops+1) {
						t.Errorf("%d hops, want %d", got.Load(), tokens*(hops+1))
					}
				})
			})
		}
	}
}

// Handlers that end the bus at the same time do not wait for each other, whichever way they do it.
func TestDeadlockSeveralHandlersEndTheBus(t *testing.T) {
	shutdown := func(b *gravbus.Bus, _ *gravbus.Pod) { _ = b.Shutdown(context.Background()) }
	closeBus := func(b *gravbus.Bus, _ *gravbus.Pod) { b.Close() }
	disconnect := func(_ *gravbus.Bus, other *gravbus.Pod) { other.Disconnect() }
	for name, ends := range map[string][]func(*gravbus.Bus, *gravbus.Pod){
		"Shutdown twice":          {shutdown, shutdown},
		"Shutdown three times":    {shutdown, shutdown, shutdown},
		"Shutdown and Close":      {shutdown, closeBus},
		"Close twice":             {closeBus, closeBus},
		"Shutdown and Disconnect": {shutdown, disconnect},
		"Close and Disconnect":    {closeBus, disconnect},
	} {
		for _, outside := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/outside=%t", name, outside), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					bus := gravbus.New(faultLog())
					defer bus.Close()
					var ready, done sync.WaitGroup
					ready.Add(len(ends))
					pods := make([]*gravbus.Pod, len(ends))
					for i := range pods {
						pods[i] = bus.Connect()
					}
					for i, end := range ends {
						done.Add(1)
						err := pods[i].OnType("end", func(gravbus.Message) error {
							defer done.Done()
							ready.Done()
							ready.Wait()
							end(bus, pods[(i+1)%len(pods)])
							return nil
						})
						if err != nil {
							t.Fatal(err)
						}
					}
					bus.Connect().Send(gravbus.NewMsg("end", nil))
					if outside {
						shutdown(bus, nil)
					}
					done.Wait() // a bubble that cannot go on panics
				})
			})
		}
	}
}

// Wherever the bus calls a function, or runs the body of a loop, that may end the pod and the bus.
func TestDeadlockEndFromInside(t *testing.T) {
	type end struct {
		name string
		call func(*gravbus.Bus, *gravbus.Pod)
	}
	ends := []end{
		{"Disconnect", func(_ *gravbus.Bus, p *gravbus.Pod) { p.Disconnect() }},
		{"Close", func(b *gravbus.Bus, _ *gravbus.Pod) { b.Close() }},
		{"Shutdown", func(b *gravbus.Bus, _ *gravbus.Pod) { _ = b.Shutdown(context.Background()) }},
	}
	for _, first := range ends[:3] {
		for _, second := range ends[:3] {
			ends = append(ends, end{first.name + "+" + second.name, func(b *gravbus.Bus, p *gravbus.Pod) { first.call(b, p); second.call(b, p) }})
		}
	}
	places := map[string]func(bus *gravbus.Bus, pod *gravbus.Pod, inside gravbus.MsgFunc){
		"handler":    func(_ *gravbus.Bus, pod *gravbus.Pod, inside gravbus.MsgFunc) { _ = pod.OnType("x", inside) },
		"Pod.WaitOn": func(_ *gravbus.Bus, pod *gravbus.Pod, inside gravbus.MsgFunc) { _ = pod.WaitOn(inside) },
		"Receipt": func(_ *gravbus.Bus, pod *gravbus.Pod, inside gravbus.MsgFunc) {
			_ = pod.Send(gravbus.NewMsg("ask", nil)).WaitOn(inside)
		},
		"OnReply": func(_ *gravbus.Bus, pod *gravbus.Pod, inside gravbus.MsgFunc) {
			_ = pod.Send(gravbus.NewMsg("ask", nil)).OnReply(inside)
		},
		"Concurrency": func(bus *gravbus.Bus, _ *gravbus.Pod, inside gravbus.MsgFunc) {
			_ = bus.Connect(gravbus.Concurrency(3)).OnType("x", inside)
		},
		"Messages": func(_ *gravbus.Bus, pod *gravbus.Pod, inside gravbus.MsgFunc) {
			for msg := range pod.Messages(context.Background(), "x") {
				_ = inside(msg)
			}
		},
		"RequestAll": func(_ *gravbus.Bus, pod *gravbus.Pod, inside gravbus.MsgFunc) {
			for msg, err := range pod.RequestAll(context.Background(), gravbus.NewMsg("ask", nil)) {
				if err == nil {
					_ = inside(msg)
				}
			}
		},
	}
	for place, enter := range places {
		for _, e := range ends {
			t.Run(place+"/"+e.name, func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					bus := gravbus.New(faultLog())
					defer bus.Close()
					other := bus.Connect()
					err := other.OnType("ask", func(m gravbus.Message) error { other.ReplyTo(m, gravbus.NewMsg("answer", nil)); return nil })
					if err != nil {
						t.Fatal(err)
					}
					pod, done := bus.Connect(), make(chan struct{}, 10)
					go enter(bus, pod, func(gravbus.Message) error {
						e.call(bus, pod)
						done <- struct{}{}
						return nil
					})
					synctest.Wait()
					bus.Connect().Send(gravbus.NewMsg("x", nil))
					<-done // a bubble that cannot go on panics
					synctest.Wait()
				})
			})
		}
	}
}
