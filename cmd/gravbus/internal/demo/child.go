package demo

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/mdns"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport/websocket"
	"github.com/sirupsen/logrus"
)

// An order is what the demonstration tells a node, in a line of JSON.
type order struct {
	ID int    `json:"id"` // of the answer, which may come after those of later orders
	Do string `json:"do"`

	Node     *nodeOrder `json:"node,omitempty"` // start
	Endpoint string     `json:"endpoint,omitempty"`
	Type     string     `json:"type,omitempty"`
	Act      string     `json:"act,omitempty"`
	From     string     `json:"from,omitempty"`
	N        int64      `json:"n,omitempty"`
	Rate     int64      `json:"rate,omitempty"` // messages a second; as fast as they go if 0
}

// nodeOrder is what a node is made of.
type nodeOrder struct {
	Name       string   `json:"name"`
	Mesh       string   `json:"mesh"`
	Key        string   `json:"key"`
	Addr       string   `json:"addr"`
	Interfaces []string `json:"interfaces,omitempty"` // for mDNS; none means no mDNS
	Seeds      []string `json:"seeds,omitempty"`
	Replay     string   `json:"replay,omitempty"` // the act whose messages are wanted from the beginning
}

// An answer is what a node says to an order, in a line of JSON.
type answer struct {
	ID       int             `json:"id"`
	Error    string          `json:"error,omitempty"`
	UUID     string          `json:"uuid,omitempty"`
	Endpoint string          `json:"endpoint,omitempty"`
	N        int64           `json:"n,omitempty"`
	Names    []string        `json:"names,omitempty"`
	Seen     map[string]Seen `json:"seen,omitempty"`
	Cuts     uint64          `json:"cuts,omitempty"`
	Resent   uint64          `json:"resent,omitempty"`
}

// child is a node of the demonstration, in a process of its own.
type child struct {
	bus   *gravbus.Bus
	pod   *gravbus.Pod
	name  string
	cable *cable
	seen  streams
	sent  atomic.Int64
	stop  sync.Map // by act: closed to end the sending
}

// streamType is the type of what a node sends in an act.
func streamType(act, from string) string { return "demo." + act + "." + from }

// RunChild is a node of the demonstration: it does what it reads, and writes its answers. It ends
// when there is nothing more to read.
func RunChild(in io.Reader, out io.Writer) error {
	c := &child{}
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	defer func() {
		cancel()
		if c.bus != nil {
			c.bus.Close()
		}
		working.Wait()
	}()
	var mu sync.Mutex // guards enc
	enc := json.NewEncoder(out)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		do := func() {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			a := answer{ID: o.ID}
			if err := c.do(ctx, &o, &a); err != nil {
				a.Error = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			_ = enc.Encode(&a) // if nobody reads any more, nothing more is to be read soon
		}
		if o.Do == "start" { // all others use the bus
			do()
			continue
		}
		working.Go(do) // ends when the order is done, or with ctx
	}
	return lines.Err()
}

// do carries out an order.
func (c *child) do(ctx context.Context, o *order, a *answer) error {
	if c.bus == nil && o.Do != "start" {
		return errors.New("not started")
	}
	switch o.Do {
	case "start":
		return c.start(ctx, o.Node, a)
	case "connect":
		return c.bus.ConnectEndpointContext(ctx, o.Endpoint)
	case "peers":
		return c.bus.WaitPeers(ctx, int(o.N))
	case "alone":
		return c.await(ctx, func() bool { return c.connected() <= int(o.N) })
	case "interest":
		return c.bus.WaitInterest(ctx, o.Type, int(o.N))
	case "send":
		return c.send(ctx, o, a)
	case "stop":
		if stop, ok := c.stop.LoadAndDelete(o.Act); ok {
			close(stop.(chan struct{}))
		}
	case "sent":
		return c.await(ctx, func() bool {
			a.N = c.sent.Load()
			return a.N >= o.N
		})
	case "seen":
		c.seen.await(ctx, streamType(o.Act, o.From), o.N)
		a.Seen = c.seen.snapshot()
	case "ask":
		return c.ask(ctx, o, a)
	case "ask all":
		return c.askAll(ctx, o, a)
	case "pull":
		c.cable.pull()
	case "plug":
		c.cable.plug()
	case "stats":
		a.N = int64(c.connected())
		for _, p := range c.bus.Stats().Peers {
			a.Cuts += p.Cuts
			a.Resent += p.Resent
		}
	case "leave":
		err := c.bus.Shutdown(ctx)
		a.Seen = c.seen.snapshot()
		return err
	default:
		return fmt.Errorf("unknown order %q", o.Do)
	}
	return nil
}

// start makes the node.
func (c *child) start(ctx context.Context, n *nodeOrder, a *answer) error {
	if c.bus != nil || n == nil {
		return errors.New("a node is started once")
	}
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	c.name = n.Name
	c.cable = newCable(websocket.New(websocket.Config{Addr: n.Addr}))
	opts := []gravbus.Option{
		gravbus.UseLogger(quiet),
		gravbus.UseTransport(c.cable),
		gravbus.UseMesh(n.Mesh),
		gravbus.UseMeshKey([]byte(n.Key)),
		gravbus.UseNodeName(n.Name),
		// A machine may be busy: nobody is taken for one that has stalled.
		gravbus.UseLinkStallLimit(patience),
		gravbus.UsePodDefaults(gravbus.StallLimit(patience)),
	}
	if len(n.Interfaces) > 0 {
		opts = append(opts, gravbus.UseDiscovery(mdns.New(mdns.Config{Interfaces: n.Interfaces, DisableIPv6: true})))
	}
	if len(n.Seeds) > 0 {
		opts = append(opts, gravbus.UseDiscovery(static.New(n.Seeds...)))
	}
	c.bus = gravbus.New(opts...)
	c.pod = c.bus.Connect(gravbus.Name(n.Name))
	if err := c.listen(n.Replay); err != nil {
		return err
	}
	if err := c.bus.Start(ctx); err != nil {
		return err
	}
	a.UUID, a.Endpoint = c.bus.NodeUUID, c.bus.Endpoints()[0]
	return nil
}

// listen follows what other nodes send, and answers their requests. With replay it follows one act
// only, from the beginning.
func (c *child) listen(replay string) error {
	pattern := "demo.*.*"
	listener := c.bus.Connect(gravbus.Name(c.name+"'s ear"), gravbus.Observer())
	if replay != "" {
		pattern = streamType(replay, "*")
		listener = c.bus.ConnectWithReplay(gravbus.Name(c.name+"'s ear"), gravbus.Observer())
	}
	if err := listener.FilterType(streamType("*", c.name), false); err != nil { // what it sends itself
		return err
	}
	err := listener.OnType(pattern, func(msg gravbus.Message) error {
		if data := msg.Data(); len(data) >= 8 {
			c.seen.add(msg.Type(), int64(binary.BigEndian.Uint64(data)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, who := range []string{c.name, "all"} {
		err := gravbus.Handle(c.bus.Connect(gravbus.Name(c.name)), "ask."+who, func(_ context.Context, n int64) (string, error) {
			return fmt.Sprintf("%s %d", c.name, n), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// messageSize is how many bytes of data a message of the demonstration has.
const messageSize = 128

// send sends N messages of an act, or with no N until it is told to stop.
func (c *child) send(ctx context.Context, o *order, a *answer) error {
	stop := make(chan struct{})
	if o.N == 0 {
		c.stop.Store(o.Act, stop)
	}
	typ := streamType(o.Act, c.name)
	const beat = 5 * time.Millisecond
	pace := time.NewTicker(beat)
	defer pace.Stop()
	began := time.Now()
	for o.N == 0 || a.N < o.N {
		for o.Rate > 0 && float64(a.N) >= time.Since(began).Seconds()*float64(o.Rate) {
			select {
			case <-pace.C:
			case <-stop:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-stop:
			return nil
		default:
		}
		data := binary.BigEndian.AppendUint64(make([]byte, 0, messageSize), uint64(a.N+1))
		if _, err := c.pod.SendContext(ctx, gravbus.NewMsg(typ, data[:messageSize])); err != nil {
			return err
		}
		a.N++
		c.sent.Add(1)
	}
	return nil
}

// ask asks N times, and counts the answers that belong to their questions.
func (c *child) ask(ctx context.Context, o *order, a *answer) error {
	for n := int64(1); n <= o.N; n++ {
		answer, err := gravbus.Request[string](ctx, c.pod, o.Type, n)
		if err != nil {
			return err
		}
		if _, number, _ := strings.Cut(answer, " "); number == fmt.Sprint(n) {
			a.N++
		}
	}
	return nil
}

// askAll asks everybody once.
func (c *child) askAll(ctx context.Context, o *order, a *answer) error {
	for msg, err := range c.pod.RequestAll(ctx, gravbus.NewTyped(o.Type, o.N)) {
		if err != nil {
			return err
		}
		answer, err := gravbus.Decode[string](msg)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(answer, " ")
		a.Names = append(a.Names, name)
	}
	return nil
}

func (c *child) connected() (n int) {
	for _, p := range c.bus.Stats().Peers {
		if p.State == gravbus.PeerUp {
			n++
		}
	}
	return n
}

// await waits until ok, which it looks at now and then, or until ctx ends.
func (c *child) await(ctx context.Context, ok func() bool) error {
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
