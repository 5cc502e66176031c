package gravbus_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
	"github.com/sirupsen/logrus"
)

var strangerKey = bytes.Repeat([]byte("key!"), 8)

// A besieged is a node that strangers and malicious peers have to do with, and a friend of it: the
// two go on exchanging messages, and so do pods of the node itself.
type besieged struct {
	*gravbus.Bus
	t        testing.TB
	friend   *gravbus.Bus
	endpoint string
	log      *strangerLog

	mu     sync.Mutex // guards events
	events map[string][]gravbus.PeerEvent

	stop   context.CancelFunc
	rounds chan time.Duration // how long each round of the friends took
}

// besiege starts both nodes.
func besiege(t testing.TB, opts ...gravbus.Option) *besieged {
	t.Helper()
	log := &strangerLog{counts: map[string]int{}}
	s := &besieged{t: t, log: log, events: map[string][]gravbus.PeerEvent{}, rounds: make(chan time.Duration)}
	all := []gravbus.Option{gravbus.UseLogger(log.logger()), gravbus.UseMeshKey(strangerKey), gravbus.UseResumeFor(100 * time.Millisecond)}
	s.Bus = meshNode(t, nil, append(all, opts...)...)
	s.endpoint = s.Endpoints()[0]
	s.friend = meshNode(t, s.Endpoints(), gravbus.UseMeshKey(strangerKey), gravbus.UseLogger(new(strangerLog).logger()), gravbus.UseNodeName("friend"))
	meshUp(t, s.Bus, s.friend)
	s.watch()
	meshReplier(t, s.Bus, "friends.node", "node")
	meshReplier(t, s.friend, "friends.friend", "friend")
	meshWanted(t, s.Bus, "friends.friend", 1)
	meshWanted(t, s.friend, "friends.node", 1)
	s.converse()
	return s
}

// watch records events of peers.
func (s *besieged) watch() {
	s.t.Helper()
	must(s.t, s.Connect(gravbus.Name("watch"), gravbus.Mailbox(65536)).OnType("gravbus.peer.>", func(m gravbus.Message) error {
		if m.Type() == gravbus.EventPeerGap {
			return nil
		}
		e, err := gravbus.Decode[gravbus.PeerEvent](m)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events[m.Type()] = append(s.events[m.Type()], e)
		return err
	}))
}

// converse starts the friends' conversation, which ends with the test.
func (s *besieged) converse() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	here, there := s.Connect(), s.friend.Connect()
	done := make(chan struct{})
	go func() { // ends with the test
		defer close(done)
		for ctx.Err() == nil {
			began := time.Now()
			for _, step := range []struct {
				from *gravbus.Pod
				typ  string
			}{{here, "friends.friend"}, {there, "friends.node"}, {here, "friends.node"}} {
				limited, cancel := context.WithTimeout(ctx, patience)
				_, err := step.from.Request(limited, gravbus.NewMsg(step.typ, nil))
				cancel()
				if err != nil && ctx.Err() == nil {
					s.t.Errorf("the friends are disturbed: %v", err)
					return
				}
			}
			select {
			case s.rounds <- time.Since(began):
			case <-ctx.Done():
			}
		}
	}()
	s.t.Cleanup(func() {
		stop()
		awaitDone(s.t, patience, done)
	})
}

// undisturbed waits for some more rounds of the friends' conversation.
func (s *besieged) undisturbed() {
	s.t.Helper()
	for range 10 {
		if d := awaitDone(s.t, patience, s.rounds); d > patience/6 {
			s.t.Errorf("the friends needed %v for three requests", d)
		}
	}
}

// event waits until n events of the type are there that fit, and returns the last of them.
func (s *besieged) event(typ string, n int, fits func(gravbus.PeerEvent) bool) (e gravbus.PeerEvent) {
	s.t.Helper()
	s.until(typ, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		all := slices.DeleteFunc(slices.Clone(s.events[typ]), func(e gravbus.PeerEvent) bool { return !fits(e) })
		if len(all) >= n {
			e = all[n-1]
		}
		return len(all) >= n
	})
	return e
}

// refused waits for the n-th refusal, whose error has the text.
func (s *besieged) refused(n int, text string) gravbus.PeerEvent {
	s.t.Helper()
	e := s.event(gravbus.EventPeerRefused, n, func(gravbus.PeerEvent) bool { return true })
	if !strings.Contains(e.Error, text) || e.Remote == "" {
		s.t.Errorf("refusal %d of %q is told with %q, not %q", n, e.Remote, e.Error, text)
	}
	if got := s.Stats().Strangers; got != uint64(n) {
		s.t.Errorf("%d strangers are counted, not %d", got, n)
	}
	return e
}

// until waits for something that can only be asked for.
func (s *besieged) until(what string, ok func() bool) {
	s.t.Helper()
	eventually(s.t, what, ok)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			stacks := make([]byte, 1<<20)
			t.Fatalf("not in time: %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// peer returns the stats of the link to r.
func (s *besieged) peer(r *rogue) (p gravbus.PeerStats, known bool) {
	for _, p := range s.Stats().Peers {
		if p.Name == r.hello.Name {
			return p, true
		}
	}
	return p, false
}

// heapNow returns how much memory is in use.
func heapNow() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// strangerLog counts what is logged.
type strangerLog struct {
	mu     sync.Mutex // guards counts
	counts map[string]int
}

func (l *strangerLog) logger() *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	if l.counts != nil {
		log.AddHook(l)
	}
	return log
}

// Levels implements logrus.Hook.
func (*strangerLog) Levels() []logrus.Level {
	return []logrus.Level{logrus.WarnLevel, logrus.ErrorLevel, logrus.FatalLevel, logrus.PanicLevel}
}

// Fire implements logrus.Hook.
func (l *strangerLog) Fire(e *logrus.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[e.Message]++
	return nil
}

func (l *strangerLog) of(message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[message]
}

// A rogue is a peer whose every word is the test's.
type rogue struct {
	t      testing.TB
	hello  wire.Hello
	keys   [][]byte
	resume wire.Resume // that it tells
	conn   transport.Conn
	result *handshake.Result
	sent   [][]byte // in the handshake

	batch wire.BatchWriter
	seq   uint64 // of the last item that it has sent
	acks  bool   // it acknowledges what comes

	writing sync.Mutex

	mu    sync.Mutex    // guards all below
	bye   *wire.Bye     // what it has heard last
	pongs []uint64      // the tokens it has heard
	acked uint64        // what it has heard is acknowledged
	asks  []wire.Replay // the requests it has heard
	over  chan struct{} // closed when nothing more comes
	err   error         // why
}

// newRogue returns a peer with the right key. Its ID is above those of others unless low is set: the
// node with the lower ID decides.
func newRogue(t testing.TB, low bool) *rogue {
	r := &rogue{t: t, keys: [][]byte{strangerKey}, resume: wire.Resume{Stream: 7}, over: make(chan struct{})}
	r.hello = wire.Hello{
		MinVersion: 1, MaxVersion: 1, Mesh: gravbus.DefaultMesh, Name: "rogue " + rand.Text(),
		MaxMessage: 1 << 20, WindowCount: 1 << 20, WindowCost: 1 << 30,
	}
	rand.Read(r.hello.Node[:])
	r.hello.Node[0] = 0xff
	if low {
		r.hello.Node[0] = 0
	}
	return r
}

// dial makes the connection.
func (r *rogue) dial(endpoint string) {
	r.t.Helper()
	c, err := websocket.New(websocket.Config{}).Dial(meshCtx(r.t, patience), endpoint)
	must(r.t, err)
	must(r.t, c.SetReadDeadline(time.Now().Add(2*patience)))
	must(r.t, c.SetWriteDeadline(time.Now().Add(2*patience)))
	r.conn = c
	r.t.Cleanup(func() { c.Close() })
}

// machine returns the handshake of a rogue that keeps to it.
func (r *rogue) machine() *handshake.Machine {
	r.t.Helper()
	rand.Read(r.hello.Nonce[:])
	m, err := handshake.Dial(&handshake.Config{
		Hello: r.hello, Keys: r.keys, Binding: r.conn.Info().Binding,
		Resume: func(wire.ID) wire.Resume { return r.resume },
	})
	must(r.t, err)
	return m
}

// shake shakes hands. The error is what the node refuses it with, or how the connection ended.
func (r *rogue) shake() error {
	m := r.machine()
	send, done := m.Start(), false
	for {
		for _, p := range send {
			r.sent = append(r.sent, p)
			if err := r.conn.WriteFrame(p); err != nil {
				return err
			}
		}
		if done {
			r.result = m.Result()
			r.conn.SetReadLimit(1 << 30)
			return nil
		}
		packet, err := r.conn.ReadFrame(nil)
		if err != nil {
			return err
		}
		if send, done, err = m.Receive(packet); err != nil {
			return err
		}
	}
}

// join shakes hands, says that it wants nothing, and listens.
func (r *rogue) join(endpoint string) *rogue {
	r.t.Helper()
	r.dial(endpoint)
	must(r.t, r.shake())
	go r.listen() // ends with the connection
	r.write(wire.AppendInterest(nil, &wire.Interest{Reset: true, Done: true}))
	r.ping()
	return r
}

// listen reads until the end.
func (r *rogue) listen() {
	defer close(r.over)
	var items wire.BatchReader
	var item wire.Item
	var buf []byte
	for {
		packet, err := r.conn.ReadFrame(buf)
		if err != nil {
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
			return
		}
		for rest := packet; len(rest) > 0; {
			kind, body, more, err := wire.Next(rest)
			mustToo(r.t, err)
			rest = more
			r.mu.Lock()
			switch kind {
			case wire.KindBye:
				bye, err := wire.DecodeRefuse(body)
				mustToo(r.t, err)
				r.bye = &bye
			case wire.KindPong:
				token, err := wire.DecodePong(body)
				mustToo(r.t, err)
				r.pongs = append(r.pongs, token)
			case wire.KindAck:
				r.acked, err = wire.DecodeAck(body)
				mustToo(r.t, err)
			case wire.KindReplay:
				ask, err := wire.DecodeReplay(body)
				mustToo(r.t, err)
				r.asks = append(r.asks, ask)
			case wire.KindBatch:
				_, err := items.Begin(body)
				mustToo(r.t, err)
				for ok := true; ok; {
					if ok, err = items.Next(&item); err != nil {
						r.t.Error(err)
						return
					}
				}
				if r.acks {
					r.write(wire.AppendAck(nil, item.Seq))
				}
			}
			r.mu.Unlock()
		}
		buf = packet
	}
}

// write writes a packet. That it cannot is no error: the node may have cut it.
func (r *rogue) write(packet []byte) bool {
	r.writing.Lock()
	defer r.writing.Unlock()
	return r.conn.WriteFrame(packet) == nil
}

// items writes a packet with items that append makes, numbered on from the last.
func (r *rogue) items(n int, add func(w *wire.BatchWriter, b []byte) []byte) bool {
	b := r.batch.Begin(nil, r.seq+1)
	for range n {
		b = add(&r.batch, b)
	}
	r.seq += uint64(n)
	return r.write(r.batch.End(b))
}

// message writes a packet with a message.
func (r *rogue) message(typ, data string) bool {
	return r.items(1, func(w *wire.BatchWriter, b []byte) []byte {
		return w.Message(b, &wire.Message{ID: randomID(), Type: typ, Data: []byte(data)})
	})
}

func randomID() (id wire.ID) {
	rand.Read(id[:])
	return id
}

// ping waits until the node has read what was sent before.
func (r *rogue) ping() {
	r.t.Helper()
	token := uint64(time.Now().UnixNano())
	if !r.write(wire.AppendPing(nil, token)) {
		r.t.Fatal("the node has cut the connection")
	}
	eventually(r.t, "the answer to a ping", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.err != nil {
			r.t.Fatalf("the node has ended the connection: %v, %+v", r.err, r.bye)
		}
		return slices.Contains(r.pongs, token)
	})
}

// paced waits until a window is not full.
func (r *rogue) paced() {
	r.t.Helper()
	eventually(r.t, "an acknowledgement", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.seq-r.acked < 4096 || r.err != nil
	})
}

// ended waits until the node has ended the connection, and returns what it said.
func (r *rogue) ended() *wire.Bye {
	r.t.Helper()
	awaitDone(r.t, patience, r.over)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bye
}
