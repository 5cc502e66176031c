package gravbus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// A pod that only watches gets everything, and is not taken for one that could answer.
func TestObserverDoesNotCountAsResponder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, opts := range [][]gravbus.PodOption{nil, {gravbus.Concurrency(2)}, {gravbus.Overflow(gravbus.DropOldest)}} {
			bus := testBus(t)
			var seen recorder
			must(t, bus.Connect(append(opts, gravbus.Observer(), gravbus.Name("log"))...).On(seen.handle))
			asker := bus.Connect()
			if _, err := asker.Request(t.Context(), gravbus.NewMsg("ask", nil)); !errors.Is(err, gravbus.ErrNoResponders) {
				t.Errorf("Request: %v", err)
			}
			for _, err := range asker.RequestAll(t.Context(), gravbus.NewMsg("ask", nil)) {
				if !errors.Is(err, gravbus.ErrNoResponders) {
					t.Errorf("RequestAll: %v", err)
				}
			}
			silent := bus.Connect(gravbus.Name("silent"))
			must(t, silent.OnType("ask", nop))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			var missing *gravbus.MissingError
			for _, err := range asker.RequestAll(ctx, gravbus.NewMsg("ask", nil)) {
				if !errors.As(err, &missing) || len(missing.Pods) != 1 || missing.Pods[0] != "silent" {
					t.Errorf("RequestAll: %v", err)
				}
			}
			cancel()
			synctest.Wait()
			if n := len(seen.all()); n != 3 {
				t.Errorf("the observer got %d of 3", n)
			}
		}
	})
}
