package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gravbus/gravbus/bench/internal/result"
)

// The kinds of peers, as peer.Kind names them, in the order in which they are shown.
const (
	kindLimit = "limit"
	kindAsync = "async"
	kindSync  = "sync"
)

// self is the peer that the report compares with the others: gravbus as it is by default. What has
// another ID that starts with variant is the same library set up in another way; it is shown, but
// neither leads a row nor is ahead of gravbus.
const (
	self    = "gravbus"
	variant = "gravbus-"
)

// A view is a report by row and peer, with the statistics taken.
type view struct {
	*result.Report
	figures map[[2]string]*figure // by row's ID and peer's ID: one for every pair
}

func newView(r *result.Report) *view {
	cells := make(map[[2]string]*result.Cell, len(r.Cells))
	for i := range r.Cells {
		c := &r.Cells[i]
		cells[[2]string{c.Workload, c.Peer}] = c
	}
	v := &view{Report: r, figures: make(map[[2]string]*figure, len(r.Rows)*len(r.Peers))}
	for i := range r.Rows {
		for j := range r.Peers {
			row, peer := &r.Rows[i], &r.Peers[j]
			v.figures[[2]string{row.ID, peer.ID}] = newFigure(row, peer, cells[[2]string{row.Workload, peer.ID}])
		}
	}
	return v
}

func (v *view) figure(row *result.Row, peer *result.Peer) *figure {
	return v.figures[[2]string{row.ID, peer.ID}]
}

// row returns the figures of all peers in a row, in the order of the peers.
func (v *view) row(row *result.Row) []*figure {
	all := make([]*figure, len(v.Peers))
	for i := range v.Peers {
		all[i] = v.figure(row, &v.Peers[i])
	}
	return all
}

// gravbus returns the peer that the others are compared with, or nil.
func (v *view) gravbus() *result.Peer {
	for i := range v.Peers {
		if v.Peers[i].ID == self {
			return &v.Peers[i]
		}
	}
	return nil
}

// groups returns the groups that have rows, in the order of their first rows.
func (v *view) groups() []string {
	var groups []string
	for _, row := range v.Rows {
		if !slices.Contains(groups, row.Group) {
			groups = append(groups, row.Group)
		}
	}
	return groups
}

func (v *view) rowsOf(group string) []*result.Row {
	var rows []*result.Row
	for i := range v.Rows {
		if v.Rows[i].Group == group {
			rows = append(rows, &v.Rows[i])
		}
	}
	return rows
}

// peersOf returns the peers of a kind that have taken part in one of the rows.
func (v *view) peersOf(kind string, rows []*result.Row) []*result.Peer {
	var peers []*result.Peer
	for i := range v.Peers {
		p := &v.Peers[i]
		took := func(row *result.Row) bool { return v.figure(row, p).measured() }
		if p.Kind == kind && slices.ContainsFunc(rows, took) {
			peers = append(peers, p)
		}
	}
	return peers
}

// head returns the short names of a row: its workload, and its figure if the workload has others.
func (v *view) head(row *result.Row) (workload, fig string) {
	for i := range v.Rows {
		if o := &v.Rows[i]; o.Workload == row.Workload && o.ID != row.ID {
			return row.Workload, row.Figure
		}
	}
	return row.Workload, ""
}

// label is head in one word, as it is written in sentences.
func (v *view) label(row *result.Row) string {
	workload, fig := v.head(row)
	return strings.TrimSpace(workload + " " + fig)
}

// rateFigure is a figure without a row: the messages a second that a peer can send at most, by which
// the loads of a workload are set.
const rateFigure = "rate"

// A figure is what one peer did in one row.
type figure struct {
	row  *result.Row
	peer *result.Peer
	cell *result.Cell // nil: it was not measured, because the run was ended before

	has              bool // there is a median
	median, min, max float64
	cpu, allocs      float64 // medians; 0: not known
	rate             float64 // median of the figure named rate; 0: the workload has none

	rounds, failed int
	reason         string // of the first failure

	// Deliveries of the rounds that did not fail. What was lost in one round is not made up for by
	// what came twice in another.
	due, lost, doubled, disordered int64
}

// newFigure takes the statistics of one figure. A round with an error counts as failed and gives
// nothing else: it was ended early, and what had not come by then is not lost. Rounds with loss or
// disorder give their value, and flaws says what to think of it.
func newFigure(row *result.Row, peer *result.Peer, cell *result.Cell) *figure {
	f := &figure{row: row, peer: peer, cell: cell}
	if cell == nil {
		return f
	}
	var values, cpu, allocs, rates []float64
	for _, s := range cell.Samples {
		f.rounds++
		if s.Error != "" {
			f.failed++
			f.reason = cmp.Or(f.reason, firstLine(s.Error))
			continue
		}
		f.due += s.Sent
		f.lost += max(0, s.Sent-s.Received)
		f.doubled += max(0, s.Received-s.Sent)
		f.disordered += s.Disordered
		cpu, allocs = append(cpu, s.CPU), append(allocs, s.Allocs)
		if x, ok := s.Figures[row.Figure]; ok && finite(x) {
			values = append(values, x)
		}
		if x, ok := s.Figures[rateFigure]; ok && finite(x) {
			rates = append(rates, x)
		}
	}
	f.cpu, f.allocs, f.rate = median(cpu), median(allocs), median(rates)
	if len(values) > 0 {
		f.has = true
		f.median, f.min, f.max = median(values), slices.Min(values), slices.Max(values)
	}
	return f
}

// measured reports whether the peer has taken part, with whatever outcome.
func (f *figure) measured() bool { return f.cell != nil && f.cell.Skipped == "" && f.rounds > 0 }

// valid reports whether the figure may be compared with others.
func (f *figure) valid() bool { return f.has && len(f.flaws()) == 0 }

// competes reports whether the figure can lead its row.
func (f *figure) competes() bool {
	return f.valid() && f.peer.Kind == kindAsync && !strings.HasPrefix(f.peer.ID, variant)
}

// flaws names in a few letters what keeps the figure from being compared.
func (f *figure) flaws() []string {
	var flaws []string
	switch {
	case f.failed > 0 && f.failed < f.rounds:
		flaws = append(flaws, fmt.Sprintf("failed %d/%d", f.failed, f.rounds))
	case f.failed > 0:
		flaws = append(flaws, "failed")
	}
	if f.lost > 0 {
		flaws = append(flaws, "lost "+percent(f.lost, f.due))
	}
	if f.doubled > 0 {
		flaws = append(flaws, "doubles")
	}
	if f.disordered > 0 {
		flaws = append(flaws, "reorders")
	}
	if len(flaws) == 0 && f.rounds > 0 && !f.has {
		flaws = append(flaws, "no figure")
	}
	return flaws
}

// maxApart is how many times the smaller of two figures the larger may be if they are about equal.
const maxApart = 1.1

// equal reports whether the rounds do not tell which of two figures is less, see rule. That the spans
// overlap is not enough: one bad round of several would make anything equal.
func (f *figure) equal(o *figure) bool {
	overlap := f.min <= o.max && o.min <= f.max
	near := max(f.median, o.median) <= maxApart*min(f.median, o.median)
	return overlap && near || quantity(f.median, f.row.Unit) == quantity(o.median, o.row.Unit)
}

// median returns the middle of the values, or the mean of the two in the middle. It is 0 for none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// firstLine returns the first line of text that is more than space, without what is not printable.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(printable(line))
}
