package mailbox

// QueueSlots returns how long the ring of r's queue is, 0 if it shares the lane's.
func (r *Reader[T]) QueueSlots() int {
	l := r.lock()
	defer l.mu.Unlock()
	if r.q == nil {
		return 0
	}
	return len(r.q.slots)
}

// LaneSlots returns how long the lane's ring is, and how many of its slots are not zero by the given test.
func (l *Lane[T]) LaneSlots(used func(*Item[T]) bool) (n, inUse int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.slots {
		if used(&l.slots[i]) {
			inUse++
		}
	}
	return len(l.slots), inUse
}
