package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// faults lists what went wrong, a line for each peer and workload: failures, loss, disorder.
func (v *view) faults() []string {
	var lines []string
	seen := make(map[[2]string]bool)
	for i := range v.Rows {
		for _, f := range v.row(&v.Rows[i]) {
			id := [2]string{f.row.Workload, f.peer.ID}
			if seen[id] || !f.measured() || len(f.flaws()) == 0 {
				continue
			}
			seen[id] = true
			lines = append(lines, fmt.Sprintf("%s in %s: %s.", f.peer.Name, f.row.Workload, strings.Join(f.account(), "; ")))
		}
	}
	return lines
}

// account says what went wrong, in full.
func (f *figure) account() []string {
	var parts []string
	if f.failed > 0 {
		parts = append(parts, fmt.Sprintf("failed in %d of %s: %s", f.failed, plural(f.rounds, "round"),
			strings.TrimSuffix(f.reason, ".")))
	}
	if f.lost > 0 {
		parts = append(parts, fmt.Sprintf("lost %s of %s deliveries (%s)", count(f.lost), count(f.due), percent(f.lost, f.due)))
	}
	if f.doubled > 0 {
		parts = append(parts, fmt.Sprintf("%s more than the %s that were due", deliveries(f.doubled), count(f.due)))
	}
	if f.disordered > 0 {
		parts = append(parts, fmt.Sprintf("%s out of order or twice, with %s due", deliveries(f.disordered), count(f.due)))
	}
	if len(parts) == 0 {
		parts = append(parts, "no figure came of it")
	}
	return parts
}

func deliveries(n int64) string {
	if n == 1 {
		return "1 delivery"
	}
	return count(n) + " deliveries"
}

// skipped lists the cells without samples, with the reason: one line for each reason and set of
// workloads, with the peers it holds for.
func (v *view) skipped() []string {
	type key struct{ peer, reason string }
	type line struct{ reason, workloads string }
	var (
		keys      []key
		workloads = make(map[key][]string)
		lines     []line
		peers     = make(map[line][]string)
		all       = make(map[string][]string) // workloads by group
	)
	for i := range v.Rows {
		row := &v.Rows[i]
		if slices.Contains(all[row.Group], row.Workload) {
			continue
		}
		all[row.Group] = append(all[row.Group], row.Workload)
		for _, f := range v.row(row) {
			if f.cell == nil || f.cell.Skipped == "" {
				continue
			}
			k := key{f.peer.Name, strings.TrimSuffix(firstLine(f.cell.Skipped), ".")}
			if workloads[k] == nil {
				keys = append(keys, k)
			}
			workloads[k] = append(workloads[k], row.Workload)
		}
	}
	names := func(set []string) string {
		var words []string
		for _, g := range v.groups() {
			in := slices.DeleteFunc(slices.Clone(set), func(w string) bool { return !slices.Contains(all[g], w) })
			if len(all[g]) > 1 && len(in) == len(all[g]) {
				in = []string{"all " + g}
			}
			words = append(words, in...)
		}
		return strings.Join(words, ", ")
	}
	for _, k := range keys {
		l := line{k.reason, names(workloads[k])}
		if peers[l] == nil {
			lines = append(lines, l)
		}
		peers[l] = append(peers[l], k.peer)
	}
	text := make([]string, len(lines))
	for i, l := range lines {
		text[i] = fmt.Sprintf("%s (%s): %s.", strings.Join(peers[l], "; "), l.workloads, l.reason)
	}
	return text
}

// pacedCores is how many cores leave one to the sender that keeps time, beside two busy processes.
const pacedCores = 4

// rates says for each workload whose loads are shares of a peer's own maximum what those maxima
// are: a share of a high rate is more work than the same share of a low one. On a small machine it
// says what else is in these figures.
func (v *view) rates() []string {
	var lines, seen []string
	for i := range v.Rows {
		row := &v.Rows[i]
		if slices.Contains(seen, row.Workload) {
			continue
		}
		seen = append(seen, row.Workload)
		var parts []string
		for _, f := range v.row(row) {
			if f.rate > 0 {
				parts = append(parts, f.peer.Name+" "+perSecond(f.rate))
			}
		}
		if len(parts) > 0 {
			line := fmt.Sprintf("The loads of %s are shares of what each peer can send at most, so the rates differ: %s.",
				row.Workload, strings.Join(parts, "; "))
			if v.Machine.Cores < pacedCores {
				line += fmt.Sprintf(" With less than %d cores, as here, the higher of these latencies show the machine's scheduling "+
					"as much as the peer.", pacedCores)
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// missing reports whether a cell was neither measured nor skipped.
func (v *view) missing() bool {
	for _, f := range v.figures {
		if !f.measured() && (f.cell == nil || f.cell.Skipped == "") {
			return true
		}
	}
	return false
}

// machine describes in a line where the run was.
func (v *view) machine() string {
	m := v.Machine
	parts := []string{cmp.Or(m.CPU, "unknown processor"), plural(m.Cores, "core")}
	if m.Memory > 0 {
		parts = append(parts, quantity(float64(m.Memory), "B"))
	}
	parts = append(parts, strings.TrimSpace(m.OS+" "+m.Arch), m.Go)
	parts = slices.DeleteFunc(parts, func(p string) bool { return p == "" })
	return printable(strings.Join(parts, ", "))
}

// rounds says what the figures are made of.
func (v *view) rounds() string {
	text := "medians of " + plural(v.Rounds, "round")
	if v.Rounds == 1 {
		text = "one round: differences may be chance"
	}
	if v.Quick {
		text += ", a quick run: rough"
	}
	return text
}

// What the kinds of peers are, for the heads of tables.
var kindHeads = []struct{ kind, head string }{
	{kindLimit, "limits: what any bus is made of"},
	{kindAsync, "async: messages are handed over"},
	{kindSync, "sync: receivers run within the publishing call"},
}

// rule says how rows are judged.
const rule = "Limits and sync libraries do other work than a bus that hands messages over: they are shown apart and " +
	"lead no row, nor does gravbus with other settings than its defaults, nor a library that loses or reorders messages " +
	"or fails in a row. " + equalRule

// equalRule says what figure.equal does.
const equalRule = "Two figures are about equal if the spans of their rounds overlap and the medians differ by no more than " +
	"10 %, or if both are written the same."
