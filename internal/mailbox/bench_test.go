package mailbox_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// benchLane appends and lets all readers claim, in one goroutine: what it costs apart from starting drainers.
func benchLane(b *testing.B, l *lane, readers []*reader) {
	const batch = 64
	buf := make([]item, mailbox.MaxBatch)
	it := item{From: outsider}
	b.ReportAllocs()
	delivered := 0
	for b.Loop() {
		for range batch {
			if _, ok := straight(l, &it, nil, false); !ok {
				var o outcome
				l.AppendSlow(context.Background(), &it, nil, mailbox.Normal, nil, &o)
			}
		}
		for _, r := range readers {
			for {
				items, _ := r.Claim(buf)
				if len(items) == 0 {
					break
				}
				delivered += len(items)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(delivered), "ns/delivery")
	if want := b.N * batch * len(readers); delivered != want {
		b.Errorf("%d deliveries, want %d", delivered, want)
	}
}

// BenchmarkAppendClaim appends 64 messages and claims them for everybody, per operation.
func BenchmarkAppendClaim(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("sharers=%d", n), func(b *testing.B) {
			l := newGraph(false).NewLane(256)
			var readers []*reader
			for i := range n {
				readers = append(readers, on(l, uint64(i+1), config(256, mailbox.Wait)))
			}
			benchLane(b, l, readers)
		})
	}
	b.Run("private", func(b *testing.B) {
		l := newGraph(false).NewLane(256)
		benchLane(b, l, []*reader{on(l, 1, config(256, mailbox.Block))})
	})
	b.Run("left", func(b *testing.B) { // 64 readers have gone on to other lanes
		g := newGraph(false)
		l := g.NewLane(256)
		for i := range 64 {
			move(on(l, uint64(i+2), config(256, mailbox.Wait)), g.NewLane(256), none)
		}
		benchLane(b, l, []*reader{on(l, 1, config(256, mailbox.Wait))})
	})
}
