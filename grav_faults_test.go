package gravbus_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// One test for each fault of Grav that was proved. Faults of its mesh have theirs with the mesh.

// faultHeap returns the bytes of living objects.
func faultHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // twice: pools and finalizers need the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Fault 1: every Send adds the UUID to a filter map for ever. A design with that fault keeps at least 16 bytes a message: 16 MB here.
func TestGravFault1FilterMapGrows(t *testing.T) {
	watchdog(t, time.Minute)
	bus := gravbus.New(gravbus.UseReplay(16))
	defer bus.Close()
	sender, receiver := bus.Connect(), bus.Connect()
	if err := receiver.On(nop); err != nil {
		t.Fatal(err)
	}
	n := fewer(1_000_000, 10)
	send := func(n int) {
		for range n {
			sender.Send(gravbus.NewMsg("x", nil))
		}
	}
	send(10_000) // rings and pools have their size now
	before := faultHeap()
	send(n)
	if grown := faultHeap() - before; grown > int64(n)*4 {
		t.Errorf("%d messages made the heap grow by %d bytes", n, grown)
	}
}

// Fault 2: two goroutines per message per pod. A design with that fault delivers one sender's messages in the order in which goroutines happen to run,
// and has a goroutine for every message that a stuck pod has not handled.
func TestGravFault2OutOfOrderAndGoroutinesWithoutEnd(t *testing.T) {
	watchdog(t, time.Minute)
	bus := gravbus.New(quiet())
	sender, receiver, stuck := bus.Connect(), bus.Connect(), bus.Connect(gravbus.Overflow(gravbus.DropOldest), gravbus.Mailbox(8))
	gate := make(chan struct{})
	next, n := 0, fewer(100_000, 10)
	err := errors.Join(
		gravbus.On(receiver, "x", func(_ context.Context, i int) error {
			if i != next {
				t.Errorf("%d came after %d", i, next-1)
			}
			next = i + 1
			return nil
		}),
		stuck.OnType("x", func(gravbus.Message) error { <-gate; return nil }))
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	for i := range n {
		sender.Send(gravbus.NewTyped("x", i))
		if now := runtime.NumGoroutine(); now > before+100 { // the runtime counts in steps of 32
			t.Fatalf("%d goroutines after %d messages, %d before", now, i+1, before)
		}
	}
	close(gate)
	if err := bus.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if next != n {
		t.Errorf("%d of %d messages", next, n)
	}
}

// Fault 3: a reply that arrives between Send and the wait is lost. A design with that fault waits for ever here: all replies are there before the waits begin.
func TestGravFault3ReplyBeforeWaitIsLost(t *testing.T) {
	watchdog(t, time.Minute)
	reply := errors.New("the reply")
	got := func(gravbus.Message) error { return reply }
	waits := map[string]func(*gravbus.Pod, *gravbus.Receipt) error{
		"Receipt.Wait": func(_ *gravbus.Pod, r *gravbus.Receipt) error {
			if msg, err := r.Wait(context.Background()); err != nil || msg.Type() != "pong" {
				return err
			}
			return reply
		},
		"Receipt.WaitOn":    func(_ *gravbus.Pod, r *gravbus.Receipt) error { return r.WaitOn(got) },
		"Receipt.WaitUntil": func(_ *gravbus.Pod, r *gravbus.Receipt) error { return r.WaitUntil(gravbus.Timeout(1), got) },
		"Receipt.OnReply": func(_ *gravbus.Pod, r *gravbus.Receipt) error {
			result := make(chan error, 1)
			err := r.OnReply(func(gravbus.Message) error { result <- reply; return nil })
			return errors.Join(err, <-result)
		},
		"Pod.WaitOn":    func(p *gravbus.Pod, _ *gravbus.Receipt) error { return p.WaitOn(got) },
		"Pod.WaitUntil": func(p *gravbus.Pod, _ *gravbus.Receipt) error { return p.WaitUntil(gravbus.Timeout(1), got) },
		"Pod.Wait": func(p *gravbus.Pod, _ *gravbus.Receipt) error {
			if msg, err := p.Wait(context.Background(), "pong"); err != nil || msg.Type() != "pong" {
				return err
			}
			return reply
		},
	}
	for name, wait := range waits {
		for _, later := range []time.Duration{0, 50 * time.Millisecond, time.Hour} {
			t.Run(name+"/"+later.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := gravbus.New()
					defer bus.Close()
					asking, answering := bus.Connect(), bus.Connect()
					err := answering.OnType("ping", func(m gravbus.Message) error {
						answering.ReplyTo(m, gravbus.NewMsg("pong", nil))
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
					r := asking.Send(gravbus.NewMsg("ping", nil))
					synctest.Wait() // the reply has come
					<-time.After(later)
					if err := wait(asking, r); !errors.Is(err, reply) {
						t.Errorf("got %v", err)
					}
				})
			})
		}
	}
}

// Fault 4: WaitUntil deadlocks when the match arrives at the timeout, or when two messages match. A design with that fault leaves a goroutine that can never
// end, which a bubble finds, or hangs.
func TestGravFault4WaitUntilDeadlocks(t *testing.T) {
	watchdog(t, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New()
		defer bus.Close()
		sender, waiting := bus.Connect(), bus.Connect()
		found := errors.New("found")
		results := map[error]int{}
		for range fewer(2000, 10) {
			// Both timers fire at the same instant.
			time.AfterFunc(time.Second, func() { sender.Send(gravbus.NewMsg("x", nil)) })
			start := time.Now()
			results[waiting.WaitUntil(gravbus.Timeout(1), func(gravbus.Message) error { return found })]++
			if d := time.Since(start); d != time.Second {
				t.Fatalf("returned after %v", d)
			}
			synctest.Wait()
		}
		if n := results[found] + results[gravbus.ErrWaitTimeout]; len(results) > 2 || n != fewer(2000, 10) {
			t.Errorf("%v", results)
		}
		for range 100 {
			calls := atomic.Int64{}
			time.AfterFunc(time.Millisecond, func() {
				for range 5 {
					sender.Send(gravbus.NewMsg("y", nil))
				}
			})
			err := waiting.WaitUntil(nil, func(m gravbus.Message) error {
				if m.Type() != "y" {
					return gravbus.ErrMsgNotWanted
				}
				calls.Add(1)
				return found
			})
			synctest.Wait()
			if !errors.Is(err, found) || calls.Load() != 1 {
				t.Fatalf("%v, %d calls", err, calls.Load())
			}
		}
	})
}

// Fault 5: waiting erases the pod's function and its filters, and setting the function after Send makes the pod hear itself. A design with that fault counts other
// messages here.
func TestGravFault5WaitingErasesOnAndFilters(t *testing.T) {
	watchdog(t, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New()
		defer bus.Close()
		sender, pod := bus.Connect(), bus.Connect()
		var got []string
		handler := func(m gravbus.Message) error { got = append(got, m.Type()); return nil }
		refused := gravbus.NewMsg("refused.by.uuid", nil)
		pod.FilterUUID(refused.UUID(), false)
		if err := errors.Join(pod.On(handler), pod.FilterType("refused.by.type", false)); err != nil {
			t.Fatal(err)
		}
		if err := pod.WaitUntil(gravbus.Timeout(1), handler); !errors.Is(err, gravbus.ErrWaitTimeout) {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { sender.Send(gravbus.NewMsg("match", nil)) })
		if err := pod.WaitOn(nop); err != nil {
			t.Fatal(err)
		}
		receipt := pod.Send(gravbus.NewMsg("own", nil))
		if err := receipt.WaitUntil(gravbus.Timeout(1), handler); !errors.Is(err, gravbus.ErrWaitTimeout) {
			t.Fatal(err)
		}
		sender.Send(refused)
		sender.Send(gravbus.NewMsg("refused.by.type", nil))
		sender.Send(gravbus.NewMsg("wanted", nil))
		pod.Send(gravbus.NewMsg("own", nil))
		if err := pod.On(handler); err != nil {
			t.Fatal(err)
		}
		pod.Send(gravbus.NewMsg("own", nil))
		sender.Send(gravbus.NewMsg("last", nil))
		synctest.Wait()
		if want := []string{"match", "wanted", "last"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Fault 6: replay needs later traffic to begin, and the same message pushed twice makes it yield nil and crash. A design with that fault has delivered nothing
// when the bubble is idle, or panics.
func TestGravFault6ReplayNeedsTraffic(t *testing.T) {
	watchdog(t, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New(gravbus.UseReplay(4))
		defer bus.Close()
		sender := bus.Connect()
		twice := gravbus.NewMsg("twice", nil)
		for _, m := range []gravbus.Message{gravbus.NewMsg("gone", nil), twice, gravbus.NewMsg("a", nil), twice, gravbus.NewMsg("b", nil)} {
			if sender.Send(m) == nil {
				t.Fatal("not sent")
			}
		}
		var got []string
		err := bus.ConnectWithReplay().On(func(m gravbus.Message) error { got = append(got, m.Type()); return nil })
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if want := []string{"twice", "a", "twice", "b"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	buffer := gravbus.NewBuffer(2)
	twice := gravbus.NewMsg("twice", nil)
	for range 5 {
		if err := buffer.Push(twice); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if buffer.Next() != twice {
			t.Error("Next did not return the message")
		}
	}
}

// Fault 7: a handler error together with Disconnect loses the disconnect; 1,000 slow messages make On and Disconnect hang. A design with that fault goes on to call
// the handler, or takes the messages' 1,000 seconds for the calls.
func TestGravFault7DisconnectIsLostOrHangs(t *testing.T) {
	watchdog(t, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New(quiet())
		defer bus.Close()
		sender, pod := bus.Connect(), bus.Connect()
		calls := 0
		if err := pod.On(func(gravbus.Message) error { calls++; pod.Disconnect(); return errors.New("failed") }); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			sender.Send(gravbus.NewMsg("x", nil))
		}
		synctest.Wait()
		if err := pod.On(nil); calls != 1 || !errors.Is(err, gravbus.ErrDisconnected) {
			t.Errorf("%d calls; then On returned %v", calls, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New()
		defer bus.Close()
		sender, pod := bus.Connect(), bus.Connect(gravbus.Mailbox(2000))
		calls := 0
		slow := func(gravbus.Message) error { calls++; <-time.After(time.Second); return nil }
		if err := pod.On(slow); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			sender.Send(gravbus.NewMsg("x", nil))
		}
		synctest.Wait()
		start := time.Now()
		if err := errors.Join(pod.On(nil), pod.On(slow), pod.OnType("x", slow)); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("On took %v", d)
		}
		pod.Disconnect()
		if d := time.Since(start); d > time.Second {
			t.Errorf("Disconnect took %v, longer than one call", d)
		}
		before := calls
		<-time.After(time.Hour)
		if calls != before {
			t.Errorf("%d calls after Disconnect", calls-before)
		}
	})
}

// Fault 8: a panic in a handler ends the process, and stopping stops nothing: goroutines stay. A design with that fault does not survive the test, or leaves
// the bubble with goroutines.
func TestGravFault8PanicEndsProcessAndStopStopsNothing(t *testing.T) {
	watchdog(t, time.Minute)
	for _, end := range []string{"Close", "Shutdown"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := gravbus.New(quiet())
				sender := bus.Connect()
				fine := 0
				for i := range 10 {
					pod := bus.Connect()
					err := pod.On(func(m gravbus.Message) error {
						if string(m.Data()) == strconv.Itoa(i) {
							panic("handler " + strconv.Itoa(i))
						}
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				if err := bus.Connect().On(func(gravbus.Message) error { fine++; return nil }); err != nil {
					t.Fatal(err)
				}
				receipt := sender.Send(gravbus.NewMsg("x", nil))
				panics := receipt.OnReply(func(gravbus.Message) error { panic("reply function") })
				for i := range 10 {
					sender.Send(gravbus.NewMsg("x", []byte(strconv.Itoa(i))))
				}
				time.AfterFunc(time.Second, func() { bus.Connect().Send(gravbus.NewMsgReplyTo(receipt, "y", nil)) })
				err := bus.Connect().WaitOn(func(gravbus.Message) error { panic("wait function") })
				var panicked *gravbus.PanicError
				if !errors.As(err, &panicked) || panicked.Value != "wait function" || panics != nil {
					t.Errorf("WaitOn: %v; OnReply: %v", err, panics)
				}
				synctest.Wait()
				kept := 0
				for _, p := range bus.Stats().Pods {
					kept += p.Kept
				}
				if kept != 10 || fine != 12 {
					t.Errorf("%d panics, want 10; the pod without got %d, want 12", kept, fine)
				}
				if end == "Close" {
					err = bus.Close()
				} else {
					err = bus.Shutdown(context.Background())
				}
				if err != nil {
					t.Error(err)
				}
				// The bubble ends only when all its goroutines have.
			})
		})
	}
}

// Fault 9: each successful wait with a timeout leaks a goroutine; timeouts are whole seconds only; no context anywhere. A design with that fault has 1,000 goroutines
// more, and does not compile here.
func TestGravFault9WaitsLeakAndKnowNoContext(t *testing.T) {
	watchdog(t, time.Minute)
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New()
		defer bus.Close()
		asking, answering := bus.Connect(), bus.Connect()
		err := answering.OnType("ping", func(m gravbus.Message) error { answering.ReplyTo(m, gravbus.NewMsg("pong", nil)); return nil })
		if err != nil {
			t.Fatal(err)
		}
		before := runtime.NumGoroutine()
		for range 1000 {
			if err := asking.Send(gravbus.NewMsg("ping", nil)).WaitUntil(gravbus.Timeout(3600), nop); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(time.Second, func() { answering.Send(gravbus.NewMsg("x", nil)) })
			if err := asking.WaitUntil(gravbus.Timeout(3600), nop); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if now := runtime.NumGoroutine(); now > before+100 {
			t.Errorf("%d goroutines, %d before", now, before)
		}

		receipt := asking.Send(gravbus.NewMsg("nobody", nil))
		for _, d := range []time.Duration{time.Nanosecond, 1500 * time.Millisecond, 30 * time.Hour} {
			timed := func(what string, want error, wait func(context.Context) error) {
				t.Helper()
				ctx, cancel := context.WithTimeout(context.Background(), d)
				defer cancel()
				start := time.Now()
				if err := wait(ctx); !errors.Is(err, want) || time.Since(start) != d {
					t.Errorf("%s: %v after %v, want %v after %v", what, err, time.Since(start), want, d)
				}
			}
			never := func(gravbus.Message) error { return gravbus.ErrMsgNotWanted }
			timed("Pod.WaitUntil", gravbus.ErrWaitTimeout, func(context.Context) error { return asking.WaitUntil(gravbus.TimeoutAfter(d), never) })
			timed("Receipt.WaitUntil", gravbus.ErrWaitTimeout, func(context.Context) error { return receipt.WaitUntil(gravbus.TimeoutAfter(d), never) })
			timed("Pod.Wait", context.DeadlineExceeded, func(ctx context.Context) error { _, err := asking.Wait(ctx); return err })
			timed("Receipt.Wait", context.DeadlineExceeded, func(ctx context.Context) error { _, err := receipt.Wait(ctx); return err })
			timed("Messages", nil, func(ctx context.Context) error {
				for range asking.Messages(ctx) {
					t.Error("a message")
				}
				return nil
			})
		}
		silent := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block))
		gate := make(chan struct{})
		defer close(gate)
		if err := silent.OnType("silent", func(gravbus.Message) error { <-gate; return nil }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := asking.Request(ctx, gravbus.NewMsg("silent", nil)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Request: %v", err)
		}
		asking.Send(gravbus.NewMsg("silent", nil))
		if _, err := asking.SendContext(ctx, gravbus.NewMsg("silent", nil)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("SendContext: %v", err)
		}
	})
}

// Fault 10: calling On from inside a handler deadlocks; Send races with On; SetReplyTo after Send races with readers. A design with that fault hangs, or the
// race detector finds it.
func TestGravFault10OnInsideHandlerAndRaces(t *testing.T) {
	watchdog(t, time.Minute)
	t.Run("On inside", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := gravbus.New()
			defer bus.Close()
			sender, pod := bus.Connect(), bus.Connect()
			var got []string
			second := func(m gravbus.Message) error { got = append(got, "second "+m.Type()); return nil }
			first := func(m gravbus.Message) error {
				got = append(got, "first "+m.Type())
				return errors.Join(pod.On(second), pod.OnType("b", second), pod.FilterType("c", true))
			}
			if err := pod.On(first); err != nil {
				t.Fatal(err)
			}
			for _, typ := range []string{"a", "b", "c", "d"} {
				sender.Send(gravbus.NewMsg(typ, nil))
			}
			synctest.Wait()
			if want := []string{"first a", "second b", "second c"}; !slices.Equal(got, want) {
				// c was sent before it was allowed: it may have been discarded with d.
				if !slices.Equal(got, want[:2]) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	})
	t.Run("races", func(t *testing.T) {
		bus := gravbus.New(quiet())
		var got atomic.Int64
		read := func(m gravbus.Message) error {
			got.Add(1)
			_, err := m.Marshal()
			if m.ReplyTo() != "" {
				t.Error("SetReplyTo changed a message that was sent")
			}
			return err
		}
		var wg sync.WaitGroup
		pods := make([]*gravbus.Pod, 4)
		for i := range pods {
			pods[i] = bus.Connect()
		}
		for _, pod := range pods {
			wg.Go(func() {
				for i := range 500 {
					var err error
					switch i % 3 {
					case 0:
						err = pod.On(read)
					case 1:
						err = pod.OnType("x.*", read)
					default:
						err = pod.FilterType("y", i%2 == 0)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				for range 500 {
					m := gravbus.NewMsg("x.y", []byte("data"))
					pod.Send(m)
					m.SetReplyTo("0198f000-0000-7000-8000-000000000000")
				}
			})
		}
		wg.Wait()
		if err := bus.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got.Load() == 0 {
			t.Error("nothing was received")
		}
	})
}
