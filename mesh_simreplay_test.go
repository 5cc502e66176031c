package gravbus_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
)

// A pod asks for replay at any moment around a cut: before it, while the peer is away, is given up,
// or is coming back. It gets what the peer has sent and still has, once and in order, whatever its
// own node got of that before.
func TestSimReplayAroundCuts(t *testing.T) {
	const resume = 2 * time.Second
	for _, listens := range []bool{false, true} { // another pod made the messages come before
		for _, away := range []time.Duration{500 * time.Millisecond, 10 * time.Second} {
			for i := range 40 {
				at := time.Duration(i-10) * 50 * time.Millisecond
				if i >= 30 {
					at = away + time.Duration(i-35)*50*time.Millisecond
				}
				t.Run(fmt.Sprintf("listens %t, away %v, asks at %v", listens, away, at), func(t *testing.T) {
					simulate(t, memory.Config{Latency: 40 * time.Millisecond}, func(s *sim) {
						a, b := s.start("a", nil, gravbus.UseResumeFor(resume)), s.start("b", nil, gravbus.UseResumeFor(resume))
						if listens {
							_, _ = b.listen("x")
						}
						must(s, b.ConnectEndpoint("memory:a"))
						must(s, b.WaitPeers(s.within(time.Second), 1))
						must(s, a.WaitPeers(s.within(time.Second), 1))
						const n = 400
						p := a.Connect()
						go a.feed(p, "x", 0, n-1, 50*time.Millisecond) // for 20 s
						time.Sleep(2 * time.Second)
						start := time.Now()
						asks := make(chan *recorder, 1)
						time.AfterFunc(time.Second+at, func() {
							_, r := b.listen("x", gravbus.Replay())
							asks <- r
						})
						time.Sleep(time.Second)
						s.net.Refuse("a", true)
						s.net.Refuse("b", true)
						s.net.Cut("a", "b")
						time.Sleep(away)
						s.net.Refuse("a", false)
						s.net.Refuse("b", false)
						time.Sleep(60*time.Second - time.Since(start))
						got := numbers(s, (<-asks).all())
						lost := b.missing(a, true)
						if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) || len(got)+lost < n && away < resume {
							s.Errorf("%s; told of %d lost: %v", simDiff(got, n), lost, got)
						}
					})
				})
			}
		}
	}
}
