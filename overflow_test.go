package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// take is how long a handler works in these tests, where time is synctest's.
func take(d time.Duration) { <-time.After(d) }

// stuckPod is a pod whose handler records, and stands still at each message of a type stuck.… until it is released.
type stuckPod struct {
	*gravbus.Pod
	recorder
	release chan struct{}
}

func connectStuck(t testing.TB, bus *gravbus.Bus, opts ...gravbus.PodOption) *stuckPod {
	t.Helper()
	p := &stuckPod{Pod: bus.Connect(opts...), release: make(chan struct{})}
	must(t, p.OnType("stuck", p.handle, "a"))
	return p
}

func (p *stuckPod) handle(msg gravbus.Message) error {
	p.recorder.handle(msg)
	if msg.Type() == "stuck" {
		<-p.release
	}
	return nil
}

// fill makes the pod stand still with message 0 in hand and messages 1 to n waiting.
func fill(t testing.TB, sender *gravbus.Pod, n int) {
	t.Helper()
	began := time.Now()
	if sender.Send(nth("stuck", 0, 0)) == nil {
		t.Fatal("not sent")
	}
	synctest.Wait() // it is in hand
	for i := range n {
		sender.Send(nth("a", 0, i+1))
	}
	if took := time.Since(began); took != 0 {
		t.Fatalf("filling the mailbox took %v", took)
	}
}

// A pipeline runs at the pace of its last stage, and loses nothing: its handlers forward to the next pod and wait where that one's mailbox is full.
func TestGuarantee5Backpressure(t *testing.T) {
	const n, mailbox, stages = 300, 4, 3
	const pace = 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var got recorder
		var mu sync.Mutex // guards deepest
		deepest := 0
		for i := range stages {
			pod := bus.Connect(gravbus.Mailbox(mailbox), gravbus.Name(fmt.Sprint("stage-", i)))
			must(t, pod.OnType(fmt.Sprint("stage.", i), func(msg gravbus.Message) error {
				for _, p := range bus.Stats().Pods {
					mu.Lock()
					deepest = max(deepest, p.Depth)
					mu.Unlock()
				}
				if i == stages-1 {
					take(pace)
					return got.handle(msg)
				}
				_, number := numberOf(msg)
				pod.Send(nth(fmt.Sprint("stage.", i+1), 0, number))
				return nil
			}))
		}
		sender := bus.Connect()
		began := time.Now()
		for i := range n {
			sender.Send(nth("stage.0", 0, i))
		}
		// What is on its way when the last Send returns: full mailboxes, and one message in each hand.
		if took, least := time.Since(began), (n-stages*(mailbox+1)-1)*pace; took < least {
			t.Errorf("sending took %v: nobody held it up, %v was to be expected", took, least)
		}
		if all := numbers(t, got.await(t, n)); !slices.Equal(all, span(0, n-1)) {
			t.Errorf("got %v", all)
		}
		mu.Lock()
		defer mu.Unlock()
		if deepest > mailbox {
			t.Errorf("a mailbox of %d was %d deep", mailbox, deepest)
		}
		synctest.Wait()
		if s := bus.Stats(); s.Dropped != 0 || s.Delivered != stages*n {
			t.Errorf("%d dropped, %d delivered", s.Dropped, s.Delivered)
		}
	})
}

// The same in real time, with senders and stages on all CPUs.
func TestGuarantee5BackpressureOnAllCPUs(t *testing.T) {
	const n, senders, stages = 3000, 3, 4
	for _, mailbox := range []int{1, 4, 32} {
		t.Run(fmt.Sprint("mailbox=", mailbox), func(t *testing.T) {
			bus := testBus(t)
			s := newSequence(senders, n)
			for i := range stages {
				pod := bus.Connect(gravbus.Mailbox(mailbox))
				must(t, pod.OnType(fmt.Sprint("stage.", i), func(msg gravbus.Message) error {
					if i == stages-1 {
						return s.handle(msg)
					}
					sender, number := numberOf(msg)
					pod.Send(nth(fmt.Sprint("stage.", i+1), sender, number))
					return nil
				}))
			}
			sendAll(t, bus, senders, n, "stage.0")
			s.await(t)
			must(t, bus.Shutdown(t.Context()))
			s.check(t)
			if stats := bus.Stats(); stats.Dropped != 0 {
				t.Errorf("%d dropped", stats.Dropped)
			}
		})
	}
}

func TestGuarantee5Stall(t *testing.T) {
	for _, c := range []struct {
		name    string
		opts    []gravbus.PodOption
		alone   bool // no other pod shares the interest and bound
		limit   time.Duration
		mailbox int
	}{
		{"alone", nil, true, gravbus.DefaultStallLimit, 4},
		{"beside others", nil, false, gravbus.DefaultStallLimit, 4},
		{"mailbox of one", nil, false, gravbus.DefaultStallLimit, 1},
		{"large mailbox", nil, false, gravbus.DefaultStallLimit, 100},
		{"limit of 300 ms", []gravbus.PodOption{gravbus.StallLimit(300 * time.Millisecond)}, false, 300 * time.Millisecond, 4},
		{"limit of an hour", []gravbus.PodOption{gravbus.StallLimit(time.Hour)}, true, time.Hour, 4},
		{"after replay", []gravbus.PodOption{gravbus.Replay()}, false, gravbus.DefaultStallLimit, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				var slow, lagged, other recorder
				must(t, bus.Connect().OnType(gravbus.EventPodSlow, slow.handle))
				must(t, bus.Connect().OnType(gravbus.EventPodLagged, lagged.handle))
				stuck := connectStuck(t, bus, append(c.opts, gravbus.Mailbox(c.mailbox), gravbus.Name("stuck"))...)
				opts := []gravbus.PodOption{gravbus.Mailbox(c.mailbox)}
				if c.alone {
					opts = nil
				}
				must(t, bus.Connect(opts...).OnType("stuck", other.handle, "a"))
				sender := bus.Connect()

				m := c.mailbox
				const more = 7
				total := 0 // sent in earlier rounds
				for round := range 3 {
					fill(t, sender, m)
					began := time.Now()
					sender.Send(nth("a", 0, m+1))
					if took := time.Since(began); took != c.limit {
						t.Fatalf("round %d: the sender waited %v, not %v", round, took, c.limit)
					}
					for i := range more {
						sender.Send(nth("a", 0, m+2+i))
					}
					if took := time.Since(began); took != c.limit {
						t.Fatalf("round %d: senders waited %v for a pod that had stalled", round, took-c.limit)
					}
					synctest.Wait()
					last := m + 1 + more
					if n := len(other.all()); n != total+last+1 {
						t.Errorf("round %d: the other pod has %d of %d", round, n, total+last+1)
					}
					if n := len(slow.all()); n != round+1 {
						t.Errorf("round %d: %d events of a slow pod", round, n)
					} else if e, err := gravbus.Decode[gravbus.PodEvent](slow.all()[round]); err != nil || e.Pod != "stuck" {
						t.Errorf("round %d: event %+v, %v", round, e, err)
					}
					dropped := 1 + more
					if s := stuck.Stats(); s.Dropped != uint64((round+1)*dropped) || s.Lags != uint64(round+1) || s.Depth != m {
						t.Errorf("round %d: stats %+v", round, s)
					}

					stuck.release <- struct{}{}
					synctest.Wait()
					got := stuck.all()[total+2*round-round*(dropped+1):]
					want := append([]int{0, -dropped}, span(dropped+1, last)...)
					if !slices.Equal(numbers(t, got), want) {
						t.Fatalf("round %d: the stuck pod got %v, want %v", round, numbers(t, got), want)
					}
					sent := other.all()[total:]
					notice := gravbus.Lagged{Pod: "stuck", From: sent[1].UUID(), To: sent[dropped].UUID(), Count: uint64(dropped)}
					if lag := laggedIn(t, got[1]); lag != notice {
						t.Errorf("round %d: notice %+v, want %+v", round, lag, notice)
					}
					if events := lagged.all(); len(events) != round+1 || laggedIn(t, events[round]) != notice {
						t.Errorf("round %d: %d events", round, len(events))
					}
					total += last + 1
					// It has caught up: the next round finds that senders wait again.
				}
				if s := bus.Stats(); s.Dropped != 3*(1+more) {
					t.Errorf("%d dropped", s.Dropped)
				}
			})
		})
	}
}

// While it catches up a pod that has stalled still holds up nobody; what it finishes then makes room.
func TestGuarantee5StallWhileCatchingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var got recorder
		pod := bus.Connect(gravbus.Mailbox(4))
		must(t, pod.On(func(msg gravbus.Message) error {
			got.handle(msg)
			if msg.Type() != gravbus.MsgTypeLagged {
				take(3 * time.Second)
			}
			return nil
		}))
		sender := bus.Connect()
		began := time.Now()
		const n = 400
		for i := range n {
			sender.Send(nth("a", 0, i))
			take(100 * time.Millisecond)
		}
		// One wait of a second, when it was found to have stalled; it never catches up while this goes on.
		if took := time.Since(began); took > n*100*time.Millisecond+time.Second {
			t.Errorf("took %v", took)
		}
		take(time.Minute)
		synctest.Wait()
		delivered, lost := 0, 0
		next := 0
		for _, i := range numbers(t, got.all()) {
			if i < 0 {
				lost -= i
				next -= i
				continue
			}
			if i != next {
				t.Fatalf("%d came where %d was due: %v", i, next, numbers(t, got.all()))
			}
			next++
			delivered++
		}
		if delivered+lost != n || uint64(lost) != pod.Stats().Dropped {
			t.Errorf("%d delivered, %d told as lost, %d counted as dropped, of %d", delivered, lost, pod.Stats().Dropped, n)
		}
		// Now it has, and makes senders wait again.
		fillAgain := time.Now()
		for i := range 6 {
			sender.Send(nth("a", 0, i))
			synctest.Wait()
		}
		if took := time.Since(fillAgain); took != time.Second {
			t.Errorf("waited %v", took)
		}
	})
}

// A pod that is slow but goes on loses nothing.
func TestGuarantee5SlowIsNotStalled(t *testing.T) {
	for _, mailbox := range []int{1, 4, 64} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprintf("mailbox=%d/alone=%t", mailbox, alone), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					var slow, fast recorder
					pod := bus.Connect(gravbus.Mailbox(mailbox))
					must(t, pod.On(func(msg gravbus.Message) error {
						take(900 * time.Millisecond)
						return slow.handle(msg)
					}))
					if !alone {
						must(t, bus.Connect(gravbus.Mailbox(mailbox)).On(fast.handle))
					}
					n := 3*mailbox + 20
					sender := bus.Connect()
					for i := range n {
						sender.Send(nth("a", 0, i))
					}
					take(time.Duration(n) * time.Second)
					if got := numbers(t, slow.all()); !slices.Equal(got, span(0, n-1)) {
						t.Errorf("got %v", got)
					}
					if s := pod.Stats(); s.Dropped != 0 || s.Delivered != uint64(n) {
						t.Errorf("stats %+v", s)
					}
				})
			})
		}
	}
}

// A pod that fails, or that catches up on what it failed on, is not standing still.
func TestGuarantee5FailingIsNotStalled(t *testing.T) {
	const limit = 300 * time.Millisecond
	t.Run("panic", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const n = 100
			bus := testBus(t)
			pod, sender := bus.Connect(gravbus.Mailbox(64), gravbus.StallLimit(limit), gravbus.MaxFailures(2*n)), bus.Connect()
			calls := 0
			must(t, pod.On(func(gravbus.Message) error {
				take(40 * time.Millisecond)
				calls++
				panic("boom")
			}))
			for i := range n {
				sender.Send(nth("a", 0, i))
			}
			take(time.Minute)
			if s := pod.Stats(); s.Dropped != 0 || calls != n {
				t.Errorf("%d calls; stats %+v", calls, s)
			}
		})
	})
	t.Run("redelivery", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const failures, n = 60, 200
			bus := testBus(t)
			pod, sender := bus.Connect(gravbus.Mailbox(64), gravbus.StallLimit(limit)), bus.Connect()
			down := true
			calls := 0
			must(t, pod.On(func(gravbus.Message) error {
				if down {
					return errHandler
				}
				take(20 * time.Millisecond)
				calls++
				return nil
			}))
			for i := range failures {
				sender.Send(nth("a", 0, i))
			}
			synctest.Wait()
			down = false
			for i := range n {
				sender.Send(nth("a", 0, failures+i))
			}
			take(time.Minute)
			if s := pod.Stats(); s.Dropped != 0 || calls != failures+n {
				t.Errorf("%d calls; stats %+v", calls, s)
			}
		})
	})
}

// A pod that waits in Sends of its own is held up by others and not standing still, however long it takes.
func TestGuarantee5WaitingToSendIsNotStalled(t *testing.T) {
	for _, each := range []time.Duration{700 * time.Millisecond, 990 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond} {
		for _, forwards := range []int{1, 3, 8} {
			t.Run(fmt.Sprintf("each=%v/forwards=%d", each, forwards), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const middles, n = 4, 10
					bus := testBus(t)
					var got recorder
					last := bus.Connect(gravbus.Mailbox(1), gravbus.Name("last"))
					must(t, last.OnType("last", func(msg gravbus.Message) error {
						take(each)
						return got.handle(msg)
					}))
					for i := range middles {
						pod := bus.Connect(gravbus.Mailbox(2), gravbus.Name(fmt.Sprint("middle-", i)))
						must(t, pod.OnType("first", func(msg gravbus.Message) error {
							_, number := numberOf(msg)
							for j := range forwards {
								pod.Send(nth("last", i, number*forwards+j))
							}
							return nil
						}))
					}
					sender := bus.Connect()
					for i := range n {
						sender.Send(nth("first", 0, i))
					}
					take(time.Duration(middles*n*forwards+10) * each)
					synctest.Wait()
					next := make([]int, middles)
					for _, msg := range got.all() {
						if sender, i := numberOf(msg); i != next[sender] {
							t.Fatalf("%d of middle %d, want %d", i, sender, next[sender])
						} else {
							next[sender]++
						}
					}
					for i, n_ := range next {
						if n_ != n*forwards {
							t.Errorf("%d of %d came from middle %d", n_, n*forwards, i)
						}
					}
					if s := bus.Stats(); s.Dropped != 0 {
						t.Errorf("%d dropped", s.Dropped)
					}
				})
			})
		}
	}
}

// Every policy, with a pod that stands still with one message in hand and a mailbox of 4, and seven more.
func TestGuarantee5Policies(t *testing.T) {
	const mailbox, more = 4, 3
	for _, c := range []struct {
		policy gravbus.OverflowPolicy
		name   string
		waits  time.Duration // each Send past the bound, at most; its context ends after a minute
		fails  error
		want   []int // what comes, a loss of n as -n
		lost   [2]int
	}{
		{gravbus.Backpressure, "Backpressure", time.Second, nil, []int{0, -3, 4, 5, 6, 7}, [2]int{1, 3}},
		{gravbus.Block, "Block", more * time.Minute, context.DeadlineExceeded, []int{0, 1, 2, 3, 4, -3}, [2]int{5, 7}},
		{gravbus.DropOldest, "DropOldest", 0, nil, []int{0, -3, 4, 5, 6, 7}, [2]int{1, 3}},
		{gravbus.DropNewest, "DropNewest", 0, nil, []int{0, 1, 2, 3, 4, -3}, [2]int{5, 7}},
		{gravbus.Fail, "Fail", 0, gravbus.ErrMailboxFull, []int{0, 1, 2, 3, 4, -3}, [2]int{5, 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				stuck := connectStuck(t, bus, gravbus.Mailbox(mailbox), gravbus.Overflow(c.policy), gravbus.Name("full"))
				var ok, lagged recorder
				must(t, bus.Connect(gravbus.Mailbox(mailbox)).OnType("a", ok.handle))
				must(t, bus.Connect().OnType(gravbus.EventPodLagged, lagged.handle))
				sender := bus.Connect()
				fill(t, sender, mailbox)
				began := time.Now()
				for i := mailbox; i < mailbox+more; i++ {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					receipt, err := sender.SendContext(ctx, nth("a", 0, i+1))
					cancel()
					if receipt == nil {
						t.Fatalf("no receipt, %v", err)
					}
					var undelivered *gravbus.UndeliveredError
					switch {
					case c.fails == nil:
						must(t, err)
					case !errors.As(err, &undelivered) || !errors.Is(err, c.fails) || !slices.Equal(undelivered.Pods, []string{"full"}) || undelivered.Type != "a":
						t.Errorf("error %v", err)
					}
				}
				if took := time.Since(began); took != c.waits {
					t.Errorf("waited %v, not %v", took, c.waits)
				}
				synctest.Wait()
				if s := stuck.Stats(); s.Dropped != more || s.Lags != 1 || s.Depth != mailbox {
					t.Errorf("stats %+v", s)
				}
				if got := numbers(t, ok.all()); !slices.Equal(got, span(1, mailbox+more)) {
					t.Errorf("the other pod got %v", got)
				}
				var sent []string
				for _, msg := range ok.all() {
					sent = append(sent, msg.UUID())
				}
				close(stuck.release)
				synctest.Wait()
				got := stuck.all()
				if !slices.Equal(numbers(t, got), c.want) {
					t.Fatalf("got %v, want %v", numbers(t, got), c.want)
				}
				notice := gravbus.Lagged{Pod: "full", From: sent[c.lost[0]-1], To: sent[c.lost[1]-1], Count: more}
				at := slices.Index(c.want, -more)
				if lag := laggedIn(t, got[at]); lag != notice {
					t.Errorf("notice %+v, want %+v", lag, notice)
				}
				if all := lagged.all(); len(all) != 1 || laggedIn(t, all[0]) != notice {
					t.Errorf("events %v", all)
				}
				if s := bus.Stats(); s.Dropped != more {
					t.Errorf("%d dropped", s.Dropped)
				}
				// It works as before once there is room.
				_, err := sender.SendContext(t.Context(), nth("a", 0, 8))
				must(t, err)
				synctest.Wait()
				if got := numbers(t, stuck.all()); got[len(got)-1] != 8 {
					t.Errorf("then got %v", got)
				}
			})
		})
	}
}

// DropNewest tells of a loss where it happened, between what came before and after it.
func TestGuarantee5NoticeInItsPlace(t *testing.T) {
	for _, policy := range []gravbus.OverflowPolicy{gravbus.DropNewest, gravbus.Fail} {
		t.Run(fmt.Sprint("policy=", policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				var got recorder
				step := make(chan struct{})
				pod := bus.Connect(gravbus.Mailbox(3), gravbus.Overflow(policy))
				must(t, pod.On(func(msg gravbus.Message) error {
					got.handle(msg)
					<-step
					return nil
				}))
				sender := bus.Connect()
				next := 0
				send := func(n int) {
					for range n {
						sender.Send(nth("a", 0, next))
						next++
						synctest.Wait()
					}
				}
				send(1 + 3 + 2) // 0 in hand, 1 2 3 wait, 4 5 are lost
				step <- struct{}{}
				synctest.Wait() // 1 in hand
				send(2)         // 6 waits, 7 is lost
				for range 20 {
					select {
					case step <- struct{}{}:
					default:
					}
					synctest.Wait()
				}
				send(2)
				close(step)
				synctest.Wait()
				delivered, lost := 0, uint64(0)
				for _, msg := range got.all() {
					if msg.Type() == gravbus.MsgTypeLagged {
						lost += laggedIn(t, msg).Count
					} else {
						delivered++
					}
				}
				want := []int{0, 1, 2, 3, -3, 6, 8, 9}
				if all := numbers(t, got.all()); !slices.Equal(all, want) {
					t.Errorf("got %v, want %v", all, want)
				}
				if delivered+int(lost) != next || pod.Stats().Dropped != lost {
					t.Errorf("%d delivered and %d lost of %d, stats %+v", delivered, lost, next, pod.Stats())
				}
			})
		})
	}
}

// All pods that go without are named, whatever the reason, and all others have the message.
func TestGuarantee5UndeliveredNamesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var ok recorder
		must(t, bus.Connect().OnType("a", ok.handle))
		release := make(chan struct{})
		for _, name := range []string{"one", "two", "three"} {
			opts := []gravbus.PodOption{gravbus.Name(name), gravbus.Mailbox(1), gravbus.Overflow(gravbus.Fail)}
			if name == "three" {
				opts[2] = gravbus.Overflow(gravbus.Block)
			}
			must(t, bus.Connect(opts...).OnType(">", func(gravbus.Message) error { <-release; return nil }))
		}
		sender := bus.Connect()
		sender.Send(nth("b", 0, 0))
		synctest.Wait()
		sender.Send(nth("b", 0, 1))

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		receipt, err := sender.SendContext(ctx, nth("a", 0, 2))
		var undelivered *gravbus.UndeliveredError
		if !errors.As(err, &undelivered) || receipt == nil {
			t.Fatalf("receipt %v, error %v", receipt, err)
		}
		slices.Sort(undelivered.Pods)
		if !slices.Equal(undelivered.Pods, []string{"one", "three", "two"}) {
			t.Errorf("pods %v", undelivered.Pods)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		synctest.Wait()
		if len(ok.all()) != 1 {
			t.Error("the pod that had room did not get it")
		}
		close(release)
	})
}

// A context that ends while the sender waits for a pod with the default policy ends that wait, and only that.
func TestGuarantee5ContextEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		stuck := connectStuck(t, bus, gravbus.Mailbox(2), gravbus.Name("stuck"))
		sender := bus.Connect()
		fill(t, sender, 2)
		for i := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			began := time.Now()
			_, err := sender.SendContext(ctx, nth("a", 0, 3+i))
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, new(*gravbus.UndeliveredError)) {
				t.Errorf("error %v", err)
			}
			if took := time.Since(began); took != 200*time.Millisecond {
				t.Errorf("waited %v", took)
			}
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := sender.SendContext(ended, nth("a", 0, 6)); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		close(stuck.release)
		synctest.Wait()
		if got := numbers(t, stuck.all()); !slices.Equal(got, []int{0, 1, 2, -4}) {
			t.Errorf("got %v", got)
		}
		// With room it does not matter that the context has ended.
		if _, err := sender.SendContext(ended, nth("a", 0, 7)); err != nil {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if got := numbers(t, stuck.all()); got[len(got)-1] != 7 {
			t.Errorf("got %v", got)
		}
	})
}

// Messages and the waits have mailboxes with the pod's policy, and their losses are told and counted like the pod's own.
func TestGuarantee5LossesOfALoopAreCounted(t *testing.T) {
	for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.DropOldest, gravbus.DropNewest} {
		t.Run(fmt.Sprint("policy=", policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				pod := bus.Connect(gravbus.Mailbox(4), gravbus.Overflow(policy))
				var lagged recorder
				must(t, bus.Connect().OnType(gravbus.EventPodLagged, lagged.handle))
				release := make(chan struct{})
				var got recorder
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					for msg := range pod.Messages(ctx, "a") {
						got.handle(msg)
						<-release
					}
				}()
				synctest.Wait()
				sender := bus.Connect()
				for i := range 10 {
					sender.Send(nth("a", 0, i))
					synctest.Wait()
				}
				close(release)
				synctest.Wait()
				delivered, lost := 0, uint64(0)
				for _, msg := range got.all() {
					if msg.Type() == gravbus.MsgTypeLagged {
						lost += laggedIn(t, msg).Count
					} else {
						delivered++
					}
				}
				if delivered != 5 || lost != 5 {
					t.Errorf("%d came, and %d were told as lost", delivered, lost)
				}
				if n := len(lagged.all()); n != 1 {
					t.Errorf("%d events", n)
				}
				if s := bus.Stats(); s.Dropped != lost {
					t.Errorf("%d dropped in the bus's Stats while the loop runs, %d told", s.Dropped, lost)
				}
				cancel()
				awaitDone(t, patience, done)
				if s := bus.Stats(); s.Dropped != lost {
					t.Errorf("%d dropped in the bus's Stats after the loop, %d told", s.Dropped, lost)
				}
			})
		})
	}
}

// Who listens to the bus's events and loses some is told so once. Others hear of a pod's losses whatever else it listens to, but not of one that
// wants to hear of losses itself.
func TestGuarantee5LossesOfEvents(t *testing.T) {
	receivers := map[string]func(*testing.T, *gravbus.Bus, gravbus.MsgFunc){
		"loop": func(t *testing.T, bus *gravbus.Bus, fn gravbus.MsgFunc) {
			pod := bus.Connect(gravbus.Mailbox(4))
			go func() {
				for msg := range pod.Messages(t.Context(), "gravbus.>") {
					fn(msg)
				}
			}()
		},
		"pod": func(t *testing.T, bus *gravbus.Bus, fn gravbus.MsgFunc) {
			must(t, bus.Connect(gravbus.Mailbox(4)).OnType("gravbus.>", fn))
		},
		"group": func(t *testing.T, bus *gravbus.Bus, fn gravbus.MsgFunc) {
			group := []gravbus.PodOption{gravbus.InGroup("g"), gravbus.Mailbox(4)}
			must(t, bus.Connect(group...).OnType(gravbus.EventPodPanic, fn))
			must(t, bus.Connect(group...).OnType(gravbus.EventPodLagged, fn))
		},
		"another event": func(t *testing.T, bus *gravbus.Bus, fn gravbus.MsgFunc) {
			must(t, bus.Connect(gravbus.Mailbox(4)).OnType(gravbus.EventPodPanic, fn))
		},
	}
	for name, receive := range receivers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				failing, sender := bus.Connect(gravbus.MaxFailures(100)), bus.Connect()
				must(t, failing.OnType("a", func(gravbus.Message) error { panic("boom") }))
				var got, told recorder
				release := make(chan struct{})
				receive(t, bus, func(msg gravbus.Message) error { got.handle(msg); <-release; return nil })
				must(t, bus.Connect().OnType(gravbus.EventPodLagged, told.handle))
				synctest.Wait()
				for i := range 20 {
					sender.Send(nth("a", 0, i))
					synctest.Wait()
				}
				close(release)
				synctest.Wait()
				panics, lost := 0, uint64(0)
				for _, msg := range got.all() {
					if msg.Type() == gravbus.MsgTypeLagged {
						lost += laggedIn(t, msg).Count
					} else {
						panics++
					}
				}
				if panics != 5 || lost != 15 {
					t.Errorf("%d panics came, and %d were told as lost", panics, lost)
				}
				want := 0
				if name == "another event" {
					want = 1
				}
				if n := len(told.all()); n != want {
					t.Errorf("others were told of losses %d times", n)
				}
			})
		})
	}
}

// What a pod lost before it changed what it listens to is told all the same, with the true count, whether it then goes on or disconnects.
func TestGuarantee5LossesOutlastAChange(t *testing.T) {
	for _, changes := range []int{1, 2, 5} {
		for _, disconnect := range []bool{false, true} {
			t.Run(fmt.Sprintf("changes=%d/disconnect=%t", changes, disconnect), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					var lagged recorder
					must(t, bus.Connect().OnType(gravbus.EventPodLagged, lagged.handle))
					stuck := connectStuck(t, bus, gravbus.Mailbox(4), gravbus.Overflow(gravbus.DropOldest))
					sender := bus.Connect()
					fill(t, sender, 4)
					for i := range changes {
						for range 6 {
							sender.Send(nth("a", 0, 5))
						}
						must(t, stuck.OnType("a", stuck.handle, fmt.Sprint("other.", i)))
					}
					dropped := bus.Stats().Dropped
					if disconnect {
						go stuck.Disconnect()
						synctest.Wait()
					}
					close(stuck.release)
					synctest.Wait()
					if now := bus.Stats().Dropped; now != dropped {
						t.Errorf("%d dropped, and then %d", dropped, now)
					}
					var told, events uint64
					for _, msg := range stuck.all() {
						if msg.Type() == gravbus.MsgTypeLagged {
							told += laggedIn(t, msg).Count
						}
					}
					for _, msg := range lagged.all() {
						events += laggedIn(t, msg).Count
					}
					if !disconnect && told != dropped {
						t.Errorf("%d dropped, %d told to the pod", dropped, told)
					}
					if events != dropped {
						t.Errorf("%d dropped, %d told by events", dropped, events)
					}
				})
			})
		}
	}
}

// Changing what it listens to does not give a pod more room than its mailbox and its cap allow.
func TestGuarantee5ChangesDoNotGrowTheMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const mailbox, limit = 4, 16
		bus := testBus(t)
		stuck := connectStuck(t, bus, gravbus.Mailbox(mailbox), gravbus.MailboxCap(limit), gravbus.Overflow(gravbus.DropOldest))
		sender := bus.Connect()
		fill(t, sender, mailbox)
		for i := range 100 {
			must(t, stuck.OnType("a", stuck.handle, fmt.Sprint("other.", i)))
			for range mailbox {
				sender.Send(nth("a", 0, i))
			}
		}
		if depth := stuck.Stats().Depth; depth > limit+mailbox {
			t.Errorf("%d messages wait in a mailbox of %d with a cap of %d", depth, mailbox, limit)
		}
		close(stuck.release)
	})
}

// Senders that wait for room are let through as it comes, each in its turn and none forgotten.
func TestGuarantee5ManyWaitingSenders(t *testing.T) {
	const senders, each = 50, 40
	for _, mailbox := range []int{1, 3, 16} {
		for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
			t.Run(fmt.Sprintf("mailbox=%d/policy=%d", mailbox, policy), func(t *testing.T) {
				bus := testBus(t)
				s := newSequence(senders, each)
				must(t, bus.Connect(gravbus.Mailbox(mailbox), gravbus.Overflow(policy)).On(s.handle))
				var wg sync.WaitGroup
				for i := range senders {
					pod := bus.Connect()
					wg.Go(func() {
						for n := range each {
							pod.Send(nth("a", i, n))
						}
					})
				}
				within(t, patience, wg.Wait)
				s.await(t)
				must(t, bus.Shutdown(t.Context()))
				s.check(t)
				if d := bus.Stats().Dropped; d != 0 {
					t.Errorf("%d dropped", d)
				}
			})
		}
	}
}
