package gravbus_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
)

// lent reports whether the caller is a handler in a goroutine that reads from a peer.
func lent() bool { return bytes.Contains(debug.Stack(), []byte(").lend(")) }

// A handler that is quick runs where its message was read; one that is not, or has several goroutines,
// in one of its own.
func TestMeshLent(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		var took time.Duration
		var ran []bool
		handle := func(gravbus.Message) error {
			ran = append(ran, lent())
			time.Sleep(took)
			return nil
		}
		must(t, b.Connect().OnType("one", handle))
		must(t, b.Connect(gravbus.Concurrency(2)).OnType("two", handle))
		meshWanted(t, a, "one", 1)
		meshWanted(t, a, "two", 1)
		pod := a.Connect()
		send := func(typ string, size int) bool {
			ran = nil
			pod.Send(gravbus.NewMsg(typ, make([]byte, size)))
			time.Sleep(time.Second)
			synctest.Wait()
			if len(ran) != 1 {
				t.Fatalf("%d calls for one message", len(ran))
			}
			return ran[0]
		}
		send("one", 0) // makes the mailbox
		if !send("one", 0) || !send("one", 500) {
			t.Error("a quick handler did not run where its message was read")
		}
		if send("one", 5000) {
			t.Error("a handler ran where a large packet was read")
		}
		if send("two", 0) {
			t.Error("a pod with several handlers ran where its message was read")
		}
		took = 150 * time.Microsecond
		if !send("one", 0) {
			t.Error("a handler ran elsewhere before it took long")
		}
		took = 0
		for i := range 9 {
			if send("one", 0) {
				t.Errorf("message %d after a handler took 150 µs: it ran where it was read", i)
			}
		}
		send("one", 0) // may make the mailbox grow
		if !send("one", 0) {
			t.Error("a handler that took long once is not trusted again")
		}
	})
}

// A handler that does not come back keeps nobody else waiting for longer than 2 ms, and never again
// in the near future.
func TestMeshLentForLong(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		release := make(chan bool)
		var slow atomic.Int64
		must(t, b.Connect().OnType("slow", func(gravbus.Message) error {
			<-release
			slow.Add(1)
			return nil
		}))
		var late []time.Duration
		must(t, b.Connect().OnType("quick", func(m gravbus.Message) error {
			late = append(late, time.Since(m.Timestamp()))
			return nil
		}))
		meshWanted(t, a, "slow", 1)
		meshWanted(t, a, "quick", 1)
		pod := a.Connect()
		for range 3 {
			for range 10 {
				pod.Send(gravbus.NewMsg("slow", nil))
				synctest.Wait() // not both in one packet, after which nobody is run where it was read
				pod.Send(gravbus.NewMsg("quick", nil))
				time.Sleep(10 * time.Millisecond)
			}
			for range 10 {
				release <- true
			}
			synctest.Wait()
		}
		if n := slow.Load(); n != 30 || len(late) != 30 {
			t.Fatalf("%d slow and %d quick messages, want 30 of each", n, len(late))
		}
		waited := 0
		for i, d := range late {
			if d > 2*time.Millisecond {
				t.Errorf("message %d came %v late", i, d)
			}
			if d != 0 {
				waited++
			}
		}
		if waited != 1 {
			t.Errorf("%d messages came late, want 1: %v", waited, late)
		}
		if cuts := a.Stats().Peers[0].Cuts; cuts > 0 {
			t.Errorf("the link was cut %d times", cuts)
		}
	})
}

// What a handler waits for may come on the connection that its message came on: it does not wait for
// itself.
func TestMeshLentAsks(t *testing.T) {
	waits := map[string]func(ctx context.Context, b *gravbus.Bus, p *gravbus.Pod) error{
		"Request": func(ctx context.Context, _ *gravbus.Bus, p *gravbus.Pod) error {
			_, err := p.Request(ctx, gravbus.NewMsg("back", nil))
			return err
		},
		"RequestAll": func(ctx context.Context, _ *gravbus.Bus, p *gravbus.Pod) error {
			for _, err := range p.RequestAll(ctx, gravbus.NewMsg("back", nil)) {
				return err
			}
			return errors.New("no reply")
		},
		"Receipt.Wait": func(ctx context.Context, _ *gravbus.Bus, p *gravbus.Pod) error {
			_, err := p.Send(gravbus.NewMsg("back", nil)).Wait(ctx)
			return err
		},
		"Receipt.WaitUntil": func(_ context.Context, _ *gravbus.Bus, p *gravbus.Pod) error {
			return p.Send(gravbus.NewMsg("back", nil)).WaitUntil(gravbus.Timeout(60), func(gravbus.Message) error { return nil })
		},
		"Pod.WaitUntil": func(_ context.Context, b *gravbus.Bus, _ *gravbus.Pod) error {
			p := b.Connect() // without a handler, which would have the reply
			p.Send(gravbus.NewMsg("back", nil))
			return p.WaitUntil(gravbus.Timeout(60), func(gravbus.Message) error { return nil })
		},
		"Pod.Wait": func(ctx context.Context, b *gravbus.Bus, _ *gravbus.Pod) error {
			p := b.Connect()
			p.Send(gravbus.NewMsg("back", nil))
			_, err := p.Wait(ctx)
			return err
		},
	}
	for name, wait := range waits {
		t.Run(name, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair()
				meshReplier(t, a, "back", "a")
				meshWanted(t, b, "back", 1)
				p := b.Connect()
				was := false
				must(t, p.OnType("ask", func(msg gravbus.Message) error {
					was = lent()
					mustToo(t, wait(meshCtx(t, time.Minute), b, p))
					p.ReplyTo(msg, gravbus.NewMsg("answer", nil))
					return nil
				}))
				meshWanted(t, a, "ask", 1)
				pod := a.Connect()
				ran := 0
				for i := range 20 {
					time.Sleep(time.Second)
					synctest.Wait() // nobody is at work
					start := time.Now()
					_, err := pod.Request(meshCtx(t, time.Minute), gravbus.NewMsg("ask", nil))
					must(t, err)
					if d := time.Since(start); d != 0 {
						t.Errorf("request %d took %v", i, d)
					}
					if was {
						ran++
					}
				}
				if ran < 15 { // not while a mailbox grows
					t.Errorf("%d of 20 requests ran where they were read", ran)
				}
			})
		})
	}
}

// What a handler may do to its goroutine and its bus, it may do in the one that reads.
func TestMeshLentEnds(t *testing.T) {
	type node struct {
		bus *gravbus.Bus
		pod *gravbus.Pod
	}
	for name, end := range map[string]func(n node) (gone bool){
		"Goexit":         func(node) bool { runtime.Goexit(); return false },
		"panic":          func(node) bool { panic("on purpose") },
		"Disconnect":     func(n node) bool { n.pod.Disconnect(); return true },
		"Bus.Close":      func(n node) bool { n.bus.Close(); return true },
		"Bus.Shutdown":   func(n node) bool { n.bus.Shutdown(context.Background()); return true },
		"Bus.Withdraw":   func(n node) bool { n.bus.Withdraw(context.Background()); return true },
		"Close, Goexit":  func(n node) bool { n.bus.Close(); runtime.Goexit(); return true },
		"LockOSThread":   func(node) bool { runtime.LockOSThread(); runtime.UnlockOSThread(); return false },
		"wait and panic": func(node) bool { time.Sleep(time.Second); panic("on purpose") },
	} {
		t.Run(name, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair()
				self := node{b, b.Connect()}
				was, done := make(chan bool, 1), make(chan bool, 1)
				must(t, self.pod.OnType("end", func(m gravbus.Message) error {
					if m.Data() == nil {
						return nil // it makes the mailbox
					}
					was <- lent()
					defer func() { done <- true }()
					end(self)
					return nil
				}))
				var got arrivals
				got.expect(10)
				must(t, b.Connect().OnType("then", got.one))
				meshWanted(t, a, "end", 1)
				meshWanted(t, a, "then", 1)
				pod := a.Connect()
				pod.Send(gravbus.NewMsg("end", nil))
				synctest.Wait()
				start := time.Now()
				pod.Send(gravbus.NewMsg("end", []byte("now")))
				if !<-was {
					t.Error("it did not run where it was read")
				}
				<-done
				if d := time.Since(start); d > 2*time.Second {
					t.Errorf("it took %v", d)
				}
				for range 10 {
					pod.Send(gravbus.NewMsg("then", nil))
				}
				time.Sleep(time.Second)
				synctest.Wait()
				peers := a.Stats().Peers
				up := len(peers) == 1 && peers[0].State == gravbus.PeerUp && peers[0].Cuts == 0
				if gone := name[0] == 'B' || name[0] == 'C'; !gone && (got.n.Load() != 10 || !up) {
					t.Errorf("%d of 10 messages came after it; the link is as it was: %v", got.n.Load(), up)
				}
			})
		})
	}
}

// Whatever handlers do, and however often connections are cut meanwhile: every message once, in order.
func TestMeshLentStorm(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for seed := range rounds {
		meshBubble(t, memory.Config{Latency: 200 * time.Microsecond}, func(t *testing.T, n meshNet) {
			r := rand.New(rand.NewPCG(uint64(seed), 1))
			nodes := []*gravbus.Bus{n.node("a", ""), n.node("b", "a"), n.node("c", "a b")}
			meshUp(t, nodes...)
			const each, pods = 200, 2
			type key struct {
				pod, sender int
			}
			var mu sync.Mutex
			last := map[key]uint32{}
			total := 0
			back := make([]*gravbus.Pod, len(nodes))
			for i, b := range nodes {
				back[i] = meshReplier(t, b, fmt.Sprintf("back%d", i), "back")
			}
			for i, b := range nodes {
				for j := range pods {
					p := b.Connect()
					id, mine := i*pods+j, rand.New(rand.NewPCG(uint64(seed), uint64(10+i*pods+j)))
					must(t, p.OnType("storm", func(m gravbus.Message) error {
						from, no := binary.BigEndian.Uint32(m.Data()), binary.BigEndian.Uint32(m.Data()[4:])
						mu.Lock()
						k := key{id, int(from)}
						if no != last[k]+1 {
							t.Errorf("seed %d: pod %d got message %d of %d after %d", seed, id, no, from, last[k])
						}
						last[k] = no
						total++
						what := mine.IntN(100)
						mu.Unlock()
						switch what {
						case 0:
							time.Sleep(300 * time.Microsecond)
						case 1:
							time.Sleep(3 * time.Millisecond)
						case 2:
							_, err := p.Request(meshCtx(t, time.Minute), gravbus.NewMsg(fmt.Sprintf("back%d", (i+1)%len(nodes)), nil))
							if err != nil {
								t.Errorf("seed %d: %v", seed, err)
							}
						case 3:
							runtime.Gosched()
						}
						return nil
					}))
				}
			}
			for i, b := range nodes {
				meshWanted(t, b, "storm", len(nodes)-1)
				meshWanted(t, b, fmt.Sprintf("back%d", (i+1)%len(nodes)), 1)
			}
			var senders sync.WaitGroup
			for i, b := range nodes {
				pod, mine := b.Connect(), rand.New(rand.NewPCG(uint64(seed), uint64(100+i)))
				senders.Go(func() {
					for no := range each {
						pod.Send(nth("storm", i, no+1))
						if mine.IntN(4) == 0 {
							time.Sleep(time.Duration(mine.IntN(3000)) * time.Microsecond)
						}
					}
				})
			}
			for range 5 {
				time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
				n.Cut(pick(r, "a", "b", "c"), pick(r, "a", "b", "c"))
			}
			senders.Wait()
			for range 600 {
				mu.Lock()
				done := total == each*len(nodes)*len(nodes)*pods
				mu.Unlock()
				if done {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			t.Errorf("seed %d: %d messages came, want %d", seed, total, each*len(nodes)*len(nodes)*pods)
		})
	}
}
