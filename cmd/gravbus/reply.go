package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

type replyFlags struct {
	join    joinFlags
	echo    bool
	data    string
	group   string
	jobs    int
	count   int64
	timeout time.Duration
}

func newReplyCmd(opts []gravbus.Option) *cobra.Command {
	var f replyFlags
	cmd := &cobra.Command{
		Use:   "reply PATTERN {--echo | --data TEXT | -- COMMAND [ARG...]}",
		Short: "Answer requests",
		Long: `Answers requests whose type matches the pattern: with a text, with what they
carry, or with what a command prints. The command is run for each request, gets
its data on standard input, and its type and UUID in GRAVBUS_TYPE and
GRAVBUS_UUID. If it fails, who asked gets an error.

The answer has the type of the request and ".reply" at its end, or ".error".
Messages that are answers themselves are not answered, whatever the pattern.

It runs until it is interrupted, or has given --count answers; requests that it
has got are answered before it leaves.`,
		Example: `  gravbus reply price.get --data 42
  gravbus reply 'text.upper' -- tr a-z A-Z`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args, opts) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.echo, "echo", false, "answer with the data of the request")
	flags.StringVar(&f.data, "data", "", "answer with this `text`")
	flags.StringVar(&f.group, "group", "", "share the requests with the others in the group of this `name`")
	flags.IntVar(&f.jobs, "jobs", 1, "how many requests to answer at a time")
	flags.Int64Var(&f.count, "count", 0, "end after `n` answers")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long a command may run; 0 for ever")
	f.join.add(cmd)
	return cmd
}

// answerer makes the data of an answer.
type answerer func(ctx context.Context, msg gravbus.Message) ([]byte, error)

func (f *replyFlags) answerer(cmd *cobra.Command, command []string) (answerer, error) {
	ways := 0
	for _, given := range []bool{f.echo, cmd.Flags().Changed("data"), len(command) > 0} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return nil, errors.New("give either --echo, or --data, or -- and a command")
	case f.jobs < 1 || f.count < 0 || f.timeout < 0:
		return nil, errors.New("--jobs must be positive; --count and --timeout cannot be negative")
	case f.echo:
		return func(_ context.Context, msg gravbus.Message) ([]byte, error) { return msg.Data(), nil }, nil
	case len(command) == 0:
		return func(context.Context, gravbus.Message) ([]byte, error) { return []byte(f.data), nil }, nil
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return nil, &failure{err}
	}
	return func(ctx context.Context, msg gravbus.Message) ([]byte, error) {
		ctx, cancel := withTimeout(ctx, f.timeout)
		defer cancel()
		var out bytes.Buffer
		c := exec.CommandContext(ctx, path, command[1:]...)
		c.Env = append(os.Environ(), "GRAVBUS_TYPE="+msg.Type(), "GRAVBUS_UUID="+msg.UUID())
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(msg.Data()), &out, cmd.ErrOrStderr()
		c.WaitDelay = time.Second // for children of its own that keep its output open
		if err := c.Run(); err != nil {
			return nil, fmt.Errorf("%s: %w", command[0], err)
		}
		return out.Bytes(), nil
	}, nil
}

func (f *replyFlags) run(cmd *cobra.Command, args []string, opts []gravbus.Option) error {
	ctx := cmd.Context()
	var command []string
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		args, command = args[:dash], args[dash:]
	}
	if len(args) != 1 {
		return fmt.Errorf("give one pattern, and a command after --; there are %d patterns", len(args))
	}
	answer, err := f.answerer(cmd, command)
	if err != nil {
		return err
	}
	m, err := f.join.make(cmd, "0", opts...)
	if err != nil {
		return err
	}
	defer m.Close()
	answering, enough := context.WithCancel(ctx)
	defer enough()
	var answers atomic.Int64
	// Commands end by themselves, also when this one is told to end.
	working, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	pod := m.Connect(gravbus.Name("reply"), gravbus.InGroup(f.group), gravbus.Concurrency(f.jobs), gravbus.Overflow(gravbus.Block))
	err = pod.OnType(args[0], func(msg gravbus.Message) error {
		if msg.ReplyTo() != "" || f.count > 0 && answers.Load() >= f.count {
			return nil
		}
		data, err := answer(working, msg)
		if err == nil && len(data) > f.join.maxSize {
			err = fmt.Errorf("an answer of %d bytes: %w", len(data), errTooLarge(f.join.maxSize))
		}
		reply := gravbus.NewMsg(answerType(msg.Type(), replySuffix), data)
		if err != nil {
			m.log.WithError(err).Warnf("cannot answer %s", msg.Type())
			reply = gravbus.NewTyped(answerType(msg.Type(), errorSuffix), gravbus.RemoteError{Message: err.Error()})
		}
		if pod.ReplyTo(msg, reply) == nil {
			m.log.Errorf("an answer to %s could not be sent", msg.Type())
		}
		if answers.Add(1) == f.count {
			enough()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	m.log.Infof("node %s of mesh %s listens at %v", m.NodeUUID, f.join.mesh, m.Endpoints())
	<-answering.Done()
	return m.leave(ctx)
}
