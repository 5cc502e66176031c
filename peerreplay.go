package gravbus

import (
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/route"
	"github.com/gravbus/gravbus/internal/wire"
)

// peerReplays is all replays that pods get from peers. It is guarded by meshed.mu.
type peerReplays struct {
	last  uint64             // ID of the latest
	asked map[uint64]*asking // by ID, as long as both pod and peer are there
	of    map[*Pod]*replaying
}

// asking is one replay that a pod gets from one peer.
type asking struct {
	to   *replaying
	peer *peer
	over bool
}

// replaying is what a pod with replay gets from peers: once from each that it meets.
//
// Invariant: what the pod gets live from a peer begins right after what the replay ended with.
// Until that is known, everything live is in the replay, as the peer took that later. What was on
// its way here when the replay ended has a place in this node's buffer up to then; what the peer
// sends later, and has in the replay already, it names.
type replaying struct {
	pod *Pod

	mu      sync.Mutex           // guards all below
	met     map[string]bool      // UUIDs of the peers that were asked
	upTo    map[uint64]uint64    // by the number of the peer's pod: live messages up to this place in the buffer are in the replay
	covered map[uuid.UUID]uint64 // messages that are in the replay too, by the number of the peer's pod
}

// newReplaying returns nil if nothing can come from peers.
func (x *meshed) newReplaying(p *Pod) *replaying {
	if x == nil || x.bus.buffer == nil {
		return nil
	}
	return &replaying{pod: p, met: map[string]bool{}, upTo: map[uint64]uint64{}, covered: map[uuid.UUID]uint64{}}
}

// asked reports whether what the peer has is replayed by itself. A nil r has asked nobody.
func (r *replaying) asked(from uint64) bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, asked := r.upTo[from]
	return asked
}

// has reports whether the pod gets, or got, the live message it by the replay.
func (r *replaying) has(it *item) bool {
	if !isPeer(it.From) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if upTo, asked := r.upTo[it.From]; asked && it.Seq <= upTo {
		return true
	}
	if id := messageID(it.Val); len(r.covered) > 0 && r.covered[id] == it.From {
		delete(r.covered, id)
		return true
	}
	return false
}

// beginReplay asks all peers that are connected. Those that come later are asked then.
func (x *meshed) beginReplay(p *Pod, h *handler) {
	if h.replay == nil {
		return
	}
	x.mu.Lock()
	x.replays.of[p] = h.replay
	x.mu.Unlock()
	for _, to := range x.list() {
		if to.link.State() == mesh.Ready {
			x.askReplay(h.replay, to)
		}
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
			delete(x.replays.asked, id)
		}
	}
}

// askReplay asks a peer, if it was not asked before.
func (x *meshed) askReplay(r *replaying, to *peer) {
	i, c := r.pod.interest(), r.pod.cfg.replay
	ask := wire.Replay{
		Allow: i.Allow, Deny: i.Deny, Types: c.types,
		Last: uint64(c.last), Since: wire.NoTime, After: c.after,
	}
	if !c.since.IsZero() {
		ask.Since = c.since.UnixNano()
	}
	r.mu.Lock()
	if r.met[to.uuid] {
		r.mu.Unlock()
		return
	}
	r.met[to.uuid] = true
	r.upTo[to.pod.id] = math.MaxUint64
	r.mu.Unlock()
	x.mu.Lock()
	x.replays.last++
	ask.ID = x.replays.last
	x.replays.asked[ask.ID] = &asking{to: r, peer: to}
	asked := to.link.AskReplay(ask) // under the lock, so that IDs rise
	if !asked {
		delete(x.replays.asked, ask.ID)
	}
	x.mu.Unlock()
	if !asked { // it has just lost its connection: it is asked when it is back
		r.mu.Lock()
		delete(r.met, to.uuid)
		delete(r.upTo, to.pod.id)
		r.mu.Unlock()
	}
}

func (x *meshed) asking(id uint64) *asking {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.replays.asked[id]
}

// replayed gives a pod a message of the replay that it asked for.
func (x *meshed) replayed(from *peer, id uint64, m *message) {
	a := x.asking(id)
	if a == nil || a.peer != from || a.over {
		return
	}
	p := a.to.pod
	if p.interest().Match(m.typ) && (x.imports == nil || x.imports.Match(m.typ)) {
		p.reader.Forward(&item{Val: m})
	}
}

// replayEnded makes what comes live from the peer count from now on.
func (x *meshed) replayEnded(from *peer, id uint64) {
	a := x.asking(id)
	if a == nil || a.peer != from || a.over {
		return
	}
	a.over = true
	latest := x.bus.buffer.pushed()
	a.to.mu.Lock()
	a.to.upTo[from.pod.id] = latest
	a.to.mu.Unlock()
}

// cover notes that some pods have a message, which is about to come live, by their replays.
func (x *meshed) cover(from *peer, ids []uint64, m *message) {
	for _, id := range ids {
		if a := x.asking(id); a != nil && a.peer == from {
			a.to.mu.Lock()
			a.to.covered[m.receipt.id] = from.pod.id
			a.to.mu.Unlock()
		}
	}
}

// replayLost gives pods that waited for a peer's replay what of it is here.
func (x *meshed) replayLost(from *peer) {
	x.mu.Lock()
	var waiting []*asking
	for id, a := range x.replays.asked {
		if a.peer == from {
			delete(x.replays.asked, id)
			if !a.over {
				waiting = append(waiting, a)
			}
		}
	}
	x.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	all, latest := x.bus.buffer.snapshot()
	for _, a := range waiting {
		p := a.to.pod
		wanted := p.interest()
		for _, s := range all {
			if s.from == from.pod.id && wanted.Match(s.msg.Type()) {
				p.reader.Forward(&item{Val: s.msg})
			}
		}
		a.to.mu.Lock()
		a.to.upTo[from.pod.id] = latest
		a.to.mu.Unlock()
	}
}

// Replay answers a peer's request: what pods of this node have sent, as far as the buffer goes.
func (x *meshed) Replay(_ *mesh.Link[Message], r *wire.Replay) (items []Message, latest uint64) {
	all, latest := x.bus.buffer.snapshot()
	if r.After != "" {
		all, _ = after(all, r.After)
	}
	wanted := route.Interest{Allow: validPatterns(r.Allow), Deny: validPatterns(r.Deny)}
	types := route.Interest{Allow: validPatterns(r.Types)}
	since := time.Unix(0, r.Since)
	for _, s := range all {
		typ := s.msg.Type()
		switch {
		case isPeer(s.from), !wanted.Match(typ), len(r.Types) > 0 && !types.Match(typ):
		case x.exports != nil && !x.exports.Match(typ):
		case r.Since != wire.NoTime && s.msg.Timestamp().Before(since):
		default:
			items = append(items, s.msg)
		}
	}
	if n := uint64(len(items)); r.Last > 0 && n > r.Last {
		items = items[n-r.Last:]
	}
	return items, latest
}
