package gravbus_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/netlab"
)

// These tests have nodes in processes of their own, and treat them as a system does: processes are
// killed, stopped and started again. What is waited for is what nodes say; time is waited for only
// where the passing of time is what is tested.

// procTest is a test with nodes in processes.
type procTest struct {
	t     *testing.T
	nodes []*procChild
}

// procChild is a node as the test sees it.
type procChild struct {
	*netlab.Proc
	procConfig
	test      *procTest
	uuid      string
	endpoints []string
	sent      int        // messages, as it has said
	kept      []procLine // that were read and not asked for yet
	gone      bool       // killed
}

// never is longer than any test: what is noticed all the same is noticed by other means.
const never = time.Hour

// start starts a node on this machine, or on a host of a lab, and waits until it is ready.
func (p *procTest) start(host *netlab.Host, c procConfig) *procChild {
	p.t.Helper()
	n, failed := p.tryStart(host, c)
	if n == nil {
		p.t.Fatalf("node %s: %s", c.Name, failed.Error)
	}
	return n
}

// tryStart is start for a node that may fail: then it returns nil and what it said.
func (p *procTest) tryStart(host *netlab.Host, c procConfig) (*procChild, procLine) {
	p.t.Helper()
	c.Number = len(p.nodes)
	text, err := json.Marshal(c)
	must(p.t, err)
	env := []string{procEnv + "=" + string(text)}
	n := &procChild{procConfig: c, test: p}
	if host == nil {
		n.Proc = netlab.Local(p.t, env, os.Args[0])
	} else {
		n.Proc = host.Start(env, os.Args[0])
	}
	p.t.Cleanup(func() {
		n.Kill()
		if log := n.Stderr(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic: ") || strings.Contains(log, "fatal error: ") {
			p.t.Errorf("node %s:\n%s", c.Name, log)
		} else if p.t.Failed() {
			p.t.Logf("node %s, %s: %s", c.Name, n.uuid, n.Output())
		}
	})
	line := n.next("ready or failed", func(l procLine) bool { return l.Is == "ready" || l.Is == "failed" })
	if line.Is == "failed" {
		return nil, line
	}
	n.uuid, n.endpoints = line.UUID, line.Endpoints
	p.nodes = append(p.nodes, n)
	return n, line
}

// next returns the first line that ok returns true for, of those that no call has returned.
func (n *procChild) next(what string, ok func(procLine) bool) (found procLine) {
	n.test.t.Helper()
	if i := slices.IndexFunc(n.kept, ok); i >= 0 {
		found = n.kept[i]
		n.kept = slices.Delete(n.kept, i, i+1)
		return found
	}
	n.ExpectFunc(fmt.Sprintf("%s of node %s", what, n.Name), func(text string) bool {
		var line procLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			n.test.t.Fatalf("node %s says %q: %v", n.Name, text, err)
		}
		if ok(line) {
			found = line
			return true
		}
		n.kept = append(n.kept, line)
		return false
	})
	return found
}

// order gives the node a command without waiting for the answer.
func (n *procChild) order(c procCommand) {
	n.test.t.Helper()
	text, err := json.Marshal(c)
	must(n.test.t, err)
	n.Send(string(text))
}

// answer waits for the answer to a command.
func (n *procChild) answer(do string) procLine {
	n.test.t.Helper()
	return n.next("the answer to "+do, func(l procLine) bool { return l.Is == do })
}

// ask gives the node a command, and returns the answer.
func (n *procChild) ask(c procCommand) procLine {
	n.test.t.Helper()
	n.order(c)
	return n.answer(c.Do)
}

func (n *procChild) stats() *gravbus.Stats {
	n.test.t.Helper()
	return n.ask(procCommand{Do: "stats"}).Stats
}

// event waits for an event about a peer.
func (n *procChild) event(is string, peer *procChild) procLine {
	n.test.t.Helper()
	return n.next(is+" "+peer.Name, func(l procLine) bool { return l.Is == is && l.UUID == peer.uuid })
}

// seen returns the events of these kinds that the node has told of so far, and that no call has
// returned.
func (n *procChild) seen(is ...string) (all []procLine) {
	n.test.t.Helper()
	n.stats() // reads up to the answer
	for _, l := range n.kept {
		if slices.Contains(is, l.Is) {
			all = append(all, l)
		}
	}
	return all
}

// forget lets go of the events so far.
func (n *procChild) forget() {
	n.test.t.Helper()
	n.stats()
	n.kept = slices.DeleteFunc(n.kept, func(l procLine) bool {
		return slices.Contains([]string{"up", "down", "lost", "slow", "gap", "refused"}, l.Is)
	})
}

// sends makes the node send n messages, and returns when that is done.
func (n *procChild) sends(count int) {
	n.test.t.Helper()
	n.sent = n.ask(procCommand{Do: "send", N: count}).N
}

func (n *procChild) flow() { n.order(procCommand{Do: "flow"}) }

func (n *procChild) halt() {
	n.test.t.Helper()
	n.sent = n.ask(procCommand{Do: "halt"}).N
}

// kill ends the process as the system does that is out of memory.
func (n *procChild) kill() {
	n.gone = true
	n.Kill()
}

// peers returns how the links of the node stand, by UUID of the peer.
func (n *procChild) peers() map[string]gravbus.PeerStats {
	n.test.t.Helper()
	all := make(map[string]gravbus.PeerStats)
	for _, p := range n.stats().Peers {
		all[p.NodeUUID] = p
	}
	return all
}

// procTogether waits until each of the nodes is connected with exactly the others, and knows that they want
// what is sent.
func procTogether(nodes ...*procChild) {
	for _, n := range nodes {
		n.test.t.Helper()
		n.order(procCommand{Do: "peers", N: len(nodes) - 1})
		n.order(procCommand{Do: "wanted", Type: "load", N: len(nodes) - 1})
	}
	for _, n := range nodes {
		n.answer("peers")
		n.answer("wanted")
	}
}

// procOnce checks that the receivers have got all that the senders have sent: once and in order.
func procOnce(senders, receivers []*procChild) {
	for _, to := range receivers {
		to.test.t.Helper()
		for _, from := range senders {
			if from != to && from.sent > 0 {
				to.order(procCommand{Do: "await", From: from.Number, N: from.sent - 1})
			}
		}
	}
	for _, to := range receivers {
		for _, from := range senders {
			if from != to && from.sent > 0 {
				to.next(fmt.Sprintf("message %d of %s", from.sent-1, from.Name), func(l procLine) bool {
					return l.Is == "got" && l.From == from.Number && l.N == from.sent-1
				})
			}
		}
		tallies := to.ask(procCommand{Do: "report"}).Tallies
		for _, from := range senders {
			if want := (procTally{Got: from.sent}); from != to && tallies[from.Number] != want {
				to.test.t.Errorf("%s has of %s: %+v, want %+v", to.Name, from.Name, tallies[from.Number], want)
			}
		}
	}
}

// end ends all nodes that were not killed in order. Nothing may have come twice up to then, no
// goroutine may be left.
func (p *procTest) end() {
	p.t.Helper()
	for _, n := range p.nodes {
		if n.gone {
			continue
		}
		line := n.ask(procCommand{Do: "close"})
		if line.Error != "" {
			p.t.Errorf("%s: %s", n.Name, line.Error)
		}
		for number, tally := range line.Tallies {
			if tally.Doubled > 0 || tally.Disorder > 0 {
				p.t.Errorf("%s has of %s: %+v", n.Name, p.nodes[number].Name, tally)
			}
		}
	}
}

// peer asks until the link to a peer is as ok wants it.
func (n *procChild) peer(peer *procChild, what string, ok func(gravbus.PeerStats) bool) {
	n.test.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		s, known := n.peers()[peer.uuid]
		if known && ok(s) {
			return
		}
		if time.Now().After(deadline) {
			n.test.t.Fatalf("%s: %+v, not %s", n.Name, s, what)
		}
	}
}

// acknowledged waits until everything that the node has sent was acknowledged by the peer.
func (n *procChild) acknowledged(peer *procChild) {
	n.test.t.Helper()
	n.peer(peer, "acknowledged", func(s gravbus.PeerStats) bool { return s.Unacked == 0 && s.Depth == 0 })
}

// up waits until the peer is connected now, whatever events say.
func (n *procChild) up(peer *procChild) {
	n.test.t.Helper()
	n.peer(peer, "up", func(s gravbus.PeerStats) bool { return s.State == gravbus.PeerUp })
}

// procMesh starts nodes on this machine that find each other by the first one, and waits until all
// are connected.
func procMesh(t *testing.T, c procConfig, names ...string) (p *procTest, nodes []*procChild) {
	t.Helper()
	p = &procTest{t: t}
	for i, name := range names {
		c.Name = name
		if i > 0 {
			c.Seeds = nodes[0].endpoints
		}
		nodes = append(nodes, p.start(nil, c))
	}
	procTogether(nodes...)
	return p, nodes
}

// restart starts a node at the address of one that was killed.
func (p *procTest) restart(n *procChild, seeds []string) *procChild {
	p.t.Helper()
	c := n.procConfig
	c.Addr, c.Seeds = n.endpoints[0], seeds
	for {
		again, failed := p.tryStart(nil, c)
		if again != nil {
			return again
		}
		// A connection that is being made anywhere on this machine may have that port for a moment.
		if failed.Why != "in use" {
			p.t.Fatal(failed.Error)
		}
	}
}

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
