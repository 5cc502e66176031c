package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // the command did its work, and the result is bad
	exitUsage  = 2 // the command line is wrong
)

// failure is an error of the work of a command. All other errors that come out of cobra are about
// the command line.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// errSilent ends a command as failed when it has already said why.
var errSilent = errors.New("failed")

// run runs the command line and returns the exit code. Every bus that a command makes gets opts.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, opts ...gravbus.Option) int {
	root := newRootCmd(opts)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var f *failure
	switch {
	case err == nil:
		return exitOK
	case !errors.As(err, &f):
		fmt.Fprintf(stderr, "gravbus: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
		return exitUsage
	case !errors.Is(err, errSilent):
		fmt.Fprintf(stderr, "gravbus: %v\n", err)
	}
	return exitFailed
}

func newRootCmd(opts []gravbus.Option) *cobra.Command {
	root := &cobra.Command{
		Use:           "gravbus",
		Short:         "An embeddable message bus, from the command line",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newDemoCmd(opts), newVersionCmd())
	return root
}
