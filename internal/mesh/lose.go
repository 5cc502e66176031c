package mesh

import (
	"github.com/gravbus/gravbus/internal/wire"
)

// lose gives the link up: what was kept for the peer is discarded, and counted. Should the peer
// come back, the link begins anew; what was received before stays known, so that nothing is
// received twice.
func (l *Link[T]) lose(err error) {
	select {
	case <-l.turn:
	default:
		return // it is coming back
	}
	defer func() { l.turn <- struct{}{} }()
	l.mu.Lock()
	if l.state != Away {
		l.mu.Unlock()
		return
	}
	l.setLocked(Lost)
	r := l.reader
	l.reader = nil
	var unacked []outItem[T]
	for ; l.acked+1 < l.next; l.acked++ {
		unacked = append(unacked, *l.out.at(l.acked + 1))
	}
	pending := l.pending
	// The peer wants nothing since it said that it leaves, and had all from before when this side said
	// that nothing more comes. What was sent since by who had looked up the routes before is no loss.
	over := l.left && l.control.byeSent
	l.out, l.cost, l.pending, l.pendingCost = ring[T]{}, 0, nil, 0
	l.epoch++
	l.mu.Unlock()

	l.ready.Store(false)
	rem := r.Remove()
	gap, h := Gap{}, l.node.host
	for _, it := range unacked { // in the order in which they would have come
		gap.add(it.lost(h))
	}
	for _, it := range append(l.inject, pending...) {
		gap.add(it.lost(h))
	}
	for _, it := range append(l.hand, l.aside...) {
		gap.add(lostMessage(h, it.Val))
	}
	if rem.Lag.Count > 0 {
		gap.add(Gap{rem.Lag.Count, h.UUID(rem.Lag.From), h.UUID(rem.Lag.To)})
	}
	for _, it := range rem.Discarded {
		gap.add(lostMessage(h, it.Val))
	}
	if over {
		gap = Gap{}
	}
	l.answers, l.aside, l.claimed = nil, nil, 0
	l.hand, l.inject, l.covers, l.coverTop, l.coverSize = nil, nil, nil, 0, 0
	if gap.Count > 0 {
		l.count.gaps.Add(1)
		l.count.lost.Add(gap.Count)
	}
	l.mu.Lock()
	left := l.left
	if !left {
		l.missed = gap
	}
	var wanted []wire.Entry
	for _, e := range l.wanted {
		wanted = append(wanted, e)
	}
	l.wanted, l.wantSize = nil, 0
	l.mu.Unlock()
	l.node.interests.forget(l)
	if len(wanted) > 0 {
		l.node.host.Interested(l, nil, wanted)
	}
	l.node.host.Lost(l, err, gap)
	l.node.changed()
	if left {
		l.node.forget(l)
	}
}

// lost returns what is lost with an item. What was replayed was not sent to the peer in the first
// place.
func (o *outItem[T]) lost(h Host[T]) (g Gap) {
	switch {
	case o.extra == nil || o.extra.tag == wire.TagMessage && o.extra.replay == 0:
		return lostMessage(h, o.val)
	case o.extra.tag == wire.TagGap:
		return o.extra.gap
	}
	return g
}

// lostMessage returns what is lost with v: itself, unless it is no message.
func lostMessage[T any](h Host[T], v T) (g Gap) {
	if _, gone := h.Cost(v); gone != 0 {
		return g
	}
	id := h.UUID(v)
	return Gap{1, id, id}
}

func (g *Gap) add(more Gap) {
	if more.Count == 0 {
		return
	}
	if g.Count == 0 {
		g.From = more.From
	}
	g.Count += more.Count
	g.To = more.To
}
