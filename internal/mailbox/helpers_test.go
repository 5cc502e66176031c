package mailbox_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/internal/mailbox"
)

type (
	lane    = mailbox.Lane[int]
	item    = mailbox.Item[int]
	lag     = mailbox.Lag[int]
	graph   = mailbox.Graph[int]
	outcome = mailbox.Outcome[int]
)

// outsider is a sender that is no reader's owner.
const outsider = 1 << 20

// reader counts its wakes instead of starting drainers: a test claims for it by hand.
type reader struct {
	mailbox.Reader[int]
	wakes atomic.Int64
}

func (r *reader) Wake() { r.wakes.Add(1) }

func newGraph(shared bool) *graph {
	var mu *sync.Mutex
	if shared {
		mu = new(sync.Mutex)
	}
	g := mailbox.NewGraph[int](mu)
	g.SetCost(cost)
	return g
}

// cost is what an item costs: its last digit.
func cost(v int) int { return v % 10 }

// costly is config with a bound for the cost.
func costly(bound, maxCost int, p mailbox.Policy) mailbox.Config {
	cfg := config(bound, p)
	cfg.MaxCost = maxCost
	return cfg
}

// scenario runs f in a bubble, with lanes that have a mutex each and with lanes that share one. In the end all waits are ended.
func scenario(t *testing.T, f func(t *testing.T, g *graph)) {
	t.Helper()
	for name, shared := range map[string]bool{"own mutexes": false, "shared mutex": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGraph(shared)
				defer synctest.Wait()
				defer g.Close()
				f(t, g)
			})
		})
	}
}

// move takes r to l, and publishes l at once.
func move(r *reader, l *lane, wants func(int) bool) { r.Move(l, false, wants, func() {}) }

func all(int) bool  { return true }
func none(int) bool { return false }

func config(bound int, p mailbox.Policy) mailbox.Config {
	return mailbox.Config{Bound: bound, Cap: 4 * bound, Policy: p, Width: 1}
}

func newReader(owner uint64, cfg mailbox.Config) *reader {
	r := new(reader)
	r.Init(owner, &cfg, r)
	return r
}

// on attaches a new reader to l.
func on(l *lane, owner uint64, cfg mailbox.Config) *reader {
	r := newReader(owner, cfg)
	r.Attach(l, false, false)
	return r
}

// straight appends if the way is straight.
func straight(l *lane, it *item, own *mailbox.Reader[int], stale bool) (n int, ok bool) {
	l.Lock()
	n, wake, ok := l.AppendLocked(it, own, stale)
	l.Unlock()
	if wake != nil {
		wake.Rouse()
	}
	return n, ok
}

// send appends as the bus does: the straight way if it is open.
func send(ctx context.Context, l *lane, it item, own *mailbox.Reader[int], mode mailbox.Mode) outcome {
	var o outcome
	if n, ok := straight(l, &it, own, false); ok {
		o.N = n
		return o
	}
	l.AppendSlow(ctx, &it, own, mode, []*lane{l}, &o)
	return o
}

// put appends values from outside without waiting: what is full misses them.
func put(l *lane, values ...int) (o outcome) {
	for _, v := range values {
		o = send(ended, l, item{Val: v, From: outsider}, nil, mailbox.Normal)
	}
	return o
}

// ended is a context that has ended.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// claim claims once and returns the values.
func claim(r *mailbox.Reader[int]) ([]int, lag) {
	buf := make([]item, mailbox.MaxBatch)
	items, lost := r.Claim(buf)
	return values(items), lost
}

// claimAll claims until there is nothing more, as a drainer does if r was woken, and returns values and notices in order.
func claimAll(r *mailbox.Reader[int]) (got []int, lags []lag) {
	for r.Active() {
		vs, lost := claim(r)
		if lost.Count > 0 {
			lags = append(lags, lost)
		} else if len(vs) == 0 {
			return got, lags
		}
		got = append(got, vs...)
	}
	return got, lags
}

func values(items []item) (vs []int) {
	for _, it := range items {
		vs = append(vs, it.Val)
	}
	return vs
}

// A worker is a goroutine that a test holds in its hand: to the graph it is a drainer's, or a sender's.
type worker struct{ fs chan func() }

func newWorker(t interface{ Cleanup(func()) }) *worker {
	w := startWorker()
	t.Cleanup(w.stop)
	return w
}

func startWorker() *worker {
	w := &worker{make(chan func())}
	go func() { // ends with stop
		for f := range w.fs {
			f()
		}
	}()
	return w
}

func (w *worker) stop() { close(w.fs) }

// do runs f in the goroutine and waits for it.
func (w *worker) do(f func()) {
	done := w.start(f)
	<-done
}

// start runs f in the goroutine; the channel is closed when it has returned.
func (w *worker) start(f func()) <-chan struct{} {
	done := make(chan struct{})
	w.fs <- func() {
		defer close(done)
		f()
	}
	return done
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// watchdog fails the test with all goroutines' stacks if done is not closed in time.
func watchdog(t *testing.T, done <-chan struct{}) {
	t.Helper()
	watchProgress(t, done, new(atomic.Int64))
}

// watchProgress is watchdog for work that may take long on a busy machine: it begins anew whenever n has changed.
func watchProgress(t *testing.T, done <-chan struct{}, n *atomic.Int64) {
	t.Helper()
	for last := int64(-1); ; {
		now := n.Load()
		if now == last {
			buf := make([]byte, 1<<20)
			t.Fatalf("stuck:\n%s", buf[:runtime.Stack(buf, true)])
		}
		last = now
		select {
		case <-done:
			return
		case <-time.After(30 * time.Second):
		}
	}
}

// allDone returns a channel that is closed when wg is.
func allDone(wg *sync.WaitGroup) <-chan struct{} {
	done := make(chan struct{})
	go func() { // ends with wg
		wg.Wait()
		close(done)
	}()
	return done
}

// guarded runs f under a watchdog. f must not call t.FailNow.
func guarded(t *testing.T, f func(*testing.T)) {
	t.Helper()
	done := make(chan struct{})
	go func() { // ends with f
		defer close(done)
		f(t)
	}()
	watchdog(t, done)
}
