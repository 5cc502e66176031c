package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

// Dir is a discovery by a directory that all nodes can read and write, such as a network drive. Each
// node keeps a file there: its name is the node's UUID, in it are the node's endpoints, one a line.
type Dir string

// Start implements discovery.Discovery.
func (d Dir) Start(_ context.Context, self discovery.Self, found func(discovery.Node)) (discovery.Session, error) {
	s := &session{dir: string(d), self: self, found: found, stop: make(chan struct{})}
	if err := s.announce(); err != nil {
		return nil, err // a directory that is not there, for one: no use to try again
	}
	s.done.Go(s.run)
	return s, nil
}

type session struct {
	dir   string
	self  discovery.Self
	found func(discovery.Node)
	once  sync.Once
	stop  chan struct{} // closed by Close
	done  sync.WaitGroup
}

// run looks every second, which is as often as the bus may be told of a node.
func (s *session) run() {
	for {
		if err := s.look(); err != nil {
			s.self.Log.Warn("directory", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-s.stop:
			return
		}
		if err := s.announce(); err != nil { // the endpoints may have changed
			s.self.Log.Warn("directory", "err", err)
		}
	}
}

// announce writes this node's file. Who only dials has none. The file gets its name when it is
// complete, so nobody reads half of it.
func (s *session) announce() error {
	endpoints := s.self.Endpoints()
	if len(endpoints) == 0 {
		return s.withdraw()
	}
	draft := s.file() + ".draft"
	if err := os.WriteFile(draft, []byte(strings.Join(endpoints, "\n")), 0o644); err != nil {
		return err
	}
	return os.Rename(draft, s.file())
}

func (s *session) withdraw() error {
	if err := os.Remove(s.file()); !os.IsNotExist(err) {
		return err
	}
	return nil
}

func (s *session) file() string { return filepath.Join(s.dir, s.self.UUID) }

// look tells the bus of all nodes, of this one too, as the bus knows itself. A node that crashed
// has left its file; to dial it in vain does no harm.
func (s *session) look() error {
	files, err := os.ReadDir(s.dir)
	for _, file := range files {
		endpoints, rerr := os.ReadFile(filepath.Join(s.dir, file.Name()))
		node := discovery.Node{UUID: file.Name(), Endpoints: strings.Fields(string(endpoints))}
		if rerr == nil && len(node.UUID) == 36 && len(node.Endpoints) > 0 {
			s.found(node)
		}
	}
	return err
}

// Hurry implements discovery.Session. It looks often enough.
func (s *session) Hurry() {}

// Close implements discovery.Session.
func (s *session) Close() (err error) {
	s.once.Do(func() {
		close(s.stop)
		s.done.Wait()
		err = s.withdraw()
	})
	return err
}
