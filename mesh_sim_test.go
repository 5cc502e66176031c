package gravbus_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/sirupsen/logrus"
)

// simVerbose makes nodes of simulations log, with the fake time since the start.
var simVerbose = flag.Bool("simverbose", false, "log what the nodes of simulations do")

// A sim is nodes on a network within one process, in fake time.
type sim struct {
	*testing.T
	net   *memory.Network
	began time.Time

	mu    sync.Mutex // guards all below
	nodes []*simNode
	conns []*simConn                 // all ends of connections, in the order in which they were made
	dials map[string][]time.Duration // when nodes dialled
}

// simulate runs fn in a bubble. A run that hangs in real time ends with the stacks of all goroutines.
func simulate(t *testing.T, c memory.Config, fn func(s *sim)) {
	t.Helper()
	watchdog := time.AfterFunc(2*patience, func() {
		debug.SetTraceback("all")
		panic("the simulation " + t.Name() + " hangs")
	})
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		s := &sim{T: t, net: memory.NewNetwork(c), began: time.Now(), dials: map[string][]time.Duration{}}
		defer s.close()
		fn(s)
	})
}

func (s *sim) close() {
	s.net.Heal()
	for _, n := range s.nodes {
		n.Close()
	}
}

// within returns a context that ends after d of fake time.
func (s *sim) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	s.Cleanup(cancel)
	return ctx
}

// A simNode is a bus, and what it has told of its peers.
type simNode struct {
	*gravbus.Bus
	sim  *sim
	name string

	mu     sync.Mutex // guards all below
	gaps   []gravbus.Gap
	events []simEvent
}

type simEvent struct {
	typ string
	at  time.Duration
	gravbus.PeerEvent
}

// node makes a node that is not started. Its seeds are names of other nodes.
func (s *sim) node(name string, seeds []string, opts ...gravbus.Option) *simNode {
	s.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	if *simVerbose {
		log.SetOutput(simLog{s, name})
		log.SetLevel(logrus.DebugLevel)
		log.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true})
	}
	all := []gravbus.Option{gravbus.UseLogger(log), gravbus.UseTransport(&simTransport{s.net.Transport(name), s, name})}
	if len(seeds) > 0 {
		var endpoints []string
		for _, seed := range seeds {
			endpoints = append(endpoints, "memory:"+seed)
		}
		all = append(all, gravbus.UseDiscovery(static.New(endpoints...)))
	}
	n := &simNode{Bus: gravbus.New(append(all, opts...)...), sim: s, name: name}
	n.Connect(gravbus.Name("events"), gravbus.Mailbox(1<<16)).OnType("gravbus.peer.>", n.event)
	s.mu.Lock()
	s.nodes = append(s.nodes, n)
	s.mu.Unlock()
	return n
}

// start makes and starts a node.
func (s *sim) start(name string, seeds []string, opts ...gravbus.Option) *simNode {
	s.Helper()
	n := s.node(name, seeds, opts...)
	must(s, n.Start(s.Context()))
	return n
}

type simLog struct {
	s    *sim
	name string
}

func (l simLog) Write(line []byte) (int, error) {
	l.s.Logf("%10v %s: %s", time.Since(l.s.began), l.name, line)
	return len(line), nil
}

func (n *simNode) event(msg gravbus.Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if msg.Type() == gravbus.EventPeerGap {
		g, err := gravbus.Decode[gravbus.Gap](msg)
		n.gaps = append(n.gaps, g)
		return err
	}
	e, err := gravbus.Decode[gravbus.PeerEvent](msg)
	n.events = append(n.events, simEvent{msg.Type(), time.Since(n.sim.began), e})
	return err
}

// missing returns how many messages the node was told to have been lost on the way from, or to, the
// other one.
func (n *simNode) missing(other *simNode, incoming bool) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, g := range n.gaps {
		if g.Peer == other.NodeUUID && g.Incoming == incoming {
			count += int(g.Count)
		}
	}
	return count
}

// count returns how many events of the type the node has told.
func (n *simNode) count(typ string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if e.typ == typ {
			count++
		}
	}
	return count
}

// peer returns what the node's Stats say of another one; the zero value if nothing.
func (n *simNode) peer(other *simNode) gravbus.PeerStats {
	for _, p := range n.Stats().Peers {
		if p.NodeUUID == other.NodeUUID {
			return p
		}
	}
	return gravbus.PeerStats{}
}

// listen connects a pod that wants the patterns and records what comes.
func (n *simNode) listen(pattern string, opts ...gravbus.PodOption) (*gravbus.Pod, *recorder) {
	r := new(recorder)
	p := n.Connect(opts...)
	p.OnType(pattern, r.handle)
	return p, r
}

// feed sends messages first, …, last of the type, one each time pause has passed.
func (n *simNode) feed(p *gravbus.Pod, typ string, first, last int, pause time.Duration) {
	for i := first; i <= last; i++ {
		if p.Send(nth(typ, 0, i)) == nil {
			n.sim.Errorf("%s: message %d was not sent", n.name, i)
		}
		if pause > 0 {
			time.Sleep(pause)
		}
	}
}

// meshed checks that the nodes are a full mesh, with one connection for each pair.
func (s *sim) meshed(nodes ...*simNode) {
	s.Helper()
	pairs := map[string]int{}
	for _, c := range s.net.Connections() {
		pairs[min(c.From(), c.To())+"-"+max(c.From(), c.To())]++
	}
	for i, a := range nodes {
		for _, b := range nodes[i+1:] {
			pair := min(a.name, b.name) + "-" + max(a.name, b.name)
			if pairs[pair] != 1 || a.peer(b).State != gravbus.PeerUp || b.peer(a).State != gravbus.PeerUp {
				s.Errorf("%s: %d connections, and the states are %q and %q", pair, pairs[pair], a.peer(b).State, b.peer(a).State)
			}
			delete(pairs, pair)
		}
	}
	for pair, n := range pairs {
		s.Errorf("%s: %d connections that nobody should have", pair, n)
	}
}

// cuts returns how many connections the nodes have lost so far.
func (s *sim) cuts(nodes ...*simNode) (cuts uint64) {
	for _, n := range nodes {
		for _, p := range n.Stats().Peers {
			cuts += p.Cuts
		}
	}
	return cuts
}

// exactly checks that the messages 0, …, n-1 have come, in this order, and nothing else.
func (s *sim) exactly(what string, r *recorder, n int) {
	s.Helper()
	if got := numbers(s, r.all()); !slices.Equal(got, span(0, n-1)) {
		s.Errorf("%s: %s", what, simDiff(got, n))
	}
}

// simDiff says how got differs from 0, …, n-1.
func simDiff(got []int, n int) string {
	seen := map[int]int{}
	order := 0
	for i, g := range got {
		if seen[g]++; i > 0 && g < got[i-1] {
			order++
		}
	}
	var lost, doubled []int
	for i := range n {
		switch seen[i] {
		case 0:
			lost = append(lost, i)
		case 1:
		default:
			doubled = append(doubled, i)
		}
	}
	short := func(all []int) string {
		if len(all) > 20 {
			return fmt.Sprint(all[:20], "…")
		}
		return fmt.Sprint(all)
	}
	return fmt.Sprintf("%d of %d came; %d lost %s, %d doubled %s, %d out of order", len(got), n, len(lost), short(lost), len(doubled), short(doubled), order)
}

// A simTransport is a node's transport that lets the test see and end its own side of connections.
type simTransport struct {
	transport.Transport
	sim  *sim
	node string
}

func (t *simTransport) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	l, err := t.Transport.Listen(ctx, o)
	if err != nil {
		return nil, err
	}
	return &simListener{l, t}, nil
}

func (t *simTransport) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	t.sim.mu.Lock()
	t.sim.dials[t.node] = append(t.sim.dials[t.node], time.Since(t.sim.began))
	t.sim.mu.Unlock()
	c, err := t.Transport.Dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	return t.watch(c), nil
}

type simListener struct {
	transport.Listener
	t *simTransport
}

func (l *simListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.t.watch(c), nil
}

// A simConn is one end of a connection, and counts what its node sends.
type simConn struct {
	transport.Conn
	node string
	at   time.Duration // when it was made

	mu    sync.Mutex        // guards all below
	sent  int               // packets
	kinds map[wire.Kind]int // frames in them
}

func (t *simTransport) watch(c transport.Conn) transport.Conn {
	s := t.sim
	w := &simConn{Conn: c, node: t.node, at: time.Since(s.began), kinds: map[wire.Kind]int{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, w)
	return w
}

func (c *simConn) WriteFrame(frame []byte) error {
	c.mu.Lock()
	c.sent++
	for rest := frame; len(rest) > 0; {
		var kind wire.Kind
		var err error
		if kind, _, rest, err = wire.Next(rest); err != nil {
			break
		}
		c.kinds[kind]++
	}
	c.mu.Unlock()
	return c.Conn.WriteFrame(frame)
}

// ends returns the ends of connections that the node had or has, in the order in which they were
// made.
func (s *sim) ends(node string) (ends []*simConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		if c.node == node {
			ends = append(ends, c)
		}
	}
	return ends
}

// await waits until ok returns true, and fails the test if that takes longer than d of fake time.
// It returns how long it took.
func (s *sim) await(d time.Duration, what string, ok func() bool) time.Duration {
	s.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > d {
			s.Fatalf("%s: not after %v", what, d)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}
