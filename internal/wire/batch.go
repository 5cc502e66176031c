package wire

import (
	"encoding/binary"
	"slices"
)

// lengthWidth is how many bytes the length of a batch takes: always the same, so that it can be
// filled in when the batch is there. 35 bits are enough for whatever fits into memory.
const lengthWidth = 5

// A BatchWriter writes the batches of one direction of one connection. It knows which types have a
// number there: all that it appends has to be sent, in the order in which it was appended. The zero
// BatchWriter is ready for a new connection.
//
// Between Begin and End the buffer is appended to by the methods of the writer only.
type BatchWriter struct {
	types map[string]uint64 // number on the wire
	last  string            // the type of the message before
	num   uint64            // its number, at least firstType; 0 if it has none
	start int               // where the batch begins
	items int               // where its items begin
	time  int64             // of the message before
}

// What stands for a type: how it is written, or its number.
const (
	typeOnce  = 0
	typeNew   = 1
	firstType = 2
)

// Begin appends the beginning of a batch whose first item has sequence number first.
func (w *BatchWriter) Begin(b []byte, first uint64) []byte {
	w.start, w.time = len(b), 0
	b = append(b, byte(KindBatch))
	b = append(b, make([]byte, lengthWidth)...)
	b = binary.AppendUvarint(b, first)
	w.items = len(b)
	return b
}

// End completes the batch. If it has no items it is removed.
func (w *BatchWriter) End(b []byte) []byte {
	if len(b) == w.items {
		return b[:w.start]
	}
	body := w.start + 1 + lengthWidth
	size := uint64(len(b) - body)
	for i := w.start + 1; i < body-1; i++ {
		b[i] = byte(size) | 0x80
		size >>= 7
	}
	b[body-1] = byte(size)
	return b
}

// Message appends a message. Whether it has a Rare is told by m.Rare, whether a ReplyTo by
// FlagReplyTo; TypeNum is not looked at. The type must not be empty nor over MaxName bytes.
func (w *BatchWriter) Message(b []byte, m *Message) []byte {
	flags := m.Flags &^ (FlagRare | TagGap)
	delta := zigzag(m.Time - w.time)
	w.time = m.Time
	size := 1 + len(m.ID) + uvarintLen(delta) + len(m.Data)
	num, isNew := w.number(m.Type)
	if num >= firstType && !isNew {
		size += uvarintLen(num)
	} else {
		size += 1 + uvarintLen(uint64(len(m.Type))) + len(m.Type)
	}
	if flags&FlagReplyTo != 0 {
		size += len(m.ReplyTo)
	}
	if m.Rare != nil {
		flags |= FlagRare
		size += m.Rare.size()
	}

	b = slices.Grow(b, binary.MaxVarintLen64+size)
	b = binary.AppendUvarint(b, uint64(size))
	b = append(b, flags)
	b = append(b, m.ID[:]...)
	b = binary.AppendUvarint(b, delta)
	switch {
	case isNew:
		b = appendString(append(b, typeNew), m.Type)
	case num >= firstType:
		b = binary.AppendUvarint(b, num)
	default:
		b = appendString(append(b, typeOnce), m.Type)
	}
	if flags&FlagReplyTo != 0 {
		b = append(b, m.ReplyTo[:]...)
	}
	if m.Rare != nil {
		b = m.Rare.append(b)
	}
	return append(b, m.Data...)
}

// number returns the number of a type and whether it has got it just now; typeOnce if there are too
// many to number it.
func (w *BatchWriter) number(typ string) (num uint64, isNew bool) {
	if w.num != typeOnce && typ == w.last {
		return w.num, false
	}
	num, known := w.types[typ]
	if !known {
		if len(w.types) == MaxTypes {
			return typeOnce, false
		}
		if w.types == nil {
			w.types = make(map[string]uint64)
		}
		num = firstType + uint64(len(w.types))
		w.types[typ] = num
	}
	w.last, w.num = typ, num
	return num, !known
}

// Gap appends a gap.
func (w *BatchWriter) Gap(b []byte, g *Gap) []byte {
	b = appendTag(b, TagGap, uvarintLen(g.Count)+len(g.From)+len(g.To))
	b = binary.AppendUvarint(b, g.Count)
	b = append(b, g.From[:]...)
	return append(b, g.To[:]...)
}

// ReplayEnd appends the end of the replay with this ID.
func (w *BatchWriter) ReplayEnd(b []byte, id uint64) []byte {
	return binary.AppendUvarint(appendTag(b, TagReplayEnd, uvarintLen(id)), id)
}

// Gone appends that the pod with this number has gone.
func (w *BatchWriter) Gone(b []byte, pod uint64) []byte {
	return binary.AppendUvarint(appendTag(b, TagGone, uvarintLen(pod)), pod)
}

// Targets appends targets. None may be without pods. Names are cut off where they are too long.
func (w *BatchWriter) Targets(b []byte, t *Targets) []byte {
	size := len(t.Request) + uvarintLen(uint64(len(t.List)))
	for i := range t.List {
		target := &t.List[i]
		size += uvarintLen(uint64(len(target.Pods)))
		for j, pod := range target.Pods {
			name := forPeople(target.Names[j])
			size += uvarintLen(pod) + uvarintLen(uint64(len(name))) + len(name)
		}
	}
	b = appendTag(b, TagTargets, size)
	b = append(b, t.Request[:]...)
	b = binary.AppendUvarint(b, uint64(len(t.List)))
	for i := range t.List {
		target := &t.List[i]
		b = binary.AppendUvarint(b, uint64(len(target.Pods)))
		for j, pod := range target.Pods {
			b = appendString(binary.AppendUvarint(b, pod), forPeople(target.Names[j]))
		}
	}
	return b
}

// appendTag begins an item whose fields have size bytes.
func appendTag(b []byte, tag byte, size int) []byte {
	return append(binary.AppendUvarint(b, uint64(1+size)), tag)
}
