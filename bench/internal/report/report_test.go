package report_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/bench/internal/report"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// one is a report with one row, in which gravbus and others have the samples given.
func one(cells map[string][]result.Sample) *result.Report {
	r := &result.Report{
		Rounds: 3,
		Peers: []result.Peer{
			{ID: "channel", Name: "channel", Kind: "limit"},
			{ID: "direct", Name: "direct", Kind: "limit"},
			{ID: "gravbus", Name: "gravbus", Kind: "async"},
			{ID: "gravbus-noreplay", Name: "gravbus, replay off", Kind: "async"},
			{ID: "alpha", Name: "alpha", Kind: "async"},
			{ID: "beta", Name: "beta", Kind: "async"},
			{ID: "sync", Name: "sync", Kind: "sync"},
		},
		Rows: []result.Row{{
			ID: "1-1.ns", Workload: "1-1", Figure: "ns", Group: result.GroupLocal, Name: "1 → 1", Unit: "ns",
		}},
	}
	for _, p := range r.Peers {
		if samples, ok := cells[p.ID]; ok {
			r.Cells = append(r.Cells, result.Cell{Peer: p.ID, Workload: "1-1", Samples: samples})
		}
	}
	return r
}

// took is a sample without fault for each value.
func took(values ...float64) []result.Sample {
	var samples []result.Sample
	for _, x := range values {
		samples = append(samples, result.Sample{Figures: map[string]float64{"ns": x}, Sent: 1000, Received: 1000})
	}
	return samples
}

func table(t *testing.T, r *result.Report) string {
	t.Helper()
	var out bytes.Buffer
	if err := report.Table(&out, r, 1000); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestStanding is about who leads a row, and what is said of it.
func TestStanding(t *testing.T) {
	lost, reordered, failed := took(1, 1, 1), took(1, 1, 1), took(1, 1, 1)
	lost[1].Received = 570
	reordered[2].Disordered = 1
	failed[0] = result.Sample{Error: "panic: no\nstack"}
	half := took(1, 1)
	half[0].Received, half[1].Received = 999, 1001

	type cells = map[string][]result.Sample
	for _, c := range []struct {
		name  string
		cells cells
		want  []string
		never []string
	}{
		{"ahead", cells{"gravbus": took(5, 6, 7), "alpha": took(8, 9, 10)}, []string{"leads 1 of 1 row "}, []string{"faster"}},
		{
			"behind",
			cells{"gravbus": took(31, 31, 31), "alpha": took(5.7, 5.7, 5.7)},
			[]string{"leads 0 of 1 row ", "alpha is faster than gravbus in 1-1: 5.70 against 31.0 ns.", "●5.70"},
			nil,
		},
		{
			"behind two",
			cells{"gravbus": took(31, 31, 31), "alpha": took(6, 6, 6), "beta": took(5, 5, 5)},
			[]string{"beta is faster than gravbus in 1-1: 5.00 against 31.0 ns; so is alpha (6.00 ns)."},
			nil,
		},
		{"medians, not means", cells{"gravbus": took(5, 6, 700), "alpha": took(8, 9, 10)}, []string{"leads 1 of 1 row "}, nil},
		{
			"spans overlap, 10 % apart",
			cells{"gravbus": took(60, 66, 70), "alpha": took(50, 60, 61)},
			[]string{"gravbus and alpha are about equal in 1-1: 66.0 and 60.0 ns.", "≈66.0", "●60.0", "leads 0 of 1 row "},
			[]string{"faster"},
		},
		{
			"spans overlap, more than 10 % apart",
			cells{"gravbus": took(1, 67, 90), "alpha": took(1, 60, 90)},
			[]string{"alpha is faster than gravbus in 1-1: 60.0 against 67.0 ns."},
			[]string{"≈67.0", "equal in 1-1"},
		},
		{
			"near, but spans apart",
			cells{"gravbus": took(62, 63, 64), "alpha": took(59, 60, 61)},
			[]string{"alpha is faster than gravbus in 1-1: 60.0 against 63.0 ns."},
			[]string{"≈63.0", "equal in 1-1"},
		},
		{
			"spans apart, but written the same",
			cells{"gravbus": took(1002, 1002), "alpha": took(1001, 1001)},
			[]string{"gravbus and alpha are about equal in 1-1: 1.00 and 1.00 µs."},
			[]string{"faster"},
		},
		{
			"a tie",
			cells{"gravbus": took(5, 5), "alpha": took(6, 6), "beta": took(5, 5)},
			[]string{"gravbus and beta are about equal in 1-1: 5.00 and 5.00 ns.", "gravbus  ●5.00", "beta     ●5.00"},
			[]string{"●6.00", "≈6.00"},
		},
		// alpha's rounds are too wide to tell it from gravbus, but beta's are not.
		{
			"behind one, equal with the best",
			cells{"gravbus": took(69, 70, 80), "alpha": took(30, 64, 120), "beta": took(64, 65, 66)},
			[]string{"beta is faster than gravbus in 1-1: 65.0 against 70.0 ns."},
			[]string{"equal in 1-1", "so is"},
		},
		{
			"limits and sync do not count",
			cells{"gravbus": took(5, 5, 5), "channel": took(1, 1, 1), "sync": took(1, 1, 1), "alpha": took(9, 9, 9)},
			[]string{"leads 1 of 1 row ", "●5.00"},
			[]string{"faster"},
		},
		{
			"another setting does not count",
			cells{"gravbus": took(5, 5, 5), "gravbus-noreplay": took(1, 1, 1), "alpha": took(3, 3, 3)},
			[]string{"alpha is faster than gravbus", "●3.00"},
			[]string{"●1.00"},
		},
		{
			"nobody else",
			cells{"gravbus": took(5, 5, 5), "gravbus-noreplay": took(9, 9, 9)},
			[]string{"leads 0 of 0 rows ", "No other async library has a valid figure in 1-1."},
			nil,
		},
		{
			"loss does not win",
			cells{"gravbus": took(5, 5, 5), "alpha": lost},
			[]string{"lost 14 %", "alpha in 1-1: lost 430 of 3,000 deliveries (14 %).", "No other async library has a valid figure"},
			[]string{"faster", "●1.00"},
		},
		{
			"disorder does not win",
			cells{"gravbus": took(5, 5, 5), "alpha": reordered, "beta": took(6, 6, 6)},
			[]string{"reorders", "leads 1 of 1 row "},
			[]string{"faster", "●1.00"},
		},
		{
			"failure does not win",
			cells{"gravbus": took(5, 5, 5), "alpha": failed, "beta": took(6, 6, 6)},
			[]string{"failed 1/3", "alpha in 1-1: failed in 1 of 3 rounds: panic: no.", "leads 1 of 1 row "},
			[]string{"stack", "●1.00"},
		},
		{
			"loss is not made up for by doubles",
			cells{"gravbus": took(5, 5, 5), "alpha": half},
			[]string{"lost <0.1 %", "doubles", "1 delivery more than the 2,000 that were due"},
			[]string{"●1.00"},
		},
		{
			"gravbus is no exception",
			cells{"gravbus": lost, "alpha": took(9, 9, 9)},
			[]string{"gravbus has no valid figure in 1-1: lost 14 %.", "leads 0 of 0 rows ", "●9.00"},
			[]string{"●1.00"},
		},
		{"gravbus missing", cells{"alpha": took(9, 9, 9)}, []string{"gravbus was not measured."}, nil},
		{"samples without the figure", cells{"gravbus": took(5, 5, 5), "alpha": {{}, {}}}, []string{"no figure", "alpha in 1-1: no figure came of it."}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := table(t, one(c.cells))
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			for _, never := range c.never {
				if strings.Contains(got, never) {
					t.Errorf("%q in\n%s", never, got)
				}
			}
		})
	}
}

// The verb of a sentence is that of the unit.
func TestStandingWords(t *testing.T) {
	samples := map[string][]result.Sample{"gravbus": took(31), "alpha": took(6), "beta": took(5)}
	for unit, want := range map[string]string{
		"ns":         "beta is faster than gravbus in 1-1: 5.00 against 31.0 ns; so is alpha (6.00 ns).",
		"B":          "beta needs less memory than gravbus in 1-1: 5 against 31 B; so does alpha (6 B).",
		"goroutines": "beta needs fewer goroutines than gravbus in 1-1: 5 against 31 goroutines; so does alpha (6 goroutines).",
	} {
		r := one(samples)
		r.Rows[0].Unit = unit
		if got := table(t, r); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in\n%s", unit, want, got)
		}
	}
}

// Where the machine is too small for a sender that keeps time, the report says so.
func TestSmallMachine(t *testing.T) {
	const caveat = "show the machine's scheduling as much as the peer"
	sample := []result.Sample{{Figures: map[string]float64{"ns": 5, "rate": 1e6}, Sent: 9, Received: 9}}
	for cores, want := range map[int]bool{2: true, 3: true, 4: false} {
		r := one(map[string][]result.Sample{"gravbus": sample})
		r.Machine.Cores = cores
		if got := strings.Contains(table(t, r), caveat); got != want {
			t.Errorf("%d cores: says so is %t, want %t", cores, got, want)
		}
	}
	r := one(map[string][]result.Sample{"gravbus": took(5)})
	r.Machine.Cores = 2
	if strings.Contains(table(t, r), caveat) {
		t.Error("said of a run without loads")
	}
}

// A run in which nothing came divides by nothing. What it has besides is kept.
func TestWriteWithoutFigures(t *testing.T) {
	for name, r := range map[string]*result.Report{
		"empty":    {},
		"no cells": one(nil),
		"not finite": one(map[string][]result.Sample{
			"gravbus": {{Figures: map[string]float64{"ns": math.NaN()}, CPU: math.Inf(1), Allocs: math.NaN(), Sent: 9}},
			"alpha":   took(1, math.Inf(1), 2),
		}),
		"zero": one(map[string][]result.Sample{"gravbus": took(0), "alpha": took(0), "beta": took(1)}),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			written, err := report.Write(dir, r)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range written {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if filepath.Ext(path) == ".svg" {
					wellFormed(t, path, data)
				}
			}
			for _, must := range []string{"report.json", "report.md"} {
				if !slices.Contains(written, filepath.Join(dir, must)) {
					t.Errorf("no %s in %v", must, written)
				}
			}
			table(t, r)
		})
	}
}

// A plot that this run has no rows for must not be taken for one of it.
func TestWriteRemovesOldPlots(t *testing.T) {
	dir := t.TempDir()
	if _, err := report.Write(dir, made(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Write(dir, one(map[string][]result.Sample{"gravbus": took(1)})); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"between-processes.svg", "latency.svg"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s of the earlier run is still there", name)
		}
	}
}
