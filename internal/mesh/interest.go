package mesh

import (
	"slices"
	"strings"
	"sync"

	"github.com/gravbus/gravbus/internal/wire"
)

// Bounds of interest frames: entries larger than a chunk are split.
const (
	chunkSize    = 16 << 10 // bytes of patterns
	chunkEntries = 256
	maxPatterns  = 64 // in one entry
)

// MaxInterestCost bounds what the interest of one peer may count, see entryCost.
const MaxInterestCost = 64 << 20

// interests is what this node wants of others.
//
// Invariant: every link that is connected has been told all of it, or will be: under mu it is
// either given a snapshot, or told of a change.
type interests[T any] struct {
	mu      sync.Mutex // guards all below
	entries map[string]*interest
	links   map[*Link[T]]bool // those that have been given a snapshot
}

// interest is an entry, and how many want it.
type interest struct {
	entry   wire.Entry
	wants   int
	answers int // of them, those who would answer a request
}

func (i *interest) wire() wire.Entry {
	e := i.entry
	e.Observer = i.answers == 0
	return e
}

// Want adds what a receiver wants. It is undone by Unwant with the same arguments. Patterns in deny are a
// refinement: if there are too many, more comes than is wanted. An observer does not answer requests.
func (n *Node[T]) Want(group string, allow, deny []string, observer bool) {
	n.interests.change(group, allow, deny, observer, 1)
}

// Unwant undoes one Want.
func (n *Node[T]) Unwant(group string, allow, deny []string, observer bool) {
	n.interests.change(group, allow, deny, observer, -1)
}

func (s *interests[T]) change(group string, allow, deny []string, observer bool, by int) {
	if len(deny) > maxPatterns {
		deny = nil
	}
	if len(allow) <= maxPatterns {
		s.changeEntry(wire.Entry{Group: group, Allow: allow, Deny: deny}, observer, by)
		return
	}
	// Parts of the sorted patterns: the same interest has the same parts.
	for part := range slices.Chunk(slices.Sorted(slices.Values(allow)), maxPatterns) {
		s.changeEntry(wire.Entry{Group: group, Allow: part, Deny: deny}, observer, by)
	}
}

func (s *interests[T]) changeEntry(e wire.Entry, observer bool, by int) {
	key := entryKey(&e)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.entries[key]
	if i == nil {
		i = &interest{entry: e}
		if s.entries == nil {
			s.entries = map[string]*interest{}
		}
		s.entries[key] = i
	}
	before, wanted := i.wire(), i.wants > 0
	i.wants += by
	if !observer {
		i.answers += by
	}
	after := i.wire()
	switch {
	case i.wants == 0:
		delete(s.entries, key)
		after.Remove = true
	case wanted && before.Observer == after.Observer:
		return
	}
	for l := range s.links {
		l.mu.Lock()
		if l.control.dirty == nil {
			l.control.dirty = map[string]wire.Entry{}
		}
		l.control.dirty[key] = after
		l.mu.Unlock()
		l.signal()
	}
}

// syncTo makes the link be told everything, and from then on every change.
func (s *interests[T]) syncTo(l *Link[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all [][]wire.Entry
	var chunk []wire.Entry
	size := 0
	for _, i := range s.entries {
		e := i.wire()
		chunk = append(chunk, e)
		if size += entrySize(&e); size > chunkSize || len(chunk) == chunkEntries {
			all, chunk, size = append(all, chunk), nil, 0
		}
	}
	all = append(all, chunk) // there is always one: it says that it is all
	if s.links == nil {
		s.links = map[*Link[T]]bool{}
	}
	s.links[l] = true
	l.mu.Lock()
	l.control.full, l.control.fullNext, l.control.dirty = all, 0, nil
	l.mu.Unlock()
}

// forget makes the link be told no more.
func (s *interests[T]) forget(l *Link[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
}

// entryKey identifies an entry: no pattern contains white space, and a group's name has its length
// before it.
func entryKey(e *wire.Entry) string {
	var b strings.Builder
	b.WriteByte(byte(len(e.Group)))
	b.WriteString(e.Group)
	for _, p := range slices.Sorted(slices.Values(e.Allow)) {
		b.WriteString(p)
		b.WriteByte(' ')
	}
	b.WriteByte('\n')
	for _, p := range slices.Sorted(slices.Values(e.Deny)) {
		b.WriteString(p)
		b.WriteByte(' ')
	}
	return b.String()
}

// entrySize is about as much as an entry takes in a frame.
func entrySize(e *wire.Entry) int {
	n := 64 + len(e.Group)
	for _, p := range e.Allow {
		n += len(p) + 16
	}
	for _, p := range e.Deny {
		n += len(p) + 16
	}
	return n
}

// entryCost is what an entry of a peer counts: as much as it takes in memory, or a little more. An
// entry is kept here and in two route tables, which for a pattern with a wildcard have a branch with a
// map for each token; a group has a table of its own.
func entryCost(e *wire.Entry) int {
	n := 256
	if e.Group != "" {
		n += 1000 + 4*len(e.Group)
	}
	for _, p := range e.Allow {
		n += 400 + 4*len(p) + wildCost(p)
	}
	for _, p := range e.Deny {
		n += 64 + 4*len(p)
	}
	return n
}

// wildCost is what the tokens of a pattern count: nothing if it has no wildcard.
func wildCost(pattern string) (n int) {
	wild := false
	for token := range strings.SplitSeq(pattern, ".") {
		if token == "*" || token == ">" {
			wild = true
			n += 100
		} else {
			n += 600
		}
	}
	if !wild {
		return 0
	}
	return n
}

// interested takes what the peer says it wants.
func (l *Link[T]) interested(f *wire.Interest) error {
	var add, remove []wire.Entry
	l.mu.Lock()
	if l.left {
		l.mu.Unlock()
		return nil
	}
	if f.Reset {
		l.sync, l.syncSize = map[string]wire.Entry{}, 0
	}
	into, size := &l.wanted, &l.wantSize
	if l.sync != nil {
		into, size = &l.sync, &l.syncSize
	}
	if *into == nil {
		*into = map[string]wire.Entry{}
	}
	for i := range f.Entries {
		e := f.Entries[i]
		key := entryKey(&e)
		old, known := (*into)[key]
		switch {
		case e.Remove && known:
			delete(*into, key)
			*size -= entryCost(&old)
			remove = append(remove, old)
		case e.Remove || known && old.Observer == e.Observer:
		default:
			(*into)[key] = e
			if !known {
				*size += entryCost(&e)
			} else {
				remove = append(remove, old)
			}
			add = append(add, e)
		}
	}
	if len(*into) > MaxInterests || *size > MaxInterestCost {
		l.mu.Unlock()
		return cut(wire.CodeTooMuch, "more than %d interests, or they count more than %d", MaxInterests, MaxInterestCost)
	}
	up := false
	if l.sync != nil {
		add, remove = nil, nil
		if f.Done {
			for key, e := range l.sync {
				if old, ok := l.wanted[key]; !ok {
					add = append(add, e)
				} else if old.Observer != e.Observer {
					add, remove = append(add, e), append(remove, old)
				}
			}
			for key, e := range l.wanted {
				if _, ok := l.sync[key]; !ok {
					remove = append(remove, e)
				}
			}
			l.wanted, l.wantSize = l.sync, l.syncSize
			l.sync = nil
			up = l.state == Connected
		}
	}
	l.mu.Unlock()
	if len(add)+len(remove) > 0 {
		l.node.host.Interested(l, add, remove)
	}
	if up {
		l.mu.Lock()
		l.setLocked(Ready)
		l.mu.Unlock()
		l.node.up(l)
	}
	l.node.changed()
	return nil
}
