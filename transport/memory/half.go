package memory

import (
	"sync"
	"time"
)

// frameCost is how many bytes a frame counts beside its own, so that empty ones are bounded too.
const frameCost = 64

type kind byte

const (
	data kind = iota
	fin       // the sender sends no more
	gone      // the sender does not receive any more
)

// A parcel is what travels: a frame, or word of an end.
type parcel struct {
	kind  kind
	frame []byte
	at    time.Time // when it arrives, if there is no silence
}

func (p *parcel) cost() int {
	if p.kind != data {
		return 0
	}
	return len(p.frame) + frameCost
}

// A half is one direction of a connection. All of it is guarded by the mutex of the Connection.
//
// Invariant: queue[:landed] has arrived, and is readable even in a silence.
// Invariant: the parcels in queue arrive in order: at does not decrease.
// Invariant: size is the cost of queue.
type half struct {
	readable sync.Cond // for the reader, and Shutdown on its side
	writable sync.Cond // for the writer

	queue  []parcel
	landed int
	size   int

	conditions      // of the path
	stalled    bool // silent by itself
	fin, gone  bool // has landed
	deaf       bool // the receiver is closed: what lands is lost
}

// push sends a parcel on its way.
func (h *half) push(now time.Time, p parcel) {
	p.at = now.Add(h.latency)
	if len(h.queue) > 0 {
		if last := h.queue[len(h.queue)-1].at; p.at.Before(last) {
			p.at = last
		}
	}
	h.queue = append(h.queue, p)
	h.size += p.cost()
	h.readable.Broadcast()
}

// land takes in what has arrived by now.
func (h *half) land(now time.Time) {
	if h.silent || h.stalled {
		return
	}
	for ; h.landed < len(h.queue) && !h.queue[h.landed].at.After(now); h.landed++ {
		switch h.queue[h.landed].kind {
		case fin:
			h.fin = true
		case gone:
			h.gone = true
		}
	}
	for h.deaf && h.landed > 0 {
		h.pop()
	}
}

// next returns when the next parcel lands, or the zero time if there is none or it is held up.
func (h *half) next() time.Time {
	if h.silent || h.stalled || h.landed == len(h.queue) {
		return time.Time{}
	}
	return h.queue[h.landed].at
}

// head returns the first frame that has landed and was not read, or nil.
func (h *half) head() *parcel {
	if h.landed == 0 || h.queue[0].kind != data {
		return nil
	}
	return &h.queue[0]
}

// pop takes off the first parcel, which has landed.
func (h *half) pop() {
	h.size -= h.queue[0].cost()
	h.queue[0] = parcel{}
	h.queue = h.queue[1:]
	h.landed--
	h.writable.Broadcast()
}

// drop loses what has not been read.
func (h *half) drop() {
	h.queue, h.landed, h.size = nil, 0, 0
	h.wake()
}

func (h *half) wake() {
	h.readable.Broadcast()
	h.writable.Broadcast()
}
