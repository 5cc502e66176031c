package gravbus_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/netlab"
)

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
		bad := func(what string) bool { return strings.Contains(n.Stderr(), what) }
		if bad("DATA RACE") || bad("panic: ") || bad("fatal error: ") {
			p.t.Errorf("node %s:\n%s", c.Name, n.Stderr())
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
		// One that was killed or stopped, or is cut off, may not have acknowledged the last that it has got.
		if line.Error != "" && !strings.HasSuffix(line.Error, gravbus.ErrPeerLost.Error()) {
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
