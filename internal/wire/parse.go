package wire

import (
	"fmt"
	"math"
	"unicode/utf8"
)

// An Item is what a BatchReader reads. The caller owns it and hands it in again and again: after
// Next only the fields that belong to its tag mean something.
type Item struct {
	Seq       uint64
	Tag       byte // up to 127 a message, whose flags it holds; then one of TagGap to TagGone, or unknown: pass over it
	Message   Message
	Gap       Gap
	ReplayEnd uint64
	Targets   Targets
	Gone      uint64
}

// A BatchReader reads the batches of one direction of one connection, all of them in order: it
// knows the types that have a number there. The zero BatchReader is ready for a new connection.
// After an error it is of no use, and the connection neither.
type BatchReader struct {
	types []string // by number; at most MaxTypes
	b     []byte   // what is left of the batch
	seq   uint64   // of the next item
	time  int64    // of the message before
	rare  Rare     // of the message before, if it had one
}

// Begin begins with the body of a Batch and returns the sequence number of its first item, which is
// not checked against that of the batch before.
func (r *BatchReader) Begin(body []byte) (first uint64, err error) {
	first, n := uvarint(body)
	switch {
	case n <= 0:
		return 0, r.fail("first", badUvarint(n))
	case first == 0 || first > math.MaxInt64:
		return 0, r.fail("first", fmt.Sprintf("%d is no sequence number", first))
	}
	r.b, r.seq, r.time = body[n:], first, 0
	return first, nil
}

// Next reads the next item into it, or returns false at the end of the batch.
//
// It copies what it reads, but for two things: Message.Data is a part of the body, and what
// Message.Rare points to is overwritten by the next call (what it holds may be kept). An item with
// a tag that it does not know comes with Seq and Tag only.
func (r *BatchReader) Next(it *Item) (ok bool, err error) {
	if len(r.b) == 0 {
		return false, nil
	}
	size, n := uvarint(r.b)
	switch {
	case n <= 0:
		return false, r.fail("item length", badUvarint(n))
	case size > uint64(len(r.b)-n):
		return false, r.fail("item length", tooShort(size, len(r.b)-n))
	case size == 0:
		return false, r.fail("item", "it has no tag")
	}
	body := r.b[n : n+int(size) : n+int(size)]
	r.b = r.b[n+int(size):]
	it.Seq = r.seq
	r.seq++
	it.Tag = body[0]
	if it.Tag < TagGap {
		err = r.message(&it.Message, body)
	} else {
		err = r.other(it, body[1:])
	}
	return err == nil, err
}

// message decodes an item that is a message. body begins with the tag.
func (r *BatchReader) message(m *Message, body []byte) error {
	m.Flags = body[0]
	body = body[1:]
	if len(body) < len(m.ID) {
		return r.fail("message ID", tooShort(uint64(len(m.ID)), len(body)))
	}
	copy(m.ID[:], body)
	body = body[len(m.ID):]

	delta, n := uvarint(body)
	if n <= 0 {
		return r.fail("message time", badUvarint(n))
	}
	body = body[n:]
	r.time += unzigzag(delta)
	m.Time = r.time

	num, n := uvarint(body)
	if n <= 0 {
		return r.fail("message type", badUvarint(n))
	}
	body = body[n:]
	if num < firstType {
		var err error
		if body, err = r.newType(m, num == typeNew, body); err != nil {
			return err
		}
	} else {
		i := num - firstType
		if i >= uint64(len(r.types)) {
			return r.fail("message type", fmt.Sprintf("number %d has not been given to a type", num))
		}
		m.Type, m.TypeNum = r.types[i], int(i)
	}

	m.ReplyTo = ID{}
	if m.Flags&FlagReplyTo != 0 {
		if len(body) < len(m.ReplyTo) {
			return r.fail("message reply to", tooShort(uint64(len(m.ReplyTo)), len(body)))
		}
		copy(m.ReplyTo[:], body)
		body = body[len(m.ReplyTo):]
	}
	m.Rare = nil
	if m.Flags&FlagRare != 0 {
		d := decoder{where: "message", b: body}
		d.rare(&r.rare)
		if d.err != nil {
			r.b = nil
			return d.err
		}
		m.Rare, body = &r.rare, d.b
	}
	if m.Data = body; len(body) == 0 {
		m.Data = nil
	}
	return nil
}

// newType decodes a type that is written out, and returns what follows.
func (r *BatchReader) newType(m *Message, number bool, body []byte) ([]byte, error) {
	d := decoder{where: "message", b: body}
	typ := d.bytes("type", MaxName)
	switch {
	case d.err != nil:
	case len(typ) == 0:
		d.fail("type", "it is empty")
	case !utf8.Valid(typ):
		d.fail("type", "it is not valid UTF-8")
	case number && len(r.types) == MaxTypes:
		d.fail("type", "%d types have a number already", MaxTypes)
	}
	if d.err != nil {
		r.b = nil
		return nil, d.err
	}
	m.Type, m.TypeNum = string(typ), -1
	if number {
		m.TypeNum = len(r.types)
		r.types = append(r.types, m.Type)
	}
	return d.b, nil
}

// other decodes the fields of an item that is no message.
func (r *BatchReader) other(it *Item, fields []byte) error {
	d := decoder{b: fields}
	switch it.Tag {
	case TagGap:
		d.where = "gap"
		it.Gap.Count = d.uvarint("count")
		d.fixed("from", it.Gap.From[:])
		d.fixed("to", it.Gap.To[:])
	case TagReplayEnd:
		d.where = "replay end"
		it.ReplayEnd = d.uvarint("ID")
	case TagTargets:
		d.where = "targets"
		it.Targets = d.targets()
	case TagGone:
		d.where = "gone"
		it.Gone = d.uvarint("pod")
	}
	if d.err != nil {
		r.b = nil
		return d.err
	}
	return nil
}

func (d *decoder) targets() Targets {
	var t Targets
	d.fixed("request", t.Request[:])
	if n := d.count("list", math.MaxInt, 3); n > 0 {
		t.List = make([]Target, n)
	}
	for i := 0; i < len(t.List) && d.err == nil; i++ {
		n := d.count("pods", math.MaxInt, 2)
		if n == 0 {
			d.fail("pods", "there are none")
		}
		target := Target{make([]uint64, n), make([]string, n)}
		for j := 0; j < n && d.err == nil; j++ {
			target.Pods[j] = d.uvarint("pod")
			target.Names[j] = d.string("name", MaxName)
		}
		t.List[i] = target
	}
	return t
}

// fail ends the batch.
func (r *BatchReader) fail(where, reason string) error {
	r.b = nil
	return &Error{"batch " + where, reason}
}
