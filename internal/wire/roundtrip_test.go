package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gravbus/gravbus/internal/wire"
)

// TestRoundTrip: what is encoded is decoded as it was, whatever it is.
func TestRoundTrip(t *testing.T) {
	frames := []struct {
		kind  wire.Kind
		value *rapid.Generator[any]
	}{
		{wire.KindHello, anyHello},
		{wire.KindProof, anyProof},
		{wire.KindWelcome, anyWelcome},
		{wire.KindRefuse, anyRefuse},
		{wire.KindBye, anyRefuse},
		{wire.KindAck, rapid.Custom(func(t *rapid.T) any { return wire.Ack{Seq: number.Draw(t, "seq")} })},
		{wire.KindPing, rapid.Custom(func(t *rapid.T) any { return wire.Ping{Token: number.Draw(t, "token")} })},
		{wire.KindPong, rapid.Custom(func(t *rapid.T) any { return wire.Pong{Token: number.Draw(t, "token")} })},
		{wire.KindInterest, anyInterest},
		{wire.KindReplay, anyReplay},
		{wire.KindPeers, anyPeers},
	}
	for _, f := range frames {
		t.Run(f.kind.String(), rapid.MakeCheck(func(t *rapid.T) {
			value := f.value.Draw(t, "value")
			prefix := []byte("before")
			packet := appendAny(prefix, f.kind, value)
			if !bytes.HasPrefix(packet, prefix) {
				t.Fatalf("the frame overwrote what was before it: %q", packet)
			}
			kind, body, rest, err := wire.Next(packet[len(prefix):])
			if err != nil || kind != f.kind || len(rest) > 0 {
				t.Fatalf("%v, %v, %d bytes left", kind, err, len(rest))
			}
			got, err := decodeAny(kind, body)
			if err != nil || !reflect.DeepEqual(got, value) {
				t.Fatalf("%+v, %v\nwant %+v", got, err, value)
			}
		}))
	}
}

// TestBatchRoundTrip: the items of many batches of one connection come out of a reader as they went
// into the writer, into an Item that is used for all of them.
// messageSize returns how many bytes a message takes in a batch, at most.
func messageSize(m *wire.Message) int {
	const number = binary.MaxVarintLen64
	n := 2*number + // length, time
		1 + 2*len(wire.ID{}) + 1 + 2 + len(m.Type) + len(m.Data)
	if r := m.Rare; r != nil {
		n += 1 + 5*(1+number) + len(r.Parent) + len(r.Name) + len(r.ReplyTo) + len(r.Covered)*(2+number)
		for _, g := range r.Groups {
			n += 1 + number + len(g)
		}
	}
	return n
}

func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			w      wire.BatchWriter
			r      wire.BatchReader
			it     wire.Item
			packet []byte
			types  = map[string]int{}
		)
		seq := rapid.Uint64Range(1, 1<<62).Draw(t, "first")
		for range rapid.IntRange(1, 3).Draw(t, "batches") {
			items := rapid.SliceOfN(anyItem, 1, 8).Draw(t, "items")
			for i := range items {
				items[i].Seq = seq + uint64(i)
			}
			packet = appendBatch(packet[:0], &w, batch{seq, items})
			size := 1 + 5 + 10 // kind, length, first
			for i := range items {
				if items[i].Tag < wire.TagGap {
					size += messageSize(&items[i].Message)
				} else {
					size += 1 << 20
				}
			}
			if len(packet) > size {
				t.Fatalf("%d bytes, more than the %d that were to be expected", len(packet), size)
			}
			kind, body, rest, err := wire.Next(packet)
			if err != nil || kind != wire.KindBatch || len(rest) > 0 {
				t.Fatalf("%v, %v, %d bytes left", kind, err, len(rest))
			}
			if first, err := r.Begin(body); err != nil || first != seq {
				t.Fatalf("first %d, %v", first, err)
			}
			for _, want := range items {
				if ok, err := r.Next(&it); !ok || err != nil {
					t.Fatalf("%v, %v, want %+v", ok, err, want)
				}
				if want.Tag < wire.TagGap {
					typ := want.Message.Type
					if _, known := types[typ]; !known {
						types[typ] = len(types)
					}
					want.Message.TypeNum = types[typ]
				}
				if got := ofTag(it); !reflect.DeepEqual(got, want) {
					t.Fatalf("%+v\nwant %+v", got, want)
				}
			}
			if ok, err := r.Next(&it); ok || err != nil {
				t.Fatalf("at the end: %v, %v", ok, err)
			}
			seq += uint64(len(items))
		}
	})
}

// ofTag returns what it has of its tag.
func ofTag(it wire.Item) wire.Item {
	only := wire.Item{Seq: it.Seq, Tag: it.Tag}
	switch {
	case it.Tag < wire.TagGap:
		only.Message = it.Message
	case it.Tag == wire.TagGap:
		only.Gap = it.Gap
	case it.Tag == wire.TagReplayEnd:
		only.ReplayEnd = it.ReplayEnd
	case it.Tag == wire.TagTargets:
		only.Targets = it.Targets
	case it.Tag == wire.TagGone:
		only.Gone = it.Gone
	}
	return only
}

// TestTypesBeyondTheTable: once a connection has numbered all the types that it can, others are
// written out each time.
func TestTypesBeyondTheTable(t *testing.T) {
	var w wire.BatchWriter
	var r wire.BatchReader
	var v batch
	for round := range 2 {
		for i := range wire.MaxTypes + 2 {
			num := i
			if i >= wire.MaxTypes {
				num = -1
			}
			seq := uint64(round*(wire.MaxTypes+2) + i + 1)
			v.Items = append(v.Items, wire.Item{Seq: seq, Message: wire.Message{Type: fmt.Sprint("t.", i), TypeNum: num}})
		}
	}
	v.First = 1
	_, body := one(t, appendBatch(nil, &w, v))
	got, err := decodeBatch(&r, body)
	if err != nil || !reflect.DeepEqual(got, v) {
		t.Fatalf("%v, other than expected", err)
	}
}

// TestEmptyBatch: a batch without items leaves nothing behind, and the next one is as if there had
// been none.
func TestEmptyBatch(t *testing.T) {
	var w wire.BatchWriter
	b := w.End(w.Begin([]byte("before"), 1))
	if string(b) != "before" {
		t.Fatalf("%q is left", b)
	}
	b = w.End(w.Gone(w.Begin(b[:0], 1), 7))
	_, body := one(t, b)
	got, err := decodeBatch(new(wire.BatchReader), body)
	if want := (batch{1, []wire.Item{{Seq: 1, Tag: wire.TagGone, Gone: 7}}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
}

// TestPacketOfManyFrames: frames follow each other without anything between, an empty batch leaves
// no trace.
func TestPacketOfManyFrames(t *testing.T) {
	var w wire.BatchWriter
	packet := wire.AppendPing(nil, 1)
	packet = w.End(w.Gone(w.Begin(packet, 1), 7))
	packet = w.End(w.Begin(packet, 2))
	packet = wire.AppendAck(packet, 2)
	packet = wire.AppendWithdraw(packet)
	var kinds []wire.Kind
	for len(packet) > 0 {
		kind, _, rest, err := wire.Next(packet)
		if err != nil {
			t.Fatal(err)
		}
		kinds, packet = append(kinds, kind), rest
	}
	want := []wire.Kind{wire.KindPing, wire.KindBatch, wire.KindAck, wire.KindWithdraw}
	if !reflect.DeepEqual(kinds, want) {
		t.Errorf("%v, want %v", kinds, want)
	}
}

// TestCutForPeople: what only people read is cut off at a whole character where it is too long.
func TestCutForPeople(t *testing.T) {
	long := strings.Repeat("é", wire.MaxName) // 2 bytes each
	_, body := one(t, wire.AppendBye(nil, &wire.Bye{Reason: long}))
	bye, err := wire.DecodeRefuse(body)
	if want := long[:wire.MaxName-1]; err != nil || bye.Reason != want {
		t.Errorf("a reason of %d bytes, %v", len(bye.Reason), err)
	}
	noText := strings.Repeat("\x80", wire.MaxName+1)
	_, body = one(t, wire.AppendHello(nil, &wire.Hello{Name: noText}))
	hello, err := wire.DecodeHello(body)
	if err != nil || !strings.HasPrefix(noText, hello.Name) {
		t.Errorf("a name of %d bytes, %v", len(hello.Name), err)
	}
	v := batch{1, []wire.Item{{Tag: wire.TagTargets, Targets: wire.Targets{
		List: []wire.Target{{Pods: []uint64{1}, Names: []string{long}}},
	}}}}
	_, body = one(t, appendAny(nil, wire.KindBatch, v))
	if _, err := decodeAny(wire.KindBatch, body); err != nil {
		t.Error(err)
	}
}
