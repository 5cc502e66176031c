package peers

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var rawTCP = peer.Peer{
	ID:   "rawtcp",
	Name: "raw TCP",
	Kind: peer.Limit,
	Note: "no library: length-prefixed messages through a buffer of 64 KiB on one TCP connection to each node; no topics and no replay, and what a broken connection has taken with it is lost; concurrent requests share a connection and its buffers.",

	Remote: tcpRemote{},
}

type tcpRemote struct{}

// The first byte on a connection says what it is for.
const (
	tcpMessages = 'm'
	tcpRequests = 'r'
)

func (tcpRemote) Listen(n int) ([]peer.Bus, string, error) {
	var nodes []peer.Bus
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", errors.Join(err, closeAll(nodes))
		}
		f := &tcpFar{rawFar: rawFar{conns: make(map[net.Conn]struct{})}, listener: l}
		f.serving.Go(f.accept) // until Close
		nodes, addrs = append(nodes, f), append(addrs, l.Addr().String())
	}
	return nodes, strings.Join(addrs, " "), nil
}

func (tcpRemote) Join(addr string) (peer.Near, error) {
	addrs := strings.Fields(addr)
	if len(addrs) == 0 {
		return nil, errors.New("raw TCP: no address")
	}
	n := &tcpNear{rawNear: rawNear{dial: func() (rawFrames, error) {
		c, err := dialTCP(addrs[0], tcpRequests)
		if err != nil {
			return nil, err
		}
		return newTCPFrames(c, bufio.NewReaderSize(c, rawBuffer)), nil
	}}}
	for _, addr := range addrs {
		c, err := dialTCP(addr, tcpMessages)
		if err != nil {
			return nil, errors.Join(err, n.Close())
		}
		n.conns = append(n.conns, c)
	}
	return n, nil
}

func dialTCP(addr string, purpose byte) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{purpose}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// tcpFar is a far node.
type tcpFar struct {
	rawFar
	listener net.Listener
}

func (f *tcpFar) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return // closed
		}
		if !f.add(c) {
			_ = c.Close() // too late for it
			return
		}
		go func() { // until the connection ends; close waits
			defer f.remove(c)
			f.serve(c)
		}()
	}
}

func (f *tcpFar) serve(c net.Conn) {
	r := bufio.NewReaderSize(c, rawBuffer)
	switch purpose, _ := r.ReadByte(); purpose {
	case tcpMessages:
		m := tcpReader{r: r}
		for data, err := m.next(); err == nil; data, err = m.next() {
			f.deliver(data)
		}
	case tcpRequests:
		f.answer(newTCPFrames(c, r))
	}
}

func (f *tcpFar) Close() error {
	err := f.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	f.close()
	return err
}

// tcpNear is the near node.
type tcpNear struct {
	rawNear
	conns []net.Conn
}

func (n *tcpNear) Publisher(string) (peer.Publisher, error) {
	p := &tcpPublisher{}
	for _, c := range n.conns {
		p.to = append(p.to, bufio.NewWriterSize(c, rawBuffer))
	}
	return p, nil
}

func (n *tcpNear) Close() error { return errors.Join(n.close(), closeAll(n.conns)) }

type tcpPublisher struct {
	to []*bufio.Writer
}

func (*tcpPublisher) Message(data []byte) any { return data }

func (p *tcpPublisher) Publish(msg any) error {
	for _, w := range p.to {
		if err := writeTCP(w, msg.([]byte)); err != nil {
			return err
		}
	}
	return nil
}

func (p *tcpPublisher) Flush() error {
	for _, w := range p.to {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func writeTCP(w *bufio.Writer, data []byte) error {
	_, err := w.Write(binary.BigEndian.AppendUint32(w.AvailableBuffer(), uint32(len(data))))
	if err == nil {
		_, err = w.Write(data)
	}
	return err
}

// tcpReader reads what writeTCP writes.
type tcpReader struct {
	r    *bufio.Reader
	last int    // bytes of r that the last message still occupies
	big  []byte // for messages that r has no room for
}

// next returns the next message, which is valid until the call after.
func (t *tcpReader) next() ([]byte, error) {
	if _, err := t.r.Discard(t.last); err != nil {
		return nil, err
	}
	t.last = 0
	head, err := t.r.Peek(4)
	if err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head))
	if _, err := t.r.Discard(4); err != nil {
		return nil, err
	}
	if size <= t.r.Size() { // read where it is, without a copy
		t.last = size
		return t.r.Peek(size)
	}
	if size > cap(t.big) {
		t.big = make([]byte, size)
	}
	_, err = io.ReadFull(t.r, t.big[:size])
	return t.big[:size], err
}

// tcpFrames is a connection for requests.
type tcpFrames struct {
	net.Conn
	r       tcpReader
	w       *bufio.Writer
	scratch []byte
}

func newTCPFrames(c net.Conn, r *bufio.Reader) *tcpFrames {
	return &tcpFrames{Conn: c, r: tcpReader{r: r}, w: bufio.NewWriterSize(c, rawBuffer)}
}

func (t *tcpFrames) write(number uint64, data []byte, follows bool) error {
	t.scratch = appendRaw(t.scratch[:0], number, data)
	if err := writeTCP(t.w, t.scratch); err != nil || follows {
		return err
	}
	return t.w.Flush()
}

func (t *tcpFrames) pending() bool { return t.r.r.Buffered() > t.r.last }

func (t *tcpFrames) read() (uint64, []byte, error) {
	frame, err := t.r.next()
	if err != nil {
		return 0, nil, err
	}
	return parseRaw(frame)
}
