package bustest_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/bustest"
)

// A message that goes from pod to pod is followed to the end.
func TestSettleFollowsAPipeline(t *testing.T) {
	both(t, func(t *testing.T) {
		bus := bustest.New(t)
		const stages, messages = 8, 500
		var ended int
		for i := range stages {
			pod := bus.Connect(gravbus.Mailbox(4))
			next := fmt.Sprintf("stage.%d", i+1)
			err := pod.OnType(fmt.Sprintf("stage.%d", i), func(gravbus.Message) error {
				if i == stages-1 {
					ended++ // one call at a time, and all of them before Settle returns
				} else {
					pod.Send(gravbus.NewMsg(next, nil))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range messages {
			send(t, bus, "stage.0")
		}
		bustest.Settle(t, bus)
		if got := bus.Stats().Sent; got != stages*messages {
			t.Errorf("%d messages were sent when the bus had settled, want %d", got, stages*messages)
		}
		if ended != messages {
			t.Errorf("%d messages were at the end when the bus had settled, want %d", ended, messages)
		}
	})
}

// A handler that is running has taken its message out of the mailbox, so nothing waits; yet the bus is not at rest.
func TestSettleWaitsForRunningHandler(t *testing.T) {
	f := try(t, soon, func(tb testing.TB) {
		bus := bustest.New(tb)
		started, release := make(chan struct{}), make(chan struct{})
		tb.Cleanup(func() { close(release) })
		if err := bus.Connect(gravbus.Name("busy-one")).On(func(gravbus.Message) error {
			close(started)
			<-release
			return nil
		}); err != nil {
			tb.Fatalf("On: %v", err)
		}
		send(tb, bus, "a")
		<-started
		bustest.Settle(tb, bus)
	})
	fails(t, f, "has not settled", "handler of pod busy-one is running")
}

// Functions that are called with replies are work too, though no pod's handler runs.
func TestSettleWaitsForReplyFunctions(t *testing.T) {
	f := try(t, soon, func(tb testing.TB) {
		bus := bustest.New(tb)
		asking, answering := bus.Connect(), bus.Connect()
		started, release := make(chan struct{}), make(chan struct{})
		tb.Cleanup(func() { close(release) })
		question := gravbus.NewMsg("question", nil)
		if err := asking.Send(question).OnReply(func(gravbus.Message) error {
			close(started)
			<-release
			return nil
		}); err != nil {
			tb.Fatalf("OnReply: %v", err)
		}
		answering.ReplyTo(question, gravbus.NewMsg("answer", nil))
		<-started
		bustest.Settle(tb, bus)
	})
	fails(t, f, "has not settled", "a wait or reply function is running")
}

func TestSettleFails(t *testing.T) {
	t.Run("messages wait", func(t *testing.T) {
		f := try(t, soon, func(tb testing.TB) {
			bus := bustest.New(tb)
			started, release := make(chan struct{}), make(chan struct{})
			tb.Cleanup(func() { close(release) })
			if err := bus.Connect(gravbus.Name("busy-one")).On(func(gravbus.Message) error {
				if started != nil {
					close(started)
					started = nil
				}
				<-release
				return nil
			}); err != nil {
				tb.Fatalf("On: %v", err)
			}
			ready := started
			send(tb, bus, "a")
			<-ready
			send(tb, bus, "b", "c")
			bustest.Settle(tb, bus)
		})
		fails(t, f, "has not settled", "2 messages wait", "busy-one")
	})
	t.Run("pods go on sending", func(t *testing.T) {
		f := try(t, soon, func(tb testing.TB) {
			bus := bustest.New(tb)
			left, right := bus.Connect(gravbus.Name("left")), bus.Connect(gravbus.Name("right"))
			for _, pod := range []*gravbus.Pod{left, right} {
				if err := pod.On(func(msg gravbus.Message) error { pod.Send(msg); return nil }); err != nil {
					tb.Fatalf("On: %v", err)
				}
			}
			tb.Cleanup(func() { _ = bus.Close() })
			send(tb, bus, "ball")
			bustest.Settle(tb, bus)
		})
		fails(t, f, "has not settled")
	})
}

// None of these is work to be done.
func TestSettleIsNotHeldUp(t *testing.T) {
	both(t, func(t *testing.T) {
		bus := bustest.New(t, quiet())
		bustest.Settle(t, bus) // nothing at all

		failing := bus.Connect()
		if err := failing.OnType("bad", func(gravbus.Message) error { return errors.New("kept") }); err != nil {
			t.Fatal(err)
		}
		waiting := bus.Connect()
		done := make(chan struct{})
		go func() { // ends when the bus does
			defer close(done)
			_, _ = waiting.Wait(t.Context(), "never")
		}()
		send(t, bus, "bad", "nobody.wants.this")
		bustest.Settle(t, bus)
		if kept := failing.Stats().Kept; kept != 1 {
			t.Errorf("%d failures are kept, want 1", kept)
		}
		_ = bus.Close()
		<-done
		bustest.Settle(t, bus) // closed
	})
}

// In a bubble a handler that waits for time is at rest until the test lets time pass.
func TestSettleInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := bustest.New(t)
		rec := bustest.Record(t, bus, "done")
		pod := bus.Connect()
		if err := pod.OnType("job", func(gravbus.Message) error {
			<-time.After(time.Minute)
			pod.Send(gravbus.NewMsg("done", nil))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		send(t, bus, "job", "job")
		bustest.ExpectNone(t, rec)
		time.Sleep(time.Minute) // fake
		bustest.ExpectExactly(t, rec, bustest.Type("done"))
		time.Sleep(time.Minute)
		bustest.ExpectExactly(t, rec, bustest.Type("done"))
	})
}
