package route

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Table maps types to sinks. The zero value is an empty table, ready for use. A
// Table is safe for concurrent use and must not be copied after first use.
type Table[S comparable] struct {
	cache atomic.Pointer[cache[S]] // set by the first Find, then for good
	gen   atomic.Uint64            // counts changes of wildcard patterns; written with mu held

	mu       sync.Mutex // guards the rest, and writes to the cache
	regs     map[identity[S]]*registration[S]
	literals map[string]*literal[S] // Invariant: no literal is without members
	wild     branch[S]
	order    uint64 // of the latest registration

	// scratch spares resolveLocked an allocation. Invariant: length 0, and all
	// nil up to its capacity, so that it holds no sink.
	scratch []*registration[S]
}

// literal is a type that registrations ask for by its name.
type literal[S comparable] struct {
	members list[S]

	// result is the result for the type if no wildcard pattern matches it, nil
	// until it is first needed. It costs no more memory than the members do, and
	// lets more types be hot than the cache has slots without allocating. Never
	// changed, only replaced.
	result *Found[S]
}

// Add registers sink for the types that in wants. The patterns of in have to be
// valid; the table keeps them, and they must not be modified afterwards. A sink
// may be added many times, with equal or other interests; each Add is undone by
// one Remove.
func (t *Table[S]) Add(sink S, in Interest) {
	id := identity[S]{sink, in.Key()}
	t.mu.Lock()
	defer t.mu.Unlock()

	if r := t.regs[id]; r != nil {
		r.count++
		return
	}
	if t.regs == nil {
		t.regs = make(map[identity[S]]*registration[S])
		t.literals = make(map[string]*literal[S])
	}
	t.order++
	r := newRegistration(sink, in, t.order)
	t.regs[id] = r
	for i := range r.places {
		p := &r.places[i]
		if p.wild {
			t.wild.add(p, p.pattern)
			continue
		}
		l := t.literals[p.pattern]
		if l == nil {
			l = new(literal[S])
			t.literals[p.pattern] = l
		}
		l.members.push(p)
		l.result = nil
	}
	t.forgetLocked(r)
}

// Remove undoes one Add of sink with an interest that has the same Key. Without
// such an Add it has no effect.
func (t *Table[S]) Remove(sink S, in Interest) {
	id := identity[S]{sink, in.Key()}
	t.mu.Lock()
	defer t.mu.Unlock()

	r := t.regs[id]
	if r == nil {
		return
	}
	if r.count--; r.count > 0 {
		return
	}
	delete(t.regs, id)
	for i := range r.places {
		p := &r.places[i]
		if p.wild {
			t.wild.remove(p, p.pattern)
			continue
		}
		l := t.literals[p.pattern]
		l.members.remove(p)
		l.result = nil
		if l.members.empty() {
			delete(t.literals, p.pattern)
		}
	}
	t.forgetLocked(r)
}

// Lookup returns the sinks that want typ, each once however many of its
// registrations match, in the order in which the oldest matching registration of
// each was added. The caller must not change the slice, which never changes
// either. The error is a *SyntaxError if typ is not a valid type.
func (t *Table[S]) Lookup(typ string) ([]S, error) {
	f, err := t.Find(typ)
	if err != nil {
		return nil, err
	}
	return f.sinks, nil
}

// Find checks typ and finds out who wants it. The error is a *SyntaxError.
func (t *Table[S]) Find(typ string) (*Found[S], error) {
	if c := t.cache.Load(); c != nil {
		if f := c.slot(typ).Load(); f != nil && f.typ == typ && f.gen == t.gen.Load() {
			return f, nil
		}
	}
	return t.findMiss(typ)
}

// Knows reports whether f, which may be nil, is what Find would return for typ now.
// That takes 2 ns where Find takes 6.
func (t *Table[S]) Knows(f *Found[S], typ string) bool {
	return f != nil && f.typ == typ && t.Fresh(f)
}

// Fresh reports whether nothing has changed for f's type since it was found. It may
// report false though nothing has.
func (t *Table[S]) Fresh(f *Found[S]) bool {
	return f.slot.Load() == f && f.gen == t.gen.Load()
}

// Refresh returns what Find would return now for f's type.
func (t *Table[S]) Refresh(f *Found[S]) *Found[S] {
	if t.Fresh(f) {
		return f
	}
	f, _ = t.Find(f.typ) // the type was valid
	return f
}

func (t *Table[S]) findMiss(typ string) (*Found[S], error) {
	t.mu.Lock()
	defer t.mu.Unlock()

	l := t.literals[typ]
	if l == nil { // what was registered is valid
		if err := CheckType(typ); err != nil {
			return nil, err
		}
	}
	c := t.cache.Load()
	if c == nil {
		c = new(cache[S])
		t.cache.Store(c)
	}
	slot := c.slot(typ)
	f := t.resolveLocked(typ, l, slot)
	slot.Store(f)
	return f, nil
}

// resolveLocked works out the result for typ. l is its literal, nil if it has
// none.
func (t *Table[S]) resolveLocked(typ string, l *literal[S], slot *atomic.Pointer[Found[S]]) *Found[S] {
	g := gathering[S]{typ: typ, regs: t.scratch, plain: true}
	defer func() {
		clear(g.regs)
		t.scratch = g.regs[:0]
	}()
	t.wild.find(&g)
	switch {
	case l == nil:
		// Cloned, for typ may be a small part of a large message.
		return t.newEntry(strings.Clone(typ), g.sinks(), slot)
	case g.lists > 0:
		g.add(&l.members)
		return t.newEntry(l.members.first.pattern, g.sinks(), slot)
	case l.result == nil || l.result.gen != t.gen.Load():
		g.add(&l.members)
		l.result = t.newEntry(l.members.first.pattern, g.sinks(), slot)
	}
	return l.result
}

func (t *Table[S]) newEntry(typ string, sinks []S, slot *atomic.Pointer[Found[S]]) *Found[S] {
	return &Found[S]{typ, sinks, t.gen.Load(), slot, IsReserved(typ)}
}

// forgetLocked drops the cached results that r, which was just added or removed,
// makes wrong: one for a literal pattern, all for a wildcard pattern. Each takes
// about 100 ns to work out again when it is next wanted.
func (t *Table[S]) forgetLocked(r *registration[S]) {
	c := t.cache.Load()
	wild := false
	for i := range r.places {
		if p := &r.places[i]; p.wild {
			wild = true
		} else if c != nil {
			c.forget(p.pattern)
		}
	}
	if wild {
		t.gen.Add(1)
	}
}
