package main

import (
	"context"
	"os"
	"testing"

	"github.com/gravbus/gravbus/bench/internal/peers"
	"github.com/gravbus/gravbus/bench/internal/run"
)

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-peers", "nobody"},
		{"-rows", "1-2"},
		{"-rounds", "0"},
		{"-rounds", "x"},
		{"-cpu", "0"},
		{"-cpu", "1,,2"},
		{"-cpu", ""},
		{"-what"},
		{"more"},
		{"-guard", "-cpu", "1"},
		{"-readme", "-cpu", "1"},
		{"-readme", "-peers", "channel"},
	} {
		if code := realMain(t.Context(), args); code != exitUsage {
			t.Errorf("%q: exit status %d, want %d", args, code, exitUsage)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		args                     []string
		rounds, peers, workloads int
	}{
		{nil, 4, len(peers.All()), len(run.Workloads())},
		{[]string{"-quick"}, 1, len(peers.All()), len(run.Workloads())},
		{[]string{"-guard"}, 4, len(peers.All()), len(run.Workloads())},
		{[]string{"-quick", "-rounds", "7", "-peers", "gravbus, channel", "-rows", "1-1"}, 7, 2, 1},
		{[]string{"-cpu", "1,2"}, 4, 3, len(run.ScalingWorkloads)},
	} {
		o, err := parse(test.args)
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
		} else if o.rounds != test.rounds || len(o.peers) != test.peers || len(o.workloads) != test.workloads {
			t.Errorf("%q: %d rounds, %d peers, %d workloads", test.args, o.rounds, len(o.peers), len(o.workloads))
		}
	}
	if _, err := run.ReadBounds(guardFile, peers.All()); err != nil {
		t.Errorf("guard.json: %v", err)
	}
	if dir, err := checkout(); err != nil {
		t.Errorf("checkout: %q, %v", dir, err)
	}
}

// Ending at once, each mode says so and measures nothing.
func TestStoppedAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"-guard"}, {"-cpu", "1"}, {}} {
		out := t.TempDir()
		if len(args) == 0 || args[0] != "-guard" {
			args = append(args, "-out", out)
		}
		if code := realMain(ctx, args); code != exitFailed {
			t.Errorf("%q: exit status %d, want %d", args, code, exitFailed)
		}
		if files, err := os.ReadDir(out); err != nil || len(files) > 0 {
			t.Errorf("%q: wrote %v over what was measured before (%v)", args, files, err)
		}
	}
}
