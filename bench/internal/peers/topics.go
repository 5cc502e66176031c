package peers

import (
	"slices"
	"sync"
	"sync/atomic"
)

// topics keeps one T for each topic: what the limits have in place of a bus. A publisher looks its
// topic up once.
type topics[T any] struct {
	mu     sync.Mutex
	byName map[string]*T // guarded by mu
}

// of returns the topic's T, made by newT if there was none. A nil newT leaves it zero.
func (t *topics[T]) of(topic string, newT func() *T) *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.byName[topic]; ok {
		return v
	}
	if t.byName == nil {
		t.byName = make(map[string]*T)
	}
	v := new(T)
	if newT != nil {
		v = newT()
	}
	t.byName[topic] = v
	return v
}

// all returns those of all topics.
func (t *topics[T]) all() []*T {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*T, 0, len(t.byName))
	for _, v := range t.byName {
		all = append(all, v)
	}
	return all
}

// members is a list that is copied whenever it changes, so that publishers read it without a lock
// and nobody who subscribes waits for them.
type members[T comparable] struct {
	mu   sync.Mutex // makes changes come one at a time
	list atomic.Pointer[[]T]
}

// load returns the list as it is now. It must not be modified.
func (m *members[T]) load() []T {
	if list := m.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (m *members[T]) add(v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := append(slices.Clone(m.load()), v)
	m.list.Store(&list)
}

func (m *members[T]) remove(v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(m.load()), func(have T) bool { return have == v })
	m.list.Store(&list)
}
