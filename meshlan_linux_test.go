package gravbus_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gravbus/gravbus/internal/netlab"
)

// These tests have nodes on hosts of their own, which find each other by mDNS and nothing else.

func TestLANMesh(t *testing.T) {
	lab := netlab.New(t)
	p, nodes, _ := lanMesh(t, lab, lab.Bridge(), never, "a", "b", "c", "d", "e")
	for _, n := range nodes {
		n.conns(len(nodes) - 1) // ten links, and no connection beside them
	}
	for _, n := range nodes {
		n.order(procCommand{Do: "send", N: 2000})
	}
	for _, n := range nodes {
		n.sent = n.answer("send").N
	}
	procOnce(nodes, nodes)
	for _, n := range nodes {
		for _, l := range n.seen("gap", "slow", "down", "lost", "refused") {
			t.Errorf("%s says %+v", n.Name, l)
		}
	}
	p.end()
}

func TestLANPartition(t *testing.T) {
	t.Run("for less than ResumeFor", func(t *testing.T) {
		t.Parallel()
		lanPartition(t)
	})
	t.Run("for more than ResumeFor", func(t *testing.T) {
		t.Parallel()
		lanLongPartition(t)
	})
}

// lanPartition parts two of five hosts from the others.
func lanPartition(t *testing.T) {
	lab := netlab.New(t)
	lan := lab.Bridge()
	p, nodes, hosts := lanMesh(t, lab, lan, time.Second, "a", "b", "c", "d", "e")
	two, three := nodes[:2], nodes[2:]
	for _, n := range nodes {
		n.sends(200)
		n.flow()
	}
	lan.Partition(hosts[:2]...)
	for _, n := range two {
		for _, m := range three {
			n.event("down", m)
			m.event("down", n)
		}
	}
	for _, n := range nodes {
		n.halt()
	}
	procOnce(two, two) // the halves work on
	procOnce(three, three)
	for _, n := range nodes {
		n.sends(1000)
	}
	lan.Heal()
	for _, n := range two {
		for _, m := range three {
			n.event("up", m)
			m.event("up", n)
		}
	}
	procOnce(nodes, nodes)
	for _, n := range nodes {
		for _, l := range n.seen("gap", "slow", "lost", "refused") {
			t.Errorf("%s says %+v", n.Name, l)
		}
		n.conns(len(nodes) - 1)
	}
	p.end()
}

// lanLongPartition parts two hosts for longer than a peer may be away. That heals too, but what was
// sent is lost, and both sides say so.
func lanLongPartition(t *testing.T) {
	lab := netlab.New(t)
	lan := lab.Bridge()
	p := &procTest{t: t}
	ha, hb := lab.Host(lan), lab.Host(lan)
	c := lanConfig("a")
	c.DeadAfter, c.ResumeFor = time.Second, time.Second
	a := p.start(ha, c)
	c.Name = "b"
	b := p.start(hb, c)
	procTogether(a, b)
	a.sends(200)
	procOnce([]*procChild{a}, []*procChild{b})
	a.acknowledged(b)
	lan.Partition(ha)
	a.event("down", b)
	b.event("down", a)
	a.sends(500)
	a.event("lost", b)
	b.event("lost", a)
	if gap := a.event("gap", b); gap.N != 500 || gap.Incoming {
		t.Errorf("a says %+v, want 500 messages to b", gap)
	}
	lan.Heal()
	procTogether(a, b)
	if gap := b.event("gap", a); gap.N != 500 || !gap.Incoming {
		t.Errorf("b says %+v, want 500 messages from a", gap)
	}
	a.sends(200)
	b.order(procCommand{Do: "await", From: a.Number, N: a.sent - 1})
	b.answer("got")
	if tally := b.ask(procCommand{Do: "report"}).Tallies[a.Number]; tally != (procTally{Got: 400}) {
		t.Errorf("b has %+v, want what was sent before and after", tally)
	}
	p.end()
}

func TestLANTwoNetworks(t *testing.T) {
	t.Run("a host between", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		left, right := lab.Bridge(), lab.Bridge()
		p := &procTest{t: t}
		a := p.start(lab.Host(left), lanConfig("a"))
		m := p.start(lab.Host(left, right), lanConfig("m"))
		c := p.start(lab.Host(right), lanConfig("c"))
		procTogether(a, m)
		m.order(procCommand{Do: "wanted", Type: "load", N: 2})
		m.answer("wanted")
		c.event("up", m)
		for _, n := range []*procChild{a, m, c} {
			n.sends(1000)
		}
		procOnce([]*procChild{a, c}, []*procChild{m})
		procOnce([]*procChild{m}, []*procChild{a, c})
		if tallies := a.ask(procCommand{Do: "report"}).Tallies; len(tallies) != 1 {
			t.Errorf("a has %v: m passes on what is not its own", tallies)
		}
		if l := a.ask(procCommand{Do: "ask", Type: "ask.c"}); l.Why != "none" {
			t.Errorf("a asks c: %+v, want ErrNoResponders", l)
		}
		p.end()
	})
	t.Run("two ways", func(t *testing.T) {
		t.Parallel()
		lab := netlab.New(t)
		nets := []*netlab.Bridge{lab.Bridge(), lab.Bridge()}
		p := &procTest{t: t}
		ha, hb := lab.Host(nets...), lab.Host(nets...)
		ca, cb := lanConfig("a"), lanConfig("b")
		ca.DeadAfter, cb.DeadAfter = time.Second, time.Second
		a, b := p.start(ha, ca), p.start(hb, cb)
		both := []*procChild{a, b}
		procTogether(both...)
		for range 2 { // each network goes away once, if the link uses it
			a.up(b)
			way := a.conns(1)[0]
			a.forget()
			b.forget()
			lan := nets[0]
			if way == hb.Addr(nets[1]) || way == hb.Addr6(nets[1]) {
				lan = nets[1]
			}
			a.flow()
			b.flow()
			lan.Unplug(hb)
			a.event("down", b)
			b.event("down", a)
			a.event("up", b)
			b.event("up", a)
			a.halt()
			b.halt()
			procOnce(both, both)
			if now := a.conns(1)[0]; now == way {
				t.Errorf("the link leads to %s still", now)
			}
			lan.Plug(hb)
		}
		for _, n := range both {
			for _, l := range n.seen("gap", "slow", "lost", "refused") {
				t.Errorf("%s says %+v", n.Name, l)
			}
		}
		p.end()
	})
}

func TestLANInterface(t *testing.T) {
	for _, c := range []struct {
		name     string
		down, up func(h *netlab.Host, lan *netlab.Bridge)
	}{
		{"down and up", (*netlab.Host).LinkDown, (*netlab.Host).LinkUp},
		{
			"recreated",
			func(h *netlab.Host, lan *netlab.Bridge) { h.Recreate(lan); lan.Unplug(h) },
			func(h *netlab.Host, lan *netlab.Bridge) { lan.Plug(h) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lab := netlab.New(t)
			lan := lab.Bridge()
			p, nodes, hosts := lanMesh(t, lab, lan, time.Second, "a", "b")
			a, b := nodes[0], nodes[1]
			a.flow()
			b.flow()
			c.down(hosts[1], lan)
			a.event("down", b)
			b.event("down", a)
			a.halt()
			b.halt()
			a.sends(500)
			b.sends(500)
			c.up(hosts[1], lan)
			a.event("up", b)
			b.event("up", a)
			procOnce(nodes, nodes)
			for _, n := range nodes {
				for _, l := range n.seen("gap", "slow", "lost", "refused") {
					t.Errorf("%s says %+v", n.Name, l)
				}
			}
			// A node that comes now finds b on the interface as it is now: nobody can tell it of b.
			a.kill()
			b.event("down", a)
			late := p.start(lab.Host(lan), lanConfig("late"))
			late.event("up", b)
			b.event("up", late)
			p.end()
		})
	}
}

// A host that loses its power says nothing, nor does its system, and comes back as another node at
// the same address, while the others believe in the old connection.
func TestLANPowerCut(t *testing.T) {
	lab := netlab.New(t)
	lan := lab.Bridge()
	const dead = 9 * time.Second // it is mDNS that is the first to hear
	p, nodes, hosts := lanMesh(t, lab, lan, dead, "a", "b", "c")
	a, b, c := nodes[0], nodes[1], nodes[2]
	a.order(procCommand{Do: "ask in vain", Type: "ask.b"})
	b.answer("asked")
	a.acknowledged(b)
	lan.Unplug(hosts[1]) // for good: what its system has to say reaches nobody
	b.kill()
	host := lab.Host(lan)
	host.IP("addr", "flush", "dev", "eth0", "scope", "global")
	host.IP("addr", "add", hosts[1].Addr(lan)+"/24", "dev", "eth0")
	host.IP("addr", "add", hosts[1].Addr6(lan)+"/64", "dev", "eth0", "nodad")
	host.IP("route", "replace", "224.0.0.0/4", "dev", "eth0")
	again := p.start(host, b.procConfig)
	if !slices.Equal(again.endpoints, b.endpoints) {
		t.Fatalf("it is at %v now, and was at %v", again.endpoints, b.endpoints)
	}
	a.event("lost", b)
	c.event("lost", b)
	if l := a.answer("ask in vain"); l.Why != "lost" {
		t.Errorf("the request ends with %+v, want ErrPeerLost", l)
	}
	all := []*procChild{a, again, c}
	procTogether(all...)
	for _, n := range all {
		n.sends(500)
	}
	procOnce(all, all)
	for _, n := range all {
		n.conns(2)
		if peers := n.stats().Peers; len(peers) != 2 {
			t.Errorf("%s has %d peers", n.Name, len(peers))
		}
	}
	p.end()
}

func TestLANStrangers(t *testing.T) {
	lab := netlab.New(t)
	lan := lab.Bridge()
	p, ours, _ := lanMesh(t, lab, lan, never, "a", "b")
	a, b := ours[0], ours[1]
	for _, n := range ours {
		n.flow()
	}
	undisturbed := func(what string) {
		t.Helper()
		for _, n := range ours {
			n.conns(1)
			for _, l := range n.seen("up", "gap", "slow", "down", "lost") {
				if l.UUID != a.uuid && l.UUID != b.uuid || l.Is != "up" {
					t.Errorf("%s: %s says %+v", what, n.Name, l)
				}
			}
		}
	}

	// Two nodes of another mesh find each other, and nobody else.
	other := lanConfig("other1")
	other.Mesh = "another"
	o1 := p.start(lab.Host(lan), other)
	other.Name = "other2"
	o2 := p.start(lab.Host(lan), other)
	procTogether(o1, o2)
	undisturbed("another mesh")
	for _, n := range []*procChild{a, b, o1, o2} {
		if s := n.stats(); s.Strangers != 0 || len(s.Peers) != 1 {
			t.Errorf("%s has %d strangers and %d peers", n.Name, s.Strangers, len(s.Peers))
		}
	}

	// One with another key dials, and is dialled, and does not get in.
	wrong := lanConfig("wrong")
	wrong.Key = "not " + lanKey
	w := p.start(lab.Host(lan), wrong)
	for _, n := range []*procChild{a, b, w} {
		n.next("refused", func(l procLine) bool { return l.Is == "refused" })
	}
	undisturbed("another key")
	if s := w.stats(); len(s.Peers) != 0 || s.Strangers == 0 {
		t.Errorf("the one with another key has %d peers and %d strangers", len(s.Peers), s.Strangers)
	}

	// What is announced as another service is dialled by nobody; who lies about where a node is, is.
	printer := p.start(lab.Host(lan), lanPretender("printer", "00000000-0000-4000-8000-000000000001", "_ipp._tcp"))
	liar := p.start(lab.Host(lan), lanPretender("liar", "00000000-0000-4000-8000-000000000002", ""))
	late := p.start(lab.Host(lan), lanConfig("late"))
	liar.next("dialled", func(l procLine) bool { return l.Is == "dialled" })
	ours = append(ours, late)
	procTogether(ours...)
	late.sends(500)
	for _, n := range ours[:2] {
		n.halt()
	}
	procOnce(ours[:2], ours[:2])
	procOnce(ours[2:], ours)
	for _, l := range printer.kept {
		t.Errorf("the printer says %+v", l)
	}
	for _, n := range []*procChild{printer, liar} {
		n.kill()
	}
	p.end()
}

func TestLANOpenMesh(t *testing.T) {
	lab := netlab.New(t)
	host := lab.Host(lab.Bridge())
	p := &procTest{t: t}
	for _, addr := range []string{":8080", "0.0.0.0:8080", "[::]:8080", "10.77.1.1:8080"} {
		if n, failed := p.tryStart(host, procConfig{Name: "open", Addr: addr, MDNS: true}); n != nil || failed.Why != "open mesh" {
			t.Errorf("Start at %s without a key: %+v, want ErrOpenMesh", addr, failed)
		}
	}
	local := p.start(host, procConfig{Name: "local", Addr: "127.0.0.1:8080", MDNS: true})
	if len(local.endpoints) == 0 {
		t.Error("a node that listens on the loopback has no endpoint")
	}
	p.end()
}
