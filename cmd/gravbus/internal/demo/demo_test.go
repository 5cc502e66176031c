package demo_test

import (
	"context"
	"encoding/binary"
	"os"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/cmd/gravbus/internal/demo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// play plays the story, and fails the test if that does not end.
func play(t *testing.T, cfg demo.Config) (string, *demo.Report) {
	t.Helper()
	var out strings.Builder
	var report *demo.Report
	done := make(chan error, 1)
	go func() { // ends with the story
		var err error
		report, err = demo.Run(context.Background(), &out, cfg)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		t.Fatal("the story does not end")
	}
	return out.String(), report
}

func TestEveryCheckIsThere(t *testing.T) {
	out, report := play(t, demo.Config{Messages: 1003})
	want := []string{
		"patterns: kitchen received", "patterns: till received", "patterns: audit received", "patterns: web received",
		"requests: price of a teapot", "requests: error came back", "requests: no responders, told", "requests: quotes",
		"requests: ship named as missing",
		"group: parcels packed", "group: none packed twice", "group: packed by dora",
		"replay: board received", "replay: screen received", "replay: no gap", "replay: none doubled",
		"slow: display received", "slow: printer received", "slow: losses told to printer", "slow: received + lost",
		"slow: notices", "slow: no gap without notice", "slow: events for ops",
		"failures: letters delivered", "failures: none delivered twice", "failures: panics caught", "failures: failed calls",
		"failures: the dead letter", "failures: dead letters",
		"storm: received", "storm: none out of order", "storm: none doubled",
		"books: sent", "books: handled", "books: lost",
	}
	var got []string
	for _, c := range report.Checks {
		got = append(got, c.Act+": "+c.Name)
		if !c.OK || c.Expected != c.Got {
			t.Errorf("%+v", c)
		}
		if !strings.Contains(out, c.Name) {
			t.Errorf("%q is not told", c.Name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("checks:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !report.OK {
		t.Error("not ok")
	}
	if i := slices.IndexFunc(report.Checks, func(c demo.Check) bool { return c.Act == "storm" }); report.Checks[i].Got != 4*1003 {
		t.Errorf("the storm: %+v", report.Checks[i])
	}
}

var (
	figures = regexp.MustCompile(`(speed +).*|(, in )[0-9.]+ s`)
	escapes = regexp.MustCompile("\x1b\\[[0-9]*m")
)

func withoutFigures(s string) string { return figures.ReplaceAllString(s, "$1$2") }

func TestSameStoryEachTime(t *testing.T) {
	first, _ := play(t, demo.Config{Messages: 5000})
	again, _ := play(t, demo.Config{Messages: 5000})
	if a, b := withoutFigures(first), withoutFigures(again); a != b {
		t.Errorf("first:\n%s\nthen:\n%s", a, b)
	}
	colored, _ := play(t, demo.Config{Messages: 5000, Color: true})
	if !escapes.MatchString(colored) || escapes.MatchString(first) {
		t.Error("colors are where they should not be, or not where they should")
	}
	if a, b := withoutFigures(first), withoutFigures(escapes.ReplaceAllString(colored, "")); a != b {
		t.Errorf("plain:\n%s\ncolored, but for colors:\n%s", a, b)
	}
}

func TestStoryFitsATerminal(t *testing.T) {
	out, _ := play(t, demo.Config{Messages: 250_000})
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > 100 || strings.TrimRight(line, " ") != line {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	_, table, _ := strings.Cut(out, "\n  act ")
	if n := strings.Count(table, "\n"); n > 38 { // of 40: there is the prompt, too
		t.Errorf("the table and the last word take %d lines", n)
	}
}

func TestSmallestStorm(t *testing.T) {
	if _, report := play(t, demo.Config{Messages: 1}); !report.OK {
		t.Errorf("%+v", report.Checks)
	}
}

func TestWrongCount(t *testing.T) {
	out, report := play(t, demo.Config{Messages: 1, Options: []gravbus.Option{gravbus.UseReplay(0)}})
	if report.OK {
		t.Error("ok without replay")
	}
	for _, want := range []string{"✗ board received: 900, not 905", ` 905 +900  ✗\n`, "✗ screen received: ", `✗ Wrong: 2 of 35 counts\.`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// What measures must itself see what is wrong.

func TestGaugeSees(t *testing.T) {
	drop := func(sender, n int) gravbus.Message {
		return gravbus.NewMsg("storm.drop", binary.BigEndian.AppendUint64(nil, uint64(sender)<<56|uint64(n)))
	}
	for _, tt := range []struct {
		name                    string
		drops                   [][2]int // sender and number
		received, late, doubled int64
	}{
		{"nothing", nil, 0, 0, 0},
		{"all in order", [][2]int{{0, 0}, {1, 0}, {0, 1}, {1, 1}, {0, 2}}, 5, 0, 0},
		{"one lost", [][2]int{{0, 0}, {0, 2}}, 2, 0, 0},
		{"two swapped", [][2]int{{0, 0}, {0, 2}, {0, 1}}, 3, 1, 0},
		{"one doubled", [][2]int{{0, 0}, {1, 0}, {1, 0}}, 3, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := demo.NewGauge(100, 100)
			for _, d := range tt.drops {
				if err := g.Handle(drop(d[0], d[1])); err != nil {
					t.Fatal(err)
				}
			}
			if received, late, doubled := g.Found(); received != tt.received || late != tt.late || doubled != tt.doubled {
				t.Errorf("received %d, late %d, doubled %d", received, late, doubled)
			}
		})
	}
}

func TestSequenceSees(t *testing.T) {
	for _, tt := range []struct {
		name    string
		numbers []int64
		want    [5]int64 // first, last, n, missing, unordered
	}{
		{"nothing", nil, [5]int64{}},
		{"all", []int64{5, 6, 7}, [5]int64{5, 7, 3, 0, 0}},
		{"gap", []int64{5, 8}, [5]int64{5, 8, 2, 2, 0}},
		{"doubled", []int64{5, 5, 6}, [5]int64{5, 6, 3, 0, 1}},
		{"late", []int64{5, 7, 6}, [5]int64{5, 7, 3, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got [5]int64
			got[0], got[1], got[2], got[3], got[4] = demo.Sequence(tt.numbers...)
			if got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 100_000_000: "100,000,000", -1234: "-1,234", -999: "-999"} {
		if got := demo.Number(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
