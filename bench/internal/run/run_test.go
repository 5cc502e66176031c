package run

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// config is for measurements that are quick, and wrong.
func config(t *testing.T, peers, workloads string) Config {
	t.Helper()
	c := Config{Rounds: 1, target: 10 * time.Millisecond, silence: 100 * time.Millisecond, limit: 30 * time.Second}
	c.env = []string{"GORACE=halt_on_error=1 atexit_sleep_ms=0"}
	for id := range strings.FieldsSeq(peers) {
		i := slices.IndexFunc(fakes(), func(p peer.Peer) bool { return p.ID == id })
		c.Peers = append(c.Peers, fakes()[i])
	}
	for _, w := range Workloads() {
		if workloads == "" || slices.Contains(strings.Fields(workloads), w.ID) {
			c.Workloads = append(c.Workloads, w)
		}
	}
	return c
}

// measureOne returns the cell of one peer and one workload.
func measureOne(t *testing.T, c Config) result.Cell {
	t.Helper()
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cells) != 1 {
		t.Fatalf("%d cells", len(r.Cells))
	}
	return r.Cells[0]
}

// A library that is right has every figure of every row, with nothing lost and nothing out of order.
func TestRight(t *testing.T) {
	r, err := Run(t.Context(), config(t, "right", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Cells {
		if c.Skipped != "" || len(c.Samples) != 1 {
			t.Errorf("%s: skipped %q, %d samples", c.Workload, c.Skipped, len(c.Samples))
			continue
		}
		s := c.Samples[0]
		if s.Error != "" || s.Sent != s.Received || s.Disordered != 0 {
			t.Errorf("%s: error %q, %d sent, %d received, %d disordered", c.Workload, s.Error, s.Sent, s.Received, s.Disordered)
		}
		for _, row := range r.Rows {
			if row.Workload != c.Workload {
				continue
			}
			if v, ok := s.Figures[row.Figure]; !ok || v < 0 || v == 0 && row.Unit == "ns" {
				t.Errorf("%s: %v %s", row.ID, v, row.Unit)
			}
		}
		if c.Workload != "idle" && c.Workload != "churn" && s.Sent == 0 {
			t.Errorf("%s: nothing counted", c.Workload)
		}
		if c.Workload == "idle" && s.Figures["goroutines"] != 1 {
			t.Errorf("idle: %v goroutines per subscription, want 1", s.Figures["goroutines"])
		}
	}
}

func TestFaultsAreFound(t *testing.T) {
	lost := func(s result.Sample) bool { return s.Received < s.Sent && s.Received > 0 && s.Disordered == 0 }
	for _, test := range []struct {
		peer, workload string
		found          func(result.Sample) bool
		err            string
	}{
		{"loses", "1-1", lost, ""},
		{"loses", "1-10", lost, ""},
		{"loses", "4-4", func(s result.Sample) bool { return s.Received < s.Sent }, ""},
		{"loses", "net-128", lost, ""},
		{"loses", "net-latency", lost, ""},
		{"reorders", "1-1", func(s result.Sample) bool { return s.Received >= s.Sent-2 && s.Disordered >= s.Sent/2-2 }, ""},
		{"reorders", "4-4", func(s result.Sample) bool { return s.Disordered > 0 }, ""},
		{"delays", "1-1", func(s result.Sample) bool { return s.Disordered > s.Sent/60 && s.Disordered < s.Sent/40 }, ""},
		{"doubles", "1-1", func(s result.Sample) bool { return s.Received == 2*s.Sent && s.Disordered == s.Sent }, ""},
		{"doubles", "net-128", func(s result.Sample) bool { return s.Received > s.Sent && s.Disordered > 0 }, ""},
		{"panics", "1-1", nil, "ended early (exit status 2): panic: out of cheese"},
		{"panics", "net-128", nil, "the far process has ended: EOF: panic: out of cheese"},
		{"fails", "1-1", nil, "no fuel"},
		{"loses", "request", nil, "5 requests of one goroutine failed, the last: lost"},
		{"hangs", "1-1", nil, "did not end within 1s"},
		{"hangs", "request", nil, "did not end within 1s"},
	} {
		t.Run(test.peer+"/"+test.workload, func(t *testing.T) {
			t.Parallel()
			c := config(t, test.peer, test.workload)
			switch test.peer {
			case "hangs":
				c.limit, c.silence = time.Second, time.Hour // or it could count what hangs as lost
			case "delays": // there have to be many
				c.target = time.Second
			}
			cell := measureOne(t, c)
			if len(cell.Samples) != 1 {
				t.Fatalf("skipped %q, %d samples", cell.Skipped, len(cell.Samples))
			}
			s := cell.Samples[0]
			if (s.Error == "") != (test.err == "") || !strings.HasPrefix(s.Error, test.err) {
				t.Errorf("error %q, want %q", s.Error, test.err)
			}
			if test.found != nil && !test.found(s) {
				t.Errorf("%d sent, %d received, %d disordered", s.Sent, s.Received, s.Disordered)
			}
		})
	}
}

func TestSkipped(t *testing.T) {
	for _, test := range []struct{ peer, workload, why string }{
		{"without", "request", "has no requests"},
		{"without", "net-128", "not for use between processes"},
	} {
		if cell := measureOne(t, config(t, test.peer, test.workload)); cell.Skipped != test.why || len(cell.Samples) != 0 {
			t.Errorf("%s %s: skipped %q, want %q; %d samples", test.peer, test.workload, cell.Skipped, test.why, len(cell.Samples))
		}
	}
}

// What hung once is not tried again, what failed otherwise is.
func TestRounds(t *testing.T) {
	c := config(t, "hangs panics", "1-1")
	c.limit, c.silence, c.Rounds = 3*time.Second, time.Hour, 2
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := len(r.Cells[0].Samples), len(r.Cells[1].Samples); a != 1 || b != 2 {
		t.Errorf("%d and %d samples, want 1 and 2", a, b)
	}
}

// A run that is stopped returns soon, with what it has.
func TestStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := config(t, "right hangs", "1-1")
	c.silence = time.Hour
	time.AfterFunc(2*time.Second, cancel)
	r, err := Run(ctx, c)
	if err == nil {
		t.Error("no error")
	}
	if len(r.Cells) != 2 || len(r.Cells[0].Samples) != 1 || len(r.Cells[1].Samples) != 0 {
		t.Errorf("cells %+v", r.Cells)
	}
	if r.Duration > 5*time.Second {
		t.Errorf("took %v", r.Duration)
	}
}
