package gravbus

import (
	"iter"
	"math"
	"sync"
	"time"
)

// DefaultReplay is how many messages a bus keeps for replay unless UseReplay says otherwise, and
// DefaultReplayBytes how many bytes.
const (
	DefaultReplay      = 1024
	DefaultReplayBytes = 16 << 20
)

// A Buffer holds the most recent messages, bounded by count, by bytes and if wanted by age. It
// holds what was pushed last without gaps: the oldest go first, and a message larger than the bound
// in bytes leaves it empty. It is safe for concurrent use.
type Buffer struct {
	limit    int
	maxBytes int
	maxAge   time.Duration
	owned    bool // by a bus, which alone may push

	mu    *sync.Mutex // guards all below; a bus's mailboxes share it
	slots []slot      // a ring; its length is a power of two
	made  []int64     // when what is in slots was made, Unix time; nil without maxAge
	first uint64      // sequence number of the oldest
	next  uint64      // sequence number that the next one gets. The first is 1
	bytes int
	turn  uint64 // what Next returns next
}

type slot struct {
	msg  Message
	from uint64 // ID of the pod that sent it
	size int
}

// paddedMutex has a cache line of its own: it is taken at every Send and every claim.
type paddedMutex struct {
	sync.Mutex
	_ [56]byte
}

// A BufferOption is a bound of a Buffer.
type BufferOption func(*Buffer)

// MaxBytes bounds a buffer to n bytes, DefaultReplayBytes unless n is positive. A message counts
// with the length of its data and 144 bytes, and those of its ParentID, and of a UUID or ReplyTo that is
// no UUID; a typed payload (NewTyped) counts as no data, a message of others' making with its data alone.
func MaxBytes(n int) BufferOption {
	return func(b *Buffer) {
		if n > 0 {
			b.maxBytes = n
		}
	}
}

// MaxAge makes a buffer forget messages older than d by their Timestamp. Unless d is positive they
// are kept however old.
func MaxAge(d time.Duration) BufferOption {
	return func(b *Buffer) { b.maxAge = max(d, 0) }
}

// NewBuffer returns a buffer for limit messages, DefaultReplay unless limit is positive.
func NewBuffer(limit int, opts ...BufferOption) *Buffer {
	if limit <= 0 {
		limit = DefaultReplay
	}
	b := &Buffer{mu: &new(paddedMutex).Mutex, limit: limit, maxBytes: DefaultReplayBytes, first: 1, next: 1, turn: 1}
	for _, o := range opts {
		if o != nil {
			o(b)
		}
	}
	return b
}

// Push adds msg, and lets the oldest go if there are too many now. It returns ErrNilMessage for
// nil, and ErrBusBuffer if the buffer is a bus's.
func (b *Buffer) Push(msg Message) error {
	if isNil(msg) {
		return ErrNilMessage
	}
	if b == nil || b.owned {
		return ErrBusBuffer
	}
	size, made := sizeOf(msg), b.madeAt(msg)
	b.mu.Lock()
	b.pushForeign(msg, size, 0, made)
	b.mu.Unlock()
	return nil
}

// push adds msg, which is a *message and counts size, and returns its sequence number. The caller
// holds b.mu.
func (b *Buffer) push(msg Message, size int, from uint64) uint64 {
	return b.pushForeign(msg, size, from, 0)
}

// pushForeign is push for any message; made is what madeAt returned before b.mu was taken.
func (b *Buffer) pushForeign(msg Message, size int, from uint64, made int64) uint64 {
	seq := b.next
	b.next++
	b.bytes += size
	for b.next-b.first > uint64(b.limit) || b.bytes > b.maxBytes {
		if b.first == seq { // larger than the buffer
			if len(b.slots) > 0 {
				*b.at(seq) = slot{} // which evict may have left as it was
			}
			b.first, b.bytes = b.next, 0
			return seq
		}
		b.evict(b.at(seq)) // there is one, so there are slots
	}
	if b.next-b.first > uint64(len(b.slots)) {
		b.grow(seq)
	}
	b.slots[seq&uint64(len(b.slots)-1)] = slot{msg, from, size}
	if b.maxAge > 0 {
		if m, ok := msg.(*message); ok {
			made = m.nanos
		}
		b.made[seq&uint64(len(b.made)-1)] = made
		b.expire()
	}
	return seq
}

// madeAt asks a message of others' making when it was made, if that matters. Its methods may do
// anything, so b.mu must not be held.
func (b *Buffer) madeAt(msg Message) int64 {
	if b.maxAge == 0 {
		return 0
	}
	return madeAt(msg)
}

func madeAt(msg Message) int64 {
	if m, ok := msg.(*message); ok {
		return m.nanos
	}
	at := msg.Timestamp()
	switch y := at.UTC().Year(); { // what 64 bits of nanoseconds hold
	case y < 1678:
		return noTime
	case y > 2261:
		return math.MaxInt64
	}
	return at.UnixNano()
}

// evict lets the oldest go. Its slot is cleared, unless it is next, which is written at once.
func (b *Buffer) evict(next *slot) {
	s := b.at(b.first)
	b.bytes -= s.size
	if s != next {
		*s = slot{}
	}
	b.first++
}

func (b *Buffer) expire() {
	oldest := now() - int64(b.maxAge)
	for b.first != b.next && b.made[b.first&uint64(len(b.made)-1)] < oldest {
		b.evict(nil)
	}
}

func (b *Buffer) at(seq uint64) *slot { return &b.slots[seq&uint64(len(b.slots)-1)] }

// grow doubles the ring, which holds [first, end).
func (b *Buffer) grow(end uint64) {
	bigger := make([]slot, max(2*len(b.slots), 16))
	for seq := b.first; seq != end; seq++ {
		bigger[seq&uint64(len(bigger)-1)] = *b.at(seq)
	}
	b.slots = bigger
	if b.maxAge > 0 {
		made := make([]int64, len(bigger))
		for seq := b.first; seq != end; seq++ {
			made[seq&uint64(len(made)-1)] = b.made[seq&uint64(len(b.made)-1)]
		}
		b.made = made
	}
}

// Limit returns how many messages the buffer holds at most.
func (b *Buffer) Limit() int {
	if b == nil {
		return 0
	}
	return b.limit
}

// Len returns how many messages the buffer holds.
func (b *Buffer) Len() int {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.maxAge > 0 {
		b.expire()
	}
	return int(b.next - b.first)
}

// Next returns one message after the other, oldest first, and begins again after the latest. It
// returns nil if the buffer is empty.
func (b *Buffer) Next() Message {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.maxAge > 0 {
		b.expire()
	}
	if b.first == b.next {
		return nil
	}
	if b.turn < b.first || b.turn >= b.next {
		b.turn = b.first
	}
	msg := b.at(b.turn).msg
	b.turn++
	return msg
}

// Iter calls fn for each message, oldest first, and stops at the first error, which it returns. It
// sees the messages that were there when it began; fn may use the buffer.
func (b *Buffer) Iter(fn MsgFunc) error {
	if fn == nil {
		return ErrNilHandler
	}
	for msg := range b.All() {
		if err := fn(msg); err != nil {
			return err
		}
	}
	return nil
}

// All yields the messages, oldest first. Each loop sees those that are there when it begins.
func (b *Buffer) All() iter.Seq[Message] {
	return func(yield func(Message) bool) {
		snapshot, _ := b.snapshot()
		for _, s := range snapshot {
			if !yield(s.msg) {
				return
			}
		}
	}
}

// Since yields the messages with a Timestamp of t or later, oldest first.
func (b *Buffer) Since(t time.Time) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for msg := range b.All() {
			if !msg.Timestamp().Before(t) && !yield(msg) {
				return
			}
		}
	}
}

// After yields the messages that were pushed after the (latest) one with the given UUID, oldest
// first. If that is not in the buffer, because it was never there or has gone, the second result is
// false and all messages are yielded: some may be missing between.
func (b *Buffer) After(uuid string) (iter.Seq[Message], bool) {
	snapshot, _ := b.snapshot()
	rest, found := after(snapshot, uuid)
	return func(yield func(Message) bool) {
		for _, s := range rest {
			if !yield(s.msg) {
				return
			}
		}
	}, found
}

// after returns what comes after the last message with the UUID, or everything.
func after(slots []slot, uuid string) ([]slot, bool) {
	id := parseUUID(uuid)
	for i := len(slots) - 1; i >= 0; i-- {
		if m, ok := slots[i].msg.(*message); ok && m.receipt.id == id || !ok && slots[i].msg.UUID() == uuid {
			return slots[i+1:], true
		}
	}
	return slots, false
}

// snapshot returns a copy of what the buffer holds, and the sequence number of the latest message
// ever pushed.
func (b *Buffer) snapshot() ([]slot, uint64) {
	if b == nil {
		return nil, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.maxAge > 0 {
		b.expire()
	}
	all := make([]slot, 0, b.next-b.first)
	for seq := b.first; seq != b.next; seq++ {
		all = append(all, *b.at(seq))
	}
	return all, b.next - 1
}

// pushed returns how many messages were ever pushed.
func (b *Buffer) pushed() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next - 1
}
