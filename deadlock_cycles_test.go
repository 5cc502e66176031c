package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

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
					n.reach.Store(int64(fewer(20_000, 6)))
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
	watchdog(t, time.Minute)
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

// A wait function that is offered an early reply sends, by another pod, to the wait itself.
func TestDeadlockEarlyReplySendsToItsWait(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		const n = 10
		bus := testBus(t)
		pod, by := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block)), bus.Connect()
		asked := gravbus.NewMsg("nobody", nil)
		pod.Send(asked)
		by.ReplyTo(asked, gravbus.NewMsg("answer", nil))
		var got recorder
		must(t, pod.WaitOn(func(msg gravbus.Message) error {
			if msg.Type() == "answer" {
				for i := range n {
					by.Send(nth("a", 0, i))
				}
				return gravbus.ErrMsgNotWanted
			}
			got.handle(msg)
			if len(got.all()) < n {
				return gravbus.ErrMsgNotWanted
			}
			return nil
		}))
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, n-1)) {
			t.Errorf("the wait got %v", all)
		}
	})
}

// What the bus cannot see, a handler that waits for another goroutine which sends to it, ends with the stall limit.
func TestDeadlockHiddenCycleEndsWithStallLimit(t *testing.T) {
	watchdog(t, time.Minute)
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

// A member of a group cannot take what it sent itself. When the only others wait, senders to the group wait for those.
func TestDeadlockGroupMemberThatCannotHelp(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(quiet())
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

// Stations of a ring that are wait functions and loops over Messages send from inside as handlers do.
func TestDeadlockRingsOfWaitsAndLoops(t *testing.T) {
	for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
		for _, kinds := range []string{"ll", "lll", "ww", "www", "hl", "hw", "lw", "hlwhlw"} {
			t.Run(fmt.Sprintf("%s/block=%t", kinds, policy == gravbus.Block), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					bus := gravbus.New(quiet())
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

// A handler may call every method of its own pod.
func TestDeadlockHandlerCallsItsOwnPod(t *testing.T) {
	watchdog(t, time.Minute)
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
					bus := gravbus.New(quiet())
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
					bus.Connect().Send(gravbus.NewMsg("in", nil)) // has no receipt if the handler is quick to shut the bus down
					<-done                                        // a bubble that cannot go on panics
				})
			})
		}
	}
}
