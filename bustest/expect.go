package bustest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gravbus/gravbus"
)

// Expect waits until messages have come that match the matchers in this order, and returns them,
// one for each matcher. Other messages may be before, between and after them. It begins after what
// the last Expect has matched and ends with the message that matches last; what comes after that is
// left to the next. It fails the test if the messages do not come.
func Expect(t testing.TB, r *Recorder, matchers ...Matcher) []gravbus.Message {
	t.Helper()
	mustBeValid(t, matchers)
	var at []int // where in unread the matchers matched
	var unread []gravbus.Message
	seen := 0
	waited, ok := r.await(t, func() bool {
		unread = r.unread()
		for ; seen < len(unread) && len(at) < len(matchers); seen++ {
			if matchers[len(at)].Matches(unread[seen]) {
				at = append(at, seen)
			}
		}
		return len(at) == len(matchers)
	})
	if !ok {
		t.Fatalf("bustest: message %d of %d has not come%s: %v\nunread:%s",
			len(at)+1, len(matchers), waited, matchers[len(at)], list(unread, at))
	}
	matched := make([]gravbus.Message, len(at))
	for i, j := range at {
		matched[i] = unread[j]
	}
	r.advance(seen)
	return matched
}

// ExpectExactly waits until messages have come that match the matchers, one for each in this order,
// and until the bus has settled, and returns them. Any other message fails the test, be it before,
// between or after them. It begins after what the last Expect has matched.
func ExpectExactly(t testing.TB, r *Recorder, matchers ...Matcher) []gravbus.Message {
	t.Helper()
	mustBeValid(t, matchers)
	var unread []gravbus.Message
	var at []int
	wrong := false
	waited, ok := r.await(t, func() bool {
		unread = r.unread()
		for len(at) < min(len(unread), len(matchers)) && !wrong {
			if wrong = !matchers[len(at)].Matches(unread[len(at)]); !wrong {
				at = append(at, len(at))
			}
		}
		return wrong || len(at) == len(matchers)
	})
	switch {
	case wrong:
		t.Fatalf("bustest: message %d of %d is not as expected: %v\nunread:%s",
			len(at)+1, len(matchers), matchers[len(at)], list(unread, at))
	case !ok:
		t.Fatalf("bustest: message %d of %d has not come%s: %v\nunread:%s",
			len(at)+1, len(matchers), waited, matchers[len(at)], list(unread, at))
	}
	Settle(t, r.bus)
	if unread = r.unread(); len(unread) > len(matchers) {
		t.Fatalf("bustest: %d messages have come, %d more than expected:%s",
			len(unread), len(unread)-len(matchers), list(unread, at))
	}
	r.advance(len(matchers))
	return unread
}

// ExpectNone waits until the bus has settled, and fails the test if a message has come that matches
// one of the matchers, or any message if there are none. It looks at those after what the last
// Expect has matched, and leaves them to the next. See Settle for what it cannot know: that
// something will come later.
func ExpectNone(t testing.TB, r *Recorder, matchers ...Matcher) {
	t.Helper()
	mustBeValid(t, matchers)
	Settle(t, r.bus)
	if len(matchers) == 0 {
		matchers = []Matcher{All()}
	}
	unread := r.unread()
	for i, msg := range unread {
		for _, m := range matchers {
			if m.Matches(msg) {
				t.Fatalf("bustest: a message has come that was not to come: %v\nunread:%s", m, list(unread, []int{i}))
			}
		}
	}
}

func mustBeValid(t testing.TB, matchers []Matcher) {
	t.Helper()
	for _, m := range matchers {
		if m.err != nil {
			t.Fatalf("bustest: %v", m.err)
		}
	}
}

// list writes messages one to a line, and marks those at the given places. It leaves out the middle
// of a long list.
func list(msgs []gravbus.Message, marked []int) string {
	const most = 40
	if len(msgs) == 0 {
		return " nothing"
	}
	var b strings.Builder
	for i, msg := range msgs {
		if left := len(msgs) - most; left > 0 && i >= most/2 && i < most/2+left {
			if i == most/2 {
				fmt.Fprintf(&b, "\n    … %d more …", left)
			}
			continue
		}
		mark := ' '
		if slices.Contains(marked, i) {
			mark = '*'
		}
		fmt.Fprintf(&b, "\n  %c %d %s", mark, i+1, describe(msg))
	}
	return b.String()
}

// describe writes a message in a line.
func describe(msg gravbus.Message) string {
	text := sprintf("%s %.200q", msg.Type(), msg.Data())
	if to := msg.ReplyTo(); to != "" {
		text += " in reply to " + to
	}
	return text
}

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }
