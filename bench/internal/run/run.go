package run

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// A Config says what to measure. Its zero value measures nothing.
type Config struct {
	Peers     []peer.Peer
	Workloads []Workload
	Rounds    int
	Quick     bool // shorter measurements, for a first look
	Progress  *Progress

	Command string // what was typed, for the report
	Version string // of gravbus, for the report

	target  time.Duration // of a measured part; 0 chooses
	silence time.Duration
	limit   time.Duration // of a child
	env     []string      // what children get besides
}

// withDefaults returns c with the times that are not set.
func (c Config) withDefaults() Config {
	target, silence, limit := 400*time.Millisecond, time.Second, 20*time.Second
	if c.Quick {
		target, silence, limit = 150*time.Millisecond, 500*time.Millisecond, 10*time.Second
	}
	c.target, c.silence, c.limit = cmp.Or(c.target, target), cmp.Or(c.silence, silence), cmp.Or(c.limit, limit)
	return c
}

// Run measures. When ctx ends it stops what is running, and returns what it has and the error of ctx.
func Run(ctx context.Context, c Config) (*result.Report, error) {
	c = c.withDefaults()
	start := time.Now()
	r := &result.Report{
		Date: start.UTC().Truncate(time.Second), Command: c.Command, Machine: machine(), Quick: c.Quick, Rounds: c.Rounds,
		Peers: describe(c.Peers, c.Version),
	}
	for _, w := range c.Workloads {
		r.Rows = append(r.Rows, w.Rows()...)
	}
	cells := newCells(c, func(peer.Peer, Workload) bool { return true })
	err := cells.rounds(ctx, c, c.Rounds)
	r.Cells = cells.all()
	r.Duration = time.Since(start).Round(time.Millisecond)
	return r, err
}

// cells are those of a run, in the order of the workloads, and of the peers within one.
type cells struct {
	list [][]cell // by workload, by peer
}

type cell struct {
	result.Cell

	workload Workload
	peer     peer.Peer
	gaveUp   bool // took too long once: that would only cost the same time again
}

// newCells makes the cells that are wanted, of all that c could have.
func newCells(c Config, want func(peer.Peer, Workload) bool) *cells {
	all := &cells{list: make([][]cell, len(c.Workloads))}
	for i, w := range c.Workloads {
		for _, p := range c.Peers {
			if !want(p, w) {
				continue
			}
			all.list[i] = append(all.list[i], cell{
				Cell:     result.Cell{Peer: p.ID, Workload: w.ID, Skipped: string(w.lacks(p))},
				workload: w, peer: p,
			})
		}
	}
	return all
}

func (cl *cell) finished() bool { return cl.Skipped != "" || cl.gaveUp }

// all returns the cells for the report.
func (cs *cells) all() []result.Cell {
	var all []result.Cell
	for _, row := range cs.list {
		for _, cl := range row {
			all = append(all, cl.Cell)
		}
	}
	return all
}

// of returns a cell, or nil.
func (cs *cells) of(peer, workload string) *cell {
	for _, row := range cs.list {
		for i := range row {
			if row[i].Peer == peer && row[i].Workload == workload {
				return &row[i]
			}
		}
	}
	return nil
}

// left returns how long one round takes, in units of what one of the shortest measurements takes.
func (cs *cells) left() int {
	n := 0
	for _, row := range cs.list {
		for i := range row {
			if !row[i].finished() {
				n += row[i].workload.weight()
			}
		}
	}
	return n
}

// rounds measures each cell n more times.
func (cs *cells) rounds(ctx context.Context, c Config, n int) error {
	defer c.Progress.end()
	for i := range n {
		c.Progress.expect((n - i) * cs.left())
		if err := cs.round(ctx, c, i, n); err != nil {
			return err
		}
	}
	return nil
}

// round measures each cell once more, in round i of n. The peers of a workload follow each other, so
// that a row's figures are of the same minutes, and another one begins in each round.
func (cs *cells) round(ctx context.Context, c Config, i, n int) error {
	for _, row := range cs.list {
		if !slices.ContainsFunc(row, func(cl cell) bool { return !cl.finished() }) {
			continue
		}
		c.Progress.row(i, n, row)
		for k := range row {
			cl := &row[(k+i)%len(row)]
			if cl.finished() {
				continue
			}
			c.Progress.cell(cl)
			if err := cl.measure(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure adds a sample, unless there is nothing to measure.
func (cl *cell) measure(ctx context.Context, c Config) error {
	j := job{Peer: cl.Peer, Workload: cl.Workload, Target: c.target, Silence: c.silence}
	found, err := spawn(ctx, j, c.limit, c.env)
	if err != nil {
		return err
	}
	if found.Skip != "" {
		cl.Skipped = found.Skip
		return nil
	}
	cl.Samples = append(cl.Samples, found.Sample)
	cl.gaveUp = strings.HasPrefix(found.Sample.Error, tooLate)
	return nil
}
