package gravbus_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
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
