package gravbus

import (
	"container/list"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// parked brings together replies that name the message they answer by UUID alone, and the receipts
// of those messages. A receipt is known here while somebody waits on it; replies that come before
// are kept for it.
type parked struct {
	mu      sync.Mutex // guards all below
	waiting map[uuid.UUID]*known
	early   map[uuid.UUID][]*list.Element // values are earlyReply, elements of order
	order   list.List                     // of all early replies, oldest first
	lasting list.List                     // of lastingWait, oldest first; elements are values of known.lasting
	bytes   int                           // of early replies
	lost    uint64                        // early replies that had to go
}

// known is a message whose receipts are waited on. Messages that were made from the same bytes have
// one UUID, and receipts of their own.
//
// Invariant: boxes holds each box once, with as many waits as have registered it and are not over.
type known struct {
	boxes   []knownBox
	first   [1]knownBox // room for one box, which is the ordinary case
	lasting map[*replyWait]*list.Element
}

type knownBox struct {
	box   *replies
	waits int
}

type earlyReply struct {
	id    uuid.UUID
	reply reply
}

// lastingWait is a wait by OnReply.
type lastingWait struct {
	id  uuid.UUID
	box *replies
	w   *replyWait
}

// register makes replies that name r's message by UUID find r's box, which it returns. Those that
// came early are in it then. Each call is undone by unregister.
func (k *parked) register(r *Receipt) *replies {
	box := r.replies()
	k.mu.Lock()
	k.knowLocked(r.id).add(box)
	early := k.takeEarly(r.id)
	k.mu.Unlock()
	bus := r.pod.Load().bus
	for _, rep := range early {
		box.deliver(bus, rep, nil)
	}
	return box
}

func (k *parked) unregister(r *Receipt) {
	k.mu.Lock()
	k.dropLocked(r.id, r.replies())
	k.mu.Unlock()
}

// registerLasting is register for a wait that ends by forget, or when there are too many.
func (k *parked) registerLasting(r *Receipt, w *replyWait) *replies {
	box := k.register(r)
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.waiting[r.id]
	if known.lasting == nil {
		known.lasting = map[*replyWait]*list.Element{}
	}
	known.lasting[w] = k.lasting.PushBack(lastingWait{r.id, box, w})
	if k.lasting.Len() > MaxParkedReplies {
		oldest := k.lasting.Front().Value.(lastingWait)
		k.forgetLocked(oldest.id, oldest.w)
	}
	return box
}

func (k *parked) forget(id uuid.UUID, w *replyWait) {
	k.mu.Lock()
	k.forgetLocked(id, w)
	k.mu.Unlock()
}

func (k *parked) forgetLocked(id uuid.UUID, w *replyWait) {
	if known := k.waiting[id]; known != nil {
		if e := known.lasting[w]; e != nil {
			delete(known.lasting, w)
			k.dropLocked(id, k.lasting.Remove(e).(lastingWait).box)
		}
	}
}

func (k *parked) knowLocked(id uuid.UUID) *known {
	kn := k.waiting[id]
	if kn == nil {
		kn = new(known)
		kn.boxes = kn.first[:0]
		if k.waiting == nil {
			k.waiting = map[uuid.UUID]*known{}
		}
		k.waiting[id] = kn
	}
	return kn
}

func (kn *known) add(box *replies) {
	if i := kn.index(box); i >= 0 {
		kn.boxes[i].waits++
		return
	}
	kn.boxes = append(kn.boxes, knownBox{box, 1})
}

func (kn *known) index(box *replies) int {
	return slices.IndexFunc(kn.boxes, func(b knownBox) bool { return b.box == box })
}

// dropLocked undoes one add.
func (k *parked) dropLocked(id uuid.UUID, box *replies) {
	kn := k.waiting[id]
	i := kn.index(box)
	if kn.boxes[i].waits--; kn.boxes[i].waits > 0 {
		return
	}
	if kn.boxes = slices.Delete(kn.boxes, i, i+1); len(kn.boxes) == 0 {
		delete(k.waiting, id)
	}
}

func (k *parked) takeEarly(id uuid.UUID) (early []reply) {
	for _, e := range k.early[id] {
		rep := k.order.Remove(e).(earlyReply).reply
		k.bytes -= sizeOf(rep.msg)
		early = append(early, rep)
	}
	delete(k.early, id)
	return early
}

// waits reports whether somebody waits for replies to message id.
func (k *parked) waits(id uuid.UUID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.waiting[id] != nil
}

// deliver brings a reply to the receipts of message id that are waited on, or keeps it for those to
// come.
func (k *parked) deliver(bus *Bus, id uuid.UUID, rep reply) {
	k.mu.Lock()
	if known := k.waiting[id]; known != nil {
		first, others := known.boxes[0].box, slices.Clone(known.boxes[1:])
		k.mu.Unlock()
		first.deliver(bus, rep, nil)
		for _, o := range others {
			o.box.deliver(bus, rep, nil)
		}
		return
	}
	if k.early == nil {
		k.early = map[uuid.UUID][]*list.Element{}
	}
	k.early[id] = append(k.early[id], k.order.PushBack(earlyReply{id, rep}))
	k.bytes += sizeOf(rep.msg)
	for k.order.Len() > MaxParkedReplies || k.bytes > MaxParkedBytes && k.order.Len() > 1 {
		k.lost++
		oldest := k.order.Remove(k.order.Front()).(earlyReply)
		k.bytes -= sizeOf(oldest.reply.msg)
		if k.early[oldest.id] = k.early[oldest.id][1:]; len(k.early[oldest.id]) == 0 {
			delete(k.early, oldest.id)
		}
	}
	k.mu.Unlock()
}

func (k *parked) lostCount() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lost
}
