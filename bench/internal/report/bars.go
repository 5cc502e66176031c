package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gravbus/gravbus/bench/internal/result"
)

// The sizes of a chart of bars, in pixels.
const (
	panelGap   = 36                                       // between two panels of a line
	panelWidth = (drawingWidth - 2*margin - panelGap) / 2 // two in a line
	panelHead  = 34
	barStep    = 17
	barHeight  = 12
)

// logFrom is how many times the largest value of a panel must be the smallest for a log scale.
const logFrom = 30

// bars draws rows as panels, two in a line. A panel has a bar for each peer, the shortest first: its
// length is the median, a thin line the span of the rounds.
func (v *view) bars(title string, rows []*result.Row) []byte {
	var d drawing
	d.text(margin, 40, "start", "h1", capital(title))
	d.text(margin, 60, "start", "mute", v.machine()+" · "+v.rounds()+" · shorter is better; the thin line spans the rounds; dotted: powers of ten")
	d.legend(margin, 84)
	y := 108.0
	var desc []string
	for i := 0; i < len(rows); i += 2 {
		bottom := y
		for j, row := range rows[i:min(i+2, len(rows))] {
			end, text := v.panel(&d, float64(margin+j*(panelWidth+panelGap)), y, row)
			bottom = max(bottom, end)
			desc = append(desc, text)
		}
		y = bottom + 22
	}
	d.height = y + 4
	return d.file("gravbus and its peers: "+title, "Bar charts, one for each row; shorter is better. "+strings.Join(desc, " "))
}

// panel draws a row at (x, y) and returns where it ends, and what it shows in words.
func (v *view) panel(d *drawing, x, y float64, row *result.Row) (end float64, desc string) {
	var figures []*figure
	for _, f := range v.row(row) {
		if f.measured() {
			figures = append(figures, f)
		}
	}
	slices.SortStableFunc(figures, func(a, b *figure) int {
		switch {
		case a.has && b.has:
			return cmp.Compare(a.median, b.median)
		case a.has:
			return -1
		case b.has:
			return 1
		}
		return 0
	})
	names, labels := 0.0, 0.0
	for _, f := range figures {
		names = max(names, textWidth(f.name()))
		labels = max(labels, textWidth(f.label()))
	}
	axis := newAxis(figures, panelWidth-names-labels-14)
	d.text(x, y+12, "start", "h2", row.Name)
	about := v.label(row)
	if axis.log {
		about += " · log scale"
	}
	d.text(x, y+27, "start", "mute", about)
	x0, top := x+names+8, y+panelHead
	bottom := top + float64(len(figures)*barStep)
	for _, tick := range axis.ticks() {
		d.line(x0+axis.at(tick), top, x0+axis.at(tick), bottom, "grid")
	}
	said := make([]string, len(figures))
	for i, f := range figures {
		f.bar(d, x0, top+float64(i*barStep), axis)
		said[i] = f.peer.Name + " " + f.label()
	}
	return bottom, fmt.Sprintf("%s (%s): %s.", row.Name, v.label(row), strings.Join(said, "; "))
}

// bar draws a figure right of x0, in the line that begins at y.
func (f *figure) bar(d *drawing, x0, y float64, a axis) {
	class := ""
	if f.peer.ID == self {
		class = "strong"
	}
	base := y + barHeight - 2
	d.text(x0-6, base, "end", class, f.name())
	length, after := 0.0, 0.0
	if f.has {
		length = max(a.at(f.median), 1)
		after = max(length, a.at(f.max))
		d.printf(`<rect class="%s" x="%s" y="%s" width="%s" height="%d" rx="2"><title>%s</title></rect>`,
			f.class(), px(x0), px(y), px(length), barHeight, escape(f.peer.Name+": "+f.label()+", rounds "+
				pair(f.min, "to", f.max, f.row.Unit)))
		if len(f.flaws()) > 0 {
			d.printf(`<rect fill="url(#hatch)" x="%s" y="%s" width="%s" height="%d" rx="2"/>`, px(x0), px(y), px(length), barHeight)
		}
		if from, to := a.at(f.min), a.at(f.max); to-from >= 2 {
			mid := y + barHeight/2.0
			d.printf(`<path class="spread" d="M%s %sV%sM%[1]s %[4]sH%sM%[5]s %[2]sV%[3]s"/>`,
				px(x0+from), px(mid-2.5), px(mid+2.5), px(mid), px(x0+to))
		}
	}
	if len(f.flaws()) > 0 {
		class = "bad"
	}
	d.text(x0+after+5, base, "start", class, f.label())
}

// name is the peer's name, with the rate by which its load was set, if there is one.
func (f *figure) name() string {
	if f.rate > 0 {
		return f.peer.Name + " (" + perSecond(f.rate) + ")"
	}
	return f.peer.Name
}

// label is the figure in words: its median, and what is wrong with it.
func (f *figure) label() string {
	parts := f.flaws()
	if f.has {
		parts = append([]string{quantity(f.median, f.row.Unit)}, parts...)
	}
	return strings.Join(parts, ", ")
}

// An axis turns values into lengths.
type axis struct {
	log     bool
	from    float64 // the value of length 0: a power of ten if the axis is logarithmic
	largest float64
	length  float64 // of the largest value
}

func newAxis(figures []*figure, length float64) axis {
	a := axis{length: length}
	smallest := math.Inf(1)
	for _, f := range figures {
		if !f.has {
			continue
		}
		a.largest = max(a.largest, f.max)
		if f.min > 0 {
			smallest = min(smallest, f.min)
		}
	}
	if a.largest > logFrom*smallest {
		a.log, a.from = true, math.Pow(10, math.Floor(math.Log10(smallest)))
	}
	return a
}

// at returns the length for a value.
func (a axis) at(x float64) float64 {
	switch {
	case x <= a.from || a.largest <= a.from:
		return 0
	case a.log:
		return a.length * math.Log10(x/a.from) / math.Log10(a.largest/a.from)
	}
	return a.length * x / a.largest
}

// ticks returns the powers of ten on a logarithmic axis. A linear one has none: the values stand
// beside the bars.
func (a axis) ticks() []float64 {
	var ticks []float64
	if a.log {
		for t := a.from * 10; t < a.largest; t *= 10 {
			ticks = append(ticks, t)
		}
	}
	return ticks
}
