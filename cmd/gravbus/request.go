package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

// Endings of the types of answers, as gravbus.Handle makes them.
const (
	replySuffix = ".reply"
	errorSuffix = ".error"
)

// answerType returns the type of an answer. Where a suffix makes it longer than types are, it is the
// suffix alone.
func answerType(typ, suffix string) string {
	const longest = 255
	if len(typ)+len(suffix) > longest {
		return suffix[1:]
	}
	return typ + suffix
}

type requestFlags struct {
	join    joinFlags
	format  formatFlags
	all     bool
	peers   int
	timeout time.Duration
}

func newRequestCmd(opts []gravbus.Option) *cobra.Command {
	var f requestFlags
	cmd := &cobra.Command{
		Use:   "request TYPE [DATA|@FILE]",
		Short: "Ask, and print the answer",
		Long: `Sends a request and prints the first answer, or with --all the answers of
everybody who was asked.

` + dataHelp + `

The exit code is 0 if there was an answer, or with --all if everybody has
answered. It is 3 if there was nobody to ask, 4 if answers are missing when
--timeout is over, 2 for a wrong command line, and 1 for all else, such as an
answer that is an error.`,
		Example: `  gravbus request price.get teapot
  gravbus request health.check --all --peers 3 --timeout 2s`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args, opts) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.all, "all", false, "print the answers of all, and tell whose are missing")
	flags.IntVar(&f.peers, "peers", 1, "ask when pods of `n` nodes want the request")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long to wait for them, and the answers; 0 for ever")
	f.format.add(cmd)
	f.join.add(cmd)
	return cmd
}

func (f *requestFlags) run(cmd *cobra.Command, args []string, opts []gravbus.Option) error {
	ctx, typ := cmd.Context(), args[0]
	if err := checkWait(f.peers, f.timeout); err != nil {
		return err
	}
	m, err := f.join.make(cmd, "0", opts...)
	if err != nil {
		return err
	}
	defer m.Close()
	var data []byte
	if len(args) == 2 {
		if data, err = readData(cmd, args[1], f.join.maxSize); err != nil {
			return &failure{err}
		}
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	asking, cancel := withTimeout(ctx, f.timeout)
	defer cancel()
	err = m.awaitInterest(asking, typ, f.peers)
	if err == nil {
		err = f.ask(asking, cmd, m.Connect(gravbus.Name("request")), typ, data)
	} else if !badType(err) {
		err = gravbus.ErrNoResponders
	}
	// Whatever came of it, who has answered is told that the answers are here.
	return errors.Join(f.outcome(ctx, m, typ, err), m.leave(ctx))
}

// outcome is what a request that ended with err comes to.
func (f *requestFlags) outcome(ctx context.Context, m *member, typ string, err error) error {
	var missing *gravbus.MissingError
	switch {
	case err == nil || badType(err):
		return err
	case ctx.Err() != nil:
		return &failure{errInterrupted}
	case errors.Is(err, gravbus.ErrNoResponders):
		return m.nobody(typ)
	case errors.As(err, &missing):
		return &failure{fmt.Errorf("%w: no answer from %s", errTimeout, strings.Join(missing.Pods, ", "))}
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{fmt.Errorf("%w: no answer", errTimeout)}
	}
	return &failure{err}
}

// ask sends the request and prints what comes back. While those who want the request only watch, it
// waits for others.
func (f *requestFlags) ask(ctx context.Context, cmd *cobra.Command, pod *gravbus.Pod, typ string, data []byte) error {
	const every = 50 * time.Millisecond
	for {
		err := f.askOnce(ctx, cmd, pod, gravbus.NewMsg(typ, data))
		if !errors.Is(err, gravbus.ErrNoResponders) {
			return err
		}
		again := time.NewTimer(every)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return err
		}
	}
}

func (f *requestFlags) askOnce(ctx context.Context, cmd *cobra.Command, pod *gravbus.Pod, msg gravbus.Message) error {
	var failed error
	show := func(answer gravbus.Message) error {
		if answer.Type() == answerType(msg.Type(), errorSuffix) {
			remote, err := gravbus.Decode[gravbus.RemoteError](answer)
			if err == nil {
				failed = errors.Join(failed, fmt.Errorf("the answer is an error: %w", &remote))
				return nil
			}
		}
		_, err := cmd.OutOrStdout().Write(f.format.appendTo(nil, answer))
		return err
	}
	if !f.all {
		answer, err := pod.Request(ctx, msg)
		if err == nil {
			err = show(answer)
		}
		return errors.Join(err, failed)
	}
	for answer, err := range pod.RequestAll(ctx, msg) {
		if err == nil {
			err = show(answer)
		}
		if err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}
