package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/sirupsen/logrus"
)

// meshNet is a network in memory with some nodes on it.
type meshNet struct {
	*memory.Network
	t testing.TB
}

// meshBubble runs fn in a bubble of its own, with a network.
func meshBubble(t *testing.T, c memory.Config, fn func(t *testing.T, n meshNet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, meshNet{memory.NewNetwork(c), t}) })
}

// lone returns a node that is not started.
func (n meshNet) lone(name string, opts ...gravbus.Option) *gravbus.Bus {
	n.t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	b := gravbus.New(append([]gravbus.Option{gravbus.UseLogger(log), gravbus.UseTransport(n.Transport(name)), gravbus.UseNodeName(name)}, opts...)...)
	n.t.Cleanup(func() { within(n.t, time.Minute, func() { b.Close() }) })
	return b
}

// node returns a node that knows the nodes of these names and is started.
func (n meshNet) node(name, seeds string, opts ...gravbus.Option) *gravbus.Bus {
	n.t.Helper()
	if seeds != "" {
		opts = append(opts, gravbus.UseDiscovery(static.New(strings.Fields(seeds)...)))
	}
	b := n.lone(name, opts...)
	must(n.t, b.Start(n.t.Context()))
	return b
}

// pair returns two nodes that are connected.
func (n meshNet) pair(opts ...gravbus.Option) (a, b *gravbus.Bus) {
	n.t.Helper()
	a, b = n.node("a", "", opts...), n.node("b", "a", opts...)
	meshUp(n.t, a, b)
	return a, b
}

// trio returns three nodes that are connected.
func (n meshNet) trio(opts ...gravbus.Option) (a, b, c *gravbus.Bus) {
	n.t.Helper()
	a, b, c = n.node("a", "", opts...), n.node("b", "a", opts...), n.node("c", "a", opts...)
	meshUp(n.t, a, b, c)
	return a, b, c
}

// meshUp waits until all nodes are connected with each other.
func meshUp(t testing.TB, nodes ...*gravbus.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, b := range nodes {
		must(t, b.WaitPeers(ctx, len(nodes)-1))
	}
	synctest.Wait() // events that say so are out
}

// meshWanted waits until n peers of b want the type.
func meshWanted(t testing.TB, b *gravbus.Bus, typ string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, b.WaitInterest(ctx, typ, n))
}

// meshCtx is a context of so much time.
func meshCtx(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// meshListener connects a pod that records what it gets.
func meshListener(t testing.TB, b *gravbus.Bus, pattern string, opts ...gravbus.PodOption) (*gravbus.Pod, *recorder) {
	t.Helper()
	p, r := b.Connect(opts...), new(recorder)
	must(t, p.OnType(pattern, r.handle))
	return p, r
}

// meshReplier connects a pod that answers what it is asked with its name.
func meshReplier(t testing.TB, b *gravbus.Bus, pattern, name string, opts ...gravbus.PodOption) *gravbus.Pod {
	t.Helper()
	p := b.Connect(append(opts, gravbus.Name(name))...)
	must(t, p.OnType(pattern, func(msg gravbus.Message) error {
		p.ReplyTo(msg, gravbus.NewMsg("reply", []byte(name)))
		return nil
	}))
	return p
}

// meshPeerOf returns the stats of the peer of this name.
func meshPeerOf(t testing.TB, b *gravbus.Bus, name string) gravbus.PeerStats {
	t.Helper()
	for _, p := range b.Stats().Peers {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no peer %s among %d", name, len(b.Stats().Peers))
	return gravbus.PeerStats{}
}

// meshEvents records events of peers in short: "up b", "gap b 3 in".
type meshEvents struct {
	mu   sync.Mutex
	all  []string
	msgs []gravbus.Message
}

func meshWatch(t testing.TB, b *gravbus.Bus) *meshEvents {
	t.Helper()
	e := new(meshEvents)
	must(t, b.Connect(gravbus.Name("watch")).OnType("gravbus.peer.>", e.handle, gravbus.EventRefused))
	return e
}

func (e *meshEvents) handle(msg gravbus.Message) error {
	text := strings.TrimPrefix(msg.Type(), "gravbus.peer.")
	switch msg.Type() {
	case gravbus.EventPeerGap:
		g, err := gravbus.Decode[gravbus.Gap](msg)
		if err != nil {
			return err
		}
		text = fmt.Sprintf("gap %d", g.Count)
		if g.Incoming {
			text += " in"
		}
	case gravbus.EventRefused:
		text = "message refused"
	default:
		p, err := gravbus.Decode[gravbus.PeerEvent](msg)
		if err != nil {
			return err
		}
		if p.Peer.Name != "" {
			text += " " + p.Peer.Name
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all, e.msgs = append(e.all, text), append(e.msgs, msg)
	return nil
}

// take returns what has come since the last take, once nothing moves.
func (e *meshEvents) take() (all []string) {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	all, e.all = e.all, nil
	return all
}

func (e *meshEvents) last(typ string) gravbus.Message {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range slices.Backward(e.msgs) {
		if m.Type() == typ {
			return m
		}
	}
	return nil
}

func (e *meshEvents) want(t testing.TB, want ...string) {
	t.Helper()
	if got := e.take(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

// A link comes, is cut, comes back, and ends: each is told once.
func TestMeshEventsOfALinksLife(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a := n.node("a", "")
		e := meshWatch(t, a)
		b := n.node("b", "a")
		meshUp(t, a, b)
		e.want(t, "up b")
		if s := meshPeerOf(t, a, "b"); s.State != gravbus.PeerUp || s.NodeUUID != b.NodeUUID || s.Dialled || s.Cuts != 0 || s.Authenticated {
			t.Errorf("stats %+v", s)
		}
		if s := meshPeerOf(t, b, "a"); s.State != gravbus.PeerUp || !s.Dialled {
			t.Errorf("stats %+v", s)
		}
		n.Cut("a", "b")
		e.want(t, "down b")
		if s := meshPeerOf(t, a, "b"); s.State != gravbus.PeerAway {
			t.Errorf("stats %+v", s)
		}
		meshUp(t, a, b)
		e.want(t, "up b")
		if s := meshPeerOf(t, a, "b"); s.State != gravbus.PeerUp || s.Cuts != 1 || s.Gaps != 0 || s.Lost != 0 {
			t.Errorf("stats %+v", s)
		}
		must(t, b.Shutdown(meshCtx(t, time.Minute)))
		e.want(t, "down b", "lost b")
		if s := a.Stats(); len(s.Peers) != 0 || s.Strangers != 0 {
			t.Errorf("stats %+v", s)
		}
		time.Sleep(time.Hour)
		e.want(t)
	})
}

// Counts of messages are of messages, on both sides.
func TestMeshEventsStatsAreExact(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		_, got := meshListener(t, b, "t.>")
		meshWanted(t, a, "t.x", 1)
		p := a.Connect()
		for i := range 100 {
			p.Send(nth("t.x", 1, i))
		}
		got.await(t, 100)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := meshPeerOf(t, a, "b"); s.Sent != 100 || s.Received != 0 || s.Depth != 0 || s.DepthCost != 0 || s.Unacked != 0 || s.Resent != 0 {
			t.Errorf("sender %+v", s)
		}
		if s := meshPeerOf(t, b, "a"); s.Received != 100 || s.Sent != 0 {
			t.Errorf("receiver %+v", s)
		}
		if s := a.Stats(); s.Sent != 100 {
			t.Errorf("the sending bus counts %d sent", s.Sent)
		}
		if s := b.Stats(); s.Sent != 0 || s.Delivered != 100 {
			t.Errorf("the receiving bus counts %d sent and %d delivered", s.Sent, s.Delivered)
		}
	})
}

// A peer that is away for longer than it may be is given up; what was for it is counted, and both
// sides hear of that, once.
func TestMeshEventsOfALostPeer(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair(gravbus.UseResumeFor(30*time.Second), gravbus.UseDeadAfter(3*time.Second))
		_, got := meshListener(t, b, "t")
		meshWanted(t, a, "t", 1)
		ea, eb := meshWatch(t, a), meshWatch(t, b)
		n.Partition([]string{"a"}, []string{"b"})
		p := a.Connect()
		for i := range 10 {
			p.Send(nth("t", 1, i))
		}
		time.Sleep(5 * time.Second)
		ea.want(t, "down b")
		eb.want(t, "down a")
		if s := meshPeerOf(t, a, "b"); s.State != gravbus.PeerAway {
			t.Errorf("%+v", s)
		}
		time.Sleep(60 * time.Second)
		ea.want(t, "gap 10", "lost b")
		eb.want(t, "lost a")
		if len(a.Stats().Peers)+len(b.Stats().Peers) != 0 {
			t.Error("peers that are given up are in Stats")
		}
		n.Heal()
		meshUp(t, a, b)
		ea.want(t, "up b")
		synctest.Wait()
		time.Sleep(time.Second)
		eb.want(t, "up a", "gap 10 in")
		meshWanted(t, a, "t", 1)
		p.Send(nth("t", 1, 10))
		msgs := got.await(t, 1)
		if _, i := numberOf(msgs[0]); i != 10 {
			t.Errorf("got %d", i)
		}
		var gap gravbus.Gap
		gap, err := gravbus.Decode[gravbus.Gap](eb.last(gravbus.EventPeerGap))
		must(t, err)
		if gap.Peer != a.NodeUUID || gap.Count != 10 || gap.From == gap.To {
			t.Errorf("gap %+v", gap)
		}
		if s := meshPeerOf(t, b, "a"); s.Gaps != 1 || s.Lost != 10 {
			t.Errorf("receiver's stats %+v", s)
		}
	})
}

// How long a peer has been away counts from when it was there last, also when it was back for a while that
// an attempt to dial it outlasted.
func TestMeshEventsAwayTwice(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		hang := &hangingDials{Transport: n.Transport("a")}
		a := n.lone("a", gravbus.UseTransport(hang), gravbus.UseResumeFor(20*time.Second))
		must(t, a.Start(t.Context()))
		b := n.node("b", "a")
		meshUp(t, a, b)
		_, got := meshListener(t, b, "t")
		meshWanted(t, a, "t", 1)
		e := meshWatch(t, a)
		hang.on.Store(true)
		n.Cut("a", "b") // a dials, in vain, for as long as a handshake may take
		time.Sleep(4 * time.Second)
		e.want(t, "down b", "up b")
		n.Refuse("a", true)
		n.Cut("a", "b")
		a.Connect().Send(nth("t", 1, 1))
		time.Sleep(18 * time.Second)
		n.Refuse("a", false)
		must(t, b.ConnectEndpoint("a"))
		time.Sleep(time.Second)
		e.want(t, "down b", "up b")
		if n := len(got.all()); n != 1 {
			t.Errorf("%d messages came, want 1", n)
		}
	})
}

// hangingDials is a transport whose dials hang until their context ends.
type hangingDials struct {
	transport.Transport
	on atomic.Bool
}

func (t *hangingDials) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	if t.on.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return t.Transport.Dial(ctx, endpoint)
}

// A process that is started again at the same address is another node: the old one is given up at
// once, whoever of them dials.
func TestMeshEventsOfARestart(t *testing.T) {
	for _, seeds := range []string{"b", ""} {
		t.Run("seeds="+seeds, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a := n.node("a", seeds)
				b := n.node("b", "a")
				meshUp(t, a, b)
				e := meshWatch(t, a)
				b.Close()
				e.want(t, "down b", "lost b") // it has said so
				again := n.node("b", "a")
				meshUp(t, a, again)
				e.want(t, "up b")

				// As after SIGKILL: no word of it.
				n.Partition([]string{"a"}, []string{"b"})
				time.Sleep(time.Minute)
				e.want(t, "down b")
				again.Close()
				n.Heal()
				third := n.node("b", "a")
				meshUp(t, a, third)
				time.Sleep(time.Second)
				counts := map[string]int{}
				for _, text := range e.take() { // what was dialled meanwhile may be chosen, and then replaced
					counts[text]++
				}
				if counts["lost b"] != 1 || counts["up b"] != counts["down b"]+1 {
					t.Errorf("events %v", counts)
				}
			})
		})
	}
}

// That a node says it listens where another one did gives up nobody, unless that one was met there: private
// addresses are on many hosts. What it missed is sent when it is back.
func TestMeshEventsOfASharedAddress(t *testing.T) {
	for _, address := range []string{"memory:nowhere", "memory:w"} {
		t.Run(address, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a := n.node("a", "")
				join := func(name string) *gravbus.Bus {
					b := n.lone(name, gravbus.UseTransport(posing{n.Transport(name), address}), gravbus.UseDiscovery(static.New("a")))
					must(t, b.Start(t.Context()))
					return b
				}
				v := join("v")
				meshUp(t, a, v)
				_, got := meshListener(t, v, "t")
				meshWanted(t, a, "t", 1)
				e := meshWatch(t, a)
				n.Partition([]string{"a"}, []string{"v"})
				time.Sleep(11 * time.Second)
				p := a.Connect()
				for k := range 5 {
					p.Send(nth("t", 1, k))
				}
				w := join("w")
				must(t, w.WaitPeers(meshCtx(t, time.Minute), 1))
				time.Sleep(time.Minute)
				n.Heal()
				time.Sleep(time.Minute)
				if all := numbers(t, got.all()); !slices.Equal(all, span(0, 4)) {
					t.Errorf("of 5 messages came %v", all)
				}
				e.want(t, "down v", "up w", "up v")
			})
		})
	}
}

// posing is a transport that says it listens elsewhere.
type posing struct {
	transport.Transport
	endpoint string
}

func (p posing) Listen(ctx context.Context, o transport.ListenOptions) (transport.Listener, error) {
	l, err := p.Transport.Listen(ctx, o)
	return posingListener{l, p.endpoint}, err
}

type posingListener struct {
	transport.Listener
	endpoint string
}

func (l posingListener) Endpoints() []string { return []string{l.endpoint} }

// What waits for a peer counts with the texts that it carries, whoever made it and however it goes.
func TestMeshBoundsCountTexts(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair(gravbus.UseLinkOverflow(gravbus.DropOldest), gravbus.UseInterests("t"))
		meshListener(t, b, "t")
		meshListener(t, b, "t.group", gravbus.InGroup("g"))
		meshWanted(t, a, "t", 1)
		meshWanted(t, a, "t.group", 1)
		n.Cut("a", "b")
		n.Partition([]string{"a"}, []string{"b"})
		synctest.Wait()
		p, text, want := a.Connect(), strings.Repeat("x", 1000), 0
		for _, m := range []gravbus.Message{
			gravbus.NewMsgWithParentID("t", text, make([]byte, 56)),
			gravbus.NewMsgWithParentID("t.group", text, make([]byte, 56)),
			&foreignMsg{id: text[:500], typ: "t", parent: text[:300], replyTo: text[:200], data: make([]byte, 56)},
		} {
			p.Send(m)
			if want += 1200; meshPeerOf(t, a, "b").DepthCost != want {
				t.Errorf("%s: %d bytes wait, want %d", m.Type(), meshPeerOf(t, a, "b").DepthCost, want)
			}
		}
		n.Heal()
	})
}

// A peer that takes nothing is told of once, and what had to give way is exactly what is missing.
func TestMeshEventsOfASlowPeer(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair(gravbus.UseLinkBounds(100, 0), gravbus.UseDeadAfter(time.Hour), gravbus.UseLinkStallLimit(2*time.Second))
		_, got := meshListener(t, b, "t")
		meshWanted(t, a, "t", 1)
		ea, eb := meshWatch(t, a), meshWatch(t, b)
		n.Partition([]string{"a"}, []string{"b"})
		p := a.Connect()
		began := time.Now()
		const sent = 1000
		big := make([]byte, 64<<10)
		for i := range sent {
			copy(big, fmt.Sprintf("%6d", i))
			if p.Send(gravbus.NewMsg("t", slices.Clone(big))) == nil {
				t.Fatal("not sent")
			}
		}
		if d := time.Since(began); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("a peer that stands still holds up the sender for %v", d)
		}
		ea.want(t, "slow b")
		n.Heal()
		time.Sleep(time.Minute)
		synctest.Wait()
		lost := uint64(0)
		for _, text := range ea.take() {
			var c uint64
			if _, err := fmt.Sscanf(text, "gap %d", &c); err != nil {
				t.Errorf("event %q", text)
			}
			lost += c
		}
		told := uint64(0)
		for _, text := range eb.take() {
			var c uint64
			if _, err := fmt.Sscanf(text, "gap %d in", &c); err != nil {
				t.Errorf("event %q", text)
			}
			told += c
		}
		came := len(got.all())
		if lost == 0 || told != lost || came+int(lost) != sent {
			t.Errorf("%d came, sender counts %d lost, receiver %d, of %d", came, lost, told, sent)
		}
		if s := meshPeerOf(t, a, "b"); s.Lost != lost || s.Gaps == 0 {
			t.Errorf("%+v", s)
		}
		if s := meshPeerOf(t, b, "a"); s.Lost != lost {
			t.Errorf("%+v", s)
		}
		last := -1
		for _, m := range got.all() {
			i := 0
			fmt.Sscanf(string(m.Data()[:6]), "%d", &i)
			if i <= last {
				t.Fatalf("%d after %d", i, last)
			}
			last = i
		}
		if last != sent-1 {
			t.Errorf("the last is %d", last)
		}
	})
}

// Nodes that refuse each other both say so.
func TestMeshEventsOfRefusals(t *testing.T) {
	key := func(c string) []byte { return []byte(strings.Repeat(c, 32)) }
	for _, c := range []struct {
		name string
		a, b gravbus.Option
		want error
	}{
		{"mesh", gravbus.UseMesh("one"), gravbus.UseMesh("two"), gravbus.ErrMeshMismatch},
		{"key", gravbus.UseMeshKey(key("x")), gravbus.UseMeshKey(key("y")), gravbus.ErrUnauthorized},
		{"no key here", nil, gravbus.UseMeshKey(key("y")), gravbus.ErrUnauthorized},
		{"no key there", gravbus.UseMeshKey(key("y")), nil, gravbus.ErrUnauthorized},
		{"accept here", gravbus.UseAccept(func(gravbus.PeerInfo) error { return errors.New("never you") }), nil, gravbus.ErrRejected},
		{"accept there", nil, gravbus.UseAccept(func(gravbus.PeerInfo) error { return errors.New("never you") }), gravbus.ErrRejected},
	} {
		t.Run(c.name, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.node("a", "", c.a), n.node("b", "", c.b)
				ea, eb := meshWatch(t, a), meshWatch(t, b)
				err := a.ConnectEndpoint("memory:b")
				var pe *gravbus.PeerError
				if !errors.Is(err, c.want) || !errors.As(err, &pe) || pe.Endpoint != "memory:b" || pe.Op != "connect" {
					t.Errorf("error %v", err)
				}
				if errors.Is(c.want, gravbus.ErrRejected) && !strings.Contains(err.Error(), "never you") {
					t.Errorf("error %v", err)
				}
				for i, e := range []*meshEvents{ea, eb} {
					if all := e.take(); len(all) != 1 || !strings.HasPrefix(all[0], "refused") {
						t.Fatalf("side %d: events %q", i, all)
					}
					ev, err := gravbus.Decode[gravbus.PeerEvent](e.last(gravbus.EventPeerRefused))
					if err != nil || !strings.Contains(ev.Error, c.want.Error()) || ev.Remote == "" {
						t.Errorf("side %d: %+v, %v", i, ev, err)
					}
					if errors.Is(c.want, gravbus.ErrRejected) && !strings.Contains(ev.Error, "never you") {
						t.Errorf("side %d: %+v", i, ev)
					}
				}
				if a.Stats().Strangers != 1 || b.Stats().Strangers != 1 {
					t.Errorf("%d and %d strangers", a.Stats().Strangers, b.Stats().Strangers)
				}
				if len(a.Stats().Peers)+len(b.Stats().Peers) != 0 {
					t.Error("they are peers")
				}
			})
		})
	}
}

// A link has the policies of a pod. Whatever they do, what is missing is counted on both sides, and
// what comes is in order.
func TestMeshEventsOverflowPolicies(t *testing.T) {
	for name, policy := range map[string]gravbus.OverflowPolicy{
		"block": gravbus.Block, "oldest": gravbus.DropOldest, "newest": gravbus.DropNewest, "fail": gravbus.Fail,
	} {
		for _, bytes := range []int{0, 50 << 10} {
			t.Run(fmt.Sprintf("%s/%d", name, bytes), func(t *testing.T) {
				meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
					count := 50
					if bytes > 0 {
						count = 0
					}
					a, b := n.pair(gravbus.UseLinkBounds(count, bytes), gravbus.UseLinkOverflow(policy))
					_, got := meshListener(t, b, "t")
					meshWanted(t, a, "t", 1)
					ea, eb := meshWatch(t, a), meshWatch(t, b)
					n.Refuse("a", true)
					n.Refuse("b", true)
					n.Cut("a", "b")
					ea.want(t, "down b")
					eb.want(t, "down a")
					p := a.Connect()
					undelivered := map[int]bool{}
					const sent = 200
					began := time.Now()
					for i := range sent {
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
						m := gravbus.NewMsg("t", append([]byte(fmt.Sprintf("%3d", i)), make([]byte, 1000)...))
						r, err := p.SendContext(ctx, m)
						cancel()
						var un *gravbus.UndeliveredError
						switch {
						case err == nil:
						case !errors.As(err, &un):
							t.Fatal(err)
						case len(un.Pods) != 1 || !strings.Contains(un.Pods[0], b.NodeUUID):
							t.Errorf("undelivered to %q", un.Pods)
						case policy == gravbus.Fail && !errors.Is(err, gravbus.ErrMailboxFull) || policy == gravbus.Block && !errors.Is(err, context.DeadlineExceeded):
							t.Errorf("%v", err)
						default:
							undelivered[i] = true
						}
						if r == nil {
							t.Error("no receipt")
						}
					}
					if d := time.Since(began); policy != gravbus.Block && d > 0 || policy == gravbus.Block && d < time.Second {
						t.Errorf("it took %v", d)
					}
					if (policy == gravbus.Fail || policy == gravbus.Block) != (len(undelivered) > 0) {
						t.Errorf("%d undelivered", len(undelivered))
					}
					s := meshPeerOf(t, a, "b")
					if count > 0 && s.Depth != count || bytes > 0 && s.DepthCost > bytes+1147 { // reached by the last one
						t.Errorf("%d wait, which count %d", s.Depth, s.DepthCost)
					}
					n.Refuse("a", false)
					n.Refuse("b", false)
					meshUp(t, a, b)
					time.Sleep(time.Minute)
					synctest.Wait()
					last, came := -1, map[int]bool{}
					for _, m := range got.all() {
						i := 0
						fmt.Sscanf(string(m.Data()[:3]), "%d", &i)
						if i <= last {
							t.Errorf("%d after %d", i, last)
						}
						if undelivered[i] {
							t.Errorf("%d was not delivered, and came", i)
						}
						last, came[i] = i, true
					}
					lostA, lostB := gapsOf(t, ea.take(), "gap %d"), gapsOf(t, eb.take(), "gap %d in")
					if missing := sent - len(came); missing == 0 || lostA != missing || lostB != missing {
						t.Errorf("%d are missing; counted %d and %d", missing, lostA, lostB)
					}
					sa, sb := meshPeerOf(t, a, "b"), meshPeerOf(t, b, "a")
					if int(sa.Lost) != lostA || int(sb.Lost) != lostB {
						t.Errorf("stats count %d and %d", sa.Lost, sb.Lost)
					}
				})
			})
		}
	}
}

// gapsOf adds up the gaps among events.
func gapsOf(t testing.TB, events []string, format string) (sum int) {
	t.Helper()
	for _, e := range events {
		var k int
		if _, err := fmt.Sscanf(e, format, &k); err == nil {
			sum += k
		} else if !strings.HasPrefix(e, "up ") {
			t.Errorf("event %q", e)
		}
	}
	return sum
}
