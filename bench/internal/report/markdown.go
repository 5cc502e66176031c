package report

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/gravbus/gravbus/bench/internal/result"
)

// A document is Markdown as it is written.
type document struct {
	*view
	out bytes.Buffer
}

// markdown returns the report with links to the plots that are there.
func (v *view) markdown(plots []plot) []byte {
	d := document{view: v}
	d.printf("# gravbus and its peers\n\n")
	d.printf("%s, `%s`, %s on %s; %s.\n\n", v.Date.UTC().Format("2006-01-02 15:04 MST"), v.Command,
		v.Duration.Round(time.Second), text(v.machine()), v.rounds())
	d.printf("%s\n\n", text(v.summary()))
	d.list("", v.words())
	d.plot(plots, "", overviewFile)
	d.printf("%s\n\n", rule)
	d.list("", v.rates())
	for _, g := range v.groups() {
		d.group(g)
		switch g {
		case result.GroupLocal:
			d.plot(plots, "", localFile)
		case result.GroupRemote:
			d.plot(plots, "", remoteFile)
			d.plot(plots, "", latencyFile)
		}
	}
	d.list("What went wrong", v.faults())
	d.list("Not measured, as a library has no such thing", v.skipped())
	d.rows()
	d.method()
	d.peers()
	d.details()
	return append(bytes.TrimSpace(d.out.Bytes()), '\n')
}

func (d *document) printf(format string, args ...any) { fmt.Fprintf(&d.out, format, args...) }

// list writes lines below a head, and nothing if there are none.
func (d *document) list(head string, lines []string) {
	if len(lines) == 0 {
		return
	}
	if head != "" {
		d.printf("## %s\n\n", head)
	}
	for _, line := range lines {
		d.printf("- %s\n", text(line))
	}
	d.printf("\n")
}

// plot shows one of the plots, if it is there; dir leads to where they are.
func (d *document) plot(plots []plot, dir, file string) {
	for _, p := range plots {
		if p.file == file && p.data != nil {
			d.printf("![%s](%s%s)\n\n", p.alt, dir, p.file)
		}
	}
}

// group writes the matrix of a group.
func (d *document) group(name string) {
	m := d.matrix(d.rowsOf(name))
	if len(m.sections) == 0 {
		return
	}
	d.printf("## %s\n\n%s, less is better. **%s** best async library of the row, %s about equal to it, %s no such thing",
		capital(name), capital(d.rounds()), best, level, skippedCell)
	if d.missing() {
		d.printf(", %s not measured", missingCell)
	}
	d.printf(".\n\n| |")
	for _, c := range m.columns {
		d.printf(" %s |", tableText(strings.TrimSpace(c.workload+" "+c.fig)))
	}
	d.printf("\n|---|%s\n| |", strings.Repeat("---:|", len(m.columns)))
	for _, c := range m.columns {
		d.printf(" %s |", c.scale.name)
	}
	d.printf("\n")
	for _, s := range m.sections {
		d.printf("| *%s* |%s\n", s.head, strings.Repeat(" |", len(m.columns)))
		for _, l := range s.lines {
			peer := tableText(l.peer.Name)
			if l.peer.ID == self {
				peer = "**" + peer + "**"
			}
			d.printf("| %s |", peer)
			for _, c := range l.cells {
				d.printf(" %s |", markdownCell(c))
			}
			d.printf("\n")
		}
	}
	d.printf("\n")
}

func markdownCell(c cell) string {
	value := cmp.Or(c.blank, string(c.mark)+text(c.value))
	if c.mark == best {
		value = "**" + value + "**"
	}
	parts := []string{value}
	for _, f := range c.flaws {
		parts = append(parts, text(f))
	}
	if value == "" {
		parts = parts[1:]
	}
	return strings.Join(parts, "<br>")
}

// rows says what each row is.
func (d *document) rows() {
	d.printf("## What each row is\n\n")
	workload := ""
	for i := range d.Rows {
		row := &d.Rows[i]
		if row.Workload == workload {
			continue
		}
		workload = row.Workload
		var names []string
		for j := range d.Rows {
			if o := &d.Rows[j]; o.Workload == workload {
				names = append(names, o.Name)
			}
		}
		d.printf("- `%s` (%s: %s)", workload, text(row.Group), text(strings.Join(names, "; ")))
		if row.About != "" {
			d.printf(": %s", text(row.About))
		}
		d.printf("\n")
	}
	d.printf("\n")
}

func (d *document) method() {
	d.printf("## How it was measured\n\n")
	for _, line := range []string{
		"Each measurement runs in a process of its own, so that no library lives with the goroutines or the garbage of another. " +
			"Between two processes, the second one has the receivers, and all traffic goes over the loopback.",
		"The rounds are interleaved: each goes through all rows and peers before the next begins, in an order that is " +
			"rotated, so that a bad moment of the machine does not hit one library alone.",
		"Each library is used as its documentation shows, with limits lifted where it would lose. The note of each peer says how.",
		"Every delivery is counted, and its order is checked where messages are numbered. Times are per delivery that came.",
		"A figure is the median of the rounds. The spread is the least and the most that a round gave; no round is thrown away. " +
			"What did not end in its time once is not tried again, and stands as failed.",
		"The latency of a message counts from when it was due to be sent, not from when it was sent: a library that makes " +
			"the sender wait does not hide that.",
	} {
		d.printf("- %s\n", line)
	}
	d.printf("\n")
}

func (d *document) peers() {
	d.printf("## Peers\n\n| | kind | module | version | how it is used |\n|---|---|---|---|---|\n")
	for _, p := range d.Peers {
		module := "standard library"
		if p.Module != "" {
			module = "`" + p.Module + "`"
		}
		d.printf("| %s | %s | %s | %s | %s |\n", tableText(p.Name), p.Kind, tableText(module), tableText(p.Version), tableText(p.Note))
	}
	d.printf("\n")
}

// details writes every figure with its spread.
func (d *document) details() {
	d.printf("## Every figure\n\nMedian, least and most of the rounds; processor time of all processes, and allocations of the " +
		"one that sends, for each delivery or request. Where loads are shares of a rate, both are those at the whole rate.\n\n")
	for _, g := range d.groups() {
		d.printf("<details><summary>%s</summary>\n\n", capital(text(g)))
		d.printf("| row | peer | median | least | most | processor | allocations | |\n|---|---|---:|---:|---:|---:|---:|---|\n")
		for _, row := range d.rowsOf(g) {
			for _, f := range d.row(row) {
				if f.measured() {
					d.detail(f)
				}
			}
		}
		d.printf("\n</details>\n\n")
	}
}

func (d *document) detail(f *figure) {
	values := []string{"", "", ""}
	if f.has {
		for i, x := range []float64{f.median, f.min, f.max} {
			values[i] = text(quantity(x, f.row.Unit))
		}
	}
	cpu, allocs := "", ""
	if f.cpu > 0 {
		cpu = quantity(f.cpu, "ns")
	}
	if f.cpu > 0 || f.allocs > 0 {
		allocs = text(scale{size: 1}.in(f.allocs))
	}
	d.printf("| %s | %s | %s | %s | %s | %s |\n", tableText(d.label(f.row)), tableText(f.peer.Name),
		strings.Join(values, " | "), cpu, allocs, text(strings.Join(f.flaws(), ", ")))
}

var markdownEscapes = strings.NewReplacer(
	"<", "&lt;", ">", "&gt;", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`)

// text escapes what Markdown would read as markup. What stands between backquotes stays as it is.
func text(s string) string {
	s = printable(s)
	parts := strings.Split(s, "`")
	if len(parts)%2 == 0 { // a backquote without its pair
		return strings.ReplaceAll(markdownEscapes.Replace(s), "`", "\\`")
	}
	for i := 0; i < len(parts); i += 2 {
		parts[i] = markdownEscapes.Replace(parts[i])
	}
	return strings.Join(parts, "`")
}

// tableText is text within a table.
func tableText(s string) string { return strings.ReplaceAll(text(s), "|", `\|`) }
