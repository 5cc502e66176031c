package demo

import (
	"io"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport"
)

// Gauge is what the storm is measured with.
type Gauge struct{ g *gauge }

// NewGauge returns a gauge for so many messages of each sender.
func NewGauge(share ...int) Gauge { return Gauge{newGauge(share)} }

// Handle is the gauge's handler.
func (g Gauge) Handle(msg gravbus.Message) error { return g.g.handle(msg) }

// Found returns what the gauge has found.
func (g Gauge) Found() (received, late, doubled int64) { return g.g.received, g.g.late, g.g.doubled }

// Sequence looks at the numbers and returns what it has found.
func Sequence(numbers ...int64) (first, last, n, missing, unordered int64) {
	var q sequence
	for _, n := range numbers {
		q.add(n)
	}
	return q.first, q.last, q.n, q.missing, q.unordered
}

// Number is how counts are written.
func Number(n int64) string { return number(n) }

// Stream looks at the numbers and returns what it has seen.
func Stream(numbers ...int64) Seen {
	var s stream
	for _, n := range numbers {
		s.add(n)
	}
	return s.seen
}

// Sum closes the books of a mesh in which cedar has seen that of due messages, and prints them.
func Sum(w io.Writer, due int64, seen Seen) *MeshReport {
	m := &mesh{out: &printer{w: w, columns: 78}, report: &MeshReport{}, books: map[string]*account{}}
	for _, name := range crewNames {
		m.books[name] = &account{}
	}
	m.books["cedar"] = &account{due: map[string]int64{"demo.x.alder": due}, seen: map[string]Seen{"demo.x.alder": seen}}
	m.sum()
	m.out.meshSummary(m.report)
	return m.report
}

// NewCable returns t as a transport with a cable, and what pulls it out and plugs it in.
func NewCable(t transport.Transport) (pull, plug func(), cable transport.Transport) {
	c := newCable(t)
	return c.pull, c.plug, c
}
