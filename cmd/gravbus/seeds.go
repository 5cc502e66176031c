package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gravbus/gravbus/transport"
	"github.com/sirupsen/logrus"
)

// seedGrace is how long a seed may be out of reach before people are told: it may be starting too.
const seedGrace = time.Second

// seeds is a transport that notes how it goes with the seeds, for people who wonder why nobody is
// there.
type seeds struct {
	transport.Transport
	list  []string
	log   *logrus.Logger // nil if nobody has asked for the seeds
	alone func() bool    // whether no other node is connected

	mu      sync.Mutex       // guards all below
	begun   time.Time        // the first dial
	failed  map[string]error // why a seed was not reached last; by seed
	told    map[string]bool  // that it is not reached; by seed
	refused string           // the last node that was, or has refused this one, and why
}

// checkSeed returns what is wrong with an endpoint.
func checkSeed(t transport.Transport, endpoint string) error {
	if strings.HasPrefix(endpoint, "-") {
		return fmt.Errorf("--seed needs an endpoint such as host:8080; %s is a flag", endpoint)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	c, err := t.Dial(ended, endpoint) // which looks at the endpoint first
	if err == nil {
		return c.Close()
	}
	if errors.Is(err, transport.ErrEndpoint) {
		return fmt.Errorf("--seed: %s", strings.TrimPrefix(err.Error(), "transport: "))
	}
	return nil
}

// Dial implements transport.Transport.
func (s *seeds) Dial(ctx context.Context, endpoint string) (transport.Conn, error) {
	s.mu.Lock()
	if s.begun.IsZero() {
		s.begun = time.Now()
	}
	s.mu.Unlock()
	c, err := s.Transport.Dial(ctx, endpoint)
	for _, seed := range s.list {
		if seed == endpoint && !errors.Is(err, context.Canceled) {
			s.dialled(seed, err)
		}
	}
	return c, err
}

// dialled notes how a dial went, and tells once of a seed that is out of reach, unless others are
// connected: one seed is enough.
func (s *seeds) dialled(seed string, err error) {
	alone := err != nil && s.alone()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed, s.told = map[string]error{}, map[string]bool{}
	}
	s.failed[seed] = err
	if s.log != nil && alone && !s.told[seed] && time.Since(s.begun) >= seedGrace {
		s.told[seed] = true
		s.log.Warnf("seed %s is not reached: %s; trying again", seed, shortly(err))
	}
}

// refusal notes a node that is no peer.
func (s *seeds) refusal(remote, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = remote + ": " + why
}

// why tells what is known of why no node was found, in brackets, or is empty.
func (s *seeds) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, seed := range s.list {
		if err := s.failed[seed]; err != nil {
			all = append(all, seed+": "+shortly(err))
		}
	}
	if s.refused != "" {
		all = append(all, s.refused)
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, "; ") + ")"
}

// shortly leaves out of an error of a dial what was dialled, and by which calls.
func shortly(err error) string {
	var no syscall.Errno
	var dial *net.OpError
	switch {
	case errors.As(err, &no):
		return no.Error()
	case errors.As(err, &dial):
		return dial.Err.Error()
	}
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "websocket: dial ") {
		return inner.Error()
	}
	return err.Error()
}
