package bustest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/bustest"
)

type order struct {
	ID   string
	Tags []string
}

func TestMatchers(t *testing.T) {
	pod := bustest.New(t).Connect()
	question := gravbus.NewMsg("question", nil)
	receipt := pod.Send(question)

	answer := gravbus.NewMsgReplyTo(receipt, "answer", []byte("42"))
	text := gravbus.NewMsg("a.b", []byte("hello"))
	typed := gravbus.NewTyped("orders.made", order{"1", []string{"x"}})
	bytes, err := gravbus.MsgFromBytes(must(typed.Marshal()))
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		matcher bustest.Matcher
		text    string
		yes, no []gravbus.Message
	}{
		{bustest.Matcher{}, "any message", msgs(answer, text, typed), nil},
		{bustest.All(), "any message", msgs(answer, text, typed), nil},
		{bustest.Type("a.b"), "type a.b", msgs(text), msgs(answer, typed)},
		{bustest.Type("a.*"), "type a.*", msgs(text), msgs(answer, typed)},
		{bustest.Data("hello"), `data "hello"`, msgs(text), msgs(answer, typed)},
		{bustest.Data([]byte("hello")), `data "hello"`, msgs(text), msgs(answer, typed)},
		{bustest.Data(""), `data ""`, msgs(question), msgs(text)},
		{bustest.Data(`{"ID":"1","Tags":["x"]}`), "", msgs(typed, bytes), msgs(text)},
		{bustest.Equal(order{"1", []string{"x"}}), `payload bustest_test.order equal to {ID:1 Tags:[x]}`, msgs(typed, bytes), msgs(text, answer)},
		{bustest.Equal(order{"1", nil}), "", nil, msgs(typed, bytes, text)},
		{bustest.Equal(42), "payload int equal to 42", msgs(answer), msgs(text, typed)},
		{bustest.Payload(func(o order) bool { return o.ID == "1" }), "payload bustest_test.order", msgs(typed, bytes), msgs(text)},
		{bustest.Payload(func(o order) bool { return o.ID == "2" }), "", nil, msgs(typed, bytes, text)},
		{bustest.ReplyTo(receipt), "reply to " + question.UUID(), msgs(answer), msgs(text, question)},
		{bustest.ReplyTo(question), "reply to " + question.UUID(), msgs(answer), msgs(text, question)},
		{bustest.ReplyTo((*gravbus.Receipt)(nil)), "", nil, msgs(answer, text, question)},
		{bustest.All(bustest.Type("*"), bustest.Data("42")), `type *, data "42"`, msgs(answer), msgs(text, question)},
		{
			bustest.Func("with a timestamp", func(msg gravbus.Message) bool { return !msg.Timestamp().IsZero() }),
			"with a timestamp", msgs(text), nil,
		},
	}
	for _, tt := range tests {
		if got := tt.matcher.String(); !strings.Contains(got, tt.text) {
			t.Errorf("it says %q, want %q", got, tt.text)
		}
		for _, msg := range tt.yes {
			if !tt.matcher.Matches(msg) {
				t.Errorf("%v does not match %s %s", tt.matcher, msg.Type(), msg.Data())
			}
		}
		for _, msg := range tt.no {
			if tt.matcher.Matches(msg) {
				t.Errorf("%v matches %s %s", tt.matcher, msg.Type(), msg.Data())
			}
		}
	}
}

func msgs(m ...gravbus.Message) []gravbus.Message { return m }

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// Type must match exactly what the bus delivers. Who wants a type, a request tells.
func TestTypeAgreesWithTheBus(t *testing.T) {
	tokens := []string{"a", "b", "*", ">", "gravbus", "a*", ""}
	var strs []string
	for _, x := range tokens {
		strs = append(strs, x)
		for _, y := range tokens {
			strs = append(strs, x+"."+y)
			for _, z := range []string{"a", "*", ">"} {
				strs = append(strs, x+"."+y+"."+z)
			}
		}
	}
	bus := bustest.New(t)
	asking, asked := bus.Connect(), bus.Connect()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, pattern := range strs {
		m := bustest.Type(pattern)
		if err := asked.OnType(pattern, ignore); err != nil {
			f := try(t, 0, func(tb testing.TB) { bustest.ExpectNone(tb, bustest.Record(tb, bustest.New(tb)), m) })
			fails(t, f, "invalid pattern")
			continue
		}
		for _, typ := range strs {
			msg := gravbus.NewMsg(typ, nil)
			if typ == "" {
				continue // it means the default type
			}
			_, err := asking.Request(ended, msg)
			if errors.Is(err, gravbus.ErrInvalidType) || errors.Is(err, gravbus.ErrReservedType) {
				continue
			}
			want := !errors.Is(err, gravbus.ErrNoResponders)
			if got := m.Matches(msg); got != want {
				t.Errorf("Type(%q) matches %q: %v, but the bus delivers it: %v", pattern, typ, got, want)
			}
		}
	}
}
