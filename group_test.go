package gravbus_test

import (
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
)

// tallies counts how often each message came, to whom.
type tallies struct {
	mu   sync.Mutex
	seen map[string][]int // members by UUID
}

func (s *tallies) add(msg gravbus.Message, member int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string][]int{}
	}
	s.seen[msg.UUID()] = append(s.seen[msg.UUID()], member)
}

// byMember returns how many messages each member got, and fails for those that came more than once.
func (s *tallies) byMember(t *testing.T, members int) (n []int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	n = make([]int, members)
	for id, who := range s.seen {
		if len(who) != 1 {
			t.Errorf("message %s came to members %v", id, who)
		}
		n[who[0]]++
	}
	return n
}

func TestGroupExactlyOneGetsEach(t *testing.T) {
	const senders, n, members = 3, 2000, 4
	for _, mailbox := range []int{1, 4, 1024} {
		t.Run(fmt.Sprint("mailbox=", mailbox), func(t *testing.T) {
			bus := testBus(t)
			var got, other tallies
			for i := range members {
				pod := bus.Connect(gravbus.InGroup("workers"), gravbus.Mailbox(mailbox))
				must(t, pod.OnType("job", func(msg gravbus.Message) error { got.add(msg, i); return nil }))
			}
			must(t, bus.Connect(gravbus.InGroup("another")).OnType("job", func(msg gravbus.Message) error { other.add(msg, 0); return nil }))
			all := newSequence(senders, n) // who is in no group gets all
			must(t, bus.Connect().On(all.handle))
			sendAll(t, bus, senders, n, "job")
			must(t, bus.Shutdown(t.Context()))
			all.check(t)
			sum := 0
			for _, k := range got.byMember(t, members) {
				sum += k
			}
			if sum != senders*n {
				t.Errorf("%d of %d came to the group", sum, senders*n)
			}
			if k := other.byMember(t, 1)[0]; k != senders*n {
				t.Errorf("%d of %d came to the other group", k, senders*n)
			}
		})
	}
}

// While all members take the same time all get the same work.
func TestGroupSpreads(t *testing.T) {
	for _, members := range []int{2, 3, 5} {
		synctest.Test(t, func(t *testing.T) {
			const each = 20
			bus := testBus(t)
			var got tallies
			for i := range members {
				must(t, bus.Connect(gravbus.InGroup("g")).On(func(msg gravbus.Message) error {
					take(time.Second)
					got.add(msg, i)
					return nil
				}))
			}
			sender := bus.Connect()
			began := time.Now()
			for i := range members * each {
				sender.Send(nth("a", 0, i))
			}
			must(t, bus.Shutdown(t.Context()))
			if took := time.Since(began); took != each*time.Second {
				t.Errorf("%d members took %v", members, took)
			}
			for i, k := range got.byMember(t, members) {
				if k != each {
					t.Errorf("member %d of %d got %d of %d", i, members, k, members*each)
				}
			}
		})
	}
}

// Idle members take turns.
func TestGroupTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var got tallies
		for i := range 3 {
			must(t, bus.Connect(gravbus.InGroup("g")).On(func(msg gravbus.Message) error { got.add(msg, i); return nil }))
		}
		sender := bus.Connect()
		for i := range 30 {
			sender.Send(nth("a", 0, i))
			synctest.Wait()
		}
		if n := got.byMember(t, 3); !slices.Equal(n, []int{10, 10, 10}) {
			t.Errorf("got %v", n)
		}
	})
}

// A member that stands still has one message in hand; all others go to the rest, and nobody waits.
func TestGroupStuckMemberHoldsUpNobody(t *testing.T) {
	for _, mailbox := range []int{1, 4, 1024} {
		synctest.Test(t, func(t *testing.T) {
			bus := testBus(t)
			var got tallies
			release := make(chan struct{})
			stuck := bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(mailbox))
			must(t, stuck.On(func(msg gravbus.Message) error {
				<-release
				got.add(msg, 0)
				return nil
			}))
			sender := bus.Connect()
			sender.Send(nth("a", 0, 0))
			synctest.Wait()
			for i := range 2 {
				must(t, bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(mailbox)).On(func(msg gravbus.Message) error { got.add(msg, i+1); return nil }))
			}
			began := time.Now()
			for i := range 1000 {
				sender.Send(nth("a", 0, i+1))
			}
			synctest.Wait()
			if n := got.byMember(t, 3); n[1]+n[2] != 1000 {
				t.Errorf("the others got %v", n)
			}
			if took := time.Since(began); took != 0 {
				t.Errorf("took %v", took)
			}
			close(release)
			synctest.Wait()
			if n := got.byMember(t, 3); n[0] != 1 {
				t.Errorf("then %v", n)
			}
			if d := bus.Stats().Dropped; d != 0 {
				t.Errorf("%d dropped", d)
			}
		})
	}
}

// Members want different things: each gets only what it wants, what several want goes to one of them, and what nobody wants is no message for the group.
func TestGroupMembersWantDifferentThings(t *testing.T) {
	const n = 300
	for _, mailbox := range []int{1, 8, 1024} {
		t.Run(fmt.Sprint("mailbox=", mailbox), func(t *testing.T) {
			bus := testBus(t)
			var got tallies
			var counts [3][3]atomic.Int64 // by member and type
			types := []string{"a", "b", "c"}
			for i, patterns := range [][]string{{"a"}, {"b"}, {"a", "b", "c"}} {
				must(t, bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(mailbox)).OnType(patterns[0], func(msg gravbus.Message) error {
					got.add(msg, i)
					counts[i][slices.Index(types, msg.Type())].Add(1)
					return nil
				}, patterns[1:]...))
			}
			sender := bus.Connect()
			within(t, patience, func() {
				for i := range n {
					for _, typ := range types {
						sender.Send(nth(typ, 0, i))
					}
				}
			})
			if _, err := sender.Request(t.Context(), gravbus.NewMsg("d", nil)); !errors.Is(err, gravbus.ErrNoResponders) {
				t.Errorf("Request: %v", err)
			}
			must(t, bus.Shutdown(t.Context()))
			sum := 0
			for _, k := range got.byMember(t, 3) {
				sum += k
			}
			if sum != 3*n || counts[0][1].Load()+counts[0][2].Load()+counts[1][0].Load()+counts[1][2].Load() != 0 || counts[2][2].Load() != n {
				t.Errorf("%d of %d, %v", sum, 3*n, &counts)
			}
		})
	}
}

// What a member refuses by its UUID goes to another one, and to nobody only if all refuse it.
func TestGroupFilterUUID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var got [2]recorder
		var members [2]*gravbus.Pod
		release := make(chan struct{})
		for i := range members {
			members[i] = bus.Connect(gravbus.InGroup("g"))
			if i == 1 {
				members[i].FilterUUID("none", false)
			}
			must(t, members[i].OnType("job", func(msg gravbus.Message) error { got[i].handle(msg); <-release; return nil }))
		}
		sender := bus.Connect()
		var want [2][]int
		for i := range 20 { // the first two are in hand, the others wait
			msg := nth("job", 0, i)
			switch {
			case i < 2:
				want[i] = append(want[i], i)
			case i == 10:
				members[0].FilterUUID(msg.UUID(), false)
				members[1].FilterUUID(msg.UUID(), false)
			case i == 15: // when it waits already
				sender.Send(msg)
				members[0].FilterUUID(msg.UUID(), false)
				want[1] = append(want[1], i)
				continue
			default:
				members[i%2].FilterUUID(msg.UUID(), false)
				want[1-i%2] = append(want[1-i%2], i)
			}
			sender.Send(msg)
			synctest.Wait()
		}
		close(release)
		synctest.Wait()
		for i := range members {
			if all := numbers(t, got[i].all()); !slices.Equal(all, want[i]) {
				t.Errorf("member %d got %v, want %v", i, all, want[i])
			}
		}
		if d := bus.Stats().Dropped; d != 0 {
			t.Errorf("%d dropped", d)
		}
	})
}

// A member that stands still, and alone wants what fills the mailbox, holds up the others for one stall limit at most.
func TestGroupStuckMemberWithItsOwnTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var got recorder
		release := make(chan struct{})
		must(t, bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(4)).OnType("slow", func(gravbus.Message) error { <-release; return nil }))
		must(t, bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(4)).OnType("fast", got.handle))
		sender := bus.Connect()
		for range 5 {
			sender.Send(gravbus.NewMsg("slow", nil))
			synctest.Wait()
		}
		began := time.Now()
		for i := range 50 {
			sender.Send(nth("fast", 0, i))
			synctest.Wait()
		}
		if took := time.Since(began); took > gravbus.DefaultStallLimit {
			t.Errorf("senders waited %v", took)
		}
		var fast []int
		for _, i := range numbers(t, got.all()) {
			if i >= 0 { // a notice of what the group has lost may come to any member
				fast = append(fast, i)
			}
		}
		if !slices.Equal(fast, span(0, 49)) {
			t.Errorf("got %v", fast)
		}
		close(release)
		synctest.Wait()
	})
}

// Members come and go under load, and change what they want: each message comes to one, and what is in no hand stays for the others.
func TestGroupMembersComeAndGo(t *testing.T) {
	const senders, n = 3, 1000
	for _, mailbox := range []int{1, 8, 1024} {
		for _, change := range []string{"Disconnect", "OnType", "OnType of another"} {
			t.Run(fmt.Sprintf("mailbox=%d/%s", mailbox, change), func(t *testing.T) {
				bus := testBus(t)
				var got tallies
				join := func(i int) *gravbus.Pod {
					pod := bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(mailbox))
					mustToo(t, pod.OnType("job", func(msg gravbus.Message) error { got.add(msg, i); return nil }))
					return pod
				}
				for i := range 2 {
					join(i)
				}
				stop := make(chan struct{})
				var churn sync.WaitGroup
				for i := range 2 {
					churn.Go(func() {
						pod := join(2 + i)
						for k := 0; ; k++ {
							select {
							case <-stop:
								return
							default:
							}
							if change == "Disconnect" {
								pod.Disconnect()
								pod = join(2 + i)
							} else if typ := "job"; k%2 == 0 {
								if change == "OnType of another" {
									typ = "another"
								}
								mustToo(t, pod.OnType(typ, func(msg gravbus.Message) error { got.add(msg, 2+i); return nil }, "other"))
							} else {
								mustToo(t, pod.On(func(msg gravbus.Message) error { got.add(msg, 2+i); return nil }))
							}
							runtime.Gosched()
						}
					})
				}
				sendAll(t, bus, senders, n, "job")
				close(stop)
				within(t, patience, churn.Wait)
				must(t, bus.Shutdown(t.Context()))
				sum := 0
				for _, k := range got.byMember(t, 4) {
					sum += k
				}
				if sum != senders*n {
					t.Errorf("%d of %d were lost", senders*n-sum, senders*n)
				}
				if d := bus.Stats().Dropped; d != 0 {
					t.Errorf("%d dropped", d)
				}
			})
		}
	}
}

// A member leaves: what waits stays for the others, or comes to who joins later; with the last member it is gone.
func TestGroupMemberLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		release := make(chan struct{})
		stuck := func(gravbus.Message) error { <-release; return nil }
		first, second := bus.Connect(gravbus.InGroup("g")), bus.Connect(gravbus.InGroup("g"))
		must(t, first.On(stuck))
		must(t, second.On(stuck))
		sender := bus.Connect()
		for i := range 10 {
			sender.Send(nth("a", 0, i))
			synctest.Wait()
		}
		go first.Disconnect()
		synctest.Wait()
		var got recorder
		must(t, bus.Connect(gravbus.InGroup("g")).On(got.handle))
		synctest.Wait()
		if n := numbers(t, got.all()); !slices.Equal(n, span(2, 9)) {
			t.Errorf("got %v", n)
		}
		close(release)
		synctest.Wait()
	})
}

// A member does not get what it sent; if nobody else is in the group nobody does.
func TestGroupNoEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		one, two := bus.Connect(gravbus.InGroup("g")), bus.Connect(gravbus.InGroup("g"))
		var gotOne, gotTwo recorder
		must(t, one.On(gotOne.handle))
		for range 5 {
			one.Send(nth("a", 1, 0))
		}
		if _, err := one.Request(t.Context(), nth("a", 1, 0)); !errors.Is(err, gravbus.ErrNoResponders) {
			t.Errorf("Request: %v", err)
		}
		must(t, two.On(gotTwo.handle))
		for i := range 50 {
			one.Send(nth("a", 1, i))
			two.Send(nth("a", 2, i))
		}
		synctest.Wait()
		for _, msg := range gotOne.all() {
			if s, _ := numberOf(msg); s != 2 {
				t.Error("echo to the first")
			}
		}
		for _, msg := range gotTwo.all() {
			if s, _ := numberOf(msg); s != 1 {
				t.Error("echo to the second")
			}
		}
		if a, b := len(gotOne.all()), len(gotTwo.all()); a != 50 || b != 50 {
			t.Errorf("%d and %d came", a, b)
		}
	})
}

// Concurrency in a group: each member runs up to its own number of calls at a time.
func TestGroupConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		widths := []int{1, 3, 4}
		most, now := make([]int, len(widths)), make([]int, len(widths))
		var mu sync.Mutex
		var got tallies
		for i, width := range widths {
			must(t, bus.Connect(gravbus.InGroup("g"), gravbus.Concurrency(width)).On(func(msg gravbus.Message) error {
				mu.Lock()
				now[i]++
				most[i] = max(most[i], now[i])
				mu.Unlock()
				take(time.Second)
				got.add(msg, i)
				mu.Lock()
				now[i]--
				mu.Unlock()
				return nil
			}))
		}
		sender := bus.Connect()
		began := time.Now()
		for i := range 80 {
			sender.Send(nth("a", 0, i))
		}
		must(t, bus.Shutdown(t.Context()))
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("80 messages, 8 at a time, took %v", took)
		}
		if n := got.byMember(t, 3); !slices.Equal(most, widths) || !slices.Equal(n, []int{10, 30, 40}) {
			t.Errorf("%v at a time, %v in all", most, n)
		}
	})
}

// A handler of a member fails: the message is that member's from then on.
func TestGroupFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var events recorder
		must(t, bus.Connect().OnType(gravbus.EventDeadLetter, events.handle))
		var good tallies
		bad := bus.Connect(gravbus.InGroup("g"), gravbus.MaxFailures(3))
		must(t, bad.On(func(gravbus.Message) error { return errHandler }))
		must(t, bus.Connect(gravbus.InGroup("g")).On(func(msg gravbus.Message) error { good.add(msg, 0); return nil }))
		sender := bus.Connect()
		for i := range 100 {
			sender.Send(nth("a", 0, i))
			synctest.Wait()
		}
		letters := deadLetters(t, &events)
		if n := good.byMember(t, 1)[0]; len(letters) != 3 || n != 97 {
			t.Errorf("%d dead letters, %d handled", len(letters), n)
		}
	})
}

// A group has one mailbox, with the policy of the member that came first; what it loses is told to one, and counted once.
func TestGroupOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		var events recorder
		must(t, bus.Connect().OnType(gravbus.EventPodLagged, events.handle))
		release := make(chan struct{})
		var got recorder
		for _, policy := range []gravbus.OverflowPolicy{gravbus.DropOldest, gravbus.Block} {
			must(t, bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(3), gravbus.Overflow(policy)).On(func(msg gravbus.Message) error {
				got.handle(msg)
				<-release
				return nil
			}))
		}
		sender := bus.Connect()
		for i := range 10 {
			sender.Send(nth("a", 0, i))
			synctest.Wait()
		}
		s := bus.Stats()
		if s.Dropped != 5 {
			t.Errorf("%d dropped", s.Dropped)
		}
		for _, p := range s.Pods[1:3] {
			if p.Group != "g" || p.Depth != 3 || p.Dropped != 5 || p.Lags != 1 {
				t.Errorf("stats %+v", p)
			}
		}
		close(release)
		synctest.Wait()
		n := numbers(t, got.all())
		slices.Sort(n)
		if !slices.Equal(n, []int{-5, 0, 1, 7, 8, 9}) || len(events.all()) != 1 {
			t.Errorf("got %v, %d events", n, len(events.all()))
		}
	})
}

// The stall limit is that of the member that has been there longest, also when who came first has left.
func TestGroupStallLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100 * time.Millisecond
		bus := testBus(t)
		first := bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(4), gravbus.StallLimit(time.Hour))
		must(t, first.OnType("stuck", nop, "a"))
		stuck := connectStuck(t, bus, gravbus.InGroup("g"), gravbus.StallLimit(limit))
		defer close(stuck.release)
		third := bus.Connect(gravbus.InGroup("g"), gravbus.StallLimit(time.Minute))
		must(t, third.OnType("b", nop))
		first.Disconnect()
		sender := bus.Connect()
		fill(t, sender, 4)
		began := time.Now()
		sender.Send(nth("a", 0, 5))
		if took := time.Since(began); took != limit {
			t.Errorf("the sender waited %v", took)
		}
	})
}

// A change of what a member wants discards what nobody wants any more. That is no loss that is counted twice, and senders that waited for room get it.
func TestGroupChangeMakesRoom(t *testing.T) {
	for _, policy := range []gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block} {
		t.Run(fmt.Sprint("policy=", policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				stuck := connectStuck(t, bus, gravbus.InGroup("g"), gravbus.Mailbox(4), gravbus.Overflow(policy))
				sender := bus.Connect()
				fill(t, sender, 4)
				began := time.Now()
				sent := make(chan time.Duration, 1)
				go func() {
					sender.Send(nth("a", 0, 5))
					sent <- time.Since(began)
				}()
				synctest.Wait()
				must(t, stuck.OnType("b", stuck.handle))
				take(time.Minute)
				select {
				case took := <-sent:
					if took != 0 {
						t.Errorf("the sender waited %v when there was room", took)
					}
				default:
					t.Error("the sender waits, though the mailbox is empty")
				}
				var told uint64
				close(stuck.release)
				synctest.Wait()
				for _, msg := range stuck.all() {
					if msg.Type() == gravbus.MsgTypeLagged {
						told += laggedIn(t, msg).Count
					}
				}
				if s := bus.Stats(); s.Dropped != told || s.Dropped != stuck.Stats().Dropped {
					t.Errorf("%d dropped in the bus's Stats, %d in the pod's, %d told", s.Dropped, stuck.Stats().Dropped, told)
				}
			})
		})
	}
}

// Requests: a group counts as one, and any member may answer.
func TestGroupRequestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		for g := range 3 {
			for m := range 2 {
				pod := bus.Connect(gravbus.InGroup(fmt.Sprint("g", g)), gravbus.Name(fmt.Sprintf("g%d-m%d", g, m)))
				must(t, pod.OnType("ask", func(msg gravbus.Message) error {
					pod.ReplyTo(msg, gravbus.NewMsg("answer", []byte(pod.Name())))
					return nil
				}))
			}
		}
		asker := bus.Connect()
		for range 10 {
			n := 0
			for _, err := range asker.RequestAll(t.Context(), gravbus.NewMsg("ask", nil)) {
				must(t, err)
				n++
			}
			if n != 3 {
				t.Errorf("%d replies of 3 groups", n)
			}
		}
	})
}
