package mesh

import (
	"errors"
	"runtime"
	"time"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// read reads packets until the connection ends, or another goroutine does so in its place. It never
// waits for anything else: what cannot be delivered at once goes to the inbox, and for what it lends
// itself to see lend.
func (c *conn[T]) read() {
	err := c.expect()
	for err == nil {
		err = c.readPacket()
		woken := c.woken
		c.woken = nil
		switch {
		case woken == nil:
		case err != nil:
			woken.Wake()
		case !c.lend(woken):
			return
		}
	}
	c.fail(err)
	c.loan.timer.Stop()
	c.end()
	c.link.node.wg.Done()
}

// expect sets how long the connection may be silent. The deadline was for the handshake. From here on
// the connection is dead when nothing comes for DeadAfter; a packet may take longer.
func (c *conn[T]) expect() error {
	return errors.Join(c.c.SetReadIdle(c.link.node.cfg.DeadAfter), c.c.SetReadDeadline(time.Time{}))
}

func (c *conn[T]) readPacket() error {
	packet, err := c.c.ReadFrame(c.packet)
	if err != nil {
		return err
	}
	if !c.spoken.Load() {
		c.confirmed()
	}
	if c.slow {
		c.slow = false
		c.unsaid++
	}
	c.link.count.bytesIn.Add(uint64(len(packet)))
	for rest := packet; len(rest) > 0; {
		var kind wire.Kind
		var body []byte
		if kind, body, rest, err = wire.Next(rest); err != nil {
			return err
		}
		if kind == wire.KindBatch {
			err = c.readBatch(body, len(packet) <= lendSize)
		} else {
			err = c.readControl(kind, body)
		}
		if err != nil {
			return err
		}
	}
	if len(packet) >= packetSize/2 {
		runtime.Gosched() // there may be more at once, and those it is for are to keep pace
	}
	if c.packet = packet; cap(packet) > maxIdleBuffer || cap(packet) > smallBuffer && len(packet) < smallBuffer/8 {
		c.packet = nil
	}
	return nil
}

// maxIdleBuffer is how much memory a connection keeps for the next packet.
// When only little comes, as on an idle link, it keeps smallBuffer.
const (
	maxIdleBuffer = 2 * packetSize
	smallBuffer   = 4 << 10
)

// confirmed is called when the peer speaks for the first time after the handshake.
func (c *conn[T]) confirmed() {
	c.spoken.Store(true)
	l := c.link
	l.mu.Lock()
	if c.choice == l.choice {
		l.deciding = false
	}
	l.mu.Unlock()
}

func (c *conn[T]) readControl(kind wire.Kind, body []byte) error {
	l := c.link
	switch kind {
	case wire.KindAck:
		seq, err := wire.DecodeAck(body)
		if err != nil {
			return err
		}
		return c.acknowledged(seq)
	case wire.KindPing:
		token, err := wire.DecodePing(body)
		if err != nil {
			return err
		}
		l.pong(token)
	case wire.KindPong:
		token, err := wire.DecodePong(body)
		if err != nil {
			return err
		}
		c.ponged.Store(token)
		if rtt := l.node.sinceStart() - time.Duration(token); rtt >= 0 && rtt < time.Hour {
			l.count.rtt.Store(int64(rtt))
		}
	case wire.KindInterest:
		f, err := wire.DecodeInterest(body)
		if err != nil {
			return err
		}
		return l.interested(&f)
	case wire.KindReplay:
		f, err := wire.DecodeReplay(body)
		if err != nil {
			return err
		}
		return l.replayAsked(&f)
	case wire.KindPeers:
		f, err := wire.DecodePeers(body)
		if err != nil {
			return err
		}
		l.node.told(f.Nodes)
	case wire.KindWithdraw:
		l.withdrawn()
	case wire.KindBye, wire.KindRefuse: // a Refuse may have crossed this side's Use
		f, err := wire.DecodeRefuse(body)
		if err != nil {
			return err
		}
		return l.goodbye(&f)
	case wire.KindHello, wire.KindProof, wire.KindWelcome, wire.KindUse:
		return protocolError("%s after the handshake", kind)
	}
	return nil // a later version's: passed over
}

// readBatch puts the items of a batch into the inbox, or delivers them at once if nothing waits
// there.
func (c *conn[T]) readBatch(body []byte, lend bool) error {
	l := c.link
	first, err := c.items.Begin(body)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if l.fresh {
		l.fresh = false
		l.received, l.delivered, l.ackSaid = first-1, first-1, first-1
	}
	received, stream := l.received, l.inStream
	l.mu.Unlock()
	if first > received+1 {
		return cut(wire.CodeSequence, "item %d came after %d", first, received)
	}
	delivered, cost := uint64(0), uint64(0) // of what was delivered here
	messages := uint64(0)
	note := func() {
		l.mu.Lock()
		l.received = received
		if delivered > 0 {
			l.deliveredLocked(delivered, cost)
		}
		l.mu.Unlock()
	}
	defer func() {
		note()
		l.count.received.Add(messages)
	}()
	it := &c.item
	var in Inbound[T]
	for {
		ok, err := c.items.Next(it)
		if !ok {
			return err
		}
		if it.Seq <= received { // sent again, and here already
			continue
		}
		if err := l.inbound(it, &in); err != nil {
			return err
		}
		if in.Tag == wire.TagMessage {
			messages++
		}
		in.seq, in.Stream, in.Lend = it.Seq, stream, lend
		if !l.waiting.Load() {
			done := l.deliver(&in, false)
			if in.Woken != nil {
				lend = c.wake(in.Woken)
				in.Woken = nil
			}
			if done {
				received, delivered, cost = it.Seq, it.Seq, cost+in.cost
				continue
			}
			note() // before somebody else delivers
			delivered, cost = 0, 0
		}
		in.Lend = false // whoever delivers it
		if err := l.leave(&in); err != nil {
			return err
		}
		received = it.Seq
	}
}

// inbound makes an Inbound of an item.
func (l *Link[T]) inbound(it *wire.Item, in *Inbound[T]) error {
	*in = Inbound[T]{Tag: it.Tag, cost: wire.Cost(0)}
	switch {
	case it.Tag < wire.TagGap:
		if len(it.Message.Data) > l.node.cfg.MaxMessage {
			return cut(wire.CodeTooLarge, "%d bytes of data, at most %d are allowed", len(it.Message.Data), l.node.cfg.MaxMessage)
		}
		v, err := l.node.host.Decode(l, &it.Message)
		if err != nil {
			return &handshake.Error{Code: wire.CodeProtocol, Reason: err.Error(), Err: err}
		}
		in.Val = v
		in.Tag = wire.TagMessage
		in.Flags = it.Message.Flags
		in.cost = wire.Cost(len(it.Message.Data)) + rareCost(it.Message.Rare)
		if it.Message.Rare != nil {
			rare := *it.Message.Rare
			in.Rare = &rare
		}
	case it.Tag == wire.TagGap:
		in.Extra = Gap{it.Gap.Count, it.Gap.From, it.Gap.To}
	case it.Tag == wire.TagReplayEnd:
		in.Extra = it.ReplayEnd
		l.answered(it.ReplayEnd)
	case it.Tag == wire.TagTargets:
		in.Extra = it.Targets
		in.cost = targetsCost(&it.Targets)
	case it.Tag == wire.TagGone:
		in.Extra = it.Gone
	}
	return nil
}

// rareCost is what the rare fields of a message count.
func rareCost(r *wire.Rare) uint64 {
	if r == nil {
		return 0
	}
	n := len(r.Parent) + len(r.Name) + len(r.ReplyTo) + 8*len(r.Covered)
	for _, g := range r.Groups {
		n += len(g) + 16
	}
	return uint64(n)
}

// acknowledged lets go of what the peer has. If it has nothing new, the peer says that it goes on.
func (c *conn[T]) acknowledged(seq uint64) error {
	l := c.link
	c.unsaid = 0
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq >= l.next {
		return cut(wire.CodeSequence, "item %d is acknowledged, and %d were sent", seq, l.next-1)
	}
	news := l.acked < seq
	for l.acked < seq {
		l.acked++
		it := l.out.at(l.acked)
		l.cost -= it.cost
		*it = outItem[T]{}
	}
	if l.starved || l.control.bye || l.node.leaving.Load() {
		l.starved = false
		l.signal()
	}
	c.peerGoesOnLocked(news)
	return nil
}

// peerGoesOnLocked lets senders that wait see that the peer goes on, however slowly. It is believed for
// staysFor without news, which are items that it has taken.
func (c *conn[T]) peerGoesOnLocked(news bool) {
	l := c.link
	if news {
		c.stays = time.Time{}
	}
	if l.reader == nil || l.reader.Watched() == 0 {
		return
	}
	if !news {
		now := time.Now()
		if c.stays.IsZero() {
			c.stays = now
		}
		if now.Sub(c.stays) >= staysFor {
			return
		}
	}
	l.reader.Progress()
}

// staysFor is for how long a peer may say that it goes on and take nothing.
const staysFor = 10 * time.Minute

// arriving is called while a packet is on its way here. The peer is told that it is: its senders may
// wait for what is in there to be acknowledged. Senders here are told if the peer's own word that it
// goes on may be behind this packet, see unsaidFor.
func (c *conn[T]) arriving() {
	now := time.Now()
	if now.Sub(c.heard) < arrivingEvery {
		return
	}
	c.heard, c.slow = now, true
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	l.goesOnLocked()
	if l.unackedLocked() == 0 {
		c.unsaid = 0
	}
	if c.unsaid <= unsaidFor {
		c.peerGoesOnLocked(false)
	}
}

// arrivingEvery is how often arriving says something. After more than unsaidFor packets that took so
// long, and had no acknowledgement though there was something to acknowledge, the peer does not go on
// for those that come: the first was under way already, the second was next when it knew of nothing
// yet.
const (
	arrivingEvery = 200 * time.Millisecond
	unsaidFor     = 2
)

// pong sees to the answer to a ping. Of several that wait for it the last one has it: a packet that
// goes out slowly must not hold up a row of them.
func (l *Link[T]) pong(token uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.control.pongs = append(l.control.pongs[:0], token)
	l.signal()
}

// withdrawn is told that the peer is about to leave: it wants nothing new.
func (l *Link[T]) withdrawn() {
	l.mu.Lock()
	var remove []wire.Entry
	for _, e := range l.wanted {
		remove = append(remove, e)
	}
	l.wanted, l.wantSize = nil, 0
	l.left = true
	l.control.bye = true
	l.mu.Unlock()
	if len(remove) > 0 {
		l.node.host.Interested(l, nil, remove)
	}
	l.node.changed()
	l.signal()
}

// goodbye is told that the peer sends nothing more, or why it ends the connection.
func (l *Link[T]) goodbye(f *wire.Bye) error {
	if f.Code != wire.CodeLeaving {
		return handshake.Remote(f)
	}
	l.mu.Lock()
	l.drained = true
	if !l.node.leaving.Load() {
		l.left = true
	}
	l.mu.Unlock()
	l.node.changed()
	return nil
}
