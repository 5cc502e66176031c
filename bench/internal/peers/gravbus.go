package peers

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/transport/websocket"
)

const gravbusModule = "github.com/gravbus/gravbus"

var gravbusPeer = peer.Peer{
	ID:     "gravbus",
	Name:   "gravbus",
	Module: gravbusModule,
	Kind:   peer.Async,
	Note:   "all defaults: a pod per subscription with a mailbox of 1,024, and replay on; the sender waits where a mailbox is full; order is kept; between processes one websocket, with nothing lost or doubled by a cut.",

	Local:  func() (peer.Bus, error) { return newGravbusNode(), nil },
	Remote: gravbusMesh{},
}

var gravbusNoReplayPeer = peer.Peer{
	ID:     "gravbus-noreplay",
	Name:   "gravbus, replay off",
	Module: gravbusModule,
	Kind:   peer.Async,
	Note:   "as gravbus, but it keeps no messages for receivers that come later, which no other library here does.",

	Local: func() (peer.Bus, error) { return newGravbusNode(gravbus.UseReplay(0)), nil },
}

// A gravbusNode is a bus, alone or in a mesh.
type gravbusNode struct {
	bus   *gravbus.Bus
	asker func() *gravbus.Pod // the pod of all requests, connected by the first
}

func newGravbusNode(opts ...gravbus.Option) *gravbusNode {
	bus := gravbus.New(opts...)
	return &gravbusNode{
		bus:   bus,
		asker: sync.OnceValue(func() *gravbus.Pod { return bus.Connect() }),
	}
}

func (n *gravbusNode) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	pod := n.bus.Connect()
	err := pod.OnType(topic, func(msg gravbus.Message) error {
		fn(msg.Data())
		return nil
	})
	return gravbusSub{pod}, err
}

type gravbusSub struct{ pod *gravbus.Pod }

func (s gravbusSub) Cancel() error {
	s.pod.Disconnect()
	return nil
}

func (n *gravbusNode) Publisher(topic string) (peer.Publisher, error) {
	return gravbusPublisher{topic: topic, pod: n.bus.Connect()}, nil
}

func (n *gravbusNode) Close() error { return n.bus.Close() }

type gravbusPublisher struct {
	topic string
	pod   *gravbus.Pod
}

func (p gravbusPublisher) Message(data []byte) any { return gravbus.NewMsg(p.topic, data) }

func (p gravbusPublisher) Publish(msg any) error {
	if p.pod.Send(msg.(gravbus.Message)) == nil {
		return errors.New("gravbus: the message cannot be sent")
	}
	return nil
}

func (gravbusPublisher) Flush() error { return nil }

func (n *gravbusNode) Respond(topic string, fn func([]byte) []byte) error {
	pod, answer := n.bus.Connect(), topic+".answer"
	return pod.OnType(topic, func(msg gravbus.Message) error {
		pod.ReplyTo(msg, gravbus.NewMsg(answer, fn(msg.Data())))
		return nil
	})
}

func (n *gravbusNode) Request(ctx context.Context, topic string, data []byte) ([]byte, error) {
	reply, err := n.asker().Request(ctx, gravbus.NewMsg(topic, data))
	if err != nil {
		return nil, err
	}
	return reply.Data(), nil
}

// Ready returns when n other nodes want what is published to topic.
func (n *gravbusNode) Ready(ctx context.Context, topic string, nodes int) error {
	return n.bus.WaitInterest(ctx, topic, nodes)
}

// A gravbusMesh starts nodes of a mesh. They listen on loopback only, so they need no key.
type gravbusMesh struct{}

func (m gravbusMesh) Listen(n int) (nodes []peer.Bus, addr string, err error) {
	var endpoints []string
	for range n {
		node, err := m.start()
		if err != nil {
			for _, started := range nodes {
				_ = started.Close() // always nil
			}
			return nil, "", err
		}
		nodes = append(nodes, node)
		endpoints = append(endpoints, node.bus.Endpoints()[0])
	}
	return nodes, strings.Join(endpoints, " "), nil
}

// Join connects to each of the nodes. One would do, as nodes tell each other of their peers, but
// then an error of the others would only show as a wait in Ready.
func (m gravbusMesh) Join(addr string) (peer.Near, error) {
	node, err := m.start()
	if err != nil {
		return nil, err
	}
	for _, endpoint := range strings.Fields(addr) {
		if err := node.bus.ConnectEndpoint(endpoint); err != nil {
			_ = node.Close() // always nil
			return nil, err
		}
	}
	return node, nil
}

func (gravbusMesh) start() (*gravbusNode, error) {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard) // it would tell of peers that come and go
	node := newGravbusNode(
		gravbus.UseTransport(websocket.New(websocket.Config{Addr: "127.0.0.1:0"})),
		gravbus.UseLogger(quiet),
	)
	if err := node.bus.Start(context.Background()); err != nil {
		_ = node.Close() // always nil
		return nil, err
	}
	return node, nil
}
