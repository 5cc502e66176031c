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
	unacked := l.out.all()
	pending := l.pending
	l.out, l.cost, l.pending, l.pendingCost = ring[T]{}, 0, nil, 0
	l.epoch++
	l.mu.Unlock()

	var lost []T
	gap := Gap{}
	l.ready.Store(false)
	rem := r.Remove()
	for _, it := range unacked {
		lost = it.lostTo(lost, &gap, l.node.host)
	}
	for _, it := range append(l.inject, pending...) {
		lost = it.lostTo(lost, &gap, l.node.host)
	}
	for _, it := range append(l.hand, l.aside...) {
		if _, gone := l.node.host.Cost(it.Val); gone == 0 {
			lost = append(lost, it.Val)
		}
	}
	if rem.Lag.Count > 0 {
		gap.add(Gap{rem.Lag.Count, l.node.host.UUID(rem.Lag.From), l.node.host.UUID(rem.Lag.To)})
	}
	for _, it := range rem.Discarded {
		if _, gone := l.node.host.Cost(it.Val); gone == 0 {
			lost = append(lost, it.Val)
		}
	}
	if len(lost) > 0 {
		more := Gap{uint64(len(lost)), l.node.host.UUID(lost[0]), l.node.host.UUID(lost[len(lost)-1])}
		gap.add(more)
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

// lostTo adds to what is lost: a message to lost, a gap to gap.
func (o *outItem[T]) lostTo(lost []T, gap *Gap, h Host[T]) []T {
	switch {
	case o.extra == nil || o.extra.tag == wire.TagMessage && o.extra.replay == 0:
		return append(lost, o.val)
	case o.extra.tag == wire.TagGap:
		gap.add(o.extra.gap)
	}
	return lost
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
