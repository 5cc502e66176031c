package wire_test

import (
	"math"
	"reflect"
	"testing"

	"github.com/gravbus/gravbus/internal/wire"
)

// FuzzPacket: any bytes are frames or an *Error. What is left gets shorter, and no byte of a body
// comes from elsewhere.
func FuzzPacket(f *testing.F) {
	goldenBodies(func(_ string, kind wire.Kind, body []byte) {
		f.Add(cat(int(kind), uint64(len(body)), body, wire.AppendPing(nil, 7)))
	})
	f.Add(cat(17, 0x81, 0x80, 0x80, 0x80, 0x00, 0x05))
	f.Add(cat(17, over))
	f.Add(cat(200, 4, "more"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		for len(packet) > 0 {
			kind, body, rest, err := wire.Next(packet)
			if err != nil {
				wantMalformed(t, err)
				return
			}
			if n := len(packet) - len(rest) - len(body); n < 2 || n > 11 || kind != wire.Kind(packet[0]) || cap(body) != len(body) {
				t.Fatalf("%x became a body of %d bytes and %d left", packet, len(body), len(rest))
			}
			packet = rest
		}
	})
}

// FuzzBody: any bytes are the body of a frame or an *Error. What was decoded is encoded so that it
// is decoded as the same.
func FuzzBody(f *testing.F) {
	goldenBodies(func(_ string, kind wire.Kind, body []byte) {
		f.Add(byte(kind), body)
		f.Add(byte(kind), cat(body, "more"))
	})
	f.Add(byte(wire.KindInterest), cat(uint64(1<<40|1), 1, uint64(1<<40|2), 0, 0, 0))
	f.Add(byte(wire.KindProof), cat(4, make([]byte, 4*32), 1, 0, 0))
	f.Fuzz(func(t *testing.T, k byte, b []byte) {
		kind := wire.Kind(k)
		value, err := decodeAny(kind, b)
		if err != nil {
			wantMalformed(t, err)
			return
		}
		if _, isBatch := value.(batch); value == nil || isBatch {
			return
		}
		again, body := one(t, appendAny(nil, kind, value))
		got, err := decodeAny(again, body)
		if err != nil || again != kind || !reflect.DeepEqual(got, value) {
			t.Fatalf("%+v, %v\nwant %+v", got, err, value)
		}
	})
}

// FuzzBatches: any bytes are the body of a batch or an *Error. What two batches of one connection
// hold is encoded so that it is decoded as the same. Only numbers of types may differ, and items
// with tags that have no meaning are left out.
func FuzzBatches(f *testing.F) {
	bodies := [][]byte{cat(1, item(200, "more"))}
	goldenBodies(func(_ string, kind wire.Kind, body []byte) {
		if kind == wire.KindBatch {
			bodies = append(bodies, body)
		}
	})
	second := item(0, make([]byte, 16), 0, 2, "data") // of the type that the first batch has numbered
	for _, b := range bodies {
		for _, c := range bodies {
			f.Add(b, cat(c, second))
		}
	}
	f.Add(cat(1, item(0, make([]byte, 17), 0, 1, "t")), cat(2, item(wire.FlagRare, make([]byte, 17), 1, 1, "t", 7, 1, 1, 0)))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var in, out wire.BatchReader
		var w wire.BatchWriter
		var packet []byte
		for _, b := range [][]byte{first, second} {
			value, err := decodeBatch(&in, b)
			if err != nil {
				wantMalformed(t, err)
				return
			}
			value = meaningful(value)
			if len(value.Items) == 0 {
				continue
			}
			packet = appendBatch(packet[:0], &w, value)
			_, body := one(t, packet)
			again, err := decodeBatch(&out, body)
			if again = meaningful(again); err != nil || !reflect.DeepEqual(again, value) {
				t.Fatalf("%+v, %v\nwant %+v", again, err, value)
			}
		}
	})
}

// meaningful returns what a batch says: sequence numbers from First on without those of unknown
// items, types without numbers.
func meaningful(b batch) batch {
	b.First = min(b.First, math.MaxInt64/2)
	items := b.Items
	b.Items = nil
	for _, it := range items {
		if it.Tag > wire.TagGone {
			continue
		}
		it.Seq = b.First + uint64(len(b.Items))
		it.Message.TypeNum = 0
		b.Items = append(b.Items, it)
	}
	return b
}
