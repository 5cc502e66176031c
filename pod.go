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
// All methods are safe for concurrent use, and may be called from inside the pod's own handler. A
// nil context is taken for one that never ends.
type Pod struct {
	bus   *Bus
	cfg   *podConfig      // not changed; shared with other pods
	mail  *mailbox.Config // the same
	id    uint64
	state atomic.Int32
	long  atomic.Int32 // for so many times it is not to be run by who wakes it, see brief
	start func()       // drain, made once so that starting it allocates nothing

	route   atomic.Pointer[route.Found[*lane]] // of the type sent last
	remote  atomic.Pointer[route.Found[*peer]] // the same, of peers
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
	taken     []string      // UUIDs of replies that a wait has had and that are not in unclaimed, or not yet; the latest few
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
	moving bool            // the reader may still be claiming what the handler before wanted
	replay *replaying      // replays that come from peers; nil if there are none
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

// Run is Wake in the caller's goroutine, which is free to do something else meanwhile, but not at
// once.
func (w *waker) Run() {
	p := (*Pod)(w)
	p.bus.began()
	started := now()
	p.drainAs(false)
	if d := (now() - started) / briefRun; d > 0 {
		p.long.Store(int32(min(d*d, 1<<30)))
	}
}

// brief reports whether Run may be called in place of Wake, as the pod is usually done soon. When
// it was not, Wake is called for a while: one in four times for twice briefRun, which happens to
// the quickest on a busy machine, and one in 10,000 for 5 ms.
func (p *Pod) brief() bool {
	if p.long.Load() > 0 {
		p.long.Add(-1)
		return false
	}
	return p.mail.Width == 1
}

// briefRun is about what starting a goroutine may cost others, with all that comes with it.
const briefRun = int64(50 * time.Microsecond)

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
// or ErrClosed. (After ErrClosed some pods may have the message, if the bus was closed, or Shutdown
// began, while Send was in progress.)
func (p *Pod) SendContext(ctx context.Context, msg Message) (*Receipt, error) {
	if m, ok := msg.(*message); ok {
		if r := p.bus.sendPlain(p, m); r != nil {
			return r, nil
		}
	}
	return p.sendContext(ctx, msg)
}

func (p *Pod) sendContext(ctx context.Context, msg Message) (*Receipt, error) {
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
// pod wants the type, here or at a peer, the context's error when that ends first, and otherwise the
// errors of SendContext. If only pods of peers want it, and all those peers are given up while it
// waits, that is a *PeerError with ErrPeerLost; if none of them takes messages that large, it is one
// with ErrMessageTooLarge, at once.
func (p *Pod) Request(ctx context.Context, msg Message) (Message, error) {
	s := sending{track: p.bus.mesh != nil}
	if err := p.bus.send(ctx, p, msg, &s); err != nil && !(errors.As(err, new(*UndeliveredError)) && s.receivers+len(s.peers) > 0) {
		return nil, err
	}
	switch {
	case s.receivers > 0:
		return s.receipt.Wait(ctx)
	case len(s.peers) == 0:
		return nil, ErrNoResponders
	}
	size, err := sizeAtPeers(msg)
	if err != nil {
		return nil, err // no peer will get it
	}
	w := watchLoss(s.peers, size)
	defer w.unwatch(s.peers)
	rep, err := s.receipt.wait(orBackground(ctx), w.lost)
	if errors.Is(err, ErrPeerLost) {
		err = &PeerError{Peer: w.last.uuid, Op: "request", Err: w.err}
	}
	return rep.msg, err
}

// RequestAll sends msg and yields replies as they come, until every pod that wanted the message has
// replied or disconnected (a group counts as one, and replies by any member), or ctx ends. If some
// have not replied then, or peers cannot be sent the message, the last thing it yields is a
// *MissingError that names them. Errors of SendContext, and ErrNoResponders when no other pod wants
// the type, are yielded alone. The message is sent when the loop begins; leaving the loop ends the
// request.
func (p *Pod) RequestAll(ctx context.Context, msg Message) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		newPoll(p).run(ctx, msg, yield)
	}
}

func (p *Pod) extra() *podExtras {
	if p.extras == nil {
		p.extras = new(podExtras)
	}
	return p.extras
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
	if use != nil {
		b := p.bus
		b.mesh.unwant(p, interest)
		b.mesh.endReplay(p)
	}
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
		p.emitLagged(rem.Lag, nil)
	}
	lost := b.gone.seldom()
	lost.dropped.Add(rem.Tally.Dropped)
	lost.lags.Add(rem.Tally.Lags)
	b.pods.remove(p)
	p.flush()
	b.polls.left(nil, p.id)
	b.mesh.podGone(p.id)
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

// drains returns how many of the pod's handlers and wait functions goroutine g runs, and how many
// loops over its Messages.
func (p *Pod) drains(g uintptr) (handling, looping int64) {
	if p.reader.Drains(g) {
		handling++
	}
	for _, w := range p.allWaits() {
		switch {
		case !w.reader.Drains(g):
		case w.fn != nil:
			handling++
		default:
			looping++
		}
	}
	return handling, looping
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
