package route_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gravbus/gravbus/internal/route"
)

// model is a Table as a list of registrations, oldest first.
type model []modelReg

type modelReg struct {
	sink  int
	in    route.Interest
	count int
}

func sameSet(a, b []string) bool {
	in := func(set []string) func(string) bool {
		return func(s string) bool { return !slices.Contains(set, s) }
	}
	return !slices.ContainsFunc(a, in(b)) && !slices.ContainsFunc(b, in(a))
}

func (m *model) index(sink int, in route.Interest) int {
	return slices.IndexFunc(*m, func(r modelReg) bool {
		return r.sink == sink && sameSet(r.in.Allow, in.Allow) && sameSet(r.in.Deny, in.Deny)
	})
}

func (m *model) add(sink int, in route.Interest) {
	if i := m.index(sink, in); i >= 0 {
		(*m)[i].count++
		return
	}
	*m = append(*m, modelReg{sink, in, 1})
}

func (m *model) remove(sink int, in route.Interest) {
	i := m.index(sink, in)
	if i < 0 {
		return
	}
	if (*m)[i].count--; (*m)[i].count == 0 {
		*m = slices.Delete(*m, i, i+1)
	}
}

func (m *model) lookup(typ string) []int {
	matches := func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return refMatch(p, typ) })
	}
	var sinks []int
	for _, r := range *m {
		if matches(r.in.Allow) && !matches(r.in.Deny) && !slices.Contains(sinks, r.sink) {
			sinks = append(sinks, r.sink)
		}
	}
	return sinks
}

// TestTableIsLikeItsModel draws from few tokens, so that patterns often meet.
func TestTableIsLikeItsModel(t *testing.T) {
	join := func(tokens []string) string { return strings.Join(tokens, ".") }
	token := rapid.SampledFrom([]string{"a", "b", "a*", route.Reserved})
	typ := rapid.Map(rapid.SliceOfN(token, 1, 4), join)
	pattern := rapid.Map(rapid.SliceOfN(rapid.OneOf(token, rapid.SampledFrom([]string{"*", ">"})), 1, 4), join).
		Filter(func(s string) bool { return route.CheckPattern(s) == nil })
	interest := rapid.Custom(func(t *rapid.T) route.Interest {
		return route.Interest{
			Allow: rapid.SliceOfN(pattern, 0, 3).Draw(t, "allow"),
			Deny:  rapid.SliceOfN(pattern, 0, 2).Draw(t, "deny"),
		}
	})
	one := rapid.Map(pattern, func(s string) route.Interest { return allow(s) })
	interest = rapid.OneOf(one, interest)
	sink := rapid.IntRange(0, 40)

	rapid.Check(t, func(t *rapid.T) {
		var table route.Table[int]
		var m model
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				s, in := sink.Draw(t, "sink"), interest.Draw(t, "interest")
				table.Add(s, in)
				m.add(s, in)
			},
			"addMany": func(t *rapid.T) {
				in := interest.Draw(t, "interest")
				for s := range rapid.IntRange(0, 40).Draw(t, "sinks") {
					table.Add(s, in)
					m.add(s, in)
				}
			},
			"remove": func(t *rapid.T) {
				if len(m) == 0 {
					t.Skip("empty")
				}
				r := rapid.SampledFrom(m).Draw(t, "registration")
				in := r.in // the same interest said differently
				in.Allow = append(slices.Clone(in.Allow), in.Allow...)
				slices.Reverse(in.Allow)
				table.Remove(r.sink, in)
				m.remove(r.sink, r.in)
			},
			"removeAny": func(t *rapid.T) {
				s, in := sink.Draw(t, "sink"), interest.Draw(t, "interest")
				table.Remove(s, in)
				m.remove(s, in)
			},
			"": func(t *rapid.T) {
				for range 4 {
					typ := typ.Draw(t, "type")
					got, err := table.Lookup(typ)
					if err != nil {
						t.Fatalf("Lookup(%q): %v", typ, err)
					}
					if want := m.lookup(typ); !slices.Equal(got, want) {
						t.Fatalf("Lookup(%q) = %v, want %v; registrations %+v", typ, got, want, m)
					}
				}
			},
		})
	})
}
