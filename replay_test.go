package gravbus_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// Replay needs no traffic to begin, and begins with On, at once.
func TestGuarantee8ReplayBeginsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		sender := bus.Connect()
		for i := range 10 {
			sender.Send(nth("a", 0, i))
		}
		late := bus.ConnectWithReplay()
		var got recorder
		for i := 10; i < 15; i++ { // between Connect and On
			sender.Send(nth("a", 0, i))
		}
		must(t, late.On(got.handle))
		synctest.Wait()
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, 14)) {
			t.Errorf("got %v", all)
		}
		sender.Send(nth("a", 0, 15))
		must(t, late.On(got.handle)) // not again
		synctest.Wait()
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, 15)) {
			t.Errorf("then got %v", all)
		}
	})
}

func TestGuarantee8ReplayWhich(t *testing.T) {
	type options []gravbus.PodOption
	all := []int{0, 1, 2, 5, 6, 7, 8, 9}
	// Messages 0 to 9 of types a.0, b.0, a.1, b.1, … made a second apart; 3 and 4 are sent by the pod that asks for replay.
	for _, c := range []struct {
		name    string
		opts    func(sent []gravbus.Message) options
		pattern string
		want    []int
	}{
		{"all", func([]gravbus.Message) options { return options{gravbus.Replay()} }, ">", all},
		{"all of its types", func([]gravbus.Message) options { return options{gravbus.Replay()} }, "a.*", []int{0, 2, 6, 8}},
		{"last 3", func([]gravbus.Message) options { return options{gravbus.ReplayLast(3)} }, ">", []int{7, 8, 9}},
		{"last 3 of its types", func([]gravbus.Message) options { return options{gravbus.ReplayLast(3)} }, "a.*", []int{2, 6, 8}},
		{"last 6 that are not its own", func([]gravbus.Message) options { return options{gravbus.ReplayLast(6)} }, ">", all[2:]},
		{"last 100", func([]gravbus.Message) options { return options{gravbus.ReplayLast(100)} }, ">", all},
		{"last 0 is all", func([]gravbus.Message) options { return options{gravbus.ReplayLast(0)} }, ">", all},
		{"since", func(sent []gravbus.Message) options { return options{gravbus.ReplaySince(sent[6].Timestamp())} }, ">", all[4:]},
		{"since later", func(sent []gravbus.Message) options { return options{gravbus.ReplaySince(sent[9].Timestamp().Add(1))} }, ">", nil},
		{"after", func(sent []gravbus.Message) options { return options{gravbus.ReplayAfter(sent[5].UUID())} }, ">", all[4:]},
		{"after its own", func(sent []gravbus.Message) options { return options{gravbus.ReplayAfter(sent[4].UUID())} }, ">", all[3:]},
		{"after the last", func(sent []gravbus.Message) options { return options{gravbus.ReplayAfter(sent[9].UUID())} }, ">", nil},
		{"after what is unknown", func([]gravbus.Message) options { return options{gravbus.ReplayAfter(gravbus.NewMsg("a", nil).UUID())} }, ">", all},
		{"types", func([]gravbus.Message) options { return options{gravbus.ReplayTypes("b.*")} }, ">", []int{1, 5, 7, 9}},
		{"several types", func([]gravbus.Message) options { return options{gravbus.ReplayTypes("b.0", "a.4")} }, ">", []int{1, 8}},
		{"types that it does not want", func([]gravbus.Message) options { return options{gravbus.ReplayTypes("b.*")} }, "a.*", nil},
		{"after, since, types and last", func(sent []gravbus.Message) options {
			return options{gravbus.ReplayAfter(sent[0].UUID()), gravbus.ReplaySince(sent[2].Timestamp()), gravbus.ReplayTypes("a.>"), gravbus.ReplayLast(2)}
		}, ">", []int{6, 8}},
		{"none", func([]gravbus.Message) options { return nil }, ">", nil},
	} {
		for i, other := range []gravbus.PodOption{nil, gravbus.Mailbox(1), gravbus.Concurrency(1), gravbus.Overflow(gravbus.DropOldest)} {
			t.Run(fmt.Sprint(c.name, "/", i), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					sender := bus.Connect()
					var sent []gravbus.Message
					for i := range 10 {
						take(time.Second)
						sent = append(sent, nth(fmt.Sprintf("%c.%d", "ab"[i%2], i/2), 0, i))
					}
					late := bus.Connect(append(c.opts(sent), other)...)
					for i, msg := range sent {
						if i == 3 || i == 4 {
							late.Send(msg)
						} else {
							sender.Send(msg)
						}
					}
					var got recorder
					must(t, late.OnType(c.pattern, got.handle))
					sender.Send(nth("a.9", 0, 10))
					synctest.Wait()
					if n := numbers(t, got.all()); !slices.Equal(n, append(slices.Clone(c.want), 10)) {
						t.Errorf("got %v, want %v and 10", n, c.want)
					}
				})
			})
		}
	}
}

// Filters hold for replay too, and events of the bus are not replayed.
func TestGuarantee8ReplayIsFiltered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		sender := bus.Connect()
		must(t, sender.OnType("boom", func(gravbus.Message) error { panic("boom") }))
		other := bus.Connect()
		var sent []gravbus.Message
		for i := range 6 {
			sent = append(sent, nth([]string{"a", "b", "boom"}[i%3], 0, i))
			other.Send(sent[i])
		}
		synctest.Wait()
		late := bus.ConnectWithReplay()
		must(t, late.FilterType("b", false))
		late.FilterUUID(sent[3].UUID(), false)
		var got recorder
		must(t, late.OnType(">", got.handle, "gravbus.>"))
		synctest.Wait()
		if n := numbers(t, got.all()); !slices.Equal(n, []int{0, 2, 5}) {
			t.Errorf("got %v", n)
		}
	})
}

// Replay is more than the mailbox takes, and holds up senders no more than the handler does.
func TestGuarantee8ReplayIsNotBoundByTheMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t, gravbus.UseReplay(5000))
		sender := bus.Connect()
		for i := range 3000 {
			sender.Send(nth("a", 0, i))
		}
		late := bus.ConnectWithReplay(gravbus.Mailbox(8))
		var got recorder
		must(t, late.On(func(msg gravbus.Message) error {
			take(time.Millisecond)
			return got.handle(msg)
		}))
		for i := 3000; i < 3100; i++ {
			sender.Send(nth("a", 0, i))
		}
		take(time.Minute)
		if n := numbers(t, got.all()); !slices.Equal(n, span(0, 3099)) {
			t.Errorf("%d came", len(n))
		}
		if s := late.Stats(); s.Dropped != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Past what the buffer holds nothing can be replayed; what comes is without a gap all the same.
func TestGuarantee8ReplayWhileOthersSend(t *testing.T) {
	const senders, rounds = 4, 60
	for _, c := range []struct{ buffer, mailbox int }{{16, 1024}, {64, 4}, {1024, 1}, {1024, 64}, {100_000, 1024}, {100_000, 8}} {
		t.Run(fmt.Sprintf("buffer=%d/mailbox=%d", c.buffer, c.mailbox), func(t *testing.T) {
			bus := testBus(t, gravbus.UseReplay(c.buffer))
			stop := make(chan struct{})
			last := make([]int, senders)
			var wg sync.WaitGroup
			started := make(chan struct{}, senders)
			for s := range senders {
				pod := bus.Connect()
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							last[s] = i - 1
							return
						default:
						}
						pod.Send(nth("a", s, i))
						if i == 2*c.mailbox%100 {
							started <- struct{}{}
						}
						if i%16 == 0 {
							runtime.Gosched()
						}
					}
				})
			}
			for range senders {
				awaitDone(t, patience, started)
			}
			type follower struct {
				first, next []int
				came        chan struct{}
				n           int
			}
			var followers []*follower
			for round := range rounds {
				f := &follower{first: make([]int, senders), next: make([]int, senders), came: make(chan struct{})}
				followers = append(followers, f)
				for i := range f.first {
					f.first[i] = -1
				}
				opts := []gravbus.PodOption{gravbus.Mailbox(c.mailbox)}
				if round%3 == 1 {
					opts = append(opts, gravbus.Overflow(gravbus.Block))
				}
				pod := bus.ConnectWithReplay(opts...)
				must(t, pod.OnType("a", func(msg gravbus.Message) error {
					s, i := numberOf(msg)
					switch {
					case f.first[s] < 0:
						f.first[s], f.next[s] = i, i+1
					case f.next[s] != i:
						t.Errorf("round %d: of sender %d came %d instead of %d (the first was %d)", round, s, i, f.next[s], f.first[s])
						f.next[s] = i + 1
					default:
						f.next[s]++
					}
					if f.n++; f.n == 100 {
						close(f.came)
					}
					return nil
				}))
				awaitDone(t, patience, f.came)
				if round%2 == 0 {
					pod.Disconnect()
					followers = followers[:len(followers)-1]
				}
				if len(followers) > 5 {
					break
				}
			}
			close(stop)
			within(t, patience, wg.Wait)
			must(t, bus.Shutdown(t.Context()))
			for i, f := range followers {
				for s := range senders {
					if f.first[s] >= 0 && f.next[s] != last[s]+1 {
						t.Errorf("follower %d: the last of sender %d was %d instead of %d", i, s, f.next[s]-1, last[s])
					}
					if c.buffer == 100_000 && last[s]*senders < 50_000 && f.first[s] > 0 {
						t.Errorf("follower %d: the first of sender %d was %d, though the buffer has all", i, s, f.first[s])
					}
				}
			}
		})
	}
}

// All of a known number of messages come once, from the buffer or live, whenever in between the pod connects.
func TestGuarantee8ReplayThenLive(t *testing.T) {
	const senders, n, pods = 4, 500, 40
	for _, mailbox := range []int{1, 16, 1024} {
		t.Run(fmt.Sprint("mailbox=", mailbox), func(t *testing.T) {
			bus := testBus(t, gravbus.UseReplay(senders*n))
			var wg sync.WaitGroup
			wg.Go(func() { sendAll(t, bus, senders, n, "a", "b") })
			var all []*sequence
			for range pods {
				s := newSequence(senders, n)
				all = append(all, s)
				must(t, bus.ConnectWithReplay(gravbus.Mailbox(mailbox)).On(s.handle))
				runtime.Gosched()
			}
			within(t, patience, wg.Wait)
			for _, s := range all {
				s.await(t)
			}
			must(t, bus.Shutdown(t.Context()))
			for _, s := range all {
				s.check(t)
			}
		})
	}
}

// A pod that has lost messages reads them in the buffer.
func TestGuarantee8RefillAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		stuck := connectStuck(t, bus, gravbus.Mailbox(4), gravbus.Overflow(gravbus.DropOldest))
		sender := bus.Connect()
		fill(t, sender, 4)
		for i := 5; i < 20; i++ {
			sender.Send(nth("a", 0, i))
		}
		close(stuck.release)
		synctest.Wait()
		got := stuck.all()
		if n := numbers(t, got); !slices.Equal(n, []int{0, -15, 16, 17, 18, 19}) {
			t.Fatalf("got %v", n)
		}
		lag := laggedIn(t, got[1])
		var refill []gravbus.Message
		rest, found := bus.Buffer().After(got[0].UUID())
		for msg := range rest {
			refill = append(refill, msg)
			if msg.UUID() == lag.To {
				break
			}
		}
		if !found || !slices.Equal(numbers(t, refill), span(1, 15)) || refill[0].UUID() != lag.From || len(refill) != int(lag.Count) {
			t.Errorf("refilled with %v", numbers(t, refill))
		}
	})
}

// Without a buffer there is nothing to replay, and all else works.
func TestGuarantee8ReplayOff(t *testing.T) {
	for _, n := range []int{0, -1} {
		synctest.Test(t, func(t *testing.T) {
			bus := testBus(t, gravbus.UseReplay(n))
			sender := bus.Connect()
			sender.Send(nth("a", 0, 0))
			var got recorder
			must(t, bus.ConnectWithReplay().On(got.handle))
			sender.Send(nth("a", 0, 1))
			synctest.Wait()
			if n := numbers(t, got.all()); !slices.Equal(n, []int{1}) {
				t.Errorf("got %v", n)
			}
			if s := bus.Stats(); bus.Buffer().Len() != 0 || s.Sent != 2 || s.Buffered != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// An invalid pattern for replay is found out when the handler is set.
func TestGuarantee8ReplayBadPattern(t *testing.T) {
	bus := testBus(t)
	pod := bus.Connect(gravbus.ReplayTypes("a..b"))
	if err := pod.On(nop); err == nil {
		t.Error("no error")
	}
}
