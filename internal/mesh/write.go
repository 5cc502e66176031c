package mesh

import (
	"math"
	"time"

	"github.com/gravbus/gravbus/internal/gid"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/wire"
)

// write writes packets until the connection ends, and waits while there is nothing to say. What is
// said beside the stream comes first in every packet; what is there of the stream then fills it. It
// has no deadline: on a slow link the system may take long to have room, and whether the peer is
// there is for the reader to find out.
func (c *conn[T]) write() error {
	l, n := c.link, c.link.node
	c.writer = gid.Current()
	l.writes.Store(c)
	every := n.cfg.DeadAfter / 3
	timer := time.NewTimer(every)
	defer timer.Stop()
	armed := true // timer runs until the next ping is due
	for {         // the first packet has a ping: so the round trip is known early
		c.buf = c.buf[:0]
		now := time.Now()
		if c.ask || now.Sub(c.pinged) >= every {
			armed = false
			c.appendPing(now)
		}
		c.appendControl()
		c.appendStream(packetSize)
		if len(c.buf) == 0 {
			if !armed {
				timer.Reset(every - now.Sub(c.pinged))
				armed = true
			}
			idle, stop := false, false
			c.pen <- struct{}{}
			select {
			case <-l.wake:
			case <-timer.C:
				armed = false
				idle = true
			case <-c.stop:
				stop = true
			}
			select {
			case <-c.pen:
			default:
				c.wantPen()
			}
			switch {
			case c.writeErr != nil:
				return c.writeErr
			case stop:
				return nil
			case idle:
				c.buf = nil // an idle link needs no buffers
				l.trim()
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
		c.wrote()
		if cap(c.buf) > maxIdleBuffer {
			c.buf = nil
		}
	}
}

// appendPing appends a ping. No two have the same token: its pong tells that the peer has read what was
// written before it.
func (c *conn[T]) appendPing(now time.Time) {
	c.pinged, c.ask = now, false
	c.token = max(uint64(c.link.node.sinceStart()), c.token+1)
	c.before = c.written
	c.buf = wire.AppendPing(c.buf, c.token)
}

// wrote counts a packet that has been written.
func (c *conn[T]) wrote() {
	c.link.count.bytesOut.Add(uint64(len(c.buf)))
	c.written += uint64(len(c.buf)) + frameCost
}

// frameCost is what a packet counts beside its bytes, for what transports put around it.
const frameCost = 64

// trim lets go of memory that an idle link does not need.
func (l *Link[T]) trim() {
	l.mu.Lock()
	l.spare = nil
	if l.unackedLocked() == 0 {
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
	for k.full == nil && len(k.dirty) == 0 && k.mayAsk() && len(c.buf) < packetSize/2 {
		c.buf = wire.AppendReplay(c.buf, k.nextAsk())
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
	rests := idle && !l.idle && l.node.leaving.Load() // somebody waits for that
	l.idle = idle
	if k.bye && !k.byeSent && idle {
		k.byeSent = true
		c.buf = wire.AppendBye(c.buf, &wire.Bye{Code: wire.CodeLeaving})
	}
	l.mu.Unlock()
	if rests {
		l.node.changed()
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
	return l.unackedLocked() == 0 && !l.ready.Load() && len(l.hand)+len(l.aside)+len(l.inject)+len(l.pending)+len(l.answers)+len(l.control.replays) == 0
}

// appendStream fills the packet, up to limit, with items of the stream: those to be sent again, and
// new ones as far as the peer's window reaches.
func (c *conn[T]) appendStream(limit int) {
	l := c.link
	l.mu.Lock()
	acked, next := l.acked, l.next
	c.send = max(c.send, acked+1)
	room := c.roomLocked()
	if c.send < next {
		for seq := c.send; seq < next && len(c.scratch) < mailbox.MaxBatch; seq++ {
			c.scratch = append(c.scratch, *l.out.at(seq))
		}
	}
	l.mu.Unlock()
	if limit < packetSize { // nothing larger goes in such a packet
		room.any, room.cost = false, min(room.cost, uint64(limit))
	}
	open := c.send < next
	if open {
		c.appendAgain(limit)
	}
	if c.send == next {
		open = c.appendNew(limit, acked, &room, open)
	}
	if open {
		c.buf = c.batch.End(c.buf)
	}
	if room.denied {
		l.starve(acked)
	}
}

// appendAgain begins a batch with the items in scratch.
func (c *conn[T]) appendAgain(limit int) {
	c.buf = c.batch.Begin(c.buf, c.send)
	for i := range c.scratch {
		it := &c.scratch[i]
		if i > 0 && len(c.buf)+int(it.cost) > limit {
			break
		}
		if !c.appendItem(it) {
			it.instead(c.link.node.host.UUID(it.val))
			c.appendItem(it)
		}
		c.send++
	}
	clear(c.scratch)
	c.scratch = c.scratch[:0]
}

// instead makes of an item that cannot be sent what the peer is told of it.
func (o *outItem[T]) instead(id wire.ID) {
	*o = outItem[T]{cost: o.cost, extra: &extra{tag: wire.TagGap, gap: Gap{1, id, id}}}
}

// appendNew appends new items, for which the ring is the place from the beginning: the writer writes
// the slots past next, where nobody else looks, and moves next when the packet is full. It reports
// whether there is a batch.
func (c *conn[T]) appendNew(limit int, acked uint64, room *room, open bool) bool {
	l := c.link
	first := c.send
	messages, cost := uint64(0), uint64(0)
	for {
		if c.send-acked > uint64(len(l.out.slots)) { // acked may be more by now, and was no less
			l.mu.Lock()
			l.out.grow(l.acked+1, c.send)
			l.mu.Unlock()
		}
		it := l.out.at(c.send)
		free := uint64(math.MaxUint64) // one item may be of any size
		if open {
			free = uint64(max(limit-len(c.buf), 0))
		}
		if !c.next(room, free, it) {
			break
		}
		if !open {
			open = true
			c.buf = c.batch.Begin(c.buf, c.send)
		}
		if !c.appendItem(it) {
			it.instead(l.node.host.UUID(it.val))
			c.appendItem(it)
			l.goneWithout(it.extra.gap)
		}
		cost += it.cost
		if x := it.extra; x == nil || x.tag == wire.TagMessage {
			messages++
		}
		c.send++
	}
	if c.send > first {
		l.mu.Lock()
		l.next = c.send
		l.cost += cost
		l.mu.Unlock()
		l.count.sent.Add(messages)
	}
	return open
}

// room is how much of the peer's window is free.
type room struct {
	count, cost uint64
	any         bool // nothing is under way: one item is allowed, whatever its cost
	denied      bool // something had to wait
}

func (c *conn[T]) roomLocked() (r room) {
	l := c.link
	n := l.unackedLocked()
	if n < c.peer.WindowCount {
		r.count = c.peer.WindowCount - n
	}
	if l.cost < c.peer.WindowCost {
		r.cost = c.peer.WindowCost - l.cost
	}
	r.any = n == 0
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

// next sets it to the next new item, if there is one, it costs no more than is free in the packet, and
// the window has room for it.
func (c *conn[T]) next(r *room, free uint64, it *outItem[T]) bool {
	l := c.link
	if len(l.inject) == 0 && len(l.hand) == 0 {
		if r.count == 0 && !r.any {
			r.denied = true
			return false
		}
		c.fetch()
	}
	switch {
	case len(l.inject) > 0:
		first := &l.inject[0]
		if first.cost > free || !r.take(first.cost) {
			return false
		}
		*it, *first = *first, outItem[T]{}
		if l.inject = l.inject[1:]; len(l.inject) == 0 {
			l.inject = nil
		}
		return true
	case len(l.hand) > 0:
		h := &l.hand[0]
		cost, gone := l.node.host.Cost(h.Val)
		var x *extra
		if gone != 0 {
			x = &extra{tag: wire.TagGone, id: gone}
		} else if h.Seq <= l.coverTop && h.Seq != 0 {
			if x = l.covered(h.Seq, h.Val); x != nil {
				cost += uint64(8 * len(x.covered))
			}
		}
		if cost > free || !r.take(cost) {
			return false
		}
		it.val, it.cost, it.extra = h.Val, cost, x
		*h = mailbox.Item[T]{}
		l.hand = l.hand[1:]
		return true
	}
	return false
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
		l.control.replaySize -= askSize(ask)
		if l.control.replays = l.control.replays[1:]; len(l.control.replays) == 0 {
			l.control.replays = nil
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
	items, lag := reader.ClaimAs(c.writer, l.handBuf)
	if lag.Count > 0 {
		l.ready.Store(true)
		h := l.node.host
		l.injectGap(Gap{lag.Count, h.UUID(lag.From), h.UUID(lag.To)})
		return
	}
	if len(items) > 0 {
		l.ready.Store(true)
		l.hand = items // in handBuf: the reader has a queue of its own
		for i := range l.hand {
			l.claimed = max(l.claimed, l.hand[i].Seq)
		}
		if len(l.answers) > 0 {
			l.setAside(l.answers[0].latest)
		}
	}
}

// injectGap puts the news of what the peer goes without before all else.
func (l *Link[T]) injectGap(g Gap) {
	l.inject = append(l.inject, outItem[T]{cost: wire.Cost(0), extra: &extra{tag: wire.TagGap, gap: g}})
	l.goneWithout(g)
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
