package route

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A message type is a list of tokens separated by dots, like "orders.created".
// It is valid UTF-8 of 1 to MaxLen bytes, without white space and control
// characters; no token is empty, and none is exactly "*" or ">".
//
// A pattern is a type in which any token may also be "*", which stands for
// exactly one token, and the last token may be ">", which stands for one or more
// tokens. These are the rules of NATS subjects. Only whole tokens are wildcards:
// "a*" is an ordinary token.
//
// Types whose first token is Reserved are kept out of reach of wildcards in first
// place: "*.x" and ">" do not match them, as "#" does not match $SYS topics in
// MQTT. To get them a pattern has to begin with Reserved.
const (
	// MaxLen is the length in bytes of the longest type or pattern.
	MaxLen = 255

	// Reserved is the first token of the types of a node's own events.
	Reserved = "gravbus"
)

const (
	anyToken = "*" // exactly one token
	anyRest  = ">" // one or more tokens, in last place only
)

// SyntaxError says why a type or a pattern is not valid.
type SyntaxError struct {
	Input   string // as given, of any length
	Pattern bool   // Input was to be a pattern, otherwise a type
	Reason  string // what is wrong and what to do about it
}

// Error quotes at most 80 characters of the input.
func (e *SyntaxError) Error() string {
	kind := "message type"
	if e.Pattern {
		kind = "pattern"
	}
	return fmt.Sprintf("invalid %s %.80q: %s", kind, e.Input, e.Reason)
}

// CheckType returns nil if typ is a valid type, otherwise a *SyntaxError.
func CheckType(typ string) error { return check(typ, false) }

// CheckPattern returns nil if pattern is a valid pattern, otherwise a
// *SyntaxError. Every valid type is a valid pattern.
func CheckPattern(pattern string) error { return check(pattern, true) }

func check(s string, pattern bool) error {
	if reason := fault(s, pattern); reason != "" {
		return &SyntaxError{Input: s, Pattern: pattern, Reason: reason}
	}
	return nil
}

// fault returns the first fault of s, or "". It looks at the length first: input
// from strangers may be long.
func fault(s string, pattern bool) string {
	switch {
	case s == "":
		return `it is empty; use tokens separated by dots, like "orders.created"`
	case len(s) > MaxLen:
		return fmt.Sprintf("it has %d bytes; use at most %d", len(s), MaxLen)
	case !utf8.ValidString(s):
		return "it is not valid UTF-8; encode it as UTF-8"
	}
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return fmt.Sprintf("it contains %U; remove white space and control characters", r)
		}
	}
	for rest, more := s, true; more; {
		var token string
		token, rest, more = strings.Cut(rest, ".")
		switch {
		case token == "":
			return "it has an empty token; remove dots at the start, at the end and in pairs"
		case token != anyToken && token != anyRest:
		case !pattern:
			return fmt.Sprintf("its token %q is a wildcard; only patterns may have wildcards", token)
		case token == anyRest && more:
			return `">" is not its last token; use "*" to stand for one token`
		}
	}
	return ""
}

// IsReserved reports whether the first token of typ is Reserved.
func IsReserved(typ string) bool {
	rest, ok := strings.CutPrefix(typ, Reserved)
	return ok && (rest == "" || rest[0] == '.')
}

// Match reports whether the valid pattern matches the valid type typ. For other
// arguments the result means nothing. It does not allocate.
func Match(pattern, typ string) bool {
	if IsReserved(typ) && !IsReserved(pattern) {
		return false
	}
	for {
		want, restPattern, morePattern := strings.Cut(pattern, ".")
		if want == anyRest && !morePattern {
			return true
		}
		token, restType, moreType := strings.Cut(typ, ".")
		if want != anyToken && want != token {
			return false
		}
		if !morePattern || !moreType {
			return morePattern == moreType
		}
		pattern, typ = restPattern, restType
	}
}

// Overlap reports whether some type, other than a reserved one, matches both valid patterns.
func Overlap(a, b string) bool {
	for {
		x, restA, moreA := strings.Cut(a, ".")
		y, restB, moreB := strings.Cut(b, ".")
		switch {
		case x == anyRest && !moreA, y == anyRest && !moreB:
			return true
		case x != y && x != anyToken && y != anyToken:
			return false
		case !moreA || !moreB:
			return moreA == moreB
		}
		a, b = restA, restB
	}
}

// hasWildcard reports whether a token of the valid pattern is a wildcard.
func hasWildcard(pattern string) bool {
	// ">" can only be last, and most patterns have no asterisk at all.
	if pattern == anyRest || strings.HasSuffix(pattern, "."+anyRest) {
		return true
	}
	if strings.IndexByte(pattern, '*') < 0 {
		return false
	}
	return pattern == anyToken || strings.HasPrefix(pattern, anyToken+".") ||
		strings.HasSuffix(pattern, "."+anyToken) || strings.Contains(pattern, "."+anyToken+".")
}
