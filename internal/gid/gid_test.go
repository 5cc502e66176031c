package gid

import (
	"sync"
	"testing"
)

func TestCurrentTellsLiveGoroutinesApart(t *testing.T) {
	for name, current := range map[string]func() uintptr{"Current": Current, "number": number} {
		t.Run(name, func(t *testing.T) {
			const n = 100
			var (
				mu    sync.Mutex
				seen  = map[uintptr]bool{current(): true}
				ready sync.WaitGroup
				stop  = make(chan struct{})
				done  sync.WaitGroup
			)
			ready.Add(n)
			for range n {
				done.Go(func() {
					id := current()
					deepen(200) // the stack moves; the identity must not
					if id == 0 || id != current() {
						t.Error("the identity of a goroutine changed")
					}
					mu.Lock()
					seen[id] = true
					mu.Unlock()
					ready.Done()
					<-stop
				})
			}
			ready.Wait()
			close(stop)
			done.Wait()
			if len(seen) != n+1 {
				t.Fatalf("%d goroutines had %d identities", n+1, len(seen))
			}
		})
	}
}

//go:noinline
func deepen(n int) byte {
	var big [512]byte
	if n == 0 {
		return big[0]
	}
	big[n] = deepen(n - 1)
	return big[n/2]
}

func BenchmarkCurrent(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Current()
	}
}
