package gravbus

import (
	"errors"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// batch is what a drainer has in hand. Batches are pooled: a drainer's stack stays small.
type batch struct {
	buf     [mailbox.MaxBatch]item
	used    int      // buf[:used] has had items since it was cleared
	items   []item   // what was claimed, in buf or where the ring has it; not to be written
	i       int      // items[i:] are to be handled
	h       *handler // what they were claimed for: it wants them. nil: ask it
	redo    *failure // what is being handled is not items[i] but this
	calling bool     // in the handler
	watched uint64   // what Watched was when Progress was last reported
	done    uint64   // calls that succeeded and are not counted yet
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// current returns what is being handled, with the attempt that this is.
func (b *batch) current() failure {
	if b.redo != nil {
		return *b.redo
	}
	return failure{item: b.items[b.i], attempts: 1}
}

// drain handles what waits for the pod, and ends when there is nothing more. It runs in a goroutine
// that Wake started.
func (p *Pod) drain() { p.drainAs(true) }

// drainAs is drain. With yield it lets others run after a few messages, who may have more.
func (p *Pod) drainAs(yield bool) {
	b := batches.Get().(*batch)
	defer p.drained(b)
	started := now()
	for {
		if b.h = p.handler.Load(); b.h.moving {
			b.h = nil
		}
		lag := b.claim(&p.reader)
		if lag.Count > 0 {
			p.tellLag(b, lag)
			continue
		}
		n := len(b.items)
		if n == 0 {
			break
		}
		for b.i < n {
			p.handle(b)
		}
		p.count(b)
		ended := now()
		p.stats.busy.Add(ended - started)
		started = ended
		if n < 16 && yield {
			runtime.Gosched()
		}
	}
	b.clear()
}

// claim takes the next items in hand.
func (b *batch) claim(r *reader) (lag mailbox.Lag[Message]) {
	b.items, lag = r.Claim(b.buf[:])
	b.i = 0
	if len(b.items) > b.used && &b.items[0] == &b.buf[0] {
		b.used = len(b.items)
	}
	return lag
}

// notice puts a message of the bus itself in hand.
func (b *batch) notice(msg Message) {
	b.buf[0] = item{Val: msg}
	b.items, b.i, b.used = b.buf[:1], 0, max(b.used, 1)
}

// clear lets go of what was in hand.
func (b *batch) clear() {
	clear(b.buf[:b.used])
	b.used, b.items = 0, nil
}

func (p *Pod) count(b *batch) {
	p.stats.delivered.Add(b.done)
	b.done = 0
}

// drained ends a drainer. If the handler called runtime.Goexit another one goes on in its place.
func (p *Pod) drained(b *batch) {
	p.count(b)
	if b.calling {
		p.failed(b.current(), &PanicError{Value: "runtime.Goexit", Stack: debug.Stack()})
		rest := b.items[b.i+1:]
		if s := p.state.Load(); s != podOpen {
			for i := range rest {
				p.leave(&rest[i], s)
			}
			rest = nil
		}
		p.reader.Return(slices.Clone(rest))
		go p.start() // ends when the mailbox is empty, like the one it replaces
		return
	}
	b.h, b.watched = nil, 0
	batches.Put(b)
	if p.state.Load() != podOpen {
		p.flush()
		p.bus.pods.settle(p)
	}
	p.bus.ended()
}

// handle calls the handler for what is in hand. After a panic it returns early.
func (p *Pod) handle(b *batch) {
	defer func() {
		if b.calling {
			if v := recover(); v != nil {
				b.calling = false
				p.finished(b)
				p.failed(b.current(), &PanicError{Value: v, Stack: debug.Stack()})
				b.redo = nil
				b.i++
			}
		}
	}()
	items := b.items
	for i := b.i; i < len(items); i++ {
		b.i = i
		it := &items[i]
		if s := p.state.Load(); s != podOpen {
			p.leave(it, s)
			continue
		}
		h := p.handler.Load()
		if h.fn == nil || h != b.h && !h.wants(it.Val) || h.uuids != nil && h.uuids[it.Val.UUID()] {
			if p.cfg.group != "" {
				p.reader.GiveBack(*it) // perhaps another member wants it
			}
			continue
		}
		if h.replay != nil && h.replay.has(it) {
			continue
		}
		b.calling = true
		err := h.fn(it.Val)
		b.calling = false
		p.finished(b)
		if err != nil && !errors.Is(err, ErrMsgNotWanted) {
			p.failed(failure{item: *it, attempts: 1}, err)
			continue
		}
		b.done++
		if p.keptCount.Load() > 0 {
			p.redeliver(b)
		}
	}
	b.i = len(items)
}

// leave sees to what is in hand when the pod goes, with the given state.
func (p *Pod) leave(it *item, state int32) {
	if given := p.cfg.group != "" && p.reader.GiveBack(*it); !given && state == podFailed {
		p.deadLetter(failure{item: *it, err: errPodFailed})
	}
}

// finished tells the senders that wait that a call has ended.
func (p *Pod) finished(b *batch) {
	if w := p.reader.Watched(); w != 0 && w != b.watched {
		b.watched = w
		p.reader.Progress()
	}
}

// wants reports whether the handler wants msg, which may have been claimed for the one before it.
func (h *handler) wants(msg Message) bool {
	typ := msg.Type()
	return h.wanted.Match(typ) || typ == MsgTypeLagged
}

// refuses reports whether the handler is not to get msg, which was sent to it when it was set
// otherwise.
func (h *handler) refuses(msg Message) bool {
	return h.fn == nil || !h.wants(msg) || h.uuids != nil && h.uuids[msg.UUID()]
}

// redeliver calls the handler for kept failures, oldest first, until it fails again.
func (p *Pod) redeliver(b *batch) {
	for {
		p.mu.Lock()
		if p.extras == nil || len(p.extras.kept) == 0 {
			p.mu.Unlock()
			return
		}
		f := p.extras.kept[0]
		p.extras.kept = slices.Delete(p.extras.kept, 0, 1)
		p.keptCount.Add(-1)
		p.mu.Unlock()

		h := p.handler.Load()
		if h.refuses(f.item.Val) {
			continue
		}
		f.attempts++
		b.redo = &f
		b.calling = true
		err := h.fn(f.item.Val)
		b.calling = false
		b.redo = nil
		p.finished(b)
		if err != nil && !errors.Is(err, ErrMsgNotWanted) {
			p.failed(f, err)
			return
		}
		b.done++
	}
}

var errPodFailed = errors.New("the pod was disconnected for its failures before it came to this message")

// failed keeps a message that the handler failed on, or gives it up, or gives up the pod.
func (p *Pod) failed(f failure, err error) {
	p.stats.failed.Add(1)
	f.err = err
	msg := f.item.Val
	var pe *PanicError
	if errors.As(err, &pe) && pe.Stack != nil {
		p.stats.seldom().panics.Add(1)
		p.panicked(msg, pe)
	}
	if msg.Type() == MsgTypeLagged {
		return
	}
	if f.attempts > p.cfg.maxRetries {
		p.deadLetter(f)
		return
	}
	p.mu.Lock()
	gone := p.state.Load() != podOpen
	n := 0
	if !gone {
		x := p.extra()
		if f.attempts > 1 { // it was the oldest
			x.kept = slices.Insert(x.kept, 0, f)
		} else {
			x.kept = append(x.kept, f)
		}
		n = len(x.kept)
		p.keptCount.Store(int32(n))
	}
	p.mu.Unlock()
	if gone {
		p.deadLetter(f)
	} else if n >= p.cfg.maxFailures {
		p.bus.log.WithField("pod", p.Name()).WithError(err).Errorf("gravbus: pod is disconnected: it keeps %d failed messages", n)
		p.disconnect(podFailed)
		p.bus.emit(EventPodFailed, func() any { return PodEvent{Pod: p.Name(), Type: msg.Type(), UUID: msg.UUID(), Error: err.Error()} })
	}
}

// panicked reports a panic in one of the pod's functions.
func (p *Pod) panicked(msg Message, pe *PanicError) {
	stack := string(pe.Stack)
	p.bus.log.WithField("pod", p.Name()).WithField("type", msg.Type()).Errorf("gravbus: handler panicked: %v\n%s", pe.Value, stack)
	p.bus.emit(EventPodPanic, func() any {
		return PodEvent{Pod: p.Name(), Type: msg.Type(), UUID: msg.UUID(), Error: pe.Error(), Stack: stack}
	})
}

// deadLetter sends a message that the pod could not handle to whoever wants dead letters.
func (p *Pod) deadLetter(f failure) {
	p.stats.seldom().deadLetters.Add(1)
	p.bus.emit(EventDeadLetter, func() any {
		return DeadLetter{Pod: p.Name(), Message: f.item.Val, Attempts: f.attempts, Error: f.err.Error(), Time: time.Now()}
	})
}

// tellLag calls the handler with a notice of what the pod has lost.
func (p *Pod) tellLag(b *batch, lag mailbox.Lag[Message]) {
	if h := p.handler.Load(); h.notice {
		b.notice(p.lagged(MsgTypeLagged, lag))
		done := b.done
		p.handle(b)
		if b.done > done {
			b.done-- // the notice is no message
		}
		p.count(b)
	}
	p.mu.Lock()
	use := p.use
	p.mu.Unlock()
	p.emitLagged(lag, use)
}

func (p *Pod) lagged(typ string, lag mailbox.Lag[Message]) Message {
	return NewTyped(typ, Lagged{Pod: p.Name(), From: lag.From.UUID(), To: lag.To.UUID(), Count: lag.Count})
}

// emitLagged tells others what a receiver on a lane has lost, on none if it has gone. It does not if
// the event would come to that lane: there it would take the place of another message, and that
// would have to be told again.
func (p *Pod) emitLagged(lag mailbox.Lag[Message], use *laneUse) {
	lanes, _ := p.bus.routes.Lookup(EventPodLagged)
	if use != nil && slices.Contains(lanes, use.lane) {
		return
	}
	p.bus.emit(EventPodLagged, func() any {
		return Lagged{Pod: p.Name(), From: lag.From.UUID(), To: lag.To.UUID(), Count: lag.Count}
	})
}
