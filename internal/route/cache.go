package route

import (
	"hash/maphash"
	"sync/atomic"
)

// cacheSize is how many results a table keeps: 8 KiB of slots. A power of two.
const cacheSize = 1024

// seed is shared by all tables, so that the zero Table needs none.
var seed = maphash.MakeSeed()

// cache keeps the latest results, each in the one slot that its type falls into.
//
// Invariant: slots are only written with the table's mutex held, and a change of
// the table clears what it makes wrong, or makes it older than the table's
// generation, before the mutex is released. So a result computed before a change
// is never taken for one after it.
type cache[S comparable] [cacheSize]atomic.Pointer[Found[S]]

// Found is a valid type, and who wants it. It is not changed once it is in the
// cache.
type Found[S comparable] struct {
	typ      string
	sinks    []S
	gen      uint64                    // the table's when it was worked out; another makes it stale
	slot     *atomic.Pointer[Found[S]] // where it is cached; something else there makes it stale
	reserved bool
}

// Sinks returns the sinks, as Lookup does.
func (f *Found[S]) Sinks() []S { return f.sinks }

// Reserved reports whether the type is one of Reserved.
func (f *Found[S]) Reserved() bool { return f.reserved }

func (c *cache[S]) slot(typ string) *atomic.Pointer[Found[S]] {
	return &c[maphash.String(seed, typ)%cacheSize]
}

// forget drops the result for typ, if there is one.
func (c *cache[S]) forget(typ string) {
	s := c.slot(typ)
	if e := s.Load(); e != nil && e.typ == typ {
		s.Store(nil)
	}
}
