package gravbus

import (
	"container/list"
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
	lasting list.List                     // of *replyWait by OnReply, oldest first; elements are values of known.lasting
	bytes   int                           // of early replies
	lost    uint64                        // early replies that had to go
}

// known is a message whose receipts are waited on.
type known struct {
	box     *replies
	waits   int
	lasting map[*replyWait]*list.Element
}

type earlyReply struct {
	id    uuid.UUID
	reply reply
}

type lastingWait struct {
	id uuid.UUID
	w  *replyWait
}

// register makes replies to r's message known by UUID find box, or the box of another receipt of
// the same message that is there already, which becomes r's too, and returns it. Each call is
// undone by unregister.
func (k *parked) register(r *Receipt, box *replies) *replies {
	k.mu.Lock()
	kn := k.know(r.id, box)
	kn.waits++
	box = kn.box
	early := k.takeEarly(r.id)
	k.mu.Unlock()
	r.box.Store(box)
	bus := r.pod.Load().bus
	for _, rep := range early {
		box.deliver(bus, rep)
	}
	return box
}

func (k *parked) unregister(id uuid.UUID) {
	k.mu.Lock()
	k.waiting[id].waits--
	k.tidy(id)
	k.mu.Unlock()
}

// registerLasting is register for a wait that ends by forget, or when there are too many.
func (k *parked) registerLasting(r *Receipt, box *replies, w *replyWait) *replies {
	box = k.register(r, box)
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.waiting[r.id]
	known.waits--
	if known.lasting == nil {
		known.lasting = map[*replyWait]*list.Element{}
	}
	known.lasting[w] = k.lasting.PushBack(lastingWait{r.id, w})
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
			k.lasting.Remove(e)
			delete(known.lasting, w)
			k.tidy(id)
		}
	}
}

func (k *parked) know(id uuid.UUID, box *replies) *known {
	kn := k.waiting[id]
	if kn == nil {
		kn = &known{box: box}
		if k.waiting == nil {
			k.waiting = map[uuid.UUID]*known{}
		}
		k.waiting[id] = kn
	}
	return kn
}

func (k *parked) tidy(id uuid.UUID) {
	if known := k.waiting[id]; known.waits == 0 && len(known.lasting) == 0 {
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

// deliver brings a reply to the receipts of message id, or keeps it for them.
func (k *parked) deliver(bus *Bus, id uuid.UUID, rep reply) {
	k.mu.Lock()
	if known := k.waiting[id]; known != nil {
		k.mu.Unlock()
		known.box.deliver(bus, rep)
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
