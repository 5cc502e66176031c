package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport/memory"
)

// linked returns two nodes that are connected, with a pod at b that wants to.b and records.
func (s *sim) linked(opts ...gravbus.Option) (a, b *simNode, atB *recorder) {
	s.Helper()
	a, b = s.start("a", nil, opts...), s.start("b", nil, opts...)
	_, atB = b.listen("to.b")
	must(s, b.ConnectEndpoint("memory:a"))
	must(s, a.WaitInterest(s.within(10*time.Second), "to.b", 1))
	must(s, b.WaitPeers(s.within(10*time.Second), 1))
	return a, b, atB
}

// A peer that is away about as long as it may be: it comes back before it is given up, while it is,
// or after. What is missing then is what the Gaps say, and what is sent afterwards comes.
func TestSimAwayAsLongAsResume(t *testing.T) {
	const resume = 5 * time.Second
	for i := range 200 {
		at, first := time.Duration(i/2-50)*20*time.Millisecond, 1+i%2*4
		t.Run(fmt.Sprintf("%d before, %v", first, at), func(t *testing.T) {
			simulate(t, memory.Config{Latency: 100 * time.Millisecond}, func(s *sim) {
				a, b, atB := s.linked(gravbus.UseResumeFor(resume))
				p := a.Connect()
				a.feed(p, "to.b", 0, first-1, 0)
				time.Sleep(time.Second)
				s.net.Refuse("a", true)
				s.net.Refuse("b", true)
				s.net.Cut("a", "b")
				a.feed(p, "to.b", first, 9, 0)
				time.Sleep(resume + at)
				s.net.Refuse("a", false)
				_ = b.ConnectEndpoint("memory:a")
				must(s, a.WaitInterest(s.within(time.Minute), "to.b", 1))
				must(s, a.WaitPeers(s.within(time.Minute), 1))
				a.feed(p, "to.b", 10, 19, 100*time.Millisecond)
				time.Sleep(20 * time.Second)
				got := numbers(s, atB.all())
				lost := a.missing(b, false)
				want := append(span(0, first-1), span(10, 19)...)
				if lost == 0 {
					want = span(0, 19)
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					s.Errorf("got %v with a gap of %d", got, lost)
				}
				if lost != 20-len(got) || b.missing(a, true) != lost {
					s.Errorf("%d are missing; a tells of %d and b of %d", 20-len(got), lost, b.missing(a, true))
				}
				s.meshed(a, b)
			})
		})
	}
}

// A node is told of another one that it cannot reach at that moment. They meet as soon as it can.
func TestSimToldWhileAway(t *testing.T) {
	for name, away := range map[string]time.Duration{"for a moment": time.Second, "longer than ResumeFor": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
				a := s.start("a", nil)
				b := s.start("b", []string{"a"})
				must(s, a.WaitPeers(s.within(10*time.Second), 1))
				s.net.Partition([]string{"b"}, []string{"c"})
				c := s.start("c", []string{"a"})
				must(s, a.WaitPeers(s.within(10*time.Second), 2))
				time.Sleep(away)
				s.net.Heal()
				if err := c.WaitPeers(s.within(time.Minute), 2); err != nil {
					s.Fatalf("b and c do not meet: %v", err)
				}
				time.Sleep(5 * time.Second)
				s.meshed(a, b, c)
			})
		})
	}
}

// A connection is half-open, and the side that knows comes back: that replaces it at once.
func TestSimHalfOpenReplaced(t *testing.T) {
	for _, back := range []string{"a", "b"} {
		t.Run(back+" comes back", func(t *testing.T) {
			simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
				a, b, atB := s.linked()
				_, atA := a.listen("to.a")
				must(s, b.WaitInterest(s.within(time.Second), "to.a", 1))
				var all sync.WaitGroup
				all.Go(func() { a.feed(a.Connect(), "to.b", 0, 1999, time.Millisecond) })
				all.Go(func() { b.feed(b.Connect(), "to.a", 0, 1999, time.Millisecond) })
				time.Sleep(500 * time.Millisecond)
				s.net.Connections()[0].Stall()
				s.ends(back)[0].Close()
				time.Sleep(10 * time.Millisecond)
				s.await(1200*time.Millisecond, "they are connected again", func() bool {
					return len(s.net.Connections()) == 1 && a.peer(b).State == gravbus.PeerUp && b.peer(a).State == gravbus.PeerUp
				})
				all.Wait()
				time.Sleep(time.Second)
				s.exactly("to a", atA, 2000)
				s.exactly("to b", atB, 2000)
				s.meshed(a, b)
			})
		})
	}
}

// A peer that is silent is noticed within DeadAfter, one that has closed at once.
func TestSimDeadPeer(t *testing.T) {
	for _, after := range []time.Duration{gravbus.DefaultDeadAfter, time.Second} {
		for _, sending := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, sending %t", after, sending), func(t *testing.T) {
				simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
					a, b, _ := s.linked(gravbus.UseDeadAfter(after))
					time.Sleep(3*after + 100*time.Millisecond)
					s.net.Partition([]string{"a"}, []string{"b"})
					began := time.Now()
					if sending {
						go a.feed(a.Connect(), "to.b", 0, 999, after/500)
					}
					down := func() bool { return a.peer(b).State == gravbus.PeerAway && b.peer(a).State == gravbus.PeerAway }
					s.await(after+5*time.Millisecond, "noticed", down)
					if took := time.Since(began); took < after/2 {
						s.Errorf("noticed after %v: that is too soon", took)
					}
					time.Sleep(3 * after)
				})
			})
		}
	}
	t.Run("closed", func(t *testing.T) {
		simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
			a, b, _ := s.linked()
			time.Sleep(time.Second)
			b.Close()
			s.await(5*time.Millisecond, "noticed", func() bool { return a.count(gravbus.EventPeerLost) == 1 })
		})
	})
}

// A node waits longer and longer before it dials again: 100 ms, doubling to 10 s, with jitter.
func TestSimBackoff(t *testing.T) {
	for range 20 {
		simulate(t, memory.Config{Latency: time.Microsecond}, func(s *sim) {
			s.linked(gravbus.UseResumeFor(5 * time.Second))
			s.net.Refuse("a", true)
			s.net.Refuse("b", true)
			s.mu.Lock()
			clear(s.dials)
			s.mu.Unlock()
			cut := time.Since(s.began)
			s.net.Cut("a", "b")
			time.Sleep(5 * time.Minute)
			s.mu.Lock()
			defer s.mu.Unlock()
			for node, dials := range s.dials {
				last := cut
				delay := 100 * time.Millisecond
				for i, at := range dials {
					bound := delay
					if i == 0 && node == "a" { // did not dial before
						bound = 500 * time.Millisecond
					}
					if pause := (at - last).Truncate(time.Millisecond); pause < bound/2 || pause > bound {
						s.Errorf("%s: pause %d took %v, want %v to %v", node, i, pause, bound/2, bound)
					}
					last = at
					delay = min(2*delay, 10*time.Second)
				}
				if len(dials) < 30 {
					s.Errorf("%s: dialled %d times in 5 minutes", node, len(dials))
				}
			}
		})
	}
}

// Nothing goes over an idle link but the heartbeat.
func TestSimIdleLink(t *testing.T) {
	simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
		a, b, _ := s.linked()
		_, _ = a.listen("other")
		a.feed(a.Connect(), "to.b", 0, 99, time.Millisecond)
		a.feed(a.Connect(), "unwanted", 0, 99, time.Millisecond)
		time.Sleep(10 * time.Second)
		for _, c := range append(s.ends("a"), s.ends("b")...) {
			c.mu.Lock()
			c.sent, c.kinds = 0, map[wire.Kind]int{}
			c.mu.Unlock()
		}
		dialled := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.dials["a"]) + len(s.dials["b"])
		}
		dials := dialled()
		a.feed(a.Connect(), "unwanted", 0, 99, time.Millisecond)
		time.Sleep(time.Minute)
		for _, n := range []*simNode{a, b} {
			for _, c := range s.ends(n.name) {
				c.mu.Lock()
				if pings := c.kinds[wire.KindPing]; c.sent > 40 || pings < 17 || pings > 19 || len(c.kinds) != 2 || c.kinds[wire.KindPong] > 19 {
					s.Errorf("%s sent %d packets in a minute, with frames %v", n.name, c.sent, c.kinds)
				}
				c.mu.Unlock()
			}
		}
		if more := dialled() - dials; more > 0 {
			s.Errorf("they dialled %d times", more)
		}
		s.meshed(a, b)
	})
}

// Withdraw returns soon after its context has ended, whatever messages wait for here.
func TestSimWithdrawInTime(t *testing.T) {
	simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
		a, b := s.start("a", nil), s.start("b", nil)
		stuck := make(chan struct{})
		b.Connect(gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block)).OnType("to.b", func(gravbus.Message) error {
			<-stuck
			return nil
		})
		must(s, b.ConnectEndpoint("memory:a"))
		must(s, a.WaitInterest(s.within(time.Second), "to.b", 1))
		a.feed(a.Connect(), "to.b", 0, 9, time.Millisecond)
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- b.Withdraw(s.within(3 * time.Second)) }()
		select {
		case err := <-done:
			if took := time.Since(began); took > 4*time.Second {
				s.Errorf("Withdraw took %v: %v", took, err)
			}
			var left *gravbus.ShutdownError
			if !errors.As(err, &left) || !errors.Is(err, context.DeadlineExceeded) || len(left.Peers) != 1 {
				s.Errorf("Withdraw: %v", err)
			}
			time.Sleep(time.Second)
			if lost := a.missing(b, false); lost < 7 || lost > 9 {
				s.Errorf("a tells of %d messages that b may not have", lost)
			}
		case <-time.After(time.Minute):
			s.Errorf("Withdraw takes more than a minute")
		}
		close(stuck)
	})
}

// Acknowledgements are lost with a connection: what they were about is not delivered twice.
func TestSimLostAcks(t *testing.T) {
	for cut := range 40 {
		simulate(t, memory.Config{Latency: 2 * time.Millisecond}, func(s *sim) {
			a, b, atB := s.linked()
			s.net.Silence("b", "a")
			p := a.Connect()
			go a.feed(p, "to.b", 0, 99, time.Millisecond)
			time.Sleep(time.Duration(cut) * 3 * time.Millisecond)
			s.net.Cut("a", "b")
			s.net.Heal()
			time.Sleep(10 * time.Second)
			s.exactly("to b", atB, 100)
			if st := a.peer(b); st.Unacked > 0 || st.Resent == 0 && cut > 5 && cut < 30 {
				s.Errorf("cut after %d ms: %d are not acknowledged, %d were sent again", cut*3, st.Unacked, st.Resent)
			}
			s.meshed(a, b)
		})
	}
}
