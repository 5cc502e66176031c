package route_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"weak"

	"github.com/gravbus/gravbus/internal/route"
)

func lookup[S comparable](t testing.TB, table *route.Table[S], typ string) []S {
	t.Helper()
	sinks, err := table.Lookup(typ)
	if err != nil {
		t.Fatalf("Lookup(%q): %v", typ, err)
	}
	return sinks
}

func wantSinks[S comparable](t testing.TB, table *route.Table[S], typ string, want ...S) {
	t.Helper()
	for range 2 { // computed, then cached
		if got := lookup(t, table, typ); !slices.Equal(got, want) {
			t.Fatalf("Lookup(%q) = %v, want %v", typ, got, want)
		}
	}
}

func TestZeroTable(t *testing.T) {
	var table route.Table[int]
	table.Remove(1, allow("a"))
	table.Remove(1, allow(">"))
	wantSinks(t, &table, "a")
}

func TestLookupRefusesBadTypes(t *testing.T) {
	var table route.Table[int]
	table.Add(1, allow(">"))
	table.Add(2, allow("a.*"))
	for _, typ := range []string{"", "a..b", "a.*", ">", "a b"} {
		for range 2 {
			sinks, err := table.Lookup(typ)
			var syntax *route.SyntaxError
			if !errors.As(err, &syntax) || syntax.Pattern || sinks != nil {
				t.Errorf("Lookup(%q) = %v, %v; want a *SyntaxError of a type", typ, sinks, err)
			}
		}
	}
}

func TestRemoveUndoesOneAdd(t *testing.T) {
	for _, in := range []route.Interest{
		allow("a.b"), allow("a.*"), allow(">"), allow("a.b", "a.c"), allow("a.b", "a.*"),
		{Allow: []string{"a.>"}, Deny: []string{"a.c"}},
	} {
		t.Run(in.Key(), func(t *testing.T) {
			var table route.Table[int]
			table.Add(1, in)
			table.Add(1, in)
			table.Remove(1, in)
			wantSinks(t, &table, "a.b", 1)
			table.Remove(1, in)
			wantSinks(t, &table, "a.b")
			table.Remove(1, in)
			wantSinks(t, &table, "a.b")
			table.Add(1, in)
			wantSinks(t, &table, "a.b", 1)
		})
	}
}

func TestRemoveOfAnUnknownInterestHasNoEffect(t *testing.T) {
	var table route.Table[int]
	table.Add(1, allow("a", "b"))
	table.Add(1, allow("c.*"))
	table.Remove(1, allow("a"))
	table.Remove(1, route.Interest{Allow: []string{"a", "b"}, Deny: []string{"x"}})
	table.Remove(1, allow("c.>"))
	table.Remove(1, allow("c.*.d"))
	table.Remove(2, allow("a", "b"))
	wantSinks(t, &table, "a", 1)
	wantSinks(t, &table, "b", 1)
	wantSinks(t, &table, "c.d", 1)
	table.Remove(1, allow("b", "a", "b")) // the same interest
	wantSinks(t, &table, "a")
	wantSinks(t, &table, "b")
}

func TestEachSinkOnce(t *testing.T) {
	// Few sinks are told apart by searching, many by a map.
	for _, n := range []int{3, 100} {
		var table route.Table[int]
		var want []int
		for sink := range n {
			want = append(want, sink)
			table.Add(sink, allow("a.b"))
			table.Add(sink, allow("a.b", "a.*"))
			table.Add(sink, route.Interest{Allow: []string{"a.>", "a.b"}, Deny: []string{"x"}})
		}
		wantSinks(t, &table, "a.b", want...)
		wantSinks(t, &table, "a.c", want...)
		if got := lookup(t, &table, "a.b"); cap(got) != n {
			t.Errorf("a result of %d sinks has room for %d; append would write to it", n, cap(got))
		}
		for sink := range n {
			table.Remove(sink, allow("a.b"))
			table.Remove(sink, allow("a.*", "a.b"))
		}
		wantSinks(t, &table, "a.b", want...)
	}
}

func TestOrderIsThatOfTheOldestMatchingRegistration(t *testing.T) {
	var table route.Table[string]
	table.Add("x", allow("other"))
	table.Add("b", allow("a.*"))
	table.Add("a", allow("a.b"))
	table.Add("x", allow("a.b"))
	table.Add("c", allow(">"))
	table.Add("b", allow("a.b"))
	table.Add("b", allow("a.*")) // again: keeps its place
	wantSinks(t, &table, "a.b", "b", "a", "x", "c")
	table.Remove("b", allow("a.*"))
	wantSinks(t, &table, "a.b", "b", "a", "x", "c")
	table.Remove("b", allow("a.*"))
	wantSinks(t, &table, "a.b", "a", "x", "c", "b")
}

func TestResultsNeverChange(t *testing.T) {
	var table route.Table[int]
	for sink := range 10 {
		table.Add(sink, allow("a"))
	}
	got := lookup(t, &table, "a")
	want := slices.Clone(got)
	if len(got) != cap(got) {
		t.Errorf("a result has room for %d more, so that append would write to it", cap(got)-len(got))
	}
	for sink := range 10 {
		table.Remove(sink, allow("a"))
		table.Add(sink+10, allow("a"))
		lookup(t, &table, "a")
	}
	if !slices.Equal(got, want) {
		t.Errorf("a result became %v", got)
	}
}

func TestChangesKeepTheCachedResultsOfOtherTypes(t *testing.T) {
	var table route.Table[int]
	table.Add(1, allow("a.*")) // with a wildcard, a result is new when not cached
	first := &lookup(t, &table, "a.b")[0]
	for _, in := range []route.Interest{
		allow("a"), allow("a.c"), allow("x.y"), allow("x", "y"),
	} {
		table.Add(2, in)
		table.Remove(2, in)
		if &lookup(t, &table, "a.b")[0] != first {
			t.Errorf("a change of %v dropped the result for a.b", in.Allow)
		}
	}
	table.Add(2, allow("*.b"))
	wantSinks(t, &table, "a.b", 1, 2)
}

func TestInterestsWithManyPatterns(t *testing.T) {
	var table route.Table[int]
	table.Add(1, allow("a.*"))
	literals, wild := names("b.", 100), append(names("c.*.", 100), "a.*")
	wantSinks(t, &table, "a.b", 1)
	first := &lookup(t, &table, "a.b")[0]
	table.Add(2, allow(literals...))
	if &lookup(t, &table, "a.b")[0] != first {
		t.Error("a change of literal patterns dropped the result for a.b")
	}
	table.Add(3, allow(wild...))
	wantSinks(t, &table, "a.b", 1, 3)
	wantSinks(t, &table, "b.99", 2)
	wantSinks(t, &table, "c.x.99", 3)
	table.Remove(3, allow(wild...))
	wantSinks(t, &table, "a.b", 1)
	wantSinks(t, &table, "c.x.99")
}

func TestLookupOfACachedTypeDoesNotAllocate(t *testing.T) {
	var table route.Table[int]
	table.Add(1, allow("a.b"))
	table.Add(2, allow("a.>"))
	for _, typ := range []string{"a.b", "a.c", "nobody.wants.this"} {
		if n := testing.AllocsPerRun(100, func() { lookup(t, &table, typ) }); n != 0 {
			t.Errorf("Lookup(%q) allocates %v times", typ, n)
		}
	}
}

func TestMoreLiteralTypesThanTheCacheHoldsDoNotAllocate(t *testing.T) {
	var table route.Table[int]
	table.Add(1, allow("other.*"))
	types := make([]string, 5000)
	for i := range types {
		types[i] = "t." + strconv.Itoa(i)
		table.Add(i, allow(types[i]))
	}
	all := func() {
		for _, typ := range types {
			lookup(t, &table, typ)
		}
	}
	if n := testing.AllocsPerRun(3, all); n != 0 {
		t.Errorf("looking up %d types allocates %v times", len(types), n)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryIsBounded(t *testing.T) {
	const (
		n     = 50_000
		limit = 1 << 20 // the cache and its results; keeping all would take nine times that
	)
	var table route.Table[int]
	for sink := range 8 {
		table.Add(sink, allow("seen.>"))
	}
	before := heap()
	for i := range n {
		lookup(t, &table, "seen."+strconv.Itoa(i))
		lookup(t, &table, "unseen."+strconv.Itoa(i))
	}
	if grown := int64(heap() - before); grown > limit {
		t.Errorf("%d types made the table grow by %d bytes", 2*n, grown)
	}

	// Registrations that come and go leave nothing either.
	before = heap()
	for i := range n / 5 {
		typ := "come.and.go." + strconv.Itoa(i)
		for _, in := range []route.Interest{allow(typ), allow(typ + ".*"), allow(typ, typ+".>")} {
			table.Add(i, in)
			lookup(t, &table, typ)
			table.Remove(i, in)
		}
	}
	if grown := int64(heap() - before); grown > limit {
		t.Errorf("registrations that were removed left %d bytes", grown)
	}
	runtime.KeepAlive(&table)
}

func TestRemovedSinksAreReleased(t *testing.T) {
	type sink struct{ name string }
	for _, in := range []route.Interest{allow("a.b"), allow("a.*"), allow("a.b", "a.>")} {
		var table route.Table[*sink]
		table.Add(&sink{"stays"}, allow("a.*"))
		gone := func() weak.Pointer[sink] {
			s := &sink{"goes"}
			table.Add(s, in)
			for i := range 3000 { // more than the cache has slots
				lookup(t, &table, fmt.Sprint("a.", i))
			}
			lookup(t, &table, "a.b")
			table.Remove(s, in)
			return weak.Make(s)
		}()
		for i := range 30000 { // results that are stale go when their slots are used again
			lookup(t, &table, fmt.Sprint("a.", i))
		}
		lookup(t, &table, "a.b")
		runtime.GC()
		if gone.Value() != nil {
			t.Errorf("a sink removed from %v is still held", in.Allow)
		}
		runtime.KeepAlive(&table)
	}
}
