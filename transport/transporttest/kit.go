package transporttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/transport"
)

const (
	// patience is how long a case, and each Close after it, may take. In a bubble that is over as
	// soon as nothing goes on any more.
	patience = 30 * time.Second

	// soon is how long a call may take that waits for nothing, on a slow and busy machine.
	soon = patience / 6

	// moment is how long, in real time, a call that should wait is watched doing so.
	moment = 50 * time.Millisecond
)

// A test is one case.
type test struct {
	*testing.T
	Harness
	bubble   bool
	ctx      context.Context // ends with the case, or its rescue
	cancel   context.CancelFunc
	listener transport.Listener // what listen returns

	mu     sync.Mutex // guards all below
	open   []io.Closer
	calls  []*call
	isOver bool
}

func run(t *testing.T, harness func(t *testing.T) Harness, check func(*test), bubble bool) {
	h := harness(t)
	before := goroutineStacks()
	c := &test{T: t, Harness: h, bubble: bubble}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	watchdog := time.AfterFunc(patience, c.rescue)
	defer func() {
		watchdog.Stop()
		c.end()
		c.checkGoroutines(before)
	}()
	check(c)
}

// Context replaces that of testing.T, which ends later.
func (t *test) Context() context.Context { return t.ctx }

// rescue ends a case that is stuck, by closing all it has.
func (t *test) rescue() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOver {
		return
	}
	t.Errorf("stuck. All goroutines:\n%s", stacks())
	t.cancel()
	for _, c := range t.open {
		t.startLocked(c.Close)
	}
}

// end closes all that the case has opened, and waits for all that it has started.
func (t *test) end() {
	t.mu.Lock()
	t.isOver = true
	t.cancel()
	for _, c := range t.open {
		t.startLocked(c.Close) // at the same time: one Close must not depend on another
	}
	calls := t.calls
	t.mu.Unlock()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for _, c := range calls {
		select {
		case <-c.done:
		case <-timeout.C:
			t.Errorf("a call has not returned although all is closed. All goroutines:\n%s", stacks())
			return
		}
	}
}

// checkGoroutines fails the test if goroutines are left that are not in before.
func (t *test) checkGoroutines(before map[string]string) {
	tick := time.NewTicker(patience / 1000)
	defer tick.Stop()
	var left string
	for range 1000 {
		left = ""
		for id, stack := range goroutineStacks() {
			if before[id] == "" {
				left += "\n" + stack
			}
		}
		if left == "" {
			return
		}
		<-tick.C
	}
	t.Errorf("goroutines are left:%s", left)
}

var goroutineHeader = regexp.MustCompile(`^goroutine (\d+) `)

// goroutineStacks returns the stacks of all goroutines by their numbers.
func goroutineStacks() map[string]string {
	all := make(map[string]string)
	for stack := range bytes.SplitSeq(stacks(), []byte("\n\n")) {
		if m := goroutineHeader.FindSubmatch(stack); m != nil {
			all[string(m[1])] = string(stack)
		}
	}
	return all
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// closeLater closes c when the case is over.
func (t *test) closeLater(c io.Closer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isOver {
		t.startLocked(c.Close)
	}
	t.open = append(t.open, c)
}

// A call is one that runs in a goroutine of its own. It ends at the latest when all that the case
// has opened is closed.
type call struct {
	done chan struct{}
	err  error // when done
}

func (t *test) start(f func() error) *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.startLocked(f)
}

func (t *test) startLocked(f func() error) *call {
	c := &call{done: make(chan struct{})}
	t.calls = append(t.calls, c)
	go func() {
		defer close(c.done)
		c.err = f()
	}()
	return c
}

// wait waits until the call has returned.
func (c *call) wait() error {
	<-c.done
	return c.err
}

// waitAll waits until all calls have returned.
func waitAll(calls ...*call) error {
	var errs []error
	for _, c := range calls {
		errs = append(errs, c.wait())
	}
	return errors.Join(errs...)
}

// returned reports whether a call that should wait has returned nevertheless, after it had some time
// for it.
func (t *test) returned(c *call) bool {
	if t.bubble {
		synctest.Wait()
		return c.within(0)
	}
	return c.within(moment)
}

// within reports whether the call has returned after a while.
func (c *call) within(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	default:
	}
	select {
	case <-c.done:
		return true
	case <-timer.C:
		return false
	}
}

// pause lets time pass.
func (t *test) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// mustWait fails the test if the call does not wait.
func (t *test) mustWait(what string, c *call) {
	t.Helper()
	if t.returned(c) {
		t.Fatalf("%s returned (%v), it should wait", what, c.err)
	}
}

// must fails the test if there is an error.
func (t *test) must(what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// mustBe fails the test if err is not a certain one.
func (t *test) mustBe(what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// listen returns the Listener of this case.
func (t *test) listen() transport.Listener {
	t.Helper()
	if t.listener != nil {
		return t.listener
	}
	l, err := t.Listener.Listen(t.Context(), transport.ListenOptions{})
	t.must("Listen", err)
	t.closeLater(l)
	t.listener = l
	return l
}

// endpoint returns the best endpoint of a listener.
func (t *test) endpoint(l transport.Listener) string {
	t.Helper()
	all := l.Endpoints()
	if len(all) == 0 {
		t.Fatal("Endpoints returned none")
	}
	return all[0]
}

func (t *test) dial(endpoint string) transport.Conn {
	t.Helper()
	c, err := t.Dialler.Dial(t.Context(), endpoint)
	t.must("Dial", err)
	t.closeLater(c)
	return c
}

func (t *test) accept(l transport.Listener) transport.Conn {
	t.Helper()
	c, err := l.Accept()
	t.must("Accept", err)
	t.closeLater(c)
	return c
}

// pair returns the two ends of a connection.
func (t *test) pair() (dialled, accepted transport.Conn) {
	t.Helper()
	l := t.listen()
	dialled = t.dial(t.endpoint(l))
	return dialled, t.accept(l)
}

// bothWays runs f for a pair of connections in one direction and for another one in the other.
func (t *test) bothWays(f func(from, to transport.Conn)) {
	l := t.listen()
	for _, swap := range []bool{false, true} {
		from := t.dial(t.endpoint(l))
		to := t.accept(l)
		if swap {
			from, to = to, from
		}
		f(from, to)
	}
}

// makeFrame returns a frame that no other number, and no other size, has.
func makeFrame(number, size int) []byte {
	frame := make([]byte, 0, size+16)
	random := rand.NewPCG(uint64(number), uint64(size))
	for len(frame) < size {
		frame = binary.LittleEndian.AppendUint64(frame, random.Uint64())
	}
	return frame[:size]
}

// send writes frames numbered from 0, of these sizes in turn.
func send(c transport.Conn, n int, sizes ...int) error {
	for i := range n {
		if err := c.WriteFrame(makeFrame(i, sizes[i%len(sizes)])); err != nil {
			return fmt.Errorf("WriteFrame %d: %w", i, err)
		}
	}
	return nil
}

// receive reads what send writes.
func receive(c transport.Conn, n int, sizes ...int) error {
	var buf []byte
	for i := range n {
		frame, err := c.ReadFrame(buf)
		if err != nil {
			return fmt.Errorf("ReadFrame, at frame %d: %w", i, err)
		}
		if want := makeFrame(i, sizes[i%len(sizes)]); !bytes.Equal(frame, want) {
			return fmt.Errorf("frame %d of %d bytes came as %d bytes: %.16x…, want %.16x…", i, len(want), len(frame), frame, want)
		}
		buf = frame
	}
	return nil
}

// carries fails the test unless the connection works in both directions.
func (t *test) carries(a, b transport.Conn) {
	t.Helper()
	there, back := t.start(func() error { return send(a, 3, 100) }), t.start(func() error { return send(b, 3, 200) })
	t.must("from the dialler", errors.Join(receive(b, 3, 100), there.wait()))
	t.must("to the dialler", errors.Join(receive(a, 3, 200), back.wait()))
}

// readFails fails the test unless ReadFrame returns an error, which matches want if that is not nil,
// and does so again.
func (t *test) readFails(c transport.Conn, want error) {
	t.Helper()
	for range 2 {
		frame, err := c.ReadFrame(nil)
		switch {
		case err == nil:
			t.Fatalf("ReadFrame returned a frame of %d bytes, want an error", len(frame))
		case want != nil:
			t.mustBe("ReadFrame", err, want)
			want = nil // the next error may be another one
		}
	}
}

// fill writes until nothing more fits in, and returns the call that waits then, and a function that
// tells how many frames of 64 KiB have been written.
func (t *test) fill(c transport.Conn) (stuck *call, written func() int) {
	t.Helper()
	const enough = 64 << 20
	var mu sync.Mutex
	n := 0
	written = func() int { mu.Lock(); defer mu.Unlock(); return n }
	stuck = t.start(func() error {
		for {
			if err := c.WriteFrame(makeFrame(written(), 64<<10)); err != nil {
				return err
			}
			mu.Lock()
			n++
			mu.Unlock()
			if n > enough>>16 {
				return errors.New("no end of writing")
			}
		}
	})
	for last := -1; written() != last; {
		last = written()
		if t.returned(stuck) {
			t.Fatalf("WriteFrame while nobody reads, after %d frames of 64 KiB: %v", written(), stuck.err)
		}
	}
	return stuck, written
}

// withTimeout returns a context that ends soon.
func (t *test) withTimeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), moment)
}
