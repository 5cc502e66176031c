package route_test

import (
	"testing"

	"github.com/gravbus/gravbus/internal/route"
)

func allow(patterns ...string) route.Interest { return route.Interest{Allow: patterns} }

func TestInterestMatch(t *testing.T) {
	tests := []struct {
		name        string
		allow, deny []string
		typ         string
		want        bool
	}{
		{"nothing allowed", nil, nil, "a", false},
		{"only denied", nil, []string{"b"}, "a", false},
		{"one of several", []string{"x", "a.*"}, nil, "a.b", true},
		{"none of several", []string{"x", "a.*"}, nil, "a", false},
		{"denied", []string{"a.>"}, []string{"x", "a.b"}, "a.b", false},
		{"not denied", []string{"a.>"}, []string{"x", "a.b"}, "a.c", true},
		{"a literal denied by a wildcard", []string{"a.b"}, []string{"a.*"}, "a.b", false},
		{"wildcards do not deny reserved types", []string{"gravbus.>"}, []string{">"}, "gravbus.x", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := route.Interest{Allow: tt.allow, Deny: tt.deny}
			if got := in.Match(tt.typ); got != tt.want {
				t.Errorf("Match = %t", got)
			}
			var table route.Table[string]
			table.Add("sink", in)
			if sinks := lookup(t, &table, tt.typ); (len(sinks) == 1) != tt.want {
				t.Errorf("Lookup = %v", sinks)
			}
		})
	}
}

func TestInterestKey(t *testing.T) {
	type in = route.Interest
	// Interests of one group have one key; those of different groups do not.
	groups := [][]in{
		{{Allow: []string{"a"}}, {Allow: []string{"a", "a"}}},
		{{Allow: []string{"a", "b"}}, {Allow: []string{"b", "a", "b"}}},
		{{Allow: []string{"a"}, Deny: []string{"b"}}, {Allow: []string{"a", "a"}, Deny: []string{"b", "b"}}},
		{{Allow: []string{"a"}, Deny: []string{"b", "c"}}, {Allow: []string{"a"}, Deny: []string{"c", "b"}}},
		{{Allow: []string{"a", "b"}, Deny: []string{"c"}}},
		{{Allow: []string{"b"}}},
		{{Allow: []string{"b"}, Deny: []string{"a"}}},
		{{Allow: []string{"a.b"}}},
		{{}, {Allow: []string{}, Deny: []string{}}},
		{{Deny: []string{"a"}}},
		{{Deny: []string{"b"}}},
	}
	owner := make(map[string]int)
	for i, group := range groups {
		for _, in := range group {
			if j, ok := owner[in.Key()]; ok && j != i {
				t.Errorf("%+v has the key of group %d, want its own", in, j)
			} else if !ok && in.Key() != group[0].Key() {
				t.Errorf("%+v and %+v have different keys", in, group[0])
			}
			owner[in.Key()] = i
		}
	}
}

func TestKeyLeavesTheInterestAlone(t *testing.T) {
	in := route.Interest{Allow: []string{"b", "a", "b"}, Deny: []string{"d", "c"}}
	in.Key()
	if in.Allow[0] != "b" || in.Allow[1] != "a" || in.Deny[0] != "d" {
		t.Errorf("Key sorted the interest itself: %+v", in)
	}
}

func TestKeyOfOnePatternDoesNotAllocate(t *testing.T) {
	in := allow("orders.created")
	if in.Key() != "orders.created" {
		t.Errorf("Key = %q", in.Key())
	}
	if n := testing.AllocsPerRun(100, func() { _ = in.Key() }); n != 0 {
		t.Errorf("Key allocates %v times", n)
	}
}
