package mailbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// A drained is a reader with real drainers.
type drained struct {
	mailbox.Reader[int]
	handle  func(item)
	lost    func(lag)
	running sync.WaitGroup
}

func (d *drained) Wake() {
	d.running.Add(1)
	go d.drain() // ends when there is nothing to claim
}

func (d *drained) drain() {
	defer d.running.Done()
	buf := make([]item, 16)
	for {
		items, lost := d.Claim(buf)
		if lost.Count > 0 {
			if d.lost != nil {
				d.lost(lost)
			}
			continue
		}
		if len(items) == 0 {
			return
		}
		for _, it := range items {
			d.handle(it)
			if d.Watched() != 0 {
				d.Progress()
			}
		}
	}
}

func newDrained(owner uint64, cfg mailbox.Config, handle func(item)) *drained {
	d := &drained{handle: handle}
	d.Init(owner, &cfg, d)
	return d
}

// routing is what a bus does with lanes: all messages go to all of them.
type routing struct {
	mu    sync.Mutex // held by who changes lanes
	lanes atomic.Pointer[[]*lane]
}

func (r *routing) change(f func([]*lane) []*lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lanes []*lane
	if old := r.lanes.Load(); old != nil {
		lanes = slices.Clone(*old)
	}
	lanes = f(lanes)
	r.lanes.Store(&lanes)
}

func (r *routing) add(l *lane) {
	r.change(func(ls []*lane) []*lane { return append(ls, l) })
}

func (r *routing) remove(l *lane) {
	r.change(func(ls []*lane) []*lane { return slices.DeleteFunc(ls, func(o *lane) bool { return o == l }) })
}

func (r *routing) send(ctx context.Context, it item, own *mailbox.Reader[int]) (o outcome) {
	found := r.lanes.Load()
	stale := func() bool { return r.lanes.Load() != found }
	for _, l := range *found {
		l.Lock()
		n, wake, ok := l.AppendLocked(&it, own, stale())
		l.Unlock()
		if wake != nil {
			wake.Rouse()
		}
		if ok {
			o.N += n
			continue
		}
		more := outcome{Stale: stale}
		l.AppendSlow(ctx, &it, own, mailbox.Normal, *found, &more)
		o.N += more.N
		o.Missed = append(o.Missed, more.Missed...)
		if more.Err != nil {
			o.Err = more.Err
		}
	}
	return o
}

// Readers that wait lose nothing, get nothing twice, and everything in order, whatever others do beside them and though they move about; and nobody gets stuck.
func TestStressExactlyOnce(t *testing.T) {
	for _, c := range []struct {
		shared bool
		bound  int
	}{{false, 8}, {true, 8}, {false, 32}, {true, 32}} { // from 16 on, claims leave items in the ring
		t.Run(fmt.Sprintf("shared=%v/bound=%d", c.shared, c.bound), func(t *testing.T) {
			bound := c.bound
			const (
				senders = 4
				each    = 1500
				stable  = 3
			)
			g := newGraph(c.shared)
			var routes routing
			var owners atomic.Uint64
			owners.Store(outsider + 100)
			common := g.NewLane(bound)
			routes.add(common)

			type key struct {
				r *mailbox.Reader[int]
				v int
			}
			var mu sync.Mutex
			missed := map[key]bool{}
			var sent atomic.Int64

			var readers []*drained
			got := make([][]int, stable)
			lost := make([]uint64, stable)
			for i := range stable {
				cfg := config(bound, mailbox.Wait)
				cfg.Cap = 1 << 20 // it may change its interest faster than it claims
				d := newDrained(uint64(i+1), cfg, func(it item) {
					got[i] = append(got[i], it.Val)
					if it.Val%64 == i {
						runtime.Gosched()
					}
				})
				d.lost = func(l lag) { lost[i] += l.Count }
				d.Attach(common, false, false)
				readers = append(readers, d)
			}
			stop := make(chan struct{})
			stopped := func() bool { return isClosed(stop) }
			var churn, sending sync.WaitGroup

			// Stable readers but the first move.
			for i, d := range readers[1:] {
				churn.Go(func() {
					l := common
					for !stopped() {
						next := g.NewLane(bound)
						d.Move(next, i == 0, all, func() { routes.add(next) })
						if l != common {
							routes.remove(l)
						}
						l = next
						d.Depth()
						runtime.Gosched()
					}
				})
			}
			// Others come and go.
			for range 2 {
				churn.Go(func() {
					rng := rand.New(rand.NewPCG(1, owners.Load()))
					for !stopped() {
						p := mailbox.Policy(rng.IntN(5))
						cfg := config(bound, p)
						cfg.Width = 1 + rng.IntN(3)
						id := owners.Add(1)
						d := newDrained(id, cfg, func(item) { runtime.Gosched() })
						held := rng.IntN(3) == 0
						d.Attach(common, rng.IntN(2) == 0, held)
						if held {
							runtime.Gosched()
							d.Begin([]item{{Val: -1}}, 0)
						}
						var next *lane
						if rng.IntN(2) == 0 {
							next = g.NewLane(bound)
							d.Move(next, rng.IntN(2) == 0, all, func() { routes.add(next) })
						}
						for range rng.IntN(20) {
							d.Depth()
							runtime.Gosched()
						}
						d.Remove()
						d.Quiet()
						if d.Active() {
							t.Error("active after Quiet")
						}
						if next != nil {
							routes.remove(next)
						}
					}
				})
			}
			// So do groups.
			churn.Go(func() {
				rng := rand.New(rand.NewPCG(2, 2))
				for !stopped() {
					l := g.NewLane(4)
					var ms []*drained
					for range 3 {
						d := newDrained(owners.Add(1), config(4, mailbox.Block), func(item) { runtime.Gosched() })
						mask := 1 + rng.IntN(15)
						d.Join(l, fmt.Sprint(mask), maskWants(mask))
						ms = append(ms, d)
					}
					routes.add(l)
					for range 10 {
						mask := 1 + rng.IntN(15)
						ms[rng.IntN(3)].Rejoin(fmt.Sprint(mask), maskWants(mask))
						runtime.Gosched()
					}
					routes.remove(l)
					for _, d := range ms {
						d.Remove()
						d.Quiet()
					}
				}
			})
			for s := range senders {
				sending.Go(func() {
					ctx := context.Background()
					for i := range each {
						sent.Add(1)
						v := s*1_000_000 + i
						if s == 0 { // the first gives up soon
							c, cancel := context.WithTimeout(ctx, 100*time.Microsecond)
							o := routes.send(c, item{Val: v, From: outsider}, nil)
							cancel()
							mu.Lock()
							for _, r := range o.Missed {
								missed[key{r, v}] = true
							}
							mu.Unlock()
							continue
						}
						// The second is a pod: the first reader's.
						if s == 1 {
							routes.send(ctx, item{Val: v, From: 1}, &readers[0].Reader)
							continue
						}
						if o := routes.send(ctx, item{Val: v, From: outsider}, nil); slices.ContainsFunc(o.Missed, func(r *mailbox.Reader[int]) bool { return r.Owner() <= stable }) {
							t.Error("missed without an end to the context")
						}
					}
				})
			}
			watchProgress(t, allDone(&sending), &sent)
			close(stop)
			watchdog(t, allDone(&churn))
			for i, d := range readers {
				watchdog(t, allDone(&d.running))
				seen, last, gone := map[int]int{}, map[int]int{}, uint64(0)
				for _, v := range got[i] {
					seen[v]++
					if s := v / 1_000_000; v < last[s] {
						t.Fatalf("reader %d got %d after %d", i+1, v, last[s])
					}
					last[v/1_000_000] = v
				}
				for s := range senders {
					for n := range each {
						v := s*1_000_000 + n
						want := 1
						if missed[key{&d.Reader, v}] {
							gone++
							want = 0
						}
						if s == 1 && i == 0 {
							want = 0
						}
						if seen[v] != want {
							t.Fatalf("reader %d got %d %d times, want %d", i+1, v, seen[v], want)
						}
					}
				}
				if lost[i] != gone {
					t.Errorf("reader %d was told of %d losses, want %d", i+1, lost[i], gone)
				}
			}
		})
	}
}

// Pods that send to each other from their handlers, with the smallest mailboxes and in every direction, never stop, and lose nothing.
func TestStressCircles(t *testing.T) {
	for _, shared := range []bool{false, true} {
		for _, width := range []int{1, 2} {
			t.Run(fmt.Sprintf("shared=%v/width=%d", shared, width), func(t *testing.T) {
				const lanes = 4
				for round := range 20 {
					g := newGraph(shared)
					var ls []*lane
					for range lanes {
						ls = append(ls, g.NewLane(1))
					}
					// A message is how many times it is to be sent on.
					var open atomic.Int64 // deliveries that are not finished, less those that are not counted yet
					post := func(it item, own *mailbox.Reader[int]) {
						o := send(context.Background(), ls[rand.IntN(lanes)], it, own, mailbox.Normal)
						if o.Err != nil || len(o.Missed) > 0 {
							t.Errorf("%+v", o)
						}
						open.Add(int64(o.N))
					}
					var ds []*drained
					for i := range lanes {
						cfg := mailbox.Config{Bound: 1, Cap: 1 << 20, Policy: mailbox.Block, Width: width}
						if width == 1 {
							cfg.Policy = mailbox.Wait
						}
						for j := range 2 {
							var d *drained
							d = newDrained(uint64(10*i+j+1), cfg, func(it item) {
								if it.Val > 0 {
									post(item{Val: it.Val - 1, From: d.Owner()}, &d.Reader)
								}
								open.Add(-1)
							})
							d.lost = func(l lag) { t.Errorf("lost %+v", l) }
							if i == 0 {
								d.Join(ls[i], fmt.Sprint(j), all)
							} else {
								d.Attach(ls[i], false, false)
							}
							ds = append(ds, d)
						}
					}
					var sending sync.WaitGroup
					for range 3 {
						sending.Go(func() {
							for range 10 {
								post(item{Val: 4, From: outsider}, nil)
							}
						})
					}
					done := allDone(&sending)
					watchdog(t, done)
					settled := make(chan struct{})
					var gaveUp atomic.Bool
					go func() { // ends with the deliveries, or the test
						defer close(settled)
						for open.Load() != 0 && !gaveUp.Load() {
							runtime.Gosched()
						}
					}()
					t.Cleanup(func() { gaveUp.Store(true) })
					watchdog(t, settled)
					for _, d := range ds {
						d.Remove()
						d.Quiet()
						watchdog(t, allDone(&d.running))
					}
					_ = round
				}
			})
		}
	}
}
