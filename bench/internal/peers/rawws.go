package peers

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var rawWS = peer.Peer{
	ID:     "rawws",
	Name:   "raw websocket, one a frame",
	Module: "github.com/gorilla/websocket",
	Kind:   peer.Limit,
	Note:   "a websocket of the library that gravbus uses, one to each node, a binary frame for each message; no topics and no replay, and what a broken connection has taken with it is lost; concurrent requests share a connection.",

	Remote: wsRemote{batch: false},
}

var rawWSBatched = peer.Peer{
	ID:     "rawws-batched",
	Name:   "raw websocket, 64 KiB frames",
	Module: "github.com/gorilla/websocket",
	Kind:   peer.Limit,
	Note:   "as the other raw websocket, but a frame carries as many length-prefixed messages as fit into 64 KiB; it is sent when the next one does not fit, or by Flush.",

	Remote: wsRemote{batch: true},
}

// wsRemote sends one message a frame, or a batch of them.
type wsRemote struct {
	batch bool
}

// The paths at which a far node is reached.
const (
	wsMessages = "/messages"
	wsBatches  = "/batches"
	wsRequests = "/requests"
)

func (w wsRemote) Listen(n int) ([]peer.Bus, string, error) {
	var nodes []peer.Bus
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", errors.Join(err, closeAll(nodes))
		}
		f := &wsFar{rawFar: rawFar{conns: make(map[net.Conn]struct{})}}
		mux := http.NewServeMux()
		mux.HandleFunc(wsMessages, f.handle(f.messages))
		mux.HandleFunc(wsBatches, f.handle(f.batches))
		mux.HandleFunc(wsRequests, f.handle(func(c *websocket.Conn) { f.answer(&wsFrames{Conn: c}) }))
		f.server = &http.Server{Handler: mux}
		f.serving.Go(func() { _ = f.server.Serve(l) }) // until Close; the error says so
		var node peer.Bus = f
		if w.batch {
			node = wsOneWay{f}
		}
		nodes, addrs = append(nodes, node), append(addrs, "ws://"+l.Addr().String())
	}
	return nodes, strings.Join(addrs, " "), nil
}

func (w wsRemote) Join(addr string) (peer.Near, error) {
	addrs := strings.Fields(addr)
	if len(addrs) == 0 {
		return nil, errors.New("raw websocket: no address")
	}
	path := wsMessages
	if w.batch {
		path = wsBatches
	}
	n := &wsNear{batch: w.batch}
	n.dial = func() (rawFrames, error) {
		c, err := dialWS(addrs[0] + wsRequests)
		if err != nil {
			return nil, err
		}
		return &wsFrames{Conn: c}, nil
	}
	for _, addr := range addrs {
		c, err := dialWS(addr + path)
		if err != nil {
			return nil, errors.Join(err, n.Close())
		}
		n.conns = append(n.conns, c)
	}
	if w.batch {
		return wsNearOneWay{n}, nil
	}
	return n, nil
}

func dialWS(url string) (*websocket.Conn, error) {
	d := websocket.Dialer{ReadBufferSize: rawBuffer, WriteBufferSize: rawBuffer}
	c, resp, err := d.Dial(url, nil)
	if err == nil {
		_ = resp.Body.Close() // it has none
	}
	return c, err
}

// wsFar is a far node.
type wsFar struct {
	rawFar
	server *http.Server
}

// A wsOneWay is a wsFar that has no requests: it is not a peer.Requester.
type wsOneWay struct{ peer.Bus }

// A wsNearOneWay is a wsNear that has none.
type wsNearOneWay struct{ peer.Near }

// handle upgrades a connection and has it served until it ends.
func (f *wsFar) handle(serve func(*websocket.Conn)) http.HandlerFunc {
	u := websocket.Upgrader{ReadBufferSize: rawBuffer, WriteBufferSize: rawBuffer}
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r, nil)
		if err != nil {
			return // it has answered
		}
		if !f.add(c.NetConn()) {
			_ = c.Close() // too late for it
			return
		}
		defer f.remove(c.NetConn())
		serve(c)
	}
}

func (f *wsFar) messages(c *websocket.Conn) {
	r := wsReader{c: c}
	for frame, err := r.next(); err == nil; frame, err = r.next() {
		f.deliver(frame)
	}
}

func (f *wsFar) batches(c *websocket.Conn) {
	r := wsReader{c: c}
	for frame, err := r.next(); err == nil; frame, err = r.next() {
		for len(frame) >= 4 {
			end := 4 + int(binary.BigEndian.Uint32(frame))
			if end > len(frame) {
				return
			}
			f.deliver(frame[4:end])
			frame = frame[end:]
		}
	}
}

func (f *wsFar) Close() error {
	err := f.server.Close()
	f.close() // the server has let go of the upgraded ones
	return err
}

// wsReader reads frames into a buffer of its own.
type wsReader struct {
	c   *websocket.Conn
	buf []byte
}

// next returns the next frame's content, which is valid until the call after.
func (w *wsReader) next() ([]byte, error) {
	_, r, err := w.c.NextReader()
	if err != nil {
		return nil, err
	}
	w.buf = w.buf[:0]
	for {
		if len(w.buf) == cap(w.buf) {
			w.buf = append(w.buf, make([]byte, max(4096, cap(w.buf)))...)[:len(w.buf)]
		}
		n, err := r.Read(w.buf[len(w.buf):cap(w.buf)])
		w.buf = w.buf[:len(w.buf)+n]
		if errors.Is(err, io.EOF) {
			return w.buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// wsNear is the near node.
type wsNear struct {
	rawNear
	batch bool
	conns []*websocket.Conn
}

func (n *wsNear) Publisher(string) (peer.Publisher, error) {
	if !n.batch {
		return wsPublisher{to: n.conns}, nil
	}
	p := &wsBatchPublisher{}
	for _, c := range n.conns {
		p.to = append(p.to, &wsBatch{c: c})
	}
	return p, nil
}

func (n *wsNear) Close() error { return errors.Join(n.close(), closeAll(n.conns)) }

type wsPublisher struct {
	plainData
	to []*websocket.Conn
}

func (p wsPublisher) Publish(msg any) error {
	for _, c := range p.to {
		if err := c.WriteMessage(websocket.BinaryMessage, msg.([]byte)); err != nil {
			return err
		}
	}
	return nil
}

type wsBatchPublisher struct {
	to []*wsBatch
}

func (*wsBatchPublisher) Message(data []byte) any { return data }

func (p *wsBatchPublisher) Publish(msg any) error {
	for _, b := range p.to {
		if err := b.add(msg.([]byte)); err != nil {
			return err
		}
	}
	return nil
}

func (p *wsBatchPublisher) Flush() error {
	for _, b := range p.to {
		if err := b.flush(); err != nil {
			return err
		}
	}
	return nil
}

// wsBatch collects messages in the connection's own write buffer.
type wsBatch struct {
	c    *websocket.Conn
	w    io.WriteCloser // of the frame that is open, or nil
	size int            // of that frame
	head [4]byte
}

func (b *wsBatch) add(data []byte) (err error) {
	size := len(b.head) + len(data)
	if b.w != nil && b.size+size > rawBuffer {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if b.w == nil {
		if b.w, err = b.c.NextWriter(websocket.BinaryMessage); err != nil {
			return err
		}
	}
	b.size += size
	binary.BigEndian.PutUint32(b.head[:], uint32(len(data)))
	if _, err := b.w.Write(b.head[:]); err != nil {
		return err
	}
	_, err = b.w.Write(data)
	return err
}

func (b *wsBatch) flush() error {
	if b.w == nil {
		return nil
	}
	err := b.w.Close()
	b.w, b.size = nil, 0
	return err
}

// wsFrames is a connection for requests.
type wsFrames struct {
	*websocket.Conn
	r       wsReader
	scratch []byte
}

// write sends each at once: a frame is a system call.
func (f *wsFrames) write(number uint64, data []byte, _ bool) error {
	f.scratch = appendRaw(f.scratch[:0], number, data)
	return f.WriteMessage(websocket.BinaryMessage, f.scratch)
}

// pending does not matter to write.
func (*wsFrames) pending() bool { return false }

func (f *wsFrames) read() (uint64, []byte, error) {
	f.r.c = f.Conn
	frame, err := f.r.next()
	if err != nil {
		return 0, nil, err
	}
	return parseRaw(frame)
}
