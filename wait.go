package gravbus

import (
	"context"
	"errors"
	"iter"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/route"
)

// MaxUnclaimed is how many replies to a pod's messages are kept until a WaitOn, WaitUntil or Wait of
// the pod takes them, if it has no handler and nobody waits on the receipt. The oldest go first; their
// receipts still have them.
const MaxUnclaimed = 64

// A TimeoutFunc starts a timeout and returns the channel that tells when it is over. A nil
// TimeoutFunc, and a nil channel, never fire.
type TimeoutFunc func() <-chan time.Time

// Timeout is a timeout of so many seconds; zero or less never fires.
func Timeout(seconds int) TimeoutFunc { return TimeoutAfter(time.Duration(seconds) * time.Second) }

// TimeoutAfter is a timeout of any duration; zero or less never fires.
func TimeoutAfter(d time.Duration) TimeoutFunc {
	if d <= 0 {
		return nil
	}
	return func() <-chan time.Time { return time.After(d) }
}

func (t TimeoutFunc) start() <-chan time.Time {
	if t == nil {
		return nil
	}
	return t()
}

// call calls fn, and turns a panic into a *PanicError.
func call(fn MsgFunc, msg Message) (err error) {
	returned := false
	defer func() {
		if !returned {
			if v := recover(); v != nil {
				err = &PanicError{Value: v, Stack: debug.Stack()}
			}
		}
	}()
	err = fn(msg)
	returned = true
	return err
}

// orBackground returns ctx, or the background context for nil.
func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// A wait is a temporary receiver of a pod, beside its handler: it has a mailbox of its own.
type wait struct {
	pod    *Pod
	wanted route.Interest // not changed
	use    *laneUse
	reader reader
	fn     MsgFunc       // called by a drainer; nil if the items are pulled
	early  []unclaimed   // replies that came before, for the first drainer. Nobody reads the mailbox until it has offered them to fn
	start  func()        // drain
	had    []string      // UUIDs of the latest replies that it has had. Whose turn it is to offer it messages has it
	wake   chan struct{} // capacity 1: there is something to pull
	result chan error    // capacity 1: what fn returned in the end
	once   sync.Once
	over   atomic.Bool // end was called
}

// Wake starts a drainer, which ends when the mailbox is empty, or tells the puller.
func (w *wait) Wake() {
	if w.fn != nil {
		w.pod.bus.began()
		go w.start()
		return
	}
	w.pod.bus.beganLoop()
	w.wake <- struct{}{}
}

// newWait makes p receive what the patterns and its filters let through. With fn the replies that
// came before come first.
func (p *Pod) newWait(patterns []string, fn MsgFunc) (*wait, error) {
	if err := checkPatterns(patterns); err != nil {
		return nil, err
	}
	if len(patterns) == 0 {
		patterns = []string{">"}
	}
	w := &wait{pod: p, fn: fn, wake: make(chan struct{}, 1), result: make(chan error, 1)}
	w.start = w.drain
	mail := *p.mail
	mail.Width = 1
	w.reader.Init(p.id, &mail, w)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Load() != podOpen {
		return nil, p.closedErr()
	}
	interest := route.Interest{Allow: patterns, Deny: p.denied()}
	w.wanted = interest
	w.use = p.bus.join(laneKey{interest.Key(), mail.Bound, true}, interest)
	x := p.extra()
	if fn != nil {
		w.early = slices.Clone(x.unclaimed)
	}
	w.reader.Attach(w.use.lane, true, len(w.early) > 0)
	p.bus.mesh.wantWait(w)
	if x.waits == nil {
		x.waits = map[*wait]bool{}
	}
	x.waits[w] = true
	if len(w.early) > 0 {
		w.reader.Begin(nil, 0)
	}
	return w, nil
}

// end makes w receive no more.
func (w *wait) end() {
	w.once.Do(func() {
		w.over.Store(true)
		rem := w.reader.Remove()
		lost := w.pod.stats.seldom()
		lost.dropped.Add(rem.Tally.Dropped)
		lost.lags.Add(rem.Tally.Lags)
		if rem.Lag.Count > 0 {
			w.pod.emitLagged(rem.Lag, nil)
		}
		w.pod.bus.mesh.unwantWait(w)
		w.pod.bus.leave(w.use)
		if !w.reader.Active() {
			w.forget()
		}
	})
}

func (w *wait) forget() {
	w.pod.mu.Lock()
	delete(w.pod.extras.waits, w)
	w.pod.mu.Unlock()
	if w.pod.state.Load() != podOpen {
		w.pod.bus.pods.settle(w.pod)
	}
}

// drain calls fn until it wants a message, or there are no more.
func (w *wait) drain() {
	b := batches.Get().(*batch)
	claimed := true
	defer func() {
		if claimed { // fn called runtime.Goexit
			w.finish(&PanicError{Value: "runtime.Goexit", Stack: debug.Stack()})
			w.claim(b) // nothing: the reader is removed
		}
		w.forgetIfEnded()
		w.pod.bus.ended()
	}()
	if len(w.early) > 0 {
		w.offer()
	}
	for {
		w.claim(b)
		if len(b.items) == 0 {
			break
		}
		for i := range b.items {
			if w.over.Load() {
				break
			}
			if w.refuses(b.items[i].Val) || !w.fresh(b.items[i].Val) {
				continue
			}
			if err := w.call(b.items[i].Val); !errors.Is(err, ErrMsgNotWanted) {
				w.pod.took(b.items[i].Val)
				w.finish(err)
				break
			}
		}
	}
	b.clear()
	claimed = false
	batches.Put(b)
}

// call calls fn.
func (w *wait) call(msg Message) error {
	err := call(w.fn, msg)
	if w.reader.Watched() != 0 {
		w.reader.Progress()
	}
	return err
}

// offer calls fn with the replies that came before the wait.
func (w *wait) offer() {
	w.reader.Enter() // fn is inside the drainer, though nothing was claimed yet
	early := w.early
	w.early = nil
	calling := false
	var u unclaimed
	defer func() {
		if calling { // fn called runtime.Goexit
			u.box.let(w.pod.bus, u.n, true)
		}
	}()
	for _, u = range early {
		if w.over.Load() {
			return
		}
		if !u.box.hold(u.n) {
			w.pod.took(u.msg) // by its receipt
			continue
		}
		w.fresh(u.msg)
		calling = true
		err := w.call(u.msg)
		calling = false
		wanted := !errors.Is(err, ErrMsgNotWanted)
		u.box.let(w.pod.bus, u.n, wanted)
		if wanted {
			w.pod.took(u.msg)
			w.finish(err)
			return
		}
	}
}

// finish ends the wait with a result.
func (w *wait) finish(err error) {
	select {
	case w.result <- err:
	default:
	}
	w.end()
}

// forgetIfEnded is called when a drainer ends. It may be late: by then another one may have been
// started, whose end somebody may be waiting for. Once the reader is gone, no more are.
func (w *wait) forgetIfEnded() {
	if w.reader.Gone() && !w.reader.Active() {
		w.forget()
	}
}

// claim takes what has come. A notice of lag comes as a message.
func (w *wait) claim(b *batch) {
	if lag := b.claim(&w.reader); lag.Count > 0 {
		b.notice(w.pod.lagged(MsgTypeLagged, lag))
		w.pod.emitLagged(lag, w.use)
	}
}

func (w *wait) refuses(msg Message) bool {
	w.pod.mu.Lock()
	uuids := w.pod.extras.uuids
	w.pod.mu.Unlock()
	return uuids != nil && uuids[msg.UUID()]
}

// WaitOn calls fn with every message that comes from now on, of whatever type, except the pod's own
// and those that FilterType and FilterUUID refuse, one at a time, until fn returns something other
// than ErrMsgNotWanted, and returns that. It does not touch the pod's handler, which gets its
// messages all the same. A reply to one of the pod's messages that came before, and that neither a
// handler nor a receipt has taken, is offered first. fn runs in a goroutine of its own; a panic in
// it is returned as a *PanicError. ErrDisconnected and ErrClosed end the wait too.
func (p *Pod) WaitOn(fn MsgFunc) error { return p.WaitUntil(nil, fn) }

// WaitUntil is WaitOn with a limit: it returns ErrWaitTimeout when that is over, on time even if fn
// is running. That call of fn then goes on, and its result is dropped.
func (p *Pod) WaitUntil(timeout TimeoutFunc, fn MsgFunc) error {
	if fn == nil {
		return ErrNilHandler
	}
	over := timeout.start()
	w, err := p.newWait(nil, fn)
	if err != nil {
		return err
	}
	defer w.end()
	p.bus.mesh.stepAside()
	select {
	case err := <-w.result:
		return err
	case <-over:
		return ErrWaitTimeout
	case <-p.done():
		return p.closedErr()
	}
}

// Wait returns the next message that comes from now on, of a type that matches one of the patterns,
// or of any type if there are none. Otherwise it is as WaitOn. It returns the context's error when
// that ends first. For one message after the other Messages is the better choice: it misses none
// between.
func (p *Pod) Wait(ctx context.Context, patterns ...string) (Message, error) {
	w, err := p.newWait(patterns, nil)
	if err != nil {
		return nil, err
	}
	defer w.end()
	for _, u := range p.earlier() {
		if w.wanted.Match(u.msg.Type()) {
			held := u.box.hold(u.n)
			p.took(u.msg)
			if held {
				u.box.let(p.bus, u.n, true)
				return u.msg, nil
			}
		}
	}
	for msg := range w.pull(ctx) {
		return msg, nil
	}
	if err := orBackground(ctx).Err(); err != nil {
		return nil, err
	}
	return nil, p.closedErr()
}

// Messages yields the messages that come from when the loop begins, of types that match one of the
// patterns, or of any type if there are none, except the pod's own and those that FilterType and
// FilterUUID refuse. It ends when ctx ends, when the pod is disconnected, or when the loop is left.
// It has a mailbox like the pod's own, so a slow loop slows down senders in the same way. It does
// not touch the pod's handler. If a pattern is invalid, or the pod is disconnected, it yields
// nothing.
func (p *Pod) Messages(ctx context.Context, patterns ...string) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		w, err := p.newWait(patterns, nil)
		if err != nil {
			return
		}
		defer w.end()
		for msg := range w.pull(ctx) {
			if msg.Type() != MsgTypeLagged {
				p.stats.delivered.Add(1)
			}
			if !yield(msg) {
				return
			}
		}
	}
}

// pull yields what comes, until ctx or the pod ends.
func (w *wait) pull(ctx context.Context) iter.Seq[Message] {
	ctx = orBackground(ctx)
	return func(yield func(Message) bool) {
		b := new(batch)
		done := w.pod.done()
		awake := false
		defer func() {
			w.end()
			if !awake {
				if !w.reader.Active() {
					return
				}
				<-w.wake // somebody is about to
			}
			w.claim(b) // nothing, as the reader is removed
			w.forget()
			w.pod.bus.endedLoop()
		}()
		w.pod.bus.mesh.stepAside()
		for ctx.Err() == nil {
			select {
			case <-w.wake:
				awake = true
			case <-ctx.Done():
				return
			case <-done:
				return
			}
			for {
				w.claim(b)
				if len(b.items) == 0 {
					break
				}
				for i := range b.items {
					if ctx.Err() != nil || w.pod.state.Load() != podOpen {
						return
					}
					if msg := b.items[i].Val; !w.refuses(msg) && w.fresh(msg) {
						w.pod.took(msg)
						if !yield(msg) {
							return
						}
					}
					if w.reader.Watched() != 0 {
						w.reader.Progress()
					}
				}
			}
			b.clear()
			awake = false
			w.pod.bus.endedLoop()
		}
	}
}

// unclaimed is a reply that nobody waited for.
type unclaimed struct {
	box *replies
	n   uint64
	msg Message
}

// keepUnclaimed brings a reply that nobody waited for to the pod's waits in progress, and remembers it
// for those to come, until one of them takes it; not if the pod has a handler that could have seen it.
//
// Invariant: a wait in progress gets every reply that comes, from here if not by a lane as well: the
// sender, or a peer, may have looked up its route before the wait began. So waits pass over what
// they had already, see wait.fresh, and what they take may not be here yet, see took.
func (p *Pod) keepUnclaimed(u unclaimed, from uint64) {
	if p.cfg.peer != nil {
		return
	}
	if h := p.handler.Load(); h != nil && h.fn != nil {
		return
	}
	for _, w := range p.keep(u) {
		w.reader.Give(item{Val: u.msg, From: from})
	}
}

// keep is keepUnclaimed but for the waits that are to have the reply, which it returns.
func (p *Pod) keep(u unclaimed) (waits []*wait) {
	id := u.msg.UUID()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Load() != podOpen {
		return nil
	}
	x := p.extra()
	if i := slices.Index(x.taken, id); i >= 0 {
		x.taken = slices.Delete(x.taken, i, i+1)
		return nil
	}
	if len(x.unclaimed) == MaxUnclaimed {
		x.unclaimed = slices.Delete(x.unclaimed, 0, 1)
	}
	x.unclaimed = append(x.unclaimed, u)
	for w := range x.waits {
		if w.wanted.Match(u.msg.Type()) {
			waits = append(waits, w)
		}
	}
	return waits
}

// took notes that a wait has taken a message: if it is a reply no other one is to have it.
func (p *Pod) took(msg Message) {
	if msg.ReplyTo() == "" {
		return
	}
	id := msg.UUID()
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.extra()
	if i := slices.IndexFunc(x.unclaimed, func(u unclaimed) bool { return u.msg.UUID() == id }); i >= 0 {
		x.unclaimed = slices.Delete(x.unclaimed, i, i+1)
		return
	}
	x.taken = remember(x.taken, id)
}

// fresh reports whether the wait has not had the message: a reply may come twice.
func (w *wait) fresh(msg Message) bool {
	if msg.ReplyTo() == "" {
		return true
	}
	id := msg.UUID()
	if slices.Contains(w.had, id) {
		return false
	}
	w.had = remember(w.had, id)
	return true
}

// remember adds a UUID to some, of which it keeps the latest: as many as there may be senders that
// are between giving a reply to a lane and to keepUnclaimed.
func remember(ids []string, id string) []string {
	if len(ids) == 64 {
		ids = slices.Delete(ids, 0, 1)
	}
	return append(ids, id)
}

// earlier returns the replies that came before now and that nobody has taken.
func (p *Pod) earlier() []unclaimed {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.extras == nil {
		return nil
	}
	return slices.Clone(p.extras.unclaimed)
}
