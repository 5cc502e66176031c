package gravbus_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
)

// TestMain fails the run when a goroutine is left behind: a bus that is closed has none.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what the watchdogs grant: far more than any test takes.
const patience = 30 * time.Second

// within calls fn and fails the test, with the stacks of all goroutines, when it does not return in time.
func within(t testing.TB, d time.Duration, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { // ends with fn
		defer close(done)
		fn()
	}()
	awaitDone(t, d, done)
}

// awaitDone waits for a channel to be closed, or to yield a value, and fails the test as within does.
func awaitDone[T any](t testing.TB, d time.Duration, done <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-done:
	case <-time.After(d):
		stacks := make([]byte, 1<<20)
		t.Fatalf("not done after %v\n%s", d, stacks[:runtime.Stack(stacks, true)])
	}
	return v
}

// watchdog ends the process with the stacks of all goroutines when the test takes longer than d of real time: a test that is stuck on a mutex
// cannot be ended in any other way. It is to be called outside of a bubble.
func watchdog(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.AfterFunc(d, func() {
		buf := make([]byte, 4<<20)
		panic(fmt.Sprintf("%s: no end after %v\n%s", t.Name(), d, buf[:runtime.Stack(buf, true)]))
	})
	t.Cleanup(func() { timer.Stop() })
}

// fewer returns n, or so many times less when the machine has no time for n.
func fewer(n, times int) int {
	if testing.Short() || raceOn {
		return n / times
	}
	return n
}

// quiet makes a bus log nothing.
func quiet() gravbus.Option {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return gravbus.UseLogger(log)
}

// testBus returns a bus that logs nothing and is closed at the end of the test.
func testBus(t testing.TB, opts ...gravbus.Option) *gravbus.Bus {
	t.Helper()
	bus := gravbus.New(append([]gravbus.Option{quiet()}, opts...)...)
	t.Cleanup(func() { within(t, patience, func() { bus.Close() }) })
	return bus
}

// nop is a handler.
func nop(gravbus.Message) error { return nil }

// must fails the test if err is not nil.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mustToo is must for goroutines other than the test's.
func mustToo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// nth returns a message that carries who sent it and its number, which numberOf reads.
func nth(typ string, sender, i int) gravbus.Message {
	var data [8]byte
	binary.BigEndian.PutUint32(data[:], uint32(sender))
	binary.BigEndian.PutUint32(data[4:], uint32(i))
	return gravbus.NewMsg(typ, data[:])
}

func numberOf(msg gravbus.Message) (sender, i int) {
	data := msg.Data()
	if len(data) != 8 {
		return -1, -1
	}
	return int(binary.BigEndian.Uint32(data)), int(binary.BigEndian.Uint32(data[4:]))
}

// recorder keeps what a handler gets.
type recorder struct {
	mu    sync.Mutex
	msgs  []gravbus.Message
	waits []recorderWait
}

type recorderWait struct {
	n    int
	done chan struct{}
}

// handle is the handler.
func (r *recorder) handle(msg gravbus.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.msgs = append(r.msgs, msg)
	for i := 0; i < len(r.waits); {
		if w := r.waits[i]; w.n <= len(r.msgs) {
			close(w.done)
			r.waits = append(r.waits[:i], r.waits[i+1:]...)
		} else {
			i++
		}
	}
	return nil
}

// all returns what has come so far.
func (r *recorder) all() []gravbus.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]gravbus.Message(nil), r.msgs...)
}

// await waits until n messages have come, and returns all.
func (r *recorder) await(t testing.TB, n int) []gravbus.Message {
	t.Helper()
	r.mu.Lock()
	done := make(chan struct{})
	if len(r.msgs) >= n {
		close(done)
	} else {
		r.waits = append(r.waits, recorderWait{n, done})
	}
	r.mu.Unlock()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%d of %d messages came", len(r.all()), n)
	}
	return r.all()
}

// numbers returns the numbers of the messages, in order; a Lagged notice is minus the count of what was lost.
func numbers(t testing.TB, msgs []gravbus.Message) (all []int) {
	t.Helper()
	for _, msg := range msgs {
		if msg.Type() == gravbus.MsgTypeLagged {
			all = append(all, -int(laggedIn(t, msg).Count))
			continue
		}
		_, i := numberOf(msg)
		all = append(all, i)
	}
	return all
}

// laggedIn returns the payload of a Lagged notice, or of the event about it.
func laggedIn(t testing.TB, msg gravbus.Message) gravbus.Lagged {
	t.Helper()
	lag, err := gravbus.Decode[gravbus.Lagged](msg)
	must(t, err)
	return lag
}

// span returns from, from+1, … to.
func span(from, to int) (all []int) {
	for i := from; i <= to; i++ {
		all = append(all, i)
	}
	return all
}
