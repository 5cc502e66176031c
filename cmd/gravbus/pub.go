package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

type pubFlags struct {
	join    joinFlags
	peers   int
	timeout time.Duration
	stall   time.Duration
	null    bool
}

func newPubCmd(opts []gravbus.Option) *cobra.Command {
	var f pubFlags
	cmd := &cobra.Command{
		Use:   "pub TYPE [DATA|-|@FILE]",
		Short: "Send messages",
		Long: `Sends a message, or each line of standard input as one, to all nodes of the
mesh that want its type. It waits until somebody does, sends, sees to it that
they have everything, and leaves.

` + dataHelp + `
With - it sends line by line what it reads, as fast as the slowest receiver
takes it; the lines' ends are not sent. When too few nodes want them any more it
waits again, for --timeout each time. It ends at a line of more than --max-size.

The exit code is 0 if all was handed over, 3 if too few nodes wanted the type
before --timeout was over, 2 for a wrong command line, and 1 for all else, such
as messages that were lost because a receiver stood still for too long.`,
		Example: `  gravbus pub orders.created '{"id": 7}'
  gravbus pub images.new @cat.png
  tail -F some.log | gravbus pub logs.line -`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args, opts) },
	}
	flags := cmd.Flags()
	flags.IntVar(&f.peers, "peers", 1, "wait until pods of `n` nodes want the type")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long to wait for them; 0 for ever")
	flags.DurationVar(&f.stall, "stall", 30*time.Second, "how long a receiver may stand still before its oldest messages\ngive way, or be away before it is given up")
	flags.BoolVarP(&f.null, "null", "0", false, "with -, messages end with a NUL byte instead of a line's end")
	f.join.add(cmd)
	return cmd
}

func (f *pubFlags) run(cmd *cobra.Command, args []string, opts []gravbus.Option) error {
	ctx, typ := cmd.Context(), args[0]
	if err := checkWait(f.peers, f.timeout); err != nil {
		return err
	}
	if f.stall <= 0 {
		return errors.New("--stall must be positive")
	}
	lines := len(args) == 2 && args[1] == "-"
	if f.null && !lines {
		return errors.New("--null is for messages from standard input, with -")
	}
	own := []gravbus.Option{gravbus.UseLinkStallLimit(f.stall), gravbus.UseResumeFor(f.stall)}
	m, err := f.join.make(cmd, "0", append(own, opts...)...)
	if err != nil {
		return err
	}
	defer m.Close()
	var data []byte
	if len(args) == 2 && !lines {
		if data, err = readData(cmd, args[1], f.join.maxSize); err != nil {
			return &failure{err}
		}
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	if err := f.await(ctx, m, typ); err != nil {
		return err
	}
	pod := m.Connect(gravbus.Name("pub"))
	if lines {
		err = f.stream(ctx, m, pod, cmd.InOrStdin(), typ)
	} else {
		_, err = pod.SendContext(ctx, gravbus.NewMsg(typ, data))
		err = failed(err)
	}
	return errors.Join(err, m.leave(ctx)) // what was sent before an error is handed over all the same
}

// await waits until enough nodes want the type.
func (f *pubFlags) await(ctx context.Context, m *member, typ string) error {
	waiting, cancel := withTimeout(ctx, f.timeout)
	defer cancel()
	err := m.awaitInterest(waiting, typ, f.peers)
	switch {
	case err == nil || badType(err):
		return err
	case ctx.Err() != nil:
		return &failure{errInterrupted}
	}
	return m.nobody(typ)
}

// stream sends what in has, part by part. When those who want it have left, it waits for others.
func (f *pubFlags) stream(ctx context.Context, m *member, pod *gravbus.Pod, in io.Reader, typ string) error {
	delimiter := byte('\n')
	if f.null {
		delimiter = 0
	}
	parts := newSplitter(in, delimiter, f.join.maxSize)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	done := make(chan error, 1)
	go func() { // ends with the input, or with ctx when it has read a part more, or with the process
		for n := 1; ; n++ {
			data, err := parts.next()
			if err == nil && m.WaitInterest(ended, typ, f.peers) != nil {
				err = f.await(ctx, m, typ)
			}
			if err == nil {
				_, err = pod.SendContext(ctx, gravbus.NewMsg(typ, data))
			}
			switch {
			case errors.Is(err, io.EOF):
				done <- nil
				return
			case err != nil:
				done <- &failure{fmt.Errorf("message %d: %w", n, err)}
				return
			}
		}
	}()
	select {
	case err := <-done:
		if err != nil && ctx.Err() != nil {
			return &failure{errInterrupted}
		}
		return err
	case <-ctx.Done():
		return &failure{errInterrupted}
	}
}
