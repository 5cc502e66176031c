package run

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// Bounds are what the guard holds a peer to, so that a change that makes it much slower is seen.
type Bounds struct {
	About  []string `json:"about"` // for who reads the file
	Bounds []Bound  `json:"bounds"`
}

// A Bound is one row's. Times are compared with another peer's of the same minute, for those of a
// shared machine wander. Each peer counts with the fastest of its rounds, which wanders least.
type Bound struct {
	Row    string `json:"row"`    // as in report.json: 1-1.ns
	Peer   string `json:"peer"`   // who is held to it
	Versus string `json:"versus"` // with whom it is compared

	// MaxRatio is how many times the figure of Versus the figure of Peer may be. What is usual is
	// noted at Usual; the rest is for noise.
	MaxRatio float64 `json:"max_ratio"`
	Usual    float64 `json:"usual"`
	// MaxAllocs is how many allocations one delivery or request may make, in the process that sends. They are the same
	// on all machines. Not checked if it is left out.
	MaxAllocs *float64 `json:"max_allocs,omitempty"`
}

// ReadBounds reads bounds, of which the peers and rows must exist.
func ReadBounds(data []byte, peers []peer.Peer) (Bounds, error) {
	var b Bounds
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return b, err
	}
	for i, bound := range b.Bounds {
		for _, id := range []string{bound.Peer, bound.Versus} {
			if !slices.ContainsFunc(peers, func(p peer.Peer) bool { return p.ID == id }) {
				return b, fmt.Errorf("bounds[%d]: no such peer: %q", i, id)
			}
		}
		if _, ok := rowOf(bound.Row); !ok {
			return b, fmt.Errorf("bounds[%d]: no such row: %q", i, bound.Row)
		}
		if bound.MaxRatio <= 0 {
			return b, fmt.Errorf("bounds[%d]: max_ratio must be more than 0", i)
		}
	}
	return b, nil
}

func rowOf(id string) (result.Row, bool) {
	for _, w := range Workloads() {
		for _, r := range w.Rows() {
			if r.ID == id {
				return r, true
			}
		}
	}
	return result.Row{}, false
}

// A verdict is what was found about a bound.
type verdict struct {
	mine, theirs float64 // figures
	allocs       float64
	broken       string // a sentence, or empty if the bound is kept
}

// Guard measures what the bounds need, writes a table to w, and returns a sentence for each bound that
// is not kept. A bound that is not kept at first is measured again, twice as often, before it counts.
func Guard(ctx context.Context, c Config, b Bounds, w io.Writer) (broken []string, err error) {
	c = c.withDefaults()
	cells := newCells(c, needed(b.Bounds))
	if err := cells.rounds(ctx, c, c.Rounds); err != nil {
		return nil, err
	}
	doubtful := slices.DeleteFunc(slices.Clone(b.Bounds), func(b Bound) bool { return cells.judge(b).broken == "" })
	if len(doubtful) > 0 {
		again := newCells(c, needed(doubtful))
		if err := again.rounds(ctx, c, 2*c.Rounds); err != nil {
			return nil, err
		}
		for _, row := range again.list {
			for i := range row {
				first := cells.of(row[i].Peer, row[i].Workload)
				first.Samples = append(first.Samples, row[i].Samples...)
			}
		}
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "row\tpeer\tversus\t\t\tratio\tusual\tmost\tallocs\tmost\t")
	for i, bound := range b.Bounds {
		v := cells.judge(bound)
		row, _ := rowOf(bound.Row)
		most, mark := "", ""
		if bound.MaxAllocs != nil {
			most = fmt.Sprintf("%.3g", *bound.MaxAllocs)
		}
		if v.broken != "" {
			mark = "  ← not kept"
			broken = append(broken, fmt.Sprintf("%s (bounds[%d] of guard.json)", v.broken, i))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%.3f\t%.3f\t%.3f\t%.2f\t%s\t%s\n",
			bound.Row, bound.Peer, bound.Versus, digits(v.mine, row.Unit), digits(v.theirs, row.Unit), v.mine/v.theirs, bound.Usual, bound.MaxRatio, v.allocs, most, mark)
	}
	return broken, tw.Flush()
}

// needed reports of a peer and a workload whether bounds need them measured.
func needed(bounds []Bound) func(peer.Peer, Workload) bool {
	return func(p peer.Peer, w Workload) bool {
		return slices.ContainsFunc(bounds, func(b Bound) bool {
			row, _ := rowOf(b.Row)
			return row.Workload == w.ID && (b.Peer == p.ID || b.Versus == p.ID)
		})
	}
}

// digits writes three of them, or all that are before the point.
func digits(v float64, unit string) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.3g %s", v, unit)
}

// judge compares what was measured with a bound.
func (cs *cells) judge(b Bound) verdict {
	row, _ := rowOf(b.Row)
	v := verdict{mine: math.Inf(1), theirs: math.Inf(1), allocs: math.Inf(1)}
	fault := ""
	for _, s := range cs.of(b.Peer, row.Workload).Samples {
		switch {
		case s.Error != "":
			fault = s.Error
		case s.Sent != s.Received:
			fault = fmt.Sprintf("%d of %d messages arrived", s.Received, s.Sent)
		case s.Disordered > 0:
			fault = fmt.Sprintf("%d messages out of order", s.Disordered)
		default:
			v.mine, v.allocs = min(v.mine, s.Figures[row.Figure]), min(v.allocs, s.Allocs)
		}
	}
	for _, s := range cs.of(b.Versus, row.Workload).Samples {
		if s.Error == "" {
			v.theirs = min(v.theirs, s.Figures[row.Figure])
		}
	}
	switch ratio := v.mine / v.theirs; {
	case fault != "":
		v.broken = fmt.Sprintf("%s: %s: %s", b.Row, b.Peer, fault)
	case math.IsInf(v.mine, 0) || math.IsInf(v.theirs, 0) || v.theirs == 0:
		v.broken = fmt.Sprintf("%s: %s and %s could not be compared", b.Row, b.Peer, b.Versus)
	case ratio > b.MaxRatio:
		v.broken = fmt.Sprintf("%s: %s takes %.2f times what %s takes; %.2f is allowed", b.Row, b.Peer, ratio, b.Versus, b.MaxRatio)
	case b.MaxAllocs != nil && v.allocs > *b.MaxAllocs:
		v.broken = fmt.Sprintf("%s: %s allocates %.3g times per operation; %.3g is allowed", b.Row, b.Peer, v.allocs, *b.MaxAllocs)
	}
	return v
}
