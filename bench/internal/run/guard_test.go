package run

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

func TestGuard(t *testing.T) {
	for _, test := range []struct {
		name, bound, broken string
	}{
		{"kept", `{"row":"1-1.ns","peer":"right","versus":"doubles","max_ratio":1000,"max_allocs":1000}`, ""},
		{"too slow", `{"row":"1-1.ns","peer":"right","versus":"doubles","max_ratio":1e-9}`, "times what doubles takes; 0.00 is allowed (bounds[0] of guard.json)"},
		{"allocates", `{"row":"1-1-new.ns","peer":"right","versus":"right","max_ratio":10,"max_allocs":-1}`, "times per operation; -1 is allowed"},
		{"loses", `{"row":"1-1.ns","peer":"loses","versus":"right","max_ratio":1000}`, "messages arrived"},
		{"reorders", `{"row":"4-4.ns","peer":"reorders","versus":"right","max_ratio":1000}`, ""},
		{"no peer to compare with", `{"row":"1-1.ns","peer":"right","versus":"fails","max_ratio":1000}`, "could not be compared"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, err := ReadBounds([]byte(`{"bounds":[`+test.bound+`]}`), fakes())
			if err != nil {
				t.Fatal(err)
			}
			c := config(t, "right doubles loses reorders fails", "")
			var table bytes.Buffer
			broken, err := Guard(t.Context(), c, b, &table)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case test.name == "reorders": // or loses the last one
				if len(broken) != 1 {
					t.Errorf("broken: %q", broken)
				}
			case (len(broken) > 0) != (test.broken != "") || !strings.Contains(strings.Join(broken, " "), test.broken):
				t.Errorf("broken: %q, want %q", broken, test.broken)
			}
			if !strings.Contains(table.String(), b.Bounds[0].Row) {
				t.Errorf("table:\n%s", table.String())
			}
		})
	}
}

func TestBadBounds(t *testing.T) {
	for _, data := range []string{
		`{"bounds":[{"row":"1-1.ns","peer":"right","versus":"nobody","max_ratio":1}]}`,
		`{"bounds":[{"row":"1-1","peer":"right","versus":"right","max_ratio":1}]}`,
		`{"bounds":[{"row":"1-1.ns","peer":"right","versus":"right"}]}`,
		`{"bounds":[{"rwo":"1-1.ns"}]}`,
		`{`,
	} {
		if _, err := ReadBounds([]byte(data), []peer.Peer{{ID: "right"}}); err == nil {
			t.Errorf("no error: %s", data)
		}
	}
}

func TestScaling(t *testing.T) {
	s, err := Scaling(t.Context(), config(t, "right loses without", "1-1 request"), []int{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files, err := WriteScaling(dir, s)
	if err != nil || len(files) != 2 {
		t.Fatalf("wrote %v: %v", files, err)
	}
	var table bytes.Buffer
	if err := ScalingTable(&table, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"right", "lost", "–", "request, p99", "failed: "} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, table.String())
		}
	}
}

// The rounds go through all numbers of processors, and another peer begins in each.
func TestScalingOrder(t *testing.T) {
	c := config(t, "right loses", "1-1")
	var told bytes.Buffer
	c.Rounds, c.Progress = 2, NewProgress(&told, true, 0)
	if _, err := Scaling(t.Context(), c, []int{1, 2}); err != nil {
		t.Fatal(err)
	}
	left := strings.NewReplacer("█", "", "░", "")
	var got []string
	for line := range strings.SplitSeq(told.String(), "\r\x1b[K") {
		if words := strings.Fields(left.Replace(line)); len(words) > 0 {
			got = append(got, strings.TrimSuffix(words[0], ",")+" "+strings.Join(words[len(words)-4:], " "))
		}
	}
	want := []string{
		"0/8 round 1/2 1-1: right", "1/8 round 1/2 1-1: loses", "2/8 round 1/2 1-1: right", "3/8 round 1/2 1-1: loses",
		"4/8 round 2/2 1-1: loses", "5/8 round 2/2 1-1: right", "6/8 round 2/2 1-1: loses", "7/8 round 2/2 1-1: right",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
