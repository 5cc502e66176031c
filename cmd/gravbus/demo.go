package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/cmd/gravbus/internal/demo"
	"github.com/spf13/cobra"
)

const maxMessages = 100_000_000

type demoFlags struct {
	messages messageCount
	json     bool
	noColor  bool
}

// add adds the flags to a command.
func (f *demoFlags) add(cmd *cobra.Command, who string) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&f.messages, "messages", "how many messages "+who+" sends, 1 to 100000000")
	flags.BoolVar(&f.json, "json", false, "print one JSON object with the checks and counts, and no story")
	flags.BoolVar(&f.noColor, "no-color", false, "no colors, as with NO_COLOR in the environment")
}

// colored reports whether the story is told in color.
func (f *demoFlags) colored(out io.Writer) bool { return !f.noColor && !f.json && wantsColor(out) }

const demoExit = `The exit code is 0 if every count is right, 1 if not, and 2 for a wrong
command line.`

func newDemoCmd(opts []gravbus.Option) *cobra.Command {
	f := demoFlags{messages: 100_000}
	var discovery string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play a small story in a mesh of processes, and count",
		Long: `Starts three processes on this machine that find each other, send each other
messages and requests, are cut off, killed and started again, and counts that
every message arrived, once and in order.

` + demoExit,
		Example: `  gravbus demo
  gravbus demo --json | jq .ok
  gravbus demo local`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if discovery != "" && discovery != "mdns" && discovery != "seed" {
				return errors.New("--discovery is mdns or seed")
			}
			self, err := os.Executable()
			if err != nil {
				return &failure{err}
			}
			out := cmd.OutOrStdout()
			return playDemo(cmd.Context(), out, f.json, func(ctx context.Context, story io.Writer) (any, bool, error) {
				r, err := demo.RunMesh(ctx, story, demo.MeshConfig{
					Command:   []string{self, demoNode},
					Messages:  int64(f.messages),
					Discovery: discovery,
					Color:     f.colored(out),
				})
				return r, r.OK, err
			})
		},
	}
	f.add(cmd, "each process")
	cmd.Flags().StringVar(&discovery, "discovery", "", "`how` they find each other: mdns, or seed where that does not work")
	cmd.AddCommand(newLocalDemoCmd(opts))
	return cmd
}

func newLocalDemoCmd(opts []gravbus.Option) *cobra.Command {
	f := demoFlags{messages: 1_000_000}
	cmd := &cobra.Command{
		Use:   "local",
		Short: "Play a small story on one bus, and count",
		Long: `Plays the story of a small shop on one bus in this process: who hears what,
questions and answers, shared work, late joiners, a slow pod, a handler that
fails, and at the end a storm of messages. Every act counts what arrived.

` + demoExit,
		Example: `  gravbus demo local
  gravbus demo local --messages 10000000
  gravbus demo local --json | jq .ok`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			return playDemo(cmd.Context(), out, f.json, func(ctx context.Context, story io.Writer) (any, bool, error) {
				r, err := demo.Run(ctx, story, demo.Config{Messages: int(f.messages), Color: f.colored(out), Options: opts})
				return r, r.OK, err
			})
		},
	}
	f.add(cmd, "the storm")
	return cmd
}

// demoNode is the command that the demonstration starts its processes by.
const demoNode = "demo-node"

func newDemoNodeCmd() *cobra.Command {
	return &cobra.Command{
		Use:    demoNode,
		Short:  "Be a node of the demonstration, which gives its orders on standard input",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failed(demo.RunChild(cmd.InOrStdin(), cmd.OutOrStdout()))
		},
	}
}

// playDemo plays a story, and prints its result on out.
func playDemo(ctx context.Context, out io.Writer, asJSON bool, play func(context.Context, io.Writer) (report any, ok bool, err error)) error {
	story := out
	if asJSON {
		story = io.Discard
	}
	report, ok, err := play(ctx, story)
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(report); err != nil {
			return &failure{err}
		}
	}
	switch {
	case ctx.Err() != nil && err != nil:
		return &failure{errors.New("interrupted: not all was counted")}
	case err != nil:
		return &failure{fmt.Errorf("demo: %w", err)}
	case !ok:
		return &failure{errSilent}
	}
	return nil
}

// wantsColor reports whether w is a terminal whose user has nothing against colors.
func wantsColor(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

// messageCount is the value of --messages.
type messageCount int

func (c *messageCount) String() string { return strconv.Itoa(int(*c)) }

func (c *messageCount) Type() string { return "N" }

func (c *messageCount) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxMessages {
		return fmt.Errorf("it must be a whole number from 1 to %d", maxMessages)
	}
	*c = messageCount(n)
	return nil
}
