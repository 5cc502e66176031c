package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/anthdm/hollywood/actor"
	"github.com/anthdm/hollywood/remote"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var hollywoodPeer = peer.Peer{
	ID:     "hollywood",
	Name:   "Hollywood actors",
	Module: "github.com/anthdm/hollywood",
	Kind:   peer.Async,
	Note:   "a subscription is an actor, and a publisher sends to each in turn; order is kept; an inbox grows without a bound, so nothing slows a publisher down; between processes its remote package, with protobuf's BytesValue as the message and room for 1 GiB at once, as what comes together is sent together and breaks the connection if it is more than the default of 4 MiB.",

	Local: func() (peer.Bus, error) {
		e, err := actor.NewEngine(actor.NewEngineConfig())
		if err != nil {
			return nil, err
		}
		return &hollywoodNode{engine: e}, nil
	},
	Remote: hollywoodRemote{},
}

// hollywoodTimeout is how long a request may take whose context sets no limit.
const hollywoodTimeout = time.Minute

// hollywoodNode is an engine.
type hollywoodNode struct {
	engine *actor.Engine
	remote *remote.Remote // nil in one process
	topics topics[members[*actor.PID]]
	asked  sync.Map // topic → *actor.PID, who answers

	mu      sync.Mutex
	spawned []*actor.PID // guarded by mu
	closed  bool         // guarded by mu
}

// hollywoodBatch is how many bytes a connection may receive at once: 4 MiB by default, which is
// less than the 4,096 messages that the library sends at once, and the connection breaks.
const hollywoodBatch = 1 << 30

// hollywoodID is an actor's ID where other processes have to know it: there each topic has one
// actor, whose kind is the topic.
const hollywoodID = "0"

func (n *hollywoodNode) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	pid, err := n.spawn(topic, func(c *actor.Context) {
		switch m := c.Message().(type) {
		case []byte:
			fn(m)
		case *wrapperspb.BytesValue:
			fn(m.Value)
		case *actor.Ping:
			c.Respond(&actor.Pong{})
		}
	})
	if err != nil {
		return nil, err
	}
	subs := n.topics.of(topic, nil)
	subs.add(pid)
	return &cancelOnce{stop: func() error {
		subs.remove(pid)
		<-n.engine.Stop(pid).Done()
		return nil
	}}, nil
}

func (n *hollywoodNode) Publisher(topic string) (peer.Publisher, error) {
	p := hollywoodPublisher{engine: n.engine, to: n.topics.of(topic, nil)}
	if n.remote != nil {
		return hollywoodRemotePublisher{p}, nil
	}
	return p, nil
}

func (n *hollywoodNode) Respond(topic string, fn func([]byte) []byte) error {
	pid, err := n.spawn(topic, func(c *actor.Context) {
		switch m := c.Message().(type) {
		case []byte:
			c.Respond(fn(m))
		case *wrapperspb.BytesValue:
			c.Respond(wrapperspb.Bytes(fn(m.Value)))
		case *actor.Ping:
			c.Respond(&actor.Pong{})
		}
	})
	if err != nil {
		return err
	}
	n.asked.Store(topic, pid)
	return nil
}

func (n *hollywoodNode) Request(ctx context.Context, topic string, data []byte) ([]byte, error) {
	pid, ok := n.asked.Load(topic)
	if !ok {
		return nil, errors.New("hollywood: nobody answers " + topic)
	}
	var msg any = data
	if n.remote != nil {
		msg = wrapperspb.Bytes(data)
	}
	timeout := hollywoodTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	reply, err := n.engine.Request(pid.(*actor.PID), msg, timeout).Result()
	if err != nil {
		return nil, err
	}
	switch m := reply.(type) {
	case []byte:
		return m, nil
	case *wrapperspb.BytesValue:
		return m.Value, nil
	}
	return nil, fmt.Errorf("hollywood: a reply of type %T", reply)
}

// spawn starts an actor of the kind topic.
func (n *hollywoodNode) spawn(topic string, receive func(*actor.Context)) (*actor.PID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var opts []actor.OptFunc
	if n.remote != nil {
		if n.engine.Registry.GetPID(topic, hollywoodID) != nil {
			return nil, unsupported("one receiver of a topic on a node that others reach")
		}
		opts = append(opts, actor.WithID(hollywoodID))
	}
	pid := n.engine.SpawnFunc(receive, topic, opts...)
	n.spawned = append(n.spawned, pid)
	return pid, nil
}

func (n *hollywoodNode) Close() error {
	n.mu.Lock()
	spawned, closed := n.spawned, n.closed
	n.spawned, n.closed = nil, true
	n.mu.Unlock()
	for _, pid := range spawned {
		<-n.engine.Stop(pid).Done() // at once if it has ended before
	}
	if n.remote != nil && !closed {
		n.remote.Stop().Wait()
	}
	return nil
}

type hollywoodPublisher struct {
	plainData
	engine *actor.Engine
	to     *members[*actor.PID]
}

func (p hollywoodPublisher) Publish(msg any) error {
	for _, pid := range p.to.load() {
		p.engine.Send(pid, msg)
	}
	return nil
}

// hollywoodRemotePublisher makes messages that can be encoded.
type hollywoodRemotePublisher struct{ hollywoodPublisher }

func (hollywoodRemotePublisher) Message(data []byte) any { return wrapperspb.Bytes(data) }

type hollywoodRemote struct{}

func (hollywoodRemote) Listen(n int) ([]peer.Bus, string, error) {
	var nodes []peer.Bus
	var addrs []string
	for range n {
		node, err := startHollywood()
		if err != nil {
			return nil, "", errors.Join(err, closeAll(nodes))
		}
		nodes, addrs = append(nodes, node), append(addrs, node.engine.Address())
	}
	return nodes, strings.Join(addrs, " "), nil
}

func (hollywoodRemote) Join(addr string) (peer.Near, error) {
	node, err := startHollywood()
	if err != nil {
		return nil, err
	}
	return &hollywoodNear{hollywoodNode: node, addrs: strings.Fields(addr)}, nil
}

// startHollywood starts an engine that others reach. The library has to be told the port, so a free
// one is looked for first.
func startHollywood() (*hollywoodNode, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if err := l.Close(); err != nil {
		return nil, err
	}
	r := remote.New(l.Addr().String(), remote.NewConfig().WithBufferSize(hollywoodBatch))
	e, err := actor.NewEngine(actor.NewEngineConfig().WithRemote(r))
	if err != nil {
		return nil, err
	}
	return &hollywoodNode{engine: e, remote: r}, nil
}

type hollywoodNear struct {
	*hollywoodNode
	addrs []string
}

// Ready waits until n actors of the topic have answered a ping.
func (n *hollywoodNear) Ready(ctx context.Context, topic string, count int) error {
	subs := n.topics.of(topic, nil)
	for {
		for _, addr := range n.addrs {
			pid := actor.NewPID(addr, topic+"/"+hollywoodID)
			if knows(subs.load(), pid) {
				continue
			}
			if _, err := n.engine.Request(pid, &actor.Ping{}, time.Second).Result(); err != nil {
				continue
			}
			subs.add(pid)
			n.asked.LoadOrStore(topic, pid)
		}
		have := len(subs.load())
		if have >= count {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("hollywood: %d of %d nodes: %w", have, count, ctx.Err())
		}
	}
}

func knows(pids []*actor.PID, pid *actor.PID) bool {
	for _, have := range pids {
		if have.Equals(pid) {
			return true
		}
	}
	return false
}
