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

	"github.com/gravbus/gravbus"
)

var errHandler = errors.New("the handler does not like it")

// deadLetters returns the dead letters among events.
func deadLetters(t testing.TB, events *recorder) (letters []gravbus.DeadLetter) {
	t.Helper()
	for _, msg := range events.all() {
		if msg.Type() == gravbus.EventDeadLetter {
			letter, err := gravbus.Decode[gravbus.DeadLetter](msg)
			must(t, err)
			letters = append(letters, letter)
		}
	}
	return letters
}

// typesOf returns the types of the messages.
func typesOf(msgs []gravbus.Message) (types []string) {
	for _, msg := range msgs {
		types = append(types, msg.Type())
	}
	return types
}

// Whatever a handler does, the pod goes on with the next message, and the one it failed on comes again.
func TestGuarantee6HandlersCannotHurt(t *testing.T) {
	for _, c := range []struct {
		name   string
		fail   func() error
		panics bool
		says   string
	}{
		{"error", func() error { return errHandler }, false, errHandler.Error()},
		{"panic", func() error { panic("boom") }, true, "boom"},
		{"panic with an error", func() error { panic(errHandler) }, true, errHandler.Error()},
		{"nil dereference", func() error { var p *int; *p = 1; return nil }, true, "nil pointer"},
		{"panic(nil)", func() error { panic(nil) }, true, "nil"},
		{"Goexit", func() error { runtime.Goexit(); return nil }, true, "Goexit"},
	} {
		for _, opts := range [][]gravbus.PodOption{nil, {gravbus.Mailbox(1)}, {gravbus.Concurrency(3)}, {gravbus.InGroup("g")}, {gravbus.Overflow(gravbus.Block)}} {
			t.Run(fmt.Sprintf("%s/%d", c.name, len(opts)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					var events recorder
					must(t, bus.Connect().OnType("gravbus.>", events.handle))
					var mu sync.Mutex
					var tries []int
					failed := false
					hold := make(chan struct{})
					pod := bus.Connect(append(opts, gravbus.Name("victim"))...)
					must(t, pod.On(func(msg gravbus.Message) error {
						<-hold
						_, i := numberOf(msg)
						mu.Lock()
						tries = append(tries, i)
						fail := i == 3 && !failed
						failed = failed || fail
						mu.Unlock()
						if fail {
							return c.fail()
						}
						return nil
					}))
					sender := bus.Connect()
					go func() {
						for i := range 10 {
							sender.Send(nth("a.b", 0, i))
						}
					}()
					synctest.Wait()
					close(hold)
					synctest.Wait()
					sender.Send(nth("a.b", 0, 10)) // with Concurrency all others may have succeeded before 3 failed
					synctest.Wait()
					if s := pod.Stats(); s.Delivered != 11 || s.Failed != 1 || s.Kept != 0 || s.DeadLetters != 0 || s.Panics != map[bool]uint64{true: 1}[c.panics] {
						t.Errorf("stats %+v", s)
					}
					slices.Sort(tries)
					if want := []int{0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(tries, want) {
						t.Errorf("handled %v", tries)
					}
					reported := 0
					for _, msg := range events.all() {
						if msg.Type() != gravbus.EventPodPanic {
							t.Errorf("event %s", msg.Type())
							continue
						}
						reported++
						e, err := gravbus.Decode[gravbus.PodEvent](msg)
						if err != nil || e.Pod != "victim" || e.Type != "a.b" || e.UUID == "" || !strings.Contains(e.Error, c.says) {
							t.Errorf("event %+v, %v", e, err)
						}
						if !strings.Contains(e.Stack, "failure_test.go") {
							t.Errorf("the stack does not lead to the handler:\n%s", e.Stack)
						}
					}
					if c.panics != (reported == 1) {
						t.Errorf("%d panics reported", reported)
					}
				})
			})
		}
	}
}

// Every single message makes the handler fail, in every way, and nothing is lost by it.
func TestGuarantee6EveryMessageFailsOnce(t *testing.T) {
	const senders, n = 2, 500
	for _, mailbox := range []int{1, 16, 1024} {
		t.Run(fmt.Sprint("mailbox=", mailbox), func(t *testing.T) {
			bus := testBus(t)
			var mu sync.Mutex
			tries := map[string]int{}
			done, left := make(chan struct{}), senders*n
			pod := bus.Connect(gravbus.Mailbox(mailbox), gravbus.MaxFailures(10*senders*n))
			must(t, pod.OnType("a", func(msg gravbus.Message) error {
				if msg.Type() == "ok" {
					return nil
				}
				mu.Lock()
				tries[msg.UUID()]++
				again := tries[msg.UUID()] > 1
				if again {
					if left--; left == 0 {
						close(done)
					}
				}
				mu.Unlock()
				if again {
					return nil
				}
				switch _, i := numberOf(msg); i % 3 {
				case 0:
					panic("boom")
				case 1:
					runtime.Goexit()
				}
				return errHandler
			}, "ok"))
			sendAll(t, bus, senders, n, "a")
			// All first attempts fail; a success brings back the others.
			bus.Connect().Send(gravbus.NewMsg("ok", nil))
			awaitDone(t, patience, done)
			must(t, bus.Shutdown(t.Context()))
			for id, n := range tries {
				if n != 2 {
					t.Errorf("%s was tried %d times", id, n)
				}
			}
			if s := bus.Stats(); s.Failed != senders*n || s.Delivered != senders*n+1 || s.DeadLetters != 0 || s.Dropped != 0 {
				t.Errorf("stats %+v, %d kinds", s, len(tries))
			}
		})
	}
}

// Failures come again, oldest first, when a message succeeds, until one fails again; that one stays the oldest.
func TestGuarantee6RedeliveryOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var tries []int
		bad := map[int]int{1: 1, 2: 1, 3: 2, 4: 1, 7: 3} // how often each fails
		pod := bus.Connect()
		must(t, pod.On(func(msg gravbus.Message) error {
			_, i := numberOf(msg)
			tries = append(tries, i)
			if bad[i] > 0 {
				bad[i]--
				return errHandler
			}
			return nil
		}))
		sender := bus.Connect()
		for i := range 11 {
			sender.Send(nth("a", 0, i))
			synctest.Wait()
		}
		// 5 succeeds: 1, 2 come again and succeed, 3 fails for the second time. 6: 3, 4. 7 fails. 8, 9: 7 again and again.
		if want := []int{0, 1, 2, 3, 4, 5, 1, 2, 3, 6, 3, 4, 7, 8, 7, 9, 7, 10, 7}; !slices.Equal(tries, want) {
			t.Errorf("handled %v, want %v", tries, want)
		}
		if s := pod.Stats(); s.Kept != 0 || s.Delivered != 11 || s.Failed != 8 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A success brings back what failed even if the message that succeeds is a notice, or the wait for it was long.
func TestGuarantee6ErrMsgNotWantedIsSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod := bus.Connect()
		n := 0
		must(t, pod.On(func(gravbus.Message) error {
			if n++; n == 1 {
				return errHandler
			}
			return fmt.Errorf("no, thanks: %w", gravbus.ErrMsgNotWanted)
		}))
		sender := bus.Connect()
		sender.Send(nth("a", 0, 0))
		sender.Send(nth("a", 0, 1))
		synctest.Wait()
		if s := pod.Stats(); n != 3 || s.Failed != 1 || s.Delivered != 2 || s.Kept != 0 {
			t.Errorf("%d calls, stats %+v", n, s)
		}
	})
}

// What failed and is not wanted any more, after a change of what the pod listens to, does not come again.
func TestGuarantee6RedeliveryObeysInterest(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*gravbus.Pod, gravbus.MsgFunc, gravbus.Message) error
	}{
		{"OnType", func(p *gravbus.Pod, fn gravbus.MsgFunc, _ gravbus.Message) error { return p.OnType("good", fn) }},
		{"FilterType", func(p *gravbus.Pod, _ gravbus.MsgFunc, _ gravbus.Message) error { return p.FilterType("bad", false) }},
		{"FilterUUID", func(p *gravbus.Pod, _ gravbus.MsgFunc, msg gravbus.Message) error {
			p.FilterUUID(msg.UUID(), false)
			return nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				var got recorder
				fail := true
				handle := func(msg gravbus.Message) error {
					got.handle(msg)
					if fail {
						return errHandler
					}
					return nil
				}
				pod := bus.Connect()
				must(t, pod.On(handle))
				sender := bus.Connect()
				bad := gravbus.NewMsg("bad", nil)
				sender.Send(bad)
				synctest.Wait()
				must(t, c.change(pod, handle, bad))
				fail = false
				sender.Send(gravbus.NewMsg("good", nil))
				synctest.Wait()
				if types := typesOf(got.all()); !slices.Equal(types, []string{"bad", "good"}) {
					t.Errorf("handled %v", types)
				}
			})
		})
	}
}

// With 64 failures the pod is disconnected, and all that it held goes out as dead letters: each message once.
func TestGuarantee6TooManyFailures(t *testing.T) {
	for _, c := range []struct {
		name string
		max  int
		opts []gravbus.PodOption
	}{
		{"default", gravbus.DefaultMaxFailures, nil},
		{"one", 1, []gravbus.PodOption{gravbus.MaxFailures(1)}},
		{"ten", 10, []gravbus.PodOption{gravbus.MaxFailures(10)}},
		{"small mailbox", 64, []gravbus.PodOption{gravbus.Mailbox(200)}},
		{"private", 64, []gravbus.PodOption{gravbus.Overflow(gravbus.Block)}},
		{"last of a group", 64, []gravbus.PodOption{gravbus.InGroup("g")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const more = 50
				bus := testBus(t)
				var events recorder
				must(t, bus.Connect(gravbus.Mailbox(5000)).OnType("gravbus.>", events.handle))
				hold := make(chan struct{})
				pod := bus.Connect(append(c.opts, gravbus.Name("failing"))...)
				calls := 0
				must(t, pod.On(func(gravbus.Message) error {
					if calls++; calls == 1 {
						<-hold
					}
					return errHandler
				}))
				sender := bus.Connect()
				for i := range c.max + more {
					sender.Send(nth("a", 0, i))
				}
				waiting := make(chan error, 1)
				go func() { waiting <- pod.WaitOn(func(gravbus.Message) error { return gravbus.ErrMsgNotWanted }) }()
				synctest.Wait()
				close(hold)
				synctest.Wait()
				if calls != c.max {
					t.Errorf("%d calls", calls)
				}
				if err := pod.On(nop); !errors.Is(err, gravbus.ErrDisconnected) {
					t.Errorf("On: %v", err)
				}
				if err := awaitDone(t, patience, waiting); !errors.Is(err, gravbus.ErrDisconnected) {
					t.Errorf("WaitOn: %v", err)
				}
				if _, err := pod.SendContext(t.Context(), gravbus.NewMsg("a", nil)); !errors.Is(err, gravbus.ErrDisconnected) {
					t.Errorf("Send: %v", err)
				}
				seen := map[int]int{}
				for _, letter := range deadLetters(t, &events) {
					_, i := numberOf(letter.Message)
					seen[i]++
					want := gravbus.DeadLetter{Pod: "failing", Message: letter.Message, Attempts: 1, Error: errHandler.Error(), Time: letter.Time}
					if i >= c.max {
						want.Attempts, want.Error = 0, letter.Error
					}
					if letter != want || letter.Time.IsZero() || letter.Error == "" {
						t.Errorf("letter %+v, want %+v", letter, want)
					}
				}
				for i := range c.max + more {
					if seen[i] != 1 {
						t.Errorf("%d dead letters of message %d", seen[i], i)
					}
				}
				failed := 0
				for _, msg := range events.all() {
					if msg.Type() == gravbus.EventPodFailed {
						failed++
						if e, err := gravbus.Decode[gravbus.PodEvent](msg); err != nil || e.Pod != "failing" || e.Error != errHandler.Error() || e.Type != "a" {
							t.Errorf("event %+v, %v", e, err)
						}
					}
				}
				if s := bus.Stats(); failed != 1 || s.DeadLetters != uint64(c.max+more) || s.Failed != uint64(c.max) || len(s.Pods) != 2 {
					t.Errorf("%d events, stats %+v", failed, s)
				}
			})
		})
	}
}

// However the handler failed for the last time, what the pod has in hand becomes dead letters with the rest.
func TestGuarantee6TooManyFailuresWithMoreInHand(t *testing.T) {
	for how, fail := range map[string]gravbus.MsgFunc{
		"error":  func(gravbus.Message) error { return errHandler },
		"panic":  func(gravbus.Message) error { panic("boom") },
		"Goexit": func(gravbus.Message) error { runtime.Goexit(); return nil },
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 10
				bus := testBus(t)
				var events recorder
				must(t, bus.Connect().OnType(gravbus.EventDeadLetter, events.handle))
				pod, sender := bus.Connect(gravbus.MaxFailures(1)), bus.Connect()
				hold := make(chan struct{})
				calls := 0
				must(t, pod.On(func(msg gravbus.Message) error {
					if calls++; calls == 1 {
						<-hold
						return nil
					}
					return fail(msg)
				}))
				for i := range 1 + n {
					sender.Send(nth("a", 0, i))
				}
				synctest.Wait()
				close(hold)
				synctest.Wait()
				var dead []int
				for _, letter := range deadLetters(t, &events) {
					_, i := numberOf(letter.Message)
					dead = append(dead, i)
				}
				slices.Sort(dead)
				if !slices.Equal(dead, span(1, n)) || calls != 2 {
					t.Errorf("%d calls, dead letters of %v", calls, dead)
				}
			})
		})
	}
}

// Failures that succeed in time do not add up.
func TestGuarantee6FailuresThatSucceedAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod := bus.Connect(gravbus.MaxFailures(2))
		tries := map[string]int{}
		must(t, pod.On(func(msg gravbus.Message) error {
			_, i := numberOf(msg)
			if tries[msg.UUID()]++; i%2 == 0 && tries[msg.UUID()] == 1 {
				return errHandler
			}
			return nil
		}))
		sender := bus.Connect()
		for i := range 1000 {
			sender.Send(nth("a", 0, i))
		}
		synctest.Wait()
		if s := pod.Stats(); s.Delivered != 1000 || s.Failed != 500 || s.Kept != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A message that fails for ever becomes a dead letter after its redeliveries, and the pod goes on.
func TestGuarantee6MaxRetries(t *testing.T) {
	for _, c := range []struct{ option, attempts int }{{1, 2}, {3, 4}, {0, gravbus.DefaultMaxRetries + 1}, {-1, gravbus.DefaultMaxRetries + 1}} {
		synctest.Test(t, func(t *testing.T) {
			bus := testBus(t)
			var events recorder
			must(t, bus.Connect().OnType("gravbus.>", events.handle))
			pod := bus.Connect(gravbus.MaxRetries(c.option), gravbus.Name("p"))
			bad := 0
			must(t, pod.OnType("bad", func(msg gravbus.Message) error {
				if msg.Type() == "bad" {
					bad++
					return errHandler
				}
				return nil
			}, "ok"))
			sender := bus.Connect()
			msg := gravbus.NewMsg("bad", nil)
			sender.Send(msg)
			for range 100 {
				sender.Send(gravbus.NewMsg("ok", nil))
			}
			synctest.Wait()
			if bad != c.attempts {
				t.Errorf("MaxRetries(%d): %d attempts, want %d", c.option, bad, c.attempts)
			}
			letters := deadLetters(t, &events)
			if len(letters) != 1 || letters[0].Message != msg || letters[0].Attempts != c.attempts || letters[0].Pod != "p" {
				t.Errorf("letters %+v", letters)
			}
			if s := pod.Stats(); s.Delivered != 100 || s.DeadLetters != 1 || s.Kept != 0 || int(s.Failed) != c.attempts {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// What a pod has kept when it is disconnected becomes dead letters.
func TestGuarantee6DisconnectTurnsKeptIntoDeadLetters(t *testing.T) {
	for _, how := range []string{"Disconnect", "inside the handler", "Close", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				var events recorder
				observer := bus.Connect()
				must(t, observer.OnType("gravbus.>", events.handle))
				pod := bus.Connect()
				must(t, pod.On(func(msg gravbus.Message) error {
					if msg.Type() == "leave" {
						pod.Disconnect()
					}
					return errHandler
				}))
				sender := bus.Connect()
				for i := range 5 {
					sender.Send(nth("a", 0, i))
				}
				synctest.Wait()
				want := 5
				switch how {
				case "Disconnect":
					pod.Disconnect()
				case "inside the handler":
					sender.Send(nth("leave", 0, 5))
					want++
				case "Close":
					must(t, bus.Close())
				default:
					must(t, bus.Shutdown(context.Background()))
				}
				synctest.Wait()
				if s := bus.Stats(); s.DeadLetters != uint64(want) {
					t.Errorf("%d dead letters counted, want %d", s.DeadLetters, want)
				}
				if how == "Close" || how == "Shutdown" {
					return // the observer goes too
				}
				for i, letter := range deadLetters(t, &events) {
					if _, n := numberOf(letter.Message); n != i {
						t.Errorf("letter %d is of message %d", i, n)
					}
				}
				if n := len(deadLetters(t, &events)); n != want {
					t.Errorf("%d letters, want %d", n, want)
				}
			})
		})
	}
}

// The handler may use all of the bus: to change the pod, to leave, to ask others, to close everything.
func TestGuarantee6CallsFromInsideAHandler(t *testing.T) {
	for _, opts := range [][]gravbus.PodOption{nil, {gravbus.Mailbox(1)}, {gravbus.Concurrency(2)}, {gravbus.InGroup("g")}} {
		for name, call := range map[string]func(t *testing.T, bus *gravbus.Bus, pod *gravbus.Pod, msg gravbus.Message){
			"On": func(t *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) { must(t, pod.On(nil)) },
			"OnType": func(t *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) {
				must(t, pod.OnType("b", nop))
			},
			"FilterType": func(t *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) {
				must(t, pod.FilterType("b", false))
			},
			"FilterUUID": func(_ *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, msg gravbus.Message) {
				pod.FilterUUID(msg.UUID(), false)
			},
			"Disconnect": func(_ *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) { pod.Disconnect() },
			"Send": func(t *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) {
				if pod.Send(gravbus.NewMsg("c", nil)) == nil {
					t.Error("nil receipt")
				}
			},
			"Send the message itself": func(t *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, msg gravbus.Message) {
				if pod.Send(msg) == nil {
					t.Error("nil receipt")
				}
			},
			"ReplyTo": func(_ *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, msg gravbus.Message) {
				pod.ReplyTo(msg, gravbus.NewMsg("c", nil))
			},
			"Request": func(t *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) {
				reply, err := pod.Request(t.Context(), gravbus.NewMsg("ask", nil))
				if err != nil || reply.Type() != "answer" {
					t.Errorf("%v, %v", reply, err)
				}
			},
			"RequestAll": func(t *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) {
				for _, err := range pod.RequestAll(t.Context(), gravbus.NewMsg("ask", nil)) {
					must(t, err)
				}
			},
			"Wait": func(t *testing.T, _ *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) {
				if err := pod.WaitUntil(gravbus.TimeoutAfter(1), nop); !errors.Is(err, gravbus.ErrWaitTimeout) {
					t.Error(err)
				}
			},
			"Connect": func(t *testing.T, bus *gravbus.Bus, _ *gravbus.Pod, _ gravbus.Message) {
				other := bus.Connect(gravbus.Replay())
				must(t, other.On(nop))
				other.Disconnect()
			},
			"Stats": func(_ *testing.T, bus *gravbus.Bus, pod *gravbus.Pod, _ gravbus.Message) { bus.Stats(); pod.Stats() },
			"Close": func(t *testing.T, bus *gravbus.Bus, _ *gravbus.Pod, _ gravbus.Message) { must(t, bus.Close()) },
			"Shutdown": func(t *testing.T, bus *gravbus.Bus, _ *gravbus.Pod, _ gravbus.Message) {
				must(t, bus.Shutdown(t.Context()))
			},
		} {
			t.Run(fmt.Sprintf("%s/%d", name, len(opts)), func(t *testing.T) {
				bus := testBus(t)
				answering := bus.Connect()
				must(t, answering.OnType("ask", func(msg gravbus.Message) error {
					answering.ReplyTo(msg, gravbus.NewMsg("answer", nil))
					return nil
				}))
				pod := bus.Connect(opts...)
				done := make(chan struct{})
				var called atomic.Bool // not a sync.Once, which would hold up another call of the handler
				must(t, pod.OnType("a", func(msg gravbus.Message) error {
					if called.CompareAndSwap(false, true) {
						call(t, bus, pod, msg)
						close(done)
					}
					return nil
				}))
				sender := bus.Connect()
				sender.Send(gravbus.NewMsg("a", nil))
				sender.Send(gravbus.NewMsg("a", nil))
				awaitDone(t, patience, done)
			})
		}
	}
}

// Goexit does not spoil the counts of what the handler did before it.
func TestGuarantee6GoexitKeepsTheCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		hold := make(chan struct{})
		pod := bus.Connect(gravbus.MaxFailures(1000))
		n := 0
		must(t, pod.On(func(gravbus.Message) error {
			if n == 0 {
				<-hold
			}
			if n++; n%10 == 0 {
				runtime.Goexit()
			}
			return nil
		}))
		sender := bus.Connect()
		for i := range 100 {
			sender.Send(nth("a", 0, i))
		}
		synctest.Wait()
		close(hold)
		synctest.Wait()
		// Calls that returned are delivered, all others failed.
		if s := pod.Stats(); s.Delivered+s.Failed != uint64(n) || s.Failed != uint64(n/10) || s.Panics != s.Failed {
			t.Errorf("%d calls, stats %+v", n, s)
		}
	})
}

// lazyError does something when it is asked what is wrong.
type lazyError struct{ ask func() }

func (e lazyError) Error() string { e.ask(); return "failed" }

// A pod that changes what it listens to while an event is on its way gets that too.
func TestGuarantee6EventDuringAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var events recorder
		watcher := bus.Connect()
		must(t, watcher.OnType(gravbus.EventDeadLetter, events.handle))
		pod := bus.Connect()
		changed := 0
		must(t, pod.On(func(gravbus.Message) error {
			return lazyError{func() { // when the letter is written: its readers were looked up, and do not have it yet
				changed++
				must(t, watcher.OnType(gravbus.EventDeadLetter, events.handle, gravbus.EventPodFailed))
			}}
		}))
		bus.Connect().Send(gravbus.NewMsg("a", nil))
		synctest.Wait()
		pod.Disconnect()
		synctest.Wait()
		if n := len(deadLetters(t, &events)); n != 1 || changed != 1 {
			t.Errorf("%d of 1 dead letters came, after %d changes", n, changed)
		}
	})
}
