package route

import "strings"

// branch is a node of the trie of wildcard patterns: the patterns that begin
// with the tokens on the way from the root to it.
//
// Invariant: every branch but the root has a member or a child.
type branch[S comparable] struct {
	members list[S] // patterns that end here
	next    map[string]*branch[S]
	any     *branch[S] // by anyToken
	rest    *branch[S] // by anyRest
}

func (b *branch[S]) empty() bool {
	return b.members.empty() && len(b.next) == 0 && b.any == nil && b.rest == nil
}

// child returns the branch that token leads to, or nil. The wildcards are tokens
// here.
func (b *branch[S]) child(token string) *branch[S] {
	switch token {
	case anyToken:
		return b.any
	case anyRest:
		return b.rest
	}
	return b.next[token]
}

// setChild makes token lead to c, nowhere if c is nil.
func (b *branch[S]) setChild(token string, c *branch[S]) {
	switch {
	case token == anyToken:
		b.any = c
	case token == anyRest:
		b.rest = c
	case c == nil:
		delete(b.next, token)
	default:
		if b.next == nil {
			b.next = make(map[string]*branch[S])
		}
		b.next[token] = c
	}
}

// add puts p below b at the end of path, the rest of its pattern.
func (b *branch[S]) add(p *place[S], path string) {
	for more := true; more; {
		var token string
		token, path, more = strings.Cut(path, ".")
		c := b.child(token)
		if c == nil {
			c = new(branch[S])
			b.setChild(token, c)
		}
		b = c
	}
	b.members.push(p)
}

// remove takes p out again, and the branches that only it needed.
func (b *branch[S]) remove(p *place[S], path string) {
	token, path, more := strings.Cut(path, ".")
	c := b.child(token)
	if more {
		c.remove(p, path)
	} else {
		c.members.remove(p)
	}
	if c.empty() {
		b.setChild(token, nil)
	}
}

// find gathers the registrations below the root b that want g.typ.
func (b *branch[S]) find(g *gathering[S]) {
	if IsReserved(g.typ) {
		token, path, more := strings.Cut(g.typ, ".")
		b.next[token].follow(g, path, more)
		return
	}
	b.walk(g, g.typ)
}

// walk follows path, which has at least one token.
func (b *branch[S]) walk(g *gathering[S], path string) {
	if b.rest != nil {
		g.add(&b.rest.members)
	}
	if b.any == nil && b.next == nil {
		return
	}
	token, path, more := strings.Cut(path, ".")
	b.next[token].follow(g, path, more)
	b.any.follow(g, path, more)
}

// follow goes on at b, which may be nil: down the path if there is more of it.
func (b *branch[S]) follow(g *gathering[S], path string, more bool) {
	switch {
	case b == nil:
	case more:
		b.walk(g, path)
	default:
		g.add(&b.members)
	}
}
