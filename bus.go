package gravbus

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/gid"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/route"
	"github.com/sirupsen/logrus"
)

type (
	lane   = mailbox.Lane[Message]
	reader = mailbox.Reader[Message]
	item   = mailbox.Item[Message]
)

const (
	busOpen int32 = iota
	busDraining
	busClosed
)

// A Bus routes messages among its pods. It owns no goroutine: sending runs in the caller's, and a pod has one while it has something to do. All methods are safe
// for concurrent use.
type Bus struct {
	// NodeUUID identifies the bus. It must not be changed.
	NodeUUID string

	log         logrus.FieldLogger
	maxSize     int
	podDefaults podConfig
	plainPod    mailbox.Config // shared by all pods connected without options
	buffer      *Buffer        // nil: no replay

	state                             atomic.Int32
	closing                           chan struct{}           // closed when Close begins
	graph                             *mailbox.Graph[Message] // who waits for whom
	routes                            route.Table[*lane]      // which lanes a type goes to
	parked                            parked                  // replies known by UUID alone
	helpers                           helpers                 // goroutines that belong to no pod
	working                           atomic.Int64            // pods and waits that have something to do
	idle                              chan struct{}           // capacity 1; signalled at zero while draining
	pods                              podSet                  //
	polls                             polls                   // RequestAlls in progress
	sent                              atomic.Uint64           // messages, when there is no buffer that counts them
	gone                              counts                  // of pods that have gone
	refused, repliesLost, deadLetters atomic.Uint64

	mu     sync.Mutex // guards lanes and groups, and changes of routes
	lanes  map[laneKey]*laneUse
	groups map[string]*laneUse
}

// laneKey says which readers share a lane: those with the same interest and bound.
type laneKey struct {
	interest string
	bound    int
	private  bool // for readers with queues of their own, so that they do not slow down the others
}

// laneUse is a lane in the routes. Invariant: it is in the routes while uses > 0.
type laneUse struct {
	lane     *lane
	key      laneKey
	group    string
	interest route.Interest // of a lane that is no group's
	uses     int
}

// New returns a bus. It never fails, and starts nothing.
func New(opts ...Option) *Bus {
	c := busConfig{log: logrus.StandardLogger(), replay: DefaultReplay}
	for _, o := range opts {
		if o != nil {
			o(&c)
		}
	}
	b := &Bus{
		NodeUUID:    uuid.NewString(),
		log:         c.log,
		maxSize:     c.maxSize,
		podDefaults: defaultPodConfig(),
		closing:     make(chan struct{}),
		graph:       mailbox.NewGraph[Message](),
		idle:        make(chan struct{}, 1),
		lanes:       map[laneKey]*laneUse{},
		groups:      map[string]*laneUse{},
	}
	b.podDefaults.apply(c.podDefaults)
	b.plainPod = b.podDefaults.mail
	if c.replay > 0 {
		b.buffer = NewBuffer(c.replay, c.replayOpts...)
	}
	return b
}

// Connect returns a new pod. On a bus that is closed the pod is disconnected from the beginning, and its methods return ErrClosed.
func (b *Bus) Connect(opts ...PodOption) *Pod {
	p := &Pod{bus: b, cfg: &b.podDefaults, mail: &b.plainPod}
	if len(opts) > 0 {
		c := b.podDefaults
		c.apply(opts)
		p.cfg, p.mail = &c, &c.mail
	}
	b.pods.add(b, p)
	return p
}

// ConnectWithReplay is Connect with the option Replay.
func (b *Bus) ConnectWithReplay(opts ...PodOption) *Pod {
	return b.Connect(append([]PodOption{Replay()}, opts...)...)
}

// Buffer returns the messages that the bus keeps for replay. It is empty with a limit of 1 if replay is off.
func (b *Bus) Buffer() *Buffer {
	if b.buffer == nil {
		return NewBuffer(1)
	}
	return b.buffer
}

// join finds or makes the lane for the interest, and counts the use. With fresh it is always a new one, which is not in the routes yet: publish
// does that. The caller holds b.mu.
func (b *Bus) joinLocked(key laneKey, interest route.Interest, fresh bool) *laneUse {
	u := b.lanes[key]
	if u == nil || fresh {
		u = &laneUse{lane: b.graph.NewLane(key.bound), key: key, interest: interest}
		b.lanes[key] = u
		if !fresh {
			b.routes.Add(u.lane, interest)
		}
	}
	u.uses++
	return u
}

// leave undoes one join.
func (b *Bus) leave(u *laneUse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u.uses--; u.uses > 0 {
		return
	}
	if b.lanes[u.key] == u {
		delete(b.lanes, u.key)
	}
	b.routes.Remove(u.lane, u.interest)
}

// joinGroup counts one more member with the interest.
func (b *Bus) joinGroup(name string, bound int, interest route.Interest) *laneUse {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.groups[name]
	if u == nil {
		u = &laneUse{lane: b.graph.NewLane(bound), group: name}
		b.groups[name] = u
	}
	u.uses++
	b.routes.Add(u.lane, interest)
	return u
}

func (b *Bus) leaveGroup(u *laneUse, interest route.Interest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.routes.Remove(u.lane, interest)
	if u.uses--; u.uses == 0 {
		delete(b.groups, u.group)
	}
}

// An envelope is a message on its way through send.
type sending struct {
	receivers int
	receipt   *Receipt
	targets   *[]mailbox.Target[Message]
}

// send is the way of every message: checks, buffer, routes, mailboxes, receipts. It runs in the caller's goroutine.
//
// Invariant: the message is in the buffer before the routes are loaded, and a pod that replays is in the routes before it copies the buffer. So it gets the
// message from one or the other, or from both and knows by the sequence number.
func (b *Bus) send(ctx context.Context, p *Pod, msg Message, s *sending) error {
	if p.state.Load() != podOpen || b.state.Load() != busOpen && !b.mayStillSend(p) {
		return p.closedErr()
	}
	m, ours := msg.(*message)
	if msg == nil || ours && m == nil {
		return ErrNilMessage
	}
	var typ string
	if ours {
		typ = m.typ
	} else {
		typ = msg.Type()
	}
	found, err := b.routes.Find(typ)
	if err != nil {
		return typeError(err)
	}
	if found.Reserved() {
		return ErrReservedType
	}
	if b.maxSize > 0 {
		if err := b.checkSize(p, msg); err != nil {
			return err
		}
	}
	if ours {
		s.receipt = m.receiptOf(p)
	} else {
		s.receipt = foreignReceipt(p, msg)
	}
	it := item{Val: msg, From: p.id}
	if b.buffer != nil {
		it.Seq = b.buffer.push(msg, p.id)
	} else {
		it.Seq = b.sent.Add(1)
	}
	lanes, err := b.routes.Current(found)
	if err != nil {
		return typeError(err)
	}
	var undelivered *UndeliveredError
	for _, l := range lanes {
		if s.targets == nil {
			if n, ok := l.Append(&it, &p.reader); ok {
				s.receivers += n
				continue
			}
		}
		if err := b.sendSlow(ctx, p, l, lanes, &it, s, &undelivered); err != nil {
			return err
		}
	}
	if !ours || m.origin != nil || m.replyTo != uuid.Nil || m.more != nil {
		b.deliverReply(p, msg)
	}
	if undelivered != nil {
		return undelivered
	}
	return nil
}

func (b *Bus) sendSlow(ctx context.Context, p *Pod, l *lane, lanes []*lane, it *item, s *sending, undelivered **UndeliveredError) error {
	o := mailbox.Outcome[Message]{Targets: s.targets}
	l.AppendSlow(ctx, it, &p.reader, mailbox.Normal, lanes, &o)
	s.receivers += o.N
	b.tellStalled(o.Stalled)
	if o.Err == mailbox.ErrClosed {
		return ErrClosed
	}
	if len(o.Missed) > 0 {
		if *undelivered == nil {
			*undelivered = &UndeliveredError{Type: it.Val.Type(), Err: ErrMailboxFull}
		}
		for _, r := range o.Missed {
			(*undelivered).Pods = append((*undelivered).Pods, b.pods.name(r.Owner()))
		}
		if o.Err != nil {
			(*undelivered).Err = o.Err
		}
	}
	return nil
}

// mayStillSend reports whether p may send while the bus drains: handlers may, so that what is in the mailboxes can go its way.
func (b *Bus) mayStillSend(p *Pod) bool {
	if b.state.Load() == busClosed {
		return false
	}
	g := gid.Current()
	return p.reader.Drains(g) || b.insideHandler(g)
}

// insideHandler reports whether g is running one of the bus's handlers.
func (b *Bus) insideHandler(g uintptr) bool {
	if b.helpers.has(g) {
		return true
	}
	return slices.ContainsFunc(b.pods.all(), func(p *Pod) bool { return p.drains(g) })
}

func (b *Bus) checkSize(p *Pod, msg Message) error {
	if m, ok := msg.(*message); ok {
		if _, err := m.encoded(); err != nil {
			return err
		}
	}
	size := len(msg.Data())
	if size <= b.maxSize {
		return nil
	}
	b.refused.Add(1)
	b.emit(EventRefused, func() any {
		return Refused{Pod: p.Name(), Type: msg.Type(), UUID: msg.UUID(), Size: size, Limit: b.maxSize}
	})
	return ErrMessageTooLarge
}

// deliverReply gives msg to the receipts of what it answers, if anything.
func (b *Bus) deliverReply(p *Pod, msg Message) {
	if m, ok := msg.(*message); ok && m.origin != nil && m.origin.pod.Load() != nil {
		m.origin.deliver(b, p.id, msg)
		return
	}
	if id := replyID(msg); id != uuid.Nil {
		b.parked.deliver(b, id, reply{from: p.id, msg: msg})
	}
}

// emit sends an event, if anybody wants it. It does not wait.
func (b *Bus) emit(typ string, value func() any) {
	if lanes, _ := b.routes.Lookup(typ); len(lanes) > 0 {
		it := item{Val: NewTyped(typ, value())}
		for _, l := range lanes {
			if _, ok := l.Append(&it, nil); !ok {
				var o mailbox.Outcome[Message]
				l.AppendSlow(context.Background(), &it, nil, mailbox.Shed, lanes, &o)
			}
		}
	}
}

func (b *Bus) tellStalled(stalled []*reader) {
	for _, r := range stalled {
		name := b.pods.name(r.Owner())
		b.log.WithField("pod", name).Warn("gravbus: pod has stalled: its oldest messages give way until it has caught up")
		b.emit(EventPodSlow, func() any { return PodEvent{Pod: name} })
	}
}

// began and ended count who has something to do.
func (b *Bus) began() { b.working.Add(1) }

func (b *Bus) ended() {
	if b.working.Add(-1) == 0 && b.state.Load() != busOpen {
		select {
		case b.idle <- struct{}{}:
		default:
		}
	}
}

// Shutdown stops the bus in order: from now on only handlers can send, and Shutdown waits until all messages that wait in mailboxes have been
// handled. Then it does what Close does. If ctx ends first it discards what is left and returns a *ShutdownError; handlers that are running then go
// on to their end. After Shutdown returned nil the bus has no goroutine left.
//
// Called from inside a handler it does not wait for that one. Calling it again is allowed.
func (b *Bus) Shutdown(ctx context.Context) error {
	b.state.CompareAndSwap(busOpen, busDraining)
	self := int64(0)
	if b.insideHandler(gid.Current()) {
		self = 1
	}
	for b.state.Load() == busDraining && b.working.Load() > self {
		select {
		case <-b.idle:
		case <-b.closing:
		case <-ctx.Done():
			running := b.pods.working()
			b.close(false)
			return &ShutdownError{Pods: running, Err: ctx.Err()}
		}
	}
	b.close(self == 0)
	return nil
}

// Close stops the bus at once: messages that wait are discarded, senders and waits that are in progress end with ErrClosed. It waits for handlers that are
// running, so that after it returned the bus has no goroutine left; called from inside a handler it waits for none. It always returns nil.
func (b *Bus) Close() error {
	b.close(!b.insideHandler(gid.Current()))
	return nil
}

func (b *Bus) close(wait bool) {
	if b.state.Swap(busClosed) != busClosed {
		close(b.closing)
		b.graph.Close()
	}
	pods := b.pods.close()
	for _, p := range pods {
		p.disconnect(podClosed)
	}
	if wait {
		for _, p := range pods {
			p.quiet()
		}
		b.helpers.wait()
	}
}

// helpers are goroutines that run users' functions outside of pods.
type helpers struct {
	mu     sync.Mutex // guards all below
	closed bool
	gids   map[uintptr]bool
	done   sync.Cond
}

// run runs f in a goroutine and returns true, unless the bus has closed.
func (h *helpers) run(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	if h.gids == nil {
		h.gids = map[uintptr]bool{}
	}
	started := make(chan uintptr)
	go func() { // ends with f; wait waits for it
		g := gid.Current()
		started <- g
		defer func() {
			h.mu.Lock()
			delete(h.gids, g)
			h.mu.Unlock()
			h.done.Broadcast()
		}()
		f()
	}()
	h.gids[<-started] = true
	return true
}

func (h *helpers) has(g uintptr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gids[g]
}

func (h *helpers) wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.done.L = &h.mu
	for len(h.gids) > 0 {
		h.done.Wait()
	}
}

// podSet is all pods of a bus.
type podSet struct {
	mu     sync.Mutex // guards all below
	closed bool
	last   uint64
	pods   map[uint64]*Pod
}

// add numbers p and keeps it, or marks it as closed.
func (s *podSet) add(b *Bus, p *Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	p.id = s.last
	p.init()
	if s.closed || b.state.Load() != busOpen {
		p.state.Store(podClosed)
		return
	}
	if s.pods == nil {
		s.pods = map[uint64]*Pod{}
	}
	s.pods[p.id] = p
}

func (s *podSet) remove(p *Pod) {
	s.mu.Lock()
	delete(s.pods, p.id)
	s.mu.Unlock()
}

// close returns all pods; there will be no more.
func (s *podSet) close() []*Pod {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.all()
}

func (s *podSet) all() []*Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Pod, 0, len(s.pods))
	for _, p := range s.pods {
		all = append(all, p)
	}
	slices.SortFunc(all, func(p, q *Pod) int { return int(p.id) - int(q.id) })
	return all
}

func (s *podSet) get(id uint64) *Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods[id]
}

// name returns the name of the pod with the given number, even if it has gone.
func (s *podSet) name(id uint64) string {
	if p := s.get(id); p != nil {
		return p.Name()
	}
	return defaultName(id)
}

// working returns the names of the pods that have something to do.
func (s *podSet) working() (names []string) {
	for _, p := range s.all() {
		if p.working() {
			names = append(names, p.Name())
		}
	}
	slices.Sort(names)
	return names
}

// counts is what a pod, or all that have gone, did.
type counts struct {
	delivered, dropped, failed, panics, deadLetters atomic.Uint64
	busy                                            atomic.Int64 // nanoseconds in handlers
}

// moveTo adds c to sum and leaves c at zero.
func (c *counts) moveTo(sum *counts) {
	sum.delivered.Add(c.delivered.Swap(0))
	sum.failed.Add(c.failed.Swap(0))
	sum.panics.Add(c.panics.Swap(0))
	sum.deadLetters.Add(c.deadLetters.Swap(0))
	sum.busy.Add(c.busy.Swap(0))
}

// Stats is a snapshot of a bus.
type Stats struct {
	NodeUUID    string
	Sent        uint64        // messages sent
	Delivered   uint64        // handler calls that succeeded, and messages yielded by Messages
	Dropped     uint64        // messages that pods lost by overflow
	Failed      uint64        // handler calls that failed
	DeadLetters uint64        // messages that became dead letters
	Refused     uint64        // messages that were too large
	RepliesLost uint64        // replies that nobody waited for before there were too many
	Buffered    int           // messages kept for replay
	HandlerTime time.Duration // spent in handlers
	Pods        []PodStats    // connected pods, in the order they connected
}

// PodStats is a snapshot of a pod. A message counts as delivered when the batch it was claimed in is done: for an idle pod the counts are exact.
type PodStats struct {
	Name        string
	Group       string        // empty for none
	Depth       int           // messages waiting; of all the group's members together
	Delivered   uint64        // handler calls that succeeded, and messages yielded by Messages
	Dropped     uint64        // messages lost by overflow; of all the group's members together
	Lags        uint64        // times it began to lose messages; of all the group's members together
	Failed      uint64        // handler calls that failed; panics are among them
	Panics      uint64        // handler calls that panicked
	Kept        int           // failed messages kept for redelivery
	DeadLetters uint64        // messages that became dead letters
	HandlerTime time.Duration // spent in handlers
}

// Stats returns a snapshot of the bus. It takes time in proportion to the number of pods, and does not hold up senders for longer than one
// mailbox takes.
func (b *Bus) Stats() Stats {
	s := Stats{
		NodeUUID:    b.NodeUUID,
		Sent:        b.sent.Load(),
		Refused:     b.refused.Load(),
		RepliesLost: b.repliesLost.Load() + b.parked.lostCount(),
	}
	if b.buffer != nil {
		s.Buffered = b.buffer.Len()
		s.Sent = b.buffer.pushed()
	}
	s.Delivered, s.Dropped, s.Failed = b.gone.delivered.Load(), b.gone.dropped.Load(), b.gone.failed.Load()
	s.DeadLetters, s.HandlerTime = b.gone.deadLetters.Load(), time.Duration(b.gone.busy.Load())
	groups := map[string]bool{}
	for _, p := range b.pods.all() {
		ps := p.Stats()
		s.Pods = append(s.Pods, ps)
		s.Delivered += ps.Delivered
		s.Failed += ps.Failed
		s.DeadLetters += ps.DeadLetters
		s.HandlerTime += ps.HandlerTime
		if ps.Group == "" || !groups[ps.Group] {
			s.Dropped += ps.Dropped
			groups[ps.Group] = true
		}
	}
	return s
}

// closedErr is why a pod or its bus does not take part any more.
func (p *Pod) closedErr() error {
	if p.bus.state.Load() != busOpen {
		return ErrClosed
	}
	return ErrDisconnected
}
