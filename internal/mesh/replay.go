package mesh

import (
	"slices"

	"github.com/gravbus/gravbus/internal/wire"
)

// AskReplay asks the peer for what it has in its buffer. The answer comes as messages with the ID
// as their Rare.Replay, and ends with an item TagReplayEnd. The interest in what comes after has to
// be known to the node before. It reports false if the link is given up: then nothing will come.
func (l *Link[T]) AskReplay(r wire.Replay) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == Lost {
		return false
	}
	l.control.asks = append(l.control.asks, r)
	l.signal()
	return true
}

// answered is told that a replay is complete. Requests are answered in order.
func (l *Link[T]) answered(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := &l.control
	if i := slices.IndexFunc(k.asks, func(r wire.Replay) bool { return r.ID == id }); i >= 0 {
		if i < k.asked {
			k.asked--
			k.askedSize -= askSize(&k.asks[i])
			l.signal() // there may be more to ask
		}
		k.asks = slices.Delete(k.asks, i, i+1)
	}
}

// mayAsk reports whether the next request may be sent: one that waits, if the peer is sure to take it.
func (k *control) mayAsk() bool {
	if k.asked == 0 {
		return len(k.asks) > 0
	}
	return k.asked < min(len(k.asks), maxAsked) && k.askedSize+askSize(&k.asks[k.asked]) <= MaxInterestSize/2
}

// nextAsk returns the next request, which is about to be sent.
func (k *control) nextAsk() *wire.Replay {
	ask := &k.asks[k.asked]
	if k.asked == 0 {
		k.askedSize = 0
	}
	k.askedSize += askSize(ask)
	k.asked++
	return ask
}

// maxAsked is how many requests are sent before the first of them is answered. It leaves room to what
// the peer bounds them by, MaxReplays.
const maxAsked = MaxReplays / 2

// askSize is what a request counts.
func askSize(r *wire.Replay) int {
	return entrySize(&wire.Entry{Allow: r.Allow, Deny: r.Deny}) + entrySize(&wire.Entry{Allow: r.Types}) + len(r.After)
}

// replayAsked takes a request of the peer. The writer answers it.
func (l *Link[T]) replayAsked(r *wire.Replay) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.ID <= l.replayed {
		return nil // asked again after a cut: the answer is in the stream
	}
	size := askSize(r)
	if len(l.control.replays) >= MaxReplays || l.control.replaySize+size > MaxInterestSize {
		return cut(wire.CodeTooMuch, "more than %d replays, or than %d bytes of patterns in them, wait to be answered", MaxReplays, MaxInterestSize)
	}
	l.control.replaySize += size
	l.replayed = r.ID
	l.control.replays = append(l.control.replays, *r)
	l.signal()
	return nil
}

// prepare makes the answer to r. It runs in the writer.
//
// Invariant: what the peer gets live before the answer is not newer than the answer, and what it
// gets after it is. So the answer waits until what it goes up to was claimed and sent, and what was
// claimed along with that and is newer is set aside meanwhile. What comes later still, as its sender
// had to wait, is marked as covered if it is in the answer.
func (l *Link[T]) prepare(r *wire.Replay) {
	a := replayAnswer[T]{ask: *r}
	a.items, a.latest, a.has = l.node.host.Replay(l, r)
	l.answers = append(l.answers, a)
}

// answerDue reports whether the first answer is to be sent now. The writer has nothing in hand.
func (l *Link[T]) answerDue() bool {
	return len(l.answers) > 0 && (l.claimed >= l.answers[0].latest || !l.ready.Load())
}

// setAside keeps what is in hand and newer than an answer that is to be sent before.
func (l *Link[T]) setAside(latest uint64) {
	older := l.hand[:0]
	for _, it := range l.hand {
		if it.Seq > latest {
			l.aside = append(l.aside, it)
		} else {
			older = append(older, it)
		}
	}
	clear(l.hand[len(older):])
	l.hand = older
}

// sendAnswer puts the first answer before all else.
func (l *Link[T]) sendAnswer() {
	a := l.answers[0]
	l.answers[0] = replayAnswer[T]{}
	l.answers = l.answers[1:]
	x := &extra{replay: a.ask.ID} // of all of them: nobody changes it
	l.inject = slices.Grow(l.inject, len(a.items)+1)
	for _, v := range a.items {
		cost, _ := l.node.host.Cost(v)
		l.inject = append(l.inject, outItem[T]{val: v, cost: cost, extra: x})
	}
	l.inject = append(l.inject, outItem[T]{cost: wire.Cost(0), extra: &extra{tag: wire.TagReplayEnd, id: a.ask.ID}})
	size := entrySize(&wire.Entry{Allow: a.ask.Allow, Deny: a.ask.Deny}) + entrySize(&wire.Entry{Allow: a.ask.Types})
	l.coverSize += size
	for len(l.covers) == maxCovers || l.coverSize > MaxInterestSize && len(l.covers) > 0 {
		l.coverSize -= l.covers[0].size
		l.covers = slices.Delete(l.covers, 0, 1)
	}
	l.covers = append(l.covers, cover[T]{a.ask.ID, a.latest, a.has, size})
	l.coverTop = max(l.coverTop, a.latest)
}

// maxCovers is how many replays are remembered. A message is late if its sender had to wait, at
// another pod, since before the replay: there cannot have been so many since.
const maxCovers = 1024

// covered returns what is to be said of a message that some replays cover.
func (l *Link[T]) covered(at uint64, v T) *extra {
	var ids []uint64
	for _, c := range l.covers {
		if at <= c.latest && c.has(at, v) {
			ids = append(ids, c.id)
		}
	}
	if ids == nil {
		return nil
	}
	return &extra{covered: ids}
}

// targetsCost is what an item that names targets counts.
func targetsCost(t *wire.Targets) uint64 {
	cost := wire.Cost(0)
	for i := range t.List {
		cost += uint64(64 * len(t.List[i].Pods))
	}
	return cost
}

// SendTargets puts an item into the stream that is not a message.
func (l *Link[T]) SendTargets(t *wire.Targets) {
	it := outItem[T]{cost: targetsCost(t), extra: &extra{tag: wire.TagTargets, targets: t}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == Lost {
		return
	}
	if l.pendingCost += it.cost; l.pendingCost > MaxInterestSize {
		if c := l.conn; c != nil {
			c.fail(cut(wire.CodeTooMuch, "more than %d bytes of answers to polls wait until it acknowledges", MaxInterestSize))
		}
		return
	}
	l.pending = append(l.pending, it)
	l.signal()
}
