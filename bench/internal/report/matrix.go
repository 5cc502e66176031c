package report

import (
	"github.com/gravbus/gravbus/bench/internal/result"
)

// A matrix is a group of rows as people read it: a line for each peer that took part, a column for
// each row, and the unit of a column in its head.
type matrix struct {
	columns  []column
	sections []section // one for each kind that has peers
}

type column struct {
	row            *result.Row
	workload, fig  string
	scale          scale
	repeatWorkload bool // the column before has the same workload
}

type section struct {
	head  string
	lines []line
}

type line struct {
	peer  *result.Peer
	cells []cell // as many as the matrix has columns
}

// A cell is what stands at one place. Exactly one of value and blank is not empty, but for a
// figure that is flawed so that it has no value.
type cell struct {
	mark  mark
	value string
	blank string   // "–": skipped, "·": not measured
	flaws []string // below the value
}

const (
	skippedCell = "–"
	missingCell = "·"
)

func (v *view) matrix(rows []*result.Row) matrix {
	var m matrix
	for i, row := range rows {
		c := column{row: row, scale: v.columnScale(row)}
		c.workload, c.fig = v.head(row)
		c.repeatWorkload = i > 0 && rows[i-1].Workload == row.Workload
		m.columns = append(m.columns, c)
	}
	for _, k := range kindHeads {
		s := section{head: k.head}
		for _, p := range v.peersOf(k.kind, rows) {
			l := line{peer: p}
			for _, c := range m.columns {
				l.cells = append(l.cells, v.cell(v.figure(c.row, p), c.scale))
			}
			s.lines = append(s.lines, l)
		}
		if len(s.lines) > 0 {
			m.sections = append(m.sections, s)
		}
	}
	return m
}

// columnScale returns the scale in which most figures of a row are at least one.
func (v *view) columnScale(row *result.Row) scale {
	var medians []float64
	for _, f := range v.row(row) {
		if f.has {
			medians = append(medians, f.median)
		}
	}
	return scaleFor(median(medians), row.Unit)
}

func (v *view) cell(f *figure, s scale) cell {
	switch {
	case f.cell != nil && f.cell.Skipped != "":
		return cell{blank: skippedCell}
	case !f.measured():
		return cell{blank: missingCell}
	}
	c := cell{mark: v.mark(f), flaws: f.flaws()}
	if f.has {
		c.value = s.in(f.median)
	}
	return c
}
