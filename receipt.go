package gravbus

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
)

const (
	// MaxReplies is how many replies that nobody has taken a receipt keeps. The oldest go first, and are counted in Stats.
	MaxReplies = 1024

	// MaxParkedReplies is how many replies a bus keeps that name the message they answer by UUID alone (sent by Send after
	// SetReplyTo, not by ReplyTo) while nobody waits for them. The oldest go first, and are counted in Stats.
	// As many receipts with an OnReply can be found by such replies; the oldest are forgotten first. Replies by ReplyTo reach a receipt always.
	MaxParkedReplies = 4096
)

// A Receipt stands for a message that was sent, and gets the replies to it. None is lost, however late they are waited for: up to MaxReplies are kept
// as long as the receipt is reachable. Whoever takes a reply takes it from the others who wait on the same receipt; replies that are not wanted
// (ErrMsgNotWanted) stay.
//
// A reply is an ordinary message too: it also goes to all pods that want its type.
//
// All methods are safe for concurrent use, and on a nil *Receipt return ErrNoReceipt.
type Receipt struct {
	id  uuid.UUID
	pod atomic.Pointer[Pod]
	box atomic.Pointer[replies] // made when a reply comes or somebody waits
}

// replies is what has come for one message.
type replies struct {
	name string // the message's UUID, if it is not the receipt's id
	mu   sync.Mutex
	kept []reply // oldest first, not taken
	last uint64  // number of the latest
	// waits in progress. Invariant: a wait for anything is only here while kept is empty.
	waits []*replyWait
	first [1]*replyWait // room for one wait, which is the ordinary case
}

type reply struct {
	n    uint64
	from uint64 // ID of the pod that sent it
	msg  Message
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

// UUID returns the UUID of the message, "" for a nil receipt.
func (r *Receipt) UUID() string {
	if r == nil {
		return ""
	}
	if b := r.box.Load(); b != nil && b.name != "" {
		return b.name
	}
	return r.id.String()
}

// Wait returns the next reply. It returns the context's error when that ends first, and ErrDisconnected or ErrClosed when the pod that sent the
// message has gone; replies that came before are returned all the same.
func (r *Receipt) Wait(ctx context.Context) (Message, error) {
	if r == nil {
		return nil, ErrNoReceipt
	}
	rep, err := r.wait(ctx)
	return rep.msg, err
}

func (r *Receipt) wait(ctx context.Context) (reply, error) {
	p, box := r.pod.Load(), r.replies()
	w, _ := p.bus.replyWaits.Get().(*replyWait)
	if w == nil {
		w = &replyWait{got: make(chan outcome, 1)}
	}
	defer p.bus.replyWaits.Put(w)
	if box.name != "" { // of others' making: the message may have been sent by others, with other receipts
		box = p.bus.parked.register(r, box)
		defer p.bus.parked.unregister(r.id)
	}
	if rep, ok := box.takeOr(w); ok {
		return rep, nil
	}
	if box.name == "" {
		p.bus.parked.register(r, box)
		defer p.bus.parked.unregister(r.id)
	}
	var err error
	select {
	case o := <-w.got:
		return o.reply, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.done():
		err = p.closedErr()
	}
	if rep, ok := box.leave(w); ok { // it came at the same moment
		return rep, nil
	}
	return reply{}, err
}

// WaitOn calls fn with the replies, one at a time, until it returns something other than ErrMsgNotWanted, and returns that.
// fn runs in a goroutine of its own. A panic in it is returned as a *PanicError. WaitOn also ends, with ErrDisconnected or ErrClosed, when the pod that sent the message goes.
func (r *Receipt) WaitOn(fn MsgFunc) error { return r.WaitUntil(nil, fn) }

// WaitUntil is WaitOn with a limit: it returns ErrWaitTimeout when that is over, on time even if fn is running. That call of fn then goes on, and its result
// is dropped. A nil timeout never fires.
func (r *Receipt) WaitUntil(timeout TimeoutFunc, fn MsgFunc) error {
	if r == nil {
		return ErrNoReceipt
	}
	if fn == nil {
		return ErrNilHandler
	}
	p, box := r.pod.Load(), r.replies()
	w := &replyWait{fn: fn, got: make(chan outcome, 1)}
	box = p.bus.parked.register(r, box)
	defer p.bus.parked.unregister(r.id)
	box.offer(p.bus, w)
	select {
	case o := <-w.got:
		return o.err
	case <-timeout.start():
		box.leave(w)
		return ErrWaitTimeout
	case <-p.done():
		box.leave(w)
		return p.closedErr()
	}
}

// OnReply calls fn with the replies as WaitOn does, but does not wait for it. What fn returns in the end is dropped. No goroutine is kept while there
// is no reply.
func (r *Receipt) OnReply(fn MsgFunc) error {
	if r == nil {
		return ErrNoReceipt
	}
	if fn == nil {
		return ErrNilHandler
	}
	p, box := r.pod.Load(), r.replies()
	if p.state.Load() != podOpen {
		return p.closedErr()
	}
	w := &replyWait{got: make(chan outcome, 1)}
	w.fn = func(msg Message) error {
		err := call(fn, msg)
		if errors.Is(err, ErrMsgNotWanted) {
			return err
		}
		p.bus.parked.forget(r.id, w)
		var pe *PanicError
		if errors.As(err, &pe) { // nobody else hears of it
			p.panicked(msg, pe)
		}
		return err
	}
	box = p.bus.parked.registerLasting(r, box, w)
	box.offer(p.bus, w)
	return nil
}

// replies returns the receipt's box.
func (r *Receipt) replies() *replies {
	if b := r.box.Load(); b != nil {
		return b
	}
	r.box.CompareAndSwap(nil, new(replies))
	return r.box.Load()
}

// deliver gives the receipt a reply.
func (r *Receipt) deliver(b *Bus, from uint64, msg Message) {
	r.replies().deliver(b, reply{from: from, msg: msg}, r.pod.Load())
}

// deliver adds a reply. Pods in to, which sent the message, may find it later if nobody waits for it.
func (b *replies) deliver(bus *Bus, rep reply, to ...*Pod) {
	b.mu.Lock()
	b.last++
	rep.n = b.last
	for i, w := range b.waits {
		if w.fn == nil {
			b.waits = slices.Delete(b.waits, i, i+1)
			w.got <- outcome{reply: rep} // there is room; under the lock, so that leave finds it
			b.mu.Unlock()
			return
		}
	}
	if len(b.kept) == MaxReplies {
		b.kept = slices.Delete(b.kept, 0, 1)
		bus.repliesLost.Add(1)
	}
	b.kept = append(b.kept, rep)
	nobody := len(b.waits) == 0
	var start []*replyWait
	for _, w := range b.waits {
		if !w.running {
			w.running = true
			start = append(start, w)
		}
	}
	b.mu.Unlock()
	if nobody {
		for _, p := range to {
			p.keepUnclaimed(unclaimed{b, rep.n, rep.msg})
		}
	}
	for _, w := range start {
		bus.helpers.run(func() { b.run(w) })
	}
}

// has reports whether reply n is still to be had, and take takes it.
func (b *replies) has(n uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.kept, func(rep reply) bool { return rep.n == n })
}

func (b *replies) take(n uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := len(b.kept)
	b.kept = slices.DeleteFunc(b.kept, func(rep reply) bool { return rep.n == n })
	return len(b.kept) < before
}

// takeOr takes the oldest reply, or makes w wait for the next.
func (b *replies) takeOr(w *replyWait) (reply, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.kept) > 0 {
		rep := b.kept[0]
		b.kept[0] = reply{}
		b.kept = b.kept[1:]
		return rep, true
	}
	if b.waits == nil {
		b.waits = b.first[:0]
	}
	b.waits = append(b.waits, w)
	return reply{}, false
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

// offer makes w wait, beginning with what is kept.
func (b *replies) offer(bus *Bus, w *replyWait) {
	b.mu.Lock()
	b.waits = append(b.waits, w)
	w.running = len(b.kept) > 0
	start := w.running
	b.mu.Unlock()
	if start {
		bus.helpers.run(func() { b.run(w) })
	}
}

// run offers replies to w until there are none or one was wanted. It runs in a goroutine of the bus's helpers, which ends then.
func (b *replies) run(w *replyWait) {
	var rep reply
	calling := false
	defer func() {
		if calling { // fn called runtime.Goexit
			b.finish(w, rep, &PanicError{Value: "runtime.Goexit", Stack: debug.Stack()})
		}
	}()
	for {
		b.mu.Lock()
		i := slices.IndexFunc(b.kept, func(rep reply) bool { return rep.n > w.seen })
		if w.over || i < 0 {
			w.running = false
			b.mu.Unlock()
			return
		}
		rep = b.kept[i]
		w.seen = rep.n
		b.mu.Unlock()

		calling = true
		err := call(w.fn, rep.msg)
		calling = false
		if !errors.Is(err, ErrMsgNotWanted) {
			b.finish(w, rep, err)
			return
		}
	}
}

// finish ends w's wait: it has taken rep, with the given result.
func (b *replies) finish(w *replyWait, rep reply, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !w.over {
		w.over = true
		b.kept = slices.DeleteFunc(b.kept, func(o reply) bool { return o.n == rep.n })
		b.waits = slices.DeleteFunc(b.waits, func(o *replyWait) bool { return o == w })
		w.got <- outcome{rep, err}
	}
}
