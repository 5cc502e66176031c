package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/gravbus/gravbus/transport/websocket"
)

// Exactly one node with the capability gets it, and they take turns.
func TestMeshFilterTunnel(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a := n.node("a", "", gravbus.UseInterests("gpu"))
		b := n.node("b", "a", gravbus.UseInterests("gpu", "disk"))
		c := n.node("c", "a", gravbus.UseInterests("gpu"))
		meshUp(t, a, b, c)
		_, ra := meshListener(t, a, ">")
		_, rb := meshListener(t, b, "job")
		_, rc := meshListener(t, c, ">")
		_, grouped := meshListener(t, b, "grouped", gravbus.InGroup("g"))
		time.Sleep(time.Second)
		for i := range 100 {
			must(t, a.Tunnel("gpu", nth("job", 1, i)))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		meshEachOnce(t, 100, rb, rc)
		if len(rb.all()) != 50 || len(rc.all()) != 50 || len(ra.all()) != 0 {
			t.Errorf("%d, %d and %d at the sender", len(rb.all()), len(rc.all()), len(ra.all()))
		}
		must(t, a.Tunnel("disk", nth("job", 1, 100)))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(rb.all()) != 51 {
			t.Error("not at the one that can")
		}
		if err := a.Tunnel("tape", nth("job", 1, 101)); !errors.Is(err, gravbus.ErrTunnelNotEstablished) {
			t.Errorf("nobody can: %v", err)
		}
		if err := b.Tunnel("disk", nth("job", 1, 101)); !errors.Is(err, gravbus.ErrTunnelNotEstablished) {
			t.Errorf("only itself can: %v", err)
		}
		for _, bad := range []gravbus.Message{nil, gravbus.NewMsg("a..b", nil), gravbus.NewMsg("gravbus.x", nil)} {
			if err := a.Tunnel("gpu", bad); err == nil {
				t.Error("a bad message goes through")
			}
		}
		must(t, a.Tunnel("disk", nth("grouped", 1, 1)))
		time.Sleep(time.Second)
		synctest.Wait()
		if len(grouped.all()) != 1 {
			t.Errorf("a group at the node got %d of 1", len(grouped.all()))
		}

		p := b.Connect()
		must(t, p.OnType("ask", func(m gravbus.Message) error {
			p.ReplyTo(m, gravbus.NewMsg("reply", []byte("disk")))
			return nil
		}))
		r, err := a.Connect().Tunnel("disk", gravbus.NewMsg("ask", nil))
		must(t, err)
		rep, err := r.Wait(meshCtx(t, time.Minute))
		if err != nil || string(rep.Data()) != "disk" {
			t.Errorf("%v, %v", rep, err)
		}
		must(t, b.Shutdown(meshCtx(t, time.Minute)))
		synctest.Wait()
		if err := a.Tunnel("disk", nth("job", 1, 101)); !errors.Is(err, gravbus.ErrTunnelNotEstablished) {
			t.Errorf("it has left: %v", err)
		}
		if err := b.Tunnel("gpu", nth("job", 1, 101)); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		if err := gravbus.New().Tunnel("gpu", nth("job", 1, 1)); !errors.Is(err, gravbus.ErrTransportNotConfigured) {
			t.Errorf("alone: %v", err)
		}
	})
}

// What may not leave does not, and what may not enter is dropped and counted; neither is wanted in
// vain by requests.
func TestMeshFilterExportAndImport(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a := n.node("a", "", gravbus.UseExport("open.>", "reply", "gravbus.>"), gravbus.UseImport("in.*", "reply"))
		b := n.node("b", "a")
		meshUp(t, a, b)
		_, ra := meshListener(t, a, ">")
		_, rb := meshListener(t, b, ">")
		_, group := meshListener(t, b, "secret.g", gravbus.InGroup("g"))
		meshWanted(t, a, "open.x", 1)
		meshWanted(t, b, "in.x", 1)
		time.Sleep(time.Second)
		pa, pb := a.Connect(), b.Connect()
		for i, typ := range []string{"open.x", "secret.x", "open", "secret.g", "reply"} {
			pa.Send(nth(typ, 1, i))
		}
		for i, typ := range []string{"in.x", "in.x.y", "other", "reply"} {
			pb.Send(nth(typ, 1, i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if all := numbers(t, rb.all()); !slices.Equal(all, []int{0, 4, 0, 1, 2, 3}) && !slices.Equal(all, []int{0, 1, 2, 3, 0, 4}) {
			slices.Sort(all)
			if !slices.Equal(all, []int{0, 0, 1, 2, 3, 4}) {
				t.Errorf("b has %v", all)
			}
		}
		if len(group.all()) != 0 {
			t.Error("a group gets what may not leave")
		}
		all := numbers(t, ra.all())
		slices.Sort(all)
		if !slices.Equal(all, []int{0, 0, 1, 2, 3, 3, 4}) {
			t.Errorf("a has %v", all)
		}
		if s := meshPeerOf(t, a, "b"); s.Refused != 2 {
			t.Errorf("%d refused, want 2", s.Refused)
		}
		if s := meshPeerOf(t, b, "a"); s.Refused != 0 {
			t.Errorf("%d refused, want 0", s.Refused)
		}
		if s := meshPeerOf(t, a, "b"); s.Sent != 2 {
			t.Errorf("%d sent, want 2", s.Sent)
		}
		a2 := n.node("d", "a", gravbus.UseExport("open"))
		meshUp(t, a, b, a2)
		meshWanted(t, a2, "secret", 2)
		if _, err := a2.Connect().Request(meshCtx(t, time.Minute), gravbus.NewMsg("secret", nil)); !errors.Is(err, gravbus.ErrNoResponders) {
			t.Errorf("who wants it does not get it: %v", err)
		}
	})
}

// What does not enter does not enter by replay, tunnel or as an answer either.
func TestMeshFilterImportHasNoBackDoor(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a := n.node("a", "")
		pa := a.Connect()
		for i := range 10 {
			pa.Send(nth("secret", 1, i))
		}
		b := n.node("b", "a", gravbus.UseImport("in"), gravbus.UseInterests("x"))
		meshUp(t, a, b)
		late := b.ConnectWithReplay()
		var got recorder
		must(t, late.On(got.handle))
		meshReplier(t, a, "in", "a") // answers with the type "reply", which may not enter
		time.Sleep(time.Second)
		must(t, a.Tunnel("x", nth("secret", 1, 10)))
		pa.Send(nth("secret", 1, 11))
		meshWanted(t, b, "in", 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if rep, err := b.Connect().Request(ctx, gravbus.NewMsg("in", nil)); err == nil {
			t.Errorf("an answer came in: %v", rep)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		var types []string
		for _, m := range got.all() {
			types = append(types, m.Type())
		}
		if !slices.Equal(types, []string{"in"}) {
			t.Errorf("came %v", types)
		}
		if b.Buffer().Len() != 1 {
			t.Errorf("%d in the buffer", b.Buffer().Len())
		}
	})
}

// UseAccept of both sides sees the other, and decides for each connection.
func TestMeshFilterAccept(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		var mu sync.Mutex
		seen := map[string][]gravbus.PeerInfo{}
		refuse := atomic.Bool{}
		accept := func(who string) gravbus.Option {
			return gravbus.UseAccept(func(p gravbus.PeerInfo) error {
				mu.Lock()
				defer mu.Unlock()
				seen[who] = append(seen[who], p)
				if refuse.Load() {
					return fmt.Errorf("%s does not like %s", who, p.Name)
				}
				return nil
			})
		}
		key := []byte("0123456789abcdef")
		a := n.node("a", "", accept("a"), gravbus.UseMeshKey(key), gravbus.UseInterests("gpu"))
		b := n.node("b", "", accept("b"), gravbus.UseMeshKey(key), gravbus.UseAdvertise("memory:elsewhere"))
		must(t, b.ConnectEndpoint("a"))
		meshUp(t, a, b)
		mu.Lock()
		pa, pb := seen["b"][0], seen["a"][0]
		mu.Unlock()
		if pa.NodeUUID != a.NodeUUID || pa.Name != "a" || pa.Mesh != gravbus.DefaultMesh || !pa.Authenticated ||
			!slices.Equal(pa.Capabilities, []string{"gpu"}) || !slices.Equal(pa.Endpoints, []string{"memory:a"}) || pa.RemoteAddr == "" {
			t.Errorf("b sees %+v", pa)
		}
		if pb.NodeUUID != b.NodeUUID || !slices.Equal(pb.Endpoints, []string{"memory:elsewhere", "memory:b"}) {
			t.Errorf("a sees %+v", pb)
		}
		refuse.Store(true)
		n.Cut("a", "b")
		time.Sleep(time.Minute)
		if a.Stats().Peers[0].State != gravbus.PeerAway || a.Stats().Strangers == 0 {
			t.Errorf("%+v", a.Stats())
		}
		refuse.Store(false)
		meshUp(t, a, b)
	})
}

func TestMeshFilterMeshNames(t *testing.T) {
	for _, c := range []struct {
		a, b string
		ok   bool
	}{
		{"x", "x", true},
		{"x", "y", false},
		{"*", "x", true},
		{"x", "*", true},
		{"*", "*", true},
		{"", gravbus.DefaultMesh, true},
		{"", "x", false},
		{"X", "x", false},
	} {
		meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
			a, b := n.node("a", "", gravbus.UseMesh(c.a)), n.node("b", "", gravbus.UseBelongsTo(c.b))
			err := a.ConnectEndpoint("b")
			if ok := err == nil; ok != c.ok || !ok && (!errors.Is(err, gravbus.ErrMeshMismatch) || !errors.Is(err, gravbus.ErrBelongsToMismatch)) {
				t.Errorf("%q and %q: %v", c.a, c.b, err)
			}
			if c.ok {
				meshUp(t, a, b)
			}
		})
	}
}

// Keys are changed one node at a time, and nobody is ever out.
func TestMeshFilterKeyRotation(t *testing.T) {
	meshBubble(t, memory.Config{Secure: true}, func(t *testing.T, n meshNet) {
		old, fresh := []byte(strings.Repeat("o", 32)), []byte(strings.Repeat("n", 32))
		steps := [][][]byte{{old}, {old, fresh}, {fresh, old}, {fresh}}
		for i := range steps {
			for _, j := range []int{i, i + 1} {
				if j == len(steps) {
					continue
				}
				a, b := n.lone("a", gravbus.UseMeshKey(steps[i]...)), n.lone("b", gravbus.UseMeshKey(steps[j]...))
				must(t, a.Start(t.Context()))
				must(t, b.Start(t.Context()))
				if err := a.ConnectEndpoint("b"); err != nil {
					t.Errorf("step %d and %d: %v", i, j, err)
				}
				meshUp(t, a, b)
				a.Close()
				must(t, b.Shutdown(meshCtx(t, time.Minute)))
				c, d := n.lone("c", gravbus.UseMeshKey(steps[j]...)), n.lone("d", gravbus.UseMeshKey(steps[i]...))
				must(t, d.Start(t.Context()))
				if err := c.ConnectEndpoint("d"); err != nil {
					t.Errorf("step %d and %d: %v", j, i, err)
				}
				meshUp(t, c, d)
				c.Close()
				d.Close()
			}
		}
		a, b := n.lone("a", gravbus.UseMeshKey(old)), n.lone("b", gravbus.UseMeshKey(fresh))
		must(t, b.Start(t.Context()))
		if err := a.ConnectEndpoint("b"); !errors.Is(err, gravbus.ErrUnauthorized) {
			t.Errorf("%v", err)
		}
	})
}

func TestMeshFilterBadConfigurations(t *testing.T) {
	long := []byte(strings.Repeat("k", 16))
	for name, keys := range map[string][][]byte{
		"short": {long[:15]}, "one short": {long, long[:15]}, "empty": {{}}, "nil": {nil}, "five": {long, long, long, long, long},
	} {
		b := testBus(t, gravbus.UseTransport(memory.NewNetwork(memory.Config{}).Transport("a")), gravbus.UseMeshKey(keys...))
		if err := b.Start(t.Context()); !errors.Is(err, gravbus.ErrMeshKey) {
			t.Errorf("%s: Start: %v", name, err)
		}
		if err := b.ConnectEndpoint("b"); !errors.Is(err, gravbus.ErrMeshKey) {
			t.Errorf("%s: ConnectEndpoint: %v", name, err)
		}
	}
	for name, opt := range map[string]gravbus.Option{
		"UseExport": gravbus.UseExport("orders.>", "orders..>"), "UseImport": gravbus.UseImport("orders.> "),
	} {
		b := testBus(t, gravbus.UseTransport(memory.NewNetwork(memory.Config{}).Transport("a")), opt)
		var bad *gravbus.TypeError
		if err := b.Start(t.Context()); !errors.As(err, &bad) {
			t.Errorf("%s: Start: %v", name, err)
		}
		if err := b.ConnectEndpoint("b"); !errors.As(err, &bad) {
			t.Errorf("%s: ConnectEndpoint: %v", name, err)
		}
	}
	long256 := strings.Repeat("x", 256)
	for name, opt := range map[string]gravbus.Option{
		"a long endpoint": gravbus.UseAdvertise(long256), "a long mesh": gravbus.UseMesh(long256),
		"a long capability": gravbus.UseInterests(long256), "many capabilities": gravbus.UseInterests(make([]string, 257)...),
		"capabilities of 17 KiB": gravbus.UseInterests(slices.Repeat([]string{long256[:170]}, 100)...),
	} {
		b := testBus(t, gravbus.UseTransport(memory.NewNetwork(memory.Config{}).Transport("a")), opt)
		if err := b.Start(t.Context()); err == nil {
			t.Errorf("it starts with %s", name)
		}
	}
	for _, addr := range []string{":0", "0.0.0.0:0"} {
		b := testBus(t, gravbus.UseTransport(websocket.New(websocket.Config{Addr: addr})))
		if err := b.Start(t.Context()); !errors.Is(err, gravbus.ErrOpenMesh) {
			t.Errorf("Start at %s: %v", addr, err)
		}
		if len(b.Endpoints()) != 0 {
			t.Error("it listens all the same")
		}
		if err := b.Start(t.Context()); !errors.Is(err, gravbus.ErrOpenMesh) { // and not that it has started
			t.Errorf("Start again: %v", err)
		}
	}
	for name, o := range map[string]gravbus.Option{"key": gravbus.UseMeshKey(long), "open": gravbus.UseOpenMesh()} {
		b := testBus(t, gravbus.UseTransport(websocket.New(websocket.Config{Addr: ":0"})), o)
		if err := b.Start(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := b.Start(t.Context()); !errors.Is(err, gravbus.ErrStarted) {
			t.Errorf("twice: %v", err)
		}
		b.Close()
		if err := b.Start(t.Context()); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := b.ConnectEndpoint("x"); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := b.WaitPeers(t.Context(), 1); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := b.WaitInterest(t.Context(), "x", 1); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	b := testBus(t)
	for name, err := range map[string]error{
		"Start": b.Start(t.Context()), "ConnectEndpoint": b.ConnectEndpoint("x"), "WaitPeers": b.WaitPeers(t.Context(), 0),
		"WaitInterest": b.WaitInterest(t.Context(), "x", 0), "Withdraw": b.Withdraw(t.Context()),
	} {
		if !errors.Is(err, gravbus.ErrTransportNotConfigured) {
			t.Errorf("%s without a transport: %v", name, err)
		}
	}
	x := meshNode(t, nil)
	for _, typ := range []string{"", "a..b", "a b"} {
		if err := x.WaitInterest(t.Context(), typ, 0); !errors.Is(err, gravbus.ErrInvalidType) {
			t.Errorf("WaitInterest(%q): %v", typ, err)
		}
	}
}

// Why ConnectEndpoint fails can be told.
func TestMeshFilterConnectErrors(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 10 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.node("a", ""), n.node("b", "")
		if err := a.ConnectEndpoint("nowhere"); !errors.Is(err, memory.ErrRefused) {
			t.Errorf("nobody there: %v", err)
		}
		if err := a.ConnectEndpoint("no : endpoint"); !errors.Is(err, transport.ErrEndpoint) {
			t.Errorf("no endpoint: %v", err)
		}
		var pe *gravbus.PeerError
		if err := a.ConnectEndpoint("memory:a"); !errors.Is(err, gravbus.ErrSelf) || !errors.As(err, &pe) {
			t.Errorf("itself: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.ConnectEndpointContext(ctx, "b"); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		// It connects, and never says anything.
		silent, err := n.Transport("silent").Listen(t.Context(), transport.ListenOptions{})
		must(t, err)
		defer silent.Close()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := a.ConnectEndpointContext(ctx, "silent"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context ended: %v", err)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("it took %v", d)
		}
		began = time.Now()
		if err := a.ConnectEndpoint("silent"); err == nil {
			t.Error("it is connected with nobody")
		}
		if d := time.Since(began); d > gravbus.DefaultHandshakeTime+time.Second {
			t.Errorf("it took %v", d)
		}
		n.Silence("a", "b")
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.ConnectEndpointContext(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context ended: %v", err)
		}
		n.Heal()
		must(t, a.ConnectEndpoint("b"))
		meshUp(t, a, b)
		must(t, a.ConnectEndpoint("b")) // again
		must(t, b.ConnectEndpoint("a")) // and from there
		meshUp(t, a, b)
		time.Sleep(10 * time.Second)
		k := 0
		for _, c := range n.Connections() {
			if c.From() != "silent" && c.To() != "silent" {
				k++
			}
		}
		if k != 1 {
			t.Errorf("%d connections", k)
		}
		// Closed while it tries.
		done := make(chan error, 1)
		go func() { done <- b.ConnectEndpoint("silent") }()
		time.Sleep(100 * time.Millisecond)
		b.Close()
		if err := awaitDone(t, time.Second, done); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("closed while it tries: %v", err)
		}
	})
}

// A node with peers that does not listen.
func TestMeshFilterConnectWithoutStart(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.lone("a"), n.node("b", "")
		must(t, a.ConnectEndpoint("b"))
		meshUp(t, a, b)
		if len(a.Endpoints()) != 0 {
			t.Errorf("endpoints %v", a.Endpoints())
		}
		_, got := meshListener(t, a, "t")
		meshWanted(t, b, "t", 1)
		p := b.Connect()
		p.Send(nth("t", 1, 0))
		got.await(t, 1)
		n.Cut("a", "b")
		for i := range 10 {
			p.Send(nth("t", 1, 1+i))
		}
		meshUp(t, a, b)
		if all := numbers(t, got.await(t, 11)); !slices.Equal(all, span(0, 10)) {
			t.Errorf("got %v", all)
		}
	})
}

// Limits of both sides hold, each for what comes to it.
func TestMeshFilterDifferentLimits(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.node("a", "", gravbus.UseMaxMessageSize(3<<20)), n.node("b", "a", gravbus.UseMaxMessageSize(1000))
		meshUp(t, a, b)
		_, ra := meshListener(t, a, "t")
		_, rb := meshListener(t, b, "t")
		meshWanted(t, a, "t", 1)
		meshWanted(t, b, "t", 1)
		ea, eb := meshWatch(t, a), meshWatch(t, b)
		pa, pb := a.Connect(), b.Connect()
		for _, size := range []int{1, 1000, 1001, 3 << 20, 2, 3<<20 + 1} {
			_, err := pa.SendContext(t.Context(), gravbus.NewMsg("t", make([]byte, size)))
			if over := size > 3<<20; over != errors.Is(err, gravbus.ErrMessageTooLarge) {
				t.Errorf("%d: %v", size, err)
			}
		}
		if _, err := pb.SendContext(t.Context(), gravbus.NewMsg("t", make([]byte, 1001))); !errors.Is(err, gravbus.ErrMessageTooLarge) {
			t.Errorf("%v", err)
		}
		pb.Send(gravbus.NewMsg("t", make([]byte, 1000)))
		time.Sleep(time.Second)
		synctest.Wait()
		sizes := func(r *recorder) (all []int) {
			for _, m := range r.all() {
				all = append(all, len(m.Data()))
			}
			slices.Sort(all)
			return all
		}
		if got := sizes(rb); !slices.Equal(got, []int{1, 2, 1000, 1000}) {
			t.Errorf("b got %v", got)
		}
		if got := sizes(ra); !slices.Equal(got, []int{1, 2, 1000, 1000, 1001, 3 << 20}) {
			t.Errorf("a got %v", got)
		}
		gaps := 0
		for _, e := range eb.take() {
			var k int
			if _, err := fmt.Sscanf(e, "gap %d in", &k); err == nil {
				gaps += k
			}
		}
		refused := 0
		for _, e := range ea.take() {
			if e == "message refused" {
				refused++
			}
		}
		if gaps != 2 || refused != 3 {
			t.Errorf("gaps %d, refused %d", gaps, refused)
		}
		if s := a.Stats(); s.Refused != 3 {
			t.Errorf("%d refused", s.Refused)
		}
	})
}

// The names in a Hello are bounded where they are set, so that what is too long does not keep the
// node out.
func TestMeshFilterLongNames(t *testing.T) {
	long := strings.Repeat("ä", 300)
	for name, o := range map[string]gravbus.Option{
		"name": gravbus.UseNodeName(long), "capability": gravbus.UseInterests(long), "endpoint": gravbus.UseAdvertise("memory:" + long),
		"mesh": gravbus.UseMesh(long), "many capabilities": gravbus.UseInterests(slices.Repeat([]string{"x"}, 300)...),
		"many endpoints": gravbus.UseAdvertise(slices.Repeat([]string{"memory:x"}, 300)...),
		"large Hello":    gravbus.UseInterests(slices.Repeat([]string{strings.Repeat("x", 200)}, 200)...),
	} {
		t.Run(name, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a := n.lone("a", o)
				if err := a.Start(t.Context()); err != nil {
					return // fine: it says so
				}
				mesh := gravbus.DefaultMesh
				if name == "mesh" {
					mesh = "*"
				}
				b := n.node("b", "", gravbus.UseMesh(mesh))
				if err := b.ConnectEndpoint("a"); err != nil {
					t.Errorf("Start says nothing, and then %v", err)
				}
			})
		})
	}
}
