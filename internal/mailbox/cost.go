package mailbox

import "math"

// A size is how much waits, or may wait.
//
// One more may be added while neither part reaches the bound's, whatever it costs itself: so the
// largest can pass too, and what waits costs less than the bound and one item more.
type size struct{ count, cost uint64 }

func (s size) reaches(bound size) bool { return s.count >= bound.count || s.cost >= bound.cost }

// bounds returns how much may wait, and how much while a cycle is let grow. Without a MaxCost it
// may cost anything.
func (c *Config) bounds() (bound, most size) {
	bound, most = size{uint64(c.Bound), math.MaxUint64}, size{uint64(c.Cap), math.MaxUint64}
	if c.MaxCost > 0 {
		grown := float64(c.MaxCost) * float64(c.Cap) / float64(c.Bound)
		bound.cost = uint64(c.MaxCost)
		most.cost = max(bound.cost, uint64(min(grown, 1<<62)))
	}
	return bound, most
}

func (g *Graph[T]) costOf(it *Item[T]) uint64 {
	if g.cost == nil {
		return 0
	}
	return uint64(max(g.cost(it.Val), 0))
}

// enough is to the bound of what waits as batchFor is: a claim takes no more once it costs so much.
func enough(bound uint64) uint64 { return max(bound/4, 1) }

// costed reports whether it matters what the items cost.
func (q *Queue[T]) costed() bool { return q.bound.cost < math.MaxUint64 }

// addCost adds what the item in slot i costs.
func (q *Queue[T]) addCost(i uint64) {
	q.costs[i] = q.lane.graph.costOf(&q.slots[i])
	q.setCost(q.holds.cost + q.costs[i])
}

func (q *Queue[T]) setCost(sum uint64) {
	q.holds.cost = sum
	q.spent = sum >= q.bound.cost
}

// atBound reports whether q holds as much as it may.
func (q *Queue[T]) atBound() bool { return q.holds.count >= q.bound.count || q.spent }

// room returns for how many more there is room, if there is any.
func (q *Queue[T]) room() uint64 {
	if q.costed() {
		return 1 // at least; who adds it passes on what is left
	}
	return q.bound.count - q.holds.count
}

// makeRoom drops the oldest until it can be added: until q holds less than most, or with it holds
// no more than now, if it has grown.
func (q *Queue[T]) makeRoom(it *Item[T], most size) {
	if !q.costed() {
		q.dropOldest()
		return
	}
	now, more := q.holds, q.lane.graph.costOf(it)
	for q.holds.count >= max(most.count, now.count) || q.holds.cost >= most.cost && q.holds.cost+more > now.cost {
		q.dropOldest()
	}
}

// affordableBefore returns how many of items, which come before all else, r may claim at once.
func (r *Reader[T]) affordableBefore(l *Lane[T], items []Item[T]) int {
	if r.cfg.MaxCost > 0 {
		most := enough(uint64(r.cfg.MaxCost))
		sum := uint64(0)
		for i := range items {
			if sum += l.graph.costOf(&items[i]); sum >= most {
				return i + 1
			}
		}
	}
	return len(items)
}
