package bustest

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
)

// A Recorder collects messages in the order in which they reach it: those of one sender in the
// order sent, those of several as they come. It is safe for concurrent use.
//
// It remembers how far Expect and its like have read. Messages, Types and Wait look at everything
// from the beginning and do not change that.
type Recorder struct {
	t   testing.TB
	bus *gravbus.Bus

	mu      sync.Mutex // guards all below
	msgs    []gravbus.Message
	read    int           // msgs[:read] are done with
	changed chan struct{} // closed with the next message; nil if nobody waits for that
}

// Record begins to collect the messages of types that match one of the patterns, or all messages if
// there are none, until the test ends. Events of the bus need a pattern of their own, such as
// "gravbus.>". An invalid pattern, and a bus that is closed, fail the test at once.
//
// A Recorder loses nothing: if it has to, because a circle of pods that send to each other
// overflows its mailbox, it fails the test.
func Record(t testing.TB, bus *gravbus.Bus, patterns ...string) *Recorder {
	t.Helper()
	if len(patterns) == 0 {
		patterns = []string{">"}
	}
	r := &Recorder{t: t, bus: bus}
	pod := connect(bus, "bustest.Record "+strings.Join(patterns, " "), gravbus.Mailbox(eventMailbox))
	err := pod.OnType(patterns[0], func(msg gravbus.Message) error {
		if msg.Type() == gravbus.MsgTypeLagged {
			t.Errorf("bustest: a recorder has lost messages: %s", msg.Data())
		}
		r.add(msg)
		return nil
	}, patterns[1:]...)
	if err != nil {
		t.Fatalf("bustest: Record: %v", err)
	}
	t.Cleanup(pod.Disconnect)
	return r
}

func (r *Recorder) add(msg gravbus.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.msgs = append(r.msgs, msg)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Messages returns all messages so far.
func (r *Recorder) Messages() []gravbus.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.msgs)
}

// Types returns the types of all messages so far.
func (r *Recorder) Types() []string {
	msgs := r.Messages()
	types := make([]string, len(msgs))
	for i, msg := range msgs {
		types[i] = msg.Type()
	}
	return types
}

// Wait waits until there are n messages or more, counted from the beginning, and returns all. It
// fails the test that Record was called for if they do not come.
func (r *Recorder) Wait(n int) []gravbus.Message {
	r.t.Helper()
	waited, ok := r.await(r.t, func() bool { return r.len() >= n })
	if !ok {
		r.t.Fatalf("bustest: %d of %d messages have come%s:%s", r.len(), n, waited, list(r.Messages(), nil))
	}
	return r.Messages()
}

// Skip makes Expect and its like begin after the messages so far. After Settle those are all that
// were sent.
func (r *Recorder) Skip() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read = len(r.msgs)
}

func (r *Recorder) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.msgs)
}

// unread returns the messages that Expect has not been past yet.
func (r *Recorder) unread() []gravbus.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.msgs[r.read:])
}

// advance makes n messages more read.
func (r *Recorder) advance(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read += n
}

// next returns a channel that is closed when another message comes.
func (r *Recorder) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// await waits until done, which is asked again with every message, and reports in words how long it
// has waited if it was in vain.
func (r *Recorder) await(t testing.TB, done func() bool) (waited string, ok bool) {
	if settledBubble() {
		return "", done()
	}
	if done() {
		return "", true
	}
	limit := patience(t)
	over := time.NewTimer(limit)
	defer over.Stop()
	for {
		next := r.next()
		if done() {
			return "", true
		}
		select {
		case <-next:
		case <-over.C:
			return sprintf(" in %v", limit), done()
		}
	}
}
