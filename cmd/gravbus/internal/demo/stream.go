package demo

import (
	"context"
	"sync"
)

// Seen is what a node received of the messages that one node sent in one act, which are numbered
// from 1.
type Seen struct {
	Received int64 `json:"received"` // doubled ones among them
	Doubled  int64 `json:"doubled"`
	Late     int64 `json:"late"` // after one with a higher number
}

// stream follows the messages that one node sends in one act.
type stream struct {
	seen Seen
	got  []bool // by number
}

func (s *stream) add(n int64) {
	s.seen.Received++
	switch {
	case n < int64(len(s.got)) && s.got[n]:
		s.seen.Doubled++
		return
	case n < int64(len(s.got)):
		s.seen.Late++
	default:
		s.got = append(s.got, make([]bool, n+1-int64(len(s.got)))...)
	}
	s.got[n] = true
}

// streams is all that a node has received. The zero value is ready.
type streams struct {
	mu   sync.Mutex // guards all below
	all  map[string]*stream
	more chan struct{} // closed when something comes; nil if nobody waits
}

func (s *streams) add(name string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.all[name]
	if one == nil {
		if s.all == nil {
			s.all = map[string]*stream{}
		}
		one = &stream{}
		s.all[name] = one
	}
	one.add(n)
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
}

// await waits until n different messages of a stream have come, or ctx ends.
func (s *streams) await(ctx context.Context, name string, n int64) {
	for {
		s.mu.Lock()
		have := int64(0)
		if one := s.all[name]; one != nil {
			have = one.seen.Received - one.seen.Doubled
		}
		if s.more == nil {
			s.more = make(chan struct{})
		}
		more := s.more
		s.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// snapshot returns what has come of each stream.
func (s *streams) snapshot() map[string]Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]Seen, len(s.all))
	for name, one := range s.all {
		all[name] = one.seen
	}
	return all
}
