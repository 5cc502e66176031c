package run

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

// Children of these tests are this test binary.
func TestMain(m *testing.M) {
	Child(fakes())
	os.Exit(m.Run())
}

// A fault is what a fake does to the i-th message: deliver passes a message on.
type fault func(i int, data []byte, deliver func([]byte))

func right(_ int, data []byte, deliver func([]byte)) { deliver(data) }

func loses(i int, data []byte, deliver func([]byte)) {
	if i%3 != 1 {
		deliver(data)
	}
}

func doubles(_ int, data []byte, deliver func([]byte)) {
	deliver(data)
	deliver(data)
}

func panics(i int, data []byte, deliver func([]byte)) {
	if i == 10 { // in the first trial
		panic("out of cheese")
	}
	deliver(data)
}

func hangs(i int, data []byte, deliver func([]byte)) {
	if i == 10 { // in the first trial
		select {}
	}
	deliver(data)
}

// reorders swaps every two messages.
func reorders() fault {
	var held []byte
	return func(i int, data []byte, deliver func([]byte)) {
		if i%2 == 0 {
			held = data
			return
		}
		deliver(data)
		deliver(held)
	}
}

// delays holds back every 50th message until 500 others have come, further than a tally looks back.
func delays() fault {
	var held [][]byte
	return func(i int, data []byte, deliver func([]byte)) {
		if i%50 == 0 {
			held = append(held, data)
			if len(held) > 10 {
				deliver(held[0])
				held = held[1:]
			}
			return
		}
		deliver(data)
	}
}

func fakes() []peer.Peer {
	local := func(id string, f func() fault) peer.Peer {
		return peer.Peer{ID: id, Name: id, Kind: peer.Async, Local: func() (peer.Bus, error) { return newFake(f), nil }}
	}
	always := func(f fault) func() fault { return func() fault { return f } }
	all := []peer.Peer{
		local("right", always(right)),
		local("loses", always(loses)),
		local("reorders", reorders),
		local("delays", delays),
		local("doubles", always(doubles)),
		local("hangs", always(hangs)),
		local("panics", always(panics)),
		{ID: "fails", Name: "fails", Local: func() (peer.Bus, error) { return nil, errors.New("no fuel") }},
		{ID: "without", Name: "without", Local: func() (peer.Bus, error) { return only{newFake(always(right))}, nil }},
	}
	for i := range all {
		switch p := &all[i]; p.ID {
		case "right":
			p.Remote = remote{right}
		case "loses":
			p.Remote = remote{loses}
		case "doubles":
			p.Remote = remote{doubles}
		case "panics":
			p.Remote = remote{panics}
		}
	}
	return all
}

// only hides that a bus answers requests.
type only struct{ peer.Bus }

// A fake is a bus that has a goroutine per subscription, and a fault.
type fake struct {
	newFault func() fault
	mu       sync.Mutex
	subs     map[string][]*fakeSub // guarded by mu
	respond  func([]byte) []byte
	wg       sync.WaitGroup
}

type fakeSub struct {
	bus   *fake
	topic string
	ch    chan []byte
}

func newFake(f func() fault) *fake { return &fake{newFault: f, subs: map[string][]*fakeSub{}} }

func (b *fake) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	s := &fakeSub{b, topic, make(chan []byte, 64)}
	f := b.newFault()
	b.wg.Go(func() {
		i := 0
		for data := range s.ch {
			f(i, data, fn)
			i++
		}
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[topic] = append(b.subs[topic], s)
	return s, nil
}

func (s *fakeSub) Cancel() error {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	subs := s.bus.subs[s.topic]
	for i := range subs {
		if subs[i] == s {
			s.bus.subs[s.topic] = append(subs[:i:i], subs[i+1:]...)
			close(s.ch)
			return nil
		}
	}
	return errors.New("unknown")
}

func (b *fake) Publisher(topic string) (peer.Publisher, error) { return fakePub{b, topic}, nil }

func (b *fake) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, subs := range b.subs {
		for _, s := range subs {
			close(s.ch)
		}
	}
	clear(b.subs)
	b.wg.Wait()
	return nil
}

func (b *fake) Respond(_ string, fn func([]byte) []byte) error {
	b.respond = fn
	return nil
}

func (b *fake) Request(_ context.Context, _ string, data []byte) (reply []byte, err error) {
	err = errors.New("lost")
	b.newFault()(int(numberOf(data)), data, func(data []byte) { reply, err = b.respond(data), nil })
	return reply, err
}

type fakePub struct {
	bus   *fake
	topic string
}

func (p fakePub) Message(data []byte) any { return data }
func (p fakePub) Flush() error            { return nil }

func (p fakePub) Publish(msg any) error {
	p.bus.mu.Lock()
	subs := p.bus.subs[p.topic]
	p.bus.mu.Unlock()
	for _, s := range subs {
		s.ch <- msg.([]byte)
	}
	return nil
}

// remote has a connection per node, and the fault on the far side.
type remote struct{ fault fault }

type farFake struct {
	l      net.Listener
	fault  fault
	fn     func([]byte)
	answer func([]byte) []byte
}

func (r remote) Listen(n int) (nodes []peer.Bus, addr string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", err
		}
		f := &farFake{l: l, fault: r.fault}
		nodes, addr = append(nodes, f), addr+" "+l.Addr().String()
		go f.serve()
	}
	return nodes, addr[1:], nil
}

func (f *farFake) serve() {
	c, err := f.l.Accept()
	if err != nil {
		return
	}
	for i := 0; ; i++ {
		data, err := receive(c)
		if err != nil {
			return
		}
		if f.answer != nil {
			_ = transmit(c, f.answer(data))
			continue
		}
		f.fault(i, data, f.fn)
	}
}

func (f *farFake) Subscribe(_ string, fn func([]byte)) (peer.Subscription, error) {
	f.fn = fn
	return f, nil
}
func (f *farFake) Cancel() error                            { return nil }
func (f *farFake) Publisher(string) (peer.Publisher, error) { return nil, peer.ErrUnsupported }
func (f *farFake) Close() error                             { return f.l.Close() }
func (f *farFake) Respond(_ string, fn func([]byte) []byte) error {
	f.answer = fn
	return nil
}

func (f *farFake) Request(context.Context, string, []byte) ([]byte, error) {
	return nil, peer.ErrUnsupported
}

type nearFake struct {
	mu    sync.Mutex // one request at a time
	conns []net.Conn
}

func (remote) Join(addr string) (peer.Near, error) {
	n := &nearFake{}
	for at := range strings.FieldsSeq(addr) {
		c, err := net.Dial("tcp", at)
		if err != nil {
			return nil, err
		}
		n.conns = append(n.conns, c)
	}
	return n, nil
}

func (n *nearFake) Ready(context.Context, string, int) error { return nil }
func (n *nearFake) Subscribe(string, func([]byte)) (peer.Subscription, error) {
	return nil, peer.ErrUnsupported
}
func (n *nearFake) Publisher(string) (peer.Publisher, error)       { return n, nil }
func (n *nearFake) Message(data []byte) any                        { return data }
func (n *nearFake) Flush() error                                   { return nil }
func (n *nearFake) Respond(string, func(data []byte) []byte) error { return peer.ErrUnsupported }
func (n *nearFake) Publish(msg any) error {
	for _, c := range n.conns {
		if err := transmit(c, msg.([]byte)); err != nil {
			return err
		}
	}
	return nil
}

func (n *nearFake) Request(_ context.Context, _ string, data []byte) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := transmit(n.conns[0], data); err != nil {
		return nil, err
	}
	return receive(n.conns[0])
}

func (n *nearFake) Close() error {
	for _, c := range n.conns {
		_ = c.Close()
	}
	return nil
}

func transmit(c net.Conn, data []byte) error {
	_, err := c.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

func receive(c net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	data := make([]byte, binary.LittleEndian.Uint32(size[:]))
	_, err := io.ReadFull(c, data)
	return data, err
}
