package gravbus

import (
	"errors"
	"runtime/debug"
	"slices"
	"sync"
)

// replies is what has come for one message, and who waits for it.
//
// Invariant: a reply is had by one: it is in kept until somebody has taken it, and while a function
// looks at it nobody else does. Whoever changes kept or lets go of a reply calls settle, which
// hands out what can be.
type replies struct {
	name string // the message's UUID, if it is not the receipt's id

	mu    sync.Mutex    // guards all below
	kept  []reply       // oldest first, not taken
	last  uint64        // number of the latest
	waits []*replyWait  // in progress, oldest first
	first [1]*replyWait // room for one wait, which is the ordinary case
}

type reply struct {
	n    uint64
	from uint64 // ID of the pod that sent it
	msg  Message
	held bool // a function looks at it
}

// replyWait is somebody waiting for a reply: for any, or for one that fn wants.
type replyWait struct {
	fn      MsgFunc
	seen    uint64 // replies up to this one were offered to fn
	running bool   // a goroutine is offering
	over    bool   // has its reply, or nobody waits any more
	got     chan outcome
}

type outcome struct {
	reply reply
	err   error
}

// deliver adds a reply. If nobody waits for it, the pod that sent the message may find it later; nil
// if it is not to.
func (b *replies) deliver(bus *Bus, rep reply, asked *Pod) {
	b.mu.Lock()
	b.last++
	rep.n = b.last
	if len(b.waits) > 0 && b.waits[0].fn == nil && len(b.kept) == 0 { // the ordinary case
		w := b.waits[0]
		b.waits = slices.Delete(b.waits, 0, 1)
		w.got <- outcome{reply: rep} // there is room; under the lock, so that leave finds it
		b.mu.Unlock()
		return
	}
	if len(b.kept) == MaxReplies {
		b.kept = slices.Delete(b.kept, 0, 1)
		bus.repliesLost.Add(1)
	}
	b.kept = append(b.kept, rep)
	nobody := len(b.waits) == 0
	b.settle(bus)
	b.mu.Unlock()
	if nobody && asked != nil {
		asked.keepUnclaimed(unclaimed{b, rep.n, rep.msg}, rep.from)
	}
}

// settle gives replies that nobody looks at to those who wait for any, and starts those who have
// one to look at. The caller holds b.mu.
func (b *replies) settle(bus *Bus) {
	for i := 0; i < len(b.waits); {
		w := b.waits[i]
		if w.fn == nil {
			if rep, ok := b.takeAny(); ok {
				b.waits = slices.Delete(b.waits, i, i+1)
				w.got <- outcome{reply: rep}
				continue
			}
		} else if j := b.next(w); !w.running && j >= 0 && !b.kept[j].held {
			w.running = bus.helpers.run(func() { b.run(bus, w) })
		}
		i++
	}
}

// next returns the index of the reply that w is to look at next, or -1.
func (b *replies) next(w *replyWait) int {
	return slices.IndexFunc(b.kept, func(rep reply) bool { return rep.n > w.seen })
}

// takeAny takes the oldest reply that nobody looks at.
func (b *replies) takeAny() (reply, bool) {
	i := slices.IndexFunc(b.kept, func(rep reply) bool { return !rep.held })
	if i < 0 {
		return reply{}, false
	}
	rep := b.kept[i]
	b.kept = slices.Delete(b.kept, i, i+1)
	return rep, true
}

// takeOr takes the oldest reply, or makes w wait for the next.
func (b *replies) takeOr(w *replyWait) (reply, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if rep, ok := b.takeAny(); ok {
		return rep, true
	}
	b.wait(w)
	return reply{}, false
}

func (b *replies) wait(w *replyWait) {
	if b.waits == nil {
		b.waits = b.first[:0]
	}
	b.waits = append(b.waits, w)
}

// offer makes w wait, beginning with what is kept.
func (b *replies) offer(bus *Bus, w *replyWait) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wait(w)
	b.settle(bus)
}

// leave ends w's wait, and returns a reply if it had one already.
func (b *replies) leave(w *replyWait) (reply, bool) {
	b.mu.Lock()
	w.over = w.fn != nil
	b.waits = slices.DeleteFunc(b.waits, func(o *replyWait) bool { return o == w })
	b.mu.Unlock()
	select {
	case o := <-w.got:
		return o.reply, o.err == nil
	default:
		return reply{}, false
	}
}

// hold makes reply n be looked at by the caller, who is to call let in the end. It reports false if
// the reply has been taken, or somebody looks at it.
func (b *replies) hold(n uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.kept, func(rep reply) bool { return rep.n == n && !rep.held })
	if i >= 0 {
		b.kept[i].held = true
	}
	return i >= 0
}

// let undoes hold: the reply is taken, or left to others.
func (b *replies) let(bus *Bus, n uint64, taken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.letLocked(bus, n, taken)
}

func (b *replies) letLocked(bus *Bus, n uint64, taken bool) {
	if i := slices.IndexFunc(b.kept, func(rep reply) bool { return rep.n == n }); i >= 0 {
		if b.kept[i].held = false; taken {
			b.kept = slices.Delete(b.kept, i, i+1)
		}
	}
	b.settle(bus)
}

// run offers replies to w until there are none or one was wanted. It runs in a goroutine of the
// bus's helpers, which ends then.
func (b *replies) run(bus *Bus, w *replyWait) {
	var rep reply
	calling := false
	defer func() {
		if calling { // fn called runtime.Goexit
			b.finish(bus, w, rep, &PanicError{Value: "runtime.Goexit", Stack: debug.Stack()})
		}
	}()
	for {
		b.mu.Lock()
		i := b.next(w)
		if w.over || i < 0 || b.kept[i].held {
			w.running = false
			b.mu.Unlock()
			return
		}
		b.kept[i].held = true
		rep = b.kept[i]
		w.seen = rep.n
		b.mu.Unlock()

		calling = true
		err := call(w.fn, rep.msg)
		calling = false
		if !errors.Is(err, ErrMsgNotWanted) {
			b.finish(bus, w, rep, err)
			return
		}
		b.let(bus, rep.n, false)
	}
}

// finish ends w's wait: it has taken rep, with the given result.
func (b *replies) finish(bus *Bus, w *replyWait, rep reply, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !w.over {
		w.over = true
		b.waits = slices.DeleteFunc(b.waits, func(o *replyWait) bool { return o == w })
		w.got <- outcome{rep, err}
	}
	b.letLocked(bus, rep.n, true)
}
