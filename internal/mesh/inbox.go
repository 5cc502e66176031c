package mesh

import (
	"time"

	"github.com/gravbus/gravbus/internal/wire"
)

// leave leaves an item in the inbox, when others wait there or somebody it is for is full. A
// goroutine of its own delivers then, which ends when the inbox is empty.
//
// Invariant: items are delivered in the order of their numbers, as only one goroutine delivers at a
// time: the reader, while waiting is not set, and else the one that empties the inbox. The reader
// sets waiting; the other one resets it, under mu, when the inbox is empty.
func (l *Link[T]) leave(in *Inbound[T]) error {
	n := l.node
	l.mu.Lock()
	if in.Stream != l.before.stream {
		l.before = former{in.Stream, l.inCount, l.inCost}
	}
	if len(l.inbox) > 0 && l.overLocked(in.cost) {
		l.mu.Unlock()
		return cut(wire.CodeTooMuch, "more than the window of %d items and %d bytes is under way", n.cfg.WindowCount, n.cfg.WindowCost)
	}
	if n := len(l.spare); l.inbox == nil && n > 0 {
		l.inbox, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	l.inbox = append(l.inbox, *in)
	l.inCost += in.cost
	l.inCount++
	start := !l.waiting.Load()
	l.waiting.Store(true)
	l.mu.Unlock()
	if start && !n.running(func() { n.wg.Go(l.empty) }) {
		return ErrClosed
	}
	return nil
}

// former is what is in the inbox of streams before this one. The peer has given it up, and so may use
// all of its window again.
type former struct{ stream, count, cost uint64 }

// overLocked reports whether the peer has more under way than its window. What is left of streams
// before this one may be as much again.
func (l *Link[T]) overLocked(cost uint64) bool {
	most, mostCost := l.node.cfg.WindowCount, l.node.cfg.WindowCost+wire.Cost(l.node.cfg.MaxMessage)
	return l.inCount-l.before.count >= most || l.inCost-l.before.cost+cost > mostCost ||
		l.inCount >= 2*most || l.inCost+cost > 2*mostCost
}

// empty delivers what is in the inbox, waiting for room where it has to.
func (l *Link[T]) empty() {
	for {
		l.mu.Lock()
		items := l.inbox
		l.inbox = nil
		if len(items) == 0 {
			l.waiting.Store(false)
			l.mu.Unlock()
			if l.node.leaving.Load() {
				l.node.changed() // Drained waits for it, as some may come behind the goodbye
			}
			return
		}
		l.mu.Unlock()
		noted, cost := 0, uint64(0) // of items: those before it have left the inbox; what those after it count
		note := func(to int) {
			l.mu.Lock()
			for ; noted < to; noted++ {
				in := &items[noted]
				l.inCost -= in.cost
				l.inCount--
				if in.Stream != l.before.stream {
					l.before.cost -= in.cost
					l.before.count--
				}
				if in.Stream == l.inStream {
					l.deliveredLocked(in.seq, in.cost)
				}
				*in = Inbound[T]{}
			}
			l.mu.Unlock()
			cost = 0
		}
		for i := range items {
			if l.node.ctx.Err() != nil {
				return // the node is closed: what is left was not acknowledged, and counts as the peer's gap
			}
			if !l.deliver(&items[i], false) {
				note(i) // the peer is to know before this one waits
				l.deliver(&items[i], true)
			} else if cost += items[i].cost; i-noted < noteEvery && cost < l.node.cfg.WindowCost/noteEvery {
				continue
			}
			note(i + 1)
		}
		note(len(items))
		l.mu.Lock()
		if len(l.spare) < 2 { // one is filled while the other is emptied
			l.spare = append(l.spare, items[:0])
		}
		l.mu.Unlock()
	}
}

// noteEvery is after how many items that did not have to wait, or after which part of the window, the
// peer is let know.
const noteEvery = 64

// deliver hands an item to the host.
func (l *Link[T]) deliver(in *Inbound[T], block bool) bool {
	if in.Tag == wire.TagGap {
		g := in.Extra.(Gap)
		l.count.gaps.Add(1)
		l.count.lost.Add(g.Count)
		l.node.host.Gap(l, g, true)
		return true
	}
	return l.node.host.Deliver(l, in, block)
}

// ackDelay is how long an acknowledgement waits for something to travel with.
const ackDelay = 25 * time.Millisecond

// deliveredLocked notes that everything up to seq has been delivered, and sees to it that the peer
// hears of it: at once when much of its window waits for that, and otherwise a little later, as
// there may be something to send that it can travel with.
func (l *Link[T]) deliveredLocked(seq, cost uint64) {
	cfg := &l.node.cfg
	l.delivered = seq
	l.ackCost += cost
	switch {
	case l.delivered-l.ackSaid >= cfg.WindowCount/4 || l.ackCost >= cfg.WindowCost/4:
		l.control.ack = true
		l.signal()
	case !l.ackArmed:
		l.ackArmed = true
		l.ackTimer.Reset(ackDelay)
	}
}

// GoesOn tells the peer, by repeating the last acknowledgement, that what its items wait for here
// goes on, however slowly: it is not to count as stalled.
func (l *Link[T]) GoesOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.goesOnLocked()
}

func (l *Link[T]) goesOnLocked() {
	l.control.ack = true
	l.signal()
}

// ackDue is called when nothing has come for an acknowledgement to travel with.
func (l *Link[T]) ackDue() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ackArmed = false
	if l.delivered > l.ackSaid {
		l.control.ack = true
		l.signal()
	}
}
