// Command bench compares gravbus with other ways to pass messages within a Go process and between
// two. Run it in a checkout:
//
//	go run ./bench
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/peers"
	"github.com/gravbus/gravbus/bench/internal/report"
	"github.com/gravbus/gravbus/bench/internal/result"
	"github.com/gravbus/gravbus/bench/internal/run"
)

//go:embed guard.json
var guardFile []byte

func main() {
	run.Child(peers.All())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process in the usual way
	os.Exit(realMain(ctx, os.Args[1:]))
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// errUsage wraps what is wrong with the command line.
var errUsage = errors.New("see -h")

func realMain(ctx context.Context, args []string) int {
	o, err := parse(args)
	if err == nil {
		err = o.do(ctx)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "bench:", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return exitFailed
}

// options are the command line.
type options struct {
	quick, list, guard, readme bool
	rounds                     int
	out                        string
	peers                      []peer.Peer // those asked for
	workloads                  []run.Workload
	processors                 []int
	command                    string
}

const usage = `Usage: go run ./bench [flags]

Measures gravbus and its peers, each measurement in a process of its own, prints a table, and
writes report.json, report.md and plots. Deliveries are counted and their order is checked: the
table says what was lost. Measure on a machine that does nothing else.

  go run ./bench -quick                        a first look, less than 3 minutes on two cores
  go run ./bench                               about 12 minutes
  go run ./bench -peers gravbus,channel -rows 1-1,4-4
  go run ./bench -guard                        has gravbus become slower? exit status 1 if so
  go run ./bench -cpu 1,2,4                    what do more processors do?

Flags:
`

func parse(args []string) (*options, error) {
	o := &options{command: strings.Join(append([]string{"go run ./bench"}, args...), " ")}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by realMain
	flags.BoolVar(&o.quick, "quick", false, "shorter measurements and one round")
	flags.IntVar(&o.rounds, "rounds", 0, "measure everything so `many` times; the median counts (default 4; 1 with -quick)")
	peerIDs := flags.String("peers", "", "measure these `peers` only, by their IDs: gravbus,channel (default all)")
	rowIDs := flags.String("rows", "", "measure these `workloads` only, by their IDs: 1-1,net-128 (default all)")
	flags.StringVar(&o.out, "out", "", "write into this `directory` (default bench/results of the checkout)")
	flags.BoolVar(&o.readme, "readme", false, "put the figures into the checkout's README.md, between its bench marks; its Go code must be committed")
	flags.BoolVar(&o.list, "list", false, "list peers and workloads, with their IDs, and end")
	flags.BoolVar(&o.guard, "guard", false, "hold gravbus to the bounds of bench/guard.json; takes less than a minute")
	cpus := flags.String("cpu", "", "measure with these `numbers` of processors instead, some workloads in one process: 1,2,4")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(os.Stdout, usage)
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("%w; %w", err, errUsage)
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unknown argument: %q", flags.Arg(0))
	case given["rounds"] && o.rounds < 1:
		err = fmt.Errorf("-rounds: %d is less than 1", o.rounds)
	case given["guard"] && (given["cpu"] || given["readme"] || given["peers"] || given["rows"] || given["out"]):
		err = errors.New("-guard cannot be combined with -cpu, -readme, -peers, -rows, -out")
	case given["cpu"] && given["readme"]:
		err = errors.New("-readme cannot be combined with -cpu")
	}
	if err == nil && given["cpu"] {
		o.processors, err = numbers(*cpus)
		if !given["peers"] {
			*peerIDs = "channel,gravbus,gravbus-noreplay"
		}
		if !given["rows"] {
			*rowIDs = strings.Join(run.ScalingWorkloads, ",")
		}
	}
	if err == nil {
		o.peers, err = pick("-peers", *peerIDs, peers.All(), func(p peer.Peer) string { return p.ID })
	}
	if err == nil {
		o.workloads, err = pick("-rows", *rowIDs, run.Workloads(), func(w run.Workload) string { return w.ID })
	}
	if err == nil && o.readme && !slices.ContainsFunc(o.peers, func(p peer.Peer) bool { return p.ID == "gravbus" }) {
		err = errors.New("-readme: gravbus is not among -peers")
	}
	if err != nil {
		return nil, fmt.Errorf("%w; %w", err, errUsage)
	}
	if o.rounds == 0 {
		if o.rounds = 4; o.quick {
			o.rounds = 1
		}
	}
	return o, nil
}

// pick returns those of all whose IDs are listed, in the order of all; all if none is listed.
func pick[T any](flag, list string, all []T, id func(T) string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	ids := make([]string, len(all))
	for i, v := range all {
		ids[i] = id(v)
	}
	var picked []T
	wanted := strings.Split(list, ",")
	for i, w := range wanted {
		wanted[i] = strings.TrimSpace(w)
		if !slices.Contains(ids, wanted[i]) {
			return nil, fmt.Errorf("%s: there is no %q, only %s", flag, wanted[i], strings.Join(ids, ", "))
		}
	}
	for i, v := range all {
		if slices.Contains(wanted, ids[i]) {
			picked = append(picked, v)
		}
	}
	return picked, nil
}

func numbers(list string) ([]int, error) {
	var all []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > 1024 {
			return nil, fmt.Errorf("-cpu: %q is no number of processors from 1 to 1024", s)
		}
		all = append(all, n)
	}
	return all, nil
}

func (o *options) do(ctx context.Context) error {
	if o.list {
		o.printList(os.Stdout)
		return nil
	}
	root, err := checkout()
	if err != nil && (o.out == "" && !o.guard || o.readme) {
		return err
	}
	own, err := version(root)
	if err != nil && o.readme {
		return fmt.Errorf("-readme: %w", err)
	}
	if o.out == "" {
		o.out = filepath.Join(root, "bench", "results")
	}
	c := run.Config{
		Peers: o.peers, Workloads: o.workloads, Rounds: o.rounds, Quick: o.quick, Command: o.command, Version: own,
		Progress: run.NewProgress(os.Stderr, isTerminal(os.Stderr), columns(os.Stderr)),
	}
	switch {
	case o.guard:
		return o.doGuard(ctx, c)
	case o.processors != nil:
		return o.doScaling(ctx, c)
	}
	r, err := run.Run(ctx, c)
	if err != nil && !measured(r.Cells) {
		return stopped(err)
	}
	if err := report.Table(os.Stdout, r, columns(os.Stdout)); err != nil {
		return err
	}
	files, errWrite := report.Write(o.out, r)
	tellWritten(files)
	if err := errors.Join(stopped(err), errWrite); err != nil {
		return err
	}
	if o.readme {
		readme := filepath.Join(root, "README.md")
		if err := report.README(readme, o.out, r); err != nil {
			return err
		}
		tellWritten([]string{readme})
	}
	return nil
}

func (o *options) doGuard(ctx context.Context, c run.Config) error {
	bounds, err := run.ReadBounds(guardFile, c.Peers)
	if err != nil {
		return fmt.Errorf("guard.json: %w", err)
	}
	c.Quick = true
	broken, err := run.Guard(ctx, c, bounds, os.Stdout)
	if err != nil {
		return stopped(err)
	}
	if len(broken) > 0 {
		return errors.New("slower than bench/guard.json allows:\n  " + strings.Join(broken, "\n  "))
	}
	return nil
}

func (o *options) doScaling(ctx context.Context, c run.Config) error {
	s, err := run.Scaling(ctx, c, o.processors)
	if err != nil && !measured(slices.Concat(s.Cells...)) {
		return stopped(err)
	}
	if err := run.ScalingTable(os.Stdout, s); err != nil {
		return err
	}
	files, errWrite := run.WriteScaling(o.out, s)
	tellWritten(files)
	return errors.Join(stopped(err), errWrite)
}

// measured reports whether a run has come so far that there is something to write.
func measured(cells []result.Cell) bool {
	return slices.ContainsFunc(cells, func(c result.Cell) bool { return len(c.Samples) > 0 })
}

// stopped says so in words if err is that of a context.
func stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("stopped before the end")
	}
	return err
}

func tellWritten(files []string) {
	wd, _ := os.Getwd() // names are absolute else
	for _, f := range files {
		if rel, err := filepath.Rel(wd, f); err == nil && !strings.HasPrefix(rel, "..") {
			f = rel
		}
		fmt.Fprintln(os.Stderr, "wrote", f)
	}
}

func (o *options) printList(w io.Writer) {
	fmt.Fprintln(w, "Peers:")
	for _, p := range o.peers {
		fmt.Fprintf(w, "  %-18s %-6s %s: %s\n", p.ID, p.Kind, p.Name, p.Note)
	}
	group := ""
	for _, wl := range o.workloads {
		if wl.Group != group {
			group = wl.Group
			fmt.Fprintf(w, "\nWorkloads %s:\n", group)
		}
		fmt.Fprintf(w, "  %-18s %s\n", wl.ID, wl.About)
	}
}

// checkout returns the directory of the repository: the one around where this runs, or else the one
// this was built from.
func checkout() (string, error) {
	is := func(dir string) bool {
		data, err := os.ReadFile(filepath.Join(dir, "bench", "go.mod"))
		return err == nil && strings.HasPrefix(string(data), "module github.com/gravbus/gravbus/bench\n")
	}
	if dir, err := os.Getwd(); err == nil {
		for ; ; dir = filepath.Dir(dir) {
			if is(dir) {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	if _, file, _, ok := runtime.Caller(0); ok {
		if dir := filepath.Dir(filepath.Dir(file)); is(dir) {
			return dir, nil
		}
	}
	return "", errors.New("this is no checkout of gravbus: say by -out where to write")
}
