package peers_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/peers"
)

// A quirk is what a library does not keep of what the others do. Each string says why; an empty one
// means that the rule is asserted.
type quirk struct {
	unordered string // messages may overtake each other
	requests  string // a reply may be lost
	cancel    string // Cancel may hit another subscription of the topic
	late      string // Cancel takes effect soon after it has returned
	leaks     string // goroutines stay after Close
	race      string // the library's own data races: no test under the race detector
}

// quirks lists the exceptions by peer.
var quirks = map[string]quirk{
	"eventbus":       {cancel: "Unsubscribe takes closures of one function for the same"},
	"eventbus-async": {cancel: "as eventbus"},
	"grav": {
		unordered: "two goroutines for each message",
		requests:  "a reply that comes before the wait for it",
		leaks:     "a bus cannot be stopped",
	},
	"kelindar": {leaks: "a receiver that waits is woken by a ticker that Close has stopped"},
	"watermill": {
		unordered: "a goroutine for each message",
		late:      "a subscription ends by its context",
	},
	"watermill-ack": {late: "as watermill"},
}

// patience is how long a test waits for what it expects.
const patience = 15 * time.Second

func TestMain(m *testing.M) {
	// Libraries tell of connections that end, which is what these tests are about.
	log.SetOutput(new(bytes.Buffer))
	slog.SetLogLoggerLevel(slog.LevelError + 1)
	os.Exit(m.Run())
}

// count is how many messages a test sends: fewer under the race detector, as some libraries have
// goroutines for each that waits.
func count(n int) int {
	if raceOn {
		return n / 5
	}
	return n
}

func TestAllAreDescribed(t *testing.T) {
	required, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, p := range peers.All() {
		if p.ID == "" || seen[p.ID] {
			t.Errorf("ID %q is empty or has come before", p.ID)
		}
		seen[p.ID] = true
		if p.Name == "" || p.Note == "" {
			t.Errorf("%s: lacks a name or a note", p.ID)
		}
		if p.Module != "" && !strings.Contains(string(required), p.Module+" v") {
			t.Errorf("%s: go.mod does not require %s", p.ID, p.Module)
		}
		switch p.Kind {
		case peer.Limit, peer.Async, peer.Sync:
		default:
			t.Errorf("%s: kind %q", p.ID, p.Kind)
		}
		if p.Local == nil && p.Remote == nil {
			t.Errorf("%s: works neither in one process nor between two", p.ID)
		}
	}
	for id := range quirks {
		if !seen[id] {
			t.Errorf("quirk of %q, which is no peer", id)
		}
	}
}

func TestLocal(t *testing.T) {
	for _, p := range peers.All() {
		if p.Local == nil {
			continue
		}
		t.Run(p.ID, func(t *testing.T) {
			q := quirks[p.ID]
			skipRace(t, q)
			for _, c := range []struct {
				name string
				run  func(*testing.T, peer.Bus, quirk)
			}{
				{"all arrive in order", testArrive},
				{"several senders", testSenders},
				{"many subscriptions", testMany},
				{"topics do not mix", testTopics},
				{"a late subscription", testLate},
				{"cancel", testCancel},
				{"requests", testRequests},
			} {
				t.Run(c.name, func(t *testing.T) {
					checkLeaks(t, q)
					b, err := p.Local()
					if err != nil {
						t.Fatal(err)
					}
					closing := sync.OnceFunc(func() { closeBus(t, b) })
					defer closing()
					c.run(t, b, q)
				})
			}
		})
	}
}

func TestRemote(t *testing.T) {
	for _, p := range peers.All() {
		if p.Remote == nil {
			continue
		}
		t.Run(p.ID, func(t *testing.T) {
			q := quirks[p.ID]
			skipRace(t, q)
			t.Run("all arrive at both in order", func(t *testing.T) { testRemoteArrive(t, p.Remote, q) })
			t.Run("big ones too", func(t *testing.T) { testRemoteBig(t, p.Remote, q) })
			t.Run("requests", func(t *testing.T) { testRemoteRequests(t, p.Remote, q) })
		})
	}
}

func skipRace(t *testing.T, q quirk) {
	if raceOn && q.race != "" {
		t.Skip("data races of the library: " + q.race)
	}
}

// checkLeaks fails t if goroutines are left that were not there before.
func checkLeaks(t *testing.T, q quirk) {
	if q.leaks != "" {
		return
	}
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if err := goleak.Find(before); err != nil {
			t.Error(err)
		}
	})
}

// closeBus fails t if Close hangs, as a deadlock would otherwise end all tests.
func closeBus(t *testing.T, b peer.Bus) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- b.Close() }() // until Close returns
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(patience):
		t.Error("Close hangs")
	}
}

// A collector is a subscription's function. It has no lock: the race detector finds calls that do
// not come one at a time.
type collector struct {
	want       int
	senders    []uint64 // what comes next of each
	got        int
	disordered int
	wrong      int
	done       chan struct{} // closed when want have come
}

func newCollector(want, senders int) *collector {
	return &collector{want: want, senders: make([]uint64, senders), done: make(chan struct{})}
}

// data makes a message of a sender.
func data(sender, seq, size int) []byte {
	d := make([]byte, size)
	binary.LittleEndian.PutUint32(d, uint32(sender))
	binary.LittleEndian.PutUint64(d[4:], uint64(seq))
	return d
}

const small = 16 // bytes

func (c *collector) receive(d []byte) {
	sender, seq := binary.LittleEndian.Uint32(d), binary.LittleEndian.Uint64(d[4:])
	switch {
	case int(sender) >= len(c.senders):
		c.wrong++
	case seq != c.senders[sender]:
		c.disordered++
		c.senders[sender] = seq + 1
	default:
		c.senders[sender]++
	}
	if c.got++; c.got == c.want {
		close(c.done)
	}
}

// check waits for all of all and checks the order.
func check(t *testing.T, q quirk, all ...*collector) {
	t.Helper()
	timeout := time.After(patience)
	for i, c := range all {
		select {
		case <-c.done:
		case <-timeout:
			t.Fatalf("subscription %d of %d has not got all %d", i, len(all), c.want)
		}
		if c.wrong > 0 {
			t.Errorf("subscription %d: %d messages of another topic", i, c.wrong)
		}
		if c.disordered > 0 && q.unordered == "" {
			t.Errorf("subscription %d: %d of %d out of order", i, c.disordered, c.want)
		}
	}
}

func subscribe(t *testing.T, b peer.Bus, topic string, fn func([]byte)) peer.Subscription {
	t.Helper()
	s, err := b.Subscribe(topic, fn)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	return s
}

// publish publishes n messages of sender, and flushes.
func publish(t *testing.T, b peer.Bus, topic string, sender, from, n, size int) {
	p, err := b.Publisher(topic)
	if err != nil {
		t.Errorf("Publisher: %v", err)
		return
	}
	for i := range n {
		if err := p.Publish(p.Message(data(sender, from+i, size))); err != nil {
			t.Errorf("Publish: %v", err)
			return
		}
	}
	if err := p.Flush(); err != nil {
		t.Errorf("Flush: %v", err)
	}
}

func testArrive(t *testing.T, b peer.Bus, q quirk) {
	n := count(10_000)
	c := newCollector(n, 1)
	subscribe(t, b, "orders.created", c.receive)
	publish(t, b, "orders.created", 0, 0, n, small)
	check(t, q, c)
}

// The order is that of each sender.
func testSenders(t *testing.T, b peer.Bus, q quirk) {
	const senders = 4
	n := count(2000)
	all := []*collector{newCollector(senders*n, senders), newCollector(senders*n, senders)}
	for _, c := range all {
		subscribe(t, b, "orders.created", c.receive)
	}
	var publishing sync.WaitGroup
	for sender := range senders {
		publishing.Go(func() { publish(t, b, "orders.created", sender, 0, n, small) })
	}
	publishing.Wait()
	check(t, q, all...)
}

func testMany(t *testing.T, b peer.Bus, q quirk) {
	n := count(100)
	all := make([]*collector, 100)
	for i := range all {
		all[i] = newCollector(n, 1)
		subscribe(t, b, "orders.created", all[i].receive)
	}
	publish(t, b, "orders.created", 0, 0, n, small)
	check(t, q, all...)
}

func testTopics(t *testing.T, b peer.Bus, q quirk) {
	n := count(1000)
	all := make([]*collector, 3)
	for i := range all {
		all[i] = newCollector(n, i+1)
		subscribe(t, b, fmt.Sprint("topic.", i), func(d []byte) {
			if d[0] != byte(i) {
				all[i].wrong++
			}
			all[i].receive(d)
		})
	}
	for i := range all {
		publish(t, b, fmt.Sprint("topic.", i), i, 0, n, small)
	}
	check(t, q, all...)
}

// A Publisher that was there before the subscription reaches it.
func testLate(t *testing.T, b peer.Bus, q quirk) {
	const n = 100
	p, err := b.Publisher("orders.created")
	if err != nil {
		t.Fatal(err)
	}
	c := newCollector(n, 1)
	subscribe(t, b, "orders.created", c.receive)
	for seq := range n {
		if err := p.Publish(p.Message(data(0, seq, small))); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	check(t, q, c)
}

func testCancel(t *testing.T, b peer.Bus, q quirk) {
	const n = 100
	p, err := b.Publisher("orders.created")
	if err != nil {
		t.Fatal(err)
	}
	publishFrom := func(from int) {
		for i := range n {
			if err := p.Publish(p.Message(data(0, from+i, small))); err != nil {
				t.Fatalf("Publish: %v", err)
			}
		}
		if err := p.Flush(); err != nil {
			t.Fatalf("Flush: %v", err)
		}
	}
	stays := newCollector(2*n, 1)
	if q.cancel == "" {
		subscribe(t, b, "orders.created", stays.receive)
	}
	var canceled atomic.Int64
	got := make(chan struct{})
	s := subscribe(t, b, "orders.created", func([]byte) {
		if canceled.Add(1) == n {
			close(got)
		}
	})
	publishFrom(0)
	select {
	case <-got:
	case <-time.After(patience):
		t.Fatal("messages before Cancel are missing")
	}
	if err := s.Cancel(); err != nil {
		t.Fatalf("Cancel: %v", err)
	}
	for round := 1; ; round++ {
		before := canceled.Load()
		publishFrom(round * n)
		if q.cancel == "" && round == 1 {
			check(t, q, stays)
		}
		// A bus that still passed those on would have done so before these.
		control, topic := newCollector(n, 1), fmt.Sprint("orders.control.", round)
		subscribe(t, b, topic, control.receive)
		publish(t, b, topic, 0, 0, n, small)
		check(t, q, control)
		after := canceled.Load()
		if after == before {
			break
		}
		if q.late == "" || round == 50 {
			t.Fatalf("%d messages came after Cancel", after-before)
		}
	}
	if err := s.Cancel(); err != nil {
		t.Errorf("Cancel again: %v", err)
	}
}

// echo is what responders answer.
func echo(data []byte) []byte { return append([]byte("re: "), data...) }

func testRequests(t *testing.T, b peer.Bus, q quirk) {
	r, ok := b.(peer.Requester)
	if !ok {
		t.Skip("no requests")
	}
	if q.requests != "" {
		t.Skip("requests fail by chance: " + q.requests)
	}
	if err := r.Respond("orders.price", echo); err != nil {
		t.Fatal(err)
	}
	ask(t, r, "orders.price")
}

// ask sends requests one after the other, and then many at a time.
func ask(t *testing.T, r peer.Requester, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request := func(from, n int) {
		for i := range n {
			d := data(from, i, small)
			reply, err := r.Request(ctx, topic, d)
			if err != nil {
				t.Errorf("Request: %v", err)
				return
			}
			if !bytes.Equal(reply, echo(d)) {
				t.Errorf("the reply to %x is %x", d, reply)
				return
			}
		}
	}
	request(0, 200)
	var asking sync.WaitGroup
	for from := range 16 {
		asking.Go(func() { request(from, 100) })
	}
	asking.Wait()
}

// start starts n far nodes, calls prepare on each, and joins them.
func start(t *testing.T, r peer.Remote, q quirk, topic string, n int, prepare func(i int, node peer.Bus)) peer.Near {
	t.Helper()
	checkLeaks(t, q)
	nodes, addr, err := r.Listen(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, node := range nodes {
			closeBus(t, node)
		}
	})
	if len(nodes) != n {
		t.Fatalf("%d nodes, not %d", len(nodes), n)
	}
	for i, node := range nodes {
		prepare(i, node)
	}
	near, err := r.Join(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBus(t, near) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := near.Ready(ctx, topic, n); err != nil {
		t.Fatalf("Ready: %v", err)
	}
	return near
}

func testRemoteArrive(t *testing.T, r peer.Remote, q quirk) {
	n := count(5000)
	all := make([]*collector, 2)
	near := start(t, r, q, "orders.created", len(all), func(i int, node peer.Bus) {
		all[i] = newCollector(n, 1)
		subscribe(t, node, "orders.created", all[i].receive)
	})
	publish(t, near, "orders.created", 0, 0, n, small)
	check(t, q, all...)
}

func testRemoteBig(t *testing.T, r peer.Remote, q quirk) {
	n := count(500)
	sizes := []int{small, 16 << 10, 100 << 10}
	c := newCollector(n*len(sizes), len(sizes))
	near := start(t, r, q, "orders.created", 1, func(_ int, node peer.Bus) {
		subscribe(t, node, "orders.created", func(d []byte) {
			if len(d) != sizes[d[0]] {
				c.wrong++
			}
			c.receive(d)
		})
	})
	for i, size := range sizes {
		publish(t, near, "orders.created", i, 0, n, size)
	}
	check(t, q, c)
}

func testRemoteRequests(t *testing.T, r peer.Remote, q quirk) {
	lacks := false
	near := start(t, r, q, "orders.price", 1, func(_ int, node peer.Bus) {
		far, ok := node.(peer.Requester)
		if !ok {
			lacks = true
			t.SkipNow()
		}
		err := far.Respond("orders.price", echo)
		if errors.Is(err, peer.ErrUnsupported) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	asker, ok := near.(peer.Requester)
	if ok == lacks {
		t.Fatal("either both nodes or neither have requests")
	}
	ask(t, asker, "orders.price")
}
