package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// notWanted keeps a wait waiting.
func notWanted(gravbus.Message) error { return gravbus.ErrMsgNotWanted }

// A wait does not touch the pod's handler or filters: both get what they want.
func TestGuarantee7WaitBesideTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod := bus.Connect()
		var handled recorder
		must(t, pod.OnType("a", handled.handle, "b"))
		must(t, pod.FilterType("b", false))
		sender := bus.Connect()
		for i := range 20 {
			var seen recorder
			waited := make(chan error, 1)
			go func() {
				waited <- pod.WaitUntil(gravbus.Timeout(10), func(msg gravbus.Message) error {
					seen.handle(msg)
					if msg.Type() == "end" {
						return errHandler
					}
					return gravbus.ErrMsgNotWanted
				})
			}()
			synctest.Wait()
			sender.Send(nth("a", 0, i))
			sender.Send(nth("b", 0, i)) // filtered: not for the wait either
			pod.Send(nth("a", 1, i))    // no echo
			sender.Send(nth("c", 0, i)) // the handler does not want it
			sender.Send(nth("end", 0, i))
			sender.Send(nth("end", 0, i)) // too late
			if err := awaitDone(t, patience, waited); !errors.Is(err, errHandler) {
				t.Fatalf("WaitUntil: %v", err)
			}
			synctest.Wait()
			if types := typesOf(seen.all()); !slices.Equal(types, []string{"a", "c", "end"}) {
				t.Errorf("the wait saw %v", types)
			}
		}
		if got := numbers(t, handled.all()); !slices.Equal(got, span(0, 19)) {
			t.Errorf("the handler got %v", got)
		}
	})
}

// Waits of every kind by several goroutines on one pod do not disturb each other: each sees everything.
func TestGuarantee7ConcurrentWaits(t *testing.T) {
	const waiters, rounds = 8, 30
	bus := testBus(t)
	pod, sender := bus.Connect(), bus.Connect()
	var handled atomic.Int64
	must(t, pod.OnType("go", func(gravbus.Message) error { handled.Add(1); return nil }))
	var ready, done sync.WaitGroup
	for range rounds {
		for i := range waiters {
			ready.Add(1)
			done.Go(func() {
				last := -1
				see := func(msg gravbus.Message) bool {
					if msg.Type() != "go" {
						return false
					}
					_, n := numberOf(msg)
					if last >= 0 && n != last+1 {
						t.Errorf("%d after %d", n, last)
					}
					if last = n; last < 0 {
						last = n
					}
					return n == 9
				}
				begun := sync.OnceFunc(ready.Done)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				switch i % 3 {
				case 0:
					mustToo(t, pod.WaitOn(func(msg gravbus.Message) error {
						if msg.Type() == "ready" {
							begun()
						}
						if see(msg) {
							return nil
						}
						return gravbus.ErrMsgNotWanted
					}))
				case 1:
					for msg := range pod.Messages(ctx, "ready", "go") {
						if msg.Type() == "ready" {
							begun()
						}
						if see(msg) {
							break
						}
					}
				default:
					msg, err := pod.Wait(ctx, "ready")
					mustToo(t, err)
					if err == nil && msg.Type() != "ready" {
						t.Errorf("Wait returned %s", msg.Type())
					}
					begun()
				}
			})
		}
		begun := make(chan struct{})
		go func() { ready.Wait(); close(begun) }()
		within(t, patience, func() {
			for {
				select {
				case <-begun:
					return
				default:
					sender.Send(gravbus.NewMsg("ready", nil))
					runtime.Gosched()
				}
			}
		})
		for n := range 10 {
			sender.Send(nth("go", 0, n))
		}
		within(t, patience, done.Wait)
	}
	must(t, bus.Shutdown(t.Context()))
	if handled.Load() != rounds*10 {
		t.Errorf("the handler was called %d times", handled.Load())
	}
}

// A timeout is on time even while fn runs; what fn returns then is dropped, and the next wait is not disturbed by it.
func TestGuarantee7OnTimeWhileFnRuns(t *testing.T) {
	for _, timeout := range []time.Duration{time.Nanosecond, 3 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second, 1000 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			bus := testBus(t)
			pod, sender := bus.Connect(), bus.Connect()
			release := make(chan struct{})
			var running sync.WaitGroup
			slow := func(gravbus.Message) error {
				running.Add(1)
				defer running.Done()
				<-release
				return errHandler
			}
			receipt := pod.Send(gravbus.NewMsg("ask", nil))
			waits := map[string]func() error{
				"Pod.WaitUntil":     func() error { return pod.WaitUntil(gravbus.TimeoutAfter(timeout), slow) },
				"Receipt.WaitUntil": func() error { return receipt.WaitUntil(gravbus.TimeoutAfter(timeout), slow) },
			}
			for name, wait := range waits {
				for _, send := range []bool{false, true} {
					began := time.Now()
					waited := make(chan error, 1)
					go func() { waited <- wait() }()
					if send && timeout > time.Nanosecond {
						synctest.Wait()
						sender.Send(gravbus.NewMsgReplyTo(receipt, "answer", nil))
						sender.Send(gravbus.NewMsgReplyTo(receipt, "answer", nil)) // a second one that would match
					}
					if err := <-waited; !errors.Is(err, gravbus.ErrWaitTimeout) {
						t.Errorf("%s: %v", name, err)
					}
					if took := time.Since(began); took != timeout {
						t.Errorf("%s took %v instead of %v", name, took, timeout)
					}
				}
			}
			close(release)
			running.Wait()
			// What was offered to a wait that is over is still there.
			if timeout > time.Nanosecond {
				for range 2 {
					if _, err := receipt.Wait(t.Context()); err != nil {
						t.Errorf("a reply was lost: %v", err)
					}
				}
			}
		})
	}
}

// A match at the very moment of the timeout neither hangs nor disturbs what follows.
func TestGuarantee7MatchAtTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, sender := bus.Connect(), bus.Connect()
		for range 200 {
			time.AfterFunc(time.Second, func() {
				for range 3 {
					sender.Send(gravbus.NewMsg("match", nil))
				}
			})
			if err := pod.WaitUntil(gravbus.Timeout(1), nop); err != nil && !errors.Is(err, gravbus.ErrWaitTimeout) {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if s := pod.Stats(); s.Depth != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Timeouts that never fire, and their arguments.
func TestGuarantee7TimeoutThatNeverFires(t *testing.T) {
	for name, timeout := range map[string]gravbus.TimeoutFunc{
		"nil": nil, "Timeout(0)": gravbus.Timeout(0), "Timeout(-1)": gravbus.Timeout(-1),
		"TimeoutAfter(0)": gravbus.TimeoutAfter(0), "nil channel": func() <-chan time.Time { return nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			bus := testBus(t)
			pod, sender := bus.Connect(), bus.Connect()
			waited := make(chan error, 1)
			go func() { waited <- pod.WaitUntil(timeout, func(gravbus.Message) error { return errHandler }) }()
			take(10_000 * time.Hour)
			select {
			case err := <-waited:
				t.Errorf("%s: %v", name, err)
			default:
				sender.Send(gravbus.NewMsg("a", nil))
				if err := <-waited; !errors.Is(err, errHandler) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// A reply that comes before the wait begins is not lost, however the wait is made and however the reply was sent.
func TestGuarantee7ReplyBeforeWait(t *testing.T) {
	replies := map[string]func(pod *gravbus.Pod, to gravbus.Message) gravbus.Message{
		"ReplyTo": func(pod *gravbus.Pod, to gravbus.Message) gravbus.Message {
			m := gravbus.NewMsg("answer", nil)
			pod.ReplyTo(to, m)
			return m
		},
		"SetReplyTo": func(pod *gravbus.Pod, to gravbus.Message) gravbus.Message {
			m := gravbus.NewMsg("answer", nil)
			m.SetReplyTo(to.UUID())
			pod.Send(m)
			return m
		},
		"foreign": func(pod *gravbus.Pod, to gravbus.Message) gravbus.Message {
			m := &foreign{Message: gravbus.NewMsg("answer", nil)}
			pod.ReplyTo(to, m)
			return m
		},
	}
	waits := map[string]func(t *testing.T, pod *gravbus.Pod, r *gravbus.Receipt) (gravbus.Message, error){
		"Receipt.Wait": func(t *testing.T, _ *gravbus.Pod, r *gravbus.Receipt) (gravbus.Message, error) {
			return r.Wait(t.Context())
		},
		"Receipt.WaitOn": func(_ *testing.T, _ *gravbus.Pod, r *gravbus.Receipt) (got gravbus.Message, err error) {
			err = r.WaitOn(func(msg gravbus.Message) error { got = msg; return nil })
			return got, err
		},
		"Receipt.WaitUntil": func(_ *testing.T, _ *gravbus.Pod, r *gravbus.Receipt) (got gravbus.Message, err error) {
			err = r.WaitUntil(gravbus.Timeout(1), func(msg gravbus.Message) error { got = msg; return nil })
			return got, err
		},
		"Receipt.OnReply": func(t *testing.T, _ *gravbus.Pod, r *gravbus.Receipt) (gravbus.Message, error) {
			got := make(chan gravbus.Message, 1)
			must(t, r.OnReply(func(msg gravbus.Message) error { got <- msg; return nil }))
			return <-got, nil
		},
		"Pod.WaitOn": func(_ *testing.T, pod *gravbus.Pod, _ *gravbus.Receipt) (got gravbus.Message, err error) {
			err = pod.WaitUntil(gravbus.Timeout(1), func(msg gravbus.Message) error { got = msg; return nil })
			return got, err
		},
		"Pod.Wait": func(t *testing.T, pod *gravbus.Pod, _ *gravbus.Receipt) (gravbus.Message, error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return pod.Wait(ctx, "answer")
		},
	}
	for how, reply := range replies {
		for what, wait := range waits {
			for _, before := range []bool{true, false} {
				if strings.HasPrefix(what, "Pod.") && how != "ReplyTo" && before {
					continue // the pod does not know that it is for it: MaxUnclaimed is about replies that find their receipt
				}
				t.Run(fmt.Sprintf("%s/%s/before=%t", how, what, before), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						bus := testBus(t)
						pod, other := bus.Connect(), bus.Connect()
						var asked recorder
						must(t, other.OnType("ask", asked.handle))
						receipt := pod.Send(gravbus.NewMsg("ask", nil))
						var sent gravbus.Message
						answer := func() { sent = reply(other, asked.await(t, 1)[0]) }
						if before {
							answer()
							take(time.Hour)
						} else {
							time.AfterFunc(500*time.Millisecond, answer)
						}
						got, err := wait(t, pod, receipt)
						synctest.Wait()
						if err != nil || got == nil || got.UUID() != sent.UUID() || got.ReplyTo() != receipt.UUID() {
							t.Errorf("got %v, %v", got, err)
						}
					})
				})
			}
		}
	}
}

// Replies come in the order in which they were sent, each to one of those who wait on the receipt; what one does not want is there for the others.
func TestGuarantee7RepliesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, other := bus.Connect(), bus.Connect()
		msg := gravbus.NewMsg("ask", nil)
		receipt := pod.Send(msg)
		for i := range 6 {
			other.ReplyTo(msg, nth("answer", 0, i))
		}
		want := func(n int) gravbus.MsgFunc {
			return func(msg gravbus.Message) error {
				if _, i := numberOf(msg); i != n {
					return gravbus.ErrMsgNotWanted
				}
				return nil
			}
		}
		must(t, receipt.WaitOn(want(3)))
		must(t, receipt.WaitUntil(gravbus.Timeout(1), want(5)))
		if err := receipt.WaitUntil(gravbus.Timeout(1), want(3)); !errors.Is(err, gravbus.ErrWaitTimeout) {
			t.Errorf("a reply was taken twice: %v", err)
		}
		for _, n := range []int{0, 1, 2, 4} {
			reply, err := receipt.Wait(t.Context())
			must(t, err)
			if _, i := numberOf(reply); i != n {
				t.Errorf("reply %d, want %d", i, n)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := receipt.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait: %v", err)
		}
	})
}

// Many who wait on one receipt share its replies: none is lost and none is had by two.
func TestGuarantee7ManyWaitOnOneReceipt(t *testing.T) {
	const waiters, each = 10, 20
	bus := testBus(t)
	pod := bus.Connect()
	msg := gravbus.NewMsg("ask", nil)
	receipt := pod.Send(msg)
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	for i := range waiters {
		wg.Go(func() {
			for range each {
				if i%2 == 0 {
					reply, err := receipt.Wait(context.Background())
					mustToo(t, err)
					mu.Lock()
					seen[reply.UUID()]++
					mu.Unlock()
					continue
				}
				mustToo(t, receipt.WaitOn(func(reply gravbus.Message) error {
					mu.Lock()
					defer mu.Unlock()
					if seen[reply.UUID()] == 0 {
						seen[reply.UUID()]++
						return nil
					}
					return gravbus.ErrMsgNotWanted
				}))
			}
		})
	}
	for i := range 4 {
		other := bus.Connect()
		wg.Go(func() {
			for range waiters * each / 4 {
				reply := gravbus.NewMsg("answer", nil)
				if i%2 == 0 {
					other.ReplyTo(msg, reply)
				} else {
					reply.SetReplyTo(msg.UUID())
					other.Send(reply)
				}
			}
		})
	}
	within(t, patience, wg.Wait)
	if len(seen) != waiters*each {
		t.Errorf("%d different replies of %d", len(seen), waiters*each)
	}
}

// A thousand timeouts leave nothing: no goroutine, and no memory to speak of.
func TestGuarantee7TimeoutsLeakNothing(t *testing.T) {
	bus := testBus(t, gravbus.UseReplay(0))
	pod, sender := bus.Connect(), bus.Connect()
	must(t, pod.On(nop))
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round := func() {
		receipt := sender.Send(gravbus.NewMsg("a", nil))
		if err := pod.WaitUntil(gravbus.TimeoutAfter(time.Microsecond), notWanted); !errors.Is(err, gravbus.ErrWaitTimeout) {
			t.Fatal(err)
		}
		if err := receipt.WaitUntil(gravbus.TimeoutAfter(time.Microsecond), notWanted); !errors.Is(err, gravbus.ErrWaitTimeout) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
		defer cancel()
		if _, err := pod.Wait(ctx, "never"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if _, err := receipt.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	for range 100 {
		round()
	}
	goroutines, before := runtime.NumGoroutine(), heap()
	for range 1000 {
		round()
	}
	if after := heap(); after > before+256<<10 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	within(t, patience, func() {
		for runtime.NumGoroutine() > goroutines+1 { // and the one of within
			runtime.Gosched()
		}
	})
}

// Successful waits leave nothing either, the timer of a long timeout included.
func TestGuarantee7SuccessLeaksNothing(t *testing.T) {
	bus := testBus(t)
	pod := bus.Connect()
	other := bus.Connect()
	must(t, other.OnType("ask", func(msg gravbus.Message) error {
		other.ReplyTo(msg, gravbus.NewMsg("answer", nil))
		return nil
	}))
	goroutines := runtime.NumGoroutine()
	for range 1000 {
		must(t, pod.Send(gravbus.NewMsg("ask", nil)).WaitUntil(gravbus.Timeout(3600), nop))
	}
	within(t, patience, func() {
		for runtime.NumGoroutine() > goroutines+1 {
			runtime.Gosched()
		}
	})
}

// What a wait function does wrong comes back to who waits, and hurts nobody else.
func TestGuarantee7WaitFunctionsCannotHurt(t *testing.T) {
	for name, fn := range map[string]gravbus.MsgFunc{
		"panic":  func(gravbus.Message) error { panic("boom") },
		"Goexit": func(gravbus.Message) error { runtime.Goexit(); return nil },
	} {
		for _, what := range []string{"Pod", "Receipt", "early reply"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					pod, other := bus.Connect(), bus.Connect()
					msg := gravbus.NewMsg("ask", nil)
					receipt := pod.Send(msg)
					waited := make(chan error, 1)
					if what == "early reply" {
						other.ReplyTo(msg, gravbus.NewMsg("answer", nil))
					}
					go func() {
						if what == "Receipt" {
							waited <- receipt.WaitUntil(gravbus.Timeout(1), fn)
						} else {
							waited <- pod.WaitUntil(gravbus.Timeout(1), fn)
						}
					}()
					synctest.Wait()
					if what != "early reply" {
						other.ReplyTo(msg, gravbus.NewMsg("answer", nil))
					}
					var pe *gravbus.PanicError
					if err := <-waited; !errors.As(err, &pe) || len(pe.Stack) == 0 {
						t.Errorf("error %v", err)
					}
					// All goes on.
					other.ReplyTo(msg, gravbus.NewMsg("answer", nil))
					must(t, receipt.WaitUntil(gravbus.Timeout(1), nop))
				})
			})
		}
	}
}

// The pod, or the bus, goes: all waits end, and say why.
func TestGuarantee7WaitsEndWithThePod(t *testing.T) {
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			want := gravbus.ErrDisconnected
			if closes {
				want = gravbus.ErrClosed
			}
			bus := testBus(t)
			pod, other := bus.Connect(), bus.Connect()
			must(t, other.OnType("ask", nop))
			receipt := pod.Send(gravbus.NewMsg("lost", nil))
			waits := map[string]func() error{
				"WaitOn":            func() error { return pod.WaitOn(notWanted) },
				"WaitUntil":         func() error { return pod.WaitUntil(gravbus.Timeout(60), notWanted) },
				"Wait":              func() error { _, err := pod.Wait(t.Context()); return err },
				"Receipt.Wait":      func() error { _, err := receipt.Wait(t.Context()); return err },
				"Receipt.WaitOn":    func() error { return receipt.WaitOn(notWanted) },
				"Receipt.WaitUntil": func() error { return receipt.WaitUntil(gravbus.Timeout(60), notWanted) },
				"Request":           func() error { _, err := pod.Request(t.Context(), gravbus.NewMsg("ask", nil)); return err },
				"RequestAll": func() (last error) {
					for _, err := range pod.RequestAll(t.Context(), gravbus.NewMsg("ask", nil)) {
						last = err
					}
					return last
				},
				"Messages": func() error {
					for range pod.Messages(t.Context(), "never") {
					}
					return want
				},
			}
			var wg sync.WaitGroup
			for name, wait := range waits {
				wg.Go(func() {
					if err := wait(); !errors.Is(err, want) {
						t.Errorf("%s: %v, want %v", name, err, want)
					}
				})
			}
			synctest.Wait()
			if closes {
				bus.Close()
			} else {
				pod.Disconnect()
			}
			wg.Wait()
			for name, wait := range waits { // and those that begin now
				if err := wait(); !errors.Is(err, want) {
					t.Errorf("then %s: %v, want %v", name, err, want)
				}
			}
		})
	}
}

// OnReply goes on until it has what it wants, and waits for nothing.
func TestGuarantee7OnReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, other := bus.Connect(), bus.Connect()
		msg := gravbus.NewMsg("ask", nil)
		receipt := pod.Send(msg)
		var got recorder
		must(t, receipt.OnReply(func(msg gravbus.Message) error {
			got.handle(msg)
			if _, i := numberOf(msg); i < 4 {
				return gravbus.ErrMsgNotWanted
			}
			return nil
		}))
		for i := range 8 {
			if i%2 == 0 {
				other.ReplyTo(msg, nth("answer", 0, i))
			} else {
				m := nth("answer", 0, i)
				m.SetReplyTo(receipt.UUID())
				other.Send(m)
			}
			synctest.Wait()
		}
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, 4)) {
			t.Errorf("got %v", all)
		}
		// What it did not take is there for others: those it refused, and those that came later. (Those by UUID alone are in order
		// among themselves.)
		var rest []int
		for range 7 {
			reply, err := receipt.Wait(t.Context())
			must(t, err)
			_, i := numberOf(reply)
			rest = append(rest, i)
		}
		slices.Sort(rest)
		if !slices.Equal(rest, []int{0, 1, 2, 3, 5, 6, 7}) {
			t.Errorf("the rest is %v", rest)
		}
	})
}

// A nil receipt says so, a nil function too.
func TestGuarantee7NilReceipt(t *testing.T) {
	var r *gravbus.Receipt
	for name, err := range map[string]error{
		"WaitOn": r.WaitOn(nop), "WaitUntil": r.WaitUntil(gravbus.Timeout(1), nop), "OnReply": r.OnReply(nop),
		"Wait": func() error { _, err := r.Wait(t.Context()); return err }(),
	} {
		if !errors.Is(err, gravbus.ErrNoReceipt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r.UUID() != "" {
		t.Errorf("UUID %q", r.UUID())
	}
	bus := testBus(t)
	r = bus.Connect().Send(gravbus.NewMsg("a", nil))
	for name, err := range map[string]error{"WaitOn": r.WaitOn(nil), "WaitUntil": r.WaitUntil(nil, nil), "OnReply": r.OnReply(nil), "Pod.WaitOn": bus.Connect().WaitOn(nil)} {
		if !errors.Is(err, gravbus.ErrNilHandler) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Replies that nobody takes are bounded: the oldest go, and are counted.
func TestGuarantee7RepliesAreBounded(t *testing.T) {
	bus := testBus(t)
	pod, other := bus.Connect(), bus.Connect()
	msg := gravbus.NewMsg("ask", nil)
	receipt := pod.Send(msg)
	const more = 100
	for i := range gravbus.MaxReplies + more {
		other.ReplyTo(msg, nth("answer", 0, i))
	}
	if lost := bus.Stats().RepliesLost; lost != more {
		t.Errorf("%d lost", lost)
	}
	for i := range gravbus.MaxReplies {
		reply, err := receipt.Wait(t.Context())
		must(t, err)
		if _, n := numberOf(reply); n != i+more {
			t.Fatalf("reply %d, want %d", n, i+more)
		}
	}

	// By UUID alone.
	unknown := gravbus.NewMsg("ask", nil)
	for i := range gravbus.MaxParkedReplies + more {
		m := nth("answer", 0, i)
		m.SetReplyTo(unknown.UUID())
		other.Send(m)
	}
	if lost := bus.Stats().RepliesLost; lost != 2*more {
		t.Errorf("%d lost", lost)
	}
	receipt = pod.Send(unknown)
	reply, err := receipt.Wait(t.Context())
	must(t, err)
	if _, n := numberOf(reply); n < more {
		t.Errorf("reply %d", n)
	}
}

// Of replies to many messages those that nobody has asked for are kept for the pod's next wait, MaxUnclaimed of them; the receipts have all.
func TestGuarantee7UnclaimedReplies(t *testing.T) {
	bus := testBus(t)
	pod, other := bus.Connect(), bus.Connect()
	const n = 2 * gravbus.MaxUnclaimed
	var receipts []*gravbus.Receipt
	for i := range n {
		msg := gravbus.NewMsg("ask", nil)
		receipts = append(receipts, pod.Send(msg))
		other.ReplyTo(msg, nth("answer", 0, i))
	}
	for i := range 3 { // taken by their receipts: not offered again
		_, err := receipts[n-1-i].Wait(t.Context())
		must(t, err)
	}
	var seen recorder
	err := pod.WaitUntil(gravbus.TimeoutAfter(patience), func(msg gravbus.Message) error {
		seen.handle(msg)
		if _, i := numberOf(msg); i < n-10 {
			return gravbus.ErrMsgNotWanted
		}
		return nil
	})
	must(t, err)
	if got := numbers(t, seen.all()); !slices.Equal(got, span(n-gravbus.MaxUnclaimed, n-10)) {
		t.Errorf("offered %v", got)
	}
	for i, r := range receipts {
		if i == n-10 || i >= n-3 {
			continue // taken
		}
		if _, err := r.Wait(t.Context()); err != nil {
			t.Errorf("receipt %d: %v", i, err)
		}
	}
}

// Wait returns the next message of the types it is asked for, whatever the pod listens to.
func TestGuarantee7Wait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, sender := bus.Connect(), bus.Connect()
		for _, c := range []struct {
			patterns []string
			want     int
		}{{nil, 0}, {[]string{"b"}, 1}, {[]string{"c.*", "b.x"}, 2}, {[]string{"c.>"}, 2}} {
			type result struct {
				msg gravbus.Message
				err error
			}
			got := make(chan result, 1)
			go func() {
				msg, err := pod.Wait(t.Context(), c.patterns...)
				got <- result{msg, err}
			}()
			synctest.Wait()
			for i, typ := range []string{"a", "b", "c.x", "c.y"} {
				sender.Send(nth(typ, 0, i))
			}
			r := <-got
			must(t, r.err)
			if _, i := numberOf(r.msg); i != c.want {
				t.Errorf("%v: message %d", c.patterns, i)
			}
		}
		if _, err := pod.Wait(t.Context(), "a..b"); !errors.Is(err, gravbus.ErrInvalidPattern) {
			t.Errorf("error %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := pod.Wait(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}

// A Messages loop misses nothing between its rounds, makes senders wait when it is slow, and leaves nothing when it is left.
func TestGuarantee7Messages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, sender := bus.Connect(gravbus.Mailbox(4)), bus.Connect()
		var got []int
		done := make(chan struct{})
		go func() {
			defer close(done)
			for msg := range pod.Messages(t.Context(), "a") {
				take(100 * time.Millisecond)
				_, i := numberOf(msg)
				if got = append(got, i); i == 99 {
					break
				}
			}
		}()
		synctest.Wait()
		began := time.Now()
		for i := range 120 {
			sender.Send(nth("b", 0, i))
			sender.Send(nth("a", 0, i))
			pod.Send(nth("a", 0, 1000+i))
		}
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("sending took %v", took)
		}
		awaitDone(t, patience, done)
		if !slices.Equal(got, span(0, 99)) {
			t.Errorf("got %v", got)
		}
		if _, err := sender.Request(t.Context(), nth("a", 0, 0)); !errors.Is(err, gravbus.ErrNoResponders) {
			t.Errorf("the loop was left, and a request finds it: %v", err)
		}
	})
}

// A wait of a pod takes a reply once, whether it came before or meanwhile, and leaves the others to
// the pod's next waits.
func TestGuarantee7WaitsTakeReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		other := bus.Connect()
		must(t, other.OnType("ask.*", func(msg gravbus.Message) error {
			if msg.Type() == "ask.late" {
				time.Sleep(time.Second)
			}
			_, i := numberOf(msg)
			other.ReplyTo(msg, nth("answer", 0, i))
			return nil
		}))
		take := map[string]func(pod *gravbus.Pod) (gravbus.Message, error){
			"Wait": func(pod *gravbus.Pod) (gravbus.Message, error) { return pod.Wait(t.Context()) },
			"WaitUntil": func(pod *gravbus.Pod) (got gravbus.Message, err error) {
				err = pod.WaitUntil(gravbus.Timeout(5), func(msg gravbus.Message) error { got = msg; return nil })
				return got, err
			},
			"Messages": func(pod *gravbus.Pod) (gravbus.Message, error) {
				for msg := range pod.Messages(t.Context(), "answer") {
					return msg, nil
				}
				return nil, errors.New("ended")
			},
		}
		for name, one := range take {
			pod := bus.Connect()
			expect := func(i int) {
				t.Helper()
				msg, err := one(pod)
				if err != nil {
					t.Errorf("%s: instead of reply %d: %v", name, i, err)
				} else if _, got := numberOf(msg); got != i {
					t.Errorf("%s: reply %d, want %d", name, got, i)
				}
			}
			for i := range 5 {
				pod.Send(nth("ask.late", 0, i))
				expect(i)
			}
			if name == "Messages" {
				continue // it begins with what comes
			}
			for i := range 5 {
				pod.Send(nth("ask.now", 0, i))
			}
			synctest.Wait()
			for i := range 5 {
				expect(i)
			}
			for i := range 3 { // the next to last, then the others
				pod.Send(nth("ask.now", 0, i))
			}
			pod.Send(nth("ask.late", 0, 3))
			must(t, pod.WaitUntil(gravbus.Timeout(5), func(msg gravbus.Message) error {
				if _, i := numberOf(msg); i != 3 {
					return gravbus.ErrMsgNotWanted
				}
				return nil
			}))
			for i := range 3 {
				expect(i)
			}
		}
	})
}
