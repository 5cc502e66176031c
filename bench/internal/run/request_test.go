package run

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

// A slow requester takes its time for each answer, and has none for the request with the number lost.
type slow struct {
	peer.Requester

	takes time.Duration
	lost  uint32
}

func (s slow) Request(ctx context.Context, _ string, data []byte) ([]byte, error) {
	answer := time.After(s.takes)
	if numberOf(data) == s.lost {
		answer = nil
	}
	select {
	case <-answer:
		return data, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// What is slow is not lost, however many requests went before. What is lost is given up.
func TestSlowRequests(t *testing.T) {
	for _, test := range []struct {
		name       string
		bus        slow
		made, lost int
	}{
		{"slow", slow{takes: 900 * time.Millisecond, lost: ringSize}, 50, 0},
		{"one lost", slow{takes: 90 * time.Millisecond, lost: 37}, 50, 1},
		{"all lost", slow{takes: time.Hour, lost: ringSize}, maxLostRequests, maxLostRequests},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := round{}
				r.ask(t.Context(), &asker{bus: test.bus, data: ring(0, small)}, 50)
				if r.made != test.made || r.lost != test.lost {
					t.Errorf("%d made, %d lost, want %d and %d; the last: %v", r.made, r.lost, test.made, test.lost, r.err)
				}
			})
		})
	}
}
