package run

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// ScalingWorkloads are the ones that Scaling is for.
var ScalingWorkloads = []string{"1-1", "1-10", "4-4", "request-64"}

// Scaling measures with each number of processors (GOMAXPROCS). The rounds are interleaved over these,
// too. When ctx ends it returns what it has, and the error of ctx.
func Scaling(ctx context.Context, c Config, processors []int) (*result.Scaling, error) {
	c = c.withDefaults()
	start := time.Now()
	s := &result.Scaling{
		Date: start.UTC().Truncate(time.Second), Command: c.Command, Machine: machine(), Quick: c.Quick, Rounds: c.Rounds,
		Processors: processors, Peers: describe(c.Peers, c.Version),
	}
	for _, w := range c.Workloads {
		s.Rows = append(s.Rows, w.Rows()...)
	}
	all := make([]*cells, len(processors))
	for i := range all {
		all[i] = newCells(c, func(peer.Peer, Workload) bool { return true })
	}
	err := scalingRounds(ctx, c, processors, all)
	for _, cs := range all {
		s.Cells = append(s.Cells, cs.all())
	}
	s.Duration = time.Since(start).Round(time.Millisecond)
	return s, err
}

// scalingRounds measures the cells of each number of processors.
func scalingRounds(ctx context.Context, c Config, processors []int, all []*cells) error {
	defer c.Progress.end()
	env := c.env
	for round := range c.Rounds {
		for i, n := range processors {
			left := 0
			for k, cs := range all {
				rounds := c.Rounds - round
				if k < i {
					rounds-- // this one is done
				}
				left += rounds * cs.left()
			}
			c.Progress.expect(left)
			c.env = append(slices.Clone(env), fmt.Sprintf("GOMAXPROCS=%d", n))
			if err := all[i].round(ctx, c, round, c.Rounds); err != nil {
				return err
			}
		}
	}
	return nil
}

// scalingLines returns a head and lines of a table: what each peer takes in each workload, with each
// number of processors.
func scalingLines(s *result.Scaling) (head []string, lines [][]string) {
	head = []string{"", ""}
	for _, n := range s.Processors {
		head = append(head, fmt.Sprint(n))
	}
	for _, row := range s.Rows {
		for _, p := range s.Peers {
			line := []string{row.Name, p.Name}
			for _, cells := range s.Cells {
				i := slices.IndexFunc(cells, func(c result.Cell) bool { return c.Peer == p.ID && c.Workload == row.Workload })
				line = append(line, scalingCell(cells[i], row))
			}
			lines = append(lines, line)
		}
	}
	return head, lines
}

// scalingCell is the median of the rounds, or what is wrong.
func scalingCell(c result.Cell, row result.Row) string {
	if c.Skipped != "" || len(c.Samples) == 0 {
		return "–"
	}
	var values []float64
	var sent, received, disordered int64
	for _, s := range c.Samples {
		if s.Error != "" {
			return "failed: " + s.Error
		}
		values = append(values, s.Figures[row.Figure])
		sent, received, disordered = sent+s.Sent, received+s.Received, disordered+s.Disordered
	}
	slices.Sort(values)
	median := (values[(len(values)-1)/2] + values[len(values)/2]) / 2
	text := digits(median, row.Unit)
	switch {
	case received < sent:
		text += fmt.Sprintf(", lost %.2g %%", 100*float64(sent-received)/float64(sent))
	case received > sent:
		text += ", doubles"
	}
	if disordered > 0 {
		text += ", reorders"
	}
	return text
}

// ScalingTable writes s for a terminal.
func ScalingTable(w io.Writer, s *result.Scaling) error {
	fmt.Fprintf(w, "\nTime per delivery or request with so many processors (GOMAXPROCS), of %d. %s\n\n", s.Machine.Cores, medianOf(s))
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head, lines := scalingLines(s)
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for _, line := range lines {
		fmt.Fprintln(tw, strings.Join(line, "\t"))
	}
	return tw.Flush()
}

func medianOf(s *result.Scaling) string {
	if s.Rounds == 1 {
		return "One round."
	}
	return fmt.Sprintf("Medians of %d rounds.", s.Rounds)
}

// WriteScaling writes scaling.json and scaling.md into dir and returns their names.
func WriteScaling(dir string, s *result.Scaling) ([]string, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Scaling\n\n%s, on %s (%d cores), %s/%s, %s: `%s`\n\n", s.Date.Format(time.DateOnly), s.Machine.CPU, s.Machine.Cores,
		s.Machine.OS, s.Machine.Arch, s.Machine.Go, s.Command)
	fmt.Fprintf(&b, "Time per delivery or request with so many processors (GOMAXPROCS). %s With more than the machine has, they share.\n\n", medianOf(s))
	head, lines := scalingLines(s)
	fmt.Fprintf(&b, "| %s |\n|---|---%s|\n", strings.Join(head, " | "), strings.Repeat("|---:", len(s.Processors)))
	for _, line := range lines {
		fmt.Fprintf(&b, "| %s |\n", strings.ReplaceAll(strings.Join(line, " | "), "\n", " "))
	}
	var written []string
	for _, f := range []struct {
		name string
		data []byte
	}{{"scaling.json", append(data, '\n')}, {"scaling.md", []byte(b.String())}} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, f.data, 0o666); err != nil {
			return written, err
		}
		written = append(written, path)
	}
	return written, nil
}
