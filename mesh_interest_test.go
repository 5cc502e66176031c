package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/sirupsen/logrus"
)

// From many pods with many types to many, on all nodes at once, with cuts: each pod gets each
// message once, and those of one sender in their order.
func TestMeshInterestOrderAndExactlyOnce(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	for seed := range rounds {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { orderSchedule(t, uint64(seed)) }) && seed > 20 {
			return
		}
	}
}

func orderSchedule(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	meshBubble(t, memory.Config{Latency: time.Duration(r.IntN(3)) * time.Millisecond}, func(t *testing.T, n meshNet) {
		nodes := map[int]*gravbus.Bus{}
		names := []string{"a", "b", "c"}
		for i, name := range names {
			nodes[i] = n.node(name, "a b c")
		}
		meshUp(t, nodes[0], nodes[1], nodes[2])
		var all []*recorder
		var of []int
		for i := range 3 {
			for _, opts := range [][]gravbus.PodOption{nil, {gravbus.Mailbox(4)}, {gravbus.Overflow(gravbus.Block), gravbus.Mailbox(2)}} {
				_, rec := meshListener(t, nodes[i], "t.*.>", opts...)
				all, of = append(all, rec), append(of, i)
			}
		}
		for i := range 3 {
			meshWanted(t, nodes[i], "t.x.y", 2)
		}
		const each, senders = 150, 4
		var wg sync.WaitGroup
		for i := range 3 {
			for j := range senders {
				p := nodes[i].Connect()
				rr := rand.New(rand.NewPCG(seed, uint64(100*i+j)))
				wg.Go(func() {
					for k := range each {
						if rr.IntN(5) == 0 {
							time.Sleep(time.Duration(rr.IntN(2000)) * time.Microsecond)
						}
						if p.Send(nth(fmt.Sprintf("t.%d.%d", rr.IntN(7), rr.IntN(700)), senders*i+j, k)) == nil {
							t.Error("not sent")
						}
					}
				})
			}
		}
		for range r.IntN(10) {
			x, y := names[r.IntN(3)], names[r.IntN(3)]
			wait := time.Duration(r.IntN(100)) * time.Millisecond
			wg.Go(func() {
				time.Sleep(wait)
				n.Cut(x, y)
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, rec := range all {
			next := map[int]int{}
			for _, m := range rec.all() {
				s, k := numberOf(m)
				if s < 0 || k != next[s] {
					t.Fatalf("pod %d at %s: of sender %d came %d, want %d", i, names[of[i]], s, k, next[s])
				}
				next[s]++
			}
			for s := range 3 * senders {
				if next[s] != each {
					t.Errorf("pod %d at %s: %d of sender %d", i, names[of[i]], next[s], s)
				}
			}
		}
		for i := range 3 {
			for _, s := range nodes[i].Stats().Peers {
				if s.Lost != 0 || s.Gaps != 0 || s.Sent != senders*each || s.Received != senders*each {
					t.Errorf("%s: %+v", names[i], s)
				}
			}
		}
	})
}

// What came from a peer goes to no peer, neither back nor on: one hop.
func TestMeshInterestOneHopNoEcho(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		// b is between a and c, which cannot reach each other.
		n.Partition([]string{"a"}, []string{"c"})
		a, b, c := n.node("a", ""), n.node("b", "a c"), n.node("c", "")
		ctx := meshCtx(t, time.Minute)
		must(t, b.WaitPeers(ctx, 2))
		_, ra := meshListener(t, a, ">")
		_, rb := meshListener(t, b, ">")
		_, rc := meshListener(t, c, ">")
		must(t, a.WaitInterest(ctx, "t", 1))
		must(t, b.WaitInterest(ctx, "t", 2))
		must(t, c.WaitInterest(ctx, "t", 1))
		a.Connect().Send(nth("t", 1, 1))
		b.Connect().Send(nth("t", 2, 2))
		time.Sleep(time.Second)
		synctest.Wait()
		if got := numbers(t, ra.all()); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("a has %v", got)
		}
		if got := numbers(t, rb.all()); len(got) != 2 {
			t.Errorf("b has %v", got)
		}
		if got := numbers(t, rc.all()); !slices.Equal(got, []int{2}) {
			t.Errorf("c has %v", got)
		}
		for _, s := range b.Stats().Peers {
			if s.Sent != 1 {
				t.Errorf("b has sent %d to %s", s.Sent, s.Name)
			}
		}

		// Forwarding by hand is a message of b's own.
		fwd := b.Connect()
		must(t, fwd.OnType("from.a", func(m gravbus.Message) error {
			fwd.Send(m)
			return nil
		}))
		must(t, a.WaitInterest(ctx, "from.a", 1))
		a.Connect().Send(nth("from.a", 1, 3))
		time.Sleep(time.Second)
		synctest.Wait()
		if got := numbers(t, rc.all()); !slices.Equal(got, []int{2, 3}) {
			t.Errorf("c has %v", got)
		}
	})
}

// Nothing crosses that nobody wants, and everything that somebody does.
func TestMeshInterestOnlyWhatIsWanted(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		p := a.Connect()
		sent := uint64(0)
		try := func(what, typ string, wanted bool) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			n := 0
			if wanted {
				n = 1
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := a.WaitInterest(ctx, typ, 1); (err == nil) != wanted {
				t.Errorf("%s: WaitInterest(%s, 1): %v", what, typ, err)
			}
			if err := a.WaitInterest(ctx, typ, n); err != nil {
				t.Errorf("%s: WaitInterest(%s, %d): %v", what, typ, n, err)
			}
			p.Send(nth(typ, 1, 0))
			time.Sleep(time.Second)
			synctest.Wait()
			if wanted {
				sent++
			}
			if s := meshPeerOf(t, a, "b"); s.Sent != sent {
				t.Errorf("%s: sending %s: wanted %v, sent %d of %d", what, typ, wanted, s.Sent, sent)
				sent = s.Sent
			}
		}
		try("nothing", "x", false)
		q, _ := meshListener(t, b, "t.*", gravbus.Name("q"))
		try("t.*", "t.a", true)
		try("t.*", "t", false)
		try("t.*", "t.a.b", false)
		must(t, q.FilterType("t.b", false))
		try("denied", "t.b", false)
		try("denied", "t.a", true)
		must(t, q.FilterType("t.b", true))
		try("allowed again", "t.b", true)
		must(t, q.OnType("u.>", func(gravbus.Message) error { return nil }, "v"))
		try("changed", "t.a", false)
		try("changed", "u.a.b", true)
		try("changed", "v", true)
		must(t, q.On(nil))
		try("no handler", "u.a", false)
		must(t, q.On(func(gravbus.Message) error { return nil }))
		try("all", "w", true)
		must(t, q.FilterType(">", false))
		try("all denied", "w", false)
		q.Disconnect()
		try("gone", "w", false)

		waiter := b.Connect()
		wait := func(fn func(ctx context.Context)) (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				fn(ctx)
			}()
			return func() { cancel(); <-done }
		}
		stop := wait(func(ctx context.Context) { waiter.Wait(ctx, "x.y") })
		try("Wait", "x.z", false)
		stop()
		try("Wait is over", "x.y", false)
		stop = wait(func(ctx context.Context) { waiter.Wait(ctx, "x.y") })
		try("Wait", "x.y", true)
		try("Wait has it", "x.y", false)
		stop()
		stop = wait(func(ctx context.Context) {
			for range waiter.Messages(ctx, "m.*") {
			}
		})
		try("Messages", "m.a", true)
		try("Messages", "m.b", true)
		try("Messages", "n", false)
		stop()
		try("Messages is over", "m.a", false)
		stop = wait(func(context.Context) {
			waiter.WaitUntil(gravbus.Timeout(10), func(m gravbus.Message) error {
				if m.Type() == "end" {
					return nil
				}
				return gravbus.ErrMsgNotWanted
			})
		})
		try("WaitUntil", "o", true)
		try("WaitUntil", "end", true)
		try("WaitUntil is over", "o", false)
		stop()
		stop = wait(func(context.Context) {
			waiter.WaitUntil(gravbus.Timeout(3), func(gravbus.Message) error { return gravbus.ErrMsgNotWanted })
		})
		try("WaitUntil", "o", true)
		time.Sleep(3 * time.Second)
		try("its time is over", "o", false)
		stop()

		r := waiter.Send(gravbus.NewMsg("question", nil))
		stop = wait(func(ctx context.Context) { r.Wait(ctx) })
		try("a receipt wants nothing", "reply", false)
		stop()

		// Two who want the same; one goes.
		q1, _ := meshListener(t, b, "same")
		q2, _ := meshListener(t, b, "same", gravbus.Observer())
		q3, _ := meshListener(t, b, "same", gravbus.InGroup("g"))
		try("three", "same", true)
		q1.Disconnect()
		try("two", "same", true)
		q2.Disconnect()
		try("one", "same", true)
		q3.Disconnect()
		try("none", "same", false)
	})
}

// What no peer can want is not waited for.
func TestMeshInterestOfNobody(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, _ := n.pair()
		for typ, want := range map[string]error{
			gravbus.EventPodPanic: gravbus.ErrReservedType, "gravbus": gravbus.ErrReservedType, "a..b": gravbus.ErrInvalidType,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := a.WaitInterest(ctx, typ, 1); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", typ, err, want)
			}
			cancel()
		}
	})
}

// Interest survives a cut, and what changes during one counts when it is over.
func TestMeshInterestAndCuts(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		_, kept := meshListener(t, b, "kept")
		gone, goneGot := meshListener(t, b, "gone")
		g, _ := meshListener(t, b, "grouped", gravbus.InGroup("g"))
		for _, typ := range []string{"kept", "gone", "grouped"} {
			meshWanted(t, a, typ, 1)
		}
		n.Refuse("a", true)
		n.Refuse("b", true)
		n.Cut("a", "b")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.WaitInterest(ctx, "kept", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a peer that is away counts: %v", err)
		}
		if err := a.WaitPeers(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a peer that is away counts: %v", err)
		}
		gone.Disconnect()
		g.Disconnect()
		_, fresh := meshListener(t, b, "fresh")
		p := a.Connect()
		for i := range 10 {
			p.Send(nth("kept", 1, i))
			p.Send(nth("gone", 1, i))
			p.Send(nth("fresh", 1, i)) // a does not know yet
		}
		n.Refuse("a", false)
		n.Refuse("b", false)
		meshUp(t, a, b)
		meshWanted(t, a, "fresh", 1)
		p.Send(nth("fresh", 1, 10))
		time.Sleep(time.Second)
		synctest.Wait()
		if got := numbers(t, kept.all()); !slices.Equal(got, span(0, 9)) {
			t.Errorf("got %v", got)
		}
		if got := numbers(t, fresh.all()); !slices.Equal(got, []int{10}) {
			t.Errorf("got %v", got)
		}
		if len(goneGot.all()) != 0 {
			t.Error("a pod that is gone got something")
		}
		cancelled, stop := context.WithCancel(t.Context())
		stop()
		for _, typ := range []string{"gone", "grouped"} {
			if err := a.WaitInterest(cancelled, typ, 1); err == nil {
				t.Errorf("%s is still wanted", typ)
			}
		}
	})
}

// A thousand come and go; in the end exactly what is wanted is wanted.
func TestMeshInterestChurn(t *testing.T) {
	meshBubble(t, memory.Config{Latency: time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		r := rand.New(rand.NewPCG(3, 4))
		pods := map[int]*gravbus.Pod{}
		for i := range 5000 {
			k := r.IntN(1000)
			switch p := pods[k]; {
			case p == nil:
				opts := [][]gravbus.PodOption{nil, {gravbus.InGroup("g")}, {gravbus.Observer()}}[k%3]
				pods[k], _ = meshListener(t, b, fmt.Sprintf("t.%d", k), opts...)
			case r.IntN(2) == 0:
				p.Disconnect()
				delete(pods, k)
			default:
				must(t, p.On(nil))
				must(t, p.OnType(fmt.Sprintf("t.%d", k), func(gravbus.Message) error { return nil }))
			}
			if i%1000 == 500 {
				n.Cut("a", "b")
			}
			if i%50 == 0 {
				time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
			}
		}
		meshUp(t, a, b)
		time.Sleep(time.Minute)
		synctest.Wait()
		done, cancel := context.WithCancel(t.Context())
		cancel()
		for k := range 1000 {
			if want, got := pods[k] != nil, a.WaitInterest(done, fmt.Sprintf("t.%d", k), 1) == nil; want != got {
				t.Errorf("t.%d: wanted %v, known %v", k, want, got)
			}
		}
		for _, p := range pods {
			p.Disconnect()
		}
		time.Sleep(time.Minute)
		for k := range 1000 {
			if a.WaitInterest(done, fmt.Sprintf("t.%d", k), 1) == nil {
				t.Errorf("t.%d is still wanted", k)
			}
		}
	})
}

// 5,000 patterns in one OnType, with and without denials, and a cut.
func TestMeshInterestManyPatterns(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		var patterns []string
		for i := range 5000 {
			patterns = append(patterns, fmt.Sprintf("some.rather.long.type.%d.*", i))
		}
		p, got := b.Connect(), new(recorder)
		must(t, p.OnType(patterns[0], got.handle, patterns[1:]...))
		type2 := func(i int) string { return fmt.Sprintf("some.rather.long.type.%d.x", i) }
		for i := range 5000 {
			meshWanted(t, a, type2(i), 1)
		}
		sender := a.Connect()
		for i := range 5000 {
			sender.Send(nth(type2(i), 1, i))
			if i == 2500 {
				n.Cut("a", "b")
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, 4999)) {
			t.Errorf("%d came", len(all))
		}
		if s := meshPeerOf(t, a, "b"); s.Sent != 5000 {
			t.Errorf("%d sent", s.Sent)
		}
		// One more, and the same once more: each is a change of the whole interest.
		must(t, p.FilterType("some.rather.long.type.7.*", false))
		time.Sleep(time.Second)
		sender.Send(nth(type2(7), 1, 7))
		sender.Send(nth(type2(8), 1, 8))
		time.Sleep(time.Second)
		synctest.Wait()
		if s := meshPeerOf(t, a, "b"); s.Sent != 5001 {
			t.Errorf("%d sent", s.Sent)
		}
		p.Disconnect()
		time.Sleep(time.Second)
		done, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 5000 {
			if a.WaitInterest(done, type2(i), 1) == nil {
				t.Fatalf("%s is still wanted", type2(i))
			}
		}
	})
}

// With a large interest to be told, what was under way at a cut is not handed over before the
// replay that covers it.
func TestMeshInterestLargeAndReplay(t *testing.T) {
	meshBubble(t, memory.Config{Latency: time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		var patterns []string
		for i := range 5000 {
			patterns = append(patterns, fmt.Sprintf("some.rather.long.type.%d.*", i))
		}
		must(t, a.Connect().OnType(patterns[0], func(gravbus.Message) error { return nil }, patterns[1:]...))
		_, here := meshListener(t, b, "t")
		meshWanted(t, a, "t", 1)
		time.Sleep(time.Second)
		p := a.Connect()
		n.Cut("a", "b")
		for i := range 10 {
			p.Send(nth("t", 1, i))
		}
		late := b.ConnectWithReplay()
		var got recorder
		must(t, late.OnType("t", got.handle))
		meshUp(t, a, b)
		for i := range 10 {
			p.Send(nth("t", 1, 10+i))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if all := numbers(t, here.all()); !slices.Equal(all, span(0, 19)) {
			t.Errorf("the pod without replay got %v", all)
		}
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, 19)) {
			t.Errorf("the pod with replay got %v", all)
		}
	})
}

// WaitPeers and WaitInterest return as soon as it is so, and not before.
func TestMeshInterestWaitsAreExact(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 10 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a := n.node("a", "")
		must(t, a.WaitPeers(t.Context(), 0))
		must(t, a.WaitInterest(t.Context(), "t", 0))
		done := make(chan error, 2)
		go func() { done <- a.WaitPeers(t.Context(), 2) }()
		b := n.node("b", "a")
		must(t, a.WaitPeers(t.Context(), 1))
		synctest.Wait()
		select {
		case <-done:
			t.Error("one is not two")
		default:
		}
		c := n.node("c", "a")
		must(t, <-done)
		meshUp(t, a, b, c)
		go func() { done <- a.WaitInterest(t.Context(), "t.x", 2) }()
		_, rb := meshListener(t, b, "t.*")
		must(t, a.WaitInterest(t.Context(), "t.x", 1))
		meshListener(t, b, "t.x", gravbus.InGroup("g"))
		time.Sleep(time.Second)
		select {
		case <-done:
			t.Error("one node is not two")
		default:
		}
		meshListener(t, c, "t.x", gravbus.InGroup("g"))
		must(t, <-done)
		began := time.Now()
		a.Connect().Send(nth("t.x", 1, 1))
		rb.await(t, 1)
		if d := time.Since(began); d > 15*time.Millisecond {
			t.Errorf("one way takes %v", d)
		}
		go func() { done <- a.WaitPeers(t.Context(), 3) }()
		go func() { done <- a.WaitInterest(t.Context(), "u", 1) }()
		synctest.Wait()
		a.Close()
		for range 2 {
			if err := awaitDone(t, time.Second, done); !errors.Is(err, gravbus.ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		}
	})
}

// The same over real sockets.
func TestMeshInterestWebsocket(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	quiet := gravbus.UseLogger(log)
	a := meshNode(t, nil, quiet)
	b := meshNode(t, a.Endpoints(), quiet)
	c := meshNode(t, a.Endpoints(), quiet)
	ctx := soon(t)
	for _, x := range []*gravbus.Bus{a, b, c} {
		must(t, x.WaitPeers(ctx, 2))
	}
	nodes := []*gravbus.Bus{a, b, c}
	var all []*recorder
	for _, x := range nodes {
		_, r := meshListener(t, x, "t.*")
		all = append(all, r)
	}
	for _, x := range nodes {
		must(t, x.WaitInterest(ctx, "t.x", 2))
	}
	const each = 5000
	var wg sync.WaitGroup
	for i, x := range nodes {
		p := x.Connect()
		wg.Go(func() {
			for k := range each {
				if p.Send(nth(fmt.Sprintf("t.%d", k%10), i, k)) == nil {
					t.Error("not sent")
				}
			}
		})
	}
	wg.Wait()
	for i, r := range all {
		next := map[int]int{}
		for _, m := range r.await(t, 3*each) {
			s, k := numberOf(m)
			if k != next[s] {
				t.Fatalf("node %d: of sender %d came %d, want %d", i, s, k, next[s])
			}
			next[s]++
		}
	}
}

// The bus's own events stay where they are, whoever wants them elsewhere.
func TestMeshInterestEventsStay(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		_, got := meshListener(t, b, "gravbus.>")
		_, all := meshListener(t, b, ">")
		late := b.ConnectWithReplay()
		must(t, late.OnType("gravbus.*", all.handle))
		time.Sleep(time.Second)
		bad := a.Connect(gravbus.Name("bad"), gravbus.MaxFailures(1))
		must(t, bad.OnType("x", func(gravbus.Message) error { panic("bad") }))
		a.Connect().Send(gravbus.NewMsg("x", nil))
		c := n.node("c", "a")
		meshUp(t, a, b, c)
		c.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, m := range got.all() {
			if p, err := gravbus.Decode[gravbus.PeerEvent](m); err != nil || p.Peer.NodeUUID != c.NodeUUID {
				t.Errorf("%s came", m.Type())
			}
		}
		for _, m := range all.all() {
			if m.Type() != "x" {
				t.Errorf("%s came", m.Type())
			}
		}
		if s := meshPeerOf(t, a, "b"); s.Sent != 1 {
			t.Errorf("%d sent", s.Sent)
		}
		if err := a.WaitInterest(t.Context(), "gravbus.peer.up", 0); !errors.Is(err, gravbus.ErrReservedType) {
			t.Errorf("%v", err)
		}
	})
}
