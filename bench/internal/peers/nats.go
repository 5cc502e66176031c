package peers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

const natsModule = "github.com/nats-io/nats-server/v2"

var natsInProcess = peer.Peer{
	ID:     "nats-inproc",
	Name:   "NATS, in process",
	Module: natsModule,
	Kind:   peer.Async,
	Note:   "an embedded server without a port; one in-process connection publishes, one has all subscriptions, each with its goroutine; order is kept; nothing slows a publisher down: queues are unbounded here, as with NATS's own limits it would drop.",

	Local: func() (peer.Bus, error) {
		s, err := startNATS(server.Options{DontListen: true})
		if err != nil {
			return nil, err
		}
		return s.node(true)
	},
}

var natsTCP = peer.Peer{
	ID:     "nats-tcp",
	Name:   "NATS, TCP",
	Module: natsModule,
	Kind:   peer.Async,
	Note:   "one server, embedded in the far process; every node is a client of it on TCP, so a message travels twice; order is kept; queues are unbounded here, as with NATS's own limits it would drop.",

	Remote: natsTCPRemote{},
}

var natsCluster = peer.Peer{
	ID:     "nats-cluster",
	Name:   "NATS, cluster",
	Module: natsModule,
	Kind:   peer.Async,
	Note:   "every node is an embedded server with an in-process connection, and the servers are routes of one cluster on TCP; order is kept; queues are unbounded here, as with NATS's own limits it would drop.",

	Remote: natsClusterRemote{},
}

// natsPending is how many bytes may wait for a connection before the server cuts it: 64 MiB by
// default, which a publisher that nothing slows down can reach.
const natsPending = 4 << 30

// natsStart is how long a server may take to start.
const natsStart = 10 * time.Second

// natsServer is an embedded server that ends with its last node.
type natsServer struct {
	*server.Server
	nodes atomic.Int32
}

func startNATS(opts server.Options) (*natsServer, error) {
	opts.NoLog, opts.NoSigs = true, true
	opts.MaxPending = natsPending
	opts.WriteDeadline = time.Minute // a client that is busy that long is not dead
	s, err := server.NewServer(&opts)
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(natsStart) {
		s.Shutdown()
		return nil, errors.New("NATS: the server does not start")
	}
	return &natsServer{Server: s}, nil
}

// node connects a node within the process, with a connection of its own for publishing if it does
// both. If it fails and there is no other node, the server ends.
func (s *natsServer) node(both bool) (*natsNode, error) {
	s.nodes.Add(1)
	n := &natsNode{server: s}
	var err error
	if n.sub, err = nats.Connect("", nats.InProcessServer(s)); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.pub = n.sub
	if both {
		if n.pub, err = nats.Connect("", nats.InProcessServer(s)); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// natsNode is a node: a client, maybe with a server.
type natsNode struct {
	server   *natsServer // nil if it is in another process
	pub, sub *nats.Conn  // may be one
}

func (n *natsNode) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	sub, err := n.sub.Subscribe(topic, func(m *nats.Msg) { fn(m.Data) })
	if err != nil {
		return nil, err
	}
	if err := errors.Join(sub.SetPendingLimits(-1, -1), n.sub.Flush()); err != nil {
		return nil, errors.Join(err, sub.Unsubscribe())
	}
	return &cancelOnce{stop: sub.Unsubscribe}, nil
}

func (n *natsNode) Publisher(topic string) (peer.Publisher, error) {
	return natsPublisher{conn: n.pub, topic: topic}, nil
}

func (n *natsNode) Respond(topic string, fn func([]byte) []byte) error {
	sub, err := n.sub.Subscribe(topic, func(m *nats.Msg) {
		_ = m.Respond(fn(m.Data)) // who asks gets no answer then
	})
	if err != nil {
		return err
	}
	return errors.Join(sub.SetPendingLimits(-1, -1), n.sub.Flush())
}

func (n *natsNode) Request(ctx context.Context, topic string, data []byte) ([]byte, error) {
	m, err := n.pub.RequestWithContext(ctx, topic, data)
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

func (n *natsNode) Close() error {
	for _, c := range []*nats.Conn{n.pub, n.sub} {
		if c != nil {
			c.Close()
		}
	}
	if n.server != nil && n.server.nodes.Add(-1) == 0 {
		n.server.Shutdown()
		n.server.WaitForShutdown()
	}
	return nil
}

// natsPublisher leaves it to the connection's own goroutine to get out what it has buffered, which
// it does at once: no Flush is needed.
type natsPublisher struct {
	plainData
	conn  *nats.Conn
	topic string
}

func (p natsPublisher) Publish(msg any) error { return p.conn.Publish(p.topic, msg.([]byte)) }

type natsTCPRemote struct{}

func (natsTCPRemote) Listen(n int) ([]peer.Bus, string, error) {
	s, err := startNATS(server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT})
	if err != nil {
		return nil, "", err
	}
	var nodes []peer.Bus
	for range n {
		c, err := nats.Connect(s.ClientURL())
		if err != nil {
			s.Shutdown()
			return nil, "", errors.Join(err, closeAll(nodes))
		}
		s.nodes.Add(1)
		nodes = append(nodes, &natsNode{server: s, pub: c, sub: c})
	}
	return nodes, s.ClientURL(), nil
}

func (natsTCPRemote) Join(addr string) (peer.Near, error) {
	c, err := nats.Connect(addr)
	if err != nil {
		return nil, err
	}
	return natsNear{&natsNode{pub: c, sub: c}}, nil
}

// natsNear is a client of a server that knows the far nodes' subscriptions already.
type natsNear struct{ *natsNode }

// Ready returns at once: Subscribe and Respond return when the server knows.
func (natsNear) Ready(context.Context, string, int) error { return nil }

type natsClusterRemote struct{}

func (natsClusterRemote) Listen(n int) ([]peer.Bus, string, error) {
	var nodes []peer.Bus
	var addr string
	for range n {
		node, err := startNATSRoute(addr)
		if err != nil {
			return nil, "", errors.Join(err, closeAll(nodes))
		}
		nodes = append(nodes, node)
		if addr == "" { // one is enough: they tell each other the rest
			addr = "nats://" + node.server.ClusterAddr().String()
		}
	}
	return nodes, addr, nil
}

func (natsClusterRemote) Join(addr string) (peer.Near, error) {
	node, err := startNATSRoute(addr)
	if err != nil {
		return nil, err
	}
	return natsClusterNear{node}, nil
}

// startNATSRoute starts a server that joins the cluster of the one at addr, if any.
func startNATSRoute(addr string) (*natsNode, error) {
	opts := server.Options{
		// No client comes by it, but with DontListen a server does not start its routes.
		Host: "127.0.0.1", Port: server.RANDOM_PORT,
		Cluster: server.ClusterOpts{Name: "bench", Host: "127.0.0.1", Port: server.RANDOM_PORT},
	}
	if addr != "" {
		opts.Routes = server.RoutesFromStr(addr)
	}
	s, err := startNATS(opts)
	if err != nil {
		return nil, err
	}
	return s.node(false)
}

type natsClusterNear struct{ *natsNode }

// Ready waits until the servers of n far nodes have told this one what they want.
func (n natsClusterNear) Ready(ctx context.Context, topic string, count int) error {
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		have := n.server.GlobalAccount().Interest(topic)
		if have >= count {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("NATS: %d of %d nodes: %w", have, count, ctx.Err())
		case <-again.C:
		}
	}
}
