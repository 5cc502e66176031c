package gravbus_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/gravbus/gravbus"
)

// sequence checks that the messages of each sender come once each and in order. Its handler is for one call at a time.
type sequence struct {
	next  []int // of each sender
	wrong []string
	left  int // messages to come
	done  chan struct{}
}

func newSequence(senders, each int) *sequence {
	return &sequence{next: make([]int, senders), left: senders * each, done: make(chan struct{})}
}

func (s *sequence) handle(msg gravbus.Message) error {
	sender, i := numberOf(msg)
	if sender < 0 || sender >= len(s.next) || i != s.next[sender] {
		s.wrong = append(s.wrong, fmt.Sprintf("%s %d of sender %d, instead of %d", msg.Type(), i, sender, s.next[max(0, min(sender, len(s.next)-1))]))
		return nil
	}
	s.next[sender]++
	if s.left--; s.left == 0 {
		close(s.done)
	}
	return nil
}

// await waits until everything has come. check follows when the bus is closed, and finds what came too much.
func (s *sequence) await(t *testing.T) {
	t.Helper()
	awaitDone(t, patience, s.done)
}

func (s *sequence) check(t *testing.T) {
	t.Helper()
	if len(s.wrong) > 0 {
		t.Errorf("%d out of order, the first %v; then expected %v", len(s.wrong), s.wrong[:min(5, len(s.wrong))], s.next)
	}
}

// sendAll lets each of the senders send n messages, of the types in turn, all at the same time, and returns when they have.
func sendAll(t *testing.T, bus *gravbus.Bus, senders, n int, types ...string) {
	t.Helper()
	var wg sync.WaitGroup
	for s := range senders {
		pod := bus.Connect(gravbus.Name(fmt.Sprintf("sender-%d", s)))
		wg.Go(func() {
			for i := range n {
				if pod.Send(nth(types[i%len(types)], s, i)) == nil {
					t.Errorf("message %d of sender %d could not be sent", i, s)
					return
				}
			}
		})
	}
	within(t, patience, wg.Wait)
}

func TestGuarantee1Order(t *testing.T) {
	// A claim takes a quarter of the mailbox, and 128 at most: the numbers are around those.
	for _, senders := range []int{1, 2, 3, 4} {
		for _, mailbox := range []int{1, 2, 3, 4, 5, 8, 64, 512, 1024} {
			for _, n := range []int{1, mailbox/4 + 1, mailbox, 600} {
				t.Run(fmt.Sprintf("senders=%d/mailbox=%d/n=%d", senders, mailbox, n), func(t *testing.T) {
					bus := testBus(t)
					var all []*sequence
					listen := func(on func(*gravbus.Pod, gravbus.MsgFunc) error, opts ...gravbus.PodOption) {
						s := newSequence(senders, n)
						all = append(all, s)
						must(t, on(bus.Connect(append(opts, gravbus.Mailbox(mailbox))...), s.handle))
					}
					several := func(p *gravbus.Pod, fn gravbus.MsgFunc) error { return p.OnType("a.x", fn, "a.*", "*.y", "a.>") }
					listen((*gravbus.Pod).On)
					listen((*gravbus.Pod).On)
					listen(several)
					listen(several)
					listen((*gravbus.Pod).On, gravbus.Overflow(gravbus.Block))
					listen(several, gravbus.Replay())
					sendAll(t, bus, senders, n, "a.x", "a.y", "a.z.z", "a.x")
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
	}
}

// The order holds among messages that take different ways: of types that other pods want in other ways, that are replies, typed or of others' making.
func TestGuarantee1OrderAmongKinds(t *testing.T) {
	bus := testBus(t)
	var got []string
	done := make(chan struct{})
	const rounds = 300
	must(t, bus.Connect(gravbus.Mailbox(7)).OnType("kind.*", func(msg gravbus.Message) error {
		if got = append(got, msg.ParentID()+string(msg.Data())); len(got) == 5*rounds {
			close(done)
		}
		return nil
	}))
	slow := bus.Connect(gravbus.Mailbox(1))
	must(t, slow.OnType("kind.b", nop))
	pod := bus.Connect()
	receipt := bus.Connect().Send(gravbus.NewMsg("asked", []byte("first")))
	within(t, patience, func() {
		for i := range rounds {
			pod.Send(gravbus.NewMsg("kind.a", fmt.Append(nil, i, "a")))
			pod.Send(gravbus.NewMsgWithParentID("kind.b", fmt.Sprint(i), []byte("b")))
			pod.Send(gravbus.NewMsgReplyTo(receipt, "kind.c", fmt.Append(nil, i, "c")))
			pod.Send(gravbus.NewTyped("kind.d", i))
			pod.Send(&foreign{Message: gravbus.NewMsg("kind.e", fmt.Append(nil, i, "e"))})
		}
	})
	awaitDone(t, patience, done)
	for i := range rounds {
		want := []string{fmt.Sprint(i, "a"), fmt.Sprint(i, "b"), fmt.Sprint(i, "c"), fmt.Sprint(i), fmt.Sprint(i, "e")}
		for j, w := range want {
			if k := 5*i + j; got[k] != w && got[k] != fmt.Sprint(i)+w {
				t.Fatalf("message %d is %q, want %q", k, got[k], w)
			}
		}
	}
}

func TestGuarantee2ExactlyOnceWhilePodsComeAndGo(t *testing.T) {
	const senders, n = 3, 2000
	for _, mailbox := range []int{1, 4, 1024} {
		t.Run(fmt.Sprint("mailbox=", mailbox), func(t *testing.T) {
			bus := testBus(t)
			var stay []*sequence
			for _, patterns := range [][]string{{">"}, {"storm.*"}, {"storm.a", "storm.b"}, {">"}} {
				s := newSequence(senders, n)
				stay = append(stay, s)
				must(t, bus.Connect(gravbus.Mailbox(mailbox)).OnType(patterns[0], s.handle, patterns[1:]...))
			}
			stop := make(chan struct{})
			var churn sync.WaitGroup
			for i := range 3 {
				churn.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						pod := bus.Connect(gravbus.Mailbox(mailbox))
						seen := map[int]int{} // who came later sees an unbroken rest of each sender's
						handle := func(msg gravbus.Message) error {
							sender, i := numberOf(msg)
							if before, ok := seen[sender]; ok && i != before+1 {
								t.Errorf("after %d came %d", before, i)
							}
							seen[sender] = i
							return nil
						}
						if i == 0 {
							mustToo(t, pod.On(handle))
						} else {
							mustToo(t, pod.OnType("storm.*", handle))
						}
						pod.Disconnect()
						runtime.Gosched()
					}
				})
			}
			sendAll(t, bus, senders, n, "storm.a", "storm.b")
			for _, s := range stay {
				s.await(t)
			}
			close(stop)
			within(t, patience, churn.Wait)
			must(t, bus.Shutdown(t.Context()))
			for _, s := range stay {
				s.check(t)
			}
		})
	}
}

// A message that a pod wants before and after a change of what it listens to comes once, and the order is kept.
func TestGuarantee2ExactlyOnceWhileInterestChanges(t *testing.T) {
	const senders, n = 2, 1000
	changes := map[string]func(*gravbus.Pod, gravbus.MsgFunc, int) error{
		"On": func(p *gravbus.Pod, fn gravbus.MsgFunc, _ int) error { return p.On(fn) },
		"OnType": func(p *gravbus.Pod, fn gravbus.MsgFunc, i int) error {
			return p.OnType("keep", fn, fmt.Sprint("other.", i%3))
		},
		"On and OnType": func(p *gravbus.Pod, fn gravbus.MsgFunc, i int) error {
			if i%2 == 0 {
				return p.On(fn)
			}
			return p.OnType("keep", fn)
		},
		"FilterType": func(p *gravbus.Pod, _ gravbus.MsgFunc, i int) error { return p.FilterType("other.*", i%2 == 0) },
		"FilterType of many": func(p *gravbus.Pod, _ gravbus.MsgFunc, i int) error {
			return p.FilterType(fmt.Sprint("other.", i%5), i%2 == 0)
		},
		"FilterUUID": func(p *gravbus.Pod, _ gravbus.MsgFunc, i int) error {
			p.FilterUUID(fmt.Sprint("none-", i%5), i%2 == 0)
			return nil
		},
	}
	options := map[string][]gravbus.PodOption{
		"mailbox=1":    {gravbus.Mailbox(1)},
		"mailbox=4":    {gravbus.Mailbox(4)},
		"mailbox=1024": nil,
		"private":      {gravbus.Mailbox(16), gravbus.Overflow(gravbus.Block)},
		"replay":       {gravbus.Mailbox(16), gravbus.Replay()},
	}
	for name, change := range changes {
		for opts, podOptions := range options {
			t.Run(name+"/"+opts, func(t *testing.T) {
				bus := testBus(t)
				s, other := newSequence(senders, n), newSequence(senders, n)
				keep := func(msg gravbus.Message) error {
					if msg.Type() != "keep" {
						return nil
					}
					return s.handle(msg)
				}
				pod := bus.Connect(podOptions...)
				must(t, pod.On(keep))
				must(t, bus.Connect().OnType("keep", other.handle))
				noise := bus.Connect()
				stop := make(chan struct{})
				var wg sync.WaitGroup
				for _, f := range []func(int) error{
					func(i int) error { return change(pod, keep, i) },
					func(i int) error { noise.Send(gravbus.NewMsg(fmt.Sprint("other.", i%5), nil)); return nil },
				} {
					wg.Go(func() {
						for i := 0; ; i++ {
							select {
							case <-stop:
								return
							default:
								mustToo(t, f(i))
								runtime.Gosched()
							}
						}
					})
				}
				sendAll(t, bus, senders, n, "keep")
				close(stop)
				within(t, patience, wg.Wait)
				s.await(t)
				other.await(t)
				must(t, bus.Shutdown(t.Context()))
				s.check(t)
				other.check(t)
				if stats := bus.Stats(); stats.Dropped != 0 {
					t.Errorf("%d dropped", stats.Dropped)
				}
			})
		}
	}
}

// A pod that replays and changes what it listens to at once gets each message from the buffer or live, and not from both.
func TestGuarantee2ExactlyOnceWhenAReplayingPodMoves(t *testing.T) {
	const senders, n, pods = 3, 1500, 200
	bus := testBus(t, gravbus.UseReplay(2*senders*n))
	var wg sync.WaitGroup
	wg.Go(func() { sendAll(t, bus, senders, n, "keep") })
	all := make([]*sequence, pods)
	for i := range all {
		s := newSequence(senders, n)
		all[i] = s
		pod := bus.ConnectWithReplay(gravbus.Mailbox(64))
		must(t, pod.OnType("keep", s.handle))
		must(t, pod.OnType("keep", s.handle, "other"))
		must(t, pod.On(s.handle))
	}
	within(t, patience, wg.Wait)
	for _, s := range all {
		s.await(t)
	}
	must(t, bus.Shutdown(t.Context()))
	for _, s := range all {
		s.check(t)
	}
}

// A Send that waits for room knows the ways that messages took when it began. Pods that have changed what they listen to by the time it goes on, any number of them
// and any number of times, get the message once.
func TestGuarantee2ExactlyOnceWhenPodsMoveUnderAWaitingSend(t *testing.T) {
	for _, c := range []struct {
		pods, moves, early int // early: moves before the Send
	}{{1, 1, 0}, {1, 1, 1}, {1, 100, 0}, {1, 100, 1}, {3, 500, 1}, {100, 1, 0}, {100, 1, 1}, {100, 3, 2}} {
		t.Run(fmt.Sprintf("pods=%d/moves=%d/early=%d", c.pods, c.moves, c.early), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				open := make(chan struct{})
				stuck := bus.Connect(gravbus.Mailbox(4))
				must(t, stuck.On(func(gravbus.Message) error { <-open; return nil }))
				sender := bus.Connect()
				sender.Send(nth("fill", 0, -1))
				synctest.Wait()

				all := make([]recorder, c.pods)
				pods := make([]*gravbus.Pod, c.pods)
				move := func(i, n int) { must(t, pods[i].OnType("keep", all[i].handle, fmt.Sprint("other.", n))) }
				for i := range pods {
					pods[i] = bus.Connect(gravbus.Mailbox(4))
					must(t, pods[i].OnType(">", all[i].handle))
					for n := range c.early {
						move(i, n)
					}
				}
				for i := range 4 {
					sender.Send(nth("keep", 0, i))
				}
				synctest.Wait()
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					sender.Send(nth("keep", 0, 4))
				}()
				synctest.Wait()
				for i := range pods {
					for n := range c.moves {
						move(i, n+c.early)
					}
				}
				close(open)
				awaitDone(t, patience, sent)
				sender.Send(nth("keep", 0, 5))
				synctest.Wait()
				for i := range all {
					if got := numbers(t, all[i].all()); !slices.Equal(got, span(0, 5)) {
						t.Fatalf("pod %d got %v", i, got)
					}
				}
			})
		})
	}
}
