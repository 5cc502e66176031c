package gravbus_test

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
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
	must(t, s.WaitPeers(soon(t), 1))
	must(t, s.friend.WaitPeers(soon(t), 1))
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
