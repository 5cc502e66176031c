// Package mailbox holds the bounded queues between senders and receivers, and what happens when
// they are full.
//
// A Lane carries the messages of one interest (a set of patterns) to every Reader that has it.
// Readers with the ordinary policy share the lane's ring, each with a cursor of its own: a message
// is written once however many read it, which is what makes fan-out cheap. A reader that needs more
// than a cursor (another policy, a bound for what messages cost, several handlers at a time,
// messages past its bound, a stall) has a Queue of its own beside the ring, and a group of competing
// readers has one Queue together.
//
// Nothing here owns a goroutine. A sender appends in its own goroutine and wakes the readers that
// sleep; what a wake does (start a drainer, signal a channel) is the reader's affair. One mutex per
// lane guards everything in it; it is never held while a message is handled, while anybody waits, or
// while another lane's is taken, except by Move, which takes two in order of age. The functions that
// say what a reader wants and what a message costs are called under it.
//
// A Graph knows which goroutine waits for which reader, so that a wait that would never end is seen
// before it begins.
package mailbox

import "time"

// An Item is one message on its way.
type Item[T any] struct {
	Val  T
	From uint64 // the sender; a reader with the same owner never gets the item
	Seq  uint64 // position in the replay buffer, 0 when there is none
}

// taken marks the slot of an item that a member of a group took out of turn.
const taken = ^uint64(0)

// A Policy says what a full mailbox does with one message more.
type Policy uint8

// The policies.
const (
	Wait       Policy = iota // the sender waits, until the reader has stalled
	Block                    // the sender waits, however long
	DropOldest               // the oldest message gives way
	DropNewest               // the new message is dropped
	Fail                     // the new message is dropped and the sender is told
)

// Config says how a reader reads. Readers share it; it must not change.
type Config struct {
	Bound   int           // messages waiting, at least 1
	Cap     int           // messages waiting while a cycle is let grow, at least Bound
	MaxCost int           // what the messages waiting may cost, as Graph.SetCost says; 0 is any. In a cycle it grows as Bound does to Cap
	Policy  Policy        //
	Stall   time.Duration // with Wait: how long a reader may finish nothing while a sender waits; 0 is for ever
	Width   int           // handlers at a time, at least 1
	Extra   bool          // the reader does not count among those who get an item; not for groups
}

// Private reports whether a reader with this configuration cannot share a ring.
func (c *Config) Private() bool {
	return c.Policy != Wait || c.Width > 1 || c.Extra || c.MaxCost > 0
}

// A Waker is told that a sleeping reader has something to claim. It is called without locks, once
// for each time the reader's drainers are to become one more, and must see to it that Claim is
// called until it returns nothing.
type Waker interface{ Wake() }

// Lag tells what a reader lost: Count messages, the first From and the last To.
type Lag[T any] struct {
	Count    uint64
	From, To T
}

// add adds what was lost after.
func (g *Lag[T]) add(more Lag[T]) {
	if more.Count == 0 {
		return
	}
	if g.Count == 0 {
		g.From = more.From
	}
	g.Count += more.Count
	g.To = more.To
}

// A Mode says what an append does about readers that are full.
type Mode uint8

// The modes.
const (
	Normal Mode = iota // what their policies say
	Shed               // never wait: the oldest give way. For events of the bus itself
	drop               // do not wait, do without the full ones. For a sender whose context has ended
)

// Outcome is what became of one append that did not take the straight way.
type Outcome[T any] struct {
	N       int          // how many readers (a group counts as one) have it
	Err     error        // the context's, when it ended the wait; ErrClosed
	Missed  []*Reader[T] // readers that were full and did not get it: refused by policy, or the context ended
	Stalled []*Reader[T] // readers that this append found to have stalled; from now on they lose their oldest
	Targets *[]Target[T] // when not nil, collects who has it
	GoesOn  func()       // when not nil, is called every now and then while the append waits and those who are full go on; without locks
	Stale   func() bool  // reports whether the route has changed since it was looked up; nil: it has not
	exempt  []*Queue[T]  // full, but not waited for: they wait for the sender
	route   []*Lane[T]   // all lanes of this message
	forward []*Reader[T] // readers that left the lane for one that is not on the route
	wakes   wakes[T]     //
}

// A Target is one receiver of a message: a reader, or the members of a group of whom one will get
// it.
type Target[T any] struct{ Readers []*Reader[T] }
