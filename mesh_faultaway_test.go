package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
)

// faultPair returns two nodes, a that sends with these options and b that listens, and what b gets.
func faultPair(t testing.TB, opts ...gravbus.Option) (a, b *faultHost, sender *gravbus.Pod, got *recorder) {
	t.Helper()
	a = newFaultHost(t, "a", nil, opts...)
	b = newFaultHost(t, "b", []*faultHost{a})
	faultUp(t, a.Bus, b.Bus)
	_, got = meshListener(t, b.Bus, "fault.>")
	faultWanted(t, a.Bus, "fault.run", 1)
	return a, b, a.Connect(gravbus.Name("sender")), got
}

// faultApart cuts two nodes off from each other, and waits until both know.
func faultApart(t testing.TB, a, b *faultHost) {
	t.Helper()
	downs := []int{a.events.count(gravbus.EventPeerDown), b.events.count(gravbus.EventPeerDown)}
	faultPart(a, b)
	a.events.await(t, gravbus.EventPeerDown, downs[0]+1)
	b.events.await(t, gravbus.EventPeerDown, downs[1]+1)
}

// checkFaultGap checks that both sides tell of the same messages, which are all of sent that got
// does not have.
func checkFaultGap(t testing.TB, a, b *faultHost, sent, got []gravbus.Message) {
	t.Helper()
	have := map[string]bool{}
	for _, m := range got {
		if have[m.UUID()] {
			t.Errorf("%s came twice", m.UUID())
		}
		have[m.UUID()] = true
	}
	var missing []string
	at := 0
	for _, m := range sent {
		switch {
		case !have[m.UUID()]:
			missing = append(missing, m.UUID())
		case at < len(got) && got[at].UUID() == m.UUID():
			at++
		default:
			t.Fatalf("message %d is not in order", at)
		}
	}
	if at != len(got) {
		t.Errorf("%d messages came that were not sent", len(got)-at)
	}
	for _, side := range []struct {
		of, peer *faultHost
		incoming bool
	}{{a, b, false}, {b, a, true}} {
		gaps := side.of.events.gaps(t, side.incoming, len(missing))
		if len(missing) == 0 {
			continue
		}
		if first, last := gaps[0], gaps[len(gaps)-1]; first.From != missing[0] || last.To != missing[len(missing)-1] || first.Peer != side.peer.NodeUUID {
			t.Errorf("%s tells of a gap from %s to %s at %s; want %s, %s, %s",
				side.of.name, first.From, last.To, first.Peer, missing[0], missing[len(missing)-1], side.peer.NodeUUID)
		}
	}
}

// checkFaultCounts checks what a node counts of its only peer: lost messages, in both directions.
func checkFaultCounts(t testing.TB, n *faultHost, lost int) {
	t.Helper()
	s := n.Stats().Peers[0]
	if told := n.events.count(gravbus.EventPeerGap); s.Lost != uint64(lost) || s.Gaps != uint64(told) {
		t.Errorf("%s counts %d gaps of %d messages; %d of %d were told", n.name, s.Gaps, s.Lost, told, lost)
	}
}

// A peer that is away costs a bounded amount of memory, and senders one stall limit; local pods
// notice nothing; and both sides are told exactly what is missing.
func TestFaultAwayIsBounded(t *testing.T) {
	const bound, count, stall = 1000, 50_000, 2 * time.Second
	a, b, sender, got := faultPair(t, gravbus.UseLinkBounds(bound, 0), gravbus.UseLinkStallLimit(stall))
	local := newFaultTally(count, nil)
	must(t, a.Connect().OnType("fault.run", local.handle))
	faultApart(t, a, b)

	var sent []gravbus.Message
	held := 0
	within(t, patience, func() {
		for i := range count {
			m := nth("fault.run", 0, i)
			began := time.Now()
			if sender.Send(m) == nil {
				t.Error("not sent")
			}
			if time.Since(began) > stall/2 {
				held++
			}
			sent = append(sent, m)
		}
	})
	if held != 1 {
		t.Errorf("the sender was held up %d times", held)
	}
	awaitDone(t, patience, local.done)
	local.check(t)
	if s := meshPeerOf(t, a.Bus, "b"); s.Depth != bound || s.State != gravbus.PeerAway {
		t.Errorf("waiting for the peer that is %s: %d", s.State, s.Depth)
	}
	if n := a.events.count(gravbus.EventPeerSlow); n != 1 {
		t.Errorf("it was told %d times that the peer stalls", n)
	}
	faultHeal(a, b)
	got.await(t, bound)
	for i := range count { // as before
		m := nth("fault.run", 0, count+i)
		if sender.Send(m) == nil {
			t.Fatal("not sent")
		}
		sent = append(sent, m)
	}
	checkFaultGap(t, a, b, sent, got.await(t, bound+count))
	checkFaultCounts(t, a, count-bound)
	checkFaultCounts(t, b, count-bound)
}

// The bound in bytes holds, whatever the bound in messages is.
func TestFaultAwayIsBoundedInBytes(t *testing.T) {
	const size, limit, count = 64 << 10, 1 << 20, 300
	const kept = limit/(size+144) + 1 // the last one reaches the bound
	a, b, sender, got := faultPair(t, gravbus.UseLinkBounds(0, limit), gravbus.UseLinkStallLimit(100*time.Millisecond), gravbus.UseReplay(0))
	faultApart(t, a, b)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var ids []string
	for range count {
		m := gravbus.NewMsg("fault.run", make([]byte, size))
		if sender.Send(m) == nil {
			t.Fatal("not sent")
		}
		ids = append(ids, m.UUID())
		if s := meshPeerOf(t, a.Bus, "b"); s.DepthCost >= limit+size+144 {
			t.Fatalf("%d bytes are waiting", s.DepthCost)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int(after.HeapAlloc) - int(before.HeapAlloc); grown > 2*limit {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	faultHeal(a, b)
	msgs := got.await(t, kept)
	for i, m := range msgs {
		if m.UUID() != ids[count-kept+i] || len(m.Data()) != size {
			t.Fatalf("message %d of those kept is %s of %d bytes", i, m.UUID(), len(m.Data()))
		}
	}
	for _, g := range [][]gravbus.Gap{a.events.gaps(t, false, count-kept), b.events.gaps(t, true, count-kept)} {
		if first, last := g[0], g[len(g)-1]; first.From != ids[0] || last.To != ids[count-kept-1] {
			t.Errorf("a gap from %s to %s", first.From, last.To)
		}
	}
}

// A link has the policies that pods have.
func TestFaultOverflow(t *testing.T) {
	const bound, count = 100, 1000
	all, first, last := span(0, count-1), span(0, bound-1), span(count-bound, count-1)
	for _, c := range []struct {
		name   string
		policy gravbus.OverflowPolicy
		want   []int
		errs   int
		err    error
	}{
		{"DropOldest", gravbus.DropOldest, last, 0, nil},
		{"DropNewest", gravbus.DropNewest, first, 0, nil},
		{"Fail", gravbus.Fail, first, count - bound, gravbus.ErrMailboxFull},
		{"Block", gravbus.Block, all, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b, sender, got := faultPair(t, gravbus.UseLinkBounds(bound, 0), gravbus.UseLinkOverflow(c.policy))
			faultApart(t, a, b)
			var sent []gravbus.Message
			errs := 0
			send := func(from, to int) {
				for i := from; i < to; i++ {
					m := nth("fault.run", 0, i)
					sent = append(sent, m)
					_, err := sender.SendContext(context.Background(), m)
					if err == nil {
						continue
					}
					errs++
					var undelivered *gravbus.UndeliveredError
					if !errors.Is(err, c.err) || !errors.As(err, &undelivered) {
						t.Errorf("message %d: %v", i, err)
					}
				}
			}
			if c.policy == gravbus.Block {
				send(0, bound)
				late, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				lost := nth("fault.run", 0, bound)
				if _, err := sender.SendContext(late, lost); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the end of the context: %v", err)
				}
				rest := make(chan struct{})
				go func() { // ends when the peer is back
					defer close(rest)
					send(bound, count)
				}()
				select {
				case <-rest:
					t.Error("senders do not wait for a peer that is away")
				case <-time.After(2 * gravbus.DefaultStallLimit):
				}
				faultHeal(a, b)
				awaitDone(t, patience, rest)
				if got := numbers(t, got.await(t, count)); fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("got %v", got)
				}
				return
			}
			within(t, patience, func() { send(0, count) })
			if errs != c.errs {
				t.Errorf("%d errors, want %d", errs, c.errs)
			}
			faultHeal(a, b)
			if got := numbers(t, got.await(t, len(c.want))); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %v", got)
			}
			checkFaultGap(t, a, b, sent, got.all())
			checkFaultCounts(t, a, count-bound)
			checkFaultCounts(t, b, count-bound)
		})
	}
}

// A peer that is away for longer than it may be is given up: what was kept for it is a gap, told on
// both sides. When it returns all goes on, and nothing comes twice.
func TestFaultResumeForExceeded(t *testing.T) {
	const away, count = 300 * time.Millisecond, 500
	a := newFaultHost(t, "a", nil, gravbus.UseResumeFor(away))
	b := newFaultHost(t, "b", []*faultHost{a}, gravbus.UseResumeFor(away))
	faultUp(t, a.Bus, b.Bus)
	pods := map[*faultHost]*gravbus.Pod{}
	sent, got := map[*faultHost][]gravbus.Message{}, map[*faultHost]*recorder{}
	for _, n := range []*faultHost{a, b} {
		pods[n], got[n] = meshListener(t, n.Bus, "fault.>")
	}
	send := func(n *faultHost, count int) {
		for range count {
			m := nth("fault.run", 0, len(sent[n]))
			if pods[n].Send(m) == nil {
				t.Fatal("not sent")
			}
			sent[n] = append(sent[n], m)
		}
	}
	lost, have := 0, 0
	for round := range 3 {
		faultWanted(t, a.Bus, "fault.run", 1)
		faultWanted(t, b.Bus, "fault.run", 1)
		send(a, count)
		send(b, count)
		have += count
		got[a].await(t, have)
		got[b].await(t, have)
		// What has come and is not acknowledged would be told as lost too.
		for _, n := range []*faultHost{a, b} {
			faultUntil(t, "all is acknowledged", func() bool {
				p := n.Stats().Peers
				return len(p) == 1 && p[0].Unacked == 0
			})
		}
		faultApart(t, a, b)
		send(a, count+round)
		send(b, 2*count)
		a.events.await(t, gravbus.EventPeerLost, round+1)
		b.events.await(t, gravbus.EventPeerLost, round+1)
		lost += count + round + 2*count
		for _, n := range []*faultHost{a, b} {
			if p := n.Stats().Peers; len(p) != 0 {
				t.Errorf("a peer that is given up is still listed: %+v", p)
			}
		}
		for _, n := range []*faultHost{a, b} { // nobody wants these
			if _, err := pods[n].SendContext(t.Context(), nth("fault.run", 0, -1)); err != nil {
				t.Error(err)
			}
		}
		faultHeal(a, b)
		faultUp(t, a.Bus, b.Bus)
	}
	faultWanted(t, a.Bus, "fault.run", 1)
	faultWanted(t, b.Bus, "fault.run", 1)
	send(a, count)
	send(b, count)
	have += count
	checkFaultGap(t, a, b, sent[a], got[b].await(t, have))
	checkFaultGap(t, b, a, sent[b], got[a].await(t, have))
	checkFaultCounts(t, a, lost)
	checkFaultCounts(t, b, lost)
}
