package demo

import "github.com/gravbus/gravbus"

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
