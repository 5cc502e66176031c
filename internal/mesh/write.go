package mesh

import (
	"time"

	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/wire"
)

// write writes packets until the connection ends, and waits while there is nothing to say. What is
// said beside the stream comes first in every packet; what is there of the stream then fills it. It
// has no deadline: on a slow link the system may take long to have room, and whether the peer is
// there is for the reader to find out.
func (c *conn[T]) write() error {
	l, n := c.link, c.link.node
	every := n.cfg.DeadAfter / 3
	timer := time.NewTimer(every)
	defer timer.Stop()
	armed := true // timer runs until the next ping is due
	for {         // the first packet has a ping: so the round trip is known early
		c.buf = c.buf[:0]
		now := time.Now()
		if now.Sub(c.pinged) >= every {
			c.pinged = now
			armed = false
			c.buf = wire.AppendPing(c.buf, uint64(n.sinceStart()))
		}
		c.appendControl()
		c.appendStream()
		if len(c.buf) == 0 {
			if !armed {
				timer.Reset(every - now.Sub(c.pinged))
				armed = true
			}
			select {
			case <-l.wake:
			case <-timer.C:
				armed = false
				c.buf = nil // an idle link needs no buffers
				l.trim()
			case <-c.stop:
				return nil
			}
			continue
		}
		select {
		case <-c.stop: // and there is little time for the goodbye
			return nil
		default:
		}
		if err := c.c.WriteFrame(c.buf); err != nil {
			return err
		}
		l.count.bytesOut.Add(uint64(len(c.buf)))
		if cap(c.buf) > maxIdleBuffer {
			c.buf = nil
		}
	}
}

// trim lets go of memory that an idle link does not need.
func (l *Link[T]) trim() {
	l.mu.Lock()
	l.spare = nil
	if l.out.n == 0 {
		l.out = ring[T]{}
	}
	r := l.reader
	l.mu.Unlock()
	if r != nil {
		r.Trim()
	}
}

// appendControl appends what is to be said beside the stream.
func (c *conn[T]) appendControl() {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	k := &l.control
	if k.ack || l.delivered > l.ackSaid {
		k.ack = false
		l.ackSaid, l.ackCost = l.delivered, 0
		c.buf = wire.AppendAck(c.buf, l.delivered)
	}
	for _, token := range k.pongs {
		c.buf = wire.AppendPong(c.buf, token)
	}
	k.pongs = k.pongs[:0]
	c.appendInterest()
	for ; k.full == nil && len(k.dirty) == 0 && k.asked < len(k.asks) && len(c.buf) < packetSize/2; k.asked++ {
		c.buf = wire.AppendReplay(c.buf, &k.asks[k.asked])
	}
	if len(k.peers) > 0 && len(c.buf) < packetSize/2 {
		some := k.peers[:min(len(k.peers), 32)]
		c.buf = wire.AppendPeers(c.buf, &wire.Peers{Nodes: some})
		k.peers = k.peers[len(some):]
	}
	if k.withdraw {
		k.withdraw = false
		c.buf = wire.AppendWithdraw(c.buf)
	}
	idle := l.idleLocked()
	if idle && !l.idle && l.node.leaving.Load() {
		defer l.node.changed()
	}
	l.idle = idle
	if k.bye && !k.byeSent && idle {
		k.byeSent = true
		c.buf = wire.AppendBye(c.buf, &wire.Bye{Code: wire.CodeLeaving})
	}
}

// appendInterest appends what this node wants: all of it on a new connection, then changes.
func (c *conn[T]) appendInterest() {
	k := &c.link.control
	if k.full != nil {
		for k.fullNext < len(k.full) && len(c.buf) < packetSize/2 {
			c.buf = wire.AppendInterest(c.buf, &wire.Interest{
				Reset:   k.fullNext == 0,
				Done:    k.fullNext == len(k.full)-1,
				Entries: k.full[k.fullNext],
			})
			k.fullNext++
		}
		if k.fullNext < len(k.full) {
			return
		}
		k.full = nil
	}
	for len(k.dirty) > 0 && len(c.buf) < packetSize/2 {
		var f wire.Interest
		size := 0
		for key, e := range k.dirty {
			f.Entries = append(f.Entries, e)
			delete(k.dirty, key)
			if size += entrySize(&e); size > chunkSize || len(f.Entries) == chunkEntries {
				break
			}
		}
		c.buf = wire.AppendInterest(c.buf, &f)
	}
}

// idleLocked reports whether all that was sent to the peer has been acknowledged, and nothing waits
// to be sent.
func (l *Link[T]) idleLocked() bool {
	return l.out.n == 0 && !l.ready.Load() && len(l.hand)+len(l.aside)+len(l.inject)+len(l.pending)+len(l.answers)+len(l.control.replays) == 0
}

// appendStream fills the packet with items of the stream: those to be sent again, and new ones as
// far as the peer's window reaches.
func (c *conn[T]) appendStream() {
	l := c.link
	l.mu.Lock()
	next := l.next
	c.send = max(c.send, l.acked+1)
	first := c.send
	c.scratch = c.scratch[:0]
	for seq := c.send; seq < next && len(c.scratch) < mailbox.MaxBatch; seq++ {
		c.scratch = append(c.scratch, *l.out.at(int(seq - l.acked - 1)))
	}
	room := c.roomLocked()
	acked := l.acked
	l.mu.Unlock()
	defer func() {
		if room.denied {
			l.starve(acked)
		}
	}()

	again := len(c.scratch)
	open := false
	for i := 0; ; i++ {
		var it outItem[T]
		if i < again {
			it = c.scratch[i]
		} else if first+uint64(i) < next { // more to be sent again, in the next packet
			break
		} else if next, ok := c.next(&room); ok {
			it = next
		} else {
			break
		}
		if open && len(c.buf)+int(it.cost) > packetSize {
			if i >= again {
				c.putBack(it)
			}
			break
		}
		if !open {
			open = true
			c.buf = c.batch.Begin(c.buf, first)
		}
		if !c.appendItem(&it) {
			id := l.node.host.UUID(it.val)
			it = outItem[T]{cost: it.cost, extra: &extra{tag: wire.TagGap, gap: Gap{1, id, id}}}
			c.appendItem(&it)
			if i >= again {
				l.goneWithout(it.extra.gap)
			}
		}
		if i >= again {
			c.scratch = append(c.scratch, it)
		}
		c.send++
	}
	if !open {
		return
	}
	c.buf = c.batch.End(c.buf)
	if fresh := c.scratch[again:]; len(fresh) > 0 {
		messages := uint64(0)
		l.mu.Lock()
		for i := range fresh {
			l.out.push(fresh[i])
			l.cost += fresh[i].cost
			if x := fresh[i].extra; x == nil || x.tag == wire.TagMessage {
				messages++
			}
		}
		l.next += uint64(len(fresh))
		l.mu.Unlock()
		l.count.sent.Add(messages)
	}
	clear(c.scratch)
}

// room is how much of the peer's window is free.
type room struct {
	count, cost uint64
	any         bool // nothing is under way: one item is allowed, whatever its cost
	denied      bool // something had to wait
}

func (c *conn[T]) roomLocked() (r room) {
	l := c.link
	if n := uint64(l.out.n); n < c.peer.WindowCount {
		r.count = c.peer.WindowCount - n
	}
	if l.cost < c.peer.WindowCost {
		r.cost = c.peer.WindowCost - l.cost
	}
	r.any = l.out.n == 0
	return r
}

func (r *room) take(cost uint64) bool {
	if r.any || r.count > 0 && r.cost >= cost {
		r.any = false
		r.count -= min(r.count, 1)
		r.cost -= min(r.cost, cost)
		return true
	}
	r.denied = true
	return false
}

// starve makes the next acknowledgement wake the writer, unless there has been one since the window
// was looked at.
func (l *Link[T]) starve(acked uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acked == acked {
		l.starved = true
	} else {
		l.signal()
	}
}

// next returns the next new item, if the window has room for it.
func (c *conn[T]) next(r *room) (outItem[T], bool) {
	l := c.link
	if len(l.inject) == 0 && len(l.hand) == 0 {
		if r.count == 0 && !r.any {
			r.denied = true
			return outItem[T]{}, false
		}
		c.fetch()
	}
	if len(l.inject) > 0 {
		it := l.inject[0]
		if !r.take(it.cost) {
			return it, false
		}
		l.inject[0] = outItem[T]{}
		if l.inject = l.inject[1:]; len(l.inject) == 0 {
			l.inject = nil
		}
		return it, true
	}
	if len(l.hand) > 0 {
		h := &l.hand[0]
		cost, gone := l.node.host.Cost(h.Val)
		it := outItem[T]{val: h.Val, cost: cost}
		if gone != 0 {
			it.extra = &extra{tag: wire.TagGone, id: gone}
		} else if h.Seq <= l.coverTop && h.Seq != 0 {
			if it.extra = l.covered(h.Seq, h.Val); it.extra != nil {
				it.cost += uint64(8 * len(it.extra.covered))
			}
		}
		if !r.take(it.cost) {
			return outItem[T]{}, false
		}
		*h = mailbox.Item[T]{}
		l.hand = l.hand[1:]
		return it, true
	}
	return outItem[T]{}, false
}

// putBack undoes next.
func (c *conn[T]) putBack(it outItem[T]) {
	c.link.inject = append([]outItem[T]{it}, c.link.inject...)
}

// fetch gets new items: the answer to a replay, or what the reader has.
func (c *conn[T]) fetch() {
	l := c.link
	l.mu.Lock()
	l.inject, l.pending, l.pendingCost = l.pending, nil, 0
	var ask *wire.Replay
	if len(l.answers)+len(l.aside) == 0 && len(l.control.replays) > 0 {
		first := l.control.replays[0]
		ask = &first
		if l.control.replays = l.control.replays[1:]; len(l.control.replays) == 0 {
			l.control.replays, l.control.replaySize = nil, 0
		}
	}
	reader := l.reader
	l.mu.Unlock()
	if ask != nil {
		l.prepare(ask)
	}
	if len(l.inject) > 0 || reader == nil {
		return
	}
	if len(l.answers) == 0 && len(l.aside) > 0 {
		l.hand, l.aside = l.aside, nil
		return
	}
	if l.ready.Load() && !l.answerDue() {
		c.claim(reader)
	}
	if len(l.inject)+len(l.hand) == 0 && l.answerDue() {
		l.sendAnswer()
	}
}

// claim takes in hand what the reader has.
func (c *conn[T]) claim(reader *mailbox.Reader[T]) {
	l := c.link
	if cap(l.handBuf) == 0 {
		l.handBuf = make([]mailbox.Item[T], mailbox.MaxBatch)
	}
	l.ready.Store(false) // before the claim: a Wake after it is not lost
	n, lag := reader.Claim(l.handBuf)
	if lag.Count > 0 {
		l.ready.Store(true)
		h := l.node.host
		gap := Gap{lag.Count, h.UUID(lag.From), h.UUID(lag.To)}
		l.inject = append(l.inject, outItem[T]{cost: wire.Cost(0), extra: &extra{tag: wire.TagGap, gap: gap}})
		l.goneWithout(gap)
		return
	}
	if n > 0 {
		l.ready.Store(true)
		l.hand = l.handBuf[:n]
		for i := range l.hand {
			l.claimed = max(l.claimed, l.hand[i].Seq)
		}
		if len(l.answers) > 0 {
			l.setAside(l.answers[0].latest)
		}
	}
}

// goneWithout counts and tells what the peer goes without.
func (l *Link[T]) goneWithout(g Gap) {
	l.count.gaps.Add(1)
	l.count.lost.Add(g.Count)
	l.node.host.Gap(l, g, false)
}

// appendItem appends one item. It returns false for a message that cannot be sent.
func (c *conn[T]) appendItem(it *outItem[T]) bool {
	l := c.link
	x := it.extra
	if x == nil || x.tag == wire.TagMessage {
		m := &c.msg
		*m = wire.Message{}
		if err := l.node.host.Encode(l, it.val, m); err != nil {
			l.node.host.Unsendable(l, it.val, err)
			return false
		}
		if uint64(len(m.Data)) > c.peer.MaxMessage {
			l.node.host.Unsendable(l, it.val, cut(wire.CodeTooLarge, "%d bytes of data, the peer takes %d", len(m.Data), c.peer.MaxMessage))
			return false
		}
		if x != nil {
			if m.Rare != nil {
				c.rare = *m.Rare
			} else {
				c.rare = wire.Rare{}
			}
			c.rare.Replay, c.rare.Covered = x.replay, x.covered
			m.Rare = &c.rare
		}
		c.buf = c.batch.Message(c.buf, m)
		return true
	}
	switch x.tag {
	case wire.TagGap:
		c.buf = c.batch.Gap(c.buf, &wire.Gap{Count: x.gap.Count, From: x.gap.From, To: x.gap.To})
	case wire.TagReplayEnd:
		c.buf = c.batch.ReplayEnd(c.buf, x.id)
	case wire.TagTargets:
		c.buf = c.batch.Targets(c.buf, x.targets)
	case wire.TagGone:
		c.buf = c.batch.Gone(c.buf, x.id)
	}
	return true
}
