package mailbox_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// circle is two lanes and a circle that is not closed yet: p's drainer waits on lane for a, which is full and runs; b's drainer waits on lane lp for p.
// When b becomes full p's drainer waits for it too, without having begun another wait.
type circle struct {
	lane, lp   *lane
	a, b, p    *reader
	da, db, dp *worker
}

func newCircle(t *testing.T, g *graph) *circle {
	c := &circle{
		lane: g.NewLane(1), lp: g.NewLane(1),
		da: newWorker(t), db: newWorker(t), dp: newWorker(t),
	}
	c.a, c.b = on(c.lane, 1, config(1, mailbox.Wait)), on(c.lane, 2, config(1, mailbox.Wait))
	c.p = on(c.lp, 3, config(1, mailbox.Wait))
	put(c.lp, 1)
	c.dp.do(func() { claim(&c.p.Reader) })
	put(c.lp, 2)
	put(c.lane, 1)
	c.da.do(func() { claim(&c.a.Reader) })
	c.db.do(func() { claim(&c.b.Reader) })
	put(c.lane, 2)
	c.db.do(func() { claim(&c.b.Reader) })
	return c
}

// close makes both drainers wait.
func (c *circle) close() (p, b <-chan struct{}) {
	ctx := context.Background()
	p = c.dp.start(func() { send(ctx, c.lane, item{Val: 10, From: 3}, &c.p.Reader, mailbox.Normal) })
	synctest.Wait()
	b = c.db.start(func() { send(ctx, c.lp, item{Val: 20, From: 2}, &c.b.Reader, mailbox.Normal) })
	synctest.Wait()
	return p, b
}

func TestCircleClosedByAReaderThatFillsLater(t *testing.T) {
	tests := []struct {
		name   string
		before func(*circle) // p's drainer waits
		after  func(*circle)
	}{
		{"by a sender that waited longer", func(c *circle) {
			go send(context.Background(), c.lane, item{Val: 3, From: outsider}, nil, mailbox.Normal) // ends when a has room
			synctest.Wait()
		}, func(c *circle) {}},
		{"by a sender that comes before those who were woken", func(c *circle) {
			go send(context.Background(), c.lane, item{Val: 3, From: outsider}, nil, mailbox.Normal) // ends when a has room
			synctest.Wait()
		}, func(c *circle) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the one who was woken does not run between
			c.da.do(func() {
				claim(&c.a.Reader)
				put(c.lane, 4)
			})
			synctest.Wait()
		}},
		{"by a sender whose context ended", func(*circle) {}, func(c *circle) { put(c.lane, 3) }},
		{"by an event", func(*circle) {}, func(c *circle) {
			send(context.Background(), c.lane, item{Val: 3}, nil, mailbox.Shed)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, func(t *testing.T, g *graph) {
				c := newCircle(t, g)
				tt.before(c)
				p, b := c.close()
				if isClosed(p) || isClosed(b) {
					t.Fatal("the drainers do not wait: this tests nothing")
				}
				tt.after(c)
				for range 2 { // the second time, what comes by the first
					c.da.do(func() { claimAll(&c.a.Reader) })
					synctest.Wait()
				}
				if !isClosed(p) && !isClosed(b) {
					t.Error("two drainers wait for each other, and nobody sees it")
				}
			})
		})
	}
}

// In a group, one member that runs is enough to wait for. When it goes to sleep with the queue still full of what only others want,
// those who wait are left with the others.
func TestCircleClosedByAMemberThatEnds(t *testing.T) {
	odd := func(v int) bool { return v%2 == 1 }
	even := func(v int) bool { return v%2 == 0 }
	tests := map[string]func(m *reader, d *worker){
		"sleeps":  func(m *reader, d *worker) { d.do(func() { claimAll(&m.Reader) }) },
		"removed": func(m *reader, _ *worker) { m.Remove() },
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			scenario(t, func(t *testing.T, g *graph) {
				ctx := context.Background()
				group, lp := g.NewLane(1), g.NewLane(1)
				m1, m2 := newReader(1, config(1, mailbox.Wait)), newReader(2, config(1, mailbox.Wait))
				m1.Join(group, "odd", odd)
				m2.Join(group, "even", even)
				p := on(lp, 3, config(1, mailbox.Wait))
				d1, d2, dp := newWorker(t), newWorker(t), newWorker(t)
				put(group, 1)
				d1.do(func() { claim(&m1.Reader) })
				put(group, 2)
				d2.do(func() { claim(&m2.Reader) })
				put(group, 3)
				put(lp, 1)
				dp.do(func() { claim(&p.Reader) })
				put(lp, 2)
				s1 := d1.start(func() { send(ctx, lp, item{Val: 10, From: 1}, &m1.Reader, mailbox.Normal) })
				synctest.Wait()
				s2 := dp.start(func() { send(ctx, group, item{Val: 5, From: 3}, &p.Reader, mailbox.Normal) })
				synctest.Wait()
				if isClosed(s1) || isClosed(s2) {
					t.Fatal("the drainers do not wait: this tests nothing")
				}
				end(m2, d2)
				synctest.Wait()
				if !isClosed(s1) && !isClosed(s2) {
					t.Error("two drainers wait for each other, and nobody sees it")
				}
			})
		})
	}
}

// Quiet waits for every one of the drainers: one of them in a circle is enough.
func TestQuietSeesACircleWithOneOfSeveralDrainers(t *testing.T) {
	for _, first := range []string{"the send", "Quiet"} {
		t.Run(first+" first", func(t *testing.T) {
			scenario(t, func(t *testing.T, g *graph) {
				l, lp := g.NewLane(8), g.NewLane(1)
				wide := config(8, mailbox.Wait)
				wide.Width = 2
				r := on(l, 1, wide)
				p := on(lp, 2, config(1, mailbox.Wait))
				d1, d2, dp := newWorker(t), newWorker(t), newWorker(t)
				put(l, 1, 2)
				d1.do(func() { claim(&r.Reader) })
				d2.do(func() { claim(&r.Reader) })
				put(lp, 1)
				dp.do(func() { claim(&p.Reader) })
				put(lp, 2)
				r.Remove()
				var s, q <-chan struct{}
				sends := func() {
					s = d1.start(func() {
						send(context.Background(), lp, item{Val: 10, From: 1}, &r.Reader, mailbox.Normal)
						claim(&r.Reader)
					})
					synctest.Wait()
				}
				if first == "the send" {
					sends()
				}
				q = dp.start(func() { r.Quiet() })
				synctest.Wait()
				if s == nil {
					sends()
				}
				d2.do(func() { claim(&r.Reader) })
				synctest.Wait()
				if !isClosed(q) && !isClosed(s) {
					t.Error("Quiet and a drainer wait for each other, and nobody sees it")
				}
			})
		})
	}
}

// A reader outside of the circle is not made to grow or lose by it: the sender can wait for it.
func TestNoLossOutsideOfTheCircle(t *testing.T) {
	tests := []struct {
		name string
		from uint64
	}{
		{"the sender's own mailbox is full", 1}, // no message of its own goes there
		{"the sender waits for itself under another name", outsider},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			scenario(t, func(t *testing.T, g *graph) {
				l := g.NewLane(4)
				a, b := on(l, 1, config(4, mailbox.Wait)), on(l, 2, config(4, mailbox.Wait))
				da, db := newWorker(t), newWorker(t)
				put(l, 1)
				da.do(func() { claim(&a.Reader) })
				db.do(func() { claim(&b.Reader) })
				put(l, 2, 3, 4, 5)
				for range 30 { // b runs, and does not come to claim for a while
					sent := da.start(func() {
						send(context.Background(), l, item{Val: 100, From: tt.from}, &a.Reader, mailbox.Normal)
					})
					synctest.Wait()
					if !isClosed(sent) {
						break
					}
				}
				if depth, tally := b.Depth(); depth > 4 || tally.Dropped > 0 {
					t.Errorf("a reader that is in no circle has %d messages waiting with a bound of 4, and lost %d", depth, tally.Dropped)
				}
			})
		})
	}
}

// A circle is seen when it is closed by the last wait, whatever its length.
func TestCircleIsSeen(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10} {
		scenario(t, func(t *testing.T, g *graph) {
			var lanes []*lane
			var readers []*reader
			var workers []*worker
			for i := range n {
				l := g.NewLane(1)
				r := on(l, uint64(i+1), config(1, mailbox.Wait))
				w := newWorker(t)
				put(l, 1)
				w.do(func() { claim(&r.Reader) })
				put(l, 2)
				lanes, readers, workers = append(lanes, l), append(readers, r), append(workers, w)
			}
			var sent []<-chan struct{}
			for i, w := range workers {
				synctest.Wait()
				for j, s := range sent {
					if isClosed(s) {
						t.Errorf("%d: sender %d did not wait for %d", n, j, (j+1)%n)
					}
				}
				sent = append(sent, w.start(func() {
					// From outside, so that the circle of one is one.
					send(context.Background(), lanes[(i+1)%n], item{Val: 3, From: outsider}, &readers[i].Reader, mailbox.Normal)
				}))
			}
			synctest.Wait()
			if !isClosed(sent[n-1]) {
				t.Errorf("a circle of %d is not seen by the sender that closes it", n)
			}
			if depth, _ := readers[0].Depth(); depth != 2 {
				t.Errorf("the mailbox in the circle has %d messages, want 2", depth)
			}
			// All go on: each reader claims what waits for it.
			for i := n - 1; i >= 0; i-- {
				<-sent[i]
				workers[i].do(func() { claimAll(&readers[i].Reader) })
			}
		})
	}
}

// A full mailbox that does not get the message is not waited for, whatever else the sender waits for.
func TestNobodyWaitsForHisOwnMailbox(t *testing.T) {
	for _, when := range []string{"full before", "full meanwhile"} {
		t.Run(when, func(t *testing.T) {
			scenario(t, func(t *testing.T, g *graph) {
				// The sender has a second reader beside its own, as a pod has that waits for a message.
				l := g.NewLane(2)
				main := on(g.NewLane(2), 1, config(2, mailbox.Block))
				second, other := on(l, 1, config(2, mailbox.Block)), on(l, 2, config(2, mailbox.Block))
				d := newWorker(t)
				put(l, 1, 2)
				if when == "full meanwhile" {
					claim(&second.Reader)
					claim(&second.Reader)
				}
				s := newWorker(t)
				sent := s.start(func() {
					send(context.Background(), l, item{Val: 3, From: 1}, &main.Reader, mailbox.Normal)
				})
				synctest.Wait()
				if isClosed(sent) {
					t.Fatal("the sender did not wait for the other")
				}
				if when == "full meanwhile" {
					put(l, 4, 5) // which the other misses
				}
				d.do(func() { claimAll(&other.Reader) })
				synctest.Wait()
				if !isClosed(sent) {
					t.Error("the sender waits for a mailbox that its message does not go to")
				}
			})
		})
	}
}
