package gravbus_test

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/gravbus/gravbus"
)

// FuzzMsgFromBytes: any bytes are a message or a *MalformedError. A message survives Marshal and MsgFromBytes as it is, and can be sent.
func FuzzMsgFromBytes(f *testing.F) {
	f.Add([]byte(inputGoodJSON))
	for _, in := range inputBadJSON {
		if len(in) < 1000 {
			f.Add([]byte(in))
		}
	}
	for _, fixture := range gravFixtures {
		f.Add([]byte(fixture.json))
	}
	for _, change := range [][2]string{
		{`"response_to":""`, `"response_to":"00000000-0000-0000-0000-000000000000"`},
		{`"response_to":""`, `"response_to":"0198F3A2-1B2C-7D3E-8F40-516273849506"`},
		{`"parent_id":""`, `"parent_id":"\ud800\u0000<&>"`},
		{"a.b", "gravbus.lagged"},
		{"2026-11-20T08:00:00Z", "2261-12-31T23:59:59.999999999-23:59"},
		{"2026-11-20T08:00:00Z", "1678-01-01T00:00:00+23:59"},
		{"aGk=", `aG\nk=`},
		{`"meta"`, `"META"`},
	} {
		f.Add([]byte(strings.Replace(inputGoodJSON, change[0], change[1], 1)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		msg, err := gravbus.MsgFromBytes(in)
		if err != nil {
			if msg != nil || !errors.Is(err, gravbus.ErrMalformedMessage) {
				t.Fatalf("%v, %v", msg, err)
			}
			return
		}
		out, err := msg.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := gravbus.MsgFromBytes(out)
		if err != nil {
			t.Fatalf("%v for what Marshal wrote: %s", err, out)
		}
		if again.UUID() != msg.UUID() || again.ParentID() != msg.ParentID() || again.ReplyTo() != msg.ReplyTo() || again.Type() != msg.Type() ||
			!again.Timestamp().Equal(msg.Timestamp()) || !bytes.Equal(again.Data(), msg.Data()) {
			t.Fatalf("%s became another message by way of %s", in, out)
		}
		if same, err := again.Marshal(); err != nil || !bytes.Equal(same, out) {
			t.Fatalf("%v: %s became %s", err, out, same)
		}
		if posted, err := gravbus.MsgFromRequest(httptest.NewRequest("POST", "/", bytes.NewReader(in))); err != nil || posted.UUID() != msg.UUID() {
			t.Fatalf("MsgFromRequest: %v, %v", posted, err)
		}
		bus := gravbus.New(gravbus.UseReplay(2))
		defer bus.Close()
		receipt, err := bus.Connect().SendContext(context.Background(), msg)
		reserved := msg.Type() == "gravbus" || strings.HasPrefix(msg.Type(), "gravbus.")
		if reserved != errors.Is(err, gravbus.ErrReservedType) || !reserved && (err != nil || receipt.UUID() != msg.UUID()) {
			t.Fatalf("%q: %v", msg.Type(), err)
		}
	})
}

// fuzzValid says what a type, or a pattern, is.
func fuzzValid(s string, pattern bool) bool {
	if s == "" || len(s) > 255 || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return false
	}
	tokens := strings.Split(s, ".")
	for i, token := range tokens {
		if token == "" || token == "*" && !pattern || token == ">" && (!pattern || i < len(tokens)-1) {
			return false
		}
	}
	return true
}

// fuzzMatch says whether a valid pattern matches a valid type that is not reserved.
func fuzzMatch(pattern, typ []string) bool {
	switch {
	case len(pattern) == 0 || len(typ) == 0:
		return len(pattern) == len(typ)
	case pattern[0] == ">":
		return true
	case pattern[0] != "*" && pattern[0] != typ[0]:
		return false
	}
	return fuzzMatch(pattern[1:], typ[1:])
}

// FuzzPattern: what OnType and Send accept is what the rules say, and a message goes where a naive matcher says that it goes, by handlers, filters and waits.
func FuzzPattern(f *testing.F) {
	for _, seed := range [][3]string{
		{"a.b", "c", "a.b"},
		{"a.*", "b.>", "a.b"},
		{"*.*", ">", "a"},
		{"a.>", "*", "a"},
		{"a.>", "a.*.c", "a.b.c.d"},
		{"a*.b", "a.b*", "a*.b"},
		{">", "*.b", "gravbus.b"},
		{"gravbus.>", "*", "gravbusses"},
		{"", ".", ".."},
		{"a.>.b", ">.a", "a.>"},
		{"Ä.*", "*.\u00a0", "Ä.ö"},
		{"a\xff", "a b", "a\x00"},
		{strings.Repeat("a.", 127) + "a", strings.Repeat("*.", 127) + "*", strings.Repeat("a.", 127) + "a"},
		{"*.*.*.*.x", "*.*.*.*.>", "a.b.c.d.e"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	f.Fuzz(func(t *testing.T, pattern, other, typ string) {
		bus := gravbus.New(gravbus.UseReplay(0))
		defer bus.Close()
		sender, pod, both := bus.Connect(), bus.Connect(), bus.Connect()
		valid, otherValid := fuzzValid(pattern, true), fuzzValid(other, true)
		if err := pod.OnType(pattern, nop); (err == nil) != valid || err != nil && !errors.Is(err, gravbus.ErrInvalidPattern) {
			t.Fatalf("OnType(%q): %v, valid is %t", pattern, err, valid)
		}
		if typ == "" {
			typ = gravbus.MsgTypeDefault
		}
		// wanted reports whether anybody wants typ: whoever sends a request is told at once if not.
		wanted := func() bool {
			switch _, err := sender.Request(over, gravbus.NewMsg(typ, nil)); {
			case errors.Is(err, gravbus.ErrNoResponders):
				return false
			case errors.Is(err, context.Canceled):
				return true
			default:
				t.Fatalf("%q: %v", typ, err)
				return false
			}
		}
		if !fuzzValid(typ, false) || typ == "gravbus" || strings.HasPrefix(typ, "gravbus.") {
			want := gravbus.ErrInvalidType
			if fuzzValid(typ, false) {
				want = gravbus.ErrReservedType
			}
			if _, err := sender.SendContext(over, gravbus.NewMsg(typ, nil)); !errors.Is(err, want) {
				t.Fatalf("Send of %q: %v, want %v", typ, err, want)
			}
			return
		}
		tokens := strings.Split(typ, ".")
		match := valid && fuzzMatch(strings.Split(pattern, "."), tokens)
		otherMatch := otherValid && fuzzMatch(strings.Split(other, "."), tokens)
		if wanted() != match {
			t.Fatalf("%q goes to OnType(%q): %t", typ, pattern, !match)
		}
		if valid && otherValid {
			if err := both.OnType(pattern, nop, other); err != nil {
				t.Fatal(err)
			}
			pod.Disconnect()
			if wanted() != (match || otherMatch) {
				t.Fatalf("%q goes to OnType(%q, %q): %t", typ, pattern, other, !(match || otherMatch))
			}
			if err := both.FilterType(other, false); err != nil {
				t.Fatal(err)
			}
			if wanted() != (match && !otherMatch) {
				t.Fatalf("%q goes to OnType(%q) without %q: %t", typ, pattern, other, !(match && !otherMatch))
			}
			if err := both.FilterType(other, true); err != nil {
				t.Fatal(err)
			}
			if wanted() != (match || otherMatch) {
				t.Fatalf("%q goes to OnType(%q) with %q allowed again: %t", typ, pattern, other, !(match || otherMatch))
			}
			if err := both.On(nil); err != nil {
				t.Fatal(err)
			}
			if wanted() {
				t.Fatalf("%q goes to a pod without a handler", typ)
			}
		}
	})
}
