package mesh

// ring holds the items of a stream that may have to be sent again, each at its number. Which those
// are, and that they fit, is for the link to know.
type ring[T any] struct {
	slots []outItem[T] // its length is a power of two
}

func (r *ring[T]) at(seq uint64) *outItem[T] { return &r.slots[seq&uint64(len(r.slots)-1)] }

// grow makes room for more than [from, to), which it holds.
func (r *ring[T]) grow(from, to uint64) {
	bigger := ring[T]{make([]outItem[T], max(2*len(r.slots), 16))}
	for seq := from; seq != to; seq++ {
		*bigger.at(seq) = *r.at(seq)
	}
	*r = bigger
}
