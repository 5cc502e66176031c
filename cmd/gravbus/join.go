package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/mdns"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport/websocket"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
)

// homePort is where `gravbus node` listens, and where the other commands look for it on their
// machine unless they are told of another node.
const homePort = "8080"

// leaveTime is how long an interrupted command takes at most to hand over what it has.
const leaveTime = 10 * time.Second

// joinFlags are the flags of all commands that join a mesh.
type joinFlags struct {
	listen  string
	seeds   []string
	mdns    bool
	mesh    string
	name    string
	keyFile string
	tls     tlsFlags
	open    bool
	maxSize int
	verbose int
	quiet   bool

	mdnsAsked bool // rather than by default
}

// add adds the flags to a command, after its own.
func (f *joinFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.listen, "listen", "", "`address` to listen at (default this machine only; all addresses with\na key, client certificates or --open)")
	flags.StringSliceVar(&f.seeds, "seed", nil, "`endpoint` of a node, such as host:8080; may be repeated, one is enough")
	flags.BoolVar(&f.mdns, "mdns", true, "look for nodes by multicast DNS")
	flags.StringVar(&f.mesh, "mesh", gravbus.DefaultMesh, "`name` of the mesh")
	flags.StringVar(&f.name, "name", "", "`name` of this node, for people (default its command and host)")
	flags.StringVar(&f.keyFile, "key-file", "", "`file` with the mesh key, or several, one in a line (default $GRAVBUS_KEY)")
	flags.StringVar(&f.tls.cert, "tls-cert", "", "`file` with this node's certificate; links use TLS then")
	flags.StringVar(&f.tls.key, "tls-key", "", "`file` with the certificate's private key")
	flags.StringVar(&f.tls.ca, "tls-ca", "", "`file` with the authorities whose certificates nodes have to show")
	flags.StringVar(&f.tls.name, "tls-name", "", "`name` in the nodes' certificates, if these are not for their addresses")
	flags.BoolVar(&f.open, "open", false, "let everybody in who can reach this node")
	flags.IntVar(&f.maxSize, "max-size", gravbus.DefaultMaxMessageSize, "`bytes` of data that a message may have")
	flags.CountVarP(&f.verbose, "verbose", "v", "tell what happens; -vv tells more")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "tell of errors only")
}

// member is the node that a command runs.
type member struct {
	*gravbus.Bus
	log    *logrus.Logger
	listen string
	seeds  *seeds
	lost   atomic.Uint64 // messages on their way to others, or from them
}

// make makes a node that is not started. It listens at the port unless it is told where. Errors are
// about the command line.
func (f *joinFlags) make(cmd *cobra.Command, port string, opts ...gravbus.Option) (*member, error) {
	f.mdnsAsked = cmd.Flags().Changed("mdns")
	keys, err := meshKeys(f.keyFile)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := f.tls.config()
	if err != nil {
		return nil, err
	}
	if f.maxSize < 1 {
		return nil, errors.New("--max-size must be positive")
	}
	m := &member{log: f.logger(cmd), listen: f.listen}
	if m.listen == "" {
		host := "127.0.0.1"
		if len(keys) > 0 || f.open || f.tls.ca != "" {
			host = ""
		}
		m.listen = net.JoinHostPort(host, port)
	}
	name := f.name
	if name == "" {
		host, _ := os.Hostname()
		name = cmd.Name() + "@" + host
	}
	m.seeds = &seeds{
		Transport: websocket.New(websocket.Config{Addr: m.listen, TLS: tlsConfig}),
		list:      f.seeds,
		alone:     func() bool { return len(m.up()) == 0 },
	}
	switch {
	case len(f.seeds) > 0:
		m.seeds.log = m.log
	case port != homePort:
		m.seeds.list = []string{net.JoinHostPort("127.0.0.1", homePort)}
	}
	for _, seed := range m.seeds.list {
		if err := checkSeed(m.seeds.Transport, seed); err != nil {
			return nil, err
		}
	}
	all := []gravbus.Option{
		gravbus.UseLogger(m.log),
		gravbus.UseTransport(m.seeds),
		gravbus.UseMesh(f.mesh),
		gravbus.UseNodeName(name),
		gravbus.UseMaxMessageSize(f.maxSize),
	}
	if len(keys) > 0 {
		all = append(all, gravbus.UseMeshKey(keys...))
	}
	if f.open {
		all = append(all, gravbus.UseOpenMesh())
	}
	if len(m.seeds.list) > 0 {
		all = append(all, gravbus.UseDiscovery(static.New(m.seeds.list...)))
	}
	if f.mdns {
		all = append(all, gravbus.UseDiscovery(mdns.New(mdnsConfig(m.listen))))
	}
	m.Bus = gravbus.New(append(all, opts...)...)
	return m, errors.Join(m.watchGaps(), m.watchRefusals())
}

// mdnsConfig keeps on this machine what is only for it: other machines need not hear of a node that
// they cannot reach.
func mdnsConfig(listen string) mdns.Config {
	host, _, _ := net.SplitHostPort(listen)
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return mdns.Config{}
	}
	c := mdns.Config{DisableIPv6: true} // the loopback seldom has a route for its multicast
	all, _ := net.Interfaces()
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp != 0 {
			c.Interfaces = append(c.Interfaces, i.Name)
		}
	}
	return c
}

// watchGaps counts and tells of messages that are lost between nodes.
func (m *member) watchGaps() error {
	return m.Connect(gravbus.Name("gaps")).OnType(gravbus.EventPeerGap, func(msg gravbus.Message) error {
		g, err := gravbus.Decode[gravbus.Gap](msg)
		if err != nil {
			return err
		}
		m.lost.Add(g.Count)
		way := "to"
		if g.Incoming {
			way = "from"
		}
		m.log.Errorf("%s lost on the way %s node %s", plural(g.Count, "message"), way, g.Peer)
		return nil
	})
}

// watchRefusals notes nodes that did not become peers.
func (m *member) watchRefusals() error {
	return m.Connect(gravbus.Name("refusals")).OnType(gravbus.EventPeerRefused, func(msg gravbus.Message) error {
		e, err := gravbus.Decode[gravbus.PeerEvent](msg)
		if err == nil {
			m.seeds.refusal(e.Remote, e.Error)
		}
		return err
	})
}

// up returns the names of the nodes that are connected, sorted.
func (m *member) up() (names []string) {
	for _, p := range m.Stats().Peers {
		if p.State == gravbus.PeerUp {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// start makes the node listen and look for others.
func (m *member) start(ctx context.Context) error {
	err := m.Start(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gravbus.ErrOpenMesh):
		return fmt.Errorf("listening at %s would let in everybody on the network: give --key-file or GRAVBUS_KEY ('gravbus key' makes one), "+
			"--tls-ca for client certificates, or --open if that is meant", m.listen)
	case ctx.Err() != nil:
		return &failure{errInterrupted}
	}
	var listen *net.OpError
	if errors.As(err, &listen) && listen.Op == "listen" {
		return &failure{fmt.Errorf("cannot listen at %s: %w", m.listen, listen.Err)}
	}
	return &failure{fmt.Errorf("cannot start: %w", err)}
}

// awaitInterest waits until pods of n nodes want the type. Who waits for long is told for what.
func (m *member) awaitInterest(ctx context.Context, typ string, n int) error {
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := m.WaitInterest(soon, typ, n)
	if soon.Err() != nil && err != nil && ctx.Err() == nil {
		m.log.Warnf("waiting for %s that %s %s", plural(n, "node"), verb(n, "want"), typ)
		err = m.WaitInterest(ctx, typ, n)
	}
	return err
}

// nobody says why nobody got a message.
func (m *member) nobody(typ string) error {
	others := m.up()
	switch {
	case len(others) == 0:
		return &failure{fmt.Errorf("%w: no other node was found%s", errNobody, m.seeds.why())}
	case len(others) > 8:
		return &failure{fmt.Errorf("%w: of %d connected nodes too few want %s", errNobody, len(others), typ)}
	}
	return &failure{fmt.Errorf("%w: too few nodes want %s; connected are %s", errNobody, typ, strings.Join(others, ", "))}
}

// leave hands over what is under way, and takes the node out of the mesh. If ctx has ended already,
// or does, that is cut short after leaveTime.
func (m *member) leave(ctx context.Context) error {
	bounded, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(leaveTime, cancel) })
	defer stop()
	if err := m.Shutdown(bounded); err != nil {
		return &failure{fmt.Errorf("not all that was under way has been handed over: %w", err)}
	}
	if n := m.lost.Load(); n > 0 {
		return &failure{fmt.Errorf("lost %s", plural(n, "message"))}
	}
	return nil
}
