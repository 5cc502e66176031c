package discoverytest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

// A call is one call of found.
type call struct {
	node discovery.Node
	at   time.Time
}

// ears are the found of one node.
type ears struct {
	mu      sync.Mutex // guards all below
	calls   []call
	changed chan struct{} // closed and replaced with each call
	running int
	closed  bool
	hold    func() // called by found
	errs    []error
}

func newEars() *ears { return &ears{changed: make(chan struct{})} }

func (e *ears) found(n discovery.Node) {
	e.mu.Lock()
	e.running++
	switch {
	case e.running > 1:
		e.fail("found is called while another call has not returned")
	case e.closed:
		e.fail("found is called after Close has returned")
	}
	if n.UUID != "" && len(n.UUID) != 36 {
		e.fail("found is called with the UUID %q, which has not 36 characters", n.UUID)
	}
	if len(n.Endpoints) == 0 {
		e.fail("found is called without endpoints")
	}
	for _, endpoint := range n.Endpoints {
		if endpoint == "" {
			e.fail("found is called with an endpoint that is empty")
		}
	}
	e.calls = append(e.calls, call{n, time.Now()})
	close(e.changed)
	e.changed = make(chan struct{})
	hold := e.hold
	e.mu.Unlock()

	if hold != nil {
		hold()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running--
}

// fail notes a fault, once. The caller holds mu.
func (e *ears) fail(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	for _, old := range e.errs {
		if old.Error() == err.Error() {
			return
		}
	}
	e.errs = append(e.errs, err)
}

func (e *ears) err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return errors.Join(e.errs...)
}

func (e *ears) open() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = false
}

func (e *ears) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.running > 0 {
		e.fail("Close has returned while found is running")
	}
}

// holdBy makes found call hold, before it returns.
func (e *ears) holdBy(hold func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hold = hold
}

// count returns how many calls there were.
func (e *ears) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.calls)
}

// since returns the calls from number n on.
func (e *ears) since(n int) []call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.calls[n:])
}

// await waits until the calls are as they should be, or reports false when the limit is over.
func (e *ears) await(limit time.Duration, ok func([]call) bool) bool {
	timeout := time.After(limit)
	for {
		e.mu.Lock()
		calls, changed := e.calls, e.changed // calls is only appended to
		e.mu.Unlock()
		if ok(calls) {
			return true
		}
		select {
		case <-changed:
		case <-timeout:
			return false
		}
	}
}

// String lists the nodes that were told of.
func (e *ears) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b strings.Builder
	seen := make(map[string]bool)
	for _, c := range e.calls {
		if s := fmt.Sprintf("\n  %q", c.node); !seen[s] {
			seen[s] = true
			b.WriteString(s)
		}
	}
	if b.Len() == 0 {
		return "nobody"
	}
	return b.String()
}
