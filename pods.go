package gravbus

import (
	"slices"
	"sync"
)

// podSet is all pods of a bus.
type podSet struct {
	mu      sync.Mutex // guards all below
	closed  bool
	last    uint64
	pods    map[uint64]*Pod
	leaving map[uint64]*Pod // disconnected, but a handler, wait function or loop is still running
}

// add numbers p and keeps it, or marks it as closed.
func (s *podSet) add(b *Bus, p *Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	p.id = s.last
	p.init()
	if s.closed || b.state.Load() != busOpen {
		p.state.Store(podClosed)
		return
	}
	if s.pods == nil {
		s.pods = map[uint64]*Pod{}
	}
	s.pods[p.id] = p
}

// number gives p a number without keeping it.
func (s *podSet) number(p *Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	p.id = s.last | peerBit
	p.start = p.drain
}

// peerBit marks the numbers of hidden pods, which stand for peers.
const peerBit = 1 << 63

func isPeer(pod uint64) bool { return pod&peerBit != 0 }

// remove takes out a pod that was disconnected. As long as it works it is to be found among
// everyone.
func (s *podSet) remove(p *Pod) {
	s.mu.Lock()
	delete(s.pods, p.id)
	if s.leaving == nil {
		s.leaving = map[uint64]*Pod{}
	}
	s.leaving[p.id] = p
	s.mu.Unlock()
	s.settle(p)
}

// settle forgets a pod that was disconnected once it no longer works.
func (s *podSet) settle(p *Pod) {
	if !p.working() {
		s.mu.Lock()
		delete(s.leaving, p.id)
		s.mu.Unlock()
	}
}

// everyone returns all pods, and those that were disconnected and still work, in no order.
func (s *podSet) everyone() []*Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Pod, 0, len(s.pods)+len(s.leaving))
	for _, p := range s.pods {
		all = append(all, p)
	}
	for _, p := range s.leaving {
		all = append(all, p)
	}
	return all
}

// close returns all pods; there will be no more.
func (s *podSet) close() []*Pod {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.all()
}

func (s *podSet) all() []*Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Pod, 0, len(s.pods))
	for _, p := range s.pods {
		all = append(all, p)
	}
	slices.SortFunc(all, func(p, q *Pod) int { return int(p.id) - int(q.id) })
	return all
}

func (s *podSet) get(id uint64) *Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pods[id]
}

// name returns the name of the pod with the given number, even if it has gone.
func (s *podSet) name(id uint64) string {
	if p := s.get(id); p != nil {
		return p.Name()
	}
	return defaultName(id)
}

// working returns the names of the pods that have something to do.
func (s *podSet) working() (names []string) {
	for _, p := range s.all() {
		if p.working() {
			names = append(names, p.Name())
		}
	}
	slices.Sort(names)
	return names
}

// nameOf returns the name of a pod, or of the node that it stands for.
func (b *Bus) nameOf(id uint64) string {
	if p := b.mesh.owner(id); p != nil {
		return p.pod.Name()
	}
	return b.pods.name(id)
}
