package gravbus

import (
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
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
	plain       bool // see sendPlain
	podDefaults podConfig
	plainPod    mailbox.Config          // shared by all pods connected without options
	buffer      *Buffer                 // nil: no replay
	graph       *mailbox.Graph[Message] // who waits for whom
	closing     chan struct{}           // closed when Close begins
	state       atomic.Int32
	routes      route.Table[*lane] // which lanes a type goes to
	mesh        *meshed            // nil: alone

	_ [64]byte // above is read at every Send, below is written often

	working                 atomic.Int64     // handlers, wait functions and functions of receipts that run or are about to
	looping                 atomic.Int64     // loops over Messages that have something to do
	insideWork, insideLoops atomic.Int64     // those of them who wait for the bus to drain
	quietMu                 sync.Mutex       // guards quieting
	quieting                map[uintptr]*Pod // goroutines that wait in a Disconnect, and for whose handlers
	drainMu                 sync.Mutex       // guards drain and insiders
	drain                   chan struct{}    // closed at the next progress; nil if nobody waits
	insiders                map[uintptr]*Pod // while the bus drains: whose handlers, or loops, goroutines that sent were last seen to run
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
	c := busConfig{log: logrus.StandardLogger(), replay: DefaultReplay, mesh: defaultMeshConfig()}
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
	b.helpers.bus = b
	b.mesh = newMeshed(b, &c)
	b.plain = b.mesh == nil && b.maxSize == 0
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
		u.lane.Group = groupName(name)
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

// closedErr is why a pod or its bus does not take part any more.
func (p *Pod) closedErr() error {
	if p.bus.state.Load() != busOpen {
		return ErrClosed
	}
	return ErrDisconnected
}
