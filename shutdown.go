package gravbus

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/gravbus/gravbus/internal/gid"
)

// mayStillSend reports whether p may send while the bus drains: handlers may, so that what is in
// the mailboxes can go its way.
func (b *Bus) mayStillSend(p *Pod) bool {
	if b.state.Load() == busClosed {
		return false
	}
	g := gid.Current()
	return p.reader.Drains(g) || b.helpers.has(g) || b.wasInside(g) || b.findInside(g)
}

// wasInside reports whether g still runs a handler, or a loop, of the pod where findInside found it.
func (b *Bus) wasInside(g uintptr) bool {
	b.drainMu.Lock()
	p := b.insiders[g]
	b.drainMu.Unlock()
	if p == nil {
		return false
	}
	handling, looping := p.drains(g)
	return handling+looping > 0
}

// findInside asks all pods whether g runs one of their handlers or loops. That takes long where there
// are many, so the one that does is remembered.
func (b *Bus) findInside(g uintptr) bool {
	for _, p := range b.pods.everyone() {
		if handling, looping := p.drains(g); handling+looping > 0 {
			b.drainMu.Lock()
			defer b.drainMu.Unlock()
			if b.insiders == nil {
				b.insiders = map[uintptr]*Pod{}
			}
			b.insiders[g] = p
			return true
		}
	}
	return false
}

// insideHandler reports whether g is running one of the bus's handlers, wait functions or loops.
func (b *Bus) insideHandler(g uintptr) bool {
	work, loops, _ := b.inside(g)
	return work+loops > 0
}

// inside returns how much of working and of looping is g's, and of which pods.
func (b *Bus) inside(g uintptr) (work, loops int64, pods []*Pod) {
	for _, p := range b.pods.everyone() {
		handling, looping := p.drains(g)
		if handling+looping > 0 {
			work += handling
			loops += looping
			pods = append(pods, p)
		}
	}
	if b.helpers.has(g) {
		work = 1 // a wait that it calls the function of counts as its reader's, but not as working
	}
	return work, loops, pods
}

// began and ended count who has something to do: handlers and wait functions, and apart from them
// loops over Messages, whose bodies are not the bus's.
func (b *Bus) began() { b.working.Add(1) }

func (b *Bus) ended() {
	b.working.Add(-1)
	b.progressed()
}

func (b *Bus) beganLoop() { b.looping.Add(1) }

func (b *Bus) endedLoop() {
	b.looping.Add(-1)
	b.progressed()
}

// progressed tells those who wait for the bus to drain to look again.
func (b *Bus) progressed() {
	if b.state.Load() == busOpen {
		return
	}
	b.drainMu.Lock()
	defer b.drainMu.Unlock()
	if b.drain != nil {
		close(b.drain)
		b.drain = nil
	}
}

// await waits until done returns true, or ctx ends. done depends on what progressed follows.
func (b *Bus) await(ctx context.Context, done func() bool) error {
	for {
		b.drainMu.Lock()
		if b.drain == nil {
			b.drain = make(chan struct{})
		}
		changed := b.drain
		b.drainMu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Shutdown stops the bus in order: from now on only handlers can send, peers are told to send
// nothing new, and Shutdown waits until what was on its way from them has come, and all messages
// that wait in mailboxes have been handled, loops over Messages and functions of receipts included.
// Failed messages that pods still keep become dead letters, and peers get what was sent to them.
// Then it does what Close does. If ctx ends first it discards what is left and returns a
// *ShutdownError; handlers that are running then go on to their end. The same error names peers
// that are away, or are cut off meanwhile, and do not get what was sent to them: nobody waits for
// those. After Shutdown returned nil the bus has no goroutine left.
//
// Called from inside a handler it does not wait for that one. Calling it again is allowed. It does
// wait for a loop over Messages that iter.Pull runs, whoever calls it: such a loop has a goroutine of
// its own.
func (b *Bus) Shutdown(ctx context.Context) error {
	ctx = orBackground(ctx)
	b.state.CompareAndSwap(busOpen, busDraining)
	inside, leave := b.enterInside()
	defer leave()
	peers := b.mesh.leave(ctx, inside)
	drained := func() bool {
		if b.state.Load() == busClosed {
			return true
		}
		work, loops := b.waitingForInsiders()
		work += b.insideWork.Load()
		loops += b.insideLoops.Load()
		if b.working.Load() > work || b.looping.Load() > loops {
			return false
		}
		// A sender may have found that a pod is to be woken, and not have come to do it.
		return work+loops > 0 || !slices.ContainsFunc(b.pods.all(), (*Pod).working)
	}
	err := b.await(ctx, drained)
	for _, p := range b.pods.all() {
		p.giveUpKept() // while those who listen to dead letters are there
	}
	if err == nil {
		err = b.await(ctx, drained)
	}
	if err != nil {
		running := b.pods.working()
		b.close(false)
		return &ShutdownError{Pods: running, Peers: b.mesh.undone(peers), Err: err}
	}
	if rest := b.mesh.flush(ctx); len(rest) > 0 {
		peers = rest
	}
	b.close(!inside)
	if peers = b.mesh.undone(peers); len(peers) > 0 {
		return &ShutdownError{Peers: peers, Err: cmp.Or(ctx.Err(), ErrPeerLost)}
	}
	return nil
}

// enterInside counts the caller if it is inside a handler, a wait function or a loop: whoever waits
// for the bus to drain must not wait for others who do. A loop alone is not inside: Close does not wait
// for its body.
func (b *Bus) enterInside() (inside bool, leave func()) {
	work, loops, pods := b.inside(gid.Current())
	if work+loops == 0 {
		return false, func() {}
	}
	count := func(n int64) {
		b.insideWork.Add(n * work)
		b.insideLoops.Add(n * loops)
		for _, p := range pods {
			p.ending.Add(int32(n))
		}
	}
	count(1)
	b.progressed()
	return work > 0, func() { count(-1) }
}

// waitingForInsiders returns how much of working and of looping waits, in a Disconnect, for handlers
// that wait themselves for the bus to drain: they would wait for each other.
func (b *Bus) waitingForInsiders() (work, loops int64) {
	b.quietMu.Lock()
	var waiting []uintptr
	for g, p := range b.quieting {
		if p.ending.Load() > 0 {
			waiting = append(waiting, g)
		}
	}
	b.quietMu.Unlock()
	for _, g := range waiting {
		w, l, _ := b.inside(g)
		work, loops = work+w, loops+l
	}
	return work, loops
}

// Close stops the bus at once: links to peers are closed, messages that wait are discarded, senders and waits that are in
// progress end with ErrClosed. It waits for handlers, and functions of waits and receipts, that are
// running, so that after it returned the bus has no goroutine left; called from inside one of them
// it waits for none. It does not wait for the bodies of loops over Messages. It always returns nil.
func (b *Bus) Close() error {
	work, _, _ := b.inside(gid.Current())
	b.close(work == 0)
	return nil
}

// close waits, if it is to, for handlers that are in Shutdown too: that ends when the bus is closed.
func (b *Bus) close(wait bool) {
	if b.state.Swap(busClosed) != busClosed {
		close(b.closing)
		b.graph.Close()
	}
	for _, p := range b.pods.close() {
		p.disconnect(podClosed)
	}
	b.mesh.close()
	b.progressed()
	if wait {
		b.await(context.Background(), func() bool { return b.working.Load() == 0 })
		b.helpers.wait()
	}
}

// helpers are goroutines that run users' functions outside of pods. They count as working.
type helpers struct {
	bus *Bus

	mu     sync.Mutex // guards all below
	closed bool
	n      int              // running or about to
	gids   map[uintptr]bool // of those that run
	done   sync.Cond
}

// run runs f in a goroutine and returns true, unless the bus has closed.
func (h *helpers) run(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.n++
	h.bus.began()
	go func() { // ends with f; wait waits for it
		g := gid.Current()
		h.enter(g)
		defer h.leave(g)
		defer h.bus.ended()
		f()
	}()
	return true
}

func (h *helpers) enter(g uintptr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gids == nil {
		h.gids = map[uintptr]bool{}
	}
	h.gids[g] = true
}

func (h *helpers) leave(g uintptr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.gids, g)
	if h.n--; h.n == 0 && h.done.L != nil {
		h.done.Broadcast()
	}
}

// has reports whether g is one of them.
func (h *helpers) has(g uintptr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gids[g]
}

// wait waits until none is left; no more will start.
func (h *helpers) wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.done.L = &h.mu
	for h.n > 0 {
		h.done.Wait()
	}
}
