package route

import (
	"slices"
	"strings"
)

// Interest is what one registration wants: the types that match at least one
// pattern of Allow and none of Deny. The zero Interest wants nothing. Deny obeys
// the rule of Reserved too: ">" in Deny does not deny reserved types.
type Interest struct {
	Allow, Deny []string // valid patterns, in any order
}

// Match reports whether the interest wants the valid type typ. It does not
// allocate.
func (i Interest) Match(typ string) bool {
	return matchAny(i.Allow, typ) && !matchAny(i.Deny, typ)
}

// Key returns a string that two interests have in common exactly if they have
// the same set of patterns in Allow and the same set in Deny. The key of an
// interest with one pattern in Allow and none in Deny is that pattern; taking it
// does not allocate. Different keys may still mean the same types.
func (i Interest) Key() string {
	if len(i.Allow) == 1 && len(i.Deny) == 0 {
		return i.Allow[0]
	}
	// No pattern contains a space or a line break, so that keys are unambiguous.
	key := strings.Join(set(i.Allow), " ")
	if len(i.Deny) > 0 {
		key += "\n" + strings.Join(set(i.Deny), " ")
	}
	return key
}

func matchAny(patterns []string, typ string) bool {
	for _, p := range patterns {
		if Match(p, typ) {
			return true
		}
	}
	return false
}

// set returns the distinct patterns in ascending order, in a slice of its own if
// there is more than one.
func set(patterns []string) []string {
	if len(patterns) < 2 {
		return patterns
	}
	return slices.Compact(slices.Sorted(slices.Values(patterns)))
}
