package gravbus

import (
	"cmp"
	"crypto/x509"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/route"
	"github.com/gravbus/gravbus/transport"
)

// Defaults of a bus among others.
const (
	DefaultMesh           = "gravbus"        // name of the mesh
	DefaultLinkMessages   = 65536            // waiting for a peer
	DefaultLinkBytes      = 32 << 20         // waiting for a peer
	DefaultWindowMessages = 16384            // under way between two peers, in one direction
	DefaultWindowBytes    = 4 << 20          // under way between two peers, in one direction
	DefaultDeadAfter      = 10 * time.Second // of silence
	DefaultResumeFor      = 2 * time.Minute  // that a peer may be away
	DefaultHandshakeTime  = 5 * time.Second  // for a handshake, dialling included
)

// MinMeshKey is how many bytes a mesh key has at least: 16, as a guess at a shorter one could be
// tried at leisure by whoever got a node to dial it.
const MinMeshKey = 16

type meshConfig struct {
	transport   transport.Transport
	listen      transport.ListenOptions
	discoveries []discovery.Discovery
	name        string
	mesh        string
	keys        [][]byte
	open        bool
	advertise   []string
	interests   []string
	accept      func(PeerInfo) error
	exports     *route.Interest
	imports     *route.Interest
	badExport   error // what is wrong with the patterns of UseExport, nil if nothing is
	badImport   error // the same of UseImport
	queue       mailbox.Config
	deadAfter   time.Duration
	resumeFor   time.Duration
}

func defaultMeshConfig() meshConfig {
	return meshConfig{
		mesh:      DefaultMesh,
		queue:     mailbox.Config{Bound: DefaultLinkMessages, Cap: DefaultLinkMessages, MaxCost: DefaultLinkBytes, Stall: DefaultStallLimit, Width: 1},
		deadAfter: DefaultDeadAfter,
		resumeFor: DefaultResumeFor,
	}
}

// check returns what Start returns for a configuration that is bad from the beginning.
func (c *meshConfig) check() error {
	if len(c.keys) > 4 || slices.ContainsFunc(c.keys, func(k []byte) bool { return len(k) < MinMeshKey }) {
		return ErrMeshKey
	}
	return cmp.Or(c.badExport, c.badImport)
}

// config makes the mesh's configuration.
func (c *meshConfig) config(b *Bus, x *meshed) *mesh.Config {
	m := &mesh.Config{
		ID:           wireID(uuid.MustParse(b.NodeUUID)),
		Name:         c.name,
		Mesh:         c.mesh,
		Keys:         c.keys,
		Open:         c.open,
		Capabilities: c.interests,
		Advertise:    c.advertise,
		Transport:    c.transport,
		Listen:       c.listen,
		Discoveries:  c.discoveries,
		MaxMessage:   DefaultMaxMessageSize,
		WindowCount:  DefaultWindowMessages,
		WindowCost:   DefaultWindowBytes,
		DeadAfter:    c.deadAfter,
		ResumeFor:    c.resumeFor,
		Handshake:    DefaultHandshakeTime,
		Log:          x.log.slog(),
	}
	if b.maxSize > 0 {
		m.MaxMessage = b.maxSize
	}
	if c.accept != nil {
		m.Accept = func(p *mesh.Peer, i transport.Info) error {
			return c.accept(PeerInfo{
				NodeUUID: uuid.UUID(p.ID).String(), Name: p.Name, Mesh: p.Mesh, Endpoints: p.Endpoints, Capabilities: p.Capabilities,
				Authenticated: p.Authenticated, RemoteAddr: i.RemoteAddr, Certificates: i.Certificates,
			})
		}
	}
	return m
}

// PeerInfo is what is known of another node.
type PeerInfo struct {
	NodeUUID      string              `json:"node_uuid"`
	Name          string              `json:"name,omitempty"` // UseNodeName
	Mesh          string              `json:"mesh,omitempty"`
	Endpoints     []string            `json:"endpoints,omitempty"`    // where it says that it can be reached
	Capabilities  []string            `json:"capabilities,omitempty"` // UseInterests
	Version       int                 `json:"version,omitempty"`      // of the protocol that both speak
	Authenticated bool                `json:"authenticated"`          // it has proved a mesh key
	RemoteAddr    string              `json:"remote_addr,omitempty"`  // of the connection; for UseAccept only
	Certificates  []*x509.Certificate `json:"-"`                      // that it has shown and that were checked; for UseAccept only
}

// UseTransport gives the bus a transport, such as that of package transport/websocket, by which it
// can be one of many. Start begins to listen.
func UseTransport(t transport.Transport) Option { return func(c *busConfig) { c.mesh.transport = t } }

// UseDiscovery adds a discovery, such as that of package discovery/mdns, which finds other nodes
// from Start on.
func UseDiscovery(d discovery.Discovery) Option {
	return func(c *busConfig) {
		if d != nil {
			c.mesh.discoveries = append(c.mesh.discoveries, d)
		}
	}
}

// UseEndpoint makes the transport listen at another port and path than it is configured for. What
// is empty stays as it is.
func UseEndpoint(port, path string) Option {
	return func(c *busConfig) { c.mesh.listen = transport.ListenOptions{Port: port, Path: path} }
}

// UseAdvertise gives endpoints at which other nodes can reach this one, such as those of a proxy in
// front of it. They come before those that the transport knows. They are to lead to no other node: one
// that answers there counts as having taken the address of this one. Others are told the first 32 of
// all these; with one of more than 255 bytes Start fails.
func UseAdvertise(endpoints ...string) Option {
	return func(c *busConfig) { c.mesh.advertise = append(c.mesh.advertise, endpoints...) }
}

// UseNodeName names the node for people: in Stats, events and logs of other nodes. Of a longer name
// they get 255 bytes.
func UseNodeName(name string) Option { return func(c *busConfig) { c.mesh.name = name } }

// UseMesh names the mesh that the node belongs to, DefaultMesh if empty. Nodes of different meshes
// refuse each other with ErrMeshMismatch; "*" goes with every mesh. The name keeps apart what
// happens to be on one network; it keeps out nobody, which is what UseMeshKey is for. With a name of
// more than 255 bytes Start fails.
func UseMesh(name string) Option {
	return func(c *busConfig) {
		if c.mesh.mesh = name; name == "" {
			c.mesh.mesh = DefaultMesh
		}
	}
}

// UseBelongsTo is Grav's name for UseMesh.
func UseBelongsTo(group string) Option { return UseMesh(group) }

// UseMeshKey makes the node prove that it knows a key, and refuse those that do not, with
// ErrUnauthorized. A key is at least MinMeshKey random bytes; it is never sent. Of several, at most
// 4, any will do: to change the key, first add the new one everywhere, then remove the old one.
// Start returns ErrMeshKey for a key that is too short, or too many.
//
// Without TLS the key keeps out strangers, but who can read the network reads the messages, and who can
// get between two nodes, as anybody on the LAN can with mDNS, forges them too.
func UseMeshKey(keys ...[]byte) Option {
	return func(c *busConfig) {
		c.mesh.keys = nil
		for _, k := range keys {
			c.mesh.keys = append(c.mesh.keys, slices.Clone(k))
		}
	}
}

// UseOpenMesh allows the node to listen beyond this machine without a mesh key or client
// certificates: everybody who can reach it can send and receive.
func UseOpenMesh() Option { return func(c *busConfig) { c.mesh.open = true } }

// UseInterests gives the node capabilities by which Tunnel finds it: at most 256, of at most 255 bytes
// each, and together with the endpoints about 16 KiB. With more Start fails.
func UseInterests(capabilities ...string) Option {
	return func(c *busConfig) { c.mesh.interests = append(c.mesh.interests, capabilities...) }
}

// UseAccept makes fn decide about each node that has proved itself, for each connection. If it
// returns an error the node is refused with ErrRejected, and is told the error's text. fn is called
// by several goroutines and should return soon; it must not call Close, which waits for it.
func UseAccept(fn func(PeerInfo) error) Option { return func(c *busConfig) { c.mesh.accept = fn } }

// UseExport says which messages may leave the node: those whose type matches one of the patterns.
// Without it all may. If a pattern is invalid Start returns a *TypeError. Events of the bus never leave it.
func UseExport(patterns ...string) Option {
	return func(c *busConfig) {
		c.mesh.exports, c.mesh.badExport = &route.Interest{Allow: validPatterns(patterns)}, checkPatterns(patterns)
	}
}

// UseImport says which messages of peers may enter: those whose type matches one of the patterns.
// Others are dropped, and counted in Stats. Without it all may. If a pattern is invalid Start returns a
// *TypeError.
func UseImport(patterns ...string) Option {
	return func(c *busConfig) {
		c.mesh.imports, c.mesh.badImport = &route.Interest{Allow: validPatterns(patterns)}, checkPatterns(patterns)
	}
}

// UseLinkBounds bounds what waits to be sent to each peer, DefaultLinkMessages and DefaultLinkBytes
// unless positive. A message counts as MaxBytes of a Buffer says. When either is reached, what
// UseLinkOverflow says happens. What is under way and not acknowledged is bounded by the peer's
// window beside that.
func UseLinkBounds(messages, bytes int) Option {
	return func(c *busConfig) {
		q := &c.mesh.queue
		q.Bound, q.MaxCost = positive(messages, DefaultLinkMessages), positive(bytes, DefaultLinkBytes)
		q.Cap = q.Bound
	}
}

// UseLinkOverflow says what happens when as much waits for a peer as may: a link is a receiver like
// a pod, and has the same policies and the same default.
func UseLinkOverflow(o OverflowPolicy) Option {
	return func(c *busConfig) {
		if o <= Fail {
			q := &c.mesh.queue
			if q.Policy = mailbox.Policy(o); q.Policy != mailbox.Wait {
				q.Stall = 0
			} else if q.Stall == 0 {
				q.Stall = DefaultStallLimit
			}
		}
	}
}

// UseLinkStallLimit is how long a peer may take nothing, or be away, while somebody waits to send to
// it, before the oldest messages to it give way; DefaultStallLimit unless d is positive.
func UseLinkStallLimit(d time.Duration) Option {
	return func(c *busConfig) {
		if c.mesh.queue.Policy == mailbox.Wait {
			c.mesh.queue.Stall = positive(d, DefaultStallLimit)
		}
	}
}

// UseDeadAfter is how long nothing may be heard of a peer before its connection counts as dead,
// DefaultDeadAfter unless d is positive, and at least 30 ms. A heartbeat is sent three times as
// often.
func UseDeadAfter(d time.Duration) Option {
	return func(c *busConfig) { c.mesh.deadAfter = max(positive(d, DefaultDeadAfter), 30*time.Millisecond) }
}

// UseResumeFor is how long a peer may be away before it is given up, DefaultResumeFor unless d is
// positive. Until then what is sent to it is kept, within UseLinkBounds; after that it is counted as
// a Gap. It is dialled all the same, for ever.
func UseResumeFor(d time.Duration) Option {
	return func(c *busConfig) { c.mesh.resumeFor = positive(d, DefaultResumeFor) }
}
