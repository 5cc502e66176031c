package mdns

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/mdns"

	"github.com/gravbus/gravbus/discovery"
)

const (
	firstPause = time.Second     // and the shortest: a bus hears of a node no more often
	scanPause  = 5 * time.Second // between scans, which cost a few system calls for each interface
)

// session implements discovery.Session.
type session struct {
	config Config
	self   discovery.Self
	found  func(discovery.Node)
	log    *logger
	hurry  chan struct{} // holds one: Hurry was called
	cancel context.CancelFunc
	done   sync.WaitGroup // the goroutine of run

	// Only newSession and then run use these.
	zone      zone
	announced []string // endpoints
	links     []link
	servers   servers
	known     known
}

// newSession returns a session that answers questions already.
func newSession(c Config, self discovery.Self, found func(discovery.Node)) *session {
	ctx, cancel := context.WithCancel(context.Background())
	self.UUID = strings.ToLower(self.UUID)
	s := &session{
		config: c,
		self:   self,
		found:  found,
		log:    newLogger(self.Log),
		hurry:  make(chan struct{}, 1),
		cancel: cancel,
		known:  make(known),
	}
	s.servers = servers{zone: &s.zone, log: s.log, library: s.log.library(), open: make(map[string]*mdns.Server)}
	s.scan()
	s.done.Go(func() { s.run(ctx) }) // until Close
	return s
}

// Hurry implements discovery.Session.
func (s *session) Hurry() {
	select {
	case s.hurry <- struct{}{}:
	default: // one that was not seen yet will do
	}
}

// Close implements discovery.Session. It takes up to the timeout if a question is out.
func (s *session) Close() error {
	s.cancel()
	s.done.Wait()
	return nil
}

// run looks for nodes until ctx ends. It is the only one to call found.
func (s *session) run(ctx context.Context) {
	defer s.log.close()
	defer s.servers.close()
	defer s.zone.withdraw()
	for pause := firstPause; ctx.Err() == nil; {
		s.look(ctx)
		if s.rest(ctx, pause+rand.N(pause/4)) {
			pause = firstPause
		} else {
			pause = min(2*pause, s.config.Interval)
		}
	}
}

// rest waits until the next look is due, and reports whether there was a reason to hurry: Hurry, or
// other links than before. Even then a second passes.
func (s *session) rest(ctx context.Context, pause time.Duration) (hurried bool) {
	began := time.Now()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	scan := time.NewTicker(scanPause)
	defer scan.Stop()
	for hurry := s.hurry; ; {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return s.scan() || hurried
		case <-scan.C:
			if !s.scan() {
				continue
			}
		case <-hurry:
			hurry = nil
		}
		if !hurried {
			hurried = true
			timer.Reset(firstPause - time.Since(began)) // at once if that has passed
		}
	}
}

// scan finds out which links there are and what to announce, and sees to it that questions are
// answered so. It reports whether there are other links than before.
func (s *session) scan() (changed bool) {
	links := s.findLinks()
	changed = !slices.EqualFunc(links, s.links, func(a, b link) bool { return a.state == b.state })
	s.links = links

	if endpoints := announceable(s.self.Endpoints()); !slices.Equal(endpoints, s.announced) {
		s.announced = endpoints
		if err := s.zone.announce(s.config, s.self, endpoints); err != nil {
			s.log.warn("announce", "mdns: this node is not announced", "err", err)
		}
	}
	if len(s.announced) == 0 {
		links = nil // nothing to answer
	}
	s.servers.set(links)
	return changed
}

// findLinks returns the links there are, and complains if that is not as it should be.
func (s *session) findLinks() []link {
	links, err := s.config.findLinks()
	switch {
	case err != nil:
		s.log.warn("links", "mdns: the interfaces are not known", "err", err)
		return s.links
	case len(links) == 0:
		s.log.warn("links", "mdns: there is no network to look in")
	default:
		s.log.clear("links", "mdns: there is a network to look in")
	}
	for _, name := range s.config.Interfaces {
		if slices.ContainsFunc(links, func(k link) bool { return k.iface.Name == name }) {
			s.log.clear("interface "+name, "mdns: an interface is there", "interface", name)
		} else {
			s.log.warn("interface "+name, "mdns: an interface is not there, is down or has no address", "interface", name)
		}
	}
	if len(links) > maxLinks {
		s.log.warn("many", "mdns: too many interfaces, some are not used", "limit", maxLinks)
		links = links[:maxLinks]
	}
	return links
}

// look asks on all links and tells of all nodes that are known then.
func (s *session) look(ctx context.Context) {
	mesh := meshName(s.self.Mesh)
	var (
		asking  sync.WaitGroup
		mu      sync.Mutex // guards answers
		answers []answer
	)
	for _, k := range s.links {
		for _, network := range s.config.networks(k) {
			asking.Go(func() { // until the timeout
				more, err := s.config.ask(k, network, mesh, s.servers.library)
				key := "ask " + network + " " + k.iface.Name
				if err != nil {
					s.log.warn(key, "mdns: cannot ask", "interface", k.iface.Name, "network", network, "err", err)
					return
				}
				s.log.clear(key, "mdns: can ask again", "interface", k.iface.Name, "network", network)
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, more...)
			})
		}
	}
	asking.Wait()

	answers = slices.DeleteFunc(answers, func(a answer) bool { return a.uuid == s.self.UUID })
	if !s.known.hear(answers, time.Now()) {
		s.log.warn("known", "mdns: too many nodes, some are passed over", "limit", maxKnown)
	}
	for _, node := range s.known.nodes() {
		if ctx.Err() != nil {
			return
		}
		s.found(node)
	}
}
