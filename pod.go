package gravbus

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/internal/gid"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/route"
)

// MsgFunc handles a message. A pod's handler is called with one message at a time, unless the pod
// was connected with Concurrency; an error makes the pod keep the message and deliver it again when
// messages begin to succeed.
type MsgFunc func(Message) error

// MsgChan is a channel of messages.
type MsgChan chan Message

const (
	podOpen int32 = iota
	podClosed
	podFailed // disconnected for its failures: what it still has goes out as dead letters
)

// A Pod is a connection to a bus: it sends, and receives what it asked for by On or OnType, or by
// one of the waits. It never receives what it sent itself. An idle pod has no goroutine.
//
// All methods are safe for concurrent use, and may be called from inside the pod's own handler.
type Pod struct {
	bus   *Bus
	cfg   *podConfig      // not changed; shared with other pods
	mail  *mailbox.Config // the same
	id    uint64
	state atomic.Int32
	start func() // drain, made once so that starting it allocates nothing

	route   atomic.Pointer[route.Found[*lane]] // of the type sent last
	handler atomic.Pointer[handler]
	reader  reader

	mu        sync.Mutex   // guards all below, and On and its like among themselves
	use       *laneUse     // the lane that reader is on, nil while it is on none
	extras    *podExtras   // nil if there is nothing in it
	keptCount atomic.Int32 // len of extras.kept
	ending    atomic.Int32 // its handlers and loops that are in Shutdown

	stats podCounts
}

// podExtras is what few pods have.
type podExtras struct {
	kept      []failure
	waits     map[*wait]bool
	uuids     map[string]bool // refused by FilterUUID; replaced, not changed
	denied    []string        // patterns refused by FilterType; replaced, not changed
	unclaimed []unclaimed
	ended     chan struct{} // closed when the pod is disconnected
	ctx       context.Context
	cancel    context.CancelFunc
}

// handler is what On and OnType set.
type handler struct {
	fn     MsgFunc
	wanted *route.Interest // not changed; shared with other pods
	uuids  map[string]bool // not wanted; not changed
	notice bool            // fn wants Lagged notices too
}

// failure is a message that the handler failed on.
type failure struct {
	item     item
	attempts int
	err      error
}

// waker is a Pod as its mailbox sees it.
type waker Pod

// Wake starts a drainer. It ends when the mailbox is empty; Disconnect waits for it.
func (w *waker) Wake() {
	p := (*Pod)(w)
	p.bus.began()
	go p.start()
}

func (p *Pod) init() {
	p.start = p.drain
	p.reader.Init(p.id, p.mail, (*waker)(p))
}

func defaultName(id uint64) string { return "pod-" + strconv.FormatUint(id, 10) }

// Name returns the pod's name.
func (p *Pod) Name() string {
	if p.cfg.name != "" {
		return p.cfg.name
	}
	return defaultName(p.id)
}

// Send sends msg to all pods that want its type, but not to this one. Where a mailbox is full it
// waits as that pod's Overflow says. It returns nil if the message cannot be sent; SendContext
// tells why.
func (p *Pod) Send(msg Message) *Receipt {
	r, _ := p.SendContext(context.Background(), msg)
	return r
}

// SendContext is Send with an end to the waiting, and with errors. When ctx ends while Send waits
// for room in a mailbox, that pod goes without the message, and all others get it: the receipt is
// not nil and the error is an *UndeliveredError, as it is when a pod with Fail has no room. With
// any other error nothing was sent and the receipt is nil: ErrNilMessage, a *TypeError,
// ErrReservedType, ErrMessageTooLarge, an error of the encoding of a typed payload, ErrDisconnected
// or ErrClosed. (After ErrClosed some pods may have the message, if the bus was closed while Send
// waited.)
func (p *Pod) SendContext(ctx context.Context, msg Message) (*Receipt, error) {
	var s sending
	err := p.bus.send(ctx, p, msg, &s)
	if err != nil && !errors.As(err, new(*UndeliveredError)) {
		return nil, err
	}
	return s.receipt, err
}

// ReplyTo sends msg as an answer to the message inReplyTo, whose receipt gets it. If msg was sent
// before, a copy with a new UUID is sent instead. It returns nil if the message cannot be sent, as
// Send does.
func (p *Pod) ReplyTo(inReplyTo, msg Message) *Receipt {
	if isNil(inReplyTo) || isNil(msg) {
		return nil
	}
	m, ok := msg.(*message)
	if !ok {
		msg.SetReplyTo(inReplyTo.UUID())
		return p.Send(msg)
	}
	if m.sent() {
		m = m.clone()
	}
	if to, ok := inReplyTo.(*message); ok {
		m.origin, m.replyTo = &to.receipt, to.receipt.id
		if m.more != nil {
			m.more.replyTo = ""
		}
	} else {
		m.SetReplyTo(inReplyTo.UUID())
	}
	return p.Send(m)
}

// Request sends msg and returns the first reply. It returns ErrNoResponders at once when no other
// pod wants the type, the context's error when that ends first, and otherwise the errors of
// SendContext.
func (p *Pod) Request(ctx context.Context, msg Message) (Message, error) {
	var s sending
	if err := p.bus.send(ctx, p, msg, &s); err != nil && !(errors.As(err, new(*UndeliveredError)) && s.receivers > 0) {
		return nil, err
	}
	if s.receivers == 0 {
		return nil, ErrNoResponders
	}
	return s.receipt.Wait(ctx)
}

// RequestAll sends msg and yields replies as they come, until every pod that wanted the message has
// replied or disconnected (a group counts as one, and replies by any member), or ctx ends. If some
// have not replied then, the last thing it yields is a *MissingError that names them. Errors of
// SendContext, and ErrNoResponders when no other pod wants the type, are yielded alone. The message
// is sent when the loop begins; leaving the loop ends the request.
func (p *Pod) RequestAll(ctx context.Context, msg Message) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		newPoll(p).run(ctx, msg, yield)
	}
}

// On makes fn receive every message but the pod's own and those that FilterType and FilterUUID
// refuse. It replaces what On or OnType set before: messages that wait for the pod go to fn. A nil
// fn ignores all messages. Events of the bus need OnType.
func (p *Pod) On(fn MsgFunc) error { return p.on([]string{">"}, fn, true) }

// OnType makes fn receive the messages of a type, or of several: each of them may be a pattern, in
// which the token * stands for any one token and > at the end for one or more. Otherwise it is as
// On.
func (p *Pod) OnType(pattern string, fn MsgFunc, more ...string) error {
	return p.on(append([]string{pattern}, more...), fn, true)
}

func (p *Pod) on(patterns []string, fn MsgFunc, notice bool) error {
	if err := checkPatterns(patterns); err != nil {
		return err
	}
	if r := p.cfg.replay; r != nil {
		if err := checkPatterns(r.types); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if fn == nil {
		patterns = nil
	}
	return p.listen(patterns, &handler{fn: fn, notice: notice})
}

func checkPatterns(patterns []string) error {
	for _, pattern := range patterns {
		if err := route.CheckPattern(pattern); err != nil {
			return typeError(err)
		}
	}
	return nil
}

// FilterType refuses a type (or all types of a pattern) with allow false, and takes that back with
// allow true. If the pod has set its handler by OnType, allow true adds the type to those that it
// receives. Filters outlast On and OnType; what is refused by one is not allowed by another.
func (p *Pod) FilterType(pattern string, allow bool) error {
	if err := checkPatterns([]string{pattern}); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.extra()
	patterns := slices.Clone(p.interest().Allow)
	if allow {
		x.denied = slices.DeleteFunc(slices.Clone(x.denied), func(d string) bool { return d == pattern })
		if len(patterns) > 0 && !slices.Equal(patterns, []string{">"}) && !slices.Contains(patterns, pattern) {
			patterns = append(patterns, pattern)
		}
	} else if !slices.Contains(x.denied, pattern) {
		x.denied = append(slices.Clone(x.denied), pattern)
	}
	h := p.handler.Load()
	if h == nil {
		if p.state.Load() != podOpen {
			return p.closedErr()
		}
		return nil
	}
	next := *h
	return p.listen(patterns, &next)
}

// FilterUUID refuses the message with the given UUID with allow false, and takes that back with
// allow true. It applies to messages that are handled from now on.
func (p *Pod) FilterUUID(uuid string, allow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.extra()
	refused := make(map[string]bool, len(x.uuids)+1)
	for u := range x.uuids {
		refused[u] = true
	}
	if allow {
		delete(refused, uuid)
	} else {
		refused[uuid] = true
	}
	x.uuids = refused
	if h := p.handler.Load(); h != nil {
		next := *h
		next.uuids = refused
		p.handler.Store(&next)
	}
}

func (p *Pod) extra() *podExtras {
	if p.extras == nil {
		p.extras = new(podExtras)
	}
	return p.extras
}

// interest returns what the pod's handler wants.
func (p *Pod) interest() route.Interest {
	if h := p.handler.Load(); h != nil {
		return *h.wanted
	}
	return route.Interest{}
}

// denied returns what FilterType refuses.
func (p *Pod) denied() []string {
	if p.extras == nil {
		return nil
	}
	return p.extras.denied
}

// listen makes h handle what the patterns want. The caller holds p.mu.
func (p *Pod) listen(patterns []string, h *handler) error {
	if p.state.Load() != podOpen {
		return p.closedErr()
	}
	b := p.bus
	before := p.interest()
	next := route.Interest{}
	if len(patterns) > 0 {
		next = route.Interest{Allow: patterns, Deny: p.denied()}
	}
	if p.extras != nil {
		h.uuids = p.extras.uuids
	}
	key := laneKey{interest: next.Key(), bound: p.mail.Bound, private: p.mail.Policy != mailbox.Wait || p.mail.Width > 1}

	switch {
	case p.use == nil && len(patterns) == 0:
		h.wanted = new(route.Interest)
		p.handler.Store(h)
	case p.use == nil && p.cfg.group != "":
		h.wanted = &route.Interest{Allow: next.Allow, Deny: next.Deny}
		p.handler.Store(h)
		p.use = b.joinGroup(p.cfg.group, p.mail.Bound, next)
		p.reader.Join(p.use.lane, key.interest, wants(next))
	case p.use == nil:
		p.use = b.join(key, next)
		h.wanted = &p.use.interest
		p.handler.Store(h)
		if p.cfg.replay != nil {
			p.reader.Attach(p.use.lane, key.private, true)
			p.reader.Begin(p.history())
		} else {
			p.reader.Attach(p.use.lane, key.private, false)
		}
	case before.Key() == next.Key():
		h.wanted = p.handler.Load().wanted
		p.handler.Store(h)
	case p.cfg.group != "":
		h.wanted = &route.Interest{Allow: next.Allow, Deny: next.Deny}
		p.handler.Store(h)
		b.addToGroup(p.use, next)
		p.reader.Rejoin(key.interest, wants(next)) // counts what nobody wants any more
		b.removeFromGroup(p.use, before)
	default:
		// Order matters, see mailbox.Reader.Move: the new lane is known to nobody until the reader
		// is on it.
		old, fresh := p.use, b.newUse(key, next)
		p.use = fresh
		h.wanted = &fresh.interest
		p.handler.Store(h)
		p.reader.Move(fresh.lane, key.private, wants(next), func() { b.publish(fresh) })
		b.leave(old)
	}
	return nil
}

func wants(i route.Interest) func(Message) bool {
	return func(msg Message) bool { return i.Match(msg.Type()) }
}

// history returns what the pod wants of the past, and up to where the past goes.
func (p *Pod) history() ([]item, uint64) {
	b := p.bus.buffer
	if b == nil {
		return nil, 0
	}
	r := p.cfg.replay
	all, latest := b.snapshot()
	first := latest - uint64(len(all)) + 1
	if r.after != "" {
		rest, _ := after(all, r.after)
		first += uint64(len(all) - len(rest))
		all = rest
	}
	wanted, types := p.interest(), route.Interest{Allow: r.types}
	var items []item
	for i, s := range all {
		typ := s.msg.Type()
		if s.from != p.id && wanted.Match(typ) && !s.msg.Timestamp().Before(r.since) && (len(r.types) == 0 || types.Match(typ)) {
			items = append(items, item{Val: s.msg, From: s.from, Seq: first + uint64(i)})
		}
	}
	if r.last > 0 && len(items) > r.last {
		items = items[len(items)-r.last:]
	}
	return items, latest
}

// done returns a channel that is closed when the pod is disconnected.
func (p *Pod) done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.extra()
	if x.ended == nil {
		x.ended = make(chan struct{})
		if p.state.Load() != podOpen {
			close(x.ended)
		}
	}
	return x.ended
}

// Disconnect takes the pod off the bus. Messages that wait for it are discarded, failed messages
// that it kept become dead letters, and its waits end with ErrDisconnected. After Disconnect
// returned no handler call of the pod begins, and none is running, unless Disconnect was called
// from inside it (with Concurrency, from inside one of them), or from a handler that this pod's
// handler is itself waiting for. Calling it again has no further effect.
func (p *Pod) Disconnect() {
	p.disconnect(podClosed)
	if !p.working() {
		return
	}
	b, g := p.bus, gid.Current()
	b.quietMu.Lock()
	if b.quieting == nil {
		b.quieting = map[uintptr]*Pod{}
	}
	b.quieting[g] = p
	b.quietMu.Unlock()
	b.progressed()
	p.quiet()
	b.quietMu.Lock()
	delete(b.quieting, g)
	b.quietMu.Unlock()
}

func (p *Pod) disconnect(state int32) {
	p.mu.Lock()
	if !p.state.CompareAndSwap(podOpen, state) {
		p.mu.Unlock()
		return
	}
	rem := p.reader.Remove()
	use, interest := p.use, p.interest()
	p.use = nil
	x := p.extras
	var waits []*wait
	if x != nil {
		for w := range x.waits {
			waits = append(waits, w)
		}
		if x.ended != nil {
			close(x.ended)
		}
		if x.cancel != nil {
			x.cancel()
		}
		x.unclaimed = nil
	}
	p.mu.Unlock()

	b := p.bus
	switch {
	case use == nil:
	case use.group != "":
		b.leaveGroup(use, interest)
	default:
		b.leave(use)
	}
	for _, w := range waits {
		w.end()
	}
	p.giveUpKept()
	if state == podFailed {
		for _, it := range rem.Discarded {
			p.deadLetter(failure{item: it, err: errPodFailed})
		}
	}
	if rem.Lag.Count > 0 {
		p.emitLagged(rem.Lag)
	}
	lost := b.gone.seldom()
	lost.dropped.Add(rem.Tally.Dropped)
	lost.lags.Add(rem.Tally.Lags)
	b.pods.remove(p)
	p.flush()
	b.polls.left(p.id)
}

// giveUpKept makes dead letters of the failures that the pod keeps.
func (p *Pod) giveUpKept() {
	p.mu.Lock()
	var kept []failure
	if p.extras != nil {
		kept, p.extras.kept = p.extras.kept, nil
		p.keptCount.Store(0)
	}
	p.mu.Unlock()
	for _, f := range kept {
		p.deadLetter(f)
	}
}

// flush moves the counts of a pod that has gone to the bus.
func (p *Pod) flush() { p.stats.moveTo(&p.bus.gone) }

// quiet waits until none of the pod's handlers and wait functions is running.
func (p *Pod) quiet() {
	p.reader.Quiet()
	for _, w := range p.allWaits() {
		if w.fn != nil {
			w.reader.Quiet()
		}
	}
}

// drains reports whether goroutine g runs one of the pod's handlers or wait functions, or a loop
// over its Messages.
func (p *Pod) drains(g uintptr) (handling, looping bool) {
	if p.reader.Drains(g) {
		return true, false
	}
	for _, w := range p.allWaits() {
		if w.reader.Drains(g) {
			return w.fn != nil, w.fn == nil
		}
	}
	return false, false
}

// working reports whether a handler or wait function of the pod is running or about to.
func (p *Pod) working() bool {
	return p.reader.Active() || slices.ContainsFunc(p.allWaits(), func(w *wait) bool { return w.reader.Active() })
}

func (p *Pod) allWaits() (all []*wait) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.extras != nil {
		for w := range p.extras.waits {
			all = append(all, w)
		}
	}
	return all
}

// Stats returns a snapshot of the pod.
func (p *Pod) Stats() PodStats {
	depth, tally := p.reader.Depth()
	rare := p.stats.rare.Load()
	if rare == nil {
		rare = new(rareCounts)
	}
	tally.Dropped += rare.dropped.Load()
	tally.Lags += rare.lags.Load()
	for _, w := range p.allWaits() {
		_, lost := w.reader.Depth()
		tally.Dropped += lost.Dropped
		tally.Lags += lost.Lags
	}
	return PodStats{
		Name:        p.Name(),
		Group:       p.cfg.group,
		Working:     p.working(),
		Depth:       depth,
		Delivered:   p.stats.delivered.Load(),
		Dropped:     tally.Dropped,
		Lags:        tally.Lags,
		Failed:      p.stats.failed.Load(),
		Panics:      rare.panics.Load(),
		Kept:        int(p.keptCount.Load()),
		DeadLetters: rare.deadLetters.Load(),
		HandlerTime: time.Duration(p.stats.busy.Load()),
	}
}
