package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// A finding is what a child prints.
type finding struct {
	Skip   string        `json:"skip,omitempty"`
	Sample result.Sample `json:"sample"`
}

// Child does the work of a child process, and ends it, if this process was started to be one. It has
// to be called before anything else is done. Peers are all that parents may ask for.
func Child(peers []peer.Peer) {
	if len(os.Args) != 3 || os.Args[1] != "child" && os.Args[1] != "far" {
		return
	}
	// What a library prints must not get into what the parent reads.
	out := os.Stdout
	os.Stdout = os.Stderr
	debug.SetMemoryLimit(softMemory)
	go meter.watch(maxMemory, func() { // until the process ends
		fmt.Fprintf(os.Stderr, "fatal error: more than %d GiB in use\n", maxMemory>>30)
		os.Exit(2)
	})
	var err error
	if os.Args[1] == "far" {
		err = withPeer(peers, os.Args[2], func(p peer.Peer) error { return serveFar(p, os.Stdin, out) })
	} else {
		err = child(peers, os.Args[2], json.NewEncoder(out))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fatal error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func withPeer(peers []peer.Peer, id string, do func(peer.Peer) error) error {
	i := slices.IndexFunc(peers, func(p peer.Peer) bool { return p.ID == id })
	if i < 0 {
		return fmt.Errorf("no such peer: %q", id)
	}
	return do(peers[i])
}

func child(peers []peer.Peer, arg string, out *json.Encoder) error {
	var j job
	if err := json.Unmarshal([]byte(arg), &j); err != nil {
		return err
	}
	workloads := Workloads()
	i := slices.IndexFunc(workloads, func(w Workload) bool { return w.ID == j.Workload })
	if i < 0 {
		return fmt.Errorf("no such workload: %q", j.Workload)
	}
	return withPeer(peers, j.Peer, func(p peer.Peer) error {
		var found finding
		s, err := workloads[i].run(context.Background(), p, j)
		var lacking skip
		switch {
		case errors.As(err, &lacking):
			found.Skip = lacking.Error()
		case err != nil:
			found.Sample.Error = err.Error()
		default:
			found.Sample = s
		}
		return out.Encode(found)
	})
}

// self returns a command that runs this program with args.
func self(args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.Command(exe, args...), nil
}
