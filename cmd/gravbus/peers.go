package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

type peersFlags struct {
	join    joinFlags
	json    bool
	watch   bool
	peers   int
	timeout time.Duration
}

func newPeersCmd(opts []gravbus.Option) *cobra.Command {
	var f peersFlags
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the nodes of the mesh",
		Long: `Joins the mesh, lists the other nodes with what they tell of themselves and how
long a heartbeat takes there and back, and leaves.

The exit code is 0 if it found a node, or as many as --peers wants, and 3 if
not.`,
		Example: `  gravbus peers
  gravbus peers --watch
  gravbus peers --json | jq -r '.[].name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, opts) },
	}
	flags := cmd.Flags()
	flags.IntVar(&f.peers, "peers", 0, "end as soon as `n` nodes are there")
	flags.DurationVar(&f.timeout, "timeout", 3*time.Second, "how long to look for nodes")
	flags.BoolVar(&f.json, "json", false, "print a list in JSON; with --watch one in each line")
	flags.BoolVar(&f.watch, "watch", false, "go on, and list them again after every change")
	f.join.add(cmd)
	return cmd
}

// listed is a node in JSON.
type listed struct {
	gravbus.PeerInfo
	State gravbus.PeerState `json:"state"`
	RTT   float64           `json:"rtt_ms,omitempty"` // not known before the first heartbeat
}

func (f *peersFlags) run(cmd *cobra.Command, opts []gravbus.Option) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	if f.peers < 0 || f.timeout <= 0 {
		return fmt.Errorf("--peers cannot be negative, and --timeout must be positive")
	}
	m, err := f.join.make(cmd, "0", opts...)
	if err != nil {
		return err
	}
	defer m.Close()
	changed := make(chan struct{}, 1)
	err = m.Connect(gravbus.Name("watch")).OnType("gravbus.peer.*", func(gravbus.Message) error {
		select {
		case changed <- struct{}{}:
		default:
		}
		return nil
	})
	if err != nil {
		return &failure{err}
	}
	if err := m.start(ctx); err != nil {
		return err
	}
	if f.watch {
		return f.follow(ctx, m, out, changed)
	}
	looking, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	want := f.peers
	if want == 0 {
		<-looking.Done()
		want = 1
	} else {
		_ = m.WaitPeers(looking, want) // what there is, is listed all the same
	}
	if ctx.Err() != nil {
		return &failure{errInterrupted}
	}
	list := m.peers()
	if err := f.print(out, list); err != nil {
		return &failure{err}
	}
	if err := m.leave(ctx); err != nil {
		return err
	}
	switch {
	case len(list) == 0:
		return m.nobody("")
	case len(list) < want:
		return &failure{fmt.Errorf("%w: %s found", errNobody, plural(uint64(len(list)), "node"))}
	}
	return nil
}

// follow prints the list after every change, and now and then for the times.
func (f *peersFlags) follow(ctx context.Context, m *member, out io.Writer, changed <-chan struct{}) error {
	again := time.NewTicker(5 * time.Second)
	defer again.Stop()
	for {
		if !f.json && isTerminal(out) {
			fmt.Fprint(out, "\x1b[H\x1b[2J")
		}
		if err := f.print(out, m.peers()); err != nil {
			return &failure{err}
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			return m.leave(ctx)
		}
	}
}

// peers returns the nodes that are connected, or were a moment ago.
func (m *member) peers() []listed {
	list := []listed{}
	for _, p := range m.Stats().Peers {
		list = append(list, listed{PeerInfo: p.PeerInfo, State: p.State, RTT: float64(p.RTT.Microseconds()) / 1000})
	}
	slices.SortFunc(list, func(a, b listed) int {
		return strings.Compare(a.Name+"\x00"+a.NodeUUID, b.Name+"\x00"+b.NodeUUID)
	})
	return list
}

func (f *peersFlags) print(out io.Writer, list []listed) error {
	if f.json {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		if !f.watch {
			enc.SetIndent("", "  ")
		}
		return enc.Encode(list)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tRTT\tSTATE\tVERSION\tNODE\tENDPOINTS")
	for _, p := range list {
		rtt := "-"
		if p.RTT > 0 {
			rtt = fmt.Sprintf("%.2f ms", p.RTT)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", p.Name, rtt, p.State, p.Version, p.NodeUUID, strings.Join(p.Endpoints, " "))
	}
	return w.Flush()
}

// isTerminal reports whether w is a terminal, or another device that is no file.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
