package gravbus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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

// The tests of the guarantees that doc.go and the project's design number are in the files that follow their themes: order_test.go has 1 and 2,
// overflow_test.go 5, failure_test.go 6, wait_test.go and receipt_test.go 7, replay_test.go 8, lifecycle_test.go 9 and 10, group_test.go the groups, and this one 3, 4, 11, requests,
// receipts and typed payloads. property_test.go tries random programs.

// foreign is a Message of others' making.
type foreign struct {
	gravbus.Message
	id string // instead of the UUID, if not empty
}

func (f *foreign) UUID() string {
	if f.id != "" {
		return f.id
	}
	return f.Message.UUID()
}

// A pod gets nothing of what it sent, by whatever way it listens.
func TestGuarantee3NoEcho(t *testing.T) {
	for name, opts := range map[string][]gravbus.PodOption{
		"default":     nil,
		"mailbox=1":   {gravbus.Mailbox(1)},
		"replay":      {gravbus.Replay()},
		"private":     {gravbus.Overflow(gravbus.DropOldest)},
		"concurrency": {gravbus.Concurrency(3)},
		"group":       {gravbus.InGroup("g")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				pod, other := bus.Connect(opts...), bus.Connect()
				var mine, theirs recorder
				pod.Send(nth("a", 1, 0)) // in the buffer
				must(t, pod.On(mine.handle))
				must(t, other.On(theirs.handle))
				loop := make(chan int)
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					n := 0
					for msg := range pod.Messages(ctx) {
						if sender, _ := numberOf(msg); sender == 1 {
							t.Error("echo in Messages")
						}
						n++
					}
					loop <- n
				}()
				waited := make(chan error, 1)
				go func() {
					waited <- pod.WaitUntil(gravbus.Timeout(5), func(msg gravbus.Message) error {
						if sender, _ := numberOf(msg); sender == 1 {
							return errHandler
						}
						return gravbus.ErrMsgNotWanted
					})
				}()
				synctest.Wait()
				msg := nth("a", 1, 1)
				pod.Send(msg)
				pod.Send(msg)                                         // again
				pod.Send(gravbus.NewMsgReplyTo(nil, "a", msg.Data())) // otherwise made
				pod.ReplyTo(msg, nth("a", 1, 2))                      // an answer to itself
				pod.Send(&foreign{Message: nth("a", 1, 3)})
				other.Send(nth("a", 2, 0))
				synctest.Wait()
				for _, m := range mine.all() {
					if sender, _ := numberOf(m); sender == 1 {
						t.Error("echo in the handler")
					}
				}
				if err := <-waited; !errors.Is(err, gravbus.ErrWaitTimeout) {
					t.Errorf("the wait: %v", err)
				}
				cancel()
				if n := <-loop; n == 0 {
					t.Error("nothing came to the loop")
				}
				if n := len(theirs.all()); n < 5 {
					t.Errorf("%d came to the other pod", n)
				}
			})
		})
	}
}

// A request that only the pod itself could answer has no responders.
func TestGuarantee3NoEchoOfRequests(t *testing.T) {
	bus := testBus(t)
	pod := bus.Connect()
	must(t, pod.On(func(msg gravbus.Message) error { pod.ReplyTo(msg, gravbus.NewMsg("answer", nil)); return nil }))
	if _, err := pod.Request(t.Context(), gravbus.NewMsg("ask", nil)); !errors.Is(err, gravbus.ErrNoResponders) {
		t.Errorf("error %v", err)
	}
}

// A message that another pod sends on is not the first one's any more: it comes to it.
func TestGuarantee3SentOnIsNoEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		one, two := bus.Connect(), bus.Connect()
		var gotOne, gotTwo recorder
		must(t, one.On(gotOne.handle))
		must(t, two.On(gotTwo.handle))
		msg := nth("a", 1, 0)
		one.Send(msg)
		two.Send(msg)
		synctest.Wait()
		if len(gotOne.all()) != 1 || len(gotTwo.all()) != 1 {
			t.Errorf("%d and %d came", len(gotOne.all()), len(gotTwo.all()))
		}
	})
}

// A ring in which no message of the pod's own takes room: senders that also listen never wait for themselves.
func TestGuarantee3OwnMessagesTakeNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, other := bus.Connect(gravbus.Mailbox(2)), bus.Connect(gravbus.Mailbox(2))
		release := make(chan struct{})
		var got recorder
		must(t, pod.On(func(msg gravbus.Message) error { <-release; return got.handle(msg) }))
		must(t, other.On(nop))
		other.Send(nth("a", 0, 0))
		synctest.Wait()
		began := time.Now()
		for range 100 {
			pod.Send(nth("a", 1, 0))
			synctest.Wait()
		}
		other.Send(nth("a", 0, 1))
		other.Send(nth("a", 0, 2))
		if took := time.Since(began); took != 0 {
			t.Errorf("took %v", took)
		}
		if s := pod.Stats(); s.Depth != 2 || s.Dropped != 0 {
			t.Errorf("stats %+v", s)
		}
		close(release)
		synctest.Wait()
		if n := numbers(t, got.all()); !slices.Equal(n, span(0, 2)) {
			t.Errorf("got %v", n)
		}
	})
}

func TestGuarantee4OneCallAtATime(t *testing.T) {
	const senders, n = 4, 1500
	for name, opts := range map[string][]gravbus.PodOption{
		"default":        nil,
		"mailbox=1":      {gravbus.Mailbox(1)},
		"private":        {gravbus.Overflow(gravbus.Block)},
		"replay":         {gravbus.Replay()},
		"concurrency=1":  {gravbus.Concurrency(1)},
		"concurrency=-1": {gravbus.Concurrency(-1)},
	} {
		t.Run(name, func(t *testing.T) {
			bus := testBus(t)
			pod := bus.Connect(opts...)
			var inside atomic.Int32
			unguarded, failures := 0, 0
			handle := func(gravbus.Message) error {
				if inside.Add(1) != 1 {
					t.Error("two calls at a time")
				}
				defer inside.Add(-1)
				unguarded++
				switch unguarded % 100 {
				case 1:
					runtime.Gosched()
				case 50:
					failures++
					return errHandler
				case 60:
					failures++
					panic("boom")
				case 70:
					failures++
					runtime.Goexit()
				}
				return nil
			}
			must(t, pod.On(handle))
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
						mustToo(t, pod.OnType("a", handle, fmt.Sprint("b.", i%2)))
						runtime.Gosched()
					}
				}
			})
			sendAll(t, bus, senders, n, "a")
			close(stop)
			within(t, patience, wg.Wait)
			must(t, bus.Shutdown(t.Context()))
			if s := bus.Stats(); unguarded < senders*n || s.Failed != uint64(failures) || s.Delivered+s.Failed != uint64(unguarded) {
				t.Errorf("%d calls, %d failures, stats %+v", unguarded, failures, s)
			}
		})
	}
}

// Concurrency(n) lets n calls run, and never one more.
func TestGuarantee4Concurrency(t *testing.T) {
	for _, width := range []int{2, 3, 8, 50} {
		for _, mailbox := range []int{1, 4, 1024} {
			t.Run(fmt.Sprintf("width=%d/mailbox=%d", width, mailbox), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					now, most := 0, 0
					var mu sync.Mutex
					var begun []int
					pod := bus.Connect(gravbus.Concurrency(width), gravbus.Mailbox(mailbox))
					must(t, pod.On(func(msg gravbus.Message) error {
						mu.Lock()
						_, i := numberOf(msg)
						begun = append(begun, i)
						now++
						most = max(most, now)
						mu.Unlock()
						take(100 * time.Millisecond)
						mu.Lock()
						now--
						mu.Unlock()
						return nil
					}))
					sender := bus.Connect()
					began := time.Now()
					n := 10 * width
					for i := range n {
						sender.Send(nth("a", 0, i))
						if i%7 == 0 {
							synctest.Wait()
						}
					}
					must(t, bus.Shutdown(t.Context()))
					if most != width {
						t.Errorf("%d calls at a time", most)
					}
					if took := time.Since(began); took != time.Second {
						t.Errorf("took %v", took)
					}
					slices.Sort(begun)
					if !slices.Equal(begun, span(0, n-1)) {
						t.Errorf("handled %v", begun)
					}
				})
			})
		}
	}
}

// The same under load, with replay and changes, in real time.
func TestGuarantee4ConcurrencyUnderLoad(t *testing.T) {
	const width, senders, n = 3, 3, 1500
	for name, opts := range map[string][]gravbus.PodOption{"": nil, "replay": {gravbus.Replay()}, "mailbox=2": {gravbus.Mailbox(2)}} {
		t.Run(name, func(t *testing.T) {
			bus := testBus(t)
			sender := bus.Connect()
			for i := range 100 {
				sender.Send(nth("a", 9, i))
			}
			var now, most atomic.Int32
			var got tallies
			pod := bus.Connect(append(opts, gravbus.Concurrency(width))...)
			handle := func(msg gravbus.Message) error {
				k := now.Add(1)
				defer now.Add(-1)
				for m := most.Load(); k > m && !most.CompareAndSwap(m, k); m = most.Load() {
				}
				runtime.Gosched()
				got.add(msg, 0)
				return nil
			}
			must(t, pod.On(handle))
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
						mustToo(t, pod.OnType("a", handle, fmt.Sprint("b.", i%2)))
						runtime.Gosched()
					}
				}
			})
			sendAll(t, bus, senders, n, "a")
			close(stop)
			within(t, patience, wg.Wait)
			must(t, bus.Shutdown(t.Context()))
			want := senders * n
			if name == "replay" {
				want += 100
			}
			if k := got.byMember(t, 1)[0]; k != want || most.Load() > width {
				t.Errorf("%d of %d handled, %d at a time", k, want, most.Load())
			}
		})
	}
}

// What is sent does not change, and says so.
func TestGuarantee11Immutable(t *testing.T) {
	bus := testBus(t)
	pod, other := bus.Connect(), bus.Connect()
	var got recorder
	must(t, other.On(got.handle))
	for _, msg := range []gravbus.Message{
		gravbus.NewMsg("a", []byte("data")), gravbus.NewMsgWithParentID("a", "parent", []byte("data")), gravbus.NewTyped("a", "data"),
	} {
		answered := gravbus.NewMsg("asked", nil)
		msg.SetReplyTo(answered.UUID())
		before, err := msg.Marshal()
		must(t, err)
		pod.Send(msg)
		msg.SetReplyTo(gravbus.NewMsg("a", nil).UUID())
		if msg.ReplyTo() != answered.UUID() {
			t.Error("SetReplyTo changed a message that was sent")
		}
		fresh, err := gravbus.NewMsg("b", []byte("other")).Marshal()
		must(t, err)
		if err := msg.Unmarshal(fresh); !errors.Is(err, gravbus.ErrImmutable) {
			t.Errorf("Unmarshal: %v", err)
		}
		after, err := msg.Marshal()
		must(t, err)
		if string(before) != string(after) {
			t.Errorf("%s became %s", before, after)
		}
	}
	for _, msg := range got.await(t, 3) {
		if msg.Type() != "a" {
			t.Errorf("type %s", msg.Type())
		}
	}
}

// Any number of pods read a message at the same time, and its sender too, whatever it does with it: the race detector watches.
func TestGuarantee11ReadByAll(t *testing.T) {
	for name, make := range map[string]func() gravbus.Message{
		"bytes": func() gravbus.Message { return gravbus.NewMsgWithParentID("a", "p", []byte(`{"n":1}`)) },
		"typed": func() gravbus.Message { return gravbus.NewTyped("a", map[string]int{"n": 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			bus := testBus(t)
			var wg sync.WaitGroup
			read := func(msg gravbus.Message) error {
				var v map[string]int
				if err := msg.UnmarshalData(&v); err != nil || v["n"] != 1 {
					t.Errorf("data %s, %v", msg.Data(), err)
				}
				_, _ = msg.Marshal()
				_ = fmt.Sprint(msg.UUID(), msg.ParentID(), msg.ReplyTo(), msg.Type(), msg.Timestamp(), msg.Data())
				msg.SetReplyTo("someone")
				return nil
			}
			const pods, n = 4, 200
			for range pods {
				must(t, bus.Connect().OnType("a", func(msg gravbus.Message) error { defer wg.Done(); return read(msg) }))
			}
			sender := bus.Connect()
			for range n {
				wg.Add(pods)
				msg := make()
				sender.Send(msg)
				must(t, read(msg))
			}
			within(t, patience, wg.Wait)
		})
	}
}

// A message may be sent again, by the same pod and by others, one after the other and at once: each time it is delivered, and its replies reach its receipts.
func TestGuarantee11SentAgain(t *testing.T) {
	for name, make := range map[string]func() gravbus.Message{
		"ours":    func() gravbus.Message { return gravbus.NewMsg("ask", nil) },
		"typed":   func() gravbus.Message { return gravbus.NewTyped("ask", 1) },
		"foreign": func() gravbus.Message { return &foreign{Message: gravbus.NewMsg("ask", nil)} },
	} {
		for _, byUUID := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/byUUID=%t", name, byUUID), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := testBus(t)
					one, two, other := bus.Connect(), bus.Connect(), bus.Connect()
					var got recorder
					must(t, other.OnType("ask", got.handle))
					msg := make()
					first, again, second := one.Send(msg), one.Send(msg), two.Send(msg)
					synctest.Wait()
					if all := got.all(); len(all) != 3 || all[0].UUID() != msg.UUID() || all[2].UUID() != msg.UUID() {
						t.Fatalf("%d came", len(all))
					}
					for _, r := range []*gravbus.Receipt{first, again, second} {
						if r.UUID() != msg.UUID() {
							t.Errorf("receipt of %s", r.UUID())
						}
					}
					reply := func(i int) {
						m := nth("answer", 0, i)
						if byUUID {
							m.SetReplyTo(msg.UUID())
							other.Send(m)
						} else {
							other.ReplyTo(msg, m)
						}
					}
					// Each of them gets a reply, before it waits and after.
					i := 0
					for _, r := range []*gravbus.Receipt{first, again, second, second, first} {
						reply(i)
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						m, err := r.Wait(ctx)
						if err != nil {
							t.Errorf("wait %d before: %v", i, err)
						} else if _, n := numberOf(m); n != i {
							t.Errorf("reply %d, want %d", n, i)
						}
						i++
						time.AfterFunc(500*time.Millisecond, func() { reply(i) })
						m, err = r.Wait(ctx)
						if err != nil {
							t.Errorf("wait %d after: %v", i, err)
						} else if _, n := numberOf(m); n != i {
							t.Errorf("reply %d, want %d", n, i)
						}
						i++
						cancel()
					}
					// All at once, with one reply for each.
					var wg sync.WaitGroup
					for _, r := range []*gravbus.Receipt{first, again, second} {
						wg.Go(func() {
							ctx, cancel := context.WithTimeout(t.Context(), time.Second)
							defer cancel()
							if _, err := r.Wait(ctx); err != nil {
								t.Errorf("waiting at once: %v", err)
							}
						})
					}
					synctest.Wait()
					for range 3 {
						reply(0)
					}
					wg.Wait()
				})
			})
		}
	}
}

// Many pods send one message at the same time.
func TestGuarantee11SentByManyAtOnce(t *testing.T) {
	const pods, each = 4, 300
	bus := testBus(t)
	var n atomic.Int64
	must(t, bus.Connect(gravbus.Mailbox(16)).OnType("a", func(gravbus.Message) error { n.Add(1); return nil }))
	for range 10 {
		msg := gravbus.NewMsg("a", nil)
		var wg sync.WaitGroup
		for range pods {
			pod := bus.Connect()
			wg.Go(func() {
				for range each {
					if pod.Send(msg).UUID() != msg.UUID() {
						t.Error("another UUID")
					}
				}
			})
		}
		within(t, patience, wg.Wait)
	}
	must(t, bus.Shutdown(t.Context()))
	if n.Load() != 10*pods*each {
		t.Errorf("%d of %d came", n.Load(), 10*pods*each)
	}
}

// A message that was sent becomes a reply as a copy; the one that was sent stays what it is.
func TestGuarantee11ReplyToWithASentMessage(t *testing.T) {
	bus := testBus(t)
	asker, other := bus.Connect(), bus.Connect()
	ready := gravbus.NewTyped("answer", "value")
	other.Send(ready)
	var uuids []string
	for range 3 {
		ask := gravbus.NewMsg("ask", nil)
		receipt := asker.Send(ask)
		other.ReplyTo(ask, ready)
		reply, err := receipt.Wait(t.Context())
		must(t, err)
		if v, err := gravbus.Decode[string](reply); v != "value" || err != nil || reply.ReplyTo() != ask.UUID() || reply.UUID() == ready.UUID() {
			t.Errorf("reply %q, %v to %s", v, err, reply.ReplyTo())
		}
		uuids = append(uuids, reply.UUID())
	}
	slices.Sort(uuids)
	if len(slices.Compact(uuids)) != 3 || ready.ReplyTo() != "" {
		t.Errorf("UUIDs %v, the original answers %q", uuids, ready.ReplyTo())
	}
}

// Messages of others' making are carried like all others, even if their UUID is none.
func TestForeignMessages(t *testing.T) {
	for _, id := range []string{"", "order-17", "x", "01234567-89ab-cdef-0123-456789abcdef", "{01234567-89ab-cdef-0123-456789abcdef}", "not-a-uuid-but-of-36-characters-long"} {
		t.Run(id, func(t *testing.T) {
			bus := testBus(t)
			asker, other := bus.Connect(), bus.Connect()
			must(t, other.OnType("ask", func(msg gravbus.Message) error {
				if id != "" && msg.UUID() != id {
					t.Errorf("UUID %q", msg.UUID())
				}
				m := gravbus.NewMsg("answer", nil)
				m.SetReplyTo(msg.UUID())
				other.Send(m)
				other.ReplyTo(msg, gravbus.NewMsg("answer", nil))
				other.ReplyTo(msg, &foreign{gravbus.NewMsg("answer", nil), "reply"})
				return nil
			}))
			for range 2 {
				ask := &foreign{gravbus.NewMsg("ask", nil), id}
				receipt := asker.Send(ask)
				if receipt.UUID() != ask.UUID() {
					t.Errorf("the receipt's UUID is %q", receipt.UUID())
				}
				for i := range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					reply, err := receipt.Wait(ctx)
					cancel()
					must(t, err)
					if reply.ReplyTo() != ask.UUID() {
						t.Errorf("reply %d answers %q", i, reply.ReplyTo())
					}
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			ask := &foreign{gravbus.NewMsg("ask", nil), id}
			if reply, err := asker.Request(ctx, ask); err != nil || reply.ReplyTo() != ask.UUID() {
				t.Errorf("Request: %v", err)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		asker := bus.Connect()
		began := time.Now()
		if _, err := asker.Request(t.Context(), gravbus.NewMsg("ask", nil)); !errors.Is(err, gravbus.ErrNoResponders) || time.Since(began) != 0 {
			t.Errorf("without responders: %v after %v", err, time.Since(began))
		}
		silent := bus.Connect()
		must(t, silent.OnType("ask", nop))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := asker.Request(ctx, gravbus.NewMsg("ask", nil)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("with a silent one: %v after %v", err, time.Since(began))
		}
		var wg sync.WaitGroup
		for i := range 3 {
			pod := bus.Connect()
			must(t, pod.OnType("ask", func(msg gravbus.Message) error {
				take(time.Duration(i+1) * time.Second)
				_, n := numberOf(msg)
				pod.ReplyTo(msg, nth("answer", i, n))
				return nil
			}))
		}
		for n := range 2 { // one goroutine each, on one pod: each gets the answer to its own
			wg.Go(func() {
				reply, err := asker.Request(t.Context(), nth("ask", 0, n))
				mustToo(t, err)
				if who, i := numberOf(reply); i != n || who != 0 {
					t.Errorf("request %d got the answer to %d by %d", n, i, who)
				}
			})
		}
		wg.Wait()
		silent.Disconnect()
		for name, c := range map[string]struct {
			msg  gravbus.Message
			want error
		}{"nil": {nil, gravbus.ErrNilMessage}, "type": {gravbus.NewMsg("a..b", nil), gravbus.ErrInvalidType}, "reserved": {gravbus.NewMsg("gravbus.x", nil), gravbus.ErrReservedType}} {
			if _, err := asker.Request(t.Context(), c.msg); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// A request that some had no room for is answered by the others; if nobody had, that is the error.
func TestRequestWhereSomeAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		release := make(chan struct{})
		must(t, bus.Connect(gravbus.Mailbox(1), gravbus.Overflow(gravbus.Fail), gravbus.Name("full")).OnType("ask", func(gravbus.Message) error { <-release; return nil }))
		asker := bus.Connect()
		asker.Send(gravbus.NewMsg("ask", nil))
		synctest.Wait()
		asker.Send(gravbus.NewMsg("ask", nil))
		if _, err := asker.Request(t.Context(), gravbus.NewMsg("ask", nil)); !errors.Is(err, gravbus.ErrMailboxFull) {
			t.Errorf("error %v", err)
		}
		other := bus.Connect()
		must(t, other.OnType("ask", func(msg gravbus.Message) error { other.ReplyTo(msg, gravbus.NewMsg("answer", nil)); return nil }))
		if reply, err := asker.Request(t.Context(), gravbus.NewMsg("ask", nil)); err != nil || reply == nil {
			t.Errorf("error %v", err)
		}
		n := 0
		for _, err := range asker.RequestAll(t.Context(), gravbus.NewMsg("ask", nil)) {
			must(t, err)
			n++
		}
		if n != 1 {
			t.Errorf("%d replies", n)
		}
		close(release)
	})
}

func TestRequestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		asker := bus.Connect()
		collect := func(ctx context.Context) (replies []string, err error) {
			for msg, e := range asker.RequestAll(ctx, gravbus.NewMsg("ask", nil)) {
				if err != nil {
					t.Error("something came after the error")
				}
				if err = e; e == nil {
					replies = append(replies, string(msg.Data()))
				}
			}
			return replies, err
		}
		if _, err := collect(t.Context()); !errors.Is(err, gravbus.ErrNoResponders) {
			t.Errorf("without responders: %v", err)
		}
		pods := map[string]*gravbus.Pod{}
		connect := func(name string, after time.Duration, opts ...gravbus.PodOption) {
			pod := bus.Connect(append(opts, gravbus.Name(name))...)
			pods[name] = pod
			must(t, pod.OnType("ask", func(msg gravbus.Message) error {
				if after >= 0 {
					take(after)
					pod.ReplyTo(msg, gravbus.NewMsg("answer", []byte(name)))
				}
				return nil
			}))
		}
		connect("c", 3*time.Second)
		connect("a", time.Second)
		connect("b", 2*time.Second)
		began := time.Now()
		if got, err := collect(t.Context()); err != nil || !slices.Equal(got, []string{"a", "b", "c"}) || time.Since(began) != 3*time.Second {
			t.Errorf("all: %v, %v after %v", got, err, time.Since(began))
		}

		// Some are silent: the context ends it, and they are named, sorted; the members of a group together.
		connect("y", -1)
		connect("x", -1)
		connect("m", -1, gravbus.InGroup("g"))
		connect("n", -1, gravbus.InGroup("g"))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began = time.Now()
		got, err := collect(ctx)
		var missing *gravbus.MissingError
		if !errors.As(err, &missing) || !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(missing.Pods, []string{"m|n", "x", "y"}) {
			t.Errorf("missing: %v", err)
		}
		if !slices.Equal(got, []string{"a", "b", "c"}) || time.Since(began) != 10*time.Second {
			t.Errorf("got %v after %v", got, time.Since(began))
		}

		// They leave: that ends it. Of the group both have to.
		time.AfterFunc(4*time.Second, pods["x"].Disconnect)
		time.AfterFunc(5*time.Second, pods["m"].Disconnect)
		time.AfterFunc(6*time.Second, pods["y"].Disconnect)
		time.AfterFunc(7*time.Second, pods["n"].Disconnect)
		began = time.Now()
		if got, err := collect(t.Context()); err != nil || len(got) != 3 || time.Since(began) != 7*time.Second {
			t.Errorf("leaving: %v, %v after %v", got, err, time.Since(began))
		}

		// Leaving the loop ends it too.
		for range asker.RequestAll(t.Context(), gravbus.NewMsg("ask", nil)) {
			break
		}
		// A pod that has a handler and waits besides is asked once.
		go func() { pods["a"].WaitUntil(gravbus.Timeout(60), notWanted) }()
		synctest.Wait()
		if got, err := collect(t.Context()); err != nil || len(got) != 3 {
			t.Errorf("with a wait: %v, %v", got, err)
		}
		// An asker that leaves.
		time.AfterFunc(time.Millisecond, asker.Disconnect)
		if _, err := collect(t.Context()); !errors.Is(err, gravbus.ErrDisconnected) {
			t.Errorf("asker gone: %v", err)
		}
		take(time.Minute)
	})
}

// RequestAll under load: responders come and go, and no request hangs or ends without those who stayed.
func TestRequestAllWhilePodsComeAndGo(t *testing.T) {
	const stay = 3
	bus := testBus(t)
	respond := func(name string) *gravbus.Pod {
		pod := bus.Connect(gravbus.Name(name))
		mustToo(t, pod.OnType("ask", func(msg gravbus.Message) error {
			pod.ReplyTo(msg, gravbus.NewMsg("answer", []byte(name)))
			return nil
		}))
		return pod
	}
	for i := range stay {
		respond(fmt.Sprint("stay-", i))
	}
	stop := make(chan struct{})
	var churn sync.WaitGroup
	for range 2 {
		churn.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					respond("come-and-go").Disconnect()
					runtime.Gosched()
				}
			}
		})
	}
	var askers sync.WaitGroup
	for range 3 {
		asker := bus.Connect()
		askers.Go(func() {
			for range 200 {
				stayed := 0
				for msg, err := range asker.RequestAll(context.Background(), gravbus.NewMsg("ask", nil)) {
					mustToo(t, err)
					if err == nil && string(msg.Data()[:4]) == "stay" {
						stayed++
					}
				}
				if stayed != stay {
					t.Errorf("%d of %d who stayed", stayed, stay)
				}
			}
		})
	}
	within(t, patience, askers.Wait)
	close(stop)
	within(t, patience, churn.Wait)
}

type orderPayload struct {
	ID    int      `json:"id"`
	Items []string `json:"items"`
}

// A value that is sent in the process is handed over as it is: the same one, and never encoded.
func TestTypedPayloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, sender := bus.Connect(), bus.Connect()
		sent := &payload{}
		var got []*payload
		must(t, gravbus.On(pod, "v.*", func(ctx context.Context, v *payload) error {
			if gravbus.MessageFrom(ctx).Type() != "v.x" {
				t.Error("no message in the context")
			}
			got = append(got, v)
			return nil
		}))
		sender.Send(gravbus.NewTyped("v.x", sent))
		synctest.Wait()
		if len(got) != 1 || got[0] != sent || sent.encoded.Load() != 0 {
			t.Errorf("got %v, encoded %d times", got, sent.encoded.Load())
		}

		// Bytes are decoded, and what cannot be is a failure.
		var orders []orderPayload
		must(t, gravbus.On(pod, "order", func(_ context.Context, o orderPayload) error { orders = append(orders, o); return nil }))
		sender.Send(gravbus.NewMsg("order", []byte(`{"id":7,"items":["a"]}`)))
		sender.Send(gravbus.NewMsg("order", []byte(`no JSON`)))
		sender.Send(gravbus.NewTyped("order", map[string]any{"id": 8}))
		synctest.Wait()
		if len(orders) != 2 || orders[0].ID != 7 || orders[1].ID != 8 || pod.Stats().Failed < 1 {
			t.Errorf("orders %+v, stats %+v", orders, pod.Stats())
		}
	})
}

// payload counts how often it is encoded.
type payload struct{ encoded atomic.Int32 }

func (c *payload) MarshalJSON() ([]byte, error) {
	c.encoded.Add(1)
	return []byte(`{}`), nil
}

func TestTypedRequests(t *testing.T) {
	bus := testBus(t)
	server, client := bus.Connect(), bus.Connect()
	must(t, gravbus.Handle(server, "orders.get", func(_ context.Context, id int) (orderPayload, error) {
		switch id {
		case 1:
			return orderPayload{ID: 1}, nil
		case 2:
			panic("boom")
		}
		return orderPayload{}, fmt.Errorf("no order %d", id)
	}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if o, err := gravbus.Request[orderPayload](ctx, client, "orders.get", 1); err != nil || o.ID != 1 {
		t.Errorf("%+v, %v", o, err)
	}
	var remote *gravbus.RemoteError
	if _, err := gravbus.Request[orderPayload](ctx, client, "orders.get", 3); !errors.As(err, &remote) || remote.Message != "no order 3" {
		t.Errorf("error %v", err)
	}
	for range 2 * gravbus.DefaultMaxFailures { // is told, and does the server no harm
		if _, err := gravbus.Request[orderPayload](ctx, client, "orders.get", "one"); !errors.As(err, &remote) || !strings.Contains(remote.Message, "no int") {
			t.Fatalf("error %v", err)
		}
	}
	var wrong *gravbus.PayloadError
	if _, err := gravbus.Request[int](ctx, client, "orders.get", 1); !errors.As(err, &wrong) || wrong.Want != "int" || wrong.Type != "orders.get.reply" {
		t.Errorf("error %v", err)
	}
	if _, err := gravbus.Request[orderPayload](ctx, client, "orders.none", 1); !errors.Is(err, gravbus.ErrNoResponders) {
		t.Errorf("error %v", err)
	}
	// The context of a typed handler ends with its pod.
	begun, ended := make(chan struct{}), make(chan struct{})
	must(t, gravbus.On(server, "orders.watch", func(ctx context.Context, _ int) error {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil
	}))
	client.Send(gravbus.NewTyped("orders.watch", 1))
	awaitDone(t, patience, begun)
	within(t, patience, server.Disconnect)
	awaitDone(t, patience, ended)
}

// Whose pattern matches the types of answers too does not answer those: two pods would do so for
// ever, and fail on each other's.
func TestHandlePassesOverAnswers(t *testing.T) {
	const requests = 100
	for group, calls := range map[string]int64{"": 2 * requests, "workers": requests} {
		t.Run("group="+group, func(t *testing.T) {
			bus := testBus(t)
			var called atomic.Int64
			for range 2 {
				must(t, gravbus.Handle(bus.Connect(gravbus.InGroup(group)), "jobs.>", func(_ context.Context, o orderPayload) (string, error) {
					called.Add(1)
					if o.ID%2 == 0 {
						return "", errors.New("even")
					}
					return "done", nil
				}))
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			client := bus.Connect()
			for i := range requests {
				text, err := gravbus.Request[string](ctx, client, "jobs.add", orderPayload{ID: i})
				if remote := (*gravbus.RemoteError)(nil); text != "done" && !errors.As(err, &remote) {
					t.Fatalf("request %d: %q, %v", i, text, err)
				}
			}
			must(t, bus.Shutdown(ctx))
			if s := bus.Stats(); called.Load() != calls || s.Failed != 0 || s.DeadLetters != 0 {
				t.Errorf("%d calls, want %d; %d failed, %d dead letters", called.Load(), calls, s.Failed, s.DeadLetters)
			}
		})
	}
}

// Who asks is told of a reply that cannot be sent, and gets one whatever the type of its request.
func TestHandleReplyThatCannotBeSent(t *testing.T) {
	limit := gravbus.UseMaxMessageSize(1000)
	for _, c := range []struct {
		name, typ string
		reply     any
		opts      []gravbus.Option
		want      string // in the error; empty for none
	}{
		{"type of 249 bytes", strings.Repeat("x", 249), "done", nil, ""},
		{"type of 250 bytes", strings.Repeat("x", 250), "done", nil, ""},
		{"type of 255 bytes", strings.Repeat("x", 255), "done", nil, ""},
		{"error for a type of 255 bytes", strings.Repeat("x", 255), errors.New("no"), nil, "no"},
		{"too large", "ask", strings.Repeat("x", 1000), []gravbus.Option{limit}, gravbus.ErrMessageTooLarge.Error()},
		{"error too large", "ask", errors.New(strings.Repeat("x", 1000)), []gravbus.Option{limit}, gravbus.ErrMessageTooLarge.Error()},
		{"not to be encoded", "ask", math.NaN(), []gravbus.Option{limit}, "unsupported value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bus := testBus(t, c.opts...)
			must(t, gravbus.Handle(bus.Connect(), c.typ, func(context.Context, int) (any, error) {
				if err, ok := c.reply.(error); ok {
					return nil, err
				}
				return c.reply, nil
			}))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			got, err := gravbus.Request[any](ctx, bus.Connect(), c.typ, 1)
			var remote *gravbus.RemoteError
			switch {
			case c.want == "" && (err != nil || got != c.reply):
				t.Errorf("%v, %v", got, err)
			case c.want != "" && (!errors.As(err, &remote) || !strings.Contains(remote.Message, c.want)):
				t.Errorf("%v, want %s", err, c.want)
			}
			if s := bus.Stats(); s.Failed != 0 {
				t.Errorf("%d failed", s.Failed)
			}
		})
	}
}

// A request that got no answer at all counts as failed.
func TestHandleNothingCanBeSent(t *testing.T) {
	bus := testBus(t)
	letters := make(chan gravbus.Message, 1)
	must(t, bus.Connect().OnType(gravbus.EventDeadLetter, func(msg gravbus.Message) error {
		letters <- msg
		return nil
	}))
	server := bus.Connect()
	must(t, gravbus.Handle(server, "leave", func(context.Context, int) (int, error) {
		server.Disconnect()
		return 1, nil
	}))
	bus.Connect().Send(gravbus.NewTyped("leave", 1))
	letter, err := gravbus.Decode[gravbus.DeadLetter](awaitDone(t, patience, letters))
	if err != nil || letter.Message.Type() != "leave" || letter.Error != gravbus.ErrDisconnected.Error() {
		t.Errorf("%+v, %v", letter, err)
	}
}

// Filters refuse, and take that back; they outlast On.
func TestFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t)
		pod, sender := bus.Connect(), bus.Connect()
		var got recorder
		send := func(want ...string) {
			t.Helper()
			before := len(got.all())
			for _, typ := range []string{"a", "b.x", "b.y", "c"} {
				sender.Send(gravbus.NewMsg(typ, nil))
			}
			synctest.Wait()
			if types := typesOf(got.all()[before:]); !slices.Equal(types, want) {
				t.Errorf("got %v, want %v", types, want)
			}
		}
		must(t, pod.FilterType("a", false)) // before there is a handler
		must(t, pod.On(got.handle))
		send("b.x", "b.y", "c")
		must(t, pod.FilterType("b.*", false))
		send("c")
		must(t, pod.FilterType("b.x", true)) // does not take back b.*
		send("c")
		must(t, pod.OnType("c", got.handle, "b.>"))
		send("c")
		must(t, pod.FilterType("b.*", true))
		send("b.x", "b.y", "c")
		must(t, pod.FilterType("a", true)) // added to what OnType asked for
		send("a", "b.x", "b.y", "c")
		must(t, pod.On(nil))
		send()
		must(t, pod.FilterType("a", true)) // a pod without a handler stays so
		send()
		must(t, pod.On(got.handle))
		send("a", "b.x", "b.y", "c")

		msg := gravbus.NewMsg("a", nil)
		pod.FilterUUID(msg.UUID(), false)
		n := len(got.all())
		sender.Send(msg)
		synctest.Wait()
		pod.FilterUUID(msg.UUID(), true)
		sender.Send(msg)
		synctest.Wait()
		if len(got.all()) != n+1 {
			t.Errorf("FilterUUID: %d came", len(got.all())-n)
		}
	})
}

// What waits for a pod goes to its new handler, if that wants it.
func TestOnReplacesTheHandler(t *testing.T) {
	for name, opts := range map[string][]gravbus.PodOption{"shared": {gravbus.Mailbox(64)}, "private": {gravbus.Overflow(gravbus.Block)}, "one": {gravbus.Mailbox(1)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				pod, sender := bus.Connect(opts...), bus.Connect()
				var first, second recorder
				release := make(chan struct{})
				must(t, pod.On(func(msg gravbus.Message) error { first.handle(msg); <-release; return nil }))
				n := 20
				if name == "one" {
					n = 2
				}
				for i := range n {
					sender.Send(nth([]string{"a", "b"}[i%2], 0, i))
					synctest.Wait()
				}
				must(t, pod.OnType("b", second.handle))
				sender.Send(nth("a", 0, n))
				sender.Send(nth("b", 0, n+1))
				close(release)
				synctest.Wait()
				var want []int
				for i := 1; i <= n+1; i += 2 {
					want = append(want, i)
				}
				if a, b := numbers(t, first.all()), numbers(t, second.all()); !slices.Equal(a, []int{0}) || !slices.Equal(b, want) {
					t.Errorf("the first got %v, the second %v", a, b)
				}
			})
		})
	}
}

// A handler gets what it asked for, and nothing that was claimed for the one before it.
func TestOnGetsNoOldTypes(t *testing.T) {
	for name, opts := range map[string][]gravbus.PodOption{"shared": nil, "private": {gravbus.Overflow(gravbus.Block)}, "group": {gravbus.InGroup("g")}} {
		t.Run(name, func(t *testing.T) {
			bus := testBus(t)
			pod := bus.Connect(opts...)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 2 {
				sender := bus.Connect()
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							sender.Send(gravbus.NewMsg("a", nil))
							sender.Send(gravbus.NewMsg("b", nil))
						}
					}
				})
			}
			var wrong atomic.Int64
			for i := range fewer(10_000, 10) {
				typ := []string{"a", "b"}[i%2]
				must(t, pod.OnType(typ, func(msg gravbus.Message) error {
					if msg.Type() != typ && msg.Type() != gravbus.MsgTypeLagged {
						wrong.Add(1)
					}
					return nil
				}))
				runtime.Gosched()
			}
			close(stop)
			within(t, patience, wg.Wait)
			must(t, bus.Shutdown(t.Context()))
			if n := wrong.Load(); n > 0 {
				t.Errorf("%d messages of a type that their handler never asked for", n)
			}
		})
	}
}

// Stats of an idle bus are exact.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := testBus(t, gravbus.UseMaxMessageSize(100))
		var refused recorder
		must(t, bus.Connect(gravbus.Name("observer")).OnType(gravbus.EventRefused, refused.handle))
		pod := bus.Connect(gravbus.Name("worker"))
		must(t, pod.OnType("a", func(gravbus.Message) error { take(time.Second); return nil }))
		sender := bus.Connect(gravbus.Name("sender"))
		for i := range 10 {
			sender.Send(nth("a", 0, i))
			sender.Send(nth("b", 0, i))
		}
		if _, err := sender.SendContext(t.Context(), gravbus.NewMsg("a", make([]byte, 101))); !errors.Is(err, gravbus.ErrMessageTooLarge) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		take(time.Minute)
		s := bus.Stats()
		if s.NodeUUID != bus.NodeUUID || s.Sent != 20 || s.Buffered != 20 || s.Refused != 1 || s.Failed != 0 || s.Dropped != 0 || s.RepliesLost != 0 {
			t.Errorf("stats %+v", s)
		}
		names := []string{}
		for _, p := range s.Pods {
			names = append(names, p.Name)
		}
		if !slices.Equal(names, []string{"observer", "worker", "sender"}) {
			t.Errorf("pods %v", names)
		}
		if p := pod.Stats(); p.Delivered != 10 || p.Depth != 0 || p.HandlerTime < 9*time.Second || p.HandlerTime > 12*time.Second {
			t.Errorf("stats %+v", p)
		}
		if all := refused.all(); len(all) != 1 {
			t.Errorf("%d events", len(all))
		} else if e, err := gravbus.Decode[gravbus.Refused](all[0]); err != nil || e.Size != 101 || e.Limit != 100 || e.Pod != "sender" || e.Type != "a" {
			t.Errorf("event %+v, %v", e, err)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Error(err)
		}
	})
}
