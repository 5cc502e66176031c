package discoverytest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

// env is what a rule is checked with. Only the goroutine of the check uses it.
type env struct {
	Network
	limit time.Duration // for whatever should happen soon
	nodes []*node
}

func newEnv(n Network) *env {
	e := &env{Network: n, limit: n.Within}
	if e.limit == 0 {
		e.limit = 20 * time.Second
	}
	if e.Bubble {
		e.limit = 61 * time.Second // a node has to be told of at least every minute
	}
	return e
}

// pass lets time pass: so much in a bubble, so much without.
func (e *env) pass(bubble, real time.Duration) {
	e.pause(bubble, real)
	if e.Bubble {
		synctest.Wait()
	}
}

// pause waits, as pass does, but does not wait for what others do meanwhile.
func (e *env) pause(bubble, real time.Duration) {
	if e.Bubble {
		real = bubble
	}
	<-time.After(real)
}

// do calls f, and reports an error if it does not return in time.
func (e *env) do(what string, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }() // for as long as f takes
	select {
	case err := <-done:
		return err
	case <-time.After(e.limit):
		return fmt.Errorf("%s does not return, not within %v", what, e.limit)
	}
}

// close closes all nodes that are not closed.
func (e *env) close() (err error) {
	for _, n := range e.nodes {
		if !n.closed {
			err = errors.Join(err, n.close())
		}
	}
	return err
}

// heardErr reports what must not happen whatever the rule.
func (e *env) heardErr() (err error) {
	if e.Bubble {
		synctest.Wait()
	}
	for _, n := range e.nodes {
		err = errors.Join(err, n.ears.err())
	}
	return err
}

// A node is one that looks for others.
type node struct {
	env       *env
	number    int
	discovery discovery.Discovery
	session   discovery.Session
	ears      *ears
	closed    bool

	mu        sync.Mutex // guards endpoints
	endpoints []string
}

// node returns node number i, which is not started.
func (e *env) node(i int) *node {
	return &node{env: e, number: i, discovery: e.New(), ears: newEars(), endpoints: []string{Endpoint(i)}}
}

// start returns node number i, started.
func (e *env) start(i int) (*node, error) {
	n := e.node(i)
	return n, n.start(context.Background())
}

// startAll starts nodes 0 to count-1.
func (e *env) startAll(count int) ([]*node, error) {
	for i := range count {
		if _, err := e.start(i); err != nil {
			return nil, err
		}
	}
	return e.nodes, nil
}

func uuid(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i+1) }

// start starts the node, again if it was closed.
func (n *node) start(ctx context.Context) error {
	self := discovery.Self{
		UUID: uuid(n.number),
		Mesh: "discoverytest",
		Endpoints: func() []string {
			n.mu.Lock()
			defer n.mu.Unlock()
			return slices.Clone(n.endpoints)
		},
		Log: slog.New(slog.DiscardHandler),
	}
	n.ears.open()
	err := n.env.do("Start", func() (err error) {
		n.session, err = n.discovery.Start(ctx, self, n.ears.found)
		return err
	})
	if err != nil {
		return fmt.Errorf("error of Start: %w", err)
	}
	if n.session == nil {
		return errors.New("neither a session nor an error comes from Start")
	}
	n.closed = false
	n.env.nodes = append(n.env.nodes, n)
	return nil
}

// close closes the node. Nothing may be found from then on.
func (n *node) close() error {
	n.closed = true
	err := n.env.do("Close", n.session.Close)
	n.ears.close()
	if err != nil {
		return fmt.Errorf("error of Close: %w", err)
	}
	return nil
}

// move changes the endpoints.
func (n *node) move(endpoints ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.endpoints = endpoints
}

// is reports whether what was found is the node, at its first endpoint.
func (n *node) is(other discovery.Node) bool {
	if n.env.Announces && other.UUID != uuid(n.number) {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(other.Endpoints, n.endpoints[0])
}

// hears waits until the node was told of others, from its call number since on.
func (n *node) hears(since int, others ...*node) error {
	for _, other := range others {
		if other == n {
			continue
		}
		if !n.ears.await(n.env.limit, func(calls []call) bool {
			for _, c := range calls[min(since, len(calls)):] {
				if other.is(c.node) {
					return true
				}
			}
			return false
		}) {
			return fmt.Errorf("node %d is not told of node %d within %v; it was told of %s",
				n.number, other.number, n.env.limit, n.ears)
		}
	}
	return nil
}

// doesNotHear reports an error if the node was told of a UUID, from its call number since on.
func (n *node) doesNotHear(since int, uuid, why string) error {
	for _, c := range n.ears.since(since) {
		if c.node.UUID == uuid {
			return fmt.Errorf("node %d is told of a node %s: %q", n.number, why, c.node)
		}
	}
	return nil
}
