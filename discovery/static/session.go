package static

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

var (
	errEmpty = errors.New("it is empty")
	errSpace = errors.New("it has white space or control characters")
)

// A bus must hear of a node at least every minute. Invariant: that is more than the longest pause,
// the jitter and one look together.
const (
	firstPause = time.Second
	lastPause  = 30 * time.Second
	lookLimit  = 5 * time.Second // for all lookups of one look, which run side by side
)

// session implements discovery.Session.
type session struct {
	seeds  []*seed
	found  func(discovery.Node)
	hurry  chan struct{} // holds one: Hurry was called
	cancel context.CancelFunc
	done   sync.WaitGroup // the goroutine of run
}

func newSession(seeds []string, resolver Resolver, log *slog.Logger, found func(discovery.Node)) *session {
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &session{found: found, hurry: make(chan struct{}, 1), cancel: cancel}
	for _, text := range seeds {
		s.seeds = append(s.seeds, newSeed(text, resolver, log))
	}
	if len(s.seeds) > 0 {
		s.done.Go(func() { s.run(ctx) }) // until Close
	}
	return s
}

// Hurry implements discovery.Session.
func (s *session) Hurry() {
	select {
	case s.hurry <- struct{}{}:
	default: // one that was not seen yet will do
	}
}

// Close implements discovery.Session.
func (s *session) Close() error {
	s.cancel()
	s.done.Wait()
	return nil
}

// run tells of the seeds until ctx ends. It is the only one to call found.
func (s *session) run(ctx context.Context) {
	for pause := firstPause; ctx.Err() == nil; {
		s.look(ctx)
		if s.rest(ctx, pause+rand.N(pause/4)) {
			pause = firstPause
		} else {
			pause = min(2*pause, lastPause)
		}
	}
}

// rest waits until the next look is due, and reports whether Hurry was called. Even then a second
// passes: a bus hears of a node no more often.
func (s *session) rest(ctx context.Context, pause time.Duration) (hurried bool) {
	began := time.Now()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	hurry := s.hurry
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return hurried
		case <-hurry:
			hurried, hurry = true, nil
			timer.Reset(firstPause - time.Since(began)) // at once if that has passed
		}
	}
}

// look tells of all seeds once. Names are resolved side by side, so that a slow one holds up none
// of the others.
func (s *session) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	results := make(chan []discovery.Node, len(s.seeds))
	var lookups sync.WaitGroup
	defer lookups.Wait()
	for _, seed := range s.seeds {
		if seed.host == "" {
			results <- seed.literal()
			continue
		}
		lookups.Go(func() { results <- seed.resolve(ctx) }) // until it is resolved or ctx ends
	}
	told := make(map[string]bool) // endpoints; two names may have the same address
	for range s.seeds {
		for _, node := range <-results {
			s.tell(ctx, node, told)
		}
	}
}

// tell calls found, with those endpoints of node that were not told of in this look.
func (s *session) tell(ctx context.Context, node discovery.Node, told map[string]bool) {
	fresh := node.Endpoints[:0]
	for _, endpoint := range node.Endpoints {
		if !told[endpoint] {
			told[endpoint] = true
			fresh = append(fresh, endpoint)
		}
	}
	if len(fresh) > 0 && !errors.Is(ctx.Err(), context.Canceled) {
		s.found(discovery.Node{Endpoints: fresh})
	}
}
