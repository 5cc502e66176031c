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
		k.asks = slices.Delete(k.asks, i, i+1)
		if i < k.asked {
			k.asked--
		}
	}
}

// replayAsked takes a request of the peer. The writer answers it.
func (l *Link[T]) replayAsked(r *wire.Replay) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.ID <= l.replayed {
		return nil // asked again after a cut: the answer is in the stream
	}
	if len(l.control.replays) >= MaxReplays {
		return cut(wire.CodeTooMuch, "more than %d replays wait to be answered", MaxReplays)
	}
	l.replayed = r.ID
	l.control.replays = append(l.control.replays, *r)
	l.signal()
	return nil
}

// replay puts the answer to r before all else. It runs in the writer.
//
// Invariant: a message that comes by way of the reader and is in the answer too is marked as
// covered. What was claimed before the answer was made is looked at when it is sent, after it.
func (l *Link[T]) replay(r *wire.Replay) {
	items, latest, has := l.node.host.Replay(l, r)
	for _, v := range items {
		cost, _ := l.node.host.Cost(v)
		l.inject = append(l.inject, outItem[T]{val: v, cost: cost, extra: &extra{replay: r.ID}})
	}
	l.inject = append(l.inject, outItem[T]{cost: wire.Cost(0), extra: &extra{tag: wire.TagReplayEnd, id: r.ID}})
	if len(l.covers) == maxCovers {
		l.covers = slices.Delete(l.covers, 0, 1)
	}
	l.covers = append(l.covers, cover[T]{r.ID, latest, has})
	l.coverTop = max(l.coverTop, latest)
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

// SendTargets puts an item into the stream that is not a message.
func (l *Link[T]) SendTargets(t *wire.Targets) {
	it := outItem[T]{cost: wire.Cost(0) + uint64(64*len(t.List)), extra: &extra{tag: wire.TagTargets, targets: t}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == Lost {
		return
	}
	l.pending = append(l.pending, it)
	l.signal()
}
