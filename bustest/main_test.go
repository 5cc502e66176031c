package bustest_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeT is a testing.TB whose test may fail without failing the test that it is in.
type fakeT struct {
	testing.TB // nil: its methods that are not here must not be called
	deadline   time.Time

	mu       sync.Mutex // guards all below
	failed   bool
	over     bool
	misused  bool // after the end
	log      strings.Builder
	cleanups []func()
}

func (f *fakeT) Helper()      {}
func (f *fakeT) Name() string { return "fake" }

// Deadline makes waits in real time short, where they are in vain.
func (f *fakeT) Deadline() (time.Time, bool) { return f.deadline, !f.deadline.IsZero() }

func (f *fakeT) Logf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.misused = f.misused || f.over
	fmt.Fprintf(&f.log, format+"\n", args...)
}

func (f *fakeT) Errorf(format string, args ...any) {
	f.Logf(format, args...)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = true
}

func (f *fakeT) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

func (f *fakeT) Cleanup(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cleanups = append(f.cleanups, fn)
}

func (f *fakeT) outcome() (failed bool, log string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed, f.log.String()
}

// end calls the cleanups, last one first.
func (f *fakeT) end() {
	for {
		f.mu.Lock()
		if len(f.cleanups) == 0 {
			f.over = true
			f.mu.Unlock()
			return
		}
		last := f.cleanups[len(f.cleanups)-1]
		f.cleanups = f.cleanups[:len(f.cleanups)-1]
		f.mu.Unlock()
		last()
	}
}

// try runs test to its end, as `go test` would, within the time it is given if that is not zero.
func try(t *testing.T, within time.Duration, test func(testing.TB)) *fakeT {
	t.Helper()
	f := new(fakeT)
	if within > 0 {
		f.deadline = time.Now().Add(within)
	}
	ended := make(chan struct{})
	go func() { // ends with the fake test
		defer close(ended)
		defer f.end()
		test(f)
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second): // in a bubble longer than anything in it takes
		buf := make([]byte, 1<<20)
		t.Fatalf("the test within the test hangs:\n%s", buf[:runtime.Stack(buf, true)])
	}
	return f
}

// passes and fails check the outcome of a fake test; one that fails has to say all the given words.
func passes(t *testing.T, f *fakeT) {
	t.Helper()
	if failed, log := f.outcome(); failed {
		t.Errorf("it failed, and was to pass:\n%s", log)
	}
}

func fails(t *testing.T, f *fakeT, words ...string) {
	t.Helper()
	failed, log := f.outcome()
	if !failed {
		t.Errorf("it passed, and was to fail with %q; its log:\n%s", words, log)
	}
	says(t, f, words...)
}

func says(t *testing.T, f *fakeT, words ...string) {
	t.Helper()
	_, log := f.outcome()
	for _, w := range words {
		if !strings.Contains(log, w) {
			t.Errorf("its log does not contain %q:\n%s", w, log)
		}
	}
}

// soon is for waits in real time that are in vain.
const soon = 300 * time.Millisecond

// printingT is the test of an example. It prints its failures and whether it passed.
type printingT struct{ fakeT }

func (p *printingT) Errorf(format string, args ...any) {
	p.fakeT.Errorf(format, args...)
	fmt.Printf(format+"\n", args...)
}

func (p *printingT) Fatalf(format string, args ...any) {
	p.Errorf(format, args...)
	panic(stop) // runtime.Goexit would end the example without its output being looked at
}

const stop = "the example has ended by Fatalf"

// End ends the test. It is to be deferred.
func (p *printingT) End() {
	if v := recover(); v != nil && v != stop {
		panic(v)
	}
	p.end()
	if failed, _ := p.outcome(); failed {
		fmt.Println("FAIL")
	} else {
		fmt.Println("PASS")
	}
}
