package memory_test

import (
	"testing"
	"time"

	"github.com/gravbus/gravbus/transport/memory"
	"github.com/gravbus/gravbus/transport/transporttest"
)

func TestConformance(t *testing.T) {
	configs := map[string]memory.Config{
		"default":      {},
		"latency":      {Latency: 3 * time.Millisecond},
		"small buffer": {Buffer: 64 << 10, MaxPending: 3},
		"secure":       {Secure: true},
	}
	for name, config := range configs {
		harness := func(*testing.T) transporttest.Harness {
			network := memory.NewNetwork(config)
			network.Silence("a", "unanswered")
			return transporttest.Harness{
				Listener:   network.Transport("b"),
				Dialler:    network.Transport("a"),
				Silence:    func() { network.Partition([]string{"a"}, []string{"b"}) },
				Unanswered: "memory:unanswered",
				Invalid:    []string{"memory:", "memory:a b", "ws://b", "b:1"},
			}
		}
		t.Run(name, func(t *testing.T) { transporttest.RunInBubbles(t, harness) })
		if name == "default" {
			t.Run("in real time", func(t *testing.T) { transporttest.Run(t, harness) })
		}
	}
}
