package gravbus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// Rings of pods that send to each other from their handlers neither stop nor lose, however small the mailboxes and however many the tokens, and
// without help by stall limits.
func TestDeadlockRingsLoseNothing(t *testing.T) {
	hops := fewer(60, 6)
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
						hop.hops = fewer(20, 6)
						start = append(start, hop)
					}
					n.inject(start)
					n.checkLossless(t, 100*top.each(fewer(20, 6)))
				})
			})
		}
	}
}

// A ring whose stations are groups of pods.
func TestDeadlockRingOfGroups(t *testing.T) {
	const stations, members, tokens, hops = 4, 3, 100, 40
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(quiet())
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
					bus := gravbus.New(quiet())
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
	for seed := range uint64(fewer(60, 6)) {
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
						hops := fewer(60, 6)
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
			for range fewer(300, 6) {
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
			start = append(start, faultHop{i % nodes, "r", fewer(600, 6)})
		}
		n.inject(start)
		n.check(t)
		if tokens := n.got.Load() - sent.Load(); tokens != int64(60*(fewer(600, 6)+1)) {
			t.Errorf("%d hops, want %d", tokens, 60*(fewer(600, 6)+1))
		}
	})
}

// Rings in real time, on as many threads as there are, and with limits as they come.
func TestDeadlockRingsInRealTime(t *testing.T) {
	watchdog(t, 2*time.Minute)
	hops := fewer(240, 6)
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
