package gravbus

import (
	"slices"

	"github.com/gravbus/gravbus/internal/route"
)

// On makes fn receive every message but the pod's own and those that FilterType and FilterUUID
// refuse. It replaces what On or OnType set before: messages that wait for the pod go to fn. A nil
// fn ignores all messages. Events of the bus need OnType. Errors are ErrDisconnected, ErrClosed, and
// a *TypeError for an invalid pattern of ReplayTypes.
func (p *Pod) On(fn MsgFunc) error { return p.on([]string{">"}, fn, true) }

// OnType makes fn receive the messages of a type, or of several: each of them may be a pattern, in
// which the token * stands for any one token and > at the end for one or more. Otherwise it is as
// On; an invalid pattern is a *TypeError, and changes nothing.
func (p *Pod) OnType(pattern string, fn MsgFunc, more ...string) error {
	return p.on(append([]string{pattern}, more...), fn, true)
}

func (p *Pod) on(patterns []string, fn MsgFunc, notice bool) error {
	if err := checkPatterns(patterns); err != nil {
		return err
	}
	if r := p.cfg.replay; r != nil {
		if err := checkPatterns(r.types); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if fn == nil {
		patterns = nil
	}
	return p.listen(patterns, &handler{fn: fn, notice: notice})
}

func checkPatterns(patterns []string) error {
	for _, pattern := range patterns {
		if err := route.CheckPattern(pattern); err != nil {
			return typeError(err)
		}
	}
	return nil
}

// FilterType refuses a type (or all types of a pattern) with allow false, and takes that back with
// allow true. If the pod has set its handler by OnType, allow true adds the type to those that it
// receives. Filters outlast On and OnType; what is refused by one is not allowed by another. Errors
// are a *TypeError for an invalid pattern, ErrDisconnected and ErrClosed.
func (p *Pod) FilterType(pattern string, allow bool) error {
	if err := checkPatterns([]string{pattern}); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.extra()
	patterns := slices.Clone(p.interest().Allow)
	if allow {
		x.denied = slices.DeleteFunc(slices.Clone(x.denied), func(d string) bool { return d == pattern })
		if len(patterns) > 0 && !slices.Equal(patterns, []string{">"}) && !slices.Contains(patterns, pattern) {
			patterns = append(patterns, pattern)
		}
	} else if !slices.Contains(x.denied, pattern) {
		x.denied = append(slices.Clone(x.denied), pattern)
	}
	h := p.handler.Load()
	if h == nil {
		if p.state.Load() != podOpen {
			return p.closedErr()
		}
		return nil
	}
	next := *h
	return p.listen(patterns, &next)
}

// FilterUUID refuses the message with the given UUID with allow false, and takes that back with
// allow true. It applies to messages that are handled from now on.
func (p *Pod) FilterUUID(uuid string, allow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.extra()
	refused := make(map[string]bool, len(x.uuids)+1)
	for u := range x.uuids {
		refused[u] = true
	}
	if allow {
		delete(refused, uuid)
	} else {
		refused[uuid] = true
	}
	x.uuids = refused
	if h := p.handler.Load(); h != nil {
		next := *h
		next.uuids = refused
		p.handler.Store(&next)
		if p.use != nil && p.cfg.group != "" {
			p.reader.Rejoin(next.competes())
		}
	}
}

// interest returns what the pod's handler wants.
func (p *Pod) interest() route.Interest {
	if h := p.handler.Load(); h != nil {
		return *h.wanted
	}
	return route.Interest{}
}

// denied returns what FilterType refuses.
func (p *Pod) denied() []string {
	if p.extras == nil {
		return nil
	}
	return p.extras.denied
}

// listen makes h handle what the patterns want. The caller holds p.mu.
func (p *Pod) listen(patterns []string, h *handler) error {
	if p.state.Load() != podOpen {
		return p.closedErr()
	}
	b := p.bus
	before := p.interest()
	next := route.Interest{}
	if len(patterns) > 0 {
		next = route.Interest{Allow: patterns, Deny: p.denied()}
	}
	if p.extras != nil {
		h.uuids = p.extras.uuids
	}
	if old := p.handler.Load(); old != nil {
		h.replay = old.replay
	}
	key := laneKey{interest: next.Key(), bound: p.mail.Bound, private: p.mail.Private()}

	switch {
	case p.use == nil && len(patterns) == 0:
		h.wanted = new(route.Interest)
		p.handler.Store(h)
	case p.use == nil && p.cfg.group != "":
		h.wanted = &route.Interest{Allow: next.Allow, Deny: next.Deny}
		p.handler.Store(h)
		p.use = b.joinGroup(p.cfg.group, p.mail.Bound, next)
		want, wants := h.competes()
		p.reader.Join(p.use.lane, want, wants)
		b.mesh.want(p, next)
	case p.use == nil:
		p.use = b.join(key, next)
		h.wanted = &p.use.interest
		if p.cfg.replay != nil {
			h.replay = b.mesh.newReplaying(p)
			p.handler.Store(h)
			p.reader.Attach(p.use.lane, key.private, true)
			b.mesh.want(p, next)
			b.mesh.beginReplay(p, h)
			p.reader.Begin(p.history(h.replay))
		} else {
			p.handler.Store(h)
			p.reader.Attach(p.use.lane, key.private, false)
			b.mesh.want(p, next)
		}
	case before.Key() == next.Key():
		h.wanted = p.handler.Load().wanted
		p.handler.Store(h)
	case p.cfg.group != "":
		h.wanted = &route.Interest{Allow: next.Allow, Deny: next.Deny}
		settle := p.change(h)
		b.addToGroup(p.use, next)
		p.reader.Rejoin(h.competes()) // counts what nobody wants any more
		settle()
		b.mesh.want(p, next)
		b.mesh.unwant(p, before)
		b.removeFromGroup(p.use, before)
	default:
		// Order matters, see mailbox.Reader.Move: the new lane is known to nobody until the reader
		// is on it.
		old, fresh := p.use, b.newUse(key, next)
		p.use = fresh
		h.wanted = &fresh.interest
		settle := p.change(h)
		p.reader.Move(fresh.lane, key.private, wantsOf(next), func() { b.publish(fresh) })
		settle()
		b.mesh.want(p, next)
		b.mesh.unwant(p, before)
		b.leave(old)
	}
	return nil
}

// change sets the handler to h, while the reader still claims for the one before. settle is to be
// called when it claims for h. The caller holds p.mu.
func (p *Pod) change(h *handler) (settle func()) {
	moving := *h
	moving.moving = true
	p.handler.Store(&moving)
	return func() { p.handler.Store(h) }
}

// competes returns what a member of a group with this handler takes, and a name for it.
func (h *handler) competes() (want string, wants func(Message) bool) {
	if len(h.uuids) == 0 {
		return h.wanted.Key(), wantsOf(*h.wanted)
	}
	wanted, uuids := *h.wanted, h.uuids
	return "", func(msg Message) bool { return wanted.Match(msg.Type()) && !uuids[msg.UUID()] }
}

func wantsOf(i route.Interest) func(Message) bool {
	return func(msg Message) bool { return i.Match(msg.Type()) }
}

// history returns what the pod wants of the past, and up to where the past goes. What it gets of
// peers by asking them is left out.
func (p *Pod) history(peers *replaying) ([]item, uint64) {
	items, latest := p.replayable(func(from uint64, _ Message) bool { return from != p.id })
	items = peers.gets(items)
	if n, last := len(items), p.cfg.replay.last; last > 0 && n > last {
		items = items[n-last:]
	}
	return items, latest
}

// replayable returns what the buffer has that the pod wants replayed, if it fits, and up to where the
// buffer goes.
func (p *Pod) replayable(fits func(from uint64, msg Message) bool) (items []item, latest uint64) {
	b := p.bus.buffer
	if b == nil {
		return nil, 0
	}
	r := p.cfg.replay
	all, latest := b.snapshot()
	first := latest - uint64(len(all)) + 1
	if r.after != "" {
		rest, _ := after(all, r.after)
		first += uint64(len(all) - len(rest))
		all = rest
	}
	wanted, types := p.interest(), route.Interest{Allow: r.types}
	for i, s := range all {
		typ := s.msg.Type()
		if fits(s.from, s.msg) && wanted.Match(typ) && !s.msg.Timestamp().Before(r.since) && (len(r.types) == 0 || types.Match(typ)) {
			items = append(items, item{Val: s.msg, From: s.from, Seq: first + uint64(i)})
		}
	}
	return items, latest
}
