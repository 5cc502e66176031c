package wire_test

import (
	"fmt"
	"testing"

	"github.com/gravbus/gravbus/internal/wire"
)

var benchSizes = []int{128, 16 << 10}

// benchBatch is how many messages a batch has in benchmarks.
const benchBatch = 64

func benchMessages(size, types int) []wire.Message {
	messages := make([]wire.Message, benchBatch)
	for i := range messages {
		messages[i] = wire.Message{
			ID:   wire.ID{1, 2, 3, byte(i)},
			Type: fmt.Sprintf("orders.created.%d", i%types),
			Time: 1_700_000_000_000_000_000 + int64(i)*500,
			Data: make([]byte, size),
		}
	}
	return messages
}

// BenchmarkEncode counts one message as one operation.
func BenchmarkEncode(b *testing.B) {
	for _, size := range benchSizes {
		for _, types := range []int{1, 4} {
			b.Run(fmt.Sprintf("size=%d/types=%d", size, types), func(b *testing.B) {
				var w wire.BatchWriter
				messages := benchMessages(size, types)
				buf := encode(&w, nil, messages)
				b.ReportAllocs()
				b.SetBytes(int64(size))
				i := 0
				buf = w.Begin(buf[:0], 1)
				for b.Loop() {
					if i == len(messages) {
						buf = w.Begin(w.End(buf)[:0], 1)
						i = 0
					}
					buf = w.Message(buf, &messages[i])
					i++
				}
			})
		}
	}
}

func encode(w *wire.BatchWriter, buf []byte, messages []wire.Message) []byte {
	buf = w.Begin(buf, 1)
	for i := range messages {
		buf = w.Message(buf, &messages[i])
	}
	return w.End(buf)
}

// BenchmarkDecode counts one message as one operation.
func BenchmarkDecode(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			var w wire.BatchWriter
			var r wire.BatchReader
			messages := benchMessages(size, 4)
			begin := func(packet []byte) {
				_, body, _, err := wire.Next(packet)
				if err == nil {
					_, err = r.Begin(body)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			var it wire.Item
			begin(encode(&w, nil, messages))
			for range messages { // give the types their numbers
				if ok, err := r.Next(&it); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
			packet := encode(&w, nil, messages)
			b.ReportAllocs()
			for b.Loop() {
				ok, err := r.Next(&it)
				if err != nil {
					b.Fatal(err)
				}
				if !ok {
					begin(packet)
					if ok, err := r.Next(&it); !ok || err != nil {
						b.Fatal(ok, err)
					}
				}
			}
		})
	}
}
