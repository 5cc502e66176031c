package report

import (
	"fmt"
	"math"
	"strings"
)

// The sizes of the overview, in pixels.
const (
	overviewNames = 190 // of the rows, with the figures of gravbus
	overviewBest  = 190 // what the best other library is
	overviewStep  = 25
)

// overview draws all rows in one chart: a line for each row, a dot for each peer, placed by how many
// times the figure of gravbus it has. Left of the line at 1× a peer needs less than gravbus. It
// is nil if no row has a figure of gravbus to measure by.
func (v *view) overview() []byte {
	var (
		drawn    []verdict
		groups   = make(map[string]bool)
		left     []string
		low, top = 1.0, 1.0
	)
	for _, d := range v.verdicts() {
		if d.own == nil || !d.own.valid() || d.own.median <= 0 {
			left = append(left, v.label(d.row))
			continue
		}
		drawn = append(drawn, d)
		groups[d.row.Group] = true
		for _, f := range v.row(d.row) {
			if f.has && f.median > 0 {
				low, top = min(low, f.median/d.own.median), max(top, f.median/d.own.median)
			}
		}
	}
	if len(drawn) == 0 {
		return nil
	}
	var d drawing
	d.text(margin, 40, "start", "h1", "How many times the figure of gravbus")
	d.text(margin, 60, "start", "mute", v.machine()+" · "+v.rounds()+" · log scale, further left is better")
	d.legend(margin, 84)
	from, to := math.Log10(low)-0.1, math.Log10(top)+0.1
	x0, width := float64(margin+overviewNames), float64(drawingWidth-2*margin-overviewNames-overviewBest-20)
	at := func(r float64) float64 { return x0 + width*(math.Log10(r)-from)/(to-from) }
	y := 132.0
	bottom := y + float64((len(drawn)+len(groups))*overviewStep) - 8
	for p := math.Ceil(from); p <= to; p++ {
		r := math.Pow(10, p)
		class := "grid"
		if p == 0 {
			class = "one"
		}
		d.line(at(r), y-16, at(r), bottom, class)
		d.text(at(r), y-22, "middle", "mute", fmt.Sprintf("%g×", r))
	}
	d.text(drawingWidth-margin, y-22, "end", "mute", "best other async library")
	group := ""
	var desc []string
	for _, e := range drawn {
		if e.row.Group != group {
			group = e.row.Group
			d.text(margin, y, "start", "h2", capital(group))
			y += overviewStep
		}
		d.line(margin, y+8, drawingWidth-margin, y+8, "rule")
		d.text(margin, y, "start", "", e.row.Name)
		d.text(x0-14, y, "end", "strong", quantity(e.own.median, e.row.Unit))
		v.dots(&d, e, y-4, at)
		if e.best != nil {
			d.text(drawingWidth-margin, y, "end", "", e.best.peer.Name+" "+times(e.best.median, e.own.median))
		}
		if text := v.standingOf(e); text != "" {
			desc = append(desc, text)
		}
		y += overviewStep
	}
	d.height = y + 4
	if len(left) > 0 {
		d.text(margin, y+2, "start", "mute", "Not drawn, as gravbus has no figure above zero there: "+list(left)+".")
		d.height += 16
	}
	return d.file("gravbus and its peers: overview", v.summary()+" "+strings.Join(desc, " "))
}

// dots draws the peers of a row, gravbus last, so that it is never covered.
func (v *view) dots(d *drawing, e verdict, y float64, at func(float64) float64) {
	for _, class := range []string{kindLimit, kindSync, kindAsync, "variant", "own"} {
		for _, f := range v.row(e.row) {
			if f.class() != class || !f.has || f.median <= 0 {
				continue
			}
			size := 5.0
			if class == "own" {
				size = 6
			}
			x := at(f.median / e.own.median)
			d.printf(`<circle class="dot %s" cx="%s" cy="%s" r="%s"><title>%s</title></circle>`, class, px(x), px(y), px(size),
				escape(f.peer.Name+": "+f.label()))
			if len(f.flaws()) > 0 {
				d.printf(`<circle fill="url(#hatch)" cx="%s" cy="%s" r="%s"/>`, px(x), px(y), px(size))
			}
		}
	}
}

// standingOf says in a sentence how gravbus stands in a row, beside the best other async library.
func (v *view) standingOf(e verdict) string {
	if e.outcome == leads {
		return fmt.Sprintf("gravbus leads in %s: %s of %s.", v.label(e.row),
			pair(e.own.median, "against", e.best.median, e.row.Unit), e.best.peer.Name)
	}
	return v.sentence(e)
}
