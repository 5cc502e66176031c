package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gravbus/gravbus/bench/internal/result"
)

// An outcome is how gravbus stands in a row. From leads on there is another to compare it with.
type outcome int

const (
	absent outcome = iota // the row has no figure of gravbus
	flawed                // gravbus has lost or reordered messages, or failed
	alone                 // no other async library has a valid figure
	leads                 // gravbus has the lowest figure of all async libraries
	equals                // no library is ahead, and the rounds do not tell gravbus from the best
	behind                // another async library is ahead
)

// A verdict is how gravbus stands in one row, and beside whom.
type verdict struct {
	row     *result.Row
	outcome outcome
	own     *figure
	best    *figure   // the best other async library that is valid; nil if there is none
	ahead   []*figure // those that are ahead of gravbus, the best first
}

// verdict compares gravbus with the other async libraries of a row. Limits and sync libraries do
// other work and are not looked at, nor is another setting of gravbus.
func (v *view) verdict(row *result.Row) verdict {
	d := verdict{row: row}
	if p := v.gravbus(); p != nil {
		d.own = v.figure(row, p)
	}
	others := slices.DeleteFunc(v.competitors(row), func(f *figure) bool { return f == d.own })
	if len(others) > 0 {
		d.best = others[0]
	}
	switch {
	case d.own == nil || !d.own.measured():
		d.outcome = absent
		return d
	case !d.own.valid():
		d.outcome = flawed
		return d
	case len(others) == 0:
		d.outcome = alone
		return d
	}
	var near []*figure
	for _, o := range others {
		switch {
		case d.own.equal(o):
			near = append(near, o)
		case o.median < d.own.median:
			d.ahead = append(d.ahead, o)
		}
	}
	switch {
	case len(d.ahead) > 0:
		d.outcome, d.best = behind, d.ahead[0]
	case len(near) > 0:
		d.outcome, d.best = equals, near[0]
	default:
		d.outcome = leads
	}
	return d
}

func (v *view) verdicts() []verdict {
	all := make([]verdict, len(v.Rows))
	for i := range v.Rows {
		all[i] = v.verdict(&v.Rows[i])
	}
	return all
}

// competitors returns the figures that can lead a row, the lowest first.
func (v *view) competitors(row *result.Row) []*figure {
	all := slices.DeleteFunc(v.row(row), func(f *figure) bool { return !f.competes() })
	slices.SortStableFunc(all, func(a, b *figure) int { return cmp.Compare(a.median, b.median) })
	return all
}

// A mark says how a figure of a matrix stands among the async libraries of its row.
type mark string

const (
	unmarked mark = ""
	best     mark = "●" // no other has less
	level    mark = "≈" // about equal to the best
)

// mark returns the mark of a figure.
func (v *view) mark(f *figure) mark {
	if !f.competes() {
		return unmarked
	}
	switch lowest := v.competitors(f.row)[0]; {
	case f.median == lowest.median:
		return best
	case f.equal(lowest):
		return level
	}
	return unmarked
}

// summary says in a few sentences how gravbus stands.
func (v *view) summary() string {
	var rows [behind + 1][]string
	for _, d := range v.verdicts() {
		rows[d.outcome] = append(rows[d.outcome], v.label(d.row))
	}
	if len(rows[absent]) == len(v.Rows) {
		return "gravbus was not measured."
	}
	contested := len(rows[leads]) + len(rows[equals]) + len(rows[behind])
	var b strings.Builder
	fmt.Fprintf(&b, "gravbus leads %d of %s in which another async library gave figures without loss and disorder",
		len(rows[leads]), plural(contested, "row"))
	fmt.Fprintf(&b, "; in %d it is about equal with the best, in %d another library is ahead.", len(rows[equals]), len(rows[behind]))
	if names := rows[alone]; len(names) > 0 {
		fmt.Fprintf(&b, " No other async library has a valid figure in %s.", list(names))
	}
	if names := rows[flawed]; len(names) > 0 {
		fmt.Fprintf(&b, " gravbus itself has no valid figure in %s.", list(names))
	}
	if names := rows[absent]; len(names) > 0 {
		fmt.Fprintf(&b, " gravbus was not measured in %s.", list(names))
	}
	return b.String()
}

// words says in a sentence each in which rows gravbus is not the best, and by how much.
func (v *view) words() []string {
	var lines []string
	for _, d := range v.verdicts() {
		if line := v.sentence(d); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func (v *view) sentence(d verdict) string {
	name, unit := v.label(d.row), d.row.Unit
	switch d.outcome {
	case behind:
		verb, one, several := "is faster than", "so is ", "so are "
		switch unit {
		case "B":
			verb, one, several = "needs less memory than", "so does ", "so do "
		case "goroutines":
			verb, one, several = "needs fewer goroutines than", "so does ", "so do "
		}
		line := fmt.Sprintf("%s %s gravbus in %s: %s", d.best.peer.Name, verb, name,
			pair(d.best.median, "against", d.own.median, unit))
		var more []string
		for _, f := range d.ahead[1:] {
			more = append(more, fmt.Sprintf("%s (%s)", f.peer.Name, quantity(f.median, unit)))
		}
		switch len(more) {
		case 0:
		case 1:
			line += "; " + one + more[0]
		default:
			line += "; " + several + list(more)
		}
		return line + "."
	case equals:
		return fmt.Sprintf("gravbus and %s are about equal in %s: %s.", d.best.peer.Name, name,
			pair(d.own.median, "and", d.best.median, unit))
	case flawed:
		return fmt.Sprintf("gravbus has no valid figure in %s: %s.", name, list(d.own.flaws()))
	}
	return ""
}

// list joins words as a sentence does.
func list(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}
