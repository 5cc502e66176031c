package peers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/pull"
	"go.nanomsg.org/mangos/v3/protocol/push"
	"go.nanomsg.org/mangos/v3/protocol/rep"
	"go.nanomsg.org/mangos/v3/protocol/req"
	_ "go.nanomsg.org/mangos/v3/transport/inproc" // for addresses of that kind, as those below
	_ "go.nanomsg.org/mangos/v3/transport/tcp"
	_ "go.nanomsg.org/mangos/v3/transport/ws"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

const (
	mangosModule = "go.nanomsg.org/mangos/v3"
	mangosNote   = "PUSH and PULL, a pair of sockets for each publisher and subscription, with queues of 1,024: its PUB drops what a slow SUB has no room for; REQ and REP with contexts, eight that answer; order is kept, and a full queue makes the publisher wait."
)

var mangosInproc = peer.Peer{
	ID:     "mangos-inproc",
	Name:   "mangos, in process",
	Module: mangosModule,
	Kind:   peer.Async,
	Note:   mangosNote,

	Local: func() (peer.Bus, error) { return &mangosBus{id: mangosBuses.Add(1)}, nil },
}

var mangosTCP = peer.Peer{
	ID:     "mangos-tcp",
	Name:   "mangos, TCP",
	Module: mangosModule,
	Kind:   peer.Async,
	Note:   mangosNote,

	Remote: mangosRemote{addr: "tcp://127.0.0.1:0"},
}

var mangosWS = peer.Peer{
	ID:     "mangos-ws",
	Name:   "mangos, websocket",
	Module: mangosModule,
	Kind:   peer.Async,
	Note:   mangosNote,

	Remote: mangosRemote{addr: "ws://127.0.0.1:0/"},
}

// mangosResponders is how many requests a responder answers at a time.
const mangosResponders = 8

// mangosBuses numbers the buses of the process, which share the names of its in-process addresses.
var mangosBuses atomic.Int64

// A mangosBus is what has sockets within the process, or is the near node of several processes.
type mangosBus struct {
	id     int64        // makes addresses unique
	last   atomic.Int64 // makes subscriptions' addresses unique
	topics topics[members[*mangosTarget]]
	ask    topics[mangosAsker]

	mu         sync.Mutex
	responders []*mangosResponder // guarded by mu
}

func (b *mangosBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	addr := fmt.Sprintf("inproc://%d/subscription/%d", b.id, b.last.Add(1))
	r, addr, err := newMangosReceiver(addr)
	if err != nil {
		return nil, err
	}
	r.start(fn)
	target, targets := &mangosTarget{addr: addr, receiver: r}, b.topics.of(topic, nil)
	targets.add(target)
	return &cancelOnce{stop: func() error {
		targets.remove(target)
		return target.Close()
	}}, nil
}

func (b *mangosBus) Publisher(topic string) (peer.Publisher, error) {
	return &mangosPublisher{targets: b.topics.of(topic, nil)}, nil
}

func (b *mangosBus) responderAddr(topic string) string {
	return fmt.Sprintf("inproc://%d/responder/%s", b.id, topic)
}

func (b *mangosBus) Respond(topic string, fn func([]byte) []byte) error {
	r, _, err := newMangosResponder(b.responderAddr(topic))
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.responders = append(b.responders, r)
	b.mu.Unlock()
	return r.start(fn)
}

func (b *mangosBus) Request(ctx context.Context, topic string, data []byte) ([]byte, error) {
	a := b.ask.of(topic, func() *mangosAsker { return &mangosAsker{addr: b.responderAddr(topic)} })
	return a.request(ctx, data)
}

func (b *mangosBus) Close() error {
	var errs []error
	for _, targets := range b.topics.all() {
		list := targets.load()
		for _, target := range list {
			targets.remove(target)
		}
		errs = append(errs, closeAll(list))
	}
	errs = append(errs, closeAll(b.ask.all()))
	b.mu.Lock()
	defer b.mu.Unlock()
	errs = append(errs, closeAll(b.responders))
	b.responders = nil
	return errors.Join(errs...)
}

// A mangosTarget is where a subscription receives.
type mangosTarget struct {
	addr     string
	receiver *mangosReceiver // nil if it is in another process

	mu     sync.Mutex
	pushes []mangos.Socket // guarded by mu; those of the publishers
	closed bool            // guarded by mu
}

// push returns a socket that sends to it, which is closed with it.
func (t *mangosTarget) push() (mangos.Socket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, mangos.ErrClosed
	}
	s, err := push.NewSocket()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.SetOption(mangos.OptionWriteQLen, queue), s.Dial(t.addr)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	t.pushes = append(t.pushes, s)
	return s, nil
}

// Close lets go of publishers that wait for room.
func (t *mangosTarget) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	err := closeAll(t.pushes)
	if t.receiver != nil {
		err = errors.Join(err, t.receiver.Close())
	}
	return err
}

// A mangosPublisher has a socket for each target.
type mangosPublisher struct {
	plainData
	targets *members[*mangosTarget]
	known   []*mangosTarget // those that sockets are for, in this order
	sockets []mangos.Socket
}

func (p *mangosPublisher) Publish(msg any) error {
	if now := p.targets.load(); !sameList(now, p.known) {
		if err := p.follow(now); err != nil {
			return err
		}
	}
	for _, s := range p.sockets {
		if err := s.Send(msg.([]byte)); err != nil && !errors.Is(err, mangos.ErrClosed) {
			return err
		} // one that is closed has been canceled meanwhile
	}
	return nil
}

// sameList says whether both are one list, not only equal. A list is never modified.
func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// follow gives the new ones of targets a socket.
func (p *mangosPublisher) follow(targets []*mangosTarget) error {
	sockets := make([]mangos.Socket, 0, len(targets))
	known := make([]*mangosTarget, 0, len(targets))
	for _, t := range targets {
		if i := slices.Index(p.known, t); i >= 0 {
			sockets, known = append(sockets, p.sockets[i]), append(known, t)
			continue
		}
		s, err := t.push()
		if errors.Is(err, mangos.ErrClosed) {
			continue
		}
		if err != nil {
			return err
		}
		sockets, known = append(sockets, s), append(known, t)
	}
	p.known, p.sockets = known, sockets
	if len(known) == len(targets) {
		p.known = targets // so that sameList finds it again
	}
	return nil
}

// A mangosReceiver is a PULL socket that listens, and one goroutine once it has started.
type mangosReceiver struct {
	socket  mangos.Socket
	running sync.WaitGroup
}

func newMangosReceiver(addr string) (*mangosReceiver, string, error) {
	s, err := pull.NewSocket()
	if err != nil {
		return nil, "", err
	}
	if err := s.SetOption(mangos.OptionReadQLen, queue); err != nil {
		return nil, "", errors.Join(err, s.Close())
	}
	addr, err = listenMangos(s, addr)
	return &mangosReceiver{socket: s}, addr, err
}

func (r *mangosReceiver) start(fn func([]byte)) {
	r.running.Go(func() { // until Close
		for {
			m, err := r.socket.RecvMsg()
			if err != nil {
				return
			}
			fn(m.Body)
			m.Free()
		}
	})
}

func (r *mangosReceiver) Close() error {
	err := r.socket.Close()
	r.running.Wait()
	return err
}

// listenMangos returns the address at which s listens, with its port, or closes it.
func listenMangos(s mangos.Socket, addr string) (string, error) {
	l, err := s.NewListener(addr, nil)
	if err == nil {
		err = l.Listen()
	}
	if err != nil {
		return "", errors.Join(err, s.Close())
	}
	return l.Address(), nil
}

// A mangosResponder is a REP socket that listens, with a context for each goroutine that answers.
type mangosResponder struct {
	socket  mangos.Socket
	running sync.WaitGroup
}

func newMangosResponder(addr string) (*mangosResponder, string, error) {
	s, err := rep.NewSocket()
	if err != nil {
		return nil, "", err
	}
	addr, err = listenMangos(s, addr)
	return &mangosResponder{socket: s}, addr, err
}

func (r *mangosResponder) start(fn func([]byte) []byte) error {
	for range mangosResponders {
		c, err := r.socket.OpenContext()
		if err != nil {
			return err
		}
		r.running.Go(func() { // until Close
			for {
				m, err := c.RecvMsg()
				if err != nil {
					return
				}
				reply := fn(m.Body)
				if c.Send(reply) != nil {
					return
				}
				m.Free()
			}
		})
	}
	return nil
}

func (r *mangosResponder) Close() error {
	err := r.socket.Close()
	r.running.Wait()
	return err
}

// A mangosAsker asks one responder. It has a context for each request at a time, which is used
// again.
type mangosAsker struct {
	addr string

	mu     sync.Mutex
	socket mangos.Socket    // guarded by mu; made by the first request
	idle   []mangos.Context // guarded by mu
}

// request ends early if ctx has a deadline, or by Close.
func (a *mangosAsker) request(ctx context.Context, data []byte) ([]byte, error) {
	c, err := a.context()
	if err != nil {
		return nil, err
	}
	reply, err := mangosRequest(ctx, c, data)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idle = append(a.idle, c)
	return reply, nil
}

func mangosRequest(ctx context.Context, c mangos.Context, data []byte) ([]byte, error) {
	if deadline, ok := ctx.Deadline(); ok {
		left := max(time.Until(deadline), 1) // 0 is for ever
		if err := c.SetOption(mangos.OptionRecvDeadline, left); err != nil {
			return nil, err
		}
	}
	if err := c.Send(data); err != nil {
		return nil, err
	}
	return c.Recv()
}

func (a *mangosAsker) context() (mangos.Context, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.idle); n > 0 {
		c := a.idle[n-1]
		a.idle = a.idle[:n-1]
		return c, nil
	}
	if a.socket == nil {
		s, err := req.NewSocket()
		if err != nil {
			return nil, err
		}
		if err := s.Dial(a.addr); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		a.socket = s
	}
	return a.socket.OpenContext()
}

func (a *mangosAsker) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.socket == nil {
		return nil
	}
	return a.socket.Close()
}

// mangosRemote listens at addr, of whatever transport.
type mangosRemote struct {
	addr string
}

// Listen starts nodes that have sockets for one subscription and one responder each: there are no
// topics.
func (m mangosRemote) Listen(n int) ([]peer.Bus, string, error) {
	var nodes []peer.Bus
	var addrs []string
	for range n {
		receiver, at, err := newMangosReceiver(m.addr)
		if err != nil {
			return nil, "", errors.Join(err, closeAll(nodes))
		}
		responder, answersAt, err := newMangosResponder(m.addr)
		if err != nil {
			return nil, "", errors.Join(err, receiver.Close(), closeAll(nodes))
		}
		nodes = append(nodes, &mangosFar{receiver: receiver, responder: responder})
		addrs = append(addrs, at, answersAt)
	}
	return nodes, strings.Join(addrs, " "), nil
}

func (mangosRemote) Join(addr string) (peer.Near, error) {
	addrs := strings.Fields(addr)
	if len(addrs) == 0 || len(addrs)%2 != 0 {
		return nil, errors.New("mangos: no addresses")
	}
	n := &mangosNear{asker: mangosAsker{addr: addrs[1]}}
	for pair := range slices.Chunk(addrs, 2) {
		n.targets.add(&mangosTarget{addr: pair[0]})
	}
	return n, nil
}

// mangosFar is a far node.
type mangosFar struct {
	receiver   *mangosReceiver
	responder  *mangosResponder
	subscribed atomic.Bool
	responds   atomic.Bool
}

func (f *mangosFar) Subscribe(_ string, fn func([]byte)) (peer.Subscription, error) {
	if !f.subscribed.CompareAndSwap(false, true) {
		return nil, unsupported("PUSH and PULL have no topics, and the socket has its receiver")
	}
	f.receiver.start(fn)
	return &cancelOnce{stop: f.receiver.Close}, nil
}

func (f *mangosFar) Publisher(string) (peer.Publisher, error) {
	return nil, unsupported("PULL is one way")
}

func (f *mangosFar) Respond(_ string, fn func([]byte) []byte) error {
	if !f.responds.CompareAndSwap(false, true) {
		return unsupported("REQ and REP have no topics, and the socket has its responder")
	}
	return f.responder.start(fn)
}

func (f *mangosFar) Request(context.Context, string, []byte) ([]byte, error) {
	return nil, unsupported("REP is one way")
}

func (f *mangosFar) Close() error {
	err := errors.Join(f.receiver.Close(), f.responder.Close())
	if errors.Is(err, mangos.ErrClosed) { // by Cancel
		err = nil
	}
	return err
}

// mangosNear is the near node. It publishes to all far nodes, and asks the first.
type mangosNear struct {
	targets members[*mangosTarget]
	asker   mangosAsker
}

func (n *mangosNear) Subscribe(string, func([]byte)) (peer.Subscription, error) {
	return nil, unsupported("PUSH is one way")
}

// Publisher connects: what is sent to a socket that is connected waits there.
func (n *mangosNear) Publisher(string) (peer.Publisher, error) {
	p := &mangosPublisher{targets: &n.targets}
	return p, p.follow(n.targets.load())
}

func (*mangosNear) Respond(string, func([]byte) []byte) error { return unsupported("REQ is one way") }

func (n *mangosNear) Request(ctx context.Context, _ string, data []byte) ([]byte, error) {
	return n.asker.request(ctx, data)
}

// Ready returns at once: the far nodes' sockets listen before their addresses are known.
func (*mangosNear) Ready(context.Context, string, int) error { return nil }

func (n *mangosNear) Close() error {
	return errors.Join(closeAll(n.targets.load()), n.asker.Close())
}
