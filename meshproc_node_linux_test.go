package gravbus_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/mdns"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport/websocket"
)

// procEnv is set for the children of the tests TestProc… and TestLAN…: the test binary is a node
// then. The value is a procConfig. The node takes procCommands on its standard input, one a line,
// and writes procLines to its standard output.
const procEnv = "GRAVBUS_TEST_NODE"

// A child never comes to TestMain, which is for tests.
func init() {
	if text := os.Getenv(procEnv); text != "" {
		procMain(text)
		os.Exit(0)
	}
}

// procConfig says what a node is.
type procConfig struct {
	Name   string // it answers requests of the type ask.NAME
	Number int    // in its messages; no other process has it
	Addr   string // where it listens; 127.0.0.1:0 if empty
	Seeds  []string
	Mesh   string
	Key    string
	MDNS   bool

	// Pretend makes it no node, but something else on the LAN that is announced by mDNS, as the
	// service Service. See pretend.
	Pretend, Service string

	DeadAfter, ResumeFor, StallLimit time.Duration
	LinkMessages                     int
}

// procCommand says what a node is to do.
type procCommand struct {
	Do   string
	Type string // of messages
	From int    // number of a sender
	N    int
}

// procLine is what a node says: the answer to a command, or what happened.
type procLine struct {
	Is        string
	UUID      string            `json:",omitempty"` // of this node, or of the peer that the event is about
	Endpoints []string          `json:",omitempty"`
	From      int               `json:",omitempty"`
	N         int               `json:",omitempty"`
	Lost      int               `json:",omitempty"`
	Incoming  bool              `json:",omitempty"`
	Text      string            `json:",omitempty"`
	Error     string            `json:",omitempty"`
	Why       string            `json:",omitempty"` // which of the errors that callers tell apart Error is
	Tallies   map[int]procTally `json:",omitempty"` // by number of the sender
	Stats     *gravbus.Stats    `json:",omitempty"`
	Conns     []string          `json:",omitempty"` // addresses that TCP connections lead to
}

// procTally is what has come from one sender, whose messages are numbered from 0.
type procTally struct {
	Got      int // different messages
	Doubled  int
	Disorder int // messages that came after one that was sent later
}

// procNode is the node that the child is.
type procNode struct {
	procConfig
	bus  *gravbus.Bus
	pod  *gravbus.Pod // sends and receives
	halt chan struct{}
	out  sync.Mutex // keeps lines whole

	mu      sync.Mutex // guards all below
	sent    int
	senders map[int]*procSender
}

// procSender is what a node knows of another one that sends.
type procSender struct {
	procTally
	seen    map[int]bool
	highest int
	awaited map[int]bool // numbers
}

// procMain is the program of a child. It ends with its standard input.
func procMain(text string) {
	before := goleak.IgnoreCurrent()
	n := &procNode{halt: make(chan struct{}), senders: make(map[int]*procSender)}
	n.must(json.Unmarshal([]byte(text), &n.procConfig))
	start := n.start
	if n.Pretend != "" {
		start = n.pretend
	}
	if !start() {
		return
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var c procCommand
		n.must(json.Unmarshal(in.Bytes(), &c))
		if c.Do == "close" {
			n.close(before)
			continue
		}
		go n.do(c) // until it is done, or the program ends
	}
}

// must ends the program in a way that the test sees.
func (n *procNode) must(err error) {
	if err != nil {
		panic(err)
	}
}

func (n *procNode) say(line procLine) {
	text, err := json.Marshal(line)
	n.must(err)
	n.out.Lock()
	defer n.out.Unlock()
	fmt.Println(string(text))
}

// start makes the node. It says "ready", or "failed" and returns false.
func (n *procNode) start() bool {
	log := logrus.New() // to the standard error, which is shown if the test fails
	log.SetLevel(logrus.DebugLevel)
	log.SetFormatter(&logrus.TextFormatter{TimestampFormat: "04:05.000", FullTimestamp: true, DisableColors: true})
	if n.Addr == "" {
		n.Addr = "127.0.0.1:0"
	}
	opts := []gravbus.Option{
		gravbus.UseLogger(log), gravbus.UseNodeName(n.Name), gravbus.UseMesh(n.Mesh),
		gravbus.UseTransport(websocket.New(websocket.Config{Addr: n.Addr})),
		gravbus.UseDeadAfter(n.DeadAfter), gravbus.UseResumeFor(n.ResumeFor), gravbus.UseLinkStallLimit(n.StallLimit),
		gravbus.UseLinkBounds(n.LinkMessages, 0),
	}
	if n.Key != "" {
		opts = append(opts, gravbus.UseMeshKey([]byte(n.Key)))
	}
	if n.MDNS {
		opts = append(opts, gravbus.UseDiscovery(mdns.New(mdns.Config{})))
	}
	if len(n.Seeds) > 0 {
		opts = append(opts, gravbus.UseDiscovery(static.New(n.Seeds...)))
	}
	n.bus = gravbus.New(opts...)
	n.must(n.bus.Connect(gravbus.Name("events")).OnType("gravbus.peer.>", n.event))
	n.pod = n.bus.Connect(gravbus.Name("load"))
	n.must(n.pod.OnType("load", n.count))
	asked := n.bus.Connect(gravbus.Name("asked"))
	n.must(asked.OnType("ask."+n.Name, func(msg gravbus.Message) error {
		n.say(procLine{Is: "asked"})
		if string(msg.Data()) != procSilence {
			asked.ReplyTo(msg, gravbus.NewMsg("answer", []byte(n.Name)))
		}
		return nil
	}))
	if err := n.bus.Start(context.Background()); err != nil {
		n.say(procLine{Is: "failed", Error: err.Error(), Why: procWhy(err)})
		n.must(n.bus.Close())
		return false
	}
	n.say(procLine{Is: "ready", UUID: n.bus.NodeUUID, Endpoints: n.bus.Endpoints()})
	return true
}

// procSilence is what a node is asked that is not to answer.
const procSilence = "be silent"

// procWhy names the errors that tests tell apart.
func procWhy(err error) string {
	for name, is := range map[string]error{
		"open mesh": gravbus.ErrOpenMesh, "lost": gravbus.ErrPeerLost, "none": gravbus.ErrNoResponders, "in use": syscall.EADDRINUSE,
	} {
		if errors.Is(err, is) {
			return name
		}
	}
	return ""
}

// event tells of what happens to peers.
func (n *procNode) event(msg gravbus.Message) error {
	line := procLine{Is: strings.TrimPrefix(msg.Type(), "gravbus.peer.")}
	if msg.Type() == gravbus.EventPeerGap {
		gap, err := gravbus.Decode[gravbus.Gap](msg)
		n.must(err)
		line.UUID, line.N, line.Incoming = gap.Peer, int(gap.Count), gap.Incoming
	} else {
		event, err := gravbus.Decode[gravbus.PeerEvent](msg)
		n.must(err)
		line.UUID, line.Text, line.Error = event.Peer.NodeUUID, event.Peer.Name, event.Error
	}
	n.say(line)
	return nil
}

// sender returns what is known of a sender. The caller holds mu.
func (n *procNode) sender(number int) *procSender {
	s := n.senders[number]
	if s == nil {
		s = &procSender{seen: make(map[int]bool), highest: -1, awaited: make(map[int]bool)}
		n.senders[number] = s
	}
	return s
}

// count is the handler for what others send.
func (n *procNode) count(msg gravbus.Message) error {
	from, i := numberOf(msg)
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.sender(from)
	switch {
	case s.seen[i]:
		s.Doubled++
		return nil
	case i < s.highest:
		s.Disorder++
	}
	s.seen[i] = true
	s.Got++
	s.highest = max(s.highest, i)
	if s.awaited[i] {
		n.say(procLine{Is: "got", From: from, N: i})
	}
	return nil
}

// send sends the next message.
func (n *procNode) send() {
	n.mu.Lock()
	i := n.sent
	n.sent++
	n.mu.Unlock()
	if n.pod.Send(nth("load", n.Number, i)) == nil {
		panic("not sent")
	}
}

func (n *procNode) sentSoFar() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

// do does what a test says, and answers with a line of the same name. Only one "send" or "flow" at a
// time may be at work.
func (n *procNode) do(c procCommand) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute) // the test ends long before
	defer cancel()
	answer := procLine{Is: c.Do, N: c.N}
	switch c.Do {
	case "peers":
		n.must(n.bus.WaitPeers(ctx, c.N))
	case "wanted":
		n.must(n.bus.WaitInterest(ctx, c.Type, c.N))
	case "send":
		for range c.N {
			n.send()
		}
		answer.N = n.sentSoFar()
	case "flow": // two thousand messages a second, until "halt"
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-tick.C:
				for range 2 {
					n.send()
				}
				continue
			case <-n.halt:
			}
			tick.Stop()
			return
		}
	case "halt":
		n.halt <- struct{}{}
		answer.N = n.sentSoFar()
	case "await": // the message with number N
		n.mu.Lock()
		s := n.sender(c.From)
		here := s.seen[c.N]
		s.awaited[c.N] = true
		n.mu.Unlock()
		if !here {
			return // count answers
		}
		answer.Is, answer.From = "got", c.From
	case "ask", "ask in vain":
		data := ""
		if c.Do == "ask in vain" {
			data = procSilence
		}
		reply, err := n.pod.Request(ctx, gravbus.NewMsg(c.Type, []byte(data)))
		if err != nil {
			answer.Error, answer.Why = err.Error(), procWhy(err)
		} else {
			answer.Text = string(reply.Data())
		}
	case "slow":
		answer.N, answer.Lost = n.slowly(c.N)
	case "conns":
		answer.Conns = lanConns()
	case "report":
		answer.Tallies = n.report()
	case "stats":
		stats := n.bus.Stats()
		stats.Pods = nil // nobody asks, and it would fill the output of a test that fails
		answer.Stats = &stats
	default:
		panic(c.Do)
	}
	n.say(answer)
}

// procStall is the stall limit of the pod that takes its time.
const procStall = 300 * time.Millisecond

// slowly sends messages to a pod of this node that is always full, but goes on, and returns how many
// that gets and loses.
func (n *procNode) slowly(count int) (got, lost int) {
	pod := n.bus.Connect(gravbus.Name("slow"), gravbus.Mailbox(1), gravbus.StallLimit(procStall))
	done := make(chan struct{})
	n.must(pod.OnType("slow", func(msg gravbus.Message) error {
		if msg.Type() == gravbus.MsgTypeLagged {
			return nil
		}
		_, i := numberOf(msg)
		got++
		n.say(procLine{Is: "slowly", N: i})
		for range 20 { // steps, so that it is never just about to end
			<-time.After(procStall / 100)
		}
		if i == count-1 {
			close(done)
		}
		return nil
	}))
	for i := range count {
		n.pod.Send(nth("slow", n.Number, i))
	}
	<-done
	pod.Disconnect()
	return got, int(n.bus.Stats().Dropped)
}

func (n *procNode) report() map[int]procTally {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[int]procTally)
	for number, s := range n.senders {
		all[number] = s.procTally
	}
	return all
}

// close ends the node in order, and says what came up to its end, and whether a goroutine is left.
func (n *procNode) close(before goleak.Option) {
	ctx, cancel := context.WithTimeout(context.Background(), patience/2)
	defer cancel()
	line := procLine{Is: "close"}
	err := n.bus.Shutdown(ctx)
	if err == nil {
		err = goleak.Find(before)
	}
	if err != nil {
		line.Error = err.Error()
	}
	line.Tallies = n.report()
	n.say(line)
}
