// Package memory is a transport within one process, for tests: a network of named nodes that is as
// fast, slow or broken as the test wants.
//
//	network := memory.NewNetwork(memory.Config{})
//	a := gravbus.New(gravbus.UseTransport(network.Transport("a")))
//	b := gravbus.New(gravbus.UseTransport(network.Transport("b")))
//	err := a.Start(ctx) // it listens
//	err = b.ConnectEndpoint("memory:a")
//	…
//	network.Partition([]string{"a"}, []string{"b"}) // they no longer hear each other
//	network.Heal()
//
// A node listens at the endpoint "memory:name". Connections behave like those of a real network:
// each direction holds a bounded number of bytes, word of a Close takes as long as a frame, and
// within a silence neither arrives. What is in doubt there is decided here in the same way each
// time, mostly for the worse, so that a test sees it.
//
// # Time
//
// All waits are on channels, condition variables and timers, and nothing here has a goroutine of its
// own. In a testing/synctest bubble latency takes no real time; the Network must have been made
// inside the bubble.
//
// There is no chance in it: the same calls in the same order do the same. For random faults give
// the test's own generator, with a fixed seed, to Config.Connected.
package memory

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// What Config means by zero.
const (
	DefaultBuffer     = 256 << 10 // bytes
	DefaultMaxPending = 128       // connections
)

var (
	// ErrCut is returned by ReadFrame, WriteFrame and Shutdown after the connection was cut.
	ErrCut = errors.New("memory: connection cut")

	// ErrRefused is returned by Dial if the node does not listen, or refuses connections.
	ErrRefused = errors.New("memory: connection refused")

	// ErrInUse is returned by Listen if the node listens already.
	ErrInUse = errors.New("memory: address in use")
)

// Config describes a Network. The zero value is an open network without latency.
type Config struct {
	// Buffer is how many bytes may be on their way in each direction of a connection before
	// WriteFrame waits, counting some for each frame. A frame that is longer than that travels
	// alone. Zero and less mean DefaultBuffer.
	Buffer int

	// MaxPending is how many connections to one node may wait to be accepted before Dial waits.
	// Zero and less mean DefaultMaxPending.
	MaxPending int

	// Latency is how long a frame takes in each direction until SetLatency says otherwise.
	Latency time.Duration

	// Secure makes connections look encrypted, with a Binding.
	Secure bool

	// Connected, if not nil, is called for each new connection before either side has it, to set
	// the faults that are to befall it. It may use the Network, and must not be slow.
	Connected func(*Connection)
}

// A Network connects nodes. Its methods are safe for concurrent use, and their effect is complete
// when they return.
type Network struct {
	config Config // with the defaults filled in

	mu        sync.Mutex // guards all below; taken before that of a Connection
	changed   sync.Cond  // something that Accept or Dial waits for
	listeners map[string]*listener
	refusing  map[string]bool
	paths     map[path]conditions // those that are not as configured
	open      []*Connection       // in the order in which they were made
	made      uint64              // connections so far
}

// A path is a way from one node to another.
type path struct{ from, to string }

type conditions struct {
	latency time.Duration
	silent  bool
}

// NewNetwork returns a network on which nobody listens.
func NewNetwork(c Config) *Network {
	if c.Buffer <= 0 {
		c.Buffer = DefaultBuffer
	}
	if c.MaxPending <= 0 {
		c.MaxPending = DefaultMaxPending
	}
	n := &Network{
		config:    c,
		listeners: make(map[string]*listener),
		refusing:  make(map[string]bool),
		paths:     make(map[path]conditions),
	}
	n.changed.L = &n.mu
	return n
}

// onLocked returns the conditions on a path.
func (n *Network) onLocked(p path) conditions {
	if c, ok := n.paths[p]; ok {
		return c
	}
	return conditions{latency: n.config.Latency}
}

// forget takes a connection that has ended off the list.
func (n *Network) forget(c *Connection) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := slices.Index(n.open, c); i >= 0 {
		n.open = slices.Delete(n.open, i, i+1)
	}
}
