package run

import (
	"sync/atomic"
	"time"
)

// A tally counts the deliveries of one subscription and checks their order. It fills a cache line,
// and counting takes no locked instruction: with a thousand subscriptions at three nanoseconds a
// delivery the counting would else be most of what is measured.
type tally struct {
	n    int                // deliveries so far; written by the subscription's calls only
	want atomic.Int64       // n at which the board is told
	pos  [maxSenders]uint32 // per sender: the number expected next, not wrapped; written like n
	odd  *odd
	_    [24]byte
}

// odd is what a tally needs only when a message is not the expected one. All but board is written
// by the subscription's calls only.
type odd struct {
	board *board
	late  int // deliveries that came after a later one of their sender, or twice
	runs  [maxSenders]lateRun
}

// A lateRun is a run of messages that seem late, each following the one before.
type lateRun struct {
	next   uint32 // the number that would go on with it
	pos    uint32 // the tally's pos during it
	length int
}

const (
	// lateBy is how far behind the expected number a message may be to be taken for a late one. One
	// further behind is taken for one ahead, after a loss; if it was late after all, the tally ends
	// up ahead of its sender by a whole ring, and board.disordered counts that.
	lateBy = 128
	// lateRuns is how many messages in a row, each following the one before, are no longer taken
	// for late but for what came after the loss of almost a ring.
	lateRuns = 16
)

// take counts one delivery. Calls come one at a time, as peer.Bus promises.
func (t *tally) take(data []byte) {
	t.n++
	if sender, number := senderOf(data), numberOf(data); sender >= maxSenders {
		t.odd.late++ // nobody sent it
	} else if t.pos[sender]%ringSize == number {
		t.pos[sender]++
	} else {
		t.stray(sender, number)
	}
	if int64(t.n) == t.want.Load() {
		t.odd.board.reached()
	}
}

func (t *tally) stray(sender, number uint32) {
	pos := &t.pos[sender]
	ahead := (number - *pos) % ringSize
	if ahead < ringSize-lateBy {
		*pos += ahead + 1
		return
	}
	t.odd.late++
	run := &t.odd.runs[sender]
	if run.length == 0 || run.next != number || run.pos != *pos {
		*run = lateRun{pos: *pos}
	}
	run.length++
	run.next = (number + 1) % ringSize
	if run.length == lateRuns {
		t.odd.late -= run.length
		*pos += ahead + 1
		*run = lateRun{}
	}
}

// seen returns n, of which the caller need not be told by anything that orders the two: after a loss
// nothing tells it. n is one word, so that what it reads was n at some time.
//
//go:norace
func (t *tally) seen() int { return t.n }

// seenOdd is as seen, for the rest.
//
//go:norace
func (t *tally) seenOdd() (pos [maxSenders]uint32, late int) {
	for i := range pos {
		pos[i] = t.pos[i]
	}
	return pos, t.odd.late
}

// A board has the tallies of all subscriptions to one topic, of one process.
type board struct {
	tallies []tally
	due     int                // deliveries to all tallies so far
	sent    [maxSenders]uint32 // messages of each sender so far

	pending atomic.Int64  // tallies that have not got what they want
	done    chan struct{} // has a value when pending has become 0
}

func newBoard(subscriptions int) *board {
	b := &board{tallies: make([]tally, subscriptions), done: make(chan struct{}, 1)}
	odds := make([]odd, subscriptions)
	for i := range b.tallies {
		odds[i].board = b
		b.tallies[i].odd = &odds[i]
	}
	return b
}

// expect says that each of the first senders will publish so many messages now.
func (b *board) expect(senders, each int) {
	select {
	case <-b.done:
	default:
	}
	b.pending.Store(int64(len(b.tallies)))
	for i := range senders {
		b.sent[i] += uint32(each)
	}
	b.due += senders * each * len(b.tallies)
	for i := range b.tallies {
		t := &b.tallies[i]
		t.want.Store(int64(t.seen() + senders*each))
	}
}

func (b *board) reached() {
	if b.pending.Add(-1) == 0 {
		select {
		case b.done <- struct{}{}:
		default:
		}
	}
}

// wait returns when all has come that was expected, or nothing has come for as long as silence. It
// returns when the last one came, and whether it was the last one expected. It is called after the
// last message was published.
func (b *board) wait(silence time.Duration) (last time.Time, complete bool) {
	select { // with most peers all is there by now, or will be before it is worth to look
	case <-b.done:
		return time.Now(), true
	default:
	}
	ticker := time.NewTicker(min(5*time.Millisecond, silence/4))
	defer ticker.Stop()
	last = time.Now()
	for received := b.received(); ; {
		select {
		case <-b.done:
			return time.Now(), true
		case now := <-ticker.C:
			if r := b.received(); r != received {
				received, last = r, now
			} else if now.Sub(last) >= silence {
				return last, false
			}
		}
	}
}

// received returns the deliveries so far.
func (b *board) received() int {
	n := 0
	for i := range b.tallies {
		n += b.tallies[i].seen()
	}
	return n
}

// disordered returns the deliveries so far that came after a later one of their sender, or twice.
func (b *board) disordered() int {
	n := 0
	for i := range b.tallies {
		pos, late := b.tallies[i].seenOdd()
		n += late
		for s, p := range pos {
			if over := int32(p - b.sent[s]); over > 0 {
				n += (int(over) + ringSize - 1) / ringSize
			}
		}
	}
	return n
}
