// Package result is what a run has found, in the form it is kept in (JSON).
package result

import "time"

// A Report is a whole run.
type Report struct {
	Date     time.Time     `json:"date"`
	Command  string        `json:"command"` // what to type to get such a report
	Machine  Machine       `json:"machine"`
	Quick    bool          `json:"quick"`
	Rounds   int           `json:"rounds"`   // repetitions, interleaved
	Duration time.Duration `json:"duration"` // of all
	Peers    []Peer        `json:"peers"`
	Rows     []Row         `json:"rows"`
	Cells    []Cell        `json:"cells"`
}

// A Machine is where it ran.
type Machine struct {
	CPU    string `json:"cpu"` // its model
	Cores  int    `json:"cores"`
	Memory uint64 `json:"memory"` // bytes
	OS     string `json:"os"`     // with its kernel's version
	Arch   string `json:"arch"`
	Go     string `json:"go"`
}

// A Peer is what took part.
type Peer struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Module  string `json:"module,omitempty"`
	Version string `json:"version,omitempty"`
	Kind    string `json:"kind"` // limit, async, sync
	Note    string `json:"note"`
}

// A Row is one figure of one workload. For all of them less is better.
type Row struct {
	ID       string `json:"id"`       // workload.figure: request.p99
	Workload string `json:"workload"` // request
	Figure   string `json:"figure"`   // p99
	Group    string `json:"group"`    // GroupLocal or GroupRemote
	Name     string `json:"name"`     // for people: request and reply, 99th percentile
	Unit     string `json:"unit"`     // ns, B, goroutines
	About    string `json:"about"`    // one sentence: what is measured
}

// The groups of rows.
const (
	GroupLocal  = "in one process"
	GroupRemote = "between two processes"
)

// A Cell is what one peer did in one workload: the samples of all rounds.
type Cell struct {
	Peer     string   `json:"peer"`
	Workload string   `json:"workload"`
	Skipped  string   `json:"skipped,omitempty"` // why there are no samples: the library has no such thing
	Samples  []Sample `json:"samples,omitempty"`
}

// A Sample is one measurement. Its counts include the warm-up.
type Sample struct {
	// Figures are by Row.Figure. One of net-latency is of no Row: rate, the messages a second of
	// which the rows' loads are percentages.
	Figures    map[string]float64 `json:"figures,omitempty"`
	CPU        float64            `json:"cpu,omitempty"`    // ns of processor time per delivery or request, all processes
	Allocs     float64            `json:"allocs,omitempty"` // per delivery or request, in one process; those of the near process else
	Sent       int64              `json:"sent,omitempty"`   // deliveries that were due
	Received   int64              `json:"received,omitempty"`
	Disordered int64              `json:"disordered,omitempty"` // deliveries that came after a later one of their sender, or twice
	Error      string             `json:"error,omitempty"`      // what ended it early
}
