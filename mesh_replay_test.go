package gravbus_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/sirupsen/logrus"
)

// What a node has in its buffer comes first, then what is live, also with others listening already.
func TestMeshReplayThenLive(t *testing.T) {
	for _, latency := range []time.Duration{0, 20 * time.Millisecond} {
		meshBubble(t, memory.Config{Latency: latency}, func(t *testing.T, n meshNet) {
			a, b := n.pair()
			meshListener(t, b, ">") // so that all comes live as well
			meshWanted(t, a, "t", 1)
			p := a.Connect()
			for i := range 10 {
				p.Send(nth("t", 1, i))
			}
			late := b.ConnectWithReplay()
			var got recorder
			must(t, late.OnType("t", got.handle))
			for i := range 10 {
				p.Send(nth("t", 1, 10+i))
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if all := numbers(t, got.all()); !slices.Equal(all, span(0, 19)) {
				t.Errorf("latency %v: got %v", latency, all)
			}
		})
	}
}

// The pod was there when the messages were sent: that the buffer over there, or an option, keeps
// them out of the replay does not matter.
func TestMeshReplayNothingLiveIsLostByBounds(t *testing.T) {
	for _, c := range []struct {
		name   string
		replay int // the buffer at the sender
		opts   []gravbus.PodOption
		past   int // of ten messages sent long before, how many are wanted
	}{
		{"small buffer", 5, []gravbus.PodOption{gravbus.Replay()}, 5},
		{"no buffer", 0, []gravbus.PodOption{gravbus.Replay()}, -1},
		{"last", 1000, []gravbus.PodOption{gravbus.ReplayLast(1)}, 1},
		{"since", 1000, []gravbus.PodOption{gravbus.ReplaySince(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))}, 0},
		{"types", 1000, []gravbus.PodOption{gravbus.ReplayTypes("other")}, 0},
	} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", c.name, known), func(t *testing.T) {
				meshBubble(t, memory.Config{Latency: 20 * time.Millisecond}, func(t *testing.T, n meshNet) {
					a, b := n.node("a", "", gravbus.UseReplay(c.replay)), n.node("b", "a")
					meshUp(t, a, b)
					if known {
						meshListener(t, b, ">")
						meshWanted(t, a, "t", 1)
					}
					p := a.Connect()
					for i := range 10 {
						p.Send(nth("t", 1, i))
					}
					time.Sleep(time.Second)
					late := b.Connect(c.opts...)
					var got recorder
					must(t, late.OnType("t", got.handle))
					if !known {
						meshWanted(t, a, "t", 1)
					}
					for i := range 50 { // the request for the replay is on its way
						p.Send(nth("t", 1, 10+i))
					}
					time.Sleep(10 * time.Second)
					synctest.Wait()
					all := numbers(t, got.all())
					live := slices.Index(all, 10)
					if live < 0 || !slices.Equal(all[live:], span(10, 59)) {
						t.Fatalf("of 10 to 59, sent when the pod listened, came %v", all)
					}
					if past := all[:live]; c.past >= 0 && known && len(past) < c.past || !slices.IsSorted(past) || len(slices.Compact(past)) != live {
						t.Errorf("of the past came %v", past)
					}
				})
			})
		}
	}
}

// The pod connects while the link is down, or before there is one.
func TestMeshReplayPodFirstLinkLater(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		b := n.node("b", "a c")
		late := b.ConnectWithReplay()
		var got recorder
		must(t, late.OnType("t", got.handle))
		for k, name := range []string{"a", "c"} {
			x := n.node(name, "")
			p := x.Connect()
			for i := range 10 {
				p.Send(nth("t", k, i))
			}
			ctx := meshCtx(t, time.Hour)
			must(t, x.WaitInterest(ctx, "t", 1))
			for i := range 10 {
				p.Send(nth("t", k, 10+i))
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if all := numbers(t, got.all()); !slices.Equal(all[20*k:], span(0, 19)) {
				t.Errorf("from %s came %v", name, all[20*k:])
			}
		}
	})
}

func TestMeshReplayDuringACut(t *testing.T) {
	meshBubble(t, memory.Config{Latency: time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		meshListener(t, b, ">")
		meshWanted(t, a, "t", 1)
		p := a.Connect()
		for i := range 10 {
			p.Send(nth("t", 1, i))
		}
		time.Sleep(time.Second)
		n.Cut("a", "b")
		synctest.Wait()
		late := b.ConnectWithReplay()
		var got recorder
		must(t, late.OnType("t", got.handle))
		for i := range 10 {
			p.Send(nth("t", 1, 10+i))
		}
		synctest.Wait()
		if all := numbers(t, got.all()); len(all) != 10 {
			t.Logf("while it is down: %v", all)
		}
		meshUp(t, a, b)
		for i := range 10 {
			p.Send(nth("t", 1, 20+i))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, 29)) {
			t.Errorf("got %v", all)
		}
	})
}

// What the peer has sent is here already, and the peer is lost before it was asked, or while it is.
func TestMeshReplayPeerIsLost(t *testing.T) {
	for _, pending := range []bool{false, true} {
		meshBubble(t, memory.Config{Latency: 10 * time.Millisecond}, func(t *testing.T, n meshNet) {
			a, b := n.pair(gravbus.UseResumeFor(5 * time.Second))
			meshListener(t, b, ">")
			meshWanted(t, a, "t", 1)
			p := a.Connect()
			for i := range 10 {
				p.Send(nth("t", 1, i))
			}
			time.Sleep(time.Second)
			if !pending {
				n.Partition([]string{"a"}, []string{"b"})
				n.Cut("a", "b")
				synctest.Wait()
			}
			late := b.ConnectWithReplay()
			var got recorder
			must(t, late.OnType("t", got.handle))
			if pending {
				n.Partition([]string{"a"}, []string{"b"})
				n.Cut("a", "b")
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if all := numbers(t, got.all()); !slices.Equal(all, span(0, 9)) {
				t.Errorf("pending %v: got %v", pending, all)
			}
			n.Heal()
			meshUp(t, a, b)
			time.Sleep(time.Minute)
			for i := range 10 {
				p.Send(nth("t", 1, 10+i))
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if all := numbers(t, got.all()); !slices.Equal(all, span(0, 19)) {
				t.Errorf("pending %v: got %v", pending, all)
			}
		})
	}
}

// A pod with replay does not know for ever who was there once.
func TestMeshReplayMemoryOfManyPeers(t *testing.T) {
	if raceOn {
		t.Skip("it takes thousands of nodes: run it without the race detector")
	}
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a := n.node("a", "")
		const pods = 20
		for range pods {
			must(t, a.ConnectWithReplay().On(func(gravbus.Message) error { return nil }))
		}
		come := func(count int) {
			for i := range count {
				b := gravbus.New(gravbus.UseTransport(n.Transport("b")), quiet())
				must(t, b.ConnectEndpoint("a"))
				b.Close()
				if i%100 == 99 {
					time.Sleep(time.Minute) // they are given up
				}
			}
		}
		const nodes = 17_000 // more than are remembered
		come(nodes)
		before := heapNow()
		come(nodes)
		// Maps that are full may have grown by half of what they hold, once; to remember all takes hundreds.
		if more := heapNow() - before; more > nodes*pods*100 {
			t.Errorf("%d bytes for each pod and node that has gone", more/nodes/pods)
		}
	})
}

func TestMeshReplayOptions(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a := n.node("a", "", gravbus.UseExport("t.>", "u"))
		p := a.Connect()
		var ids []string
		var middle time.Time
		for i := range 20 {
			if i == 10 {
				time.Sleep(2 * time.Second)
				middle = time.Now()
			}
			m := nth([]string{"t.even", "t.odd"}[i%2], 1, i)
			ids = append(ids, m.UUID())
			p.Send(m)
			p.Send(gravbus.NewMsg("secret", []byte("no")))
		}
		b := n.node("b", "a", gravbus.UseImport("t.>"))
		meshUp(t, a, b)
		for _, c := range []struct {
			name string
			opts []gravbus.PodOption
			on   string
			deny string
			want []int
		}{
			{"all", []gravbus.PodOption{gravbus.Replay()}, ">", "", span(0, 19)},
			{"pattern", []gravbus.PodOption{gravbus.Replay()}, "t.odd", "", []int{1, 3, 5, 7, 9, 11, 13, 15, 17, 19}},
			{"denied", []gravbus.PodOption{gravbus.Replay()}, "t.*", "t.odd", []int{0, 2, 4, 6, 8, 10, 12, 14, 16, 18}},
			{"last", []gravbus.PodOption{gravbus.ReplayLast(3)}, "t.*", "", span(17, 19)},
			{"since", []gravbus.PodOption{gravbus.ReplaySince(middle)}, "t.*", "", span(10, 19)},
			{"after", []gravbus.PodOption{gravbus.ReplayAfter(ids[14])}, "t.*", "", span(15, 19)},
			{"types", []gravbus.PodOption{gravbus.ReplayTypes("t.even")}, "t.*", "", []int{0, 2, 4, 6, 8, 10, 12, 14, 16, 18}},
			{"all of them", []gravbus.PodOption{gravbus.ReplayTypes("t.even"), gravbus.ReplayLast(2), gravbus.ReplaySince(middle), gravbus.ReplayAfter(ids[2])}, ">", "", []int{16, 18}},
		} {
			p := b.Connect(c.opts...)
			if c.deny != "" {
				must(t, p.FilterType(c.deny, false))
			}
			var got recorder
			must(t, p.OnType(c.on, got.handle))
			time.Sleep(time.Minute)
			synctest.Wait()
			if all := numbers(t, got.all()); !slices.Equal(all, c.want) {
				t.Errorf("%s: got %v, want %v", c.name, all, c.want)
			}
			p.Disconnect()
		}
	})
}

// A replay larger than the mailbox of the pod that wants it.
func TestMeshReplayIntoASmallMailbox(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.node("a", "", gravbus.UseReplay(5000)), n.node("b", "a")
		p := a.Connect()
		for i := range 5000 {
			p.Send(nth("t", 1, i))
		}
		meshUp(t, a, b)
		late := b.Connect(gravbus.Replay(), gravbus.Mailbox(1))
		var got recorder
		must(t, late.OnType("t", func(m gravbus.Message) error {
			time.Sleep(time.Millisecond)
			return got.handle(m)
		}))
		time.Sleep(time.Minute)
		synctest.Wait()
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, 4999)) {
			t.Errorf("got %d: %.200v", len(all), all)
		}
	})
}

// A pod that is connected anew asks with the latest it has seen, wherever that came from: others do
// not send all they have.
func TestMeshReplayAfterOfAnotherNode(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		pod, got := meshListener(t, b, "t")
		meshWanted(t, a, "t", 1)
		meshWanted(t, c, "t", 1)
		pa, pc := a.Connect(), c.Connect()
		for i := range 5 {
			pa.Send(nth("t", 0, i))
			synctest.Wait()
			pc.Send(nth("t", 2, i))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		all := got.await(t, 10)
		pod.Disconnect()
		pa.Send(nth("t", 0, 5))
		pc.Send(nth("t", 2, 5))
		again := b.Connect(gravbus.ReplayAfter(all[9].UUID()))
		var more recorder
		must(t, again.OnType("t", more.handle))
		time.Sleep(time.Minute)
		synctest.Wait()
		if all := numbers(t, more.all()); !slices.Equal(all, []int{5, 5}) {
			t.Errorf("got %v, want what was sent meanwhile by each node", all)
		}
	})
}

// Senders on all nodes, pods with and without replay that come at any time, links that are cut: no
// gap, no double, in order. The pods that come late may miss what was sent before the buffers
// began, and nothing else.
func TestMeshReplaySeededSchedules(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	for seed := range rounds {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { replaySchedule(t, uint64(seed)) })
		if !ok && seed > 40 {
			return
		}
	}
}

func replaySchedule(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	c := memory.Config{Latency: time.Duration(r.IntN(4)) * time.Millisecond}
	meshBubble(t, c, func(t *testing.T, n meshNet) {
		names := []string{"a", "b", "c"}
		nodes := make([]*gravbus.Bus, 3)
		early := r.IntN(2) == 0
		for i, name := range names {
			nodes[i] = n.node(name, "a b c", gravbus.UseReplay(100000))
		}
		if early {
			meshUp(t, nodes...)
		}
		types := []string{"t.x", "t.y", "u.x"}
		const each = 120
		var wg sync.WaitGroup
		for i, b := range nodes {
			for j, typ := range types {
				p := b.Connect()
				pauses := make([]time.Duration, each)
				for k := range pauses {
					if r.IntN(4) == 0 {
						pauses[k] = time.Duration(r.IntN(3000)) * time.Microsecond
					}
				}
				wg.Go(func() {
					for k := range each {
						if pauses[k] > 0 {
							time.Sleep(pauses[k])
						}
						if p.Send(nth(typ, 3*i+j, k)) == nil {
							t.Error("not sent")
						}
					}
				})
			}
		}
		type late struct {
			got     recorder
			pattern string
			node    int
		}
		var all []*late
		patterns := []string{"t.*", ">", "*.x", "t.y"}
		for range 8 {
			l := &late{pattern: patterns[r.IntN(len(patterns))], node: r.IntN(3)}
			all = append(all, l)
			wait := time.Duration(r.IntN(150)) * time.Millisecond
			wg.Go(func() {
				time.Sleep(wait)
				mustToo(t, nodes[l.node].ConnectWithReplay().OnType(l.pattern, l.got.handle))
			})
		}
		for range r.IntN(6) {
			x, y := names[r.IntN(3)], names[r.IntN(3)]
			wait := time.Duration(r.IntN(150)) * time.Millisecond
			wg.Go(func() {
				time.Sleep(wait)
				n.Cut(x, y)
			})
		}
		wg.Wait()
		meshUp(t, nodes...)
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, l := range all {
			next := map[int]int{}
			for _, m := range l.got.all() {
				s, k := numberOf(m)
				if s < 0 || k != next[s] {
					t.Errorf("pod %d (%s at %s): of sender %d at %s (%s) came %d, want %d", i, l.pattern, names[l.node], s, names[s/3], types[s%3], k, next[s])
					next[s] = k
				}
				next[s]++
			}
			for s := range 9 {
				want := 0
				if matchesPattern(l.pattern, types[s%3]) {
					want = each
				}
				if next[s] != want {
					t.Errorf("pod %d (%s at %s): %d of %d from sender %d at %s", i, l.pattern, names[l.node], next[s], want, s, names[s/3])
				}
			}
		}
		for _, b := range nodes {
			for _, p := range b.Stats().Peers {
				if p.Lost != 0 {
					t.Errorf("%d lost", p.Lost)
				}
			}
		}
	})
}

func matchesPattern(pattern, typ string) bool {
	return pattern == ">" || pattern == typ || pattern == "t.*" && strings.HasPrefix(typ, "t.") || pattern == "*.x" && strings.HasSuffix(typ, ".x")
}

// A message that is sent twice comes twice, by replay and live, as it does on one node.
func TestMeshReplayOfAMessageSentTwice(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 10 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		p, q := a.Connect(), a.Connect()
		one, two, three := nth("t", 1, 1), nth("t", 1, 2), nth("t", 1, 3)
		p.Send(one)
		q.Send(one)
		late := b.ConnectWithReplay()
		var got recorder
		must(t, late.OnType("t", got.handle))
		meshWanted(t, a, "t", 1)
		p.Send(two) // held
		q.Send(two)
		time.Sleep(time.Second)
		p.Send(three) // live
		q.Send(three)
		p.Send(one)
		time.Sleep(time.Second)
		synctest.Wait()
		if all := numbers(t, got.all()); !slices.Equal(all, []int{1, 1, 2, 2, 3, 3, 1}) {
			t.Errorf("got %v", all)
		}
	})
}

// The peer gives the link up in the middle of its answer, and this node does not: the answer begins
// anew, and nothing comes twice.
func TestMeshReplayAnswerBeginsAnew(t *testing.T) {
	for cutAfter := range 40 {
		meshBubble(t, memory.Config{Latency: time.Millisecond, Buffer: 4 << 10}, func(t *testing.T, n meshNet) {
			a, b := n.node("a", "", gravbus.UseResumeFor(time.Second)), n.node("b", "a", gravbus.UseResumeFor(time.Hour))
			meshUp(t, a, b)
			p := a.Connect()
			big := make([]byte, 1<<10)
			for i := range 500 {
				copy(big, fmt.Sprintf("%4d", i))
				p.Send(gravbus.NewMsg("t", slices.Clone(big)))
			}
			late := b.ConnectWithReplay()
			var got recorder
			must(t, late.OnType("t", got.handle))
			for _, c := range n.Connections() {
				c.CutAfter(cutAfter)
			}
			n.Refuse("a", true)
			n.Refuse("b", true)
			time.Sleep(10 * time.Second) // a has given b up, if it was cut
			n.Refuse("a", false)
			n.Refuse("b", false)
			meshUp(t, a, b)
			time.Sleep(time.Minute)
			copy(big, " 500")
			p.Send(gravbus.NewMsg("t", slices.Clone(big)))
			time.Sleep(time.Minute)
			synctest.Wait()
			var all []string
			for _, m := range got.all() {
				all = append(all, strings.TrimSpace(string(m.Data()[:4])))
			}
			if len(all) != 501 {
				t.Errorf("cut after %d frames: %d came, want 501", cutAfter, len(all))
			}
			for i, s := range all {
				if s != fmt.Sprint(i) {
					t.Errorf("cut after %d frames: %s at place %d", cutAfter, s, i)
					break
				}
			}
		})
	}
}

// Pods that go, change their mind, or refuse a message while they wait for an answer.
func TestMeshReplayPodsThatChange(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 50 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		p := a.Connect()
		var ids []string
		for i := range 10 {
			m := nth([]string{"t.x", "t.y"}[i%2], 1, i)
			ids = append(ids, m.UUID())
			p.Send(m)
		}
		var gone, none, narrow, denied, refused recorder
		pg := b.ConnectWithReplay()
		must(t, pg.OnType("t.*", gone.handle))
		pn := b.ConnectWithReplay()
		must(t, pn.OnType("t.*", none.handle))
		pw := b.ConnectWithReplay()
		must(t, pw.OnType("t.*", narrow.handle))
		pd := b.ConnectWithReplay()
		must(t, pd.OnType("t.*", denied.handle))
		pr := b.ConnectWithReplay()
		pr.FilterUUID(ids[3], false)
		must(t, pr.OnType("t.*", refused.handle))
		time.Sleep(30 * time.Millisecond)
		pg.Disconnect()
		must(t, pn.On(nil))
		must(t, pw.OnType("t.x", narrow.handle))
		must(t, pd.FilterType("t.y", false))
		time.Sleep(time.Second)
		p.Send(nth("t.x", 1, 10))
		p.Send(nth("t.y", 1, 11))
		time.Sleep(time.Second)
		synctest.Wait()
		for name, c := range map[string]struct {
			r    *recorder
			want []int
		}{
			"gone": {&gone, nil}, "no handler": {&none, nil},
			"narrowed": {&narrow, []int{0, 2, 4, 6, 8, 10}}, "denied": {&denied, []int{0, 2, 4, 6, 8, 10}},
			"refused one": {&refused, []int{0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11}},
		} {
			if got := numbers(t, c.r.all()); !slices.Equal(got, c.want) {
				t.Errorf("%s: got %v, want %v", name, got, c.want)
			}
		}
	})
}

// More pods may ask for a replay than a peer lets wait: they are asked for one after the other.
func TestMeshReplayOfManyPods(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		const pods, messages = 1500, 20
		b := n.node("b", "")
		p := b.Connect()
		for i := range messages {
			p.Send(nth("past", 0, i))
		}
		a := n.lone("a", gravbus.UseDiscovery(static.New("b")))
		var got arrivals
		got.expect(pods * messages)
		for range pods {
			must(t, a.Connect(gravbus.Replay()).OnType("past", got.one))
		}
		must(t, a.Start(t.Context()))
		meshUp(t, a, b)
		time.Sleep(time.Minute)
		if n := got.n.Load(); n != pods*messages {
			t.Errorf("%d messages have come, want %d", n, pods*messages)
		}
		for _, bus := range []*gravbus.Bus{a, b} {
			if s := bus.Stats().Peers[0]; s.Cuts != 0 {
				t.Errorf("%d cuts", s.Cuts)
			}
		}
	})
}

// A message of a long replay takes as much memory on its way as one of a short replay.
func TestMeshReplayIsLinear(t *testing.T) {
	each := func(count int) (bytes uint64) {
		meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
			a, b := n.node("a", "", gravbus.UseReplay(count)), n.node("b", "a")
			meshUp(t, a, b)
			p := a.Connect()
			for range count {
				p.Send(gravbus.NewMsg("past", make([]byte, 100)))
			}
			var got arrivals
			got.expect(count)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			must(t, b.Connect(gravbus.Replay(), gravbus.Mailbox(count)).OnType("past", got.one))
			time.Sleep(time.Minute)
			runtime.ReadMemStats(&after)
			if n := got.n.Load(); n != int64(count) {
				t.Fatalf("%d messages have come, want %d", n, count)
			}
			bytes = (after.TotalAlloc - before.TotalAlloc) / uint64(count)
		})
		return bytes
	}
	if short, long := each(5_000), each(40_000); long > short*3/2 {
		t.Errorf("a message takes %d bytes in a replay of 5000, and %d in one of 40000", short, long)
	} else {
		t.Logf("%d and %d bytes", short, long)
	}
}

// The same over real sockets, with senders running.
func TestMeshReplayWebsocket(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	opts := []gravbus.Option{gravbus.UseLogger(log), gravbus.UseReplay(100000)}
	a := meshNode(t, nil, opts...)
	b := meshNode(t, a.Endpoints(), opts...)
	must(t, b.WaitPeers(soon(t), 1))
	const each = 5000
	var wg sync.WaitGroup
	for s := range 2 {
		p := a.Connect()
		wg.Go(func() {
			for k := range each {
				if p.Send(nth("t", s, k)) == nil {
					t.Error("not sent")
				}
			}
		})
	}
	var all [6]recorder
	for i := range all {
		must(t, b.ConnectWithReplay().OnType("t", all[i].handle))
	}
	wg.Wait()
	for i := range all {
		next := map[int]int{}
		for j, m := range all[i].await(t, 2*each) {
			s, k := numberOf(m)
			if k != next[s] {
				t.Errorf("pod %d: of sender %d came %d, want %d, at place %d (%s)", i, s, k, next[s], j, m.Type())
				next[s] = k
			}
			next[s]++
		}
	}
}

// With the buffer that a bus has by itself, and a sender that is far ahead of the link: of what was
// sent after the interest was known nothing is missing, and all is in order.
func TestMeshReplayWhileTheLinkIsBehind(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 5 * time.Millisecond, Buffer: 16 << 10}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		_, all := meshListener(t, b, "t")
		meshWanted(t, a, "t", 1)
		p := a.Connect()
		var wg sync.WaitGroup
		const each = 20000
		wg.Go(func() {
			for k := range each {
				if k%2000 == 0 {
					time.Sleep(time.Millisecond)
				}
				if p.Send(nth("t", 1, k)) == nil {
					t.Error("not sent")
				}
			}
		})
		var late [4]recorder
		for i := range late {
			time.Sleep(3 * time.Millisecond)
			must(t, b.ConnectWithReplay().OnType("t", late[i].handle))
		}
		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := numbers(t, all.all()); !slices.Equal(got, span(0, each-1)) {
			t.Errorf("without replay came %d", len(got))
		}
		for i := range late {
			got := numbers(t, late[i].all())
			if len(got) == 0 || !slices.Equal(got, span(got[0], each-1)) {
				for j := 1; j < len(got); j++ {
					if got[j] != got[j-1]+1 {
						t.Errorf("pod %d: %d after %d at place %d of %d", i, got[j], got[j-1], j, len(got))
					}
				}
			}
		}
	})
}
