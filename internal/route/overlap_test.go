package route_test

import (
	"testing"

	"github.com/gravbus/gravbus/internal/route"
)

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a.b", "a", false},
		{"a.*", "a.b", true},
		{"a.*", "*.b", true},
		{"a.*", "b.*", false},
		{"a.*", "a.b.c", false},
		{">", "a.b.c", true},
		{"a.>", "a", false},
		{"a.>", "*.b.c", true},
		{"a.>", "b.>", false},
		{"*.b.>", "a.*.c", true},
	} {
		if got := route.Overlap(c.a, c.b); got != c.want {
			t.Errorf("Overlap(%q, %q) = %v", c.a, c.b, got)
		}
		if got := route.Overlap(c.b, c.a); got != c.want {
			t.Errorf("Overlap(%q, %q) = %v", c.b, c.a, got)
		}
	}
}
