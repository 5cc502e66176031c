package gravbus

import (
	"context"
	"errors"
	"runtime/debug"
	"sync/atomic"

	"github.com/google/uuid"
)

const (
	// MaxReplies is how many replies that nobody has taken a receipt keeps. The oldest go first,
	// and are counted in Stats.
	MaxReplies = 1024

	// MaxParkedReplies is how many replies a bus keeps that name the message they answer by UUID
	// alone (sent by Send after SetReplyTo, not by ReplyTo) while nobody waits for them. The oldest
	// go first, and are counted in Stats. As many receipts with an OnReply can be found by such
	// replies; the oldest are forgotten first. Replies by ReplyTo reach a receipt always.
	MaxParkedReplies = 4096

	// MaxParkedBytes is how much such replies count together, as MaxBytes of a Buffer says, before
	// the oldest go.
	MaxParkedBytes = 16 << 20
)

// A Receipt stands for a message that was sent, and gets the replies to it. None is lost, however
// late they are waited for: up to MaxReplies are kept as long as the receipt is reachable. Whoever
// takes a reply takes it from the others who wait on the same receipt; replies that are not wanted
// (ErrMsgNotWanted) stay.
//
// A reply is an ordinary message too: it also goes to all pods that want its type.
//
// All methods are safe for concurrent use, and on a nil *Receipt return ErrNoReceipt.
type Receipt struct {
	pod atomic.Pointer[Pod]
	id  uuid.UUID
	box atomic.Pointer[replies] // made when a reply comes or somebody waits
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

// Wait returns the next reply. It returns the context's error when that ends first, and
// ErrDisconnected or ErrClosed when the pod that sent the message has gone; replies that came
// before are returned all the same.
func (r *Receipt) Wait(ctx context.Context) (Message, error) {
	if r == nil {
		return nil, ErrNoReceipt
	}
	rep, err := r.wait(orBackground(ctx), nil)
	return rep.msg, err
}

// wait is Wait, which ends with ErrPeerLost when lost is closed.
func (r *Receipt) wait(ctx context.Context, lost <-chan struct{}) (reply, error) {
	p, box := r.pod.Load(), r.replies()
	w, _ := p.bus.replyWaits.Get().(*replyWait)
	if w == nil {
		w = &replyWait{got: make(chan outcome, 1)}
	}
	defer p.bus.replyWaits.Put(w)
	if box.name != "" { // of others' making: replies name it by UUID alone, and may have come early
		p.bus.parked.register(r)
		defer p.bus.parked.unregister(r)
	}
	if rep, ok := box.takeOr(w); ok {
		return rep, nil
	}
	if box.name == "" {
		p.bus.parked.register(r)
		defer p.bus.parked.unregister(r)
	}
	p.bus.mesh.stepAside()
	var err error
	select {
	case o := <-w.got:
		return o.reply, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.done():
		err = p.closedErr()
	case <-lost:
		err = ErrPeerLost
	}
	if rep, ok := box.leave(w); ok { // it came at the same moment
		return rep, nil
	}
	return reply{}, err
}

// WaitOn calls fn with the replies, one at a time, until it returns something other than
// ErrMsgNotWanted, and returns that. fn runs in a goroutine of its own. A panic in it is returned
// as a *PanicError. WaitOn also ends, with ErrDisconnected or ErrClosed, when the pod that sent the
// message goes.
func (r *Receipt) WaitOn(fn MsgFunc) error { return r.WaitUntil(nil, fn) }

// WaitUntil is WaitOn with a limit: it returns ErrWaitTimeout when that is over, on time even if fn
// is running. That call of fn then goes on, and its result is dropped. A nil timeout never fires.
func (r *Receipt) WaitUntil(timeout TimeoutFunc, fn MsgFunc) error {
	if r == nil {
		return ErrNoReceipt
	}
	if fn == nil {
		return ErrNilHandler
	}
	p := r.pod.Load()
	w := &replyWait{fn: fn, got: make(chan outcome, 1)}
	box := p.bus.parked.register(r)
	defer p.bus.parked.unregister(r)
	box.offer(p.bus, w)
	p.bus.mesh.stepAside()
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

// OnReply calls fn with the replies as WaitOn does, but does not wait for it. What fn returns in
// the end is dropped; a panic in it, or runtime.Goexit, is reported as one in a handler is. No
// goroutine is kept while there is no reply. When the pod is disconnected no call of fn begins any
// more; one that has begun goes on to its end, for which Close and Shutdown wait.
func (r *Receipt) OnReply(fn MsgFunc) error {
	if r == nil {
		return ErrNoReceipt
	}
	if fn == nil {
		return ErrNilHandler
	}
	p := r.pod.Load()
	if p.state.Load() != podOpen {
		return p.closedErr()
	}
	w := &replyWait{got: make(chan outcome, 1)}
	w.fn = func(msg Message) error {
		if p.state.Load() != podOpen { // the reply is there for others
			r.replies().leave(w)
			p.bus.parked.forget(r.id, w)
			return ErrMsgNotWanted
		}
		returned := false
		defer func() {
			if !returned {
				p.bus.parked.forget(r.id, w)
				p.panicked(msg, &PanicError{Value: "runtime.Goexit", Stack: debug.Stack()})
			}
		}()
		err := call(fn, msg)
		returned = true
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
	p.bus.parked.registerLasting(r, w).offer(p.bus, w)
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
