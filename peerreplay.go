package gravbus

import (
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/route"
	"github.com/gravbus/gravbus/internal/wire"
)

// peerReplays is all replays that pods get from peers. It is guarded by meshed.mu.
type peerReplays struct {
	last    uint64             // ID of the latest
	asked   map[uint64]*asking // by ID, as long as both pod and peer are there
	of      map[*Pod]*replaying
	waiting atomic.Int32 // askings that are not over
}

// asking is one replay that a pod gets from one peer. It is guarded by meshed.mu.
//
// While the answer is on its way, what comes live from the peer is held. The pod gets the past, from
// the buffers here and there, and then what was held.
type asking struct {
	to     *replaying
	peer   *peer
	over   bool
	local  []*message // of the peer, in the buffer here since before
	held   []*message
	answer []*message
	has    map[uuid.UUID]bool // what is in answer
	stream uint64             // in which answer came

	bytes, heldBytes int // what answer and held count; as much as may wait for a link is kept
}

// replaying is what a pod with replay gets from peers: once from each that it meets.
//
// Invariant: until a peer's answer is complete, the pod gets nothing live from it; what comes is
// held. What was on its way to the pod's mailbox then has a place in this node's buffer up to that
// moment, and was held. What the peer sends later, and has in the answer, it names.
type replaying struct {
	pod *Pod

	mu      sync.Mutex           // guards all below
	listed  bool                 // the pod's history was taken from the buffer here
	met     map[string]uint64    // UUIDs of the peers that were asked, with the number of the latest loss of each, 0 for none
	had     map[string]string    // UUID of the last message of a peer that was not there, and came from the buffer here, by the peer's UUID
	upTo    map[uint64]uint64    // by the number of the peer's pod: live messages up to this place in the buffer were held
	covered map[uuid.UUID]uint64 // messages that are in an answer too, by the number of the peer's pod
	lost    []lostPeer           // of those that were asked, oldest first; at most maxMet
	losses  uint64
}

// lostPeer is a peer that was given up.
type lostPeer struct {
	uuid string
	pod  uint64 // its number
	loss uint64
}

// maxMet is how many peers that were given up a pod with replay knows, so as not to ask them again when
// they come back. By the time that so many others were, there is nothing left of one in the mailbox.
const maxMet = 16384

// newReplaying returns nil if nothing can come from peers.
func (x *meshed) newReplaying(p *Pod) *replaying {
	if x == nil || x.bus.buffer == nil {
		return nil
	}
	return &replaying{pod: p, met: map[string]uint64{}, had: map[string]string{}, upTo: map[uint64]uint64{}, covered: map[uuid.UUID]uint64{}}
}

// gets returns which of items, from the buffer here, the pod gets at once: not those of peers that
// were asked, which come with the answer. Of other peers, which are not there, it notes the last:
// should they come back, only what came after that is wanted. A nil r has asked nobody.
func (r *replaying) gets(items []item) []item {
	if r == nil {
		return items
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed = true
	return slices.DeleteFunc(items, func(it item) bool {
		uuid := peerOf(it.From, it.Val)
		if uuid == "" {
			return false
		}
		if _, met := r.met[uuid]; met {
			return true
		}
		r.had[uuid] = it.Val.UUID()
		return false
	})
}

// peerOf returns the UUID of the peer that msg came from, which may have been given up since and
// come back as another; "" if it did not come from one.
func peerOf(from uint64, msg Message) string {
	if isPeer(from) {
		if p := cameFrom(msg); p != nil {
			return p.uuid
		}
	}
	return ""
}

// cameFrom returns the peer that msg came from, nil if it was sent here.
func cameFrom(msg Message) *peer {
	if m, ours := msg.(*message); ours {
		if p := m.receipt.pod.Load(); p != nil {
			return p.cfg.peer
		}
	}
	return nil
}

// has reports whether the pod gets, or got, the live message it by the replay.
func (r *replaying) has(it *item) bool {
	if !isPeer(it.From) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	covered := false
	if id := messageID(it.Val); len(r.covered) > 0 && r.covered[id] == it.From {
		delete(r.covered, id)
		covered = true
	}
	upTo, asked := r.upTo[it.From]
	return covered || asked && it.Seq <= upTo
}

// beginReplay asks all peers. Those that come later are asked then.
func (x *meshed) beginReplay(p *Pod, h *handler) {
	if h.replay == nil {
		return
	}
	x.mu.Lock()
	x.replays.of[p] = h.replay
	x.mu.Unlock()
	for _, to := range x.list() {
		x.askReplay(h.replay, to)
	}
}

// askForAll asks a peer that is new for what all pods want that replay.
func (x *meshed) askForAll(to *peer) {
	x.mu.Lock()
	var waiting []*replaying
	for _, r := range x.replays.of {
		waiting = append(waiting, r)
	}
	x.mu.Unlock()
	for _, r := range waiting {
		x.askReplay(r, to)
	}
}

// endReplay forgets a pod that is disconnected.
func (x *meshed) endReplay(p *Pod) {
	if x == nil || p.cfg.replay == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.replays.of, p)
	for id, a := range x.replays.asked {
		if a.to.pod == p {
			x.endAskingLocked(a)
			delete(x.replays.asked, id)
		}
	}
}

// endAskingLocked ends the wait for an answer.
func (x *meshed) endAskingLocked(a *asking) {
	if !a.over {
		a.over = true
		x.replays.waiting.Add(-1)
	}
}

// askReplay asks a peer, if it was not asked before.
func (x *meshed) askReplay(r *replaying, to *peer) {
	i, c := r.pod.interest(), r.pod.cfg.replay
	ask := wire.Replay{Allow: i.Allow, Deny: i.Deny, Types: c.types, Last: uint64(c.last), Since: wire.NoTime}
	r.mu.Lock()
	if _, met := r.met[to.uuid]; met {
		r.met[to.uuid] = 0 // it is back
		r.mu.Unlock()
		return
	}
	// In one turn with gets: what is in the buffer here comes by that, or with the answer.
	r.met[to.uuid] = 0
	r.upTo[to.pod.id] = math.MaxUint64
	ask.After = r.had[to.uuid]
	r.mu.Unlock()
	before := ask.After == "" // what the peer sent before it was given up is still to come
	if c.after != "" && ask.After == "" {
		ask.After = x.afterAt(to, c.after)
	}
	if !c.since.IsZero() {
		ask.Since = c.since.UnixNano()
	}
	local := func() (all []*message) {
		items, _ := r.pod.replayable(func(from uint64, msg Message) bool {
			return from == to.pod.id || before && peerOf(from, msg) == to.uuid
		})
		for _, it := range items {
			all = append(all, it.Val.(*message))
		}
		return all
	}
	x.mu.Lock()
	x.replays.last++
	ask.ID = x.replays.last
	a := &asking{to: r, peer: to, has: map[uuid.UUID]bool{}}
	x.replays.asked[ask.ID] = a
	x.replays.waiting.Add(1)
	asked := to.link.AskReplay(ask) // under the lock, so that IDs rise
	if !asked {
		x.endAskingLocked(a)
		delete(x.replays.asked, ask.ID)
	} else {
		// After it is known: what comes from now on is held.
		a.local = local()
	}
	x.mu.Unlock()
	if asked {
		return
	}
	// It has just been given up. If the pod's history was taken already, it was without what came from
	// this peer; until that is made good nobody asks its successor.
	r.mu.Lock()
	listed := r.listed
	if !listed {
		delete(r.met, to.uuid)
		delete(r.upTo, to.pod.id)
	}
	r.mu.Unlock()
	if !listed {
		return
	}
	items := local()
	r.mu.Lock()
	delete(r.met, to.uuid)
	delete(r.upTo, to.pod.id)
	if len(items) > 0 {
		r.had[to.uuid] = items[len(items)-1].UUID()
	}
	r.mu.Unlock()
	if len(items) > 0 {
		r.begin(to, items, x.bus.buffer.pushed())
	}
}

// afterAt returns what "after the message with this UUID" is for a peer: after the last one of its
// own before that, as far as the buffer here knows. A message that is not known here may be one of
// the peer's.
func (x *meshed) afterAt(to *peer, id string) string {
	all, _ := x.bus.buffer.snapshot()
	rest, found := after(all, id)
	if !found {
		return id
	}
	for i := len(all) - len(rest) - 1; i >= 0; i-- {
		if all[i].from == to.pod.id {
			return all[i].msg.UUID()
		}
	}
	return ""
}

// hold keeps a message that comes live for the pods that wait for the peer's answer.
func (x *meshed) hold(from *peer, m *message) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, a := range x.replays.asked {
		if p := a.to.pod; a.peer == from && !a.over && p.interest().Match(m.typ) {
			a.held = append(a.held, m)
			a.heldBytes += sizeOf(m)
			for len(a.held) > p.mail.Cap || a.heldBytes > DefaultLinkBytes {
				a.heldBytes -= sizeOf(a.held[0])
				p.reader.Lose(a.held[0])
				a.held = a.held[1:]
			}
		}
	}
}

// replayed takes a message of the answer to a replay.
func (x *meshed) replayed(from *peer, id, stream uint64, m *message) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a := x.replays.asked[id]
	if a == nil || a.peer != from || a.over {
		return
	}
	if a.stream != stream { // it begins anew, as the peer had given up the link
		a.stream, a.answer, a.bytes = stream, nil, 0
		clear(a.has)
	}
	p := a.to.pod
	if !p.interest().Match(m.typ) || x.imports != nil && !x.imports.Match(m.typ) {
		return
	}
	a.has[m.receipt.id] = true
	a.answer = append(a.answer, m)
	a.bytes += sizeOf(m)
	for len(a.answer) > p.mail.Cap || a.bytes > DefaultLinkBytes {
		a.bytes -= sizeOf(a.answer[0])
		delete(a.has, a.answer[0].receipt.id)
		p.reader.Lose(a.answer[0])
		a.answer = a.answer[1:]
	}
}

// replayEnded gives the pod the answer, which is complete, and lets it get what comes live.
func (x *meshed) replayEnded(from *peer, id uint64) {
	x.mu.Lock()
	a := x.replays.asked[id]
	if a == nil || a.peer != from || a.over {
		x.mu.Unlock()
		return
	}
	x.endAskingLocked(a)
	items := a.merge()
	a.held, a.answer, a.has = nil, nil, nil
	x.mu.Unlock()
	a.to.begin(from, items, x.bus.buffer.pushed())
}

// begin gives the pod messages, and lets it get what comes live from the peer beyond upTo.
func (r *replaying) begin(from *peer, items []*message, upTo uint64) {
	r.mu.Lock()
	r.upTo[from.pod.id] = upTo
	r.mu.Unlock()
	for _, m := range items {
		r.pod.reader.Forward(&item{Val: m})
	}
}

// merge returns what the pod gets: the past, and what was held. The answer is in the order in which
// the peer sent it, and so is what came here, first what was in the buffer and then what was held.
// What is in both ties them together; between, where one has what the other has not (as it was
// lost, or is too old, or of a type that is not replayed), the times of the messages decide.
func (a *asking) merge() []*message {
	held := make(map[*message]bool, len(a.held))
	for _, m := range a.held {
		held[m] = true
	}
	a.local = slices.DeleteFunc(a.local, func(m *message) bool { return held[m] }) // it came while the pod began to listen
	came := slices.Concat(a.local, a.held)
	here := make(map[uuid.UUID]int, len(came)) // how often it is still to come in came
	for _, m := range came {
		here[m.receipt.id]++
	}
	there := make(map[uuid.UUID][]int, len(a.answer)) // where it is in the answer; twice if it was sent twice
	for i, m := range a.answer {
		there[m.receipt.id] = append(there[m.receipt.id], i)
	}
	items := make([]*message, 0, len(came)+len(a.answer))
	early := map[uuid.UUID]int{} // items of the answer that are still to come in came
	next := 0                    // of the answer
	take := func() {
		id := a.answer[next].receipt.id
		if here[id] > 0 {
			early[id]++
		}
		items = append(items, a.answer[next])
		next++
	}
	past := -1 // how many items come before the first that was held
	for i, m := range came {
		id := m.receipt.id
		here[id]--
		if i == len(a.local) {
			past = len(items)
		}
		if early[id] > 0 {
			early[id]--
			continue
		}
		at := there[id]
		for len(at) > 0 && at[0] < next {
			at = at[1:]
		}
		if len(at) > 0 {
			for next < at[0] {
				take()
			}
			next++
		} else {
			for next < len(a.answer) && here[a.answer[next].receipt.id] == 0 && a.answer[next].nanos <= m.nanos {
				take()
			}
		}
		if i == len(a.local) {
			past = len(items)
		}
		items = append(items, m)
	}
	for next < len(a.answer) {
		take()
	}
	if past < 0 {
		past = len(items)
	}
	if n := a.to.pod.cfg.replay.last; n > 0 && past > n {
		items = items[past-n:]
	}
	return items
}

// cover notes that some pods have a message, which is about to come live, by their replays.
func (x *meshed) cover(from *peer, ids []uint64, m *message) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		if a := x.replays.asked[id]; a != nil && a.peer == from {
			p := a.to.pod
			a.to.mu.Lock()
			if p.interest().Match(m.typ) && len(a.to.covered) < p.mail.Cap {
				a.to.covered[m.receipt.id] = from.pod.id
			}
			a.to.mu.Unlock()
		}
	}
}

// replayLost gives pods that wait for the answer of a peer that is given up what is here.
func (x *meshed) replayLost(from *peer) {
	type given struct {
		to    *replaying
		items []*message
	}
	var waiting []given
	var all []*replaying
	x.mu.Lock()
	for _, r := range x.replays.of {
		all = append(all, r)
	}
	for id, a := range x.replays.asked {
		if a.peer != from {
			continue
		}
		delete(x.replays.asked, id)
		if !a.over {
			x.endAskingLocked(a)
			waiting = append(waiting, given{a.to, a.merge()})
		}
	}
	x.mu.Unlock()
	for _, g := range waiting {
		g.to.begin(from, g.items, x.bus.buffer.pushed())
	}
	for _, r := range all {
		r.lose(from)
	}
}

// lose notes that a peer is given up, and forgets the one that was so long ago that too many were since.
func (r *replaying) lose(p *peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, met := r.met[p.uuid]; !met {
		return
	}
	r.losses++
	r.met[p.uuid] = r.losses
	r.lost = append(r.lost, lostPeer{p.uuid, p.pod.id, r.losses})
	if len(r.lost) <= maxMet {
		return
	}
	oldest := r.lost[0]
	r.lost = r.lost[1:]
	delete(r.upTo, oldest.pod)
	if r.met[oldest.uuid] == oldest.loss { // it has not been here since
		delete(r.met, oldest.uuid)
		delete(r.had, oldest.uuid)
	}
}

// Replay answers a peer's request: what pods of this node have sent, as far as the buffer goes.
func (x *meshed) Replay(l *mesh.Link[Message], r *wire.Replay) (items []Message, latest uint64, has func(uint64, Message) bool) {
	all, latest := x.bus.buffer.snapshot()
	first := latest + 1 - uint64(len(all))
	if r.After != "" {
		rest, _ := after(all, r.After)
		first += uint64(len(all) - len(rest))
		all = rest
	}
	wanted := route.Interest{Allow: validPatterns(r.Allow), Deny: validPatterns(r.Deny)}
	types := route.Interest{Allow: validPatterns(r.Types)}
	since := time.Unix(0, r.Since)
	fits := func(msg Message) bool { // which is this package's own
		typ := msg.Type()
		return wanted.Match(typ) && (len(r.Types) == 0 || types.Match(typ)) && (x.exports == nil || x.exports.Match(typ)) &&
			(r.Since == wire.NoTime || !msg.Timestamp().Before(since))
	}
	var at []uint64
	for i, s := range all {
		if isPeer(s.from) {
			continue
		}
		if m := x.recorded(l, s.msg); m != nil && fits(m) {
			items = append(items, m)
			at = append(at, first+uint64(i))
		}
	}
	if n := uint64(len(items)); r.Last > 0 && n > r.Last {
		items, at = items[n-r.Last:], at[n-r.Last:]
	}
	begins := latest + 1
	if len(at) > 0 {
		begins = at[0]
	}
	return items, latest, func(at uint64, msg Message) bool { return at >= begins && fits(msg) }
}

// recorded returns a message of the buffer as one of this package's own. Of others' making it may be
// one that panics: then it is nil, and counted as refused.
func (x *meshed) recorded(l *mesh.Link[Message], msg Message) (m *message) {
	m, ours := msg.(*message)
	if ours {
		return m
	}
	own := new(message)
	defer func() {
		if v := recover(); v != nil {
			x.Unsendable(l, own, &PanicError{Value: v, Stack: debug.Stack()})
		}
	}()
	own.readFrom(msg)
	return own
}
