package gravbus_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// waitsWithFunction are the ways to have a function look at a reply, which go on in a goroutine of its own.
var waitsWithFunction = map[string]func(*gravbus.Pod, *gravbus.Receipt, gravbus.MsgFunc) error{
	"OnReply":        func(_ *gravbus.Pod, r *gravbus.Receipt, fn gravbus.MsgFunc) error { return r.OnReply(fn) },
	"Receipt.WaitOn": func(_ *gravbus.Pod, r *gravbus.Receipt, fn gravbus.MsgFunc) error { return r.WaitOn(fn) },
	"Receipt.WaitUntil": func(_ *gravbus.Pod, r *gravbus.Receipt, fn gravbus.MsgFunc) error {
		return r.WaitUntil(gravbus.Timeout(1), fn)
	},
	"Pod.WaitOn": func(p *gravbus.Pod, _ *gravbus.Receipt, fn gravbus.MsgFunc) error { return p.WaitOn(fn) },
}

// offered calls test with a bus of which a function looks at a reply, in each of the ways: fn is it, and begun tells that it runs.
func offered(t *testing.T, test func(t *testing.T, bus *gravbus.Bus, run func(fn func(*gravbus.Pod)))) {
	for name, wait := range waitsWithFunction {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				test(t, bus, func(fn func(*gravbus.Pod)) {
					pod, other := bus.Connect(), bus.Connect()
					msg := gravbus.NewMsg("ask", nil)
					receipt := pod.Send(msg)
					other.ReplyTo(msg, gravbus.NewMsg("answer", nil))
					go wait(pod, receipt, func(gravbus.Message) error { fn(pod); return nil })
					synctest.Wait()
				})
			})
		})
	}
}

// Shutdown waits for functions of receipts as for handlers: they may send while the bus drains, and what they send is handled.
func TestGuarantee9ShutdownWaitsForReplyFunctions(t *testing.T) {
	offered(t, func(t *testing.T, bus *gravbus.Bus, run func(func(*gravbus.Pod))) {
		var got recorder
		must(t, bus.Connect().OnType("next", got.handle))
		ended := make(chan struct{})
		run(func(pod *gravbus.Pod) {
			defer close(ended)
			take(time.Minute)
			_, err := pod.SendContext(context.Background(), gravbus.NewMsg("next", nil))
			mustToo(t, err)
		})
		must(t, bus.Shutdown(t.Context()))
		select {
		case <-ended:
		default:
			t.Error("the function still runs")
		}
		if n := len(got.all()); n != 1 {
			t.Errorf("%d of 1 messages were handled", n)
		}
	})
}

// Shutdown inside such a function waits for all others, but not for those that are in Shutdown too.
func TestGuarantee9ShutdownInsideReplyFunctions(t *testing.T) {
	offered(t, func(t *testing.T, bus *gravbus.Bus, run func(func(*gravbus.Pod))) {
		began := time.Now()
		shut := make(chan error, 3)
		shutdown := func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			shut <- bus.Shutdown(ctx)
		}
		run(func(*gravbus.Pod) { take(time.Minute) })
		must(t, bus.Connect().OnType("end", func(gravbus.Message) error { shutdown(); return nil }))
		for range 2 {
			run(func(*gravbus.Pod) { take(time.Second); shutdown() })
		}
		bus.Connect().Send(gravbus.NewMsg("end", nil))
		for range 3 {
			mustToo(t, <-shut)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("took %v", took)
		}
	})
}

// Close from outside waits for a handler that is in Shutdown, where it may be that it waits for a loop's body.
func TestGuarantee9CloseWaitsForShutdownInside(t *testing.T) {
	for name, end := range map[string]func(*gravbus.Bus) error{
		"Close":    (*gravbus.Bus).Close,
		"Shutdown": func(bus *gravbus.Bus) error { return bus.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				pod, looping, sender := bus.Connect(), bus.Connect(), bus.Connect()
				looped := make(chan struct{})
				go func() {
					defer close(looped)
					for range looping.Messages(t.Context(), "a") {
						take(time.Hour)
					}
				}()
				synctest.Wait()
				running := true
				must(t, pod.OnType("a", func(gravbus.Message) error {
					mustToo(t, bus.Shutdown(context.Background()))
					take(time.Minute)
					running = false
					return nil
				}))
				sender.Send(gravbus.NewMsg("a", nil))
				synctest.Wait()
				must(t, end(bus))
				if running {
					t.Error("a handler runs")
				}
				<-looped
			})
		})
	}
}

// In the body of a loop, whose goroutine is the caller's own, Close waits for handlers as it does anywhere.
func TestGuarantee9CloseInALoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, looping, sender := bus.Connect(), bus.Connect(), bus.Connect()
		running := true
		begun := make(chan struct{})
		must(t, pod.OnType("a", func(gravbus.Message) error {
			close(begun)
			take(time.Minute)
			running = false
			return nil
		}))
		time.AfterFunc(time.Second, func() {
			sender.Send(gravbus.NewMsg("a", nil))
			<-begun
			sender.Send(gravbus.NewMsg("end", nil))
		})
		for range looping.Messages(t.Context(), "end") {
			must(t, bus.Close())
		}
		if running {
			t.Error("a handler runs")
		}
	})
}

// A handler may loop over Messages, of its own pod or another, and end the bus in there: it is not waited for.
func TestGuarantee9EndInALoopInsideAHandler(t *testing.T) {
	for name, end := range map[string]func(context.Context, *gravbus.Bus) error{
		"Close":    func(_ context.Context, bus *gravbus.Bus) error { return bus.Close() },
		"Shutdown": func(ctx context.Context, bus *gravbus.Bus) error { return bus.Shutdown(ctx) },
	} {
		for _, whose := range []string{"its own", "an older pod's", "a newer pod's", "two"} {
			t.Run(name+"/"+whose, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
					defer cancel()
					bus := testBus(t)
					older, pod, newer := bus.Connect(), bus.Connect(), bus.Connect()
					done := make(chan error, 1)
					must(t, pod.OnType("begin", func(gravbus.Message) error {
						loop := map[string]*gravbus.Pod{"its own": pod, "an older pod's": older, "a newer pod's": newer, "two": older}[whose]
						for range loop.Messages(ctx, "end") {
							if whose == "two" {
								for range newer.Messages(ctx, "end") {
									done <- end(ctx, bus)
								}
								break
							}
							done <- end(ctx, bus)
						}
						return nil
					}))
					sender := bus.Connect()
					sender.Send(gravbus.NewMsg("begin", nil))
					synctest.Wait()
					sender.Send(gravbus.NewMsg("end", nil))
					synctest.Wait()
					if whose == "two" {
						sender.Send(gravbus.NewMsg("end", nil))
					}
					began := time.Now()
					must(t, <-done)
					if took := time.Since(began); took > 0 {
						t.Errorf("took %v", took)
					}
				})
			})
		}
	}
}

// Handlers that send by another pod than their own do so at the same price while the bus drains, however many pods there are.
func TestGuarantee9DrainingIsNoDearer(t *testing.T) {
	const messages, idle = 1000, 1000
	bus := testBus(t)
	for range idle {
		must(t, bus.Connect().OnType("other", nop))
	}
	pod, forward, sender := bus.Connect(gravbus.Mailbox(messages)), bus.Connect(), bus.Connect()
	hold := make(chan struct{})
	var before, after runtime.MemStats
	must(t, pod.OnType("a", func(msg gravbus.Message) error {
		_, i := numberOf(msg)
		if i == 0 {
			<-hold
			runtime.ReadMemStats(&before)
		}
		if forward.Send(gravbus.NewMsg("b", nil)) == nil {
			t.Error("a handler could not send")
		}
		if i == messages-1 {
			runtime.ReadMemStats(&after)
		}
		return nil
	}))
	for i := range messages {
		sender.Send(nth("a", 0, i))
	}
	shut := make(chan error, 1)
	go func() { shut <- bus.Shutdown(context.Background()) }()
	within(t, patience, func() {
		for sender.Send(gravbus.NewMsg("c", nil)) != nil { // until it has begun
			runtime.Gosched()
		}
	})
	close(hold)
	must(t, awaitDone(t, patience, shut))
	// A list of all pods for each message would be 8 KiB.
	if got := (after.TotalAlloc - before.TotalAlloc) / messages; got > 1024 {
		t.Errorf("%d bytes were allocated for each message", got)
	}
}

// gated is a message whose sending waits, once, after the bus was found to be open.
type gated struct {
	gravbus.Message
	reached, gate chan struct{}
	once          sync.Once
}

func (g *gated) Type() string {
	g.once.Do(func() {
		close(g.reached)
		<-g.gate
	})
	return g.Message.Type()
}

// A Send that is in progress when Shutdown begins says ErrClosed if the message came too late to be handled.
func TestGuarantee9SendWhenShutdownBegins(t *testing.T) {
	for name, opts := range map[string][]gravbus.Option{"buffer": nil, "no buffer": {gravbus.UseReplay(0)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t, opts...)
				var got recorder
				must(t, bus.Connect().OnType("a", got.handle))
				pod := bus.Connect()
				msg := &gated{Message: gravbus.NewMsg("a", nil), reached: make(chan struct{}), gate: make(chan struct{})}
				sent := make(chan error, 1)
				go func() {
					receipt, err := pod.SendContext(t.Context(), msg)
					if (receipt == nil) != (err != nil) {
						t.Errorf("receipt %v, error %v", receipt, err)
					}
					sent <- err
				}()
				<-msg.reached
				must(t, bus.Shutdown(t.Context()))
				close(msg.gate)
				if err := <-sent; !errors.Is(err, gravbus.ErrClosed) {
					t.Errorf("error %v, %d messages were handled", err, len(got.all()))
				}
			})
		})
	}
}

// What Send accepts is handled before Shutdown returns, at whatever moment that begins.
func TestGuarantee9ShutdownAmongSenders(t *testing.T) {
	const senders = 3
	for name, opts := range map[string][]gravbus.Option{"buffer": nil, "no buffer": {gravbus.UseReplay(0)}} {
		t.Run(name, func(t *testing.T) {
			for range fewer(400, 4) {
				bus := testBus(t, opts...)
				var accepted, handled atomic.Int64
				must(t, bus.Connect(gravbus.Mailbox(2)).OnType("a", func(gravbus.Message) error { handled.Add(1); return nil }))
				var wg sync.WaitGroup
				started := make(chan struct{}, senders)
				for range senders {
					pod := bus.Connect()
					wg.Go(func() {
						for n := 0; pod.Send(gravbus.NewMsg("a", nil)) != nil; n++ {
							if accepted.Add(1); n == 3 {
								started <- struct{}{}
							}
						}
					})
				}
				for range senders {
					awaitDone(t, patience, started)
				}
				within(t, patience, func() { mustToo(t, bus.Shutdown(context.Background())) })
				within(t, patience, wg.Wait)
				if a, h := accepted.Load(), handled.Load(); h < a {
					t.Fatalf("%d messages were accepted, %d handled", a, h)
				}
			}
		})
	}
}
