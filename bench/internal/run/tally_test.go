package run

import "testing"

// What a tally makes of the numbers that come, of one sender that has sent them all up to sent.
func TestTally(t *testing.T) {
	span := func(from, to int) (all []int) {
		for i := from; i < to; i++ {
			all = append(all, i)
		}
		return all
	}
	join := func(parts ...[]int) (all []int) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	for _, test := range []struct {
		name     string
		sent     int
		came     []int
		disorder int
	}{
		{"in order", 5000, span(0, 5000), 0},
		{"a few lost", 5000, join(span(0, 700), span(800, 5000)), 0},
		{"the last lost", 5000, span(0, 4000), 0},
		{"almost a ring lost", 5000, join(span(0, 700), span(1700, 5000)), 0},
		{"more than a ring lost", 5000, join(span(0, 700), span(2700, 5000)), 0},
		{"one twice", 5000, join(span(0, 701), span(700, 5000)), 1},
		{"one late", 5000, join(span(0, 700), span(701, 720), []int{700}, span(720, 5000)), 1},
		{"one very late", 5000, join(span(0, 700), span(701, 1200), []int{700}, span(1200, 5000)), 1},
		{"ten late", 5000, join(span(0, 700), span(710, 720), span(700, 710), span(720, 5000)), 10},
	} {
		b := newBoard(1)
		b.expect(1, test.sent)
		data := make([]byte, headerSize)
		for _, i := range test.came {
			stamp(data, 0, uint32(i%ringSize))
			b.tallies[0].take(data)
		}
		if got := b.disordered(); got != test.disorder {
			t.Errorf("%s: %d disordered, want %d", test.name, got, test.disorder)
		}
		if got := b.received(); got != len(test.came) {
			t.Errorf("%s: %d received, want %d", test.name, got, len(test.came))
		}
		if _, complete := b.wait(1 << 20); complete != (len(test.came) >= test.sent) {
			t.Errorf("%s: complete is %t", test.name, complete)
		}
	}
}

func TestPercentile(t *testing.T) {
	var hundred []int64
	for i := range 100 {
		hundred = append(hundred, int64(i+1))
	}
	for _, test := range []struct {
		sorted []int64
		p      float64
		want   float64
	}{
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.9, 100},
		{[]int64{7}, 50, 7},
		{[]int64{7}, 99.9, 7},
		{[]int64{1, 2, 3}, 50, 2},
	} {
		if got := percentile(test.sorted, test.p); got != test.want {
			t.Errorf("percentile %v of %d: %v, want %v", test.p, len(test.sorted), got, test.want)
		}
	}
}
