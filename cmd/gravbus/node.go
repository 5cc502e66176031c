package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

type nodeFlags struct {
	join joinFlags
	json bool
}

func newNodeCmd(opts []gravbus.Option) *cobra.Command {
	var f nodeFlags
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run a node, and tell who comes and goes",
		Long: `Runs a node that the others can use as a seed, and tells who comes and goes,
until it is interrupted. It passes nothing on: nodes connect to each other
directly once they know each other.

It listens at port ` + homePort + ` unless --listen says otherwise. There the other commands on
the same machine look for it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, opts) },
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "print lines of JSON")
	f.join.add(cmd)
	return cmd
}

// happening is a line of what a node tells in JSON.
type happening struct {
	Event     string            `json:"event"` // started, up, down, lost, slow, refused, left
	Time      time.Time         `json:"time"`
	NodeUUID  string            `json:"node_uuid,omitempty"` // of this node
	Mesh      string            `json:"mesh,omitempty"`
	Endpoints []string          `json:"endpoints,omitempty"`
	Peer      *gravbus.PeerInfo `json:"peer,omitempty"`
	Remote    string            `json:"remote,omitempty"`
	Error     string            `json:"error,omitempty"`
}

func (f *nodeFlags) run(cmd *cobra.Command, opts []gravbus.Option) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	m, err := f.join.make(cmd, homePort, opts...)
	if err != nil {
		return err
	}
	defer m.Close()
	tell := f.teller(out)
	introduced := make(chan struct{}) // closed when it has told of itself: others come after that
	err = m.Connect(gravbus.Name("watch")).OnType("gravbus.peer.*", func(msg gravbus.Message) error {
		<-introduced
		e, err := gravbus.Decode[gravbus.PeerEvent](msg)
		if err != nil || msg.Type() == gravbus.EventPeerGap { // a gap is told as an error
			return nil
		}
		h := &happening{Event: strings.TrimPrefix(msg.Type(), "gravbus.peer."), Time: msg.Timestamp(), Remote: e.Remote, Error: e.Error}
		if e.Peer.NodeUUID != "" {
			h.Peer = &e.Peer
		}
		return tell(h)
	})
	if err == nil {
		err = m.start(ctx)
	}
	if err == nil {
		err = tell(&happening{Event: "started", Time: time.Now(), NodeUUID: m.NodeUUID, Mesh: f.join.mesh, Endpoints: m.Endpoints()})
	}
	close(introduced)
	if err != nil {
		return err
	}
	<-ctx.Done()
	left := m.leave(ctx)
	return errors.Join(left, tell(&happening{Event: "left", Time: time.Now()}))
}

// teller returns what prints a happening, for people or for programs.
func (f *nodeFlags) teller(out io.Writer) func(*happening) error {
	if f.json {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return func(h *happening) error { return failed(enc.Encode(h)) }
	}
	return func(h *happening) error {
		_, err := fmt.Fprintln(out, h)
		return failed(err)
	}
}

// String is what a person reads.
func (h *happening) String() string {
	switch h.Event {
	case "started":
		return fmt.Sprintf("node      %s\nmesh      %s\nlistening %s\n", h.NodeUUID, h.Mesh, strings.Join(h.Endpoints, "\n          "))
	case "left":
		return h.Time.Format(time.TimeOnly) + "  left the mesh"
	}
	sign := map[string]string{"up": "+", "down": "~", "lost": "-", "slow": "!", "refused": "x"}[h.Event]
	line := h.Time.Format(time.TimeOnly) + "  " + sign + " " + fmt.Sprintf("%-8s", h.Event)
	if h.Peer != nil {
		line += fmt.Sprintf("%-20s  %s", h.Peer.Name, h.Peer.NodeUUID)
	}
	if h.Remote != "" {
		line += "  " + h.Remote
	}
	if h.Error != "" {
		line += "  " + h.Error
	}
	return line
}
