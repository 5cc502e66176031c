// Package report shows what a run has found: as a table for a terminal, as Markdown, as plots, and as
// a part of the README.
//
// What it is bound to:
//
//   - A figure is the median of the rounds. Its spread is the least and the most that a round gave:
//     no round is thrown away.
//   - A figure with loss or disorder, or a round that failed, is shown and says so. It leads no row.
//   - Rows are judged among async libraries, gravbus as it is by default being one of them. Where
//     another is ahead of gravbus, a sentence says so.
//   - The same report gives the same bytes.
package report

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gravbus/gravbus/bench/internal/result"
)

// The files that Write makes. The plots are left out where the report has no rows for them.
const (
	jsonFile     = "report.json"
	markdownFile = "report.md"
	overviewFile = "overview.svg"
	localFile    = "in-process.svg"
	remoteFile   = "between-processes.svg"
	latencyFile  = "latency.svg"
)

// Write writes report.json, report.md, overview.svg, in-process.svg, between-processes.svg and
// latency.svg into dir, which it makes if need be, and returns the paths of what it wrote. If a
// file cannot be written it goes on with the others; the error names each.
func Write(dir string, r *result.Report) ([]string, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	v := newView(r)
	data, err := json.MarshalIndent(finiteOnly(r), "", "\t")
	errs := []error{err}
	var written []string
	write := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if data == nil {
			// What an earlier run has left there would look like part of this one.
			if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
			return
		}
		if err := os.WriteFile(path, data, 0o666); err != nil {
			errs = append(errs, err)
			return
		}
		written = append(written, path)
	}
	if err == nil {
		write(jsonFile, append(data, '\n'))
	}
	plots := v.plots()
	for _, p := range plots {
		write(p.file, p.data)
	}
	write(markdownFile, v.markdown(plots))
	return written, errors.Join(errs...)
}

// A plot is one of the images of a report.
type plot struct {
	file, alt string
	data      []byte // nil: there are no rows for it
}

func (v *view) plots() []plot {
	var local, remote, latency []*result.Row
	for i := range v.Rows {
		row := &v.Rows[i]
		switch {
		case !slices.ContainsFunc(v.row(row), (*figure).measured):
		case strings.Contains(row.Workload, "latency"):
			latency = append(latency, row)
		case row.Group == result.GroupLocal:
			local = append(local, row)
		case row.Group == result.GroupRemote:
			remote = append(remote, row)
		}
	}
	chart := func(title string, rows []*result.Row) []byte {
		if len(rows) == 0 {
			return nil
		}
		return v.bars(title, rows)
	}
	return []plot{
		{overviewFile, "How many times the figure of gravbus each peer has, in each row", v.overview()},
		{localFile, "The figures of all peers in one process", chart(result.GroupLocal, local)},
		{remoteFile, "The figures of all peers between two processes", chart(result.GroupRemote, remote)},
		{latencyFile, "One-way latency of all peers between two processes", chart("latency "+result.GroupRemote, latency)},
	}
}

// finiteOnly returns r without figures that JSON cannot hold: what is divided by no deliveries.
func finiteOnly(r *result.Report) *result.Report {
	clean := *r
	clean.Cells = slices.Clone(r.Cells)
	for i := range clean.Cells {
		samples := slices.Clone(clean.Cells[i].Samples)
		for j := range samples {
			s := &samples[j]
			s.Figures = maps.Clone(s.Figures)
			maps.DeleteFunc(s.Figures, func(_ string, x float64) bool { return !finite(x) })
			if !finite(s.CPU) {
				s.CPU = 0
			}
			if !finite(s.Allocs) {
				s.Allocs = 0
			}
		}
		clean.Cells[i].Samples = samples
	}
	return &clean
}
