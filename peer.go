package gravbus

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/route"
	"github.com/gravbus/gravbus/internal/wire"
)

// A peer is another node as the bus sees it: a lane on which messages go there, and a pod that
// stands for it as the sender of what comes from there.
type peer struct {
	mesh *meshed
	link *mesh.Link[Message]
	uuid string
	pod  *Pod
	lane *lane

	// Owned by the reader of the link's connection.
	found    *route.Found[*lane] // of the type that was delivered last; owned by who delivers
	types    []peerType          // by the number that the connection gives them
	messages []message           // made beforehand: one allocation for several
	data     []byte              // the same for their data

	refused atomic.Uint64 // messages that UseImport keeps out

	mu     sync.Mutex      // guards all below
	polled map[uint64]bool // pods that the peer was told of, and is to be told when they go
	watch  []*lossWatch    // requests that only this peer, or others like it, can answer
	lost   bool
	wasUp  bool
	most   uint64    // bytes of data that a message to it may have, once it was needed
	downAt time.Time // when its lost connection was last logged
}

// peerType is a type that comes from a peer.
type peerType struct {
	name string
	err  error // why it may not come
}

// Open makes the bus's side of a link.
func (x *meshed) Open(l *mesh.Link[Message]) (side any, r *mailbox.Reader[Message]) {
	p := &peer{mesh: x, link: l, uuid: uuid.UUID(l.ID()).String()}
	p.pod = x.bus.hiddenPod("node "+p.uuid, p)
	p.pod.reader.Init(p.pod.id, &x.queue, l)
	p.lane = x.bus.graph.NewLane(x.queue.Bound)
	p.pod.reader.Attach(p.lane, true, false)
	x.mu.Lock()
	x.peers[l] = p
	x.mu.Unlock()
	x.askForAll(p) // before anything comes
	return p, &p.pod.reader
}

// sideOf returns the bus's side of a link.
func sideOf(l *mesh.Link[Message]) *peer { return l.Side().(*peer) }

// Cost is what the peer will count for a message, which is what it needs to be encoded for.
func (x *meshed) Cost(msg Message) (cost, gone uint64) {
	switch m := msg.(type) {
	case *message:
		data, _ := m.encoded()
		n := len(data)
		if x := m.more; x != nil {
			n += x.texts()
		}
		return wire.Cost(n), 0
	case *routed:
		cost, _ = x.Cost(m.message)
		for _, g := range m.groups {
			cost += uint64(len(g) + 16)
		}
		return cost, 0
	default:
		return wire.Cost(0), msg.(*goneNotice).pod
	}
}

// UUID returns the ID of a message.
func (x *meshed) UUID(msg Message) wire.ID { return wire.ID(messageID(msg)) }

// messageID returns the ID by which a message is known.
func messageID(msg Message) uuid.UUID {
	switch m := msg.(type) {
	case *message:
		return m.receipt.id
	case *routed:
		return messageID(m.message)
	}
	return idOf(msg.UUID())
}

// Encode fills in m. What lies in the lane of a peer is a message of this package's own or a routed.
func (x *meshed) Encode(_ *mesh.Link[Message], msg Message, m *wire.Message) error {
	return encode(msg, m)
}

func encode(msg Message, m *wire.Message) error {
	o, plain := msg.(*message)
	if !plain {
		r := msg.(*routed)
		o = r.message
		m.Flags = r.flags
		if r.groups != nil || r.from != 0 {
			m.Rare = &wire.Rare{Groups: r.groups, From: r.from}
		}
	}
	data, err := o.encoded()
	if err != nil {
		return err
	}
	m.ID, m.Type, m.Time, m.Data = wire.ID(o.receipt.id), o.typ, o.nanos, data
	if o.replyTo != uuid.Nil {
		m.ReplyTo = wire.ID(o.replyTo)
		m.Flags |= wire.FlagReplyTo
	}
	if x := o.more; x != nil && (x.parent != "" || x.name != "" || x.replyTo != "") {
		return setRare(m, x.parent, x.name, x.replyTo)
	}
	return nil
}

// sizeAtPeers returns how many bytes of data a message has for a peer, or why it cannot go to any.
func sizeAtPeers(msg Message) (int, error) {
	var m wire.Message
	err := encode(ownOf(msg), &m)
	return len(m.Data), err
}

// maxMessageLocked returns how many bytes of data a message to the peer may have, which does not
// change: its UUID is that of one bus.
func (p *peer) maxMessageLocked() uint64 {
	if p.most == 0 {
		p.most = p.link.Peer().MaxMessage
	}
	return p.most
}

// takes reports whether the peer is given up, and whether it takes messages of so many bytes.
func (p *peer) takes(size int) (lost, takes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost, uint64(size) <= p.maxMessageLocked()
}

// setRare sets what a peer takes of texts up to a length.
func setRare(m *wire.Message, parent, name, replyTo string) error {
	for _, s := range []string{parent, name, replyTo} {
		if len(s) > wire.MaxText {
			return fmt.Errorf("gravbus: a parent ID or UUID of %d bytes cannot go to a peer: at most %d", len(s), wire.MaxText)
		}
	}
	if m.Rare == nil {
		m.Rare = new(wire.Rare)
	}
	m.Rare.Parent, m.Rare.Name, m.Rare.ReplyTo = parent, name, replyTo
	return nil
}

// Sizes of what is allocated at once for messages that come from a peer. Whoever keeps one message
// keeps its neighbours too, so they are small.
const (
	messageChunk = 16
	dataChunk    = 4 << 10
)

// Decode makes a message of what has come from a peer. It counts as sent by the peer's pod.
func (x *meshed) Decode(l *mesh.Link[Message], m *wire.Message) (Message, error) {
	p := sideOf(l)
	t := p.typeOf(m)
	if t.err != nil {
		return nil, t.err
	}
	if len(p.messages) == 0 {
		p.messages = make([]message, messageChunk)
	}
	o := &p.messages[0]
	p.messages = p.messages[1:]
	o.receipt.id, o.typ, o.nanos = uuid.UUID(m.ID), t.name, m.Time
	o.data = p.keep(m.Data)
	if m.Flags&wire.FlagReplyTo != 0 {
		o.replyTo = uuid.UUID(m.ReplyTo)
	}
	if r := m.Rare; r != nil && (r.Parent != "" || r.Name != "" || r.ReplyTo != "") {
		o.more = &more{parent: r.Parent, name: r.Name, replyTo: r.ReplyTo}
	}
	o.receipt.pod.Store(p.pod)
	return o, nil
}

// keep returns a copy of data.
func (p *peer) keep(data []byte) []byte {
	switch n := len(data); {
	case n == 0:
		return nil
	case n > dataChunk/4:
		return slices.Clone(data)
	default:
		if len(p.data) < n {
			p.data = make([]byte, dataChunk)
		}
		own := p.data[:n:n]
		p.data = p.data[n:]
		copy(own, data)
		return own
	}
}

var errReservedFromPeer = errors.New("a message of a type gravbus.…, which never leaves a node")

// typeOf returns what is known of the message's type.
func (p *peer) typeOf(m *wire.Message) *peerType {
	if i := m.TypeNum; i >= 0 && i < len(p.types) && p.types[i].name == m.Type {
		return &p.types[i]
	}
	t := peerType{name: m.Type}
	if found, err := p.mesh.bus.routes.Find(m.Type); err != nil {
		t.err = typeError(err)
	} else if found.Reserved() {
		t.err = errReservedFromPeer
	}
	switch i := m.TypeNum; {
	case i >= 0 && i < len(p.types):
		p.types[i] = t
		return &p.types[i]
	case i == len(p.types):
		p.types = append(p.types, t)
		return &p.types[i]
	}
	return &t
}

// Deliver brings what has come from a peer to whom it is for.
func (x *meshed) Deliver(l *mesh.Link[Message], in *mesh.Inbound[Message], block bool) bool {
	p := sideOf(l)
	switch in.Tag {
	case wire.TagMessage:
		return p.deliver(in, block)
	case wire.TagReplayEnd:
		x.replayEnded(p, in.Extra.(uint64))
	case wire.TagTargets:
		t := in.Extra.(wire.Targets)
		x.bus.polls.targets(p, &t)
	case wire.TagGone:
		x.bus.polls.left(p, p.remote(in.Extra.(uint64)))
	}
	return true
}

// remote returns by what number one of the peer's pods is known here: it is not that of any other
// pod, but for a chance of one in 2^40 or so.
func (p *peer) remote(pod uint64) uint64 { return p.pod.id*0x9e3779b97f4a7c15 ^ pod | peerBit }

func (p *peer) isLost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Steps of a delivery, in Inbound.Next: the lanes of the route follow.
const stepNew = 0

// deliver brings a message to the pods it is for. What it has done is noted in in.Next: 0 for
// nothing, n+1 for the first n lanes of the route.
func (p *peer) deliver(in *mesh.Inbound[Message], block bool) bool {
	x, b := p.mesh, p.mesh.bus
	m := in.Val.(*message)
	rare := in.Rare
	if rare != nil && rare.Replay != 0 {
		x.replayed(p, rare.Replay, in.Stream, m)
		return true
	}
	it := item{Val: m, From: p.pod.id, Seq: in.At}
	found, _ := in.Found.(*route.Found[*lane])
	var groups []string
	if rare != nil {
		groups = rare.Groups
	}
	poll := in.Flags&wire.FlagPoll != 0
	plain := in.Flags&wire.FlagSkip == 0
	if in.Next == stepNew {
		f := p.found
		if !b.routes.Knows(f, m.typ) {
			f, _ = b.routes.Find(m.typ) // the type was checked when it came
			p.found = f
		}
		if x.imports != nil && !x.imports.Match(m.typ) {
			p.refused.Add(1)
			if poll {
				p.tellTargets(m.receipt.id, nil)
			}
			return true
		}
		found = f
		if rare != nil && len(rare.Covered) > 0 {
			x.cover(p, rare.Covered, m)
		}
		if plain || len(groups) > 0 {
			in.Next = p.post(in, &it, &found, plain && groups == nil && !poll)
		} else {
			in.Next = len(found.Sinks()) + 1
		}
		in.At, in.Found = it.Seq, found
		if plain && x.replays.waiting.Load() > 0 {
			x.hold(p, m) // once it is in the buffer: it is seen there or held, or both
		}
	}
	if in.Next > len(found.Sinks()) && !poll && in.Flags&wire.FlagAnswer == 0 {
		return true
	}
	return p.deliverOn(in, &it, found, groups, block)
}

// deliverOn goes on with what deliver could not do in one turn: the lanes from in.Next on, and who
// waits for an answer.
func (p *peer) deliverOn(in *mesh.Inbound[Message], it *item, found *route.Found[*lane], groups []string, block bool) bool {
	x, b := p.mesh, p.mesh.bus
	m := in.Val.(*message)
	var targets []mailbox.Target[Message]
	poll := in.Flags&wire.FlagPoll != 0
	plain := in.Flags&wire.FlagSkip == 0
	lanes := found.Sinks()
	for ; in.Next <= len(lanes); in.Next++ {
		l := lanes[in.Next-1]
		if l.Group == "" && !plain || l.Group != "" && !slices.Contains(groups, l.Group) {
			continue
		}
		var o mailbox.Outcome[Message]
		o.Stale = func() bool { return !b.routes.Fresh(found) }
		if poll {
			o.Targets = &targets
		}
		if poll && !block {
			return false // all its targets have to be known together
		}
		if b.buffer == nil && block {
			b.graph.CountSent(-1) // the lane counts it, but it was not sent here
		}
		if block {
			o.GoesOn = p.link.GoesOn
			l.AppendSlow(x.ctx, it, nil, mailbox.Normal, lanes, &o)
		} else if !l.TryAppend(it, nil, lanes, &o) {
			return false
		} else if b.buffer == nil {
			b.graph.CountSent(-1)
		}
		b.tellStalled(o.Stalled)
	}
	if poll {
		p.tellTargets(m.receipt.id, targets)
	}
	if in.Flags&wire.FlagAnswer != 0 {
		if id := replyID(m); id != uuid.Nil {
			from := p.pod.id
			if in.Rare != nil && in.Rare.From != 0 {
				from = p.remote(in.Rare.From)
			}
			x.answered(id, reply{from: from, msg: m})
		}
	}
	return true
}

// post puts a message into the buffer and into as many lanes of its route as can take it at once,
// with one turn of the mutex that they share. It returns the number of lanes and one.
func (p *peer) post(in *mesh.Inbound[Message], it *item, found **route.Found[*lane], straight bool) int {
	b := p.mesh.bus
	if b.buffer == nil {
		*found = b.routes.Refresh(*found)
		return 1
	}
	size := sizeOf(it.Val)
	next := 0
	var wake [4]*reader
	woken := 0
	b.buffer.mu.Lock()
	p.mesh.pushed++
	it.Seq = b.buffer.push(it.Val, size, it.From)
	*found = b.routes.Refresh(*found)
	if straight {
		for _, l := range (*found).Sinks() {
			if l.Group == "" {
				_, w, ok := l.AppendLocked(it, nil, false)
				if !ok {
					break
				}
				if w != nil {
					wake[woken] = w
					woken++
				}
			}
			if next++; woken == len(wake) {
				break
			}
		}
	}
	b.buffer.mu.Unlock()
	if in.Lend && woken == 1 {
		if w, ok := wake[0].Waker().(*waker); ok && (*Pod)(w).brief() {
			in.Woken = w
			return next + 1
		}
	}
	for _, w := range wake[:woken] {
		w.Rouse()
	}
	return next + 1
}
