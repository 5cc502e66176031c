package wire_test

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/gravbus/gravbus/internal/wire"
)

// TestNoAllocation: messages of types with a number, and the frames that come with them, cost no
// memory.
func TestNoAllocation(t *testing.T) {
	var w wire.BatchWriter
	var r wire.BatchReader
	var it wire.Item
	messages := benchMessages(128, 4)
	for i := range messages {
		messages[i].Flags, messages[i].ReplyTo = wire.FlagReplyTo, wire.ID{1}
	}
	buf := encode(&w, nil, messages)
	if _, err := decodeBatch(&r, body(buf)); err != nil {
		t.Fatal(err)
	}
	buf = make([]byte, 0, 64<<10)

	noAllocation(t, "encoding", func() {
		buf = encode(&w, buf[:0], messages)
		buf = w.Begin(buf, 100)
		buf = w.Gap(buf, &wire.Gap{Count: 1})
		buf = w.ReplayEnd(buf, 2)
		buf = w.Gone(buf, 3)
		buf = w.End(buf)
		buf = wire.AppendAck(buf, 300)
		buf = wire.AppendPing(buf, 7)
		buf = wire.AppendPong(buf, 7)
	})
	noAllocation(t, "decoding", func() {
		for rest := buf; len(rest) > 0; {
			kind, body, next, err := wire.Next(rest)
			rest = next
			switch {
			case err != nil:
			case kind == wire.KindBatch:
				if _, err = r.Begin(body); err == nil {
					for ok := true; ok && err == nil; {
						ok, err = r.Next(&it)
					}
				}
			case kind == wire.KindAck:
				_, err = wire.DecodeAck(body)
			default:
				_, err = wire.DecodePing(body)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

func noAllocation(t *testing.T, what string, fn func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, fn); n != 0 {
		t.Errorf("%s allocated %v times", what, n)
	}
}

// TestDataIsNotCopied: a message's data is a part of the body, and appending to it does not write
// into what follows there.
func TestDataIsNotCopied(t *testing.T) {
	var w wire.BatchWriter
	b := body(encode(&w, nil, benchMessages(128, 1)))
	var r wire.BatchReader
	if _, err := r.Begin(b); err != nil {
		t.Fatal(err)
	}
	var it wire.Item
	if ok, err := r.Next(&it); !ok || err != nil {
		t.Fatal(ok, err)
	}
	data := it.Message.Data
	before := bytes.Clone(b)
	_ = append(data, 0xff)
	if !bytes.Equal(b, before) {
		t.Error("append wrote into the next item")
	}
	data[0]++
	if bytes.Equal(b, before) {
		t.Error("the data is a copy")
	}
}

// TestAmplification: whatever comes, a decoder never takes more than 32 times as much memory; not
// for what is announced and does not come either.
func TestAmplification(t *testing.T) {
	const n = 1 << 14
	many := func(parts ...any) []byte { return bytes.Repeat(cat(parts...), n) }
	id := make([]byte, 16)
	rare := cat(wire.FlagRare, id, 0, 0, 1, "t")
	for _, test := range []struct {
		name string
		kind wire.Kind
		body []byte
	}{
		{"entries", wire.KindInterest, cat(0, uint64(n), many(0, 0, 0, 0))},
		{"entries of one pattern", wire.KindInterest, cat(0, uint64(n), many(0, 0, 1, 1, "*", 0))},
		{"patterns", wire.KindInterest, cat(0, 1, 0, 0, uint64(n), many(0), 0)},
		{"patterns of two bytes", wire.KindInterest, cat(0, 1, 0, 0, uint64(n), many(2, "ab"), 0)},
		{"announced entries", wire.KindInterest, cat(0, uint64(n), many(0)[:n-1])},
		{"entries that are none", wire.KindInterest, cat(0, uint64(n), many(0xff, 0xff, 0xff, 0xff))},
		{"types", wire.KindReplay, cat(1, 0, 0, uint64(n), many(0), 0, 0, 0)},
		{"nodes", wire.KindPeers, cat(uint64(n), many(id, 0))},
		{"endpoints", wire.KindPeers, cat(uint64(n), many(id, 2, 1, "a", 1, "b"))},
		{"targets", wire.KindBatch, cat(1, item(wire.TagTargets, id, uint64(n), many(1, 1, 0)))},
		{"pods", wire.KindBatch, cat(1, item(wire.TagTargets, id, 1, uint64(n), many(1, 0)))},
		{"announced pods", wire.KindBatch, cat(1, item(wire.TagTargets, id, 2, uint64(n), many(1, 0)[:2*n-2], 1, 0))},
		{"groups", wire.KindBatch, cat(1, item(rare, many(5, 1, "g"), 0))},
		{"covered", wire.KindBatch, cat(1, item(rare, many(7, 1, 1), 0))},
		{"rare messages", wire.KindBatch, cat(1, many(item(rare, 0)))},
		{"types", wire.KindBatch, cat(1, bytes.Repeat(item(0, id, 0, 1, 1, "t"), wire.MaxTypes))},
		{"pods without targets", wire.KindBatch, cat(1, item(wire.TagTargets, id, uint64(n), many(0, 0, 0)))},
		{"announced everything", wire.KindInterest, cat(0, uint64(1<<60))},
	} {
		t.Run(test.kind.String()+"/"+test.name, func(t *testing.T) {
			var r wire.BatchReader
			var it wire.Item
			got := allocated(func() {
				if test.kind != wire.KindBatch {
					_, _ = decodeAny(test.kind, test.body)
					return
				}
				_, err := r.Begin(test.body)
				for ok := true; ok && err == nil; {
					ok, err = r.Next(&it)
				}
			})
			const fixed = 1024 // for an error, and what the test itself allocates
			if limit := 32*uint64(len(test.body)) + fixed; got > limit {
				t.Errorf("%d bytes made it allocate %d (%d times as much)", len(test.body), got, got/uint64(len(test.body)))
			}
			t.Logf("%.1f times", float64(got)/float64(len(test.body)))
		})
	}
}

// allocated returns how much memory fn takes, garbage included.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
