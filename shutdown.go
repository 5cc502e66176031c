package gravbus

import (
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
	return p.reader.Drains(g) || b.insideHandler(g)
}

// insideHandler reports whether g is running one of the bus's handlers, wait functions or loops.
func (b *Bus) insideHandler(g uintptr) bool {
	if b.helpers.has(g) {
		return true
	}
	return slices.ContainsFunc(b.pods.everyone(), func(p *Pod) bool {
		handling, looping := p.drains(g)
		return handling || looping
	})
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
// that wait in mailboxes have been handled, loops over Messages included. Failed messages that pods
// still keep become dead letters, and peers get what was sent to them. Then it does what Close does. If ctx ends first it
// discards what is left and returns a *ShutdownError; handlers that are running then go on to their
// end. After Shutdown returned nil the bus has no goroutine left.
//
// Called from inside a handler it does not wait for that one. Calling it again is allowed.
func (b *Bus) Shutdown(ctx context.Context) error {
	ctx = orBackground(ctx)
	b.state.CompareAndSwap(busOpen, busDraining)
	inside, leave := b.enterInside()
	defer leave()
	peers := b.mesh.leave(ctx, inside)
	drained := func() bool {
		return b.state.Load() == busClosed ||
			b.working.Load() <= b.insideWork.Load()+b.waitingForInsiders() && b.looping.Load() <= b.insideLoops.Load()
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
		return &ShutdownError{Pods: running, Peers: peers, Err: err}
	}
	if rest := b.mesh.flush(ctx); len(rest) > 0 {
		peers = rest
	}
	b.close(!inside)
	if len(peers) > 0 {
		return &ShutdownError{Peers: peers, Err: ctx.Err()}
	}
	return nil
}

// enterInside counts the caller if it is inside a handler, a wait function or a loop: whoever waits
// for the bus to drain must not wait for others who do.
func (b *Bus) enterInside() (inside bool, leave func()) {
	g := gid.Current()
	for _, p := range b.pods.everyone() {
		handling, looping := p.drains(g)
		if handling || looping {
			count := &b.insideWork
			if looping {
				count = &b.insideLoops
			}
			count.Add(1)
			p.ending.Add(1)
			b.progressed()
			return handling, func() {
				count.Add(-1)
				p.ending.Add(-1)
			}
		}
	}
	return b.helpers.has(g), func() {}
}

// waitingForInsiders returns how many handlers wait, in a Disconnect, for handlers that wait
// themselves for the bus to drain: they would wait for each other.
func (b *Bus) waitingForInsiders() (n int64) {
	b.quietMu.Lock()
	var waiting []uintptr
	for g, p := range b.quieting {
		if p.ending.Load() > 0 {
			waiting = append(waiting, g)
		}
	}
	b.quietMu.Unlock()
	for _, g := range waiting {
		if b.insideHandler(g) {
			n++
		}
	}
	return n
}

// Close stops the bus at once: links to peers are closed, messages that wait are discarded, senders and waits that are in
// progress end with ErrClosed. It waits for handlers that are running, so that after it returned
// the bus has no goroutine left; called from inside a handler it waits for none. It always returns
// nil.
func (b *Bus) Close() error {
	b.close(!b.insideHandler(gid.Current()))
	return nil
}

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
		b.await(context.Background(), func() bool { return b.working.Load() <= b.insideWork.Load() })
		b.helpers.wait()
	}
}

// helpers are goroutines that run users' functions outside of pods.
type helpers struct {
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
	go func() { // ends with f; wait waits for it
		g := gid.Current()
		h.enter(g)
		defer h.leave(g)
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

func (h *helpers) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
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
