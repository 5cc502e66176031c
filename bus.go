package gravbus

import (
	"context"
	"errors"
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

// A Bus routes messages among its pods. It owns no goroutine: sending runs in the caller's, and a
// pod has one while it has something to do. All methods are safe for concurrent use.
type Bus struct {
	// NodeUUID identifies the bus. It must not be changed.
	NodeUUID string

	log         logrus.FieldLogger
	maxSize     int
	podDefaults podConfig
	plainPod    mailbox.Config          // shared by all pods connected without options
	buffer      *Buffer                 // nil: no replay
	graph       *mailbox.Graph[Message] // who waits for whom
	closing     chan struct{}           // closed when Close begins
	state       atomic.Int32
	routes      route.Table[*lane] // which lanes a type goes to

	_ [64]byte // above is read at every Send, below is written often

	working                 atomic.Int64     // handlers and wait functions that run or are about to
	looping                 atomic.Int64     // loops over Messages that have something to do
	insideWork, insideLoops atomic.Int64     // those of them who wait for the bus to drain
	quietMu                 sync.Mutex       // guards quieting
	quieting                map[uintptr]*Pod // goroutines that wait in a Disconnect, and for whose handlers
	drainMu                 sync.Mutex       // guards drain
	drain                   chan struct{}    // closed at the next progress; nil if nobody waits
	replyWaits              sync.Pool        // of *replyWait for any reply; per bus, as channels must not cross synctest bubbles
	parked                  parked           // replies known by UUID alone
	helpers                 helpers          // goroutines that belong to no pod
	pods                    podSet
	polls                   polls     // RequestAlls in progress
	gone                    podCounts // of pods that have gone
	refused, repliesLost    atomic.Uint64

	mu     sync.Mutex // guards lanes and groups, and changes of routes
	lanes  map[laneKey]*laneUse
	groups map[string]*laneUse
	routed map[*lane]bool // all lanes of routes
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
		lanes:       map[laneKey]*laneUse{},
		groups:      map[string]*laneUse{},
		routed:      map[*lane]bool{},
	}
	b.podDefaults.apply(c.podDefaults)
	b.plainPod = b.podDefaults.mail
	if c.replay > 0 {
		b.buffer = NewBuffer(c.replay, c.replayOpts...)
		b.buffer.owned = true
		b.graph = mailbox.NewGraph[Message](b.buffer.mu)
	} else {
		b.graph = mailbox.NewGraph[Message](nil)
	}
	return b
}

// Connect returns a new pod. On a bus that is closed the pod is disconnected from the beginning,
// and its methods return ErrClosed.
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

// Buffer returns the messages that the bus keeps for replay, to be read; Push returns ErrBusBuffer.
// It is nil if replay is off; a nil *Buffer is empty.
func (b *Bus) Buffer() *Buffer { return b.buffer }

// join finds or makes the lane for the interest, and counts the use.
func (b *Bus) join(key laneKey, interest route.Interest) *laneUse {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.lanes[key]
	if u == nil {
		u = b.newUse(key, interest)
		b.publishLocked(u)
		return u
	}
	u.uses++
	return u
}

// newUse makes a lane that is not in the routes yet: publish does that.
func (b *Bus) newUse(key laneKey, interest route.Interest) *laneUse {
	return &laneUse{lane: b.graph.NewLane(key.bound), key: key, interest: interest, uses: 1}
}

func (b *Bus) publish(u *laneUse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.publishLocked(u)
}

func (b *Bus) publishLocked(u *laneUse) {
	b.routed[u.lane] = true
	b.lanes[u.key] = u
	b.routes.Add(u.lane, u.interest)
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
	b.retire(u.lane)
}

// retire forgets a lane that is no longer in the routes; its count goes to the graph.
func (b *Bus) retire(l *lane) {
	delete(b.routed, l)
	l.Retire()
}

// joinGroup counts one more member with the interest.
func (b *Bus) joinGroup(name string, bound int, interest route.Interest) *laneUse {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.groups[name]
	if u == nil {
		u = &laneUse{lane: b.graph.NewLane(bound), group: name}
		b.routed[u.lane] = true
		b.groups[name] = u
	}
	u.uses++
	b.routes.Add(u.lane, interest)
	return u
}

// addToGroup and removeFromGroup change what a member wants.
func (b *Bus) addToGroup(u *laneUse, interest route.Interest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.routes.Add(u.lane, interest)
}

func (b *Bus) removeFromGroup(u *laneUse, interest route.Interest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.routes.Remove(u.lane, interest)
}

func (b *Bus) leaveGroup(u *laneUse, interest route.Interest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.routes.Remove(u.lane, interest)
	if u.uses--; u.uses == 0 {
		delete(b.groups, u.group)
		b.retire(u.lane)
	}
}

// An envelope is a message on its way through send.
type sending struct {
	receivers int
	receipt   *Receipt
	targets   *[]mailbox.Target[Message]
}

// send is the way of every message: checks, buffer, routes, mailboxes, receipts. It runs in the
// caller's goroutine.
//
// Invariant: the message is in the buffer before the routes are loaded, and a pod that replays is
// in the routes before it copies the buffer. So it gets the message from one or the other, or from
// both and knows by the sequence number.
func (b *Bus) send(ctx context.Context, p *Pod, msg Message, s *sending) error {
	if p.state.Load() != podOpen || b.state.Load() != busOpen && !b.mayStillSend(p) {
		return p.closedErr()
	}
	m, ours := msg.(*message)
	if ours && m == nil || !ours && isNil(msg) {
		return ErrNilMessage
	}
	var typ string
	if ours {
		typ = m.typ
	} else {
		typ = msg.Type()
	}
	found := p.route.Load()
	if !b.routes.Knows(found, typ) {
		var err error
		if found, err = b.routes.Find(typ); err != nil {
			return typeError(err)
		}
		p.route.Store(found)
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
	var undelivered *UndeliveredError
	found, next := b.post(&it, found, p, s)
	lanes := found.Sinks()
	for ; next < len(lanes); next++ {
		if err := b.append(ctx, p, &it, found, next, s, &undelivered); err != nil {
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

// post puts the message into the buffer and, if the way is straight, into the first of its lanes:
// with a buffer that takes only the one mutex that they share. It returns the route and how many of
// its lanes have the message.
func (b *Bus) post(it *item, found *route.Found[*lane], p *Pod, s *sending) (*route.Found[*lane], int) {
	if b.buffer == nil {
		lanes := found.Sinks()
		if len(lanes) != 1 {
			b.graph.CountSent(1 - len(lanes)) // each lane counts
		}
		if len(lanes) > 0 && b.appendStraight(it, found, lanes[0], p, s) {
			return found, 1
		}
		return found, 0
	}
	size := sizeOf(it.Val)
	var wake *reader
	next := 0
	b.buffer.mu.Lock()
	it.Seq = b.buffer.push(it.Val, size, it.From)
	found = b.routes.Refresh(found)
	if lanes := found.Sinks(); len(lanes) > 0 && s.targets == nil {
		if n, w, ok := lanes[0].AppendLocked(it, &p.reader, false); ok {
			s.receivers += n
			wake = w
			next = 1
		}
	}
	b.buffer.mu.Unlock()
	if wake != nil {
		wake.Rouse()
	}
	return found, next
}

// appendStraight puts the message into a lane of its route, if that can be done at once.
func (b *Bus) appendStraight(it *item, found *route.Found[*lane], l *lane, p *Pod, s *sending) bool {
	if s.targets != nil {
		return false
	}
	l.Lock()
	n, wake, ok := l.AppendLocked(it, &p.reader, l.Left() && !b.routes.Fresh(found))
	l.Unlock()
	if wake != nil {
		wake.Rouse()
	}
	s.receivers += n
	return ok
}

// append puts the message into one lane of its route, waiting if need be.
func (b *Bus) append(ctx context.Context, p *Pod, it *item, found *route.Found[*lane], which int, s *sending, undelivered **UndeliveredError) error {
	l := found.Sinks()[which]
	if b.appendStraight(it, found, l, p, s) {
		return nil
	}
	o := mailbox.Outcome[Message]{Targets: s.targets, Stale: func() bool { return !b.routes.Fresh(found) }}
	l.AppendSlow(ctx, it, &p.reader, mailbox.Normal, found.Sinks(), &o)
	s.receivers += o.N
	b.tellStalled(o.Stalled)
	if errors.Is(o.Err, mailbox.ErrClosed) {
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

// mayStillSend reports whether p may send while the bus drains: handlers may, so that what is in
// the mailboxes can go its way.
func (b *Bus) mayStillSend(p *Pod) bool {
	if b.state.Load() == busClosed {
		return false
	}
	g := gid.Current()
	return p.reader.Drains(g) || b.insideHandler(g)
}

// insideHandler reports whether g is running one of the bus's handlers, wait functions or loops.
func (b *Bus) insideHandler(g uintptr) bool {
	if b.helpers.has(g) {
		return true
	}
	return slices.ContainsFunc(b.pods.everyone(), func(p *Pod) bool {
		handling, looping := p.drains(g)
		return handling || looping
	})
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
		if b.buffer == nil {
			b.graph.CountSent(-len(lanes)) // the lanes count it, but it was not sent by anybody
		}
		for _, l := range lanes {
			var o mailbox.Outcome[Message]
			l.AppendSlow(context.Background(), &it, nil, mailbox.Shed, lanes, &o)
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

// began and ended count who has something to do: handlers and wait functions, and apart from them
// loops over Messages, whose bodies are not the bus's.
func (b *Bus) began() { b.working.Add(1) }

func (b *Bus) ended() {
	b.working.Add(-1)
	b.progressed()
}

func (b *Bus) beganLoop() { b.looping.Add(1) }

func (b *Bus) endedLoop() {
	b.looping.Add(-1)
	b.progressed()
}

// progressed tells those who wait for the bus to drain to look again.
func (b *Bus) progressed() {
	if b.state.Load() == busOpen {
		return
	}
	b.drainMu.Lock()
	defer b.drainMu.Unlock()
	if b.drain != nil {
		close(b.drain)
		b.drain = nil
	}
}

// await waits until done returns true, or ctx ends. done depends on what progressed follows.
func (b *Bus) await(ctx context.Context, done func() bool) error {
	for {
		b.drainMu.Lock()
		if b.drain == nil {
			b.drain = make(chan struct{})
		}
		changed := b.drain
		b.drainMu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Shutdown stops the bus in order: from now on only handlers can send, and Shutdown waits until all
// messages that wait in mailboxes have been handled, loops over Messages included. Failed messages
// that pods still keep become dead letters. Then it does what Close does. If ctx ends first it
// discards what is left and returns a *ShutdownError; handlers that are running then go on to their
// end. After Shutdown returned nil the bus has no goroutine left.
//
// Called from inside a handler it does not wait for that one. Calling it again is allowed.
func (b *Bus) Shutdown(ctx context.Context) error {
	b.state.CompareAndSwap(busOpen, busDraining)
	inside, leave := b.enterInside()
	defer leave()
	drained := func() bool {
		return b.state.Load() == busClosed ||
			b.working.Load() <= b.insideWork.Load()+b.waitingForInsiders() && b.looping.Load() <= b.insideLoops.Load()
	}
	err := b.await(ctx, drained)
	for _, p := range b.pods.all() {
		p.giveUpKept() // while those who listen to dead letters are there
	}
	if err == nil {
		err = b.await(ctx, drained)
	}
	if err != nil {
		running := b.pods.working()
		b.close(false)
		return &ShutdownError{Pods: running, Err: err}
	}
	b.close(!inside)
	return nil
}

// enterInside counts the caller if it is inside a handler, a wait function or a loop: whoever waits
// for the bus to drain must not wait for others who do.
func (b *Bus) enterInside() (inside bool, leave func()) {
	g := gid.Current()
	for _, p := range b.pods.everyone() {
		handling, looping := p.drains(g)
		if handling || looping {
			count := &b.insideWork
			if looping {
				count = &b.insideLoops
			}
			count.Add(1)
			p.ending.Add(1)
			b.progressed()
			return handling, func() {
				count.Add(-1)
				p.ending.Add(-1)
			}
		}
	}
	return b.helpers.has(g), func() {}
}

// waitingForInsiders returns how many handlers wait, in a Disconnect, for handlers that wait
// themselves for the bus to drain: they would wait for each other.
func (b *Bus) waitingForInsiders() (n int64) {
	b.quietMu.Lock()
	var waiting []uintptr
	for g, p := range b.quieting {
		if p.ending.Load() > 0 {
			waiting = append(waiting, g)
		}
	}
	b.quietMu.Unlock()
	for _, g := range waiting {
		if b.insideHandler(g) {
			n++
		}
	}
	return n
}

// Close stops the bus at once: messages that wait are discarded, senders and waits that are in
// progress end with ErrClosed. It waits for handlers that are running, so that after it returned
// the bus has no goroutine left; called from inside a handler it waits for none. It always returns
// nil.
func (b *Bus) Close() error {
	b.close(!b.insideHandler(gid.Current()))
	return nil
}

func (b *Bus) close(wait bool) {
	if b.state.Swap(busClosed) != busClosed {
		close(b.closing)
		b.graph.Close()
	}
	for _, p := range b.pods.close() {
		p.disconnect(podClosed)
	}
	b.progressed()
	if wait {
		b.await(context.Background(), func() bool { return b.working.Load() <= b.insideWork.Load() })
		b.helpers.wait()
	}
}

// helpers are goroutines that run users' functions outside of pods.
type helpers struct {
	mu     sync.Mutex // guards all below
	closed bool
	n      int              // running or about to
	gids   map[uintptr]bool // of those that run
	done   sync.Cond
}

// run runs f in a goroutine and returns true, unless the bus has closed.
func (h *helpers) run(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.n++
	go func() { // ends with f; wait waits for it
		g := gid.Current()
		h.enter(g)
		defer h.leave(g)
		f()
	}()
	return true
}

func (h *helpers) enter(g uintptr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gids == nil {
		h.gids = map[uintptr]bool{}
	}
	h.gids[g] = true
}

func (h *helpers) leave(g uintptr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.gids, g)
	if h.n--; h.n == 0 && h.done.L != nil {
		h.done.Broadcast()
	}
}

// has reports whether g is one of them.
func (h *helpers) has(g uintptr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gids[g]
}

func (h *helpers) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

// wait waits until none is left; no more will start.
func (h *helpers) wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.done.L = &h.mu
	for h.n > 0 {
		h.done.Wait()
	}
}

// podSet is all pods of a bus.
type podSet struct {
	mu      sync.Mutex // guards all below
	closed  bool
	last    uint64
	pods    map[uint64]*Pod
	leaving map[uint64]*Pod // disconnected, but a handler, wait function or loop is still running
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

// remove takes out a pod that was disconnected. As long as it works it is to be found among
// everyone.
func (s *podSet) remove(p *Pod) {
	s.mu.Lock()
	delete(s.pods, p.id)
	if s.leaving == nil {
		s.leaving = map[uint64]*Pod{}
	}
	s.leaving[p.id] = p
	s.mu.Unlock()
	s.settle(p)
}

// settle forgets a pod that was disconnected once it no longer works.
func (s *podSet) settle(p *Pod) {
	if !p.working() {
		s.mu.Lock()
		delete(s.leaving, p.id)
		s.mu.Unlock()
	}
}

// everyone returns all pods, and those that were disconnected and still work.
func (s *podSet) everyone() []*Pod {
	all := s.all()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.leaving {
		all = append(all, p)
	}
	return all
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

// podCounts is what a pod, or all that have gone, did.
type podCounts struct {
	delivered, failed atomic.Uint64
	busy              atomic.Int64 // nanoseconds in handlers
	rare              atomic.Pointer[rareCounts]
}

// rareCounts is what few pods have to count.
type rareCounts struct {
	dropped, lags, panics, deadLetters atomic.Uint64
}

func (c *podCounts) seldom() *rareCounts {
	if r := c.rare.Load(); r != nil {
		return r
	}
	c.rare.CompareAndSwap(nil, new(rareCounts))
	return c.rare.Load()
}

// moveTo adds c to sum and leaves c at zero.
func (c *podCounts) moveTo(sum *podCounts) {
	sum.delivered.Add(c.delivered.Swap(0))
	sum.failed.Add(c.failed.Swap(0))
	sum.busy.Add(c.busy.Swap(0))
	if r := c.rare.Load(); r != nil {
		to := sum.seldom()
		to.dropped.Add(r.dropped.Swap(0))
		to.lags.Add(r.lags.Swap(0))
		to.panics.Add(r.panics.Swap(0))
		to.deadLetters.Add(r.deadLetters.Swap(0))
	}
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
	Panics      uint64        // handler calls that panicked; they are among those that failed
	Buffered    int           // messages kept for replay
	Working     int           // handlers, waits and reply functions that are running or about to; at zero nothing moves until somebody sends
	HandlerTime time.Duration // spent in handlers
	Pods        []PodStats    // connected pods, in the order they connected
}

// PodStats is a snapshot of a pod. A message counts as delivered when the batch it was claimed in
// is done: for an idle pod the counts are exact.
type PodStats struct {
	Name        string
	Group       string        // empty for none
	Working     bool          // a handler or wait function is running or about to
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

// Stats returns a snapshot of the bus. It takes time in proportion to the number of pods, and does
// not hold up senders for longer than one mailbox takes.
func (b *Bus) Stats() Stats {
	s := Stats{
		NodeUUID:    b.NodeUUID,
		Refused:     b.refused.Load(),
		RepliesLost: b.repliesLost.Load() + b.parked.lostCount(),
	}
	if b.buffer != nil {
		s.Buffered = b.buffer.Len()
		s.Sent = b.buffer.pushed()
	} else {
		s.Sent = b.sentUnbuffered()
	}
	s.Delivered, s.Failed, s.HandlerTime = b.gone.delivered.Load(), b.gone.failed.Load(), time.Duration(b.gone.busy.Load())
	rare := b.gone.seldom()
	s.Dropped, s.Panics, s.DeadLetters = rare.dropped.Load(), rare.panics.Load(), rare.deadLetters.Load()
	s.Working = int(b.working.Load()+b.looping.Load()) + b.helpers.count()
	groups := map[string]bool{}
	for _, p := range b.pods.all() {
		ps := p.Stats()
		s.Pods = append(s.Pods, ps)
		s.Delivered += ps.Delivered
		s.Failed += ps.Failed
		s.Panics += ps.Panics
		s.DeadLetters += ps.DeadLetters
		s.HandlerTime += ps.HandlerTime
		if ps.Group == "" || !groups[ps.Group] {
			s.Dropped += ps.Dropped
			groups[ps.Group] = true
		}
	}
	return s
}

// sentUnbuffered adds up what the lanes have counted.
func (b *Bus) sentUnbuffered() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	sent := b.graph.Sent()
	for l := range b.routed {
		sent += l.Sent()
	}
	return sent
}

// closedErr is why a pod or its bus does not take part any more.
func (p *Pod) closedErr() error {
	if p.bus.state.Load() != busOpen {
		return ErrClosed
	}
	return ErrDisconnected
}
