package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// printer lays out the story. It remembers the first error of writing and writes no more after it.
type printer struct {
	w       io.Writer
	color   bool
	columns int // of the longest line of checks
	err     error
}

const indent = "     "

func (p *printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// SGR codes. The colors are those of the terminal's own palette, so that they suit light and dark
// ones.
func (p *printer) sgr(code, s string) string {
	if !p.color || strings.TrimSpace(s) == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *printer) bold(s string) string { return p.sgr("1", s) }
func (p *printer) dim(s string) string  { return p.sgr("2", s) }
func (p *printer) good(s string) string { return p.sgr("32", s) }
func (p *printer) bad(s string) string  { return p.sgr("31", s) }

func (p *printer) mark(ok bool) string {
	if ok {
		return p.good("✓")
	}
	return p.bad("✗")
}

func (p *printer) headline(name, text string) { p.printf("\n%s  %s\n", p.bold(name), text) }

func (p *printer) title(n int, text string) {
	p.printf("\n  %s  %s\n", p.sgr("36", strconv.Itoa(n)), p.bold(text))
}

func (p *printer) say(format string, args ...any) {
	p.printf("%s%s\n", indent, p.dim(fmt.Sprintf(format, args...)))
}

// rows prints a table with its columns aligned.
func (p *printer) rows(rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if i < len(row)-1 { // the last may be as long as it likes
				widths[i] = max(widths[i], width(cell))
			}
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-width(cell)+3))
			}
		}
		p.printf("%s%s\n", indent, strings.TrimRight(b.String(), " "))
	}
}

// width is how many columns s takes: its characters without colors.
func width(s string) int {
	n := 0
	for {
		before, after, found := strings.Cut(s, "\x1b[")
		n += utf8.RuneCountInString(before)
		if !found {
			return n
		}
		_, s, _ = strings.Cut(after, "m")
	}
}

// marks prints the checks of one act, as many in a line as fit.
func (p *printer) marks(checks []Check) {
	line, used := "", 0
	for _, c := range checks {
		text := c.Name
		if !c.OK {
			text = p.bad(fmt.Sprintf("%s: %s, not %s", c.Name, number(c.Got), number(c.Expected)))
		}
		text = p.mark(c.OK) + " " + text
		if used > 0 && used+3+width(text) > p.columns {
			p.printf("%s%s\n", indent, line)
			line, used = "", 0
		}
		if used > 0 {
			line += "   "
			used += 3
		}
		line += text
		used += width(text)
	}
	if used > 0 {
		p.printf("%s%s\n", indent, line)
	}
}

// summary prints all checks, and the last word.
func (p *printer) summary(r *Report) {
	name, count := len("check"), len("expected")
	for _, c := range r.Checks {
		name = max(name, width(c.Name))
		count = max(count, len(number(c.Expected)), len(number(c.Got)))
	}
	p.printf("\n  %s\n", p.dim(fmt.Sprintf("%-8s  %-*s  %*s  %*s  ok", "act", name, "check", count, "expected", count, "got")))
	wrong, last := 0, ""
	for _, c := range r.Checks {
		act := c.Act
		if act == last {
			act = ""
		}
		last = c.Act
		got := fmt.Sprintf("%*s", count, number(c.Got))
		if !c.OK {
			wrong++
			got = p.bad(got)
		}
		p.printf("  %s  %s  %*s  %s  %s\n", p.sgr("36", pad(act, 8)), pad(c.Name, name), count, number(c.Expected), got, p.mark(c.OK))
	}
	if wrong == 0 {
		p.printf("\n  %s\n", p.good(p.bold(fmt.Sprintf("✓ All %d counts are right", len(r.Checks))))+fmt.Sprintf(", in %.1f s.", r.Seconds))
		return
	}
	p.printf("\n  %s\n", p.bad(fmt.Sprintf("✗ Wrong: %d of %d counts.", wrong, len(r.Checks))))
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(n-width(s), 0)) }

// number writes n with a comma between thousands.
func number[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

func plural(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return number(n) + " " + thing
}

// perSecond writes a rate with three digits that say something.
func perSecond(rate float64) string {
	if rate >= 1e6 {
		return strconv.FormatFloat(rate/1e6, 'f', 1, 64) + " million"
	}
	return number(int64(rate))
}
