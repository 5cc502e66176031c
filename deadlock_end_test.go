package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/gravbus/gravbus"
)

// Handlers that disconnect each other, at the same time and in a circle, wait for nobody who waits for them.
func TestDeadlockHandlersDisconnectEachOther(t *testing.T) {
	for _, n := range []int{2, 3, 7} {
		for _, width := range []int{1, 2} {
			t.Run(fmt.Sprintf("pods=%d/width=%d", n, width), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					for range 20 {
						bus := gravbus.New(quiet())
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
		bus := gravbus.New(quiet())
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

// Disconnect waits for all handlers of a pod, so one that waits for the caller is enough for a circle, whatever the others do.
func TestDeadlockDisconnectOfOneOfSeveralHandlers(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(quiet())
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
					bus := gravbus.New(quiet())
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
		"early reply": func(bus *gravbus.Bus, pod *gravbus.Pod, inside gravbus.MsgFunc) {
			asked := gravbus.NewMsg("nobody", nil)
			pod.Send(asked)
			bus.Connect().ReplyTo(asked, gravbus.NewMsg("answer", nil))
			_ = pod.WaitOn(inside)
		},
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
					bus := gravbus.New(quiet())
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
