package gravbus_test

import (
	"maps"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
)

// These tests have nodes in processes of their own, and treat them as a system does: processes are
// killed, stopped and started again. What is waited for is what nodes say; time is waited for only
// where the passing of time is what is tested.

func TestProcKilled(t *testing.T) {
	p, n := procMesh(t, procConfig{DeadAfter: never, ResumeFor: 2 * time.Second}, "a", "b", "c")
	a, b, c := n[0], n[1], n[2]
	a.sends(1000)
	procOnce(n[:1], n)
	a.acknowledged(b)
	c.flow()

	b.kill()
	a.event("down", b) // though nobody is dead before never
	a.sends(500)
	if gap := a.event("gap", b); gap.N != 500 || gap.Incoming {
		t.Errorf("%+v, want 500 messages to it", gap)
	}
	a.event("lost", b)
	c.event("lost", b)
	a.sends(500)
	c.halt()
	procOnce([]*procChild{a, c}, []*procChild{a, c})
	for _, l := range a.seen("gap", "slow", "down", "lost") {
		t.Errorf("a says %+v", l)
	}
	if peers := a.peers(); len(peers) != 1 {
		t.Errorf("a has the peers %v", slices.Collect(maps.Keys(peers)))
	}
	p.end()
}

func TestProcStopped(t *testing.T) {
	t.Run("for less than DeadAfter", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("it takes time that passes")
		}
		const dead = gravbus.DefaultDeadAfter
		p, n := procMesh(t, procConfig{}, "a", "b", "c")
		a, b := n[0], n[1]
		a.flow()
		b.flow()
		b.Signal(syscall.SIGSTOP)
		<-time.After(dead * 7 / 20) // more than one heartbeat
		b.Signal(syscall.SIGCONT)
		a.halt()
		b.halt()
		procOnce(n, n)
		for _, k := range n {
			for _, l := range k.seen("gap", "slow", "down", "lost", "refused") {
				t.Errorf("%s says %+v", k.Name, l)
			}
		}
		p.end()
	})
	t.Run("for more than DeadAfter", func(t *testing.T) {
		t.Parallel()
		p, n := procMesh(t, procConfig{DeadAfter: time.Second}, "a", "b", "c")
		a, b, c := n[0], n[1], n[2]
		for _, k := range n {
			k.flow()
		}
		b.Signal(syscall.SIGSTOP)
		a.event("down", b)
		c.event("down", b)
		b.Signal(syscall.SIGCONT)
		a.event("up", b)
		c.event("up", b)
		for _, k := range n {
			k.halt()
		}
		procOnce(n, n)
		for _, k := range n {
			for _, l := range k.seen("gap", "slow", "lost", "refused") {
				t.Errorf("%s says %+v", k.Name, l)
			}
		}
		p.end()
	})
}

// When more is sent to one that is stopped than may wait for it, what is missing is what both nodes
// count, to the message.
func TestProcStoppedForTooLong(t *testing.T) {
	const count = 40_000 // more than bound and window
	p, n := procMesh(t, procConfig{DeadAfter: never, LinkMessages: 1000, StallLimit: time.Second}, "a", "b", "c")
	a, b, c := n[0], n[1], n[2]
	b.Signal(syscall.SIGSTOP)
	a.sends(count)
	a.event("slow", b)
	procOnce(n[:1], []*procChild{c})
	b.Signal(syscall.SIGCONT)
	b.order(procCommand{Do: "await", From: a.Number, N: count - 1})
	b.answer("got") // the latest is not what gives way
	tally := b.ask(procCommand{Do: "report"}).Tallies[a.Number]
	missing := count - tally.Got
	if missing == 0 || tally.Doubled+tally.Disorder > 0 {
		t.Errorf("b has %+v", tally)
	}
	for _, side := range []struct{ n, peer *procChild }{{a, b}, {b, a}} {
		told := 0
		for told < missing {
			gap := side.n.event("gap", side.peer)
			if told += gap.N; gap.Incoming != (side.n == b) {
				t.Errorf("%s says %+v", side.n.Name, gap)
			}
		}
		if s := side.n.peers()[side.peer.uuid]; told != missing || s.Lost != uint64(missing) {
			t.Errorf("%s tells of %d lost messages and counts %d, want %d", side.n.Name, told, s.Lost, missing)
		}
	}
	p.end()
}

func TestProcStoppedAtFullSpeed(t *testing.T) {
	count, rounds := 100_000, 5
	if testing.Short() {
		count, rounds = 20_000, 2
	}
	p, n := procMesh(t, procConfig{DeadAfter: 2 * time.Second, StallLimit: patience}, "a", "b")
	a, b := n[0], n[1]
	a.order(procCommand{Do: "send", N: count})
	b.order(procCommand{Do: "send", N: count})
	for i := range rounds {
		b.order(procCommand{Do: "await", From: a.Number, N: (i + 1) * count / (rounds + 1)})
		b.answer("got")
		a.forget()
		a.up(b)
		b.Signal(syscall.SIGSTOP)
		if i%2 == 0 {
			<-time.After(200 * time.Millisecond)
		} else {
			a.event("down", b)
		}
		b.Signal(syscall.SIGCONT)
	}
	a.sent = a.answer("send").N
	b.sent = b.answer("send").N
	procOnce(n, n)
	for _, k := range n {
		for _, l := range k.seen("gap", "slow", "lost", "refused") {
			t.Errorf("%s says %+v", k.Name, l)
		}
	}
	p.end()
}

// Time in which the process does not run is no time in which a pod finishes nothing.
func TestProcStoppedWhileItWaits(t *testing.T) {
	const count = 30
	stops := []time.Duration{procStall * 6 / 5, procStall * 2, procStall * 7 / 5}
	p, n := procMesh(t, procConfig{}, "a")
	a := n[0]
	a.order(procCommand{Do: "slow", N: count})
	for i, stop := range stops {
		a.next("a message that takes its time", func(l procLine) bool { return l.Is == "slowly" && l.N == (i+1)*count/4 })
		a.Signal(syscall.SIGSTOP)
		<-time.After(stop)
		a.Signal(syscall.SIGCONT)
	}
	if l := a.answer("slow"); l.N != count {
		t.Errorf("%d of %d messages came, and %d count as lost", l.N, count, l.Lost)
	}
	p.end()
}

func TestProcRestarted(t *testing.T) {
	p, n := procMesh(t, procConfig{DeadAfter: never, ResumeFor: never}, "a", "b", "c")
	a, b, c := n[0], n[1], n[2]
	a.order(procCommand{Do: "ask in vain", Type: "ask.b"})
	b.answer("asked")
	a.acknowledged(b)
	b.kill()
	a.event("down", b)
	a.sends(300)
	b2 := p.restart(b, nil) // it knows nobody: it is the others that look
	a.event("lost", b)      // though nobody is given up before never
	if gap := a.event("gap", b); gap.N != 300 || gap.Incoming {
		t.Errorf("%+v, want 300 messages to it", gap)
	}
	c.event("lost", b)
	if l := a.answer("ask in vain"); l.Why != "lost" {
		t.Errorf("the request ends with %+v, want ErrPeerLost", l)
	}
	procTogether(a, b2, c)
	if l := a.ask(procCommand{Do: "ask", Type: "ask.b"}); l.Text != "b" {
		t.Errorf("the new one answers %+v", l)
	}
	procOnce(n[:1], n[2:])
	b2.sends(500)
	c.sends(500)
	procOnce([]*procChild{b2, c}, []*procChild{a, b2, c})
	for _, k := range []*procChild{a, c} {
		if peers := k.peers(); len(peers) != 2 {
			t.Errorf("%s has the peers %v", k.Name, slices.Collect(maps.Keys(peers)))
		}
		for _, l := range k.seen("refused") {
			t.Errorf("%s says %+v", k.Name, l)
		}
	}
	p.end()
}

func TestProcSeedKilled(t *testing.T) {
	p, n := procMesh(t, procConfig{DeadAfter: never}, "a", "b", "c", "d")
	seed, others := n[0], n[1:]
	for _, k := range others {
		k.flow()
	}
	seed.kill()
	for _, k := range others {
		k.event("down", seed)
	}
	late := procConfig{Name: "late", Seeds: seed.endpoints, DeadAfter: never}
	e := p.start(nil, late) // alone, until there is a seed again
	for _, k := range others {
		k.halt()
	}
	procOnce(others, others)
	for _, k := range others {
		if cuts := k.peers()[others[0].uuid].Cuts; cuts != 0 {
			t.Errorf("%d cuts between those that live", cuts)
		}
	}
	all := append(slices.Clone(others), e, p.restart(seed, nil))
	procTogether(all...)
	for _, k := range all {
		k.sends(100)
	}
	// The late one and the new seed have missed what was sent before.
	procOnce(all[3:], all)
	procOnce(all, others)
	p.end()
}

func TestProcRestartStorm(t *testing.T) {
	restarts := 20
	if testing.Short() {
		restarts = 5
	}
	p, n := procMesh(t, procConfig{DeadAfter: never}, "a", "b", "c", "x")
	seeds, survivors, x := n[0].endpoints, n[:3], n[3]
	for _, k := range survivors {
		k.flow()
	}
	for i := range restarts {
		if i%2 == 0 { // sometimes it is killed while it joins
			x.flow()
			x.ask(procCommand{Do: "peers", N: 3})
		}
		x.kill()
		x = p.restart(x, seeds)
	}
	all := append(slices.Clone(survivors), x)
	procTogether(all...)
	for _, k := range survivors {
		k.halt()
	}
	x.sends(1000)
	procOnce(survivors, survivors)
	procOnce(all[3:], all)
	for _, k := range survivors {
		for _, l := range k.seen("refused") {
			t.Errorf("%s says %+v", k.Name, l)
		}
		peers := k.peers()
		for deadline := time.Now().Add(patience); len(peers) > 3 && time.Now().Before(deadline); {
			peers = k.peers() // those that were killed are dialled, and then given up
		}
		if len(peers) != 3 {
			t.Errorf("%s has the peers %v", k.Name, slices.Collect(maps.Keys(peers)))
		}
		for _, other := range survivors {
			if s := peers[other.uuid]; s.Cuts+s.Gaps != 0 {
				t.Errorf("%s and %s: %+v", k.Name, other.Name, s)
			}
		}
	}
	p.end()
}
