package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

// run runs the command line and returns the exit code. Every bus that a command makes gets opts.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, opts ...gravbus.Option) int {
	root := newRootCmd(opts)
	root.SetArgs(append([]string{}, args...)) // not nil, for which cobra takes os.Args
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	code := exitCode(err)
	if code == exitOK || errors.Is(err, errSilent) || errors.Is(err, syscall.EPIPE) { // who closes a pipe has had enough
		return code
	}
	fmt.Fprintf(stderr, "gravbus: %s\n", strings.TrimPrefix(err.Error(), "gravbus: "))
	if code == exitUsage {
		fmt.Fprintf(stderr, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return code
}

func newRootCmd(opts []gravbus.Option) *cobra.Command {
	root := &cobra.Command{
		Use:   "gravbus",
		Short: "A message bus among programs, from the command line",
		Long: `A message bus among programs, from the command line.

Every command but key and version is a node of a mesh while it runs. Nodes on
one machine find each other. For those of others give all of them one key:

  gravbus key mesh.key                        # and copy it
  gravbus sub --key-file mesh.key 'logs.>'
  gravbus pub --key-file mesh.key logs.line 'Hello, all!'

Where multicast does not work give --seed with the address of one node.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	cobra.EnableCommandSorting = false
	root.AddCommand(newNodeCmd(opts), newPubCmd(opts), newSubCmd(opts), newRequestCmd(opts), newReplyCmd(opts),
		newPeersCmd(opts), newKeyCmd(), newDemoCmd(opts), newDemoNodeCmd(), newVersionCmd())
	return root
}
