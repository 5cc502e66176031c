package memory_test

import (
	"fmt"
	"testing"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

// What the transport costs by itself, where it carries benchmarks of what is above it.
func BenchmarkFrames(b *testing.B) {
	for _, size := range []int{200, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			network := memory.NewNetwork(memory.Config{})
			l, err := network.Transport("b").Listen(b.Context(), transport.ListenOptions{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			from, err := network.Transport("a").Dial(b.Context(), "b")
			if err != nil {
				b.Fatal(err)
			}
			defer from.Close()
			to, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			defer to.Close()
			to.SetReadLimit(int64(size))

			b.SetBytes(int64(size))
			b.ReportAllocs()
			done := make(chan int)
			go func() {
				n := 0
				var buf []byte
				for {
					var err error
					if buf, err = to.ReadFrame(buf); err != nil {
						done <- n
						return
					}
					n++
				}
			}()
			frame := make([]byte, size)
			for b.Loop() {
				if err := from.WriteFrame(frame); err != nil {
					b.Fatal(err)
				}
			}
			if err := from.Close(); err != nil {
				b.Fatal(err)
			}
			if n := <-done; n != b.N {
				b.Fatalf("%d frames came of %d", n, b.N)
			}
		})
	}
}
