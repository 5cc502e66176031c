package route_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/gravbus/gravbus/internal/route"
)

func names(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = prefix + strconv.Itoa(i)
	}
	return names
}

func BenchmarkLookup(b *testing.B) {
	// registered has many types by name, and one wildcard pattern beside them.
	registered := func(types []string) *route.Table[*int] {
		table := new(route.Table[*int])
		for _, typ := range types {
			table.Add(new(int), allow(typ))
		}
		table.Add(new(int), allow("wild.*.>"))
		return table
	}
	types := names("orders.created.", 10_000)
	wild := names("wild.orders.", 10_000)
	bench := func(name string, looked []string) {
		b.Run(name, func(b *testing.B) {
			table := registered(types)
			for _, typ := range looked {
				lookup(b, table, typ)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := table.Lookup(looked[i]); err != nil {
					b.Fatal(err)
				}
				if i++; i == len(looked) {
					i = 0
				}
			}
		})
	}
	bench("hit", types[:1])
	bench("miss/literal", types)
	bench("miss/wildcard", wild)
	bench("miss/unwanted", names("unwanted.orders.", 10_000))

	b.Run("hit/parallel", func(b *testing.B) {
		table := registered(types)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := table.Lookup(types[0]); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkAddRemove counts one Add and one Remove as one operation.
func BenchmarkAddRemove(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		types := names("orders.created.", n+1)
		b.Run(fmt.Sprintf("types=distinct/registrations=%d", n), func(b *testing.B) {
			var table route.Table[*int]
			for _, typ := range types[1:] {
				table.Add(new(int), allow(typ))
				lookup(b, &table, typ)
			}
			addRemove(b, &table, allow(types[0]))
		})
		b.Run(fmt.Sprintf("types=same/registrations=%d", n), func(b *testing.B) {
			var table route.Table[*int]
			for range n {
				table.Add(new(int), allow("orders.created"))
			}
			lookup(b, &table, "orders.created")
			addRemove(b, &table, allow("orders.created"))
		})
	}
	b.Run("types=wildcard/cache=full", func(b *testing.B) {
		var table route.Table[*int]
		for _, typ := range names("orders.created.", 10_000) {
			lookup(b, &table, typ)
		}
		addRemove(b, &table, allow("orders.deleted.*"))
	})
}

func addRemove(b *testing.B, table *route.Table[*int], in route.Interest) {
	sink := new(int)
	b.ReportAllocs()
	for b.Loop() {
		table.Add(sink, in)
		table.Remove(sink, in)
	}
}
