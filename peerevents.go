package gravbus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/wire"
)

// Up is called when a peer is connected and what it wants is known.
func (x *meshed) Up(l *mesh.Link[Message]) {
	p := sideOf(l)
	p.mu.Lock()
	p.wasUp = true
	p.mu.Unlock()
	x.log.to.WithField("peer", p.uuid).Info("gravbus: peer connected")
	x.bus.emit(EventPeerUp, func() any { return PeerEvent{Peer: p.info()} })
}

// Down is called when a peer has lost its connection.
func (x *meshed) Down(l *mesh.Link[Message], err error) {
	p := sideOf(l)
	if !x.node.Leaving() && !errors.Is(err, mesh.ErrReplaced) && !errors.Is(err, mesh.ErrWithdrawn) {
		x.log.down(p, err)
	}
	x.bus.emit(EventPeerDown, func() any { return PeerEvent{Peer: p.info(), Error: errorText(err)} })
}

// Lost is called when a peer is given up.
func (x *meshed) Lost(l *mesh.Link[Message], err error, gap mesh.Gap) {
	p := sideOf(l)
	x.mu.Lock()
	delete(x.peers, l)
	if gap.Count > 0 && x.node.Leaving() {
		x.without = append(x.without, p.uuid)
	}
	x.mu.Unlock()
	if x.bus.buffer != nil {
		x.replayLost(p)
	}
	p.mu.Lock()
	p.lost = true
	watches, wasUp := p.watch, p.wasUp
	p.watch = nil
	p.mu.Unlock()
	for _, w := range watches {
		w.lose(p, ErrPeerLost)
	}
	x.bus.polls.lost(p)
	if !wasUp {
		return
	}
	log := x.log.to.WithField("peer", p.uuid)
	if gap.Count > 0 {
		x.Gap(l, gap, false)
		log.WithError(err).Warnf("gravbus: peer has gone; %d messages may not have reached it", gap.Count)
	} else if !x.node.Leaving() {
		log.WithError(err).Info("gravbus: peer has gone")
	}
	x.bus.emit(EventPeerLost, func() any { return PeerEvent{Peer: p.info(), Error: errorText(err)} })
}

// Gap tells of messages that were lost on a link.
func (x *meshed) Gap(l *mesh.Link[Message], g mesh.Gap, incoming bool) {
	p := sideOf(l)
	x.bus.emit(EventPeerGap, func() any {
		return Gap{
			Peer: p.uuid, Incoming: incoming, Count: g.Count,
			From: uuid.UUID(g.From).String(), To: uuid.UUID(g.To).String(),
		}
	})
}

// Unsendable tells of a message that cannot go to a peer.
func (x *meshed) Unsendable(l *mesh.Link[Message], msg Message, err error) {
	p := sideOf(l)
	x.bus.refused.Add(1)
	x.bus.emit(EventRefused, func() any {
		r := Refused{Type: msg.Type(), UUID: msg.UUID(), Peer: p.uuid, Error: err.Error()}
		if errors.Is(err, mesh.ErrTooLarge) {
			r.Size, r.Limit = len(msg.Data()), int(p.link.Peer().MaxMessage)
		}
		return r
	})
}

// Refused tells of a connection that did not become a link.
func (x *meshed) Refused(remote string, who *mesh.Peer, err error) {
	e := PeerEvent{Remote: remote, Error: errorText(err)}
	if who != nil {
		e.Peer = PeerInfo{NodeUUID: uuid.UUID(who.ID).String(), Name: who.Name, Mesh: who.Mesh}
	}
	x.log.refused(remote, err)
	x.bus.emit(EventPeerRefused, func() any { return e })
}

// tellStalled tells that a peer takes nothing.
func (p *peer) tellStalled() {
	x := p.mesh
	x.log.to.WithField("peer", p.uuid).Warn("gravbus: peer has stalled: the oldest messages to it give way until it has caught up")
	x.bus.emit(EventPeerSlow, func() any { return PeerEvent{Peer: p.info()} })
}

// podGone tells peers that have asked a pod something that it has gone.
func (x *meshed) podGone(pod uint64) {
	if x == nil {
		return
	}
	for _, p := range x.list() {
		p.mu.Lock()
		told := p.polled[pod]
		delete(p.polled, pod)
		p.mu.Unlock()
		if told {
			p.tellGone(pod)
		}
	}
}

// tellGone tells the peer, behind all that the pod has sent, that it has gone.
func (p *peer) tellGone(pod uint64) {
	it := item{Val: &goneNotice{message: newMessage(typeGone, nil), pod: pod}, From: pod}
	var o mailbox.Outcome[Message]
	p.lane.AppendSlow(context.Background(), &it, nil, mailbox.Shed, nil, &o)
}

// typeGone is the type of a goneNotice, which nobody sees.
const typeGone = "gravbus.gone"

// goneNotice goes the way of messages to a peer, and tells it that a pod has gone.
type goneNotice struct {
	*message
	pod uint64
}

// maxTargetNames bounds the names in one word to a peer: a packet has to hold them. Further pods go
// by their numbers.
const maxTargetNames = 64 << 10

// tellTargets tells the peer who got its request.
func (p *peer) tellTargets(request uuid.UUID, targets []mailbox.Target[Message]) {
	t := &wire.Targets{Request: wire.ID(request)}
	size := 0
	var gone []uint64
	for _, target := range targets {
		var one wire.Target
		for _, r := range target.Readers {
			id := r.Owner()
			p.mu.Lock()
			if p.polled == nil {
				p.polled = map[uint64]bool{}
			}
			p.polled[id] = true
			p.mu.Unlock()
			// Asked after it was noted: if it goes from now on, podGone tells. If it has gone
			// already, its answer may still be on its way.
			if p.mesh.bus.pods.get(id) == nil {
				gone = append(gone, id)
			}
			name := p.mesh.bus.pods.name(id)
			if size += len(name); size > maxTargetNames {
				name = ""
			}
			one.Pods = append(one.Pods, id)
			one.Names = append(one.Names, name)
		}
		if len(one.Pods) > 0 {
			t.List = append(t.List, one)
		}
	}
	p.link.SendTargets(t)
	for _, id := range gone {
		p.mu.Lock()
		told := p.polled[id]
		delete(p.polled, id)
		p.mu.Unlock()
		if told { // not by podGone meanwhile
			p.tellGone(id)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// info returns what is known of the peer.
func (p *peer) info() PeerInfo {
	i := PeerInfo{NodeUUID: p.uuid}
	if h := p.link.Peer(); h != nil {
		i.Name, i.Mesh, i.Endpoints, i.Capabilities, i.Authenticated = h.Name, h.Mesh, h.Endpoints, h.Capabilities, h.Authenticated
		i.Version = int(h.Version)
	}
	return i
}

// Tunnel sends msg to exactly one connected node that has the capability (UseInterests), whatever
// its pods want: those of them that want the type get it. Several such nodes take turns. Pods of
// this bus do not get the message. It returns ErrTunnelNotEstablished if there is no such node, and
// otherwise the errors of SendContext.
func (b *Bus) Tunnel(capability string, msg Message) error {
	if b.mesh == nil {
		return ErrTransportNotConfigured
	}
	_, err := b.mesh.tunnel(b.mesh.self, capability, msg)
	return err
}

// Tunnel is Bus.Tunnel with the pod as the sender: the receipt gets the replies.
func (p *Pod) Tunnel(capability string, msg Message) (*Receipt, error) {
	if p.state.Load() != podOpen {
		return nil, p.closedErr()
	}
	if p.bus.mesh == nil {
		return nil, ErrTransportNotConfigured
	}
	return p.bus.mesh.tunnel(p, capability, msg)
}

func (x *meshed) tunnel(p *Pod, capability string, msg Message) (*Receipt, error) {
	b := x.bus
	if p.state.Load() != podOpen || b.state.Load() != busOpen && !b.mayStillSend(p) {
		return nil, p.closedErr()
	}
	if isNil(msg) {
		return nil, ErrNilMessage
	}
	found, err := b.routes.Find(msg.Type())
	if err != nil {
		return nil, typeError(err)
	}
	if found.Reserved() {
		return nil, ErrReservedType
	}
	if b.maxSize > 0 {
		if err := b.checkSize(p, msg); err != nil {
			return nil, err
		}
	}
	if x.exports != nil && !x.exports.Match(msg.Type()) {
		return nil, fmt.Errorf("%w: the type %s is not exported", ErrTunnelNotEstablished, msg.Type())
	}
	to := x.capable(capability)
	if to == nil {
		return nil, fmt.Errorf("%w: no connected node has the capability %q", ErrTunnelNotEstablished, capability)
	}
	var s sending
	if m, ours := msg.(*message); ours {
		s.receipt = m.receiptOf(p)
	} else {
		s.receipt = foreignReceipt(p, msg)
	}
	it := item{Val: ownOf(msg), From: p.id}
	groups := map[*peer][]string{}
	for _, g := range x.groupsFor(msg.Type()) {
		if slices.Contains(g.peers(msg.Type()), to) {
			groups[to] = append(groups[to], g.name)
		}
	}
	x.direct(&it, to, 0, groups, nil, &s)
	var undelivered *UndeliveredError
	if err := x.sendTo(context.Background(), p, &it, to, true, &undelivered); err != nil {
		return nil, err
	}
	if undelivered != nil {
		return s.receipt, undelivered
	}
	return s.receipt, nil
}

// capable returns the connected peer with the capability whose turn it is.
func (x *meshed) capable(capability string) *peer {
	var able []*peer
	for _, p := range x.list() {
		if p.link.State() == mesh.Ready && !p.link.Leaving() && slices.Contains(p.link.Peer().Capabilities, capability) {
			able = append(able, p)
		}
	}
	if len(able) == 0 {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.tunnels++
	return able[x.tunnels%uint64(len(able))]
}
