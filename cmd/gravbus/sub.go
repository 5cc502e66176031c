package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

type subFlags struct {
	join    joinFlags
	format  formatFlags
	replay  replayFlag
	group   string
	count   int64
	timeout time.Duration
}

func newSubCmd(opts []gravbus.Option) *cobra.Command {
	var f subFlags
	cmd := &cobra.Command{
		Use:   "sub PATTERN...",
		Short: "Print messages as they come",
		Long: `Prints the data of all messages whose type matches one of the patterns, in which
* stands for any one token of a type, and > at the end for one or more. It ends
with --count or --timeout, or when it is interrupted; then it leaves the mesh in
order, and prints what was on its way.

A slow reader of what it prints slows down who sends.

--replay begins with what nodes that are there have sent before: all that they
keep, the last messages (--replay=100), or those of a time (--replay=10m).

The exit code is 0 unless --timeout was over before --count messages came (4),
the command line is wrong (2), or messages were lost or could not be printed
(1).`,
		Example: `  gravbus sub 'logs.>' >> some.log
  gravbus sub 'orders.*' --json | jq .data
  gravbus sub images.new --raw --count 1 > cat.png`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args, opts) },
	}
	flags := cmd.Flags()
	flags.Int64Var(&f.count, "count", 0, "end after `n` messages")
	flags.DurationVar(&f.timeout, "timeout", 0, "end after this time")
	flags.Var(&f.replay, "replay", "begin with recent messages: all, a number, or of a time")
	flags.Lookup("replay").NoOptDefVal = "all"
	flags.StringVar(&f.group, "group", "", "share the messages with the others in the group of this `name`")
	f.format.add(cmd)
	f.join.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("group", "replay")
	return cmd
}

func (f *subFlags) run(cmd *cobra.Command, patterns []string, opts []gravbus.Option) error {
	ctx := cmd.Context()
	if f.count < 0 || f.timeout < 0 {
		return errors.New("--count and --timeout cannot be negative")
	}
	m, err := f.join.make(cmd, "0", opts...)
	if err != nil {
		return err
	}
	defer m.Close()
	listening, enough := context.WithCancel(ctx)
	defer enough()

	var out *output
	// A pod that only watches hides from nobody that a request has no responders.
	pod := m.Connect(append([]gravbus.PodOption{
		gravbus.Name("sub"), gravbus.Overflow(gravbus.Block), gravbus.Observer(), gravbus.InGroup(f.group),
	}, f.replay.options...)...)
	var printed atomic.Int64
	err = pod.OnType(patterns[0], func(msg gravbus.Message) error {
		n := printed.Add(1)
		if f.count > 0 && n > f.count {
			return nil
		}
		out.print(func(buf []byte) []byte { return f.format.appendTo(buf, msg) })
		if n == f.count {
			enough()
		}
		return nil
	}, patterns[1:]...)
	if err != nil {
		return err
	}
	out = newOutput(cmd.OutOrStdout()) // before anything can come
	if err := m.start(ctx); err != nil {
		return errors.Join(err, out.close())
	}
	m.log.Infof("node %s of mesh %s listens at %v", m.NodeUUID, f.join.mesh, m.Endpoints())
	waiting, cancel := withTimeout(listening, f.timeout)
	defer cancel()
	select {
	case <-waiting.Done():
	case <-out.done: // it cannot be written
		cancel()
	}

	left := m.leave(waiting) // which has ended: nobody waits for long for a peer that hangs
	written := m.closeOutput(out, left)
	switch {
	case written != nil:
		return &failure{written}
	case left != nil:
		return left
	case f.count > 0 && printed.Load() < f.count && ctx.Err() == nil:
		return &failure{fmt.Errorf("%w: %d of %s came", errTimeout, printed.Load(), plural(uint64(f.count), "message"))}
	}
	return nil
}

// closeOutput waits until all is written, unless the node could not leave: then a handler may still
// wait for whoever reads the output.
func (m *member) closeOutput(out *output, left error) error {
	var stuck *gravbus.ShutdownError
	if errors.As(left, &stuck) && len(stuck.Pods) > 0 {
		return nil
	}
	return out.close()
}

// replayFlag is the value of --replay.
type replayFlag struct {
	text    string
	options []gravbus.PodOption
}

func (r *replayFlag) String() string { return r.text }

func (r *replayFlag) Type() string { return "what" }

func (r *replayFlag) Set(s string) error {
	r.text = s
	if s == "all" {
		r.options = []gravbus.PodOption{gravbus.Replay()}
		return nil
	}
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		r.options = []gravbus.PodOption{gravbus.ReplayLast(n)}
		return nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		r.options = []gravbus.PodOption{gravbus.ReplaySince(time.Now().Add(-d))}
		return nil
	}
	return errors.New("it must be all, a number of messages such as 100, or a time such as 10m")
}
