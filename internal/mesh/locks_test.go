package mesh_test

import (
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/wire"
)

// A writer that comes to rest while the node leaves, and who sees to a lost connection, lock the node
// and the link in the same order.
func TestLockOrderLeaving(t *testing.T) {
	n := mesh.NewNode[int](&mesh.Config{}, nil)
	l := mesh.NewLink(n, wire.ID{1})
	n.Leave()
	var wg sync.WaitGroup
	for _, f := range []func(){l.Rest, func() { n.Chase(l) }} {
		wg.Go(func() {
			for range 100000 {
				f()
			}
		})
	}
	done := make(chan struct{})
	go func() { // ends with the calls
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("they wait for each other")
	}
}
