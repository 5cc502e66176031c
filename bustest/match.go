package bustest

import (
	"reflect"
	"slices"
	"strings"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/route"
)

// A Matcher says which messages are meant, and says so in words when a test fails. The zero Matcher
// matches any message.
type Matcher struct {
	text string
	fn   func(gravbus.Message) bool
	err  error // why it can never match
}

// String describes the messages that m matches.
func (m Matcher) String() string {
	if m.fn == nil {
		return "any message"
	}
	return m.text
}

// Matches reports whether m matches msg.
func (m Matcher) Matches(msg gravbus.Message) bool { return m.fn == nil || m.fn(msg) }

// Func matches messages for which fn returns true. The text describes them.
func Func(text string, fn func(gravbus.Message) bool) Matcher { return Matcher{text: text, fn: fn} }

// Type matches messages of a type, or of all types that match a pattern, as Pod.OnType does. An
// invalid pattern fails the test that uses it.
func Type(pattern string) Matcher {
	return Matcher{
		text: "type " + pattern,
		fn:   func(msg gravbus.Message) bool { return route.Match(pattern, msg.Type()) },
		err:  route.CheckPattern(pattern),
	}
}

// Data matches messages with exactly these bytes.
func Data[B ~string | ~[]byte](data B) Matcher {
	want := string(data)
	return Matcher{
		text: sprintf("data %.200q", want),
		fn:   func(msg gravbus.Message) bool { return string(msg.Data()) == want },
	}
}

// Payload matches messages with a payload that Decode makes a T of, and for which fn returns true.
func Payload[T any](fn func(T) bool) Matcher {
	return Matcher{
		text: sprintf("payload %v for which the function returns true", reflect.TypeFor[T]()),
		fn: func(msg gravbus.Message) bool {
			v, err := gravbus.Decode[T](msg)
			return err == nil && fn(v)
		},
	}
}

// Equal matches messages with a payload that Decode makes a T of that is deeply equal
// (reflect.DeepEqual) to want.
func Equal[T any](want T) Matcher {
	m := Payload(func(v T) bool { return reflect.DeepEqual(v, want) })
	m.text = sprintf("payload %T equal to %+v", want, want)
	return m
}

// ReplyTo matches replies to a message, which is given by itself or by its receipt; with a nil
// receipt nothing.
func ReplyTo(to interface{ UUID() string }) Matcher {
	uuid := to.UUID()
	return Matcher{
		text: "reply to " + uuid,
		fn:   func(msg gravbus.Message) bool { return uuid != "" && msg.ReplyTo() == uuid },
	}
}

// All matches messages that all the matchers match; any message if there are none.
func All(matchers ...Matcher) Matcher {
	if len(matchers) == 0 {
		return Matcher{}
	}
	texts := make([]string, len(matchers))
	var err error
	for i, m := range matchers {
		texts[i] = m.String()
		if err == nil {
			err = m.err
		}
	}
	return Matcher{
		text: strings.Join(texts, ", "),
		fn: func(msg gravbus.Message) bool {
			return !slices.ContainsFunc(matchers, func(m Matcher) bool { return !m.Matches(msg) })
		},
		err: err,
	}
}
