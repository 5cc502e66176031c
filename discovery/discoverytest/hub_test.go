package discoverytest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

// hub is a discovery of the nodes in one process. A fault makes it break a rule.
type hub struct {
	fault   string
	release chan struct{} // closed when the test is over: whoever is left has to end

	mu       sync.Mutex // guards sessions
	sessions []*session
}

func newHub(fault string) *hub { return &hub{fault: fault, release: make(chan struct{})} }

// New returns the discovery of one node.
func (h *hub) New() discovery.Discovery { return &node{hub: h} }

type node struct {
	hub     *hub
	started bool
}

type session struct {
	hub       *hub
	self      discovery.Self
	endpoints []string // at the start
	found     func(discovery.Node)
	hurry     chan struct{}
	cancel    context.CancelFunc
	done      sync.WaitGroup
	closes    int // guarded by hub.mu
}

func (n *node) Start(ctx context.Context, self discovery.Self, found func(discovery.Node)) (discovery.Session, error) {
	if n.hub.fault == "starts once" && n.started {
		return nil, errors.New("started")
	}
	n.started = true
	s := &session{hub: n.hub, self: self, endpoints: self.Endpoints(), found: found, hurry: make(chan struct{}, 1)}
	if s.hub.fault == "Hurry waits" {
		s.hurry = make(chan struct{})
	}
	if s.hub.fault != "ends with the context" {
		ctx = context.Background()
	}
	ctx, s.cancel = context.WithCancel(ctx)
	s.hub.mu.Lock()
	s.hub.sessions = append(s.hub.sessions, s)
	s.hub.mu.Unlock()
	s.done.Go(func() { s.run(ctx) })
	if s.hub.fault == "leaves a goroutine" {
		go func() { <-s.hub.release }()
	}
	return s, nil
}

func (s *session) Hurry() {
	switch s.hub.fault {
	case "Hurry waits":
		select {
		case s.hurry <- struct{}{}:
		case <-s.hub.release:
		}
		return
	case "Hurry does nothing":
		return
	}
	select {
	case s.hurry <- struct{}{}:
	default:
	}
}

func (s *session) Close() error {
	s.hub.mu.Lock()
	s.closes++
	closes := s.closes
	if s.hub.fault != "announces for ever" {
		s.hub.sessions = slices.DeleteFunc(s.hub.sessions, func(other *session) bool { return other == s })
	}
	s.hub.mu.Unlock()
	switch {
	case s.hub.fault == "Close does not end" && closes == 1:
		<-s.hub.release
	case s.hub.fault == "closes once" && closes > 1:
		return errors.New("closed")
	case s.hub.fault == "tells after Close":
		go func() {
			s.done.Wait()
			select {
			case <-time.After(200 * time.Millisecond):
				s.found(discovery.Node{Endpoints: []string{"192.0.2.1:1"}})
			case <-s.hub.release:
			}
		}()
	}
	s.cancel()
	if s.hub.fault != "Close does not wait" {
		s.done.Wait()
	}
	return nil
}

func (s *session) run(ctx context.Context) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		s.look(ctx)
		switch s.hub.fault {
		case "tells once":
			<-ctx.Done()
		case "tells every 100 ms":
			pause = 100 * time.Millisecond
		case "tells every 2 minutes":
			pause = max(pause, 2*time.Minute)
		}
		began := time.Now()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		case <-s.hurry:
			pause = time.Second / 2
			if s.hub.fault == "hurries too much" {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second - time.Since(began)):
			}
		}
	}
}

func (s *session) look(ctx context.Context) {
	s.hub.mu.Lock()
	others := slices.Clone(s.hub.sessions)
	s.hub.mu.Unlock()
	if i := slices.Index(others, s); s.hub.fault == "finds earlier ones" && i >= 0 {
		others = others[:i]
	}
	for i, other := range others {
		n := discovery.Node{UUID: other.self.UUID, Endpoints: other.self.Endpoints()}
		if s.hub.fault == "announces who only dials" && len(n.Endpoints) == 0 {
			n.Endpoints = []string{"192.0.2.1:1"}
		}
		if len(n.Endpoints) == 0 || ctx.Err() != nil {
			continue
		}
		switch s.hub.fault {
		case "finds nobody":
			continue
		case "finds one":
			if i != 0 {
				continue
			}
		case "no endpoints":
			n.Endpoints = nil
		case "an empty endpoint":
			n.Endpoints = append(n.Endpoints, "")
		case "no UUID":
			n.UUID = "node-1"
		case "first endpoints":
			n.Endpoints = other.endpoints
		case "two at a time":
			s.done.Go(func() { s.found(n) })
			continue
		}
		s.found(n)
	}
}
