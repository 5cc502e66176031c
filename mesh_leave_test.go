package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/sirupsen/logrus"
)

// What was on its way in both directions arrives, when one node leaves under load.
func TestMeshLeaveUnderLoad(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown"} {
		for _, latency := range []time.Duration{0, 5 * time.Millisecond} {
			t.Run(fmt.Sprint(how, latency), func(t *testing.T) {
				meshBubble(t, memory.Config{Latency: latency}, func(t *testing.T, n meshNet) {
					a, b, c := n.trio()
					recs := map[*gravbus.Bus]*recorder{}
					for _, x := range []*gravbus.Bus{a, b, c} {
						_, recs[x] = meshListener(t, x, "t", gravbus.Overflow(gravbus.Block))
					}
					for _, x := range []*gravbus.Bus{a, b, c} {
						meshWanted(t, x, "t", 2)
					}
					ea, ec := meshWatch(t, a), meshWatch(t, c)
					var stop atomic.Bool
					var sent [3]int // that Send has returned a receipt for
					var wg sync.WaitGroup
					for i, x := range []*gravbus.Bus{a, b, c} {
						p := x.Connect()
						wg.Go(func() {
							for k := 0; !stop.Load(); k++ {
								if p.Send(nth("t", i, k)) == nil {
									return
								}
								sent[i]++
								if k%20 == 0 {
									time.Sleep(time.Millisecond)
								}
							}
						})
					}
					time.Sleep(50 * time.Millisecond)
					ctx := meshCtx(t, time.Minute)
					began := time.Now()
					if how == "Withdraw" {
						must(t, b.Withdraw(ctx))
					} else {
						must(t, b.Shutdown(ctx))
					}
					if d := time.Since(began); d > time.Second {
						t.Errorf("leaving took %v", d)
					}
					time.Sleep(50 * time.Millisecond)
					stop.Store(true)
					wg.Wait()
					time.Sleep(time.Minute)
					synctest.Wait()
					for x, rec := range recs {
						next := map[int]int{}
						for _, m := range rec.all() {
							s, k := numberOf(m)
							if k != next[s] {
								t.Fatalf("of sender %d came %d, want %d", s, k, next[s])
							}
							next[s]++
						}
						if x != b && (next[0] != sent[0] && x == c || next[2] != sent[2] && x == a) {
							t.Errorf("those who stay: %v of %v", next, sent)
						}
						// The Send that Shutdown met in progress may have got no receipt, and be delivered.
						if how == "Shutdown" && x != b && next[1] != sent[1] && next[1] != sent[1]+1 {
							t.Errorf("of the one who left came %d of %d", next[1], sent[1])
						}
					}
					ea.want(t, "down b", "lost b")
					ec.want(t, "down b", "lost b")
					for _, x := range []*gravbus.Bus{a, c} {
						s := x.Stats()
						if len(s.Peers) != 1 || s.Peers[0].Lost != 0 {
							t.Errorf("%+v", s.Peers)
						}
					}
				})
			})
		}
	}
}

// Everything that was sent before a Shutdown began arrives, and what came from peers is handled.
func TestMeshLeaveDeliversWhatWasSent(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 20 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		_, ra := meshListener(t, a, "t")
		slow, rb := b.Connect(gravbus.Mailbox(2), gravbus.Overflow(gravbus.Block)), new(recorder)
		must(t, slow.OnType("t", func(m gravbus.Message) error {
			time.Sleep(10 * time.Millisecond)
			if _, k := numberOf(m); k%10 == 0 { // and says so, while the bus shuts down
				if slow.Send(nth("done", 1, k)) == nil {
					t.Error("not sent")
				}
			}
			return rb.handle(m)
		}))
		_, done := meshListener(t, a, "done")
		meshWanted(t, a, "t", 1)
		meshWanted(t, b, "t", 1)
		meshWanted(t, b, "done", 1)
		pa, pb := a.Connect(), b.Connect()
		for k := range 1000 {
			pa.Send(nth("t", 0, k))
			pb.Send(nth("t", 1, k))
		}
		must(t, b.Shutdown(meshCtx(t, time.Hour)))
		time.Sleep(time.Minute)
		synctest.Wait()
		var fromB []int
		for _, m := range ra.all() {
			if s, k := numberOf(m); s == 1 {
				fromB = append(fromB, k)
			}
		}
		if !slices.Equal(fromB, span(0, 999)) {
			t.Errorf("a has %d", len(fromB))
		}
		if got := numbers(t, done.all()); len(got) != 200 && len(got) != 100 {
			t.Errorf("%d answers", len(got))
		}
		of := 0
		for _, m := range rb.all() {
			if s, k := numberOf(m); s == 0 {
				if k != of {
					t.Fatalf("came %d, want %d", k, of)
				}
				of++
			}
		}
		// What has not left a when b says that it leaves may stay there, but is told of.
		if of < 1000 {
			t.Logf("b has handled %d of 1000", of)
		}
	})
}

// After Withdraw the bus goes on by itself.
func TestMeshLeaveWithdrawnBusWorksAlone(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair(gravbus.UseInterests("x"))
		_, ra := meshListener(t, a, "t")
		_, rb := meshListener(t, b, "t")
		meshWanted(t, b, "t", 1)
		must(t, b.Withdraw(meshCtx(t, time.Minute)))
		p := b.Connect()
		if p.Send(nth("t", 1, 1)) == nil {
			t.Error("it does not send")
		}
		synctest.Wait()
		if len(rb.all()) != 1 || len(ra.all()) != 0 {
			t.Errorf("%d here, %d there", len(rb.all()), len(ra.all()))
		}
		meshReplier(t, b, "ask", "b")
		if rep, err := p.Request(meshCtx(t, time.Minute), gravbus.NewMsg("ask", nil)); err != nil || string(rep.Data()) != "b" {
			t.Errorf("%v, %v", rep, err)
		}
		if got, err := meshCollect(meshCtx(t, time.Minute), p, gravbus.NewMsg("ask", nil)); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
		if _, err := p.Request(t.Context(), gravbus.NewMsg("nobody", nil)); !errors.Is(err, gravbus.ErrNoResponders) {
			t.Errorf("%v", err)
		}
		late := b.ConnectWithReplay()
		var got recorder
		must(t, late.OnType("t", got.handle))
		got.await(t, 1)
		if err := b.Tunnel("x", nth("t", 1, 1)); err == nil {
			t.Error("a tunnel out of a mesh that it has left")
		}
		if err := b.ConnectEndpoint("a"); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("ConnectEndpoint: %v", err)
		}
		if err := b.Start(t.Context()); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("Start: %v", err)
		}
		must(t, b.Withdraw(meshCtx(t, time.Minute)))
		if s := b.Stats(); len(s.Peers) != 0 {
			t.Errorf("peers %+v", s.Peers)
		}
		time.Sleep(time.Hour)
		if s := a.Stats(); len(s.Peers) != 0 {
			t.Errorf("peers %+v", s.Peers)
		}
		must(t, b.Shutdown(meshCtx(t, time.Minute)))
	})
}

// All leave at once.
func TestMeshLeaveAllAtOnce(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown", "both"} {
		t.Run(how, func(t *testing.T) {
			for round := range 20 {
				meshBubble(t, memory.Config{Latency: time.Duration(round%3) * time.Millisecond}, func(t *testing.T, n meshNet) {
					a, b, c := n.trio()
					nodes := []*gravbus.Bus{a, b, c}
					var recs []*recorder
					for _, x := range nodes {
						_, r := meshListener(t, x, "t")
						recs = append(recs, r)
					}
					for _, x := range nodes {
						meshWanted(t, x, "t", 2)
					}
					for i, x := range nodes {
						p := x.Connect()
						for k := range 200 {
							p.Send(nth("t", i, k))
						}
					}
					began := time.Now()
					var wg sync.WaitGroup
					for i, x := range nodes {
						wg.Go(func() {
							leave := x.Shutdown
							if how == "Withdraw" || how == "both" && i == 1 {
								leave = x.Withdraw
							}
							mustToo(t, leave(meshCtx(t, time.Minute)))
						})
					}
					wg.Wait()
					if d := time.Since(began); d > time.Second {
						t.Errorf("it took %v", d)
					}
					synctest.Wait()
					for i, r := range recs {
						if k := len(r.all()); k != 600 {
							t.Errorf("node %d has %d of 600", i, k)
						}
					}
				})
			}
		})
	}
}

// A node that ends while it starts keeps nothing of what it has started, and Start says so.
func TestMeshLeaveDuringStart(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown", "Close"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				d := &slowDiscovery{at: make(chan bool), on: make(chan bool)}
				a := n.lone("a", gravbus.UseDiscovery(d))
				started := make(chan error)
				go func() { started <- a.Start(t.Context()) }() // ends with Start
				<-d.at
				switch how {
				case "Withdraw":
					must(t, a.Withdraw(meshCtx(t, time.Minute)))
				case "Shutdown":
					must(t, a.Shutdown(meshCtx(t, time.Minute)))
				case "Close":
					must(t, a.Close())
				}
				close(d.on)
				if err := <-started; !errors.Is(err, gravbus.ErrClosed) {
					t.Errorf("Start returned %v", err)
				}
				if n := d.closed.Load(); n != 1 {
					t.Errorf("what was started was closed %d times", n)
				}
				if all := a.Endpoints(); len(all) != 0 {
					t.Errorf("it listens at %v", all)
				}
			})
		})
	}
}

// slowDiscovery starts when it is let. It is its own session.
type slowDiscovery struct {
	at, on chan bool // closed when it is being started, and to let that go on
	closed atomic.Int32
}

func (d *slowDiscovery) Start(context.Context, discovery.Self, func(discovery.Node)) (discovery.Session, error) {
	close(d.at)
	<-d.on
	return d, nil
}

func (d *slowDiscovery) Hurry() {}

func (d *slowDiscovery) Close() error {
	d.closed.Add(1)
	return nil
}

// A peer that comes back while it is being forgotten is refused, and welcome when that is over: no link
// is left that the node does not know of, which Close would wait for.
func TestMeshLeaveAndComeBackAtOnce(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		h := &holdLog{text: "peer has gone", at: make(chan bool), on: make(chan bool)}
		log := logrus.New()
		log.SetOutput(io.Discard)
		log.AddHook(h)
		a := n.node("a", "", gravbus.UseMeshKey(strangerKey), gravbus.UseLogger(log))
		r := newRogue(t, true)
		r.dialBy(n.Transport("rogue"), "a")
		r.settle()
		r.write(wire.AppendBye(wire.AppendWithdraw(nil), &wire.Bye{Code: wire.CodeLeaving}))
		r.ping()
		r.conn.Close()
		<-h.at // it is being given up
		early := newRogue(t, true)
		early.hello.Node = r.hello.Node
		early.dialBy(n.Transport("rogue"), "a")
		must(t, early.shake())
		synctest.Wait() // until that is over
		close(h.on)
		began := time.Now()
		early.listen()
		if d := time.Since(began); d > time.Second {
			t.Errorf("it was refused after %v", d)
		}
		late := newRogue(t, true)
		late.hello.Node = r.hello.Node
		late.dialBy(n.Transport("rogue"), "a")
		late.settle()
		if peers := a.Stats().Peers; len(peers) != 1 || peers[0].State != gravbus.PeerUp {
			t.Errorf("peers %+v", peers)
		}
		began = time.Now()
		a.Close()
		if d := time.Since(began); d > time.Second {
			t.Errorf("Close took %v", d)
		}
	})
}

// holdLog is a logrus.Hook that holds up who first logs a text.
type holdLog struct {
	text   string
	at, on chan bool // closed when somebody is there, and to let it go on
	once   sync.Once
}

// Levels implements logrus.Hook.
func (*holdLog) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (h *holdLog) Fire(e *logrus.Entry) error {
	if strings.Contains(e.Message, h.text) {
		h.once.Do(func() {
			close(h.at)
			<-h.on
		})
	}
	return nil
}

// What a peer has sent late, and waits for room here when the peer has said goodbye, is handled, and leaving ends
// as soon as it is.
func TestMeshLeaveAfterWhatCameLate(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a := n.node("a", "", gravbus.UseMeshKey(strangerKey))
				var handled atomic.Int64
				must(t, a.Connect(gravbus.Mailbox(1)).OnType("t", func(gravbus.Message) error {
					time.Sleep(20 * time.Millisecond)
					handled.Add(1)
					return nil
				}))
				r := newRogue(t, true)
				r.dialBy(n.Transport("rogue"), "a")
				must(t, r.shake())
				r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true}))
				must(t, a.WaitPeers(meshCtx(t, time.Minute), 1))
				go func() { // ends with the connection
					for {
						packet, err := r.conn.ReadFrame(nil)
						if err != nil {
							return
						}
						kind := wire.Kind(0)
						for rest := packet; len(rest) > 0 && kind != wire.KindWithdraw && err == nil; {
							kind, _, rest, err = wire.Next(rest)
						}
						if kind != wire.KindWithdraw {
							continue
						}
						late := r.batch.Begin(nil, 1)
						for range 5 {
							late = r.batch.Message(late, &wire.Message{ID: randomID(), Type: "t"})
						}
						r.write(wire.AppendBye(r.batch.End(late), &wire.Bye{Code: wire.CodeLeaving}))
					}
				}()
				leave := a.Shutdown
				if how == "Withdraw" {
					leave = a.Withdraw
				}
				began := time.Now()
				must(t, leave(meshCtx(t, 5*time.Second)))
				if d := time.Since(began); d > time.Second {
					t.Errorf("it took %v", d)
				}
				time.Sleep(time.Second)
				if n := handled.Load(); n != 5 {
					t.Errorf("%d of 5 were handled", n)
				}
			})
		})
	}
}

// The peer is away: leaving does not wait for it, and what it has not got is told, and is an error.
func TestMeshLeaveWhilePeerIsAway(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown", "Close"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair()
				meshListener(t, b, "t")
				meshWanted(t, a, "t", 1)
				ea := meshWatch(t, a)
				n.Refuse("a", true)
				n.Refuse("b", true)
				n.Cut("a", "b")
				synctest.Wait()
				p := a.Connect()
				for k := range 5 {
					p.Send(nth("t", 1, k))
				}
				began := time.Now()
				var err error
				switch how {
				case "Withdraw":
					err = a.Withdraw(meshCtx(t, time.Minute))
					ea.want(t, "down b", "gap 5", "lost b")
				case "Shutdown":
					err = a.Shutdown(meshCtx(t, time.Minute))
				case "Close":
					must(t, a.Close())
				}
				var se *gravbus.ShutdownError
				if how != "Close" && (!errors.As(err, &se) || !slices.Equal(se.Peers, []string{b.NodeUUID}) || !errors.Is(err, gravbus.ErrPeerLost)) {
					t.Errorf("it returned %v", err)
				}
				if d := time.Since(began); d > time.Second {
					t.Errorf("it took %v", d)
				}
				if len(a.Stats().Peers) != 0 {
					t.Errorf("%+v", a.Stats().Peers)
				}
			})
		})
	}
}

// The peer is away, and nothing waits for it: it is of no interest.
func TestMeshLeaveWhileAPeerIsAwayThatHasAll(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair()
				_, got := meshListener(t, b, "t")
				meshWanted(t, a, "t", 1)
				a.Connect().Send(nth("t", 1, 1))
				got.await(t, 1)
				time.Sleep(time.Second) // and it has said so
				n.Partition([]string{"a"}, []string{"b"})
				time.Sleep(11 * time.Second)
				if how == "Withdraw" {
					must(t, a.Withdraw(meshCtx(t, time.Minute)))
				} else {
					must(t, a.Shutdown(meshCtx(t, time.Minute)))
				}
			})
		})
	}
}

// The peer is cut off while the node leaves: what it has not got is told, and is an error.
func TestMeshLeaveAndTheConnectionIsCut(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair(gravbus.UseDeadAfter(time.Hour))
				meshListener(t, b, "t")
				meshWanted(t, a, "t", 1)
				n.Partition([]string{"a"}, []string{"b"})
				a.Connect().Send(nth("t", 1, 1))
				time.AfterFunc(time.Second, func() { n.Cut("a", "b") })
				leave := a.Shutdown
				if how == "Withdraw" {
					leave = a.Withdraw
				}
				began := time.Now()
				err := leave(meshCtx(t, time.Minute))
				var se *gravbus.ShutdownError
				if !errors.As(err, &se) || !slices.Equal(se.Peers, []string{b.NodeUUID}) || !errors.Is(err, gravbus.ErrPeerLost) {
					t.Errorf("it returned %v", err)
				}
				if d := time.Since(began); d > 2*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// The peer is there and takes nothing: leaving ends with its context, and names it.
func TestMeshLeaveAStuckPeer(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair(gravbus.UseDeadAfter(time.Hour))
				meshListener(t, b, "t")
				meshWanted(t, a, "t", 1)
				n.Partition([]string{"a"}, []string{"b"})
				a.Connect().Send(nth("t", 1, 1))
				leave := a.Shutdown
				if how == "Withdraw" {
					leave = a.Withdraw
				}
				began := time.Now()
				err := leave(meshCtx(t, 2*time.Second))
				var se *gravbus.ShutdownError
				if !errors.As(err, &se) || !slices.Equal(se.Peers, []string{b.NodeUUID}) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v", err)
				}
				if d := time.Since(began); d < 2*time.Second || d > 3*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// A pod here is stuck with messages from a peer before it: leaving ends with its context all the same.
func TestMeshLeaveWithAStuckPodHere(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown", "Close"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair()
				free := make(chan struct{})
				stuck := b.Connect(gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block), gravbus.Name("stuck"))
				must(t, stuck.OnType("t", func(gravbus.Message) error { <-free; return nil }))
				meshWanted(t, a, "t", 1)
				p := a.Connect()
				for k := range 100 {
					p.Send(nth("t", 1, k))
				}
				synctest.Wait()
				began := time.Now()
				switch how {
				case "Withdraw":
					var err error
					within(t, time.Minute, func() { err = b.Withdraw(meshCtx(t, 2*time.Second)) })
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%v", err)
					}
				case "Shutdown":
					var err error
					within(t, time.Minute, func() { err = b.Shutdown(meshCtx(t, 2*time.Second)) })
					var se *gravbus.ShutdownError
					if !errors.As(err, &se) || !slices.Equal(se.Pods, []string{"stuck"}) {
						t.Errorf("%v", err)
					}
				case "Close":
					time.AfterFunc(2*time.Second, func() { close(free) })
					within(t, time.Minute, func() { b.Close() })
				}
				if d := time.Since(began); d > 3*time.Second {
					t.Errorf("it took %v", d)
				}
				if how != "Close" {
					close(free)
				}
			})
		})
	}
}

// From inside a handler that a peer's messages wait for.
func TestMeshLeaveFromInsideAHandler(t *testing.T) {
	for _, how := range []string{"Withdraw", "Shutdown", "Close"} {
		for _, opts := range [][]gravbus.PodOption{nil, {gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block)}} {
			t.Run(fmt.Sprint(how, len(opts)), func(t *testing.T) {
				meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
					a, b := n.pair()
					e := meshWatch(t, a)
					done := make(chan error, 1)
					var once sync.Once
					p := b.Connect(opts...)
					must(t, p.OnType("t", func(m gravbus.Message) error {
						once.Do(func() {
							switch ctx := context.Background(); how {
							case "Withdraw":
								done <- b.Withdraw(ctx)
							case "Shutdown":
								done <- b.Shutdown(ctx)
							case "Close":
								done <- b.Close()
							}
						})
						return nil
					}))
					meshWanted(t, a, "t", 1)
					q := a.Connect()
					for k := range 100 {
						q.Send(nth("t", 1, k))
					}
					must(t, awaitDone(t, time.Minute, done))
					time.Sleep(time.Minute)
					if got := e.take(); len(got) == 0 || got[len(got)-1] != "lost b" {
						t.Errorf("events %q", got)
					}
					within(t, time.Minute, func() { b.Close() })
				})
			})
		}
	}
}

// Close in the middle of everything, many times.
func TestMeshLeaveCloseInAStorm(t *testing.T) {
	for round := range 12 {
		meshBubble(t, memory.Config{Latency: time.Duration(round%3) * time.Millisecond}, func(t *testing.T, n meshNet) {
			nodes := []*gravbus.Bus{n.node("a", "a b c"), n.node("b", "a b c"), n.node("c", "a b c")}
			var wg sync.WaitGroup
			stop := make(chan struct{})
			for i, x := range nodes {
				meshReplier(t, x, "ask", "r")
				meshListener(t, x, ">", gravbus.Mailbox(3))
				for range 2 {
					p := x.Connect()
					wg.Go(func() {
						for k := 0; ; k++ {
							select {
							case <-stop:
								return
							default:
							}
							if p.Send(nth("t", i, k)) == nil {
								return
							}
							if k%10 == 0 {
								time.Sleep(100 * time.Microsecond)
							}
						}
					})
					q := x.Connect()
					wg.Go(func() {
						for {
							select {
							case <-stop:
								return
							default:
							}
							ctx, cancel := context.WithTimeout(context.Background(), time.Second)
							_, err := q.Request(ctx, gravbus.NewMsg("ask", nil))
							cancel()
							if errors.Is(err, gravbus.ErrClosed) || errors.Is(err, gravbus.ErrDisconnected) {
								return
							}
							for range q.RequestAll(meshCtx(t, time.Second), gravbus.NewMsg("ask", nil)) {
							}
							late := x.ConnectWithReplay()
							late.On(func(gravbus.Message) error { return nil })
							time.Sleep(time.Millisecond)
							late.Disconnect()
						}
					})
				}
			}
			time.Sleep(time.Duration(round) * time.Millisecond)
			within(t, time.Minute, func() { nodes[round%3].Close() })
			time.Sleep(10 * time.Millisecond)
			close(stop)
			within(t, time.Minute, wg.Wait)
			for _, x := range nodes {
				within(t, time.Minute, func() { x.Close() })
			}
		})
	}
}

// Over real sockets: one leaves under load and comes back as another, nobody loses anything, and no
// goroutine stays.
func TestMeshLeaveWebsocket(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	quiet := gravbus.UseLogger(log)
	a := meshNode(t, nil, quiet)
	p := a.Connect()
	total := 0
	for range 5 {
		b := meshNode(t, a.Endpoints(), quiet)
		_, got := meshListener(t, b, "t")
		must(t, a.WaitInterest(soon(t), "t", 1))
		for k := range 2000 {
			if p.Send(nth("t", 1, k)) == nil {
				t.Fatal("not sent")
			}
		}
		must(t, b.Shutdown(soon(t)))
		all := numbers(t, got.all())
		if !slices.Equal(all, span(0, 1999)) {
			t.Errorf("%d of 2000 came", len(all))
		}
		total += len(all)
		c := meshNode(t, a.Endpoints(), quiet)
		_, back := meshListener(t, a, "back")
		must(t, c.WaitInterest(soon(t), "back", 1))
		q := c.Connect()
		for k := range 2000 {
			q.Send(nth("back", 1, k))
		}
		must(t, c.Withdraw(soon(t)))
		if all := numbers(t, back.await(t, 2000)); !slices.Equal(all, span(0, 1999)) {
			t.Errorf("%d of 2000 came back", len(all))
		}
		c.Close()
	}
	within(t, patience, func() { must(t, a.Shutdown(soon(t))) })
	if total != 10000 {
		t.Errorf("%d in all", total)
	}
}

// Everything that begins and ends a node, at once and in any order: all of it returns, and nothing
// stays.
func TestMeshLeaveStartAndEndStorm(t *testing.T) {
	for round := range 150 {
		r := rand.New(rand.NewPCG(uint64(round), 1))
		meshBubble(t, memory.Config{Latency: time.Duration(r.IntN(3)) * time.Millisecond}, func(t *testing.T, n meshNet) {
			other := n.node("other", "a")
			meshListener(t, other, ">")
			a := n.lone("a", gravbus.UseDiscovery(static.New("other")))
			meshListener(t, a, ">")
			p := a.Connect()
			ctx := meshCtx(t, 10*time.Second)
			calls := []func(){
				func() { a.Start(ctx) },
				func() { a.ConnectEndpointContext(ctx, "other") },
				func() { other.ConnectEndpointContext(ctx, "a") },
				func() { a.WaitPeers(ctx, 1) },
				func() { a.WaitInterest(ctx, "x", 1) },
				func() { p.SendContext(ctx, gravbus.NewMsg("x", nil)) },
				func() { p.Request(ctx, gravbus.NewMsg("x", nil)) },
				func() { meshCollect(ctx, p, gravbus.NewMsg("x", nil)) },
				func() { a.ConnectWithReplay().On(func(gravbus.Message) error { return nil }) },
				func() { a.Tunnel("x", gravbus.NewMsg("x", nil)) },
				func() { a.Stats() },
				func() { n.Cut("a", "other") },
			}
			ends := []func(){
				func() { a.Withdraw(ctx) },
				func() { a.Shutdown(ctx) },
				func() { a.Close() },
				func() { other.Shutdown(ctx) },
			}
			calls = append(calls, ends[r.IntN(len(ends))], ends[r.IntN(len(ends))])
			var wg sync.WaitGroup
			for _, i := range r.Perm(len(calls)) {
				wait := time.Duration(r.IntN(8)) * time.Millisecond
				wg.Go(func() {
					time.Sleep(wait)
					calls[i]()
				})
			}
			within(t, time.Minute, wg.Wait)
			a.Close()
			if err := a.Start(ctx); !errors.Is(err, gravbus.ErrClosed) {
				t.Errorf("Start after Close: %v", err)
			}
			if len(a.Stats().Peers) != 0 {
				t.Errorf("%+v", a.Stats().Peers)
			}
		})
	}
}
