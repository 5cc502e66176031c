package run

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Progress tells a person how far a run is: on a terminal one line that changes, else a line for each
// row. A nil Progress tells nothing.
type Progress struct {
	w        io.Writer
	terminal bool
	width    int

	start       time.Time
	done, total int // in units of what one of the shortest takes
	round       string
}

// NewProgress returns one that writes to w, which is a terminal so many columns wide or none.
func NewProgress(w io.Writer, terminal bool, width int) *Progress {
	return &Progress{w: w, terminal: terminal, width: width}
}

// expect says how much is to come.
func (p *Progress) expect(n int) {
	if p == nil {
		return
	}
	if p.start.IsZero() {
		p.start = time.Now()
	}
	p.total = p.done + n
}

// row says which row is next.
func (p *Progress) row(round, rounds int, cells []cell) {
	if p == nil {
		return
	}
	peers := 0
	for i := range cells {
		if !cells[i].finished() {
			peers++
		}
	}
	p.round = fmt.Sprintf("round %d/%d", round+1, rounds)
	if !p.terminal {
		fmt.Fprintf(p.w, "%s %s: %s%s\n", p.round, cells[0].Workload, count(peers, "peer"), p.left())
	}
}

// cell says what is measured now.
func (p *Progress) cell(cl *cell) {
	if p == nil {
		return
	}
	if p.terminal {
		const columns = 20
		full := columns * p.done / max(p.total, 1)
		line := fmt.Sprintf("%s%s %d/%d%s  %s  %s: %s", strings.Repeat("█", full), strings.Repeat("░", columns-full),
			p.done, p.total, p.left(), p.round, cl.Workload, cl.peer.Name)
		if runes := []rune(line); p.width > 0 && len(runes) >= p.width {
			line = string(runes[:p.width-1])
		}
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	}
	p.done += cl.workload.weight()
}

// left returns how long it will take, from what it has taken so far.
func (p *Progress) left() string {
	if p.done == 0 || p.total <= p.done {
		return ""
	}
	left := time.Since(p.start) / time.Duration(p.done) * time.Duration(p.total-p.done)
	if left < time.Minute {
		return fmt.Sprintf(", %d s left", int(left.Seconds())+1)
	}
	return fmt.Sprintf(", %d min left", int(left.Minutes()+0.5))
}

// end removes the line.
func (p *Progress) end() {
	if p != nil && p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// count says n things, in words for people.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
