package route_test

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gravbus/gravbus/internal/route"
)

// wanting are interests of every kind that want the type a.b.
var wanting = []route.Interest{
	allow("a.b"), allow("a.*"), allow("a.b", "x"), allow(">"), allow("*.b", "a.b"),
	{Allow: []string{"a.>"}, Deny: []string{"a.c"}},
}

// TestLookupSeesWhatReturnedBefore: once Add or Remove returned, every goroutine
// that hears of it sees it.
func TestLookupSeesWhatReturnedBefore(t *testing.T) {
	const sinks = 300
	var (
		table          route.Table[int]
		added, removed atomic.Int64 // counts of Adds and Removes that returned
		wg             sync.WaitGroup
	)
	for range 3 {
		wg.Go(func() { // ends when all is removed
			for removed.Load() < sinks {
				first := removed.Load() // of these and earlier, all are gone
				n := added.Load()       // up to here, all came
				got, err := table.Lookup("a.b")
				if err != nil {
					t.Error(err)
					return
				}
				last := removed.Load() // from here on, none was removed but one perhaps
				if !slices.IsSorted(got) || len(got) > 0 && got[0] < int(first) {
					t.Errorf("after %d removes: %v", first, got)
					return
				}
				for sink := int(last) + 1; sink < int(n); sink++ {
					if !slices.Contains(got, sink) {
						t.Errorf("after %d adds and at most %d removes, %d is not in %v", n, last+1, sink, got)
						return
					}
				}
			}
		})
	}
	for sink := range sinks {
		table.Add(sink, wanting[sink%len(wanting)])
		added.Add(1)
	}
	for sink := range sinks {
		table.Remove(sink, wanting[sink%len(wanting)])
		removed.Add(1)
	}
	wg.Wait()
	wantSinks(t, &table, "a.b")
}

// TestLookupSeesOwnChanges: many goroutines change one table, and each sees its
// own changes at once, whatever the others do to the same cache slots.
func TestLookupSeesOwnChanges(t *testing.T) {
	var table route.Table[int]
	var wg sync.WaitGroup
	for sink := range 4 {
		wg.Go(func() {
			for i := range 500 {
				in := wanting[(sink+i)%len(wanting)]
				table.Add(sink, in)
				if got, _ := table.Lookup("a.b"); !slices.Contains(got, sink) {
					t.Errorf("%d added to %v, not in %v", sink, in.Allow, got)
				}
				if _, err := table.Lookup("evict." + strconv.Itoa(i)); err != nil {
					t.Error(err)
				}
				table.Remove(sink, in)
				if got, _ := table.Lookup("a.b"); slices.Contains(got, sink) {
					t.Errorf("%d removed from %v, still in %v", sink, in.Allow, got)
				}
			}
		})
	}
	wg.Wait()
	wantSinks(t, &table, "a.b")
}
