package gravbus

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/route"
	"github.com/gravbus/gravbus/internal/wire"
)

// routed is a message on its way to one peer with something to say about where it goes there. It
// is what the lane of the peer carries, and nobody else sees it.
type routed struct {
	*message
	flags  byte
	groups []string // of whom one member gets it
	from   uint64   // the pod that sent it, of an answer
}

// remoteGroup is a group with members at peers.
type remoteGroup struct {
	name   string
	routes route.Table[*peer]
	uses   []groupUse              // guarded by meshed.mu
	only   atomic.Pointer[[]*peer] // the peer, if all members are at one: routes need not be asked

	mu   sync.Mutex // guards turn
	turn int
}

// groupUse is how many entries of a peer a group has.
type groupUse struct {
	peer    *peer
	entries int
}

// groupRoutes finds groups by type.
type groupRoutes = route.Table[*remoteGroup]

func (x *meshed) groupsFor(typ string) []*remoteGroup {
	if x.grouped.Load() == 0 {
		return nil
	}
	groups, _ := x.groupRoutes.Lookup(typ)
	return groups
}

// peers returns the peers with members that want the type, which is one that the group wants.
func (g *remoteGroup) peers(typ string) []*peer {
	if only := g.only.Load(); only != nil {
		return *only
	}
	peers, _ := g.routes.Lookup(typ)
	return peers
}

// choose returns the peer whose members get the next message of the type: those that are connected
// take turns; if none is, the others do.
func (g *remoteGroup) choose(typ string) *peer {
	peers := g.peers(typ)
	if len(peers) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.turn++
	for i := range peers {
		if p := peers[(g.turn+i)%len(peers)]; p.link.State() == mesh.Ready {
			g.turn += i
			return p
		}
	}
	return peers[g.turn%len(peers)]
}

// straight returns the route of messages of a type to peers, if one that is nothing special may be
// put into their lanes as it is.
func (x *meshed) straight(p *Pod, typ string) *route.Found[*peer] {
	if x.exports != nil || x.quiet.Load() {
		return nil
	}
	found, _ := x.find(p, typ)
	return found
}

func (x *meshed) find(p *Pod, typ string) (*route.Found[*peer], error) {
	found := p.remote.Load()
	if !x.routes.Knows(found, typ) {
		var err error
		if found, err = x.routes.Find(typ); err != nil {
			return nil, typeError(err)
		}
		p.remote.Store(found)
	}
	return found, nil
}

// post puts a message into the lanes of peers for which s has a straight route: while they have room,
// and not many have to be woken, which are returned. The caller has locked the mutex that all lanes
// share, and the message is in the buffer.
func (x *meshed) post(it *item, s *sending) (wake [2]*peer) {
	if x.grouped.Load() != 0 {
		s.remote = nil
		return wake
	}
	s.remote = x.routes.Refresh(s.remote)
	woken := 0
	for _, to := range s.remote.Sinks() {
		_, w, ok := to.lane.AppendLocked(it, nil, false)
		if !ok {
			break
		}
		s.posted++
		if w != nil {
			wake[woken] = to
			if woken++; woken == len(wake) {
				break
			}
		}
	}
	return wake
}

// rouse wakes the links of peers that have got a message by post.
func (s *sending) rouse(wake *[2]*peer) {
	if len(s.remote.Sinks()) == 1 {
		wake[0].link.Speak()
		return
	}
	for _, to := range wake {
		if to != nil {
			to.link.Wake()
		}
	}
}

// send puts a message into the lanes of the peers that want it and do not have it by post, and of the
// one that waits for it as an answer. local is the route of pods here: a group that has members there
// gets it there.
//
// Invariant: as for pods, the message is in the buffer before the routes are loaded.
func (x *meshed) send(ctx context.Context, p *Pod, it *item, local []*lane, answer *peer, s *sending, undelivered **UndeliveredError) error {
	if x.quiet.Load() {
		if x.bus.state.Load() != busOpen {
			return ErrClosed
		}
		return nil
	}
	typ := it.Val.Type()
	found := s.remote
	if found == nil {
		var err error
		if found, err = x.find(p, typ); err != nil {
			return err
		}
	}
	peers := found.Sinks()
	groups := x.groupsFor(typ)
	if len(peers) == 0 && len(groups) == 0 && answer == nil && !s.answerAll || x.exports != nil && !x.exports.Match(typ) {
		return nil
	}
	if _, ours := it.Val.(*message); !ours {
		it = &item{Val: ownOf(it.Val), From: it.From, Seq: it.Seq}
	}
	if len(groups) > 0 || s.answerAll || answer != nil && len(peers) > 0 {
		return x.sendSome(ctx, p, it, local, peers, groups, answer, s, undelivered)
	}
	if s.track {
		answers, _ := x.answers.Lookup(typ)
		s.peers = append(s.peers, answers...)
	}
	if answer != nil {
		one := *it
		x.direct(&one, answer, wire.FlagSkip, nil, answer, s)
		return x.sendTo(ctx, p, &one, answer, true, undelivered)
	}
	for _, to := range peers[s.posted:] {
		one := *it
		if s.targets != nil {
			x.direct(&one, to, 0, nil, nil, s)
		}
		if err := x.sendTo(ctx, p, &one, to, len(peers) == 1, undelivered); err != nil {
			return err
		}
	}
	return nil
}

// sendSome is send where not all peers get the same.
func (x *meshed) sendSome(ctx context.Context, p *Pod, it *item, local []*lane, peers []*peer, groups []*remoteGroup, answer *peer, s *sending, undelivered **UndeliveredError) error {
	typ := it.Val.Type()
	var chosen map[*peer][]string
	for _, g := range groups {
		if slices.ContainsFunc(local, func(l *lane) bool { return l.Group == g.name && l.Wanted(it) }) {
			continue
		}
		if to := g.choose(typ); to != nil {
			if chosen == nil {
				chosen = map[*peer][]string{}
			}
			chosen[to] = append(chosen[to], g.name)
		}
	}
	special := chosen != nil || answer != nil || s.targets != nil || s.answerAll
	if s.track {
		answers, _ := x.answers.Lookup(typ)
		for to := range chosen {
			s.peers = append(s.peers, to)
		}
		for _, to := range answers {
			if chosen[to] == nil {
				s.peers = append(s.peers, to)
			}
		}
	}
	for _, to := range peers[s.posted:] {
		one := *it
		if special {
			x.direct(&one, to, 0, chosen, answer, s)
		}
		if err := x.sendTo(ctx, p, &one, to, false, undelivered); err != nil {
			return err
		}
	}
	if chosen == nil && answer == nil && !s.answerAll {
		return nil
	}
	more := make([]*peer, 0, len(chosen)+1)
	for to := range chosen {
		more = append(more, to)
	}
	if answer != nil && chosen[answer] == nil {
		more = append(more, answer)
	}
	if s.answerAll {
		for _, to := range x.list() {
			if chosen[to] == nil && to.link.State() == mesh.Ready {
				more = append(more, to)
			}
		}
	}
	for _, to := range more {
		if slices.Contains(peers, to) {
			continue
		}
		one := *it
		x.direct(&one, to, wire.FlagSkip, chosen, answer, s)
		if err := x.sendTo(ctx, p, &one, to, false, undelivered); err != nil {
			return err
		}
	}
	return nil
}

// direct gives the message, which is this package's own, what it has to say to one peer, if anything.
func (x *meshed) direct(it *item, to *peer, flags byte, chosen map[*peer][]string, answer *peer, s *sending) {
	r := &routed{message: it.Val.(*message), flags: flags, groups: chosen[to]}
	if to == answer || s.answerAll {
		r.flags |= wire.FlagAnswer
		r.from = it.From
	}
	if s.targets != nil {
		r.flags |= wire.FlagPoll
	}
	if r.flags != 0 || r.groups != nil {
		it.Val = r
	}
}

// ownOf returns msg as a message of this package's own making, to go to peers: methods of others may
// do anything, and are called in the goroutine that sends, not where a link is written.
func ownOf(msg Message) *message {
	m, ours := msg.(*message)
	if !ours {
		m = new(message)
		m.readFrom(msg)
	}
	return m
}

// readFrom makes m, which is new, what msg is.
func (m *message) readFrom(msg Message) {
	m.typ = msg.Type()
	name := msg.UUID()
	m.receipt.id, m.data, m.nanos = idOf(name), msg.Data(), noTime
	if at := msg.Timestamp(); !at.IsZero() {
		m.nanos = at.UnixNano()
	}
	m.setReplyTo(msg.ReplyTo())
	m.setParent(msg.ParentID())
	if name != "" && parseUUID(name) == uuid.Nil {
		m.extra().name = name
	}
}

// sendTo puts a message into a peer's lane. It goes to nobody else over there if alone is set: then
// it may be the sender that writes it.
func (x *meshed) sendTo(ctx context.Context, p *Pod, it *item, to *peer, alone bool, undelivered **UndeliveredError) error {
	to.lane.Lock()
	_, wake, ok := to.lane.AppendLocked(it, nil, false)
	to.lane.Unlock()
	switch {
	case wake == nil:
	case alone:
		to.link.Speak()
	default:
		wake.Rouse()
	}
	if ok {
		return nil
	}
	return x.sendSlow(ctx, p, it, to, undelivered)
}

// sendSlow is sendTo where the lane has no room. It is apart for its large frame: see Reader.Claim.
func (x *meshed) sendSlow(ctx context.Context, p *Pod, it *item, to *peer, undelivered **UndeliveredError) error {
	o := mailbox.Outcome[Message]{}
	to.lane.AppendSlow(orBackground(ctx), it, &p.reader, mailbox.Normal, nil, &o)
	return x.bus.settle(it, &o, undelivered)
}

// asker returns the peer that a message with the ID came from. If the buffer no longer has the
// message, and nobody here waits for replies to it, it may have come from any: then all is true.
func (x *meshed) asker(id uuid.UUID) (from *peer, all bool) {
	if x.quiet.Load() {
		return nil, false
	}
	if m := x.buffered(id); m != nil {
		return x.present(m.receipt.pod.Load().cfg.peer), false
	}
	return nil, !x.bus.parked.waits(id)
}

// answered brings a reply of a peer to who waits for it, or to the pod that asked.
func (x *meshed) answered(id uuid.UUID, rep reply) {
	b := x.bus
	if !b.parked.waits(id) {
		if m := x.buffered(id); m != nil && m.receipt.pod.Load().cfg.peer == nil {
			m.receipt.deliver(b, rep.from, rep.msg)
			return
		}
	}
	b.parked.deliver(b, id, rep)
}

// stepAside is called by a goroutine that is about to wait for what may come from a peer: it may be
// the one that reads from there.
func (x *meshed) stepAside() {
	if x != nil {
		x.node.StepAside()
	}
}

// present returns the peer, which may be nil, or what has come in its place: it may have been given
// up and be back.
func (x *meshed) present(p *peer) *peer {
	if p == nil || !p.isLost() {
		return p
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, other := range x.peers {
		if other.uuid == p.uuid {
			return other
		}
	}
	return nil
}

// buffered returns the message with the ID if it is in the buffer.
func (x *meshed) buffered(id uuid.UUID) *message {
	b := x.bus.buffer
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for seq := b.next; seq != b.first; seq-- {
		s := b.at(seq - 1)
		if m, ok := s.msg.(*message); ok && m.receipt.id == id {
			return m
		}
	}
	return nil
}

// Interested takes a change in what a peer wants.
func (x *meshed) Interested(l *mesh.Link[Message], add, remove []wire.Entry) {
	p := sideOf(l)
	for i := range add {
		x.addEntry(p, &add[i], 1)
	}
	for i := range remove {
		x.addEntry(p, &remove[i], -1)
	}
}

// addEntry adds an interest of a peer, or takes one back.
func (x *meshed) addEntry(p *peer, e *wire.Entry, by int) {
	interest := route.Interest{Allow: validPatterns(e.Allow), Deny: validPatterns(e.Deny)}
	if len(interest.Allow) == 0 {
		return
	}
	if e.Group == "" {
		change(&x.routes, p, interest, by)
		if !e.Observer {
			change(&x.answers, p, interest, by)
		}
		return
	}
	x.mu.Lock()
	g := x.groups[e.Group]
	if g == nil {
		if by < 0 {
			x.mu.Unlock()
			return
		}
		g = &remoteGroup{name: e.Group}
		x.groups[e.Group] = g
	}
	if g.use(p, by); len(g.uses) == 0 {
		delete(x.groups, e.Group)
	}
	x.mu.Unlock()
	change(&g.routes, p, interest, by)
	change(&x.groupRoutes, g, interest, by)
	x.grouped.Add(int32(by))
}

// use counts an entry of a peer. The caller holds meshed.mu.
func (g *remoteGroup) use(p *peer, by int) {
	i := slices.IndexFunc(g.uses, func(u groupUse) bool { return u.peer == p })
	if i < 0 {
		i = len(g.uses)
		g.uses = append(g.uses, groupUse{peer: p})
	}
	if g.uses[i].entries += by; g.uses[i].entries == 0 {
		g.uses = slices.Delete(g.uses, i, i+1)
	}
	if len(g.uses) == 1 {
		g.only.Store(&[]*peer{g.uses[0].peer})
	} else {
		g.only.Store(nil)
	}
}

func change[S comparable](t *route.Table[S], sink S, i route.Interest, by int) {
	if by > 0 {
		t.Add(sink, i)
	} else {
		t.Remove(sink, i)
	}
}

// validPatterns leaves out what is no pattern, or is one of a node's own events, which do not
// travel.
func validPatterns(patterns []string) []string {
	valid := func(p string) bool { return route.CheckPattern(p) == nil && !route.IsReserved(p) }
	if !slices.ContainsFunc(patterns, func(p string) bool { return !valid(p) }) {
		return patterns
	}
	return slices.DeleteFunc(slices.Clone(patterns), func(p string) bool { return !valid(p) })
}

// A lossWatch is a request that only peers can answer: it ends when all of them are lost, or cannot
// be sent the request.
type lossWatch struct {
	mu   sync.Mutex // guards all below
	left int
	last *peer
	err  error // what became of the last one
	lost chan struct{}
}

// watchLoss returns a watch over the peers, for a request of so many bytes. It is to be ended by unwatch.
func watchLoss(peers []*peer, size int) *lossWatch {
	w := &lossWatch{left: len(peers), lost: make(chan struct{})}
	for _, p := range peers {
		p.mu.Lock()
		var err error
		switch {
		case p.lost:
			err = ErrPeerLost
		case uint64(size) > p.maxMessageLocked():
			err = ErrMessageTooLarge
		default:
			p.watch = append(p.watch, w)
		}
		p.mu.Unlock()
		if err != nil {
			w.lose(p, err)
		}
	}
	return w
}

func (w *lossWatch) unwatch(peers []*peer) {
	for _, p := range peers {
		p.mu.Lock()
		p.watch = slices.DeleteFunc(p.watch, func(o *lossWatch) bool { return o == w })
		p.mu.Unlock()
	}
}

func (w *lossWatch) lose(p *peer, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.err = p, err
	if w.left--; w.left == 0 {
		close(w.lost)
	}
}
