package gravbus

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/route"
	"github.com/gravbus/gravbus/internal/wire"
)

// meshed is a bus among others. It is there if the bus was given a transport.
//
// Invariant: what pods want is known to node from when they can receive it until they no longer
// can, so that peers never send too little.
type meshed struct {
	bus     *Bus
	node    *mesh.Node[Message]
	log     meshLog
	queue   mailbox.Config // of links
	exports *route.Interest
	imports *route.Interest
	ctx     context.Context // of deliveries that wait for room
	cancel  context.CancelFunc
	self    *Pod        // sends what the bus itself sends
	quiet   atomic.Bool // nothing is sent to peers any more
	bad     error       // what is wrong with the configuration, nil if nothing is

	routes      route.Table[*peer] // peers by what their pods want
	answers     route.Table[*peer] // the same without those who only watch
	groupRoutes groupRoutes        // groups by what their members at peers want
	grouped     atomic.Int32       // entries in groupRoutes

	pushed uint64 // messages of peers ever put into the buffer; guarded by its mutex

	mu      sync.Mutex // guards all below
	peers   map[*mesh.Link[Message]]*peer
	groups  map[string]*remoteGroup
	replays peerReplays
	tunnels uint64   // counts, to take turns
	without []string // peers that have gone, since the node leaves, without all that was sent to them
}

// newMeshed returns nil if the bus stays alone.
func newMeshed(b *Bus, c *busConfig) *meshed {
	if c.mesh.transport == nil {
		return nil
	}
	x := &meshed{
		bus:     b,
		peers:   map[*mesh.Link[Message]]*peer{},
		groups:  map[string]*remoteGroup{},
		queue:   c.mesh.queue,
		exports: c.mesh.exports,
		imports: c.mesh.imports,
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	x.log.to = c.log
	x.bad = c.mesh.check()
	x.replays.of = map[*Pod]*replaying{}
	x.replays.asked = map[uint64]*asking{}
	x.self = b.hiddenPod("gravbus", nil)
	b.graph.SetCost(costOf)
	x.node = mesh.NewNode(c.mesh.config(b, x), mesh.Host[Message](x))
	return x
}

// hiddenPod returns a pod that is in no list: it stands for something else that sends.
func (b *Bus) hiddenPod(name string, of *peer) *Pod {
	c := b.podDefaults
	c.name, c.peer, c.group, c.replay = name, of, "", nil
	if of != nil {
		c.mail = b.mesh.queue
	}
	p := &Pod{bus: b, cfg: &c, mail: &c.mail}
	b.pods.number(p)
	return p
}

// Start makes the bus listen, and look for other nodes. Errors that will not go away by themselves
// are returned: an address that is in use, a bad configuration, ErrOpenMesh. The context bounds
// Start only. ErrTransportNotConfigured means that New was not given a transport. After an error
// Start may be called again; after it returned nil, that is ErrStarted.
//
// A bus that is not started works for itself.
func (b *Bus) Start(ctx context.Context) error {
	if b.mesh == nil {
		return ErrTransportNotConfigured
	}
	if b.state.Load() != busOpen {
		return ErrClosed
	}
	if b.mesh.bad != nil {
		return b.mesh.bad
	}
	return meshError(b.mesh.node.Start(orBackground(ctx)))
}

// ConnectEndpoint connects to the node at endpoint, in the form that the transport takes, such as
// "host:port", and returns when the link is made or has failed. A link that is made and lost later
// is made again. Errors are those of the transport, the context's, a *PeerError, or Start's for a bad
// configuration. It may be called before Start: the bus then has peers, but does not listen.
func (b *Bus) ConnectEndpoint(endpoint string) error {
	return b.ConnectEndpointContext(context.Background(), endpoint)
}

// ConnectEndpointContext is ConnectEndpoint with an end to the waiting.
func (b *Bus) ConnectEndpointContext(ctx context.Context, endpoint string) error {
	if b.mesh == nil {
		return ErrTransportNotConfigured
	}
	if b.state.Load() != busOpen {
		return ErrClosed
	}
	if b.mesh.bad != nil {
		return b.mesh.bad
	}
	if err := b.mesh.node.Connect(orBackground(ctx), endpoint); err != nil {
		if mesh.IsRefusal(err) {
			return &PeerError{Endpoint: endpoint, Op: "connect", Err: err}
		}
		return meshError(err)
	}
	return nil
}

// Endpoints returns where other nodes can reach this one, the best first; none before Start.
func (b *Bus) Endpoints() []string {
	if b.mesh == nil {
		return nil
	}
	return b.mesh.node.Endpoints()
}

// meshError gives errors of the mesh the names they have here.
func meshError(err error) error {
	switch {
	case errors.Is(err, mesh.ErrClosed):
		return ErrClosed
	case errors.Is(err, mesh.ErrStarted):
		return ErrStarted
	case errors.Is(err, mesh.ErrOpen):
		return ErrOpenMesh
	}
	return err
}

// WaitPeers waits until at least n peers are connected, and what they want is known. It returns the
// context's error when that ends first, ErrTransportNotConfigured or ErrClosed.
func (b *Bus) WaitPeers(ctx context.Context, n int) error {
	if b.mesh == nil {
		return ErrTransportNotConfigured
	}
	return meshError(b.mesh.node.Await(orBackground(ctx), func() bool { return b.mesh.ready() >= n }))
}

// ready returns how many peers are connected, and what they want is known.
func (x *meshed) ready() (n int) {
	for _, l := range x.node.Links() {
		if l.State() == mesh.Ready {
			n++
		}
	}
	return n
}

// WaitInterest waits until pods of at least n peers want the type. Otherwise it is as WaitPeers; an
// invalid type is a *TypeError, and one of the bus's own, which no peer can want, ErrReservedType.
func (b *Bus) WaitInterest(ctx context.Context, typ string, n int) error {
	if b.mesh == nil {
		return ErrTransportNotConfigured
	}
	if err := checkType(typ); err != nil {
		return err
	}
	if route.IsReserved(typ) {
		return ErrReservedType
	}
	return meshError(b.mesh.node.Await(orBackground(ctx), func() bool { return b.mesh.interested(typ) >= n }))
}

// interested returns how many connected peers want the type, by themselves or in a group.
func (x *meshed) interested(typ string) (n int) {
	var all []*peer
	peers, _ := x.routes.Lookup(typ)
	all = append(all, peers...)
	for _, g := range x.groupsFor(typ) {
		all = append(all, g.peers(typ)...)
	}
	seen := map[*peer]bool{}
	for _, p := range all {
		if !seen[p] && p.link.State() == mesh.Ready {
			n++
		}
		seen[p] = true
	}
	return n
}

// want and unwant tell the peers what a receiver wants.
func (x *meshed) want(p *Pod, i route.Interest) {
	if allow := x.importable(i.Allow); len(allow) > 0 {
		x.node.Want(groupName(p.cfg.group), allow, i.Deny, p.mail.Extra && p.cfg.group == "")
	}
}

func (x *meshed) unwant(p *Pod, i route.Interest) {
	if allow := x.importable(i.Allow); len(allow) > 0 {
		x.node.Unwant(groupName(p.cfg.group), allow, i.Deny, p.mail.Extra && p.cfg.group == "")
	}
}

// groupName is what a group is called among nodes.
func groupName(name string) string {
	if len(name) <= wire.MaxName {
		return name
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name)))
}

// importable returns those of the patterns that may match something that peers can send.
func (x *meshed) importable(patterns []string) []string {
	if x == nil {
		return nil
	}
	may := func(p string) bool {
		return !route.IsReserved(p) && (x.imports == nil ||
			slices.ContainsFunc(x.imports.Allow, func(i string) bool { return route.Overlap(i, p) }))
	}
	if !slices.ContainsFunc(patterns, func(p string) bool { return !may(p) }) {
		return patterns
	}
	return slices.DeleteFunc(slices.Clone(patterns), func(p string) bool { return !may(p) })
}

// pushedHere returns how many messages of peers were put into the buffer.
func (x *meshed) pushedHere() uint64 {
	if x == nil {
		return 0
	}
	x.bus.buffer.mu.Lock()
	defer x.bus.buffer.mu.Unlock()
	return x.pushed
}

func (x *meshed) wantWait(w *wait) {
	if allow := x.importable(w.use.interest.Allow); len(allow) > 0 {
		x.node.Want("", allow, w.use.interest.Deny, w.pod.mail.Extra)
	}
}

func (x *meshed) unwantWait(w *wait) {
	if allow := x.importable(w.use.interest.Allow); len(allow) > 0 {
		x.node.Unwant("", allow, w.use.interest.Deny, w.pod.mail.Extra)
	}
}

// list returns all peers that are not lost.
func (x *meshed) list() []*peer {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := make([]*peer, 0, len(x.peers))
	for _, p := range x.peers {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *peer) int { return int(a.pod.id) - int(b.pod.id) })
	return all
}

// owner returns the peer whose pod has the number, or nil.
func (x *meshed) owner(id uint64) *peer {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.peers {
		if p.pod.id == id {
			return p
		}
	}
	return nil
}

func wireID(id uuid.UUID) wire.ID { return wire.ID(id) }

// costOf is what a message counts in a link's bounds, without encoding a typed payload.
func costOf(msg Message) int {
	switch m := msg.(type) {
	case *message:
		return m.size()
	case *routed:
		return m.size()
	}
	return messageOverhead
}
