package mesh

// ring is a queue of items.
type ring[T any] struct {
	slots []outItem[T] // its length is a power of two
	first uint64       // number of slots ever taken
	n     int
}

func (r *ring[T]) at(i int) *outItem[T] {
	return &r.slots[(r.first+uint64(i))&uint64(len(r.slots)-1)]
}

func (r *ring[T]) push(it outItem[T]) {
	if r.n == len(r.slots) {
		bigger := make([]outItem[T], max(2*len(r.slots), 16))
		for i := range r.n {
			bigger[(r.first+uint64(i))&uint64(len(bigger)-1)] = *r.at(i)
		}
		r.slots = bigger
	}
	r.n++
	*r.at(r.n - 1) = it
}

// pop takes the oldest.
func (r *ring[T]) pop() (cost uint64) {
	s := r.at(0)
	cost = s.cost
	*s = outItem[T]{}
	r.first++
	r.n--
	return cost
}

func (r *ring[T]) all() []outItem[T] {
	all := make([]outItem[T], r.n)
	for i := range all {
		all[i] = *r.at(i)
	}
	return all
}
