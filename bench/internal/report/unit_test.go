package report_test

import (
	"testing"

	"github.com/gravbus/gravbus/bench/internal/report"
)

func TestQuantity(t *testing.T) {
	for _, c := range []struct {
		x    float64
		unit string
		want string
	}{
		{0, "ns", "0 ns"},
		{0.0001, "ns", "<0.001 ns"},
		{0.25, "ns", "0.250 ns"},
		{5.7, "ns", "5.70 ns"},
		{31, "ns", "31.0 ns"},
		{99.96, "ns", "100 ns"},
		{999.4, "ns", "999 ns"},
		{999.6, "ns", "1.00 µs"}, // not 1,000 ns
		{1234, "ns", "1.23 µs"},
		{3.4e6, "ns", "3.40 ms"},
		{2e9, "ns", "2.00 s"},
		{12345e9, "ns", "12,300 s"},
		{48, "B", "48 B"},
		{641.27, "B", "641 B"},
		{1023, "B", "1,020 B"},
		{1536, "B", "1.50 KiB"},
		{8 << 30, "B", "8.00 GiB"},
		{0, "goroutines", "0 goroutines"},
		{1, "goroutines", "1 goroutine"},
		{1.5, "goroutines", "1.5 goroutines"},
	} {
		if got := report.Quantity(c.x, c.unit); got != c.want {
			t.Errorf("%v %s: got %q, want %q", c.x, c.unit, got, c.want)
		}
	}
}

func TestPair(t *testing.T) {
	for _, c := range []struct {
		x, y float64
		want string
	}{
		{5.7, 31, "5.70 against 31.0 ns"},
		{999, 1200, "999 ns against 1.20 µs"},
	} {
		if got := report.Pair(c.x, "against", c.y, "ns"); got != c.want {
			t.Errorf("%v, %v: got %q, want %q", c.x, c.y, got, c.want)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		x, y float64
		want string
	}{
		{102, 100, "1.02×"},
		{110, 100, "1.1×"},
		{54, 10, "5.4×"},
		{99.4, 10, "9.9×"},
		{99.6, 10, "10×"},
		{1234, 1, "1,200×"},
		{1, 5, "0.20×"},
	} {
		if got := report.Ratio(c.x, c.y); got != c.want {
			t.Errorf("%v to %v: got %q, want %q", c.x, c.y, got, c.want)
		}
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		want        string
	}{
		{100, 100, "100 %"}, {99999, 100000, ">99 %"}, {43, 100, "43 %"}, {12, 1000, "1.2 %"}, {1, 1e9, "<0.1 %"},
	} {
		if got := report.Percent(c.part, c.whole); got != c.want {
			t.Errorf("%d of %d: got %q, want %q", c.part, c.whole, got, c.want)
		}
	}
}

func TestPerSecond(t *testing.T) {
	for x, want := range map[float64]string{3.1e6: "3.10 M/s", 999_900: "1.00 M/s", 52_800: "52.8 k/s", 12: "12.0 /s"} {
		if got := report.PerSecond(x); got != want {
			t.Errorf("%v: got %q, want %q", x, got, want)
		}
	}
}

// A note or an error that a library wrote cannot break the tables.
func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"a|b":                  `a\|b`,
		"<b>\x1b[31m*x*":       `&lt;b&gt;\[31m\*x\*`,
		"`a_b` and c_d":        "`a_b` and c\\_d",
		"a stray ` and c_d":    "a stray \\` and c\\_d",
		"two\nlines":           "two lines",
		"`\x1b[31m\n":          "\\`\\[31m ",
		"chan<- of `chan<- x`": "chan&lt;- of `chan<- x`",
	} {
		if got := report.Text(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
