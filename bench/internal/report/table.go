package report

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/gravbus/gravbus/bench/internal/result"
)

// Table writes the report for a terminal of a width, or of 100 columns if that is zero or less. It is coloured if w is a
// terminal and NO_COLOR is not set. All is written in one call.
func Table(w io.Writer, r *result.Report, width int) error {
	if width <= 0 {
		width = 100
	}
	t := terminal{view: newView(r), width: width, colour: coloured(w)}
	t.write()
	_, err := w.Write(t.out.Bytes())
	return err
}

func coloured(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// The styles, as the numbers of SGR sequences.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	accent = "1;36"
)

// A terminal is a table as it is written.
type terminal struct {
	*view
	width  int
	colour bool
	out    bytes.Buffer
}

func (t *terminal) write() {
	for _, g := range t.groups() {
		t.group(g)
	}
	t.legend()
	t.standing()
	t.list("What went wrong", red, t.faults())
	t.list("Not measured, as a library has no such thing", bold, t.skipped())
	fmt.Fprintln(&t.out, t.style(dim, t.Date.UTC().Format("2006-01-02 15:04 MST")+" · "+t.machine()))
}

// gap is what stands between two columns.
const gap = 2

// group writes a group of rows in as many blocks as it takes to stay within the width.
func (t *terminal) group(name string) {
	m := t.matrix(t.rowsOf(name))
	if len(m.sections) == 0 {
		return
	}
	t.title(capital(name), t.rounds()+", less is better")
	names := 0
	for _, s := range m.sections {
		for _, l := range s.lines {
			names = max(names, 2+utf8.RuneCountInString(l.peer.Name))
		}
	}
	widths := m.widths()
	for from := 0; from < len(widths); {
		to, used := from, names
		for to < len(widths) && (to == from || used+gap+widths[to] <= t.width) {
			used += gap + widths[to]
			to++
		}
		t.block(m, names, widths, from, to)
		from = to
	}
}

// widths returns the width of each column.
func (m matrix) widths() []int {
	widths := make([]int, len(m.columns))
	for i, c := range m.columns {
		fit := func(text string) { widths[i] = max(widths[i], utf8.RuneCountInString(text)) }
		fit(c.workload)
		fit(c.fig)
		fit(c.scale.name)
		for _, s := range m.sections {
			for _, l := range s.lines {
				fit(string(l.cells[i].mark) + l.cells[i].value)
				for _, f := range l.cells[i].flaws {
					fit(f)
				}
			}
		}
	}
	return widths
}

// block writes the columns [from, to) of a matrix.
func (t *terminal) block(m matrix, names int, widths []int, from, to int) {
	head := func(style string, text func(i int, c column) string) {
		var b strings.Builder
		b.WriteString(strings.Repeat(" ", names))
		for i := from; i < to; i++ {
			b.WriteString(pad(text(i, m.columns[i]), gap+widths[i]))
		}
		if text := strings.TrimRight(b.String(), " "); text != "" {
			fmt.Fprintln(&t.out, t.style(style, text))
		}
	}
	head(bold, func(i int, c column) string {
		if c.repeatWorkload && i > from {
			return ""
		}
		return c.workload
	})
	head(bold, func(_ int, c column) string { return c.fig })
	head(dim, func(_ int, c column) string {
		if c.scale.name == c.fig {
			return ""
		}
		return c.scale.name
	})
	for _, s := range m.sections {
		fmt.Fprintln(&t.out, t.style(dim, s.head))
		for _, l := range s.lines {
			t.line(l, names, widths, from, to)
		}
	}
	fmt.Fprintln(&t.out)
}

// line writes the columns [from, to) of a peer, and below its figures what is wrong with them.
func (t *terminal) line(l line, names int, widths []int, from, to int) {
	name := "  " + l.peer.Name
	if l.peer.ID == self {
		name = t.style(accent, name)
	}
	t.out.WriteString(name + strings.Repeat(" ", names-2-utf8.RuneCountInString(l.peer.Name)))
	below := 0
	for i := from; i < to; i++ {
		c := l.cells[i]
		style := ""
		switch {
		case c.blank != "":
			style = dim
		case len(c.flaws) > 0:
			style = red
		case c.mark == best:
			style = green
		case l.peer.ID == self:
			style = accent
		}
		text := cmp.Or(c.blank, string(c.mark)+c.value)
		below = max(below, len(c.flaws))
		t.out.WriteString(t.style(style, pad(text, gap+widths[i])))
	}
	t.out.WriteByte('\n')
	for n := range below {
		var b strings.Builder
		b.WriteString(strings.Repeat(" ", names))
		for i := from; i < to; i++ {
			flaw := ""
			if n < len(l.cells[i].flaws) {
				flaw = l.cells[i].flaws[n]
			}
			b.WriteString(pad(flaw, gap+widths[i]))
		}
		fmt.Fprintln(&t.out, t.style(red, strings.TrimRight(b.String(), " ")))
	}
}

func (t *terminal) legend() {
	text := string(best) + " best async library of the row   " + string(level) + " about equal to it   " +
		skippedCell + " no such thing, see below"
	if t.missing() {
		text += "   " + missingCell + " not measured: the run was ended, or left it out"
	}
	t.paragraph(text, dim, "", "")
	t.paragraph(rule, dim, "", "")
	for _, line := range t.rates() {
		t.paragraph(line, dim, "", "")
	}
	t.out.WriteByte('\n')
}

// barWidth is how long the longest bar of standing may be.
const barWidth = 16

// standing shows for each row how gravbus stands beside the best other async library, then says it
// in words where gravbus is not ahead.
func (t *terminal) standing() {
	verdicts := t.verdicts()
	t.title("gravbus beside the best other async library", "bars: how many times less, on a log scale")
	labels, names := 0, 0
	for _, d := range verdicts {
		labels = max(labels, utf8.RuneCountInString(t.label(d.row)))
		if d.best != nil {
			names = max(names, utf8.RuneCountInString(d.best.peer.Name))
		}
	}
	fmt.Fprintln(&t.out, t.style(dim, fmt.Sprintf("  %s%14s%14s", fill("", labels), "gravbus", "best other")))
	for _, d := range verdicts {
		if d.outcome < leads {
			continue
		}
		own, other := d.own.median, d.best.median
		style, text := "", ""
		switch d.outcome {
		case leads:
			style, text = green, bar(other, own, barWidth)+times(other, own)+" in favour of gravbus"
		case behind:
			style, text = red, bar(own, other, barWidth)+times(own, other)+" in favour of "+d.best.peer.Name
		case equals:
			text = "about equal"
		}
		fmt.Fprintf(&t.out, "  %s%s  %s%s  %s\n", t.label(d.row), fill(t.label(d.row), labels),
			pad(quantity(own, d.row.Unit), 12)+pad(quantity(other, d.row.Unit), 14)+"  "+d.best.peer.Name,
			fill(d.best.peer.Name, names), t.style(style, text))
	}
	t.out.WriteByte('\n')
	t.paragraph(t.summary(), bold, "", "")
	for _, line := range t.words() {
		t.paragraph(line, "", "- ", "  ")
	}
	t.out.WriteByte('\n')
}

// times is ratio, but for what is divided by nothing.
func times(x, y float64) string {
	if y == 0 {
		return "∞×"
	}
	return ratio(x, y)
}

// bar draws how many times y goes into x, a doubling being an eighth of the width.
func bar(x, y float64, width int) string {
	eighths := width * 8
	if y > 0 {
		eighths = min(eighths, int(math.Log2(x/y)*float64(width)))
	}
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	if text == "" {
		return ""
	}
	return text + " "
}

func (t *terminal) list(head, style string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(&t.out, t.style(style, head))
	for _, line := range lines {
		t.paragraph(line, "", "- ", "  ")
	}
	t.out.WriteByte('\n')
}

// title writes a head with what to know about what is below it.
func (t *terminal) title(head, about string) {
	fmt.Fprintln(&t.out, t.style(bold, head)+"  "+t.style(dim, about))
	fmt.Fprintln(&t.out, t.style(dim, strings.Repeat("─", min(t.width, 160))))
}

// paragraph writes text in lines that fit, the first with a prefix and the others with another.
func (t *terminal) paragraph(text, style, prefix, others string) {
	line := prefix
	used := false
	for word := range strings.SplitSeq(text, " ") {
		if used && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > t.width {
			fmt.Fprintln(&t.out, t.style(style, line))
			line, used = others, false
		}
		if used {
			line += " "
		}
		line += word
		used = true
	}
	fmt.Fprintln(&t.out, t.style(style, line))
}

func (t *terminal) style(style, text string) string {
	if !t.colour || style == "" || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// pad sets text to the right of a width.
func pad(text string, width int) string {
	return fill(text, width) + text
}

// fill returns the spaces that text lacks for a width.
func fill(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
