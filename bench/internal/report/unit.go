package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
)

// A scale is a unit in which figures of a smaller one are written.
type scale struct {
	name string
	size float64
}

// scales returns the units for a base unit, the smallest first.
func scales(unit string) []scale {
	switch unit {
	case "ns":
		return []scale{{"ns", 1}, {"µs", 1e3}, {"ms", 1e6}, {"s", 1e9}}
	case "B":
		return []scale{{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}}
	}
	return []scale{{unit, 1}}
}

// scaleFor returns the largest scale in which x, as it is written, is at least one.
func scaleFor(x float64, unit string) scale {
	all := scales(unit)
	best := all[0]
	for _, s := range all[1:] {
		if round3(x) >= s.size {
			best = s
		}
	}
	return best
}

// in writes x in the scale, without its name.
func (s scale) in(x float64) string {
	text := digits(x / s.size)
	if s.name != "ns" && s.size == 1 && strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".") // bytes, goroutines: what is whole looks whole
	}
	return text
}

// quantity writes x with its unit: 31.0 ns, 1.20 µs, 640 B.
func quantity(x float64, unit string) string {
	s := scaleFor(x, unit)
	text := s.in(x)
	if text == "1" {
		return text + " " + strings.TrimSuffix(s.name, "s")
	}
	return text + " " + s.name
}

// pair writes two figures of one unit with a word between: 5.70 against 31.0 ns.
func pair(x float64, word string, y float64, unit string) string {
	s := scaleFor(x, unit)
	if s == scaleFor(y, unit) {
		return s.in(x) + " " + word + " " + s.in(y) + " " + s.name
	}
	return quantity(x, unit) + " " + word + " " + quantity(y, unit)
}

// ratio writes how many times y goes into x: 5.4×.
func ratio(x, y float64) string {
	r := x / y
	switch {
	case r >= 9.95:
		return group(strconv.FormatFloat(round2(r), 'f', 0, 64)) + "×"
	case r >= 1.095:
		return strconv.FormatFloat(r, 'f', 1, 64) + "×"
	}
	return strconv.FormatFloat(r, 'f', 2, 64) + "×"
}

// digits writes x with three significant digits, thousands set apart by commas.
func digits(x float64) string {
	if x == 0 {
		return "0"
	}
	if math.Abs(x) < 0.0005 {
		return "<0.001"
	}
	x = round3(x)
	decimals := 2 - int(math.Floor(math.Log10(math.Abs(x))+1e-9))
	return group(strconv.FormatFloat(x, 'f', min(max(decimals, 0), 3), 64))
}

func round3(x float64) float64 { return round(x, 3) }

func round2(x float64) float64 { return round(x, 2) }

// round rounds x to n significant digits.
func round(x float64, n int) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(x, 'e', n-1, 64), 64)
	if err != nil {
		return x // not reached: what FormatFloat writes, ParseFloat reads
	}
	return rounded
}

// group sets the thousands of a number without exponent apart.
func group(number string) string {
	whole, fraction, _ := strings.Cut(number, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction != "" {
		return whole + "." + fraction
	}
	return whole
}

// perSecond writes a rate: 3.10 M/s.
func perSecond(x float64) string {
	switch x = round3(x); {
	case x >= 1e6:
		return digits(x/1e6) + " M/s"
	case x >= 1e3:
		return digits(x/1e3) + " k/s"
	}
	return digits(x) + " /s"
}

// percent writes how much part is of whole. Only nothing is 0 %, and only all is 100 %.
func percent(part, whole int64) string {
	p := 100 * float64(part) / float64(whole)
	switch {
	case part == whole:
		return "100 %"
	case p > 99:
		return ">99 %"
	case p >= 10:
		return fmt.Sprintf("%.0f %%", p)
	case p >= 0.1:
		return fmt.Sprintf("%.1f %%", p)
	}
	return "<0.1 %"
}

func count(n int64) string { return group(strconv.FormatInt(n, 10)) }

// plural writes n things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

// printable drops what neither a terminal nor XML should get.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text)
}
