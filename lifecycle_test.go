package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"go.uber.org/goleak"
)

// After Disconnect no call of the handler runs or begins, in a storm of messages.
func TestGuarantee9NothingRunsAfterDisconnect(t *testing.T) {
	for name, opts := range map[string][]gravbus.PodOption{
		"default":     nil,
		"mailbox=1":   {gravbus.Mailbox(1)},
		"concurrency": {gravbus.Concurrency(4)},
		"group":       {gravbus.InGroup("g")},
		"replay":      {gravbus.Replay()},
		"block":       {gravbus.Mailbox(2), gravbus.Overflow(gravbus.Block)},
	} {
		t.Run(name, func(t *testing.T) {
			bus := testBus(t)
			stop := make(chan struct{})
			var senders sync.WaitGroup
			for i := range 2 {
				pod := bus.Connect()
				senders.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
							pod.Send(nth("a", i, n))
							runtime.Gosched()
						}
					}
				})
			}
			for range 40 {
				var gone atomic.Bool
				calls := make(chan struct{}, 1)
				handle := func(gravbus.Message) error {
					if gone.Load() {
						t.Error("a call began after Disconnect returned")
					}
					select {
					case calls <- struct{}{}:
					default:
					}
					runtime.Gosched()
					if gone.Load() {
						t.Error("a call was running when Disconnect returned")
					}
					return nil
				}
				pod := bus.Connect(opts...)
				must(t, pod.On(handle))
				// The waits are the pod's too.
				waited := make(chan error, 1)
				go func() {
					waited <- pod.WaitOn(func(msg gravbus.Message) error {
						mustToo(t, handle(msg))
						return gravbus.ErrMsgNotWanted
					})
				}()
				awaitDone(t, patience, calls)
				within(t, patience, pod.Disconnect)
				gone.Store(true)
				if err := awaitDone(t, patience, waited); !errors.Is(err, gravbus.ErrDisconnected) {
					t.Errorf("WaitOn: %v", err)
				}
				within(t, patience, pod.Disconnect) // again
			}
			close(stop)
			within(t, patience, senders.Wait)
		})
	}
}

// Disconnect waits for the handler that runs, and a second Disconnect at the same time does too.
func TestGuarantee9DisconnectWaitsForTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod := bus.Connect()
		handled := false
		must(t, pod.On(func(gravbus.Message) error {
			take(time.Minute)
			handled = true
			return nil
		}))
		sender := bus.Connect()
		sender.Send(gravbus.NewMsg("a", nil))
		sender.Send(gravbus.NewMsg("a", nil)) // discarded
		synctest.Wait()
		began := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				pod.Disconnect()
				if took := time.Since(began); took != time.Minute || !handled {
					t.Errorf("Disconnect took %v", took)
				}
			})
		}
		wg.Wait()
		take(time.Hour)
		if s := bus.Stats(); s.Delivered != 1 || len(s.Pods) != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Shutdown lets handlers finish what is in the mailboxes, and what they send on; nobody else can send.
func TestGuarantee9ShutdownDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 20
		bus := testBus(t)
		var got recorder
		const stages = 4
		for i := range stages {
			pod := bus.Connect(gravbus.Mailbox(3))
			must(t, pod.OnType(fmt.Sprint("stage.", i), func(msg gravbus.Message) error {
				take(10 * time.Millisecond)
				if i == stages-1 {
					return got.handle(msg)
				}
				_, number := numberOf(msg)
				if pod.Send(nth(fmt.Sprint("stage.", i+1), 0, number)) == nil {
					t.Errorf("stage %d could not send %d on", i, number)
				}
				return nil
			}))
		}
		sender := bus.Connect()
		for i := range n {
			sender.Send(nth("stage.0", 0, i))
		}
		shut := make(chan error)
		go func() { shut <- bus.Shutdown(t.Context()) }()
		synctest.Wait()
		if _, err := sender.SendContext(t.Context(), nth("stage.0", 0, n)); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("Send of an outsider: %v", err)
		}
		if sender.Send(nth("stage.0", 0, n)) != nil {
			t.Error("an outsider's Send has a receipt")
		}
		if _, err := sender.Request(t.Context(), nth("stage.0", 0, n)); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("Request of an outsider: %v", err)
		}
		late := bus.Connect()
		if err := late.On(nop); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("On of a pod connected late: %v", err)
		}
		must(t, awaitDone(t, patience, shut))
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, n-1)) {
			t.Errorf("got %v", all)
		}
		if s := bus.Stats(); s.Delivered != stages*n || s.Dropped != 0 || len(s.Pods) != 0 {
			t.Errorf("stats %+v", s)
		}
		must(t, bus.Shutdown(t.Context()))
		must(t, bus.Close())
		if _, err := sender.SendContext(t.Context(), nth("a", 0, 0)); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("Send after Shutdown: %v", err)
		}
	})
}

// A handler that does not end makes Shutdown return when its context does, with the pod's name; what waits is discarded.
func TestGuarantee9ShutdownCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		release := make(chan struct{})
		calls := 0
		var mu sync.Mutex
		for _, name := range []string{"zwei", "eins"} {
			must(t, bus.Connect(gravbus.Name(name)).On(func(gravbus.Message) error {
				mu.Lock()
				calls++
				mu.Unlock()
				<-release
				return nil
			}))
		}
		must(t, bus.Connect(gravbus.Name("idle")).OnType("b", nop))
		sender := bus.Connect()
		for i := range 5 {
			sender.Send(nth("a", 0, i))
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err := bus.Shutdown(ctx)
		var cut *gravbus.ShutdownError
		if !errors.As(err, &cut) || !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(cut.Pods, []string{"eins", "zwei"}) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
		closed := make(chan struct{})
		go func() { // Close waits for the handlers, even now
			bus.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the handlers")
		default:
		}
		close(release)
		awaitDone(t, patience, closed)
		if calls != 2 {
			t.Errorf("%d calls", calls)
		}
	})
}

// Shutdown inside a handler waits for all others.
func TestGuarantee9ShutdownInsideAHandler(t *testing.T) {
	for _, busy := range []int{0, 1, 3} {
		for _, callers := range []int{1, 2} {
			t.Run(fmt.Sprintf("busy=%d/callers=%d", busy, callers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					for range busy {
						must(t, bus.Connect().OnType("a", func(gravbus.Message) error { take(time.Second); return nil }))
					}
					shut := make(chan error, callers)
					for range callers {
						must(t, bus.Connect().OnType("a", func(gravbus.Message) error {
							ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
							defer cancel()
							shut <- bus.Shutdown(ctx)
							return nil
						}))
					}
					began := time.Now()
					bus.Connect().Send(gravbus.NewMsg("a", nil))
					for range callers {
						must(t, <-shut)
					}
					if took := time.Since(began); took > time.Second || busy > 0 && took < time.Second {
						t.Errorf("took %v", took)
					}
					synctest.Wait()
					if s := bus.Stats(); s.Delivered != uint64(busy+callers) {
						t.Errorf("%d delivered", s.Delivered)
					}
				})
			})
		}
	}
}

// Shutdown with senders, handlers that forward, waits and changes in progress: it ends, nothing runs afterwards, and every message that was
// accepted before it began has been handled.
func TestGuarantee9ShutdownInAStorm(t *testing.T) {
	for name, end := range map[string]func(*gravbus.Bus) error{
		"Close":    (*gravbus.Bus).Close,
		"Shutdown": func(b *gravbus.Bus) error { return b.Shutdown(context.Background()) },
		"both at once": func(b *gravbus.Bus) error {
			var wg sync.WaitGroup
			wg.Go(func() { b.Close() })
			wg.Go(func() { b.Shutdown(context.Background()) })
			wg.Go(func() { b.Close() })
			wg.Wait()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 25 {
				before := goleak.IgnoreCurrent()
				bus := testBus(t)
				var closed atomic.Bool
				handle := func(pod *gravbus.Pod, forward string) gravbus.MsgFunc {
					return func(msg gravbus.Message) error {
						if closed.Load() {
							t.Error("a handler runs on a closed bus")
						}
						if forward != "" {
							pod.Send(gravbus.NewMsg(forward, msg.Data()))
						}
						return nil
					}
				}
				for i, opts := range [][]gravbus.PodOption{{gravbus.Mailbox(2)}, {gravbus.Concurrency(3)}, {gravbus.InGroup("g")}, {gravbus.InGroup("g")}} {
					pod := bus.Connect(opts...)
					must(t, pod.OnType("a", handle(pod, fmt.Sprint("b.", i))))
				}
				for _, o := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block, gravbus.DropOldest} {
					pod := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(o))
					must(t, pod.OnType("b.*", handle(pod, "c")))
				}
				var wg sync.WaitGroup
				sending := make(chan struct{}, 3)
				for range 3 {
					pod := bus.Connect()
					wg.Go(func() {
						for i := 0; ; i++ {
							if i == 20 {
								sending <- struct{}{}
							}
							if pod.Send(gravbus.NewMsg("a", nil)) == nil {
								return
							}
							runtime.Gosched()
						}
					})
				}
				wg.Go(func() {
					pod := bus.Connect()
					for range pod.Messages(context.Background(), "c") { // ends with the bus
					}
				})
				wg.Go(func() {
					if err := bus.Connect().WaitOn(func(gravbus.Message) error { return gravbus.ErrMsgNotWanted }); !errors.Is(err, gravbus.ErrClosed) {
						t.Errorf("WaitOn: %v", err)
					}
				})
				wg.Go(func() {
					pod := bus.Connect()
					for {
						if _, err := pod.Request(context.Background(), gravbus.NewMsg("a", nil)); err != nil && !errors.Is(err, gravbus.ErrNoResponders) {
							if !errors.Is(err, gravbus.ErrClosed) {
								t.Errorf("Request: %v", err)
							}
							return
						}
					}
				})
				for range 3 {
					awaitDone(t, patience, sending)
				}
				within(t, patience, func() { mustToo(t, end(bus)) })
				closed.Store(true)
				within(t, patience, wg.Wait)
				must(t, goleak.Find(before))
			}
		})
	}
}

// What was sent before Shutdown began is handled before it returns.
func TestGuarantee9ShutdownLosesNothing(t *testing.T) {
	const senders, n = 3, 200
	for range 20 {
		bus := testBus(t)
		pods := []*sequence{newSequence(senders, n), newSequence(senders, n), newSequence(senders, n)}
		for i, s := range pods {
			must(t, bus.Connect(gravbus.Mailbox(1+100*i)).On(s.handle))
		}
		sendAll(t, bus, senders, n, "a", "b")
		within(t, patience, func() { mustToo(t, bus.Shutdown(context.Background())) })
		for _, s := range pods {
			s.check(t)
			if s.left != 0 {
				t.Fatalf("%d messages were lost", s.left)
			}
		}
	}
}

// An idle bus has no goroutine, however many pods there are and whatever they listen to; a message takes one per pod that handles it, at most.
func TestGuarantee10NoGoroutines(t *testing.T) {
	const pods = 10_000
	before := runtime.NumGoroutine()
	bus := testBus(t)
	var handled sync.WaitGroup
	var n atomic.Int64
	for i := range pods {
		var opts []gravbus.PodOption
		switch i % 6 {
		case 1:
			opts = append(opts, gravbus.Concurrency(4))
		case 2:
			opts = append(opts, gravbus.Replay())
		case 3:
			opts = append(opts, gravbus.InGroup(fmt.Sprint("group-", i)))
		case 4:
			opts = append(opts, gravbus.Overflow(gravbus.DropOldest))
		}
		must(t, bus.Connect(opts...).OnType("all", func(gravbus.Message) error {
			n.Add(1)
			handled.Done()
			return nil
		}, fmt.Sprint("own.", i)))
	}
	idle := func() { // drainers end when their mailboxes are empty; those of pods that replay have begun with one
		t.Helper()
		within(t, patience, func() {
			for runtime.NumGoroutine() > before+1 { // and the one of within
				runtime.Gosched()
			}
		})
	}
	idle()
	sender := bus.Connect()
	for range 3 {
		handled.Add(pods)
		sender.Send(gravbus.NewMsg("all", nil))
		within(t, patience, handled.Wait)
	}
	idle()
	if n.Load() != 3*pods {
		t.Errorf("%d handled", n.Load())
	}
}

// A thousand messages that wait take the goroutine of the one that is handled.
func TestGuarantee10NoGoroutinePerMessage(t *testing.T) {
	bus := testBus(t)
	before := runtime.NumGoroutine()
	release := make(chan struct{})
	must(t, bus.Connect().On(func(gravbus.Message) error { <-release; return nil }))
	sender := bus.Connect()
	for i := range 1000 {
		receipt := sender.Send(nth("a", 0, i))
		must(t, receipt.OnReply(nop))
	}
	if now := runtime.NumGoroutine(); now > before+1 {
		t.Errorf("%d goroutines for 1000 messages", now-before)
	}
	close(release)
}

// A pod that is disconnected while it changes what it listens to, begins to wait, or is asked for anything else, is gone entirely: nobody takes it for a receiver,
// and those who listened to the same are as before.
func TestGuarantee9DisconnectRacesWithOn(t *testing.T) {
	for name, opts := range map[string][]gravbus.PodOption{
		"default": nil,
		"private": {gravbus.Overflow(gravbus.Block)},
		"group":   {gravbus.InGroup("g")},
		"replay":  {gravbus.Replay()},
	} {
		t.Run(name, func(t *testing.T) {
			bus := testBus(t)
			var stay recorder
			must(t, bus.Connect().OnType("stay", stay.handle))
			sender := bus.Connect()
			for i := range 80 {
				var wg sync.WaitGroup
				for j := range 4 {
					pod := bus.Connect(opts...)
					nothing := func(gravbus.Message) error { return gravbus.ErrMsgNotWanted }
					wg.Go(func() {
						for n := 0; pod.OnType("a", nothing, fmt.Sprint("n.", n%3)) == nil; n++ {
							if err := pod.FilterType("b", n%2 == 0); err != nil && !errors.Is(err, gravbus.ErrDisconnected) {
								t.Error(err)
							}
							runtime.Gosched()
						}
					})
					wg.Go(func() { pod.WaitOn(nothing) })
					wg.Go(func() {
						for range pod.Messages(context.Background(), "a") {
						}
					})
					wg.Go(func() {
						for range j * 10 {
							runtime.Gosched()
						}
						pod.Disconnect()
					})
				}
				wg.Go(func() { sender.Send(gravbus.NewMsg("a", nil)) })
				within(t, patience, wg.Wait)
				if _, err := sender.Request(t.Context(), gravbus.NewMsg("a", nil)); !errors.Is(err, gravbus.ErrNoResponders) {
					t.Fatalf("round %d: a request when all have gone: %v", i, err)
				}
				sender.Send(gravbus.NewMsg("stay", nil))
			}
			stay.await(t, 80)
			must(t, bus.Shutdown(t.Context()))
			if n := len(stay.all()); n != 80 {
				t.Errorf("%d of 80 came to the pod that stayed", n)
			}
		})
	}
}

// Close waits for every handler that runs, also for those of pods that somebody is just disconnecting, and however often it is called.
func TestGuarantee9CloseWaitsForAll(t *testing.T) {
	for name, first := range map[string]func(*gravbus.Bus, *gravbus.Pod){
		"alone":            func(*gravbus.Bus, *gravbus.Pod) {},
		"after Disconnect": func(_ *gravbus.Bus, p *gravbus.Pod) { p.Disconnect() },
		"after Close":      func(b *gravbus.Bus, _ *gravbus.Pod) { b.Close() },
		"after Shutdown":   func(b *gravbus.Bus, _ *gravbus.Pod) { b.Shutdown(context.Background()) },
	} {
		for _, shutdown := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/shutdown=%t", name, shutdown), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					pod := bus.Connect()
					running := true
					must(t, pod.On(func(gravbus.Message) error {
						take(time.Minute)
						running = false
						return nil
					}))
					bus.Connect().Send(gravbus.NewMsg("a", nil))
					synctest.Wait()
					go first(bus, pod)
					synctest.Wait()
					if shutdown {
						must(t, bus.Shutdown(t.Context()))
					} else {
						must(t, bus.Close())
					}
					if running {
						t.Error("a handler runs")
					}
				})
			})
		}
	}
}

// A wait that is over, as the pod has gone or the time, calls its function no more, whatever it has in hand.
func TestGuarantee9WaitFunctionsEnd(t *testing.T) {
	for _, what := range []string{"early replies", "messages"} {
		for _, end := range []string{"Disconnect", "timeout"} {
			t.Run(what+"/"+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					pod, other := bus.Connect(), bus.Connect()
					if what == "early replies" {
						asked := gravbus.NewMsg("nobody", nil)
						pod.Send(asked)
						for range 3 {
							other.ReplyTo(asked, gravbus.NewMsg("answer", nil))
						}
					}
					calls := 0
					waited := make(chan error, 1)
					go func() {
						waited <- pod.WaitUntil(gravbus.Timeout(10), func(gravbus.Message) error {
							take(time.Second)
							if calls++; calls == 2 && end == "Disconnect" {
								pod.Disconnect()
							} else if calls == 2 {
								take(time.Minute)
							}
							return gravbus.ErrMsgNotWanted
						})
					}()
					if what == "messages" {
						synctest.Wait()
						for range 4 { // one is claimed at once, the others together
							other.Send(gravbus.NewMsg("a", nil))
						}
					}
					want := gravbus.ErrDisconnected
					if end == "timeout" {
						want = gravbus.ErrWaitTimeout
					}
					if err := <-waited; !errors.Is(err, want) {
						t.Errorf("error %v", err)
					}
					take(time.Hour)
					if calls != 2 {
						t.Errorf("%d calls", calls)
					}
				})
			})
		}
	}
}

// A Messages loop ends with its context, with the pod and with the bus, even if these end in the loop's body; no further message is yielded.
func TestGuarantee9LoopEnds(t *testing.T) {
	for name, end := range map[string]func(context.CancelFunc, *gravbus.Bus, *gravbus.Pod){
		"context":    func(cancel context.CancelFunc, _ *gravbus.Bus, _ *gravbus.Pod) { cancel() },
		"Disconnect": func(_ context.CancelFunc, _ *gravbus.Bus, pod *gravbus.Pod) { pod.Disconnect() },
		"Close":      func(_ context.CancelFunc, bus *gravbus.Bus, _ *gravbus.Pod) { bus.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				pod, sender := bus.Connect(), bus.Connect()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				n := 0
				hold := make(chan struct{})
				done := make(chan struct{})
				go func() {
					defer close(done)
					for range pod.Messages(ctx) {
						if n++; n == 1 {
							<-hold
						}
						if n == 3 {
							end(cancel, bus, pod)
						}
					}
				}()
				synctest.Wait()
				for i := range 50 {
					sender.Send(nth("a", 0, i))
				}
				close(hold)
				awaitDone(t, patience, done)
				if n != 3 {
					t.Errorf("%d messages were yielded", n)
				}
			})
		})
	}
}
