package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// Backing off: how long to wait before dialling a peer again.
const (
	firstDelay = 100 * time.Millisecond // doubles each time
	lastDelay  = 10 * time.Second
	// A side that did not dial before waits a moment longer, and so does the one with the higher ID
	// that is told of another: mostly the other side is quicker, and one connection is enough.
	courtesy = 500 * time.Millisecond
	// How long it is believed who is at an endpoint, without a proof.
	believeFor = time.Minute
	// Between the endpoints of one node, while the one before has not answered.
	nextEndpoint = 200 * time.Millisecond
)

// found is told of a node by a discovery.
func (n *Node[T]) found(d discovery.Node) {
	id, err := parseID(d.UUID)
	if err != nil || id == n.cfg.ID || len(d.Endpoints) == 0 || n.leaving.Load() {
		return
	}
	n.hint(id, d.Endpoints[:min(len(d.Endpoints), maxEndpoints)])
}

// told is told of nodes by a peer: that is all that may ever be heard of them, so they are dialled
// until there is a link.
func (n *Node[T]) told(peers []wire.Peer) {
	for _, p := range peers {
		if p.Node == n.cfg.ID || p.Node == (wire.ID{}) || len(p.Endpoints) == 0 {
			continue
		}
		l := n.linkIfRoom(p.Node)
		if l == nil {
			return
		}
		l.mu.Lock()
		l.learnLocked("", nil, p.Endpoints)
		present := l.state >= Connected || l.deciding
		l.mu.Unlock()
		if present {
			continue
		}
		first := time.Duration(0)
		if slices.Compare(p.Node[:], n.cfg.ID[:]) < 0 {
			first = courtesy
		}
		n.chase(l, first)
	}
}

// hint says that a node may be at some endpoints. The ID may be zero.
func (n *Node[T]) hint(id wire.ID, endpoints []string) {
	if id == (wire.ID{}) {
		for _, e := range endpoints {
			n.tryEndpoint(e)
		}
		return
	}
	if l := n.Find(id); l != nil {
		l.mu.Lock()
		l.learnLocked("", nil, endpoints)
		present, chasing := l.state >= Connected || l.deciding, l.chasing
		l.mu.Unlock()
		if present {
			return
		}
		if chasing {
			l.hurry()
			return
		}
	}
	n.try(uuidText(id), func(ctx context.Context) {
		if l := n.Find(id); l != nil && l.State() >= Connected {
			return
		}
		_, err := n.dialAny(ctx, id, endpoints)
		if err != nil {
			n.cfg.Log.Debug("mesh: node not reached", "peer", uuidText(id), "endpoints", endpoints, "error", err)
		}
	})
}

// answer is who answered at an endpoint.
type answer[T any] struct {
	link     *Link[T]  // nil for this node itself
	unproved time.Time // when it said so, if it has not proved it
}

// answered notes who answered at an endpoint.
func (n *Node[T]) answered(endpoint string, a answer[T]) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.at[endpoint]; !known && len(n.at) == MaxKnown {
		clear(n.at) // it only saves dials
	}
	n.at[endpoint] = a
}

// lastAt returns the link to who answered at an endpoint last, if that is known.
func (n *Node[T]) lastAt(endpoint string) *Link[T] {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at[endpoint].link
}

// tryEndpoint dials an endpoint of which it is not known who is there, unless it is: then that peer
// is connected or being dialled.
func (n *Node[T]) tryEndpoint(e string) {
	n.mu.Lock()
	at, known := n.at[e]
	n.mu.Unlock()
	if known && (at.unproved.IsZero() || time.Since(at.unproved) < believeFor) && (at.link == nil || at.link.State() >= Connected) {
		return
	}
	n.try(e, func(ctx context.Context) {
		if _, err := n.dial(ctx, wire.ID{}, e); err != nil {
			n.cfg.Log.Debug("mesh: endpoint not reached", "endpoint", e, "error", err)
		}
	})
}

// try runs f in a goroutine, unless one for the same key is running or there are too many.
func (n *Node[T]) try(key string, f func(context.Context)) {
	n.running(func() {
		if n.dialling[key] || len(n.dialling) >= MaxDials || n.leaving.Load() {
			return
		}
		n.dialling[key] = true
		n.wg.Go(func() {
			defer func() {
				n.mu.Lock()
				delete(n.dialling, key)
				n.mu.Unlock()
			}()
			f(n.ctx)
		})
	})
}

// Connect dials an endpoint and returns when the link is made.
func (n *Node[T]) Connect(ctx context.Context, endpoint string) error {
	if n.leaving.Load() {
		return ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	done := make(chan error, 1)
	if !n.running(func() {
		n.wg.Go(func() {
			_, err := n.dial(ctx, wire.ID{}, endpoint)
			done <- err
		})
	}) {
		return ErrClosed
	}
	err := <-done
	switch {
	case errors.Is(err, handshake.ErrReplaced):
		return nil // another connection to the same node was quicker
	case err != nil && n.ctx.Err() != nil:
		return ErrClosed
	}
	return err
}

// dial dials one endpoint and shakes hands.
func (n *Node[T]) dial(ctx context.Context, expect wire.ID, endpoint string) (*Link[T], error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Handshake)
	defer cancel()
	c, err := n.cfg.Transport.Dial(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	l, err := n.shakeHands(ctx, c, true, expect)
	if err != nil {
		c.Close()
		if ctx.Err() != nil {
			err = cut(wire.CodeBusy, "the handshake took too long")
			if outer.Err() != nil {
				err = outer.Err()
			}
		}
		if errors.Is(err, handshake.ErrNodeUUIDMismatch) || errors.Is(err, handshake.ErrSelf) { // somebody else is there
			n.tryEndpoint(endpoint)
			if l := n.Find(expect); l != nil {
				l.notAt(endpoint)
			}
			if l := n.lastAt(endpoint); l != nil && l.State() >= Connected {
				n.supersede(l, l.Peer(), endpoint)
			}
		}
		return nil, err
	}
	return l, nil
}

// notAt notes that another node answered at an endpoint: a peer that was given up is not looked for
// there any more.
func (l *Link[T]) notAt(endpoint string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == Lost {
		l.endpoints = slices.DeleteFunc(l.endpoints, func(e string) bool { return e == endpoint })
	}
}

// dialAny dials all endpoints of a node until one becomes a link: the next when the one before has
// failed, or has not answered for a moment.
func (n *Node[T]) dialAny(ctx context.Context, id wire.ID, endpoints []string) (*Link[T], error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		link *Link[T]
		err  error
	}
	results := make(chan result, len(endpoints))
	timer := time.NewTimer(0)
	defer timer.Stop()
	var errs []error
	running := 0
	for next := 0; ; {
		select {
		case <-timer.C:
			if next == len(endpoints) {
				continue
			}
			e := endpoints[next]
			next++
			running++
			if !n.running(func() {
				n.wg.Go(func() {
					l, err := n.dial(ctx, id, e)
					results <- result{l, err}
				})
			}) {
				return nil, ErrClosed
			}
			if next < len(endpoints) {
				timer.Reset(nextEndpoint)
			}
		case r := <-results:
			running--
			if r.err == nil {
				return r.link, nil
			}
			errs = append(errs, r.err)
			if next < len(endpoints) {
				timer.Reset(0)
			} else if running == 0 {
				return nil, errors.Join(errs...)
			}
		}
	}
}

// chase sees to a link that has lost its connection: it dials the peer until it is back, and gives
// the link up when that takes too long. A peer that was given up is still dialled, for ever, as
// partitions heal. It begins after about first, or sooner if this node dialled before.
func (n *Node[T]) chase(l *Link[T], first time.Duration) {
	n.running(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.chasing || l.left {
			return
		}
		l.chasing = true
		n.wg.Go(func() { n.dialUntilBack(l, first) })
	})
}

// dialUntilBack ends when the link is connected, or the peer or this node has left.
func (n *Node[T]) dialUntilBack(l *Link[T], first time.Duration) {
	giveUp := time.NewTimer(n.cfg.ResumeFor) // since the link was connected last, which may be later than now
	defer giveUp.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	l.mu.Lock()
	if l.dialled {
		first = firstDelay
	}
	first = max(first, l.delay) // where it left off, if the connection did not last
	l.mu.Unlock()
	retry.Reset(jitter(first))
	for {
		n.mu.Lock()
		changed := n.change
		n.mu.Unlock()
		l.mu.Lock()
		over := l.state >= Connected || l.left || n.leaving.Load() || l.state == Lost && len(l.endpoints) == 0
		if over {
			l.chasing = false
		}
		endpoints := slices.Clone(l.endpoints)
		away, rest := l.state == Away, n.cfg.ResumeFor-time.Since(l.since)
		l.mu.Unlock()
		switch {
		case over:
			return
		case away && rest <= 0:
			l.lose(errResumeTooLate) // at the next turn, if the peer seems to be coming back
		case away:
			giveUp.Reset(rest)
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		case <-giveUp.C:
		case <-l.poke:
			retry.Reset(jitter(firstDelay))
		case <-retry.C:
			if len(endpoints) > 0 {
				n.dialPeer(l, endpoints)
			}
			l.mu.Lock()
			l.delay = min(max(2*l.delay, 2*firstDelay), lastDelay)
			delay := l.delay
			l.mu.Unlock()
			retry.Reset(jitter(delay))
		}
	}
}

// dialPeer dials a peer once. Those that never were connected, of whom others have told, take turns.
func (n *Node[T]) dialPeer(l *Link[T], endpoints []string) {
	if l.Peer() == nil {
		select {
		case n.strangers <- struct{}{}:
			defer func() { <-n.strangers }()
		case <-n.ctx.Done():
			return
		}
	}
	if _, err := n.dialAny(n.ctx, l.id, endpoints); err != nil {
		n.cfg.Log.Debug("mesh: peer not reached", "peer", uuidText(l.id), "error", err)
	}
}

// errResumeTooLate is why a link is given up whose peer stays away.
var errResumeTooLate = errors.New("the peer has not come back in time")

// hurry makes a link that is being dialled be dialled now.
func (l *Link[T]) hurry() {
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

// jitter returns between half and all of d, so that nodes that lost each other at the same time do
// not dial at the same time.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// hurry makes discoveries look at once, as a peer was lost.
func (n *Node[T]) hurry() {
	n.mu.Lock()
	sessions := slices.Clone(n.sessions)
	n.mu.Unlock()
	for _, s := range sessions {
		s.Hurry()
	}
}
