package mesh_test

import (
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/mesh"
	"github.com/gravbus/gravbus/internal/wire"
	"github.com/gravbus/gravbus/transport/memory"
)

// lendHost is a bus that wakes one receiver by each message. What that does is run.
type lendHost struct {
	*fuzzHost
	run func()
}

func (h *lendHost) Deliver(_ *mesh.Link[*wire.Message], in *mesh.Inbound[*wire.Message], _ bool) bool {
	if in.Lend {
		in.Woken = h
	}
	return true
}

func (h *lendHost) Wake() { go h.run() } // ends with run
func (h *lendHost) Run()  { h.run() }

// However a goroutine that is lent comes back, or does not, one reads, and none counts as lent that was
// replaced: those who step aside look through all links as long as one is.
func TestLendEnds(t *testing.T) {
	for name, run := range map[string]func(n *mesh.Node[*wire.Message], release <-chan bool){
		"returns": func(*mesh.Node[*wire.Message], <-chan bool) {},
		"Goexit":  func(*mesh.Node[*wire.Message], <-chan bool) { runtime.Goexit() },
		"stays":   func(_ *mesh.Node[*wire.Message], release <-chan bool) { <-release },
		"stays, Goexit": func(_ *mesh.Node[*wire.Message], release <-chan bool) {
			<-release
			runtime.Goexit()
		},
		"steps aside": func(n *mesh.Node[*wire.Message], release <-chan bool) {
			n.StepAside()
			n.StepAside()
			<-release
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := memory.NewNetwork(memory.Config{})
				release := make(chan bool)
				host := &lendHost{fuzzHost: &fuzzHost{graph: mailbox.NewGraph[*wire.Message](nil)}}
				node := mesh.NewNode(&mesh.Config{
					ID: wire.ID{0: 0x80}, Mesh: "m", Open: true, Transport: network.Transport("node"),
					MaxMessage: 1 << 16, WindowCount: 16, WindowCost: 1 << 16,
					DeadAfter: time.Minute, ResumeFor: time.Minute, Handshake: time.Minute, Log: slog.New(slog.DiscardHandler),
				}, mesh.Host[*wire.Message](host))
				host.run = func() { run(node, release) }
				if err := node.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				c := fuzzPeer(t, network, false)
				var w wire.BatchWriter
				for seq := range uint64(3) {
					packet := w.End(w.Message(w.Begin(nil, seq+1), &wire.Message{ID: wire.ID{1}, Type: "a"}))
					if err := c.WriteFrame(packet); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Millisecond) // longer than anybody is waited for
					synctest.Wait()
					if n := node.Lent(); n != 0 {
						t.Errorf("%d count as lent", n)
					}
					if err := c.WriteFrame(wire.AppendPing(nil, 1<<60+seq)); err != nil {
						t.Fatal(err)
					}
					hears(t, c, 1<<60+seq)
				}
				began := time.Now()
				node.Close()
				if d := time.Since(began); d > time.Second {
					t.Errorf("Close took %v", d)
				}
				close(release) // who comes back now has been replaced on a connection that is no more
				synctest.Wait()
				if n := node.Lent(); n != 0 {
					t.Errorf("%d count as lent after the end", n)
				}
				c.Close()
				host.graph.Close()
			})
		})
	}
}
