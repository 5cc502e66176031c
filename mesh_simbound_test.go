package gravbus_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
)

// sized is nth with a message of some size, which numberOfSized reads.
func sized(typ string, i, size int) gravbus.Message {
	data := make([]byte, size)
	copy(data, fmt.Append(nil, i, "."))
	return gravbus.NewMsg(typ, data)
}

// sizedRecorder keeps the numbers of messages, and when they came.
type sizedRecorder struct {
	sync.Mutex
	got []int
	at  []time.Time
}

func (r *sizedRecorder) handle(msg gravbus.Message) error {
	i := -1
	if msg.Type() != gravbus.MsgTypeLagged {
		_, _ = fmt.Sscanf(string(msg.Data()[:min(12, len(msg.Data()))]), "%d.", &i)
	}
	r.Lock()
	defer r.Unlock()
	r.got, r.at = append(r.got, i), append(r.at, time.Now())
	return nil
}

func (r *sizedRecorder) all() []int {
	r.Lock()
	defer r.Unlock()
	return slices.Clone(r.got)
}

// A peer stands still for longer than the stall limit: its oldest messages give way, and both sides
// are told exactly how many. The others wait for one stall limit at most.
func TestSimStandingStill(t *testing.T) {
	for _, size := range []int{1 << 10, 100 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
				const n = 1500
				bounds := []gravbus.Option{gravbus.UseLinkBounds(64, 1<<20), gravbus.UseDeadAfter(time.Minute)}
				a, b, c := s.start("a", nil, bounds...), s.start("b", nil, bounds...), s.start("c", nil, bounds...)
				var here, atB, atC sizedRecorder
				a.Connect().OnType("x", here.handle)
				b.Connect().OnType("x", atB.handle)
				c.Connect().OnType("x", atC.handle)
				must(s, a.ConnectEndpoint("memory:b"))
				must(s, a.ConnectEndpoint("memory:c"))
				must(s, a.WaitInterest(s.within(time.Second), "x", 2))
				time.Sleep(time.Second)
				for _, conn := range s.net.Connections() {
					if conn.To() == "b" && conn.From() == "a" {
						conn.Stall()
					}
				}
				p := a.Connect()
				longest := time.Duration(0)
				for i := range n {
					before := time.Now()
					p.Send(sized("x", i, size))
					longest = max(longest, time.Since(before))
					if st := a.peer(b); st.Depth > 64 || st.DepthCost > 1<<20+size+200 {
						s.Fatalf("%d messages of %d bytes wait for b", st.Depth, st.DepthCost)
					}
					time.Sleep(time.Millisecond)
				}
				if longest < 500*time.Millisecond || longest > 1100*time.Millisecond {
					s.Errorf("a Send took %v, the stall limit is 1 s", longest)
				}
				time.Sleep(time.Second)
				s.net.Heal()
				time.Sleep(10 * time.Second)
				for i := range 10 {
					p.Send(sized("x", n+i, size))
				}
				time.Sleep(10 * time.Second)
				if got := here.all(); !slices.Equal(got, span(0, n+9)) {
					s.Errorf("here: %s", simDiff(got, n+10))
				}
				if got := atC.all(); !slices.Equal(got, span(0, n+9)) {
					s.Errorf("at c: %s", simDiff(got, n+10))
				}
				got := atB.all()
				if !slices.IsSorted(got) || len(slices.Compact(got)) != len(got) {
					s.Errorf("at b: %s", simDiff(got, n+10))
				}
				lost := n + 10 - len(got)
				if out, in := a.missing(b, false), b.missing(a, true); lost == 0 || out != lost || in != lost {
					s.Errorf("%d are missing; a tells of %d and b of %d", lost, out, in)
				}
				if tail := got[len(got)-10:]; !slices.Equal(tail, span(n, n+9)) {
					s.Errorf("the last ones are %v", tail)
				}
			})
		})
	}
}

// A peer is away for so long that the bound is exceeded, but comes back in time: the newest were
// kept, and the Gap says how many were not.
func TestSimAwayBeyondBounds(t *testing.T) {
	for _, away := range []time.Duration{3 * time.Second, 30 * time.Second, time.Minute} {
		t.Run(away.String(), func(t *testing.T) {
			simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
				a, b, atB := s.linked(gravbus.UseLinkBounds(100, 0))
				p := a.Connect()
				a.feed(p, "to.b", 0, 9, time.Millisecond)
				s.net.Refuse("a", true)
				s.net.Refuse("b", true)
				s.net.Cut("a", "b")
				began := time.Now()
				n := 10
				for ; time.Since(began) < away; n++ {
					p.Send(nth("to.b", 0, n))
					time.Sleep(10 * time.Millisecond)
				}
				s.net.Refuse("a", false)
				s.net.Refuse("b", false)
				must(s, a.WaitPeers(s.within(time.Minute), 1))
				a.feed(p, "to.b", n, n+9, time.Millisecond)
				time.Sleep(time.Minute)
				got := numbers(s, atB.all())
				lost := n + 10 - len(got)
				if !slices.IsSorted(got) || len(got) < 110 || !slices.Equal(got[len(got)-100:], span(n-90, n+9)) {
					s.Errorf("%s", simDiff(got, n+10))
				}
				if out, in := a.missing(b, false), b.missing(a, true); out != lost || in != lost {
					s.Errorf("%d are missing; a tells of %d and b of %d", lost, out, in)
				}
			})
		})
	}
}

// A pod that is slow, but goes on, paces the sender over there: nothing is lost, and what waits
// between them is bounded.
func TestSimSlowPeerPaces(t *testing.T) {
	simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
		const n = 4000
		opts := []gravbus.Option{gravbus.UseLinkBounds(64, 0)}
		a, b := s.start("a", nil, opts...), s.start("b", nil, opts...)
		var got sizedRecorder
		b.Connect(gravbus.Mailbox(16)).OnType("x", func(msg gravbus.Message) error {
			time.Sleep(30 * time.Millisecond)
			return got.handle(msg)
		})
		must(s, a.ConnectEndpoint("memory:b"))
		must(s, a.WaitInterest(s.within(time.Second), "x", 1))
		p := a.Connect()
		began := time.Now()
		most := 0
		for i := range n {
			p.Send(sized("x", i, 4000))
			most = max(most, a.peer(b).Unacked+a.peer(b).Depth)
		}
		if took := time.Since(began); took < n/2*30*time.Millisecond {
			s.Errorf("it took %v to send: nobody was paced", took)
		}
		if most > 64+4<<20/4000+256 {
			s.Errorf("%d messages waited", most)
		}
		time.Sleep(n * 30 * time.Millisecond)
		if all := got.all(); !slices.Equal(all, span(0, n-1)) {
			s.Errorf("%s; a tells of %d missing, b of %d", simDiff(all, n), a.missing(b, false), b.missing(a, true))
		}
	})
}

// Heartbeats, acknowledgements and interest get through while deliveries wait for a pod over there.
func TestSimControlPasses(t *testing.T) {
	simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
		a, b := s.start("a", nil, gravbus.UseLinkBounds(64, 0)), s.start("b", nil)
		free := make(chan struct{})
		defer close(free)
		b.Connect(gravbus.Mailbox(1), gravbus.Overflow(gravbus.Block)).OnType("x", func(gravbus.Message) error {
			<-free
			return nil
		})
		must(s, a.ConnectEndpoint("memory:b"))
		must(s, a.WaitInterest(s.within(time.Second), "x", 1))
		p := a.Connect()
		for i := range 3000 {
			p.Send(sized("x", i, 10_000))
		}
		time.Sleep(time.Minute)
		if cuts := s.cuts(a, b); cuts > 0 {
			s.Errorf("the link was lost %d times", cuts)
		}
		_, more := b.listen("fresh")
		must(s, a.WaitInterest(s.within(10*time.Millisecond), "fresh", 1))
		_, atA := a.listen("back")
		must(s, b.WaitInterest(s.within(10*time.Millisecond), "back", 1))
		b.feed(b.Connect(), "back", 0, 99, 0)
		time.Sleep(time.Second)
		s.exactly("back", atA, 100)
		_ = more
		if rtt := a.peer(b).RTT; rtt > 10*time.Millisecond {
			s.Errorf("the round trip takes %v", rtt)
		}
	})
}

// Pods on three nodes send on to each other in a ring, with mailboxes of one and more messages than
// all of them hold. Waiting for each other ends by the stall limit at the latest, and what was lost
// is counted.
func TestSimRing(t *testing.T) {
	for _, burst := range []int{1, 10, 500, 2000} {
		if burst > 500 && (raceOn || testing.Short()) {
			continue
		}
		t.Run(fmt.Sprint(burst), func(t *testing.T) {
			simulate(t, memory.Config{Latency: time.Millisecond}, func(s *sim) {
				names := []string{"a", "b", "c"}
				var nodes []*simNode
				bounds := gravbus.UseLinkBounds(1, 0)
				for _, name := range names {
					nodes = append(nodes, s.start(name, names, bounds))
				}
				var done sync.Mutex
				rounds := map[int]int{}
				for i, n := range nodes {
					p := n.Connect(gravbus.Mailbox(1))
					next := "ring." + names[(i+1)%3]
					p.OnType("ring."+names[i], func(msg gravbus.Message) error {
						if msg.Type() == gravbus.MsgTypeLagged {
							return nil
						}
						from, hops := numberOf(msg)
						if hops > 0 {
							p.Send(nth(next, from, hops-1))
							return nil
						}
						done.Lock()
						rounds[from]++
						done.Unlock()
						return nil
					})
				}
				for i, n := range nodes {
					must(s, n.WaitPeers(s.within(10*time.Second), 2))
					must(s, n.WaitInterest(s.within(10*time.Second), "ring."+names[(i+1)%3], 1))
				}
				var all sync.WaitGroup
				for i, n := range nodes {
					p := n.Connect()
					all.Go(func() {
						for k := range burst {
							p.Send(nth("ring."+names[(i+1)%3], i*burst+k, 30))
						}
					})
				}
				all.Wait()
				for _, n := range nodes { // a minute, and then it is quiet
					time.Sleep(time.Minute)
					for _, other := range nodes {
						if n != other && (n.peer(other).Depth > 0 || n.peer(other).Unacked > 0) {
							s.Errorf("%s: %d wait for %s, and %d are not acknowledged", n.name, n.peer(other).Depth, other.name, n.peer(other).Unacked)
						}
					}
				}
				if cuts := s.cuts(nodes...); cuts > 6 {
					s.Errorf("%d connections were lost", cuts)
				}
				done.Lock()
				defer done.Unlock()
				arrived := 0
				for _, k := range rounds {
					if k != 1 {
						s.Errorf("one came %d times", k)
					}
					arrived++
				}
				told := 0
				for _, n := range nodes {
					for _, other := range nodes {
						told += n.missing(other, false)
					}
					for _, p := range n.Stats().Pods {
						told += int(p.Dropped)
					}
				}
				if arrived+told != 3*burst {
					s.Errorf("%d of %d arrived, and %d are told to be lost", arrived, 3*burst, told)
				}
				if burst <= 10 && arrived < 3*burst {
					s.Errorf("%d of %d arrived", arrived, 3*burst)
				}
			})
		})
	}
}
