package bustest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// Settle waits until the bus is at rest: no message waits for a pod, no handler, wait function or
// reply function is running, and nothing was sent meanwhile. What they did happens before Settle
// returns: the test may look at it without a lock. It fails the test if the bus has not settled
// after Patience.
//
// In a testing/synctest bubble it is synctest.Wait: all goroutines of the bubble are blocked, and
// only time can make them go on.
//
// In real time it looks at Stats until two looks, one after the other, show nothing at work and the
// same counts. So what the bus was given before Settle is done, and so is everything that handlers
// sent because of it. What Settle cannot see is what has not reached the bus: a goroutine of the
// code under test that has yet to send, a timer. Wait for those first, by a channel or with
// Recorder.Wait and Expect, or test in a bubble. Messages that a pod failed on and keeps for
// redelivery do not hinder it: they wait for a message that succeeds.
func Settle(t testing.TB, bus *gravbus.Bus) {
	t.Helper()
	if settledBubble() {
		return
	}
	limit := patience(t)
	began := time.Now()
	before, _ := look(bus)
	for n := 0; ; n++ {
		pause(n)
		now, busy := look(bus)
		if len(busy) == 0 && now == before {
			return
		}
		before = now
		if time.Since(began) > limit {
			if len(busy) == 0 {
				busy = append(busy, "somebody goes on sending")
			}
			t.Fatalf("bustest: the bus has not settled within %v: %s", limit, strings.Join(busy, "; "))
		}
	}
}

// settledBubble settles the bubble that the caller is in, and reports whether there is one.
func settledBubble() (in bool) {
	defer func() {
		// There is no way to ask; outside Wait panics before it does anything.
		if v := recover(); v != nil {
			if text := fmt.Sprint(v); !strings.Contains(text, "not in a bubble") {
				panic(v)
			}
			in = false
		}
	}()
	synctest.Wait()
	return true
}

// pause lets others run between two looks: at first without a delay, as most buses settle in
// microseconds, and then with longer and longer ones, as a handler may take its time.
func pause(n int) {
	const yields, longest = 64, time.Millisecond
	if n < yields {
		runtime.Gosched()
		return
	}
	<-time.After(min(time.Duration(n-yields+1)*10*time.Microsecond, longest))
}

// totals change whenever something happens on a bus.
type totals struct {
	sent, delivered, failed, dropped, deadLetters uint64
	pods                                          int
}

// look reports what has happened on the bus so far, and who is busy.
//
// Why two looks that agree are enough: Stats does not see everything at the same instant, so work
// may slip from what it has not looked at yet to what it has. But then, when the next look comes,
// whoever got it is busy or has done it, and one of the counts gives it away.
func look(bus *gravbus.Bus) (now totals, busy []string) {
	s := bus.Stats()
	for _, p := range s.Pods {
		switch {
		case p.Working:
			busy = append(busy, sprintf("a handler of pod %s is running, %d messages wait", p.Name, p.Depth))
		case p.Depth > 0:
			busy = append(busy, sprintf("%d messages wait for pod %s", p.Depth, p.Name))
		}
	}
	if s.Working > 0 && len(busy) == 0 {
		busy = append(busy, "a wait or reply function is running")
	}
	return totals{s.Sent, s.Delivered, s.Failed, s.Dropped, s.DeadLetters, len(s.Pods)}, busy
}
