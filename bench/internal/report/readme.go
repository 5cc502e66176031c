package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gravbus/gravbus/bench/internal/result"
)

// The lines of a README between which the report stands.
const (
	readmeFrom = "<!-- bench -->"
	readmeTo   = "<!-- /bench -->"
)

// README replaces what stands between the lines <!-- bench --> and <!-- /bench --> of the file at
// path by a short form of the report, with links to what Write has written into dir. The rest
// of the file stays as it is, byte by byte. It is an error if the file has not each line once, in
// this order.
func README(path, dir string, r *result.Report) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	from, to, err := between(string(old))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	link, err := relative(filepath.Dir(path), dir)
	if err != nil {
		return err
	}
	updated := string(old[:from]) + newView(r).readme(link) + string(old[to:])
	if updated == string(old) {
		return nil
	}
	return os.WriteFile(path, []byte(updated), 0o666) // keeps the mode that it has
}

// between returns where the lines between the marks begin and end.
func between(file string) (from, to int, err error) {
	at := 0
	from, to = -1, -1
	for line := range strings.Lines(file) {
		switch strings.TrimSpace(line) {
		case readmeFrom:
			if from >= 0 {
				return 0, 0, fmt.Errorf("more than one line %s", readmeFrom)
			}
			from = at + len(line)
		case readmeTo:
			if to >= 0 {
				return 0, 0, fmt.Errorf("more than one line %s", readmeTo)
			}
			to = at
		}
		at += len(line)
	}
	if from < 0 || to < from {
		return 0, 0, fmt.Errorf("no line %s with a line %s after it", readmeFrom, readmeTo)
	}
	return from, to, nil
}

// relative returns the way from one directory to another as a link has it.
func relative(base, target string) (string, error) {
	base, err := filepath.Abs(base)
	if err != nil {
		return "", err
	}
	target, err = filepath.Abs(target)
	if err != nil {
		return "", err
	}
	way, err := filepath.Rel(base, target)
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(filepath.ToSlash(way), " ", "%20"), nil
}

// readme returns the short form: how gravbus stands, the overview, and a table for each group with
// gravbus, the best other async library of each row, and the lowest limit.
func (v *view) readme(link string) string {
	d := document{view: v}
	d.printf("%s\n\n", text(v.summary()))
	d.list("", v.ahead())
	d.plot(v.plots(), link+"/", overviewFile)
	for _, g := range v.groups() {
		d.short(g)
	}
	for _, sentence := range v.rates() {
		d.printf("%s\n\n", text(sentence))
	}
	d.printf("Less is better; %s (`%s`, gravbus %s, %s, %s). %s The limit is the lowest figure of those peers that "+
		"are no bus but what buses are made of: calls, channels, a ring, sockets. Libraries that run the receivers within the "+
		"publishing call do other work and are in the plot alone. [The whole report](%s/%s) has all peers with their versions, "+
		"what each row is, what was lost, the spread, and how it was measured.\n",
		text(v.rounds()), v.Command, text(v.version()), v.Date.UTC().Format("2006-01-02"), text(v.machine()), equalRule, link, markdownFile)
	return d.out.String()
}

// version returns the version of gravbus, or nothing if it was not measured.
func (v *view) version() string {
	if p := v.gravbus(); p != nil {
		return p.Version
	}
	return ""
}

// ahead says, a line for each library, in which rows it is the best and ahead of gravbus.
func (v *view) ahead() []string {
	var names []string
	rows := map[string][]string{}
	for i := range v.Rows {
		row := &v.Rows[i]
		if e := v.verdict(row); e.outcome == behind {
			name := e.best.peer.Name
			if rows[name] == nil {
				names = append(names, name)
			}
			rows[name] = append(rows[name], v.label(row))
		}
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("Ahead of it is %s in %s.", name, strings.Join(rows[name], ", "))
	}
	return names
}

func (d *document) short(group string) {
	d.printf("| %s | | gravbus | best other async library | limit |\n|---|---|---:|---|---|\n", capital(text(group)))
	for _, row := range d.rowsOf(group) {
		e := d.verdict(row)
		own, other, limit := skippedCell, skippedCell, skippedCell
		if e.own != nil && e.own.measured() {
			own = text(e.own.label())
			if e.outcome == leads || e.outcome == alone {
				own = "**" + own + "**"
			}
		}
		if e.best != nil {
			other = text(quantity(e.best.median, row.Unit))
			if e.outcome == behind {
				other = "**" + other + "**"
			}
			other += " (" + tableText(e.best.peer.Name) + ")"
		}
		if f := d.limit(row); f != nil {
			limit = text(quantity(f.median, row.Unit)) + " (" + tableText(f.peer.Name) + ")"
		}
		d.printf("| %s | `%s` | %s | %s | %s |\n", tableText(row.Name), d.label(row), own, other, limit)
	}
	d.printf("\n")
}

// limit returns the lowest limit of a row.
func (v *view) limit(row *result.Row) *figure {
	var lowest *figure
	for _, f := range v.row(row) {
		if f.peer.Kind == kindLimit && f.valid() && (lowest == nil || f.median < lowest.median) {
			lowest = f
		}
	}
	return lowest
}
