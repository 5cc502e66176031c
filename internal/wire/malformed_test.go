package wire_test

import (
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/internal/wire"
)

// cat puts bytes (as int), numbers (as uint64), and strings and bytes (raw) together.
func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case uint64:
			b = binary.AppendUvarint(b, p)
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

// item gives an item its length.
func item(parts ...any) []byte {
	b := cat(parts...)
	return cat(uint64(len(b)), b)
}

// over are the ten bytes of a number that has too many bits, of which rest are 64.
const over = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"

// TestMalformed: what breaks the rules is refused, and the error names the frame and the field.
func TestMalformed(t *testing.T) {
	var (
		id      = make([]byte, 16)
		raw     = make([]byte, 32)
		long    = cat(uint64(256), make([]byte, 256))
		text    = cat(uint64(wire.MaxText+1), make([]byte, wire.MaxText+1))
		hello   = cat(1, 1, id, 0, raw, 0, 0, 0)
		message = cat(0, id, 0)
		rare    = cat(wire.FlagRare, id, 0, 0, 1, "t")
	)
	tests := []struct {
		name  string
		kind  wire.Kind
		body  []byte
		where string
	}{
		{"versions the wrong way round", wire.KindHello, cat(2, 1, hello[2:], 0, 0, 0), "hello min version"},
		{"long mesh", wire.KindHello, cat(1, 1, id, long, raw, 0, 0, 0, 0, 0, 0), "hello mesh"},
		{"huge number", wire.KindHello, cat(1, over, hello[2:], 0, 0, 0), "hello max version"},
		{"many endpoints", wire.KindHello, cat(hello, 33, make([]byte, 33), 0, 0), "hello endpoints"},
		{"long endpoint", wire.KindHello, cat(hello, 1, long, 0, 0), "hello endpoints"},
		{"many capabilities", wire.KindHello, cat(hello, 0, uint64(257), make([]byte, 257), 0), "hello capabilities"},
		{"long name", wire.KindHello, cat(hello, 0, 0, long), "hello name"},
		{"long hello", wire.KindHello, cat(hello, 0, 0, 0, make([]byte, wire.MaxHandshake)), "hello length"},
		{"many MACs", wire.KindProof, cat(5, make([]byte, 5*32), 1, 0, 0), "proof MACs"},
		{"long proof", wire.KindProof, cat(0, 1, 0, 0, make([]byte, wire.MaxHandshake)), "proof length"},
		{"stream 0", wire.KindProof, cat(0, 0, 0, 0), "proof stream"},
		{"stream 0", wire.KindWelcome, cat(0, raw, 0, 0, 0), "welcome stream"},
		{"huge sequence number", wire.KindWelcome, cat(0, raw, 1, 0, uint64(1<<63)), "welcome received"},
		{"long reason", wire.KindRefuse, cat(1, long), "refuse reason"},
		{"long refuse", wire.KindRefuse, cat(1, 0, make([]byte, wire.MaxHandshake)), "refuse length"},

		{"huge number", wire.KindAck, cat(over), "ack seq"},
		{"number without end", wire.KindPing, cat(0xff), "ping token"},
		{"nothing", wire.KindPong, nil, "pong token"},
		{"more entries than bytes", wire.KindInterest, cat(0, 2, 0, 0, 0, 0), "interest entries"},
		{"huge number of entries", wire.KindInterest, cat(0, uint64(1<<63)), "interest entries"},
		{"long group", wire.KindInterest, cat(0, 1, 0, long, 0, 0), "interest group"},
		{"long pattern", wire.KindInterest, cat(0, 1, 0, 0, 1, long, 0), "interest allow"},
		{"long pattern", wire.KindReplay, cat(1, 0, 0, 1, long, 0, 0, 0), "replay types"},
		{"long UUID", wire.KindReplay, cat(1, 0, 0, 0, 0, 0, text), "replay after"},
		{"many endpoints", wire.KindPeers, cat(1, id, 33, make([]byte, 33)), "peers endpoints"},

		{"item 0", wire.KindBatch, cat(0, item(wire.TagGone, 1)), "batch first"},
		{"huge sequence number", wire.KindBatch, cat(uint64(1<<63), item(wire.TagGone, 1)), "batch first"},
		{"item without tag", wire.KindBatch, cat(1, 0), "batch item"},
		{"item of other length", wire.KindBatch, cat(1, 3, wire.TagGone, 1), "batch item length"},
		{"short ID", wire.KindBatch, cat(1, item(0, id[1:])), "batch message ID"},
		{"huge time", wire.KindBatch, cat(1, item(0, id, over)), "batch message time"},
		{"no type", wire.KindBatch, cat(1, item(message)), "batch message type"},
		{"type without number", wire.KindBatch, cat(1, item(message, 2)), "batch message type"},
		{"huge type number", wire.KindBatch, cat(1, item(message, uint64(1<<63))), "batch message type"},
		{"number of a type that comes later", wire.KindBatch, cat(1, item(message, 1, 1, "t"), item(message, 3)), "batch message type"},
		{"type without length", wire.KindBatch, cat(1, item(message, 1)), "message type"},
		{"empty type", wire.KindBatch, cat(1, item(message, 0, 0)), "message type"},
		{"empty type", wire.KindBatch, cat(1, item(message, 1, 0)), "message type"},
		{"long type", wire.KindBatch, cat(1, item(message, 0, long)), "message type"},
		{"type not in UTF-8", wire.KindBatch, cat(1, item(message, 1, 1, 0xff)), "message type"},
		{"no reply to", wire.KindBatch, cat(1, item(wire.FlagReplyTo, id, 0, 0, 1, "t", id[1:])), "batch message reply to"},
		{"rare without end", wire.KindBatch, cat(1, item(rare)), "message field"},
		{"rare field without value", wire.KindBatch, cat(1, item(rare, 1)), "message field"},
		{"rare field twice", wire.KindBatch, cat(1, item(rare, 1, 1, "a", 1, 1, "b", 0)), "message field"},
		{"long parent", wire.KindBatch, cat(1, item(rare, 1, text, 0)), "message parent"},
		{"long name", wire.KindBatch, cat(1, item(rare, 2, text, 0)), "message name"},
		{"long reply to", wire.KindBatch, cat(1, item(rare, 3, text, 0)), "message reply to"},
		{"huge pod", wire.KindBatch, cat(1, item(rare, 4, 10, over, 0)), "message from"},
		{"long group", wire.KindBatch, cat(1, item(rare, 5, long, 0)), "message group"},
		{"empty group", wire.KindBatch, cat(1, item(rare, 5, 0, 0)), "message group"},
		{"empty replay", wire.KindBatch, cat(1, item(rare, 6, 0, 0)), "message replay"},
		{"empty covered", wire.KindBatch, cat(1, item(rare, 7, 0, 0)), "message covered"},
		{"short gap", wire.KindBatch, cat(1, item(wire.TagGap, 1, id)), "gap to"},
		{"no replay", wire.KindBatch, cat(1, item(wire.TagReplayEnd)), "replay end ID"},
		{"no pod", wire.KindBatch, cat(1, item(wire.TagGone)), "gone pod"},
		{"target without pods", wire.KindBatch, cat(1, item(wire.TagTargets, id, 1, 0, 0, 0)), "targets pods"},
		{"more targets than bytes", wire.KindBatch, cat(1, item(wire.TagTargets, id, 2, 1, 1, 0)), "targets list"},
		{"long name of a target", wire.KindBatch, cat(1, item(wire.TagTargets, id, 1, 1, 1, long)), "targets name"},
	}
	for _, test := range tests {
		t.Run(test.kind.String()+"/"+test.name, func(t *testing.T) {
			got, err := decodeAny(test.kind, test.body)
			if e := wantMalformed(t, err); e.Where != test.where {
				t.Errorf("%v, want it to be about %s", e, test.where)
			}
			if !reflect.ValueOf(got).IsZero() {
				t.Errorf("returned %+v beside the error", got)
			}
		})
	}
}

// TestMalformedFrames: what is no frame is refused.
func TestMalformedFrames(t *testing.T) {
	for name, packet := range map[string][]byte{
		"empty":                {},
		"no length":            {17},
		"length without end":   {17, 0x80},
		"length of 70 bits":    cat(17, over),
		"longer than there is": cat(17, 2, 0),
		"longer than an int":   cat(200, uint64(1<<63)),
	} {
		_, body, rest, err := wire.Next(packet)
		wantMalformed(t, err)
		if body != nil || rest != nil {
			t.Errorf("%s: returned %x and %x beside the error", name, body, rest)
		}
	}
}

// TestTypesAreBounded: a peer that gives more types a number than allowed is refused.
func TestTypesAreBounded(t *testing.T) {
	var r wire.BatchReader
	b := cat(1)
	for i := range wire.MaxTypes + 1 {
		typ := cat("t.", uint64(i))
		for j := range typ { // UTF-8 all the same
			typ[j] &= 0x7f
		}
		b = cat(b, item(0, make([]byte, 17), 1, uint64(len(typ)), typ))
	}
	_, err := decodeBatch(&r, b)
	if e := wantMalformed(t, err); !strings.Contains(e.Error(), "4096") {
		t.Error(e)
	}
}

// TestReaderEndsWithItsError: after an error a batch has no more items.
func TestReaderEndsWithItsError(t *testing.T) {
	for _, bad := range [][]byte{{0}, item(wire.TagGone), item(0), item(0, make([]byte, 17), 0, 0)} {
		var r wire.BatchReader
		var it wire.Item
		if _, err := r.Begin(cat(1, bad, item(wire.TagGone, 1))); err != nil {
			t.Fatal(err)
		}
		_, err := r.Next(&it)
		wantMalformed(t, err)
		if ok, err := r.Next(&it); ok || err != nil {
			t.Errorf("%x: after the error came %v, %v", bad, ok, err)
		}
	}
}

// TestTruncated: a frame that ends early is refused wherever that is, but for a batch that ends
// between two items.
func TestTruncated(t *testing.T) {
	goldenBodies(func(name string, kind wire.Kind, body []byte) {
		packet := cat(int(kind), uint64(len(body)), body)
		for n := range packet {
			_, _, _, err := wire.Next(packet[:n])
			wantMalformed(t, err)
		}
		whole, _ := decodeAny(kind, body)
		for n := range body {
			got, err := decodeAny(kind, body[:n:n])
			if err != nil {
				wantMalformed(t, err)
				continue
			}
			all, isBatch := whole.(batch)
			if part, _ := got.(batch); !isBatch || len(part.Items) > 0 && !reflect.DeepEqual(part.Items, all.Items[:len(part.Items)]) {
				t.Errorf("%s of %d bytes instead of %d is %+v", name, n, len(body), got)
			}
		}
	})
}

// TestDamaged: a byte that is not what it was is refused or makes another frame, nothing worse.
func TestDamaged(t *testing.T) {
	goldenBodies(func(_ string, kind wire.Kind, body []byte) {
		for i := range body {
			for _, c := range []byte{0, 1, 0x7f, 0x80, 0xff, body[i] + 1, body[i] - 1} {
				damaged := slices.Clone(body)
				damaged[i] = c
				if _, err := decodeAny(kind, damaged); err != nil {
					wantMalformed(t, err)
				}
			}
		}
	})
}

// TestLaterVersions: what a later version may add is passed over.
func TestLaterVersions(t *testing.T) {
	t.Run("fields at the end of a body", func(t *testing.T) {
		goldenBodies(func(name string, kind wire.Kind, body []byte) {
			if kind == wire.KindBatch {
				return
			}
			want, _ := decodeAny(kind, body)
			got, err := decodeAny(kind, cat(body, "more"))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		})
	})
	t.Run("kinds of frames", func(t *testing.T) {
		kind, body, rest, err := wire.Next(cat(200, 4, "more", wire.AppendUse(nil)))
		if err != nil || kind != 200 || string(body) != "more" {
			t.Fatalf("%v, %q, %v", kind, body, err)
		}
		if kind, _ := one(t, rest); kind != wire.KindUse {
			t.Error(kind)
		}
	})
	t.Run("bits of flags", func(t *testing.T) {
		got, err := wire.DecodeInterest(cat(uint64(1<<40|1), 1, uint64(1<<40|2), 0, 0, 0))
		want := wire.Interest{Reset: true, Entries: []wire.Entry{{Observer: true}}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("fields at the end of an item", func(t *testing.T) {
		got, err := decodeBatch(new(wire.BatchReader), cat(1, item(wire.TagGone, 7, "more"), item(wire.TagReplayEnd, 8, "more")))
		want := batch{1, []wire.Item{
			{Seq: 1, Tag: wire.TagGone, Gone: 7},
			{Seq: 2, Tag: wire.TagReplayEnd, ReplayEnd: 8},
		}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("tags of items, which count", func(t *testing.T) {
		got, err := decodeBatch(new(wire.BatchReader), cat(1, item(200, "more"), item(wire.TagGone, 7), item(255)))
		want := batch{1, []wire.Item{{Seq: 1, Tag: 200}, {Seq: 2, Tag: wire.TagGone, Gone: 7}, {Seq: 3, Tag: 255}}}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("fields of a rare", func(t *testing.T) {
		got, err := decodeBatch(new(wire.BatchReader), cat(1, item(wire.FlagRare, make([]byte, 17), 1, 1, "t",
			100, 4, "more", 6, 2, 5, "m", 100, 0, 0, "data")))
		if err != nil || !reflect.DeepEqual(got.Items[0].Message.Rare, &wire.Rare{Replay: 5}) || string(got.Items[0].Message.Data) != "data" {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("flags of a message", func(t *testing.T) {
		got, err := decodeBatch(new(wire.BatchReader), cat(1, item(1<<5|1<<6, make([]byte, 17), 1, 1, "t", "data")))
		if err != nil || got.Items[0].Message.Flags != 1<<5|1<<6 || string(got.Items[0].Message.Data) != "data" {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
