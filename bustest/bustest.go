// Package bustest helps to test code that uses gravbus.
//
//	func TestCheckout(t *testing.T) {
//		bus := bustest.New(t)                      // shut down at the end; a panic in a handler fails the test
//		orders := bustest.Record(t, bus, "orders.>")
//
//		checkout.New(bus).Buy("tea")
//
//		bustest.ExpectExactly(t, orders,
//			bustest.Type("orders.created"),
//			bustest.All(bustest.Type("orders.paid"), bustest.Equal(Paid{Cents: 350})),
//		)
//	}
//
// No test needs to sleep. Expect waits for messages, and Settle waits until the bus is at rest, so
// that ExpectNone and ExpectExactly can tell that nothing more comes.
//
// # Real time and bubbles
//
// Outside of a testing/synctest bubble, waiting is in real time: it ends with the event it waits
// for and fails the test after Patience, or a little before the deadline of the test run if that is
// sooner.
//
// Inside a bubble nothing here lets time pass. Expect and its like call synctest.Wait and then look
// once: what is to come later, after a delay or a timeout, has to be waited for in the test by
// time.Sleep, which takes no real time there. The bus must have been made inside the bubble.
//
// # What the helpers change
//
// Watch and Record connect pods. They show in Stats, and take numbers that default names are made
// from. To the bus a Recorder is a pod that wants what it records: if that is a type of requests,
// Request waits for a reply even when nobody else could give one, and RequestAll for one from the
// Recorder. Where requests matter, record the replies.
//
// Functions that take a testing.TB and may end the test are to be called from the test's goroutine.
package bustest

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/route"
)

// Patience is how long the functions of this package wait in real time before they fail the test.
const Patience = 10 * time.Second

// eventMailbox is how many events may wait to be logged: they make nobody wait, so past it some are
// lost.
const eventMailbox = 1 << 16

// New returns a bus for one test, and watches it as Watch does.
func New(t testing.TB, opts ...gravbus.Option) *gravbus.Bus {
	t.Helper()
	bus := gravbus.New(opts...)
	Watch(t, bus)
	return bus
}

// Watch watches over a bus during the test. It logs the bus's events by t.Log, and fails the test
// when a handler panics (or calls runtime.Goexit, as t.FailNow does) and when a pod is disconnected
// because of its failures. Panics that Faulty injects do not count. When the test ends Watch shuts
// the bus down, which waits until all messages are handled, and fails the test if that takes longer
// than Patience.
//
// Events whose types match one of the tolerated patterns are only logged:
//
//	bus := gravbus.New()
//	bustest.Watch(t, bus, gravbus.EventPodPanic) // this test is about panics
//
// A test that ends the bus itself should use Shutdown: what happens during a Close, or right before
// it, may go unseen, but for panics, of which at least the number is known then.
func Watch(t testing.TB, bus *gravbus.Bus, tolerated ...string) {
	t.Helper()
	for _, pattern := range tolerated {
		if err := route.CheckPattern(pattern); err != nil {
			t.Fatalf("bustest: Watch: %v", err)
		}
	}
	w := &watcher{t: t, tolerated: tolerated, before: bus.Stats().Panics}
	if err := connect(bus, "bustest.Watch", gravbus.Mailbox(eventMailbox)).OnType("gravbus.>", w.event); err != nil {
		t.Fatalf("bustest: Watch: %v", err)
	}
	t.Cleanup(func() { w.end(bus) })
}

// connect connects a pod for this package's own use, whatever the bus's defaults for pods are.
func connect(bus *gravbus.Bus, name string, opts ...gravbus.PodOption) *gravbus.Pod {
	return bus.Connect(append([]gravbus.PodOption{
		gravbus.Name(name),
		gravbus.InGroup(""),
		gravbus.Observer(),
		gravbus.Concurrency(1),
		gravbus.Overflow(gravbus.Block), // however slow the machine is, nothing is lost
		gravbus.MailboxCap(0),
	}, opts...)...)
}

type watcher struct {
	tolerated []string
	before    uint64 // panics before the watch began

	mu   sync.Mutex // guards all below
	seen uint64     // panics by their events
	t    testing.TB // nil when the test is over: it must not be used then
}

func (w *watcher) event(msg gravbus.Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t == nil {
		return nil
	}
	if msg.Type() == gravbus.EventPodPanic {
		w.seen++
	}
	text, fatal := describeEvent(msg)
	if fatal && !w.tolerates(msg.Type()) {
		w.t.Errorf("bustest: %s", text)
	} else {
		w.t.Logf("bustest: %s", text)
	}
	return nil
}

func (w *watcher) tolerates(typ string) bool {
	return slices.ContainsFunc(w.tolerated, func(pattern string) bool { return route.Match(pattern, typ) })
}

// describeEvent puts an event in words, and reports whether it fails a test.
func describeEvent(msg gravbus.Message) (text string, fatal bool) {
	switch msg.Type() {
	case gravbus.EventPodPanic:
		if e, err := gravbus.Decode[gravbus.PodEvent](msg); err == nil {
			if strings.Contains(e.Error, ErrInjected.Error()) {
				return sprintf("pod %s, message %s %s: %s", e.Pod, e.Type, e.UUID, e.Error), false
			}
			return sprintf("pod %s, message %s %s: %s\n%s", e.Pod, e.Type, e.UUID, e.Error, e.Stack), true
		}
	case gravbus.EventPodFailed:
		if e, err := gravbus.Decode[gravbus.PodEvent](msg); err == nil {
			return sprintf("pod %s was disconnected for its failures, the last one on message %s %s: %s",
				e.Pod, e.Type, e.UUID, e.Error), true
		}
	case gravbus.EventDeadLetter:
		if d, err := gravbus.Decode[gravbus.DeadLetter](msg); err == nil {
			return sprintf("pod %s gave up %s after %d attempts: %s", d.Pod, describe(d.Message), d.Attempts, d.Error), false
		}
	case gravbus.MsgTypeLagged:
		return sprintf("too many events at once, some are missing here: %s", msg.Data()), true
	}
	return sprintf("%s %s", msg.Type(), msg.Data()), false
}

// end shuts the bus down and lets go of t.
func (w *watcher) end(bus *gravbus.Bus) {
	limit := patience(w.t)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := bus.Shutdown(ctx)

	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && !errors.Is(err, gravbus.ErrPeerLost) {
		w.t.Errorf("bustest: the bus did not come to its end within %v: %v\n%s", limit, err, stacks())
	} else if n := bus.Stats().Panics - w.before; n > w.seen && !w.tolerates(gravbus.EventPodPanic) {
		w.t.Errorf("bustest: %d more handlers panicked, when the bus was closed; its log tells which", n-w.seen)
	}
	w.t = nil
}

// patience is how long to wait in real time: Patience, but not up to the deadline of the test run,
// when all ends without a word about why.
func patience(t testing.TB) (limit time.Duration) {
	limit = Patience
	if d, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		defer func() { _ = recover() }() // inside a bubble a test has no deadline to ask for, and time is not real
		if at, ok := d.Deadline(); ok {
			limit = min(limit, time.Until(at)*9/10)
		}
	}
	return limit
}

// stacks returns the stacks of all goroutines.
func stacks() []byte {
	buf := make([]byte, 256<<10)
	return buf[:runtime.Stack(buf, true)]
}
