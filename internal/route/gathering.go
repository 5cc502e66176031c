package route

import (
	"cmp"
	"slices"
)

// gathering collects the registrations that want one type.
type gathering[S comparable] struct {
	typ   string
	regs  []*registration[S]
	lists int  // lists that gave a registration
	plain bool // all registrations so far are plain
}

// add takes the registrations of l that do not deny the type.
func (g *gathering[S]) add(l *list[S]) {
	before := len(g.regs)
	for p := l.first; p != nil; p = p.next {
		if matchAny(p.reg.deny, g.typ) {
			continue
		}
		g.regs = append(g.regs, p.reg)
		g.plain = g.plain && p.reg.plain
	}
	if len(g.regs) > before {
		g.lists++
	}
}

// sinks returns each sink once, in order of registration, in a new slice without
// spare room; nil if there is none.
func (g *gathering[S]) sinks() []S {
	if len(g.regs) == 0 {
		return nil
	}
	if g.lists > 1 {
		slices.SortFunc(g.regs, func(a, b *registration[S]) int { return cmp.Compare(a.order, b.order) })
	}
	sinks := make([]S, 0, len(g.regs))
	if g.lists == 1 && g.plain { // distinct by the invariant of list
		for _, r := range g.regs {
			sinks = append(sinks, r.sink)
		}
		return sinks
	}
	seen := newSeen[S](len(g.regs))
	for _, r := range g.regs {
		if seen.first(r.sink, sinks) {
			sinks = append(sinks, r.sink)
		}
	}
	return slices.Clip(sinks)
}

// seen tells sinks already in a result from new ones.
type seen[S comparable] map[S]struct{} // nil for results that are quicker to search

func newSeen[S comparable](size int) seen[S] {
	if size <= 32 {
		return nil
	}
	return make(seen[S], size)
}

func (s seen[S]) first(sink S, sinks []S) bool {
	if s == nil {
		return !slices.Contains(sinks, sink)
	}
	if _, ok := s[sink]; ok {
		return false
	}
	s[sink] = struct{}{}
	return true
}
