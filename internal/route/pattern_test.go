package route_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/gravbus/gravbus/internal/route"
)

func TestCheck(t *testing.T) {
	long := strings.Repeat("a", route.MaxLen)
	tests := []struct {
		in             string
		isType, isPatt bool
	}{
		{"a", true, true},
		{"orders.created", true, true},
		{"größe.Ω.0", true, true},
		{"a*.>b.**.>>", true, true}, // only whole tokens are wildcards
		{"gravbus", true, true},
		{"gravbus.peer.up", true, true},
		{long, true, true},
		{long[1:] + "é", false, false}, // MaxLen characters, one byte too many
		{long + "a", false, false},
		{strings.Repeat("a.", route.MaxLen/2) + "a", true, true},

		{"*", false, true},
		{">", false, true},
		{"*.*", false, true},
		{"a.*.b", false, true},
		{"a.>", false, true},
		{"*.>", false, true},
		{"gravbus.>", false, true},

		{">.a", false, false},
		{"a.>.b", false, false},
		{">.>", false, false},
		{"", false, false},
		{".", false, false},
		{".a", false, false},
		{"a.", false, false},
		{"a..b", false, false},
		{"a b", false, false},
		{"a\tb", false, false},
		{"a.b\n", false, false},
		{"a\u00a0b", false, false}, // no-break space
		{"a\u2028b", false, false}, // line separator
		{"a\x00b", false, false},
		{"a\x7fb", false, false},
		{"a\u0085b", false, false}, // C1 control
		{"a\xffb", false, false},
		{"\xc3", false, false},
	}
	for _, tt := range tests {
		for _, c := range []struct {
			name    string
			err     error
			valid   bool
			pattern bool
		}{
			{"CheckType", route.CheckType(tt.in), tt.isType, false},
			{"CheckPattern", route.CheckPattern(tt.in), tt.isPatt, true},
		} {
			if (c.err == nil) != c.valid {
				t.Errorf("%s(%q) = %v, want valid: %t", c.name, tt.in, c.err, c.valid)
			}
			if c.err == nil {
				continue
			}
			var syntax *route.SyntaxError
			if !errors.As(c.err, &syntax) {
				t.Errorf("%s(%q): %T, want *SyntaxError", c.name, tt.in, c.err)
			} else if syntax.Input != tt.in || syntax.Pattern != c.pattern || syntax.Reason == "" {
				t.Errorf("%s(%q): %#v", c.name, tt.in, syntax)
			}
		}
	}
}

func TestSyntaxErrorQuotesOnlyTheBeginning(t *testing.T) {
	err := route.CheckType(strings.Repeat("x\x00", 1<<20))
	if n := len(err.Error()); n > 500 {
		t.Errorf("the text has %d bytes", n)
	}
	const want = `invalid pattern "a..b": it has an empty token; remove dots at the start, at the end and in pairs`
	if got := route.CheckPattern("a..b").Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestIsReserved(t *testing.T) {
	for typ, want := range map[string]bool{
		"gravbus": true, "gravbus.peer": true, "gravbus.": true,
		"gravbuses": false, "gravbuses.x": false, "a.gravbus": false, "Gravbus.x": false, "": false,
	} {
		if got := route.IsReserved(typ); got != want {
			t.Errorf("IsReserved(%q) = %t", typ, got)
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern, typ string
		want         bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "A", false},
		{"a.b", "a.b", true},
		{"a.b", "a", false},
		{"a", "a.b", false},
		{"a.b", "a.bc", false},

		{"*", "a", true}, // exactly one token
		{"*", "a.b", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"*.b", "a.b", true},
		{"a.*.c", "a.b.c", true},
		{"a.*.c", "a.b.d", false},
		{"a.*.*", "a.b.c", true},
		{"a.b*", "a.bc", false}, // not a wildcard
		{"a.b*", "a.b*", true},

		{">", "a", true}, // one or more tokens
		{">", "a.b.c", true},
		{"a.>", "a", false},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c.d", true},
		{"a.>", "b.a", false},
		{"*.>", "a", false},
		{"*.>", "a.b.c", true},
		{"a.*.>", "a.b", false},
		{"a.*.>", "a.b.c", true},

		{">", "gravbus", false}, // reserved: no wildcard in first place
		{">", "gravbus.peer.up", false},
		{"*", "gravbus", false},
		{"*.peer", "gravbus.peer", false},
		{"*.>", "gravbus.peer", false},
		{"gravbus", "gravbus", true},
		{"gravbus.>", "gravbus.peer.up", true},
		{"gravbus.*", "gravbus.peer", true},
		{"gravbus.>", "gravbus", false},
		{"*.gravbus", "a.gravbus", true},
		{">", "gravbuses.x", true},
	}
	for _, tt := range tests {
		if got := route.Match(tt.pattern, tt.typ); got != tt.want {
			t.Errorf("Match(%q, %q) = %t", tt.pattern, tt.typ, got)
		}
		var table route.Table[int]
		table.Add(1, allow(tt.pattern))
		if sinks := lookup(t, &table, tt.typ); (len(sinks) == 1) != tt.want {
			t.Errorf("a table with %q looks up %q: %v", tt.pattern, tt.typ, sinks)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	in := route.Interest{Allow: []string{"x.>", "a.*.c.>"}, Deny: []string{"a.*.c.d"}}
	if n := testing.AllocsPerRun(100, func() { in.Match("a.b.c.d.e") }); n != 0 {
		t.Errorf("Match allocates %v times", n)
	}
}

// refPattern is CheckPattern the slow way.
func refPattern(s string) bool {
	if len(s) > route.MaxLen || !utf8.ValidString(s) {
		return false
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return false
	}
	tokens := strings.Split(s, ".")
	for i, token := range tokens {
		if token == "" || token == ">" && i < len(tokens)-1 {
			return false
		}
	}
	return true
}

// refMatch is Match the slow way.
func refMatch(pattern, typ string) bool {
	want, have := strings.Split(pattern, "."), strings.Split(typ, ".")
	if have[0] == "gravbus" && want[0] != "gravbus" {
		return false
	}
	if n := len(want); want[n-1] == ">" {
		if len(have) < n {
			return false
		}
		want, have = want[:n-1], have[:n-1]
	}
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if want[i] != "*" && want[i] != have[i] {
			return false
		}
	}
	return true
}

func hasWildcard(pattern string) bool {
	for token := range strings.SplitSeq(pattern, ".") {
		if token == "*" || token == ">" {
			return true
		}
	}
	return false
}

func FuzzMatch(f *testing.F) {
	for _, seed := range [][2]string{
		{"a.b", "a.b"},
		{"a.*.c", "a.b.c"},
		{"a.>", "a.b.c"},
		{">", "gravbus.peer"},
		{"gravbus.*", "gravbus.peer"},
		{"*.*.>", "a.b"},
		{"a*.b>", "a*.b>"},
		{"..>", ""},
		{"", "."},
		{">.a", "a..\xff"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, typ string) {
		got := route.Match(pattern, typ) // whatever they are, it must not panic
		if route.CheckPattern(pattern) != nil || route.CheckType(typ) != nil {
			return
		}
		want := refMatch(pattern, typ)
		if got != want {
			t.Errorf("Match(%q, %q) = %t", pattern, typ, got)
		}
		var table route.Table[int]
		table.Add(1, allow(pattern))
		if sinks, err := table.Lookup(typ); err != nil || (len(sinks) == 1) != want {
			t.Errorf("a table with %q looks up %q: %v, %v", pattern, typ, sinks, err)
		}
		table.Remove(1, allow(pattern))
		if sinks, err := table.Lookup(typ); err != nil || len(sinks) != 0 {
			t.Errorf("a table without %q looks up %q: %v, %v", pattern, typ, sinks, err)
		}
	})
}

func FuzzCheckPattern(f *testing.F) {
	for _, seed := range []string{"", "a", "a.b", "a.*", "a.>", ">.a", "a..b", ".", "a b", "\xff", "é.\u2028", "*.>", "a*.>>"} {
		f.Add(seed)
	}
	f.Add(strings.Repeat("a.", 127) + "ab")
	f.Fuzz(func(t *testing.T, s string) {
		valid := refPattern(s)
		if err := route.CheckPattern(s); (err == nil) != valid {
			t.Errorf("CheckPattern(%q) = %v, want valid: %t", s, err, valid)
		}
		if err := route.CheckType(s); (err == nil) != (valid && !hasWildcard(s)) {
			t.Errorf("CheckType(%q) = %v; it is a pattern: %t", s, err, valid)
		}
	})
}
