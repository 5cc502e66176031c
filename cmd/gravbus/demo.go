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

func newDemoCmd(opts []gravbus.Option) *cobra.Command {
	var asJSON, noColor bool
	messages := messageCount(1_000_000)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play a small story on a bus, and count",
		Long: `Plays the story of a small shop on one bus in this process: who hears what,
questions and answers, shared work, late joiners, a slow pod, a handler that
fails, and at the end a storm of messages. Every act counts what arrived.

The exit code is 0 if every count is right, 1 if not, and 2 for a wrong
command line.`,
		Example: `  gravbus demo
  gravbus demo --messages 10000000
  gravbus demo --json | jq .ok`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			story := out
			if asJSON {
				story = io.Discard
			}
			cfg := demo.Config{
				Messages: int(messages),
				Color:    !noColor && !asJSON && wantsColor(out),
				Options:  opts,
			}
			return playDemo(cmd.Context(), out, story, cfg, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&messages, "messages", "how many messages the storm sends, 1 to 100000000")
	flags.BoolVar(&asJSON, "json", false, "print one JSON object with the checks and counts, and no story")
	flags.BoolVar(&noColor, "no-color", false, "no colors, as with NO_COLOR in the environment")
	return cmd
}

// playDemo plays the demonstration on story, and prints its result on out.
func playDemo(ctx context.Context, out, story io.Writer, cfg demo.Config, asJSON bool) error {
	report, err := demo.Run(ctx, story, cfg)
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(report); err != nil {
			return &failure{err}
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return &failure{errors.New("interrupted: not all was counted")}
	case err != nil:
		return &failure{fmt.Errorf("demo: %w", err)}
	case !report.OK:
		return &failure{errSilent}
	}
	return nil
}

// wantsColor reports whether w is a terminal whose user has nothing against colors.
func wantsColor(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
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
