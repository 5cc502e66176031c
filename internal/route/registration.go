package route

// identity is what makes two registrations the same. Sinks have to be equal to
// themselves.
type identity[S comparable] struct {
	sink S
	key  string // of the interest
}

// registration is a sink with one interest, however many times it was added.
type registration[S comparable] struct {
	sink   S
	order  uint64   // ascending in order of registration
	count  int      // Adds not undone. Invariant: > 0 while in the table
	plain  bool     // its interest is exactly one pattern
	deny   []string // for places with a wildcard: types not wanted after all
	places []place[S]
	one    [1]place[S] // backs places in the common case, to save an allocation
}

// place is where a registration stands in the table: under one of its patterns.
type place[S comparable] struct {
	reg        *registration[S]
	pattern    string
	wild       bool      // pattern has a wildcard
	prev, next *place[S] // in the list
}

// newRegistration returns a registration with its places, none of them in the
// table yet.
func newRegistration[S comparable](sink S, in Interest, order uint64) *registration[S] {
	r := &registration[S]{sink: sink, order: order, count: 1}
	allow := set(in.Allow)
	r.plain = len(allow) == 1 && len(in.Deny) == 0
	r.places = r.one[:0]
	if len(allow) > 1 {
		r.places = make([]place[S], 0, len(allow))
	}
	for _, pattern := range allow {
		wild := hasWildcard(pattern)
		// A literal pattern is itself the type: whether it is denied is known now.
		if !wild && matchAny(in.Deny, pattern) {
			continue
		}
		if wild {
			r.deny = in.Deny
		}
		r.places = append(r.places, place[S]{reg: r, pattern: pattern, wild: wild})
	}
	return r
}

// list holds the places of one pattern.
//
// Invariant: ascending in reg.order. Invariant: no two plain registrations of
// one sink, for they would have the same identity.
type list[S comparable] struct {
	first, last *place[S]
}

func (l *list[S]) empty() bool { return l.first == nil }

func (l *list[S]) push(p *place[S]) {
	p.prev = l.last
	if l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
}

func (l *list[S]) remove(p *place[S]) {
	if p.prev == nil {
		l.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}
