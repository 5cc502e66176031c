package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// A sender whose context ends while it waits leaves without the message, and without anybody else's wake-up.
func TestDeadlockContextEndsWhileWaiting(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(quiet())
		defer bus.Close()
		var got, other atomic.Int64
		gate := make(chan struct{})
		slow := bus.Connect(gravbus.Name("slow"), gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block))
		lost := int64(0)
		err := slow.OnType("x", func(m gravbus.Message) error {
			if m.Type() == gravbus.MsgTypeLagged {
				lagged, err := gravbus.Decode[gravbus.Lagged](m)
				lost += int64(lagged.Count)
				return err
			}
			<-gate
			got.Add(1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		quick := bus.Connect(gravbus.Mailbox(1000))
		if err := quick.OnType("x", func(gravbus.Message) error { other.Add(1); return nil }); err != nil {
			t.Fatal(err)
		}
		const senders = 200
		ctx, cancel := context.WithCancel(context.Background())
		var patient, gaveUp atomic.Int64
		var wg sync.WaitGroup
		for i := range senders {
			pod := bus.Connect()
			wg.Go(func() {
				use := context.Background()
				if i%2 == 0 {
					use = ctx
				}
				r, err := pod.SendContext(use, gravbus.NewMsg("x", nil))
				if r == nil {
					t.Error("no receipt")
				}
				var undelivered *gravbus.UndeliveredError
				switch {
				case err == nil:
					patient.Add(1)
				case errors.As(err, &undelivered) && errors.Is(err, context.Canceled):
					gaveUp.Add(1)
					if undelivered.Type != "x" || !slices.Equal(undelivered.Pods, []string{"slow"}) {
						t.Errorf("%+v", undelivered)
					}
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if n := gaveUp.Load(); n < senders/2-2 {
			t.Errorf("%d gave up, want %d, or two less", n, senders/2)
		}
		close(gate) // from here on everything has to flow
		wg.Wait()
		synctest.Wait()
		if got.Load() != patient.Load() || patient.Load()+gaveUp.Load() != senders {
			t.Errorf("%d handled; %d sent, %d gave up", got.Load(), patient.Load(), gaveUp.Load())
		}
		if s := slow.Stats(); int64(s.Dropped) != gaveUp.Load() || lost != gaveUp.Load() {
			t.Errorf("%d dropped, told of %d, want %d", s.Dropped, lost, gaveUp.Load())
		}
		if other.Load() != senders {
			t.Errorf("the other pod got %d of %d", other.Load(), senders)
		}
	})
}

// Contexts that end at the same moment as room appears: a wake-up that comes to a sender which leaves goes to the next one.
func TestDeadlockNoLostWakeup(t *testing.T) {
	watchdog(t, time.Minute)
	rounds := fewer(300, 6)
	for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
		for _, width := range []int{1, 2} {
			t.Run(fmt.Sprintf("block=%t/width=%d", policy == gravbus.Block, width), func(t *testing.T) {
				bus := gravbus.New(quiet())
				defer bus.Close()
				var got atomic.Int64
				pod := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(policy), gravbus.Concurrency(width), gravbus.StallLimit(faultNever))
				if err := gravbus.On(pod, "x", func(context.Context, int) error { runtime.Gosched(); got.Add(1); return nil }); err != nil {
					t.Fatal(err)
				}
				sent, gaveUp := int64(0), int64(0)
				for range rounds {
					ctx, cancel := context.WithCancel(context.Background())
					var ok, failed atomic.Int64
					var wg sync.WaitGroup
					for i := range 12 {
						sender := bus.Connect()
						wg.Go(func() {
							defer sender.Disconnect()
							use := ctx
							if i%3 == 0 {
								use = context.Background()
							}
							for range 5 {
								if _, err := sender.SendContext(use, gravbus.NewTyped("x", i)); err == nil {
									ok.Add(1)
								} else {
									failed.Add(1)
								}
							}
						})
					}
					for range rand.IntN(200) {
						runtime.Gosched()
					}
					cancel()
					wg.Wait() // hangs if a wake-up is lost
					sent += ok.Load()
					gaveUp += failed.Load()
				}
				if err := bus.Shutdown(context.Background()); err != nil {
					t.Fatal(err)
				}
				if s := bus.Stats(); got.Load() != sent || int64(s.Dropped) != gaveUp {
					t.Errorf("%d handled, want %d; %d dropped, want %d", got.Load(), sent, s.Dropped, gaveUp)
				}
			})
		}
	}
}

// Hundreds of senders that wait for one mailbox of one all get through, each in its own order.
func TestDeadlockHundredsOfSenders(t *testing.T) {
	const senders, each = 400, 5
	for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
		for _, receivers := range []int{1, 3} {
			t.Run(fmt.Sprintf("block=%t/receivers=%d", policy == gravbus.Block, receivers), func(t *testing.T) {
				faultBubble(t, func(t *testing.T) {
					bus := gravbus.New(quiet())
					defer bus.Close()
					var got atomic.Int64
					for range receivers {
						pod := bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(policy), gravbus.StallLimit(faultNever))
						last := map[int]int{}
						err := gravbus.On(pod, "x", func(_ context.Context, v [2]int) error {
							if v[1] != last[v[0]] {
								t.Errorf("sender %d: %d after %d", v[0], v[1], last[v[0]]-1)
							}
							last[v[0]] = v[1] + 1
							got.Add(1)
							return nil
						})
						if err != nil {
							t.Fatal(err)
						}
					}
					var wg sync.WaitGroup
					for i := range senders {
						pod := bus.Connect()
						wg.Go(func() {
							for k := range each {
								pod.Send(gravbus.NewTyped("x", [2]int{i, k}))
							}
						})
					}
					wg.Wait()
					synctest.Wait()
					if s := bus.Stats(); got.Load() != senders*each*int64(receivers) || s.Dropped != 0 {
						t.Errorf("%d handled, want %d; %d dropped", got.Load(), senders*each*receivers, s.Dropped)
					}
				})
			})
		}
	}
}

// A pod that changes what it listens to while senders wait for it frees them, and gets all that it wants before and after, once.
func TestDeadlockInterestChangesWhileSendersWait(t *testing.T) {
	faultBubble(t, func(t *testing.T) {
		bus := gravbus.New(quiet())
		defer bus.Close()
		pod := bus.Connect(gravbus.Mailbox(1), gravbus.StallLimit(faultNever))
		seen := map[string]int{}
		count := func(m gravbus.Message) error { seen[m.UUID()]++; return nil }
		changes := 0
		var handler gravbus.MsgFunc
		handler = func(m gravbus.Message) error {
			changes++
			var err error
			switch changes % 4 {
			case 0:
				err = pod.On(handler)
			case 1:
				err = pod.OnType("x", handler)
			case 2:
				err = pod.OnType("x", handler, "y.*")
			default:
				err = pod.FilterType("z", changes%8 == 3)
			}
			return errors.Join(err, count(m))
		}
		if err := pod.On(handler); err != nil {
			t.Fatal(err)
		}
		const senders, each = 50, 40
		for range senders {
			sender := bus.Connect()
			go func() {
				for range each {
					sender.Send(gravbus.NewMsg("x", nil))
				}
			}()
		}
		synctest.Wait()
		if len(seen) != senders*each {
			t.Errorf("%d messages, want %d", len(seen), senders*each)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
		if s := pod.Stats(); s.Dropped != 0 || s.Failed != 0 {
			t.Errorf("%d dropped, %d failed", s.Dropped, s.Failed)
		}
	})
}
