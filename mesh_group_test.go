package gravbus_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
)

// meshTally counts, for each message, how many of some recorders got it.
func meshTally(all ...*recorder) map[int]int {
	n := map[int]int{}
	for _, r := range all {
		for _, m := range r.all() {
			_, i := numberOf(m)
			n[i]++
		}
	}
	return n
}

func meshEachOnce(t testing.TB, want int, all ...*recorder) {
	t.Helper()
	n := meshTally(all...)
	for i := range want {
		if n[i] != 1 {
			t.Errorf("message %d came %d times; %d of %d came", i, n[i], len(n), want)
			return
		}
	}
	if len(n) != want {
		t.Errorf("%d different messages came, want %d", len(n), want)
	}
}

// A member here is preferred; without one exactly one remote member gets each message, and all
// nodes have their share.
func TestMeshGroupLocalFirst(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		m1, here := meshListener(t, a, "job", gravbus.InGroup("g"))
		_, b1 := meshListener(t, b, "job", gravbus.InGroup("g"))
		_, b2 := meshListener(t, b, "job", gravbus.InGroup("g"))
		_, c1 := meshListener(t, c, "job", gravbus.InGroup("g"))
		_, plain := meshListener(t, b, "job")
		_, all := meshListener(t, c, ">")
		meshWanted(t, a, "job", 2)
		time.Sleep(time.Second) // for all of it
		p := a.Connect()
		for i := range 100 {
			p.Send(nth("job", 1, i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		meshEachOnce(t, 100, here)
		meshEachOnce(t, 0, b1, b2, c1)
		meshEachOnce(t, 100, plain)
		meshEachOnce(t, 100, all)

		// The sender is the only member here.
		for i := range 100 {
			m1.Send(nth("job", 1, 100+i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		meshEachOnce(t, 100, here)
		meshEachOnce(t, 200, plain)
		meshEachOnce(t, 200, all)
		n100 := meshTally(b1, b2, c1)
		for i := 100; i < 200; i++ {
			if n100[i] != 1 {
				t.Errorf("message %d came %d times", i, n100[i])
			}
		}
		m1.Disconnect()
		for i := range 1000 {
			p.Send(nth("job", 1, 200+i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		meshEachOnce(t, 100, here)
		got := meshTally(b1, b2, c1)
		if len(got) != 1100 {
			t.Errorf("%d came", len(got))
		}
		for i, k := range got {
			if k != 1 {
				t.Errorf("message %d came %d times", i, k)
			}
		}
		if x := len(c1.all()); x < 300 || x > 800 {
			t.Errorf("one node of two got %d of 1100", x)
		}
		meshEachOnce(t, 1200, plain)
		meshEachOnce(t, 1200, all)
	})
}

// Members with different interests, several groups, members that also want everything.
func TestMeshGroupSeveral(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		_, gx := meshListener(t, b, "job.x", gravbus.InGroup("g"))
		_, gy := meshListener(t, c, "job.*", gravbus.InGroup("g"))
		h1 := new(recorder)
		must(t, b.Connect(gravbus.InGroup("h")).OnType(">", func(m gravbus.Message) error {
			time.Sleep(time.Millisecond) // it needs help
			return h1.handle(m)
		}))
		_, h2 := meshListener(t, b, "job.y", gravbus.InGroup("h"))
		_, k := meshListener(t, c, "job.x", gravbus.InGroup("k"))
		_, plain := meshListener(t, c, "job.x")
		time.Sleep(time.Second)
		p := a.Connect()
		for i := range 200 {
			p.Send(nth("job.x", 1, i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		meshEachOnce(t, 200, gx, gy)
		meshEachOnce(t, 200, h1, h2)
		meshEachOnce(t, 0, h2)
		meshEachOnce(t, 200, k)
		meshEachOnce(t, 200, plain)
		if len(gx.all()) == 0 || len(gy.all()) == 0 {
			t.Error("one node gets nothing")
		}
		for i := range 200 {
			p.Send(nth("job.y", 1, 200+i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		meshEachOnce(t, 400, gx, gy)
		meshEachOnce(t, 400, h1, h2)
		meshEachOnce(t, 200, k)
		if len(h2.all()) == 0 {
			t.Error("one member gets nothing")
		}
	})
}

// Nothing is lost when members or nodes leave in order while messages come.
func TestMeshGroupMembersLeave(t *testing.T) {
	for _, how := range []string{"shutdown", "cut"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{Latency: time.Millisecond}, func(t *testing.T, n meshNet) {
				a, b, c := n.trio()
				_, b1 := meshListener(t, b, "job", gravbus.InGroup("g"))
				_, c1 := meshListener(t, c, "job", gravbus.InGroup("g"))
				meshWanted(t, a, "job", 2)
				time.Sleep(time.Second) // for all of it
				p := a.Connect()
				for i := range 1000 {
					p.Send(nth("job", 1, i))
					if i == 300 {
						if how == "shutdown" {
							go b.Shutdown(meshCtx(t, time.Minute))
						} else {
							n.Cut("a", "b")
						}
					}
					if i%10 == 0 {
						time.Sleep(100 * time.Microsecond)
					}
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				meshEachOnce(t, 1000, b1, c1)
				if len(b1.all()) == 0 || len(c1.all()) == 0 {
					t.Errorf("%d and %d", len(b1.all()), len(c1.all()))
				}
			})
		})
	}
}

// A member that has just gone: what is on its way to it is not lost in silence, if there is another
// member at its node or elsewhere it is theirs.
func TestMeshGroupMemberGoesWhileItIsOnItsWay(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 10 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		m1, r1 := meshListener(t, b, "job", gravbus.InGroup("g"))
		_, r2 := meshListener(t, b, "job", gravbus.InGroup("g"))
		meshWanted(t, a, "job", 1)
		p := a.Connect()
		for i := range 100 {
			p.Send(nth("job", 1, i))
		}
		m1.Disconnect()
		time.Sleep(time.Second)
		synctest.Wait()
		meshEachOnce(t, 100, r1, r2)
	})
}

// A request to a group is answered by one member, and again by another when a node has gone.
func TestMeshGroupRequests(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		meshReplier(t, b, "ask", "b", gravbus.InGroup("g"))
		meshReplier(t, c, "ask", "c", gravbus.InGroup("g"))
		meshWanted(t, a, "ask", 2)
		p := a.Connect()
		seen := map[string]int{}
		for range 100 {
			rep, err := p.Request(meshCtx(t, time.Minute), gravbus.NewMsg("ask", nil))
			must(t, err)
			seen[string(rep.Data())]++
		}
		for range 100 {
			got, err := meshCollect(meshCtx(t, time.Minute), p, gravbus.NewMsg("ask", nil))
			if err != nil || len(got) != 1 {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if seen["b"] == 0 || seen["c"] == 0 {
			t.Errorf("answered by %v", seen)
		}
		b.Close()
		synctest.Wait()
		for range 10 {
			rep, err := p.Request(meshCtx(t, time.Minute), gravbus.NewMsg("ask", nil))
			if err != nil || string(rep.Data()) != "c" {
				t.Errorf("%v, %v", rep, err)
			}
		}
	})
}

// What names may look like is bounded here, not by the peers' patience.
func TestMeshGroupLongName(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		_, g := meshListener(t, b, "job", gravbus.InGroup(strings.Repeat("g", 300)), gravbus.Name(strings.Repeat("n", 300)))
		_, plain := meshListener(t, b, "job")
		time.Sleep(time.Minute)
		p := a.Connect()
		for i := range 10 {
			p.Send(nth("job", 1, i))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		meshEachOnce(t, 10, plain)
		meshEachOnce(t, 10, g)
		if s := meshPeerOf(t, a, "b"); s.Cuts != 0 {
			t.Errorf("%d cuts", s.Cuts)
		}
	})
}

// The same for a pod's name in the answer to a poll.
func TestMeshGroupLongPodName(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		meshReplier(t, b, "ask", strings.Repeat("n", 300))
		meshWanted(t, a, "ask", 1)
		time.Sleep(time.Second) // for all of it
		got, err := meshCollect(meshCtx(t, time.Minute), a.Connect(), gravbus.NewMsg("ask", nil))
		if err != nil || len(got) != 1 {
			t.Errorf("%d replies %.20q, %v", len(got), got, err)
		}
		if s := meshPeerOf(t, a, "b"); s.Cuts != 0 {
			t.Errorf("%d cuts", s.Cuts)
		}
	})
}

// A group of very many members in one poll.
func TestMeshGroupLargePoll(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		for i := range 2000 {
			meshReplier(t, b, "ask", fmt.Sprint(strings.Repeat("x", 200), i), gravbus.InGroup("g"))
		}
		meshReplier(t, b, "ask", "plain")
		meshWanted(t, a, "ask", 1)
		time.Sleep(time.Second) // for all of it
		got, err := meshCollect(meshCtx(t, time.Minute), a.Connect(), gravbus.NewMsg("ask", nil))
		if err != nil || len(got) != 2 {
			t.Errorf("%d replies %.20q, %v", len(got), got, err)
		}
		if s := meshPeerOf(t, a, "b"); s.Cuts != 0 {
			t.Errorf("%d cuts", s.Cuts)
		}
	})
}
