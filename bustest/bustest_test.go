package bustest_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/bustest"
	"github.com/sirupsen/logrus"
)

// quiet keeps the bus's own log out of the output of these tests.
func quiet() gravbus.Option {
	l := logrus.New()
	l.SetLevel(logrus.PanicLevel)
	return gravbus.UseLogger(l)
}

func ignore(gravbus.Message) error { return nil }

func send(tb testing.TB, bus *gravbus.Bus, types ...string) {
	tb.Helper()
	pod := bus.Connect()
	defer pod.Disconnect()
	for _, typ := range types {
		if _, err := pod.SendContext(context.Background(), gravbus.NewMsg(typ, nil)); err != nil {
			tb.Fatalf("Send(%q): %v", typ, err)
		}
	}
}

func TestNewShutsDownAtTheEnd(t *testing.T) {
	var bus *gravbus.Bus
	handled := 0
	passes(t, try(t, 0, func(tb testing.TB) {
		bus = bustest.New(tb)
		if err := bus.Connect().On(func(gravbus.Message) error { handled++; return nil }); err != nil {
			tb.Fatalf("On: %v", err)
		}
		send(tb, bus, "a", "b", "c")
	}))
	if handled != 3 {
		t.Errorf("%d messages were handled, want all 3 that were sent", handled)
	}
	if _, err := bus.Connect().SendContext(t.Context(), gravbus.NewMsg("a", nil)); !errors.Is(err, gravbus.ErrClosed) {
		t.Errorf("after the test Send returns %v, want %v", err, gravbus.ErrClosed)
	}
}

func TestNewTakesOptions(t *testing.T) {
	bus := bustest.New(t, gravbus.UseReplay(3))
	if got := bus.Buffer().Limit(); got != 3 {
		t.Errorf("the buffer's limit is %d, want 3", got)
	}
}

// The defaults for pods are the tested code's, not those of this package's own pods.
func TestPodDefaultsDoNotMatter(t *testing.T) {
	bus := bustest.New(t, gravbus.UsePodDefaults(
		gravbus.InGroup("all"), gravbus.Mailbox(1), gravbus.Overflow(gravbus.DropNewest), gravbus.Concurrency(4)))
	rec := bustest.Record(t, bus)
	for range 1000 {
		send(t, bus, "a")
	}
	if got := len(rec.Wait(1000)); got != 1000 {
		t.Errorf("recorded %d, want 1000", got)
	}
}

// The events that fail a test, and those that do not.
func TestWatch(t *testing.T) {
	panics := func(gravbus.Message) error { panic("ouch") }
	goexit := func(gravbus.Message) error { runtime.Goexit(); return nil }
	refuses := func(gravbus.Message) error { return errors.New("not today") }
	injected := bustest.Faulty(ignore, bustest.Faults{Panic: 1})

	tests := []struct {
		name      string
		handler   gravbus.MsgFunc
		opts      []gravbus.PodOption
		tolerated []string
		fails     bool
		says      []string
	}{
		{"panic", panics, nil, nil, true, []string{"pod till", "jobs.one", "ouch", "bustest_test.go"}},
		{"goexit", goexit, nil, nil, true, []string{"pod till", "jobs.one", "Goexit"}},
		{"error", refuses, nil, nil, false, nil},
		{"disconnected", refuses, []gravbus.PodOption{gravbus.MaxFailures(1)}, nil, true, []string{"pod till was disconnected", "not today"}},
		{"dead letter", refuses, []gravbus.PodOption{gravbus.MaxFailures(1)}, []string{gravbus.EventPodFailed}, false, []string{"gave up jobs.one", "not today"}},
		{"panic tolerated", panics, nil, []string{gravbus.EventPodPanic}, false, []string{"ouch"}},
		{"panic tolerated by pattern", panics, nil, []string{"gravbus.pod.*"}, false, []string{"ouch"}},
		{"another tolerated", panics, nil, []string{gravbus.EventPodFailed}, true, []string{"ouch"}},
		{"everything but events tolerated", panics, nil, []string{">"}, true, []string{"ouch"}},
		{"injected panic", injected, nil, nil, false, []string{"injected fault"}},
		{"disconnected by injected faults", injected, []gravbus.PodOption{gravbus.MaxFailures(1)}, nil, true, []string{"was disconnected"}},
		{"invalid tolerated", ignore, nil, []string{"a..b"}, true, []string{"a..b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := try(t, 0, func(tb testing.TB) {
				bus := gravbus.New(quiet())
				bustest.Watch(tb, bus, tt.tolerated...)
				pod := bus.Connect(append(tt.opts, gravbus.Name("till"))...)
				if err := pod.On(tt.handler); err != nil {
					tb.Fatalf("On: %v", err)
				}
				send(tb, bus, "jobs.one")
			})
			if tt.fails {
				fails(t, f, tt.says...)
			} else {
				passes(t, f)
				says(t, f, tt.says...)
			}
		})
	}
}

func TestWatchRefusesAClosedBus(t *testing.T) {
	bus := gravbus.New()
	_ = bus.Close()
	fails(t, try(t, 0, func(tb testing.TB) { bustest.Watch(tb, bus) }), "closed")
	fails(t, try(t, 0, func(tb testing.TB) { bustest.Record(tb, bus) }), "closed")
}

// A handler that does not end fails the test, by name and with its stack, and what it does later does not reach a test that is over.
func TestStuckHandlerFailsTheTest(t *testing.T) {
	t.Run("real time", func(t *testing.T) {
		release, ended := make(chan struct{}), make(chan struct{})
		f := try(t, soon, func(tb testing.TB) { stick(tb, release, ended) })
		fails(t, f, "did not come to its end", "stuck-one", "chan receive")
		close(release)
		<-ended
		if f.misused {
			t.Error("the test was used after its end")
		}
	})
	t.Run("bubble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release, ended := make(chan struct{}), make(chan struct{})
			f := try(t, 0, func(tb testing.TB) { stick(tb, release, ended) })
			fails(t, f, "did not come to its end", "stuck-one")
			close(release)
			<-ended
			synctest.Wait()
			if f.misused {
				t.Error("the test was used after its end")
			}
		})
	})
}

func stick(tb testing.TB, release, ended chan struct{}) {
	bus := bustest.New(tb, quiet())
	started := make(chan struct{})
	err := bus.Connect(gravbus.Name("stuck-one")).On(func(gravbus.Message) error {
		defer close(ended)
		close(started)
		<-release
		panic("late")
	})
	if err != nil {
		tb.Fatalf("On: %v", err)
	}
	send(tb, bus, "a")
	<-started
}

// A test may end the bus itself.
func TestBusMayBeEndedByTheTest(t *testing.T) {
	passes(t, try(t, 0, func(tb testing.TB) { _ = bustest.New(tb).Close() }))
	fails(t, try(t, 0, func(tb testing.TB) {
		bus := bustest.New(tb, quiet())
		if err := bus.Connect().On(func(gravbus.Message) error { panic("seen") }); err != nil {
			tb.Fatalf("On: %v", err)
		}
		send(tb, bus, "a")
		if err := bus.Shutdown(context.Background()); err != nil {
			tb.Fatalf("Shutdown: %v", err)
		}
	}), "seen")
}

// A panic while the bus closes has nobody left to hear of its event.
func TestPanicDuringClose(t *testing.T) {
	for _, tolerated := range [][]string{nil, {gravbus.EventPodPanic}} {
		f := try(t, 0, func(tb testing.TB) {
			bus := gravbus.New(quiet())
			bustest.Watch(tb, bus, tolerated...)
			started := make(chan struct{})
			stopped := bus.Connect() // its context ends when the bus closes
			if err := gravbus.On(stopped, "job", func(ctx context.Context, _ any) error {
				close(started)
				<-ctx.Done()
				panic("too late")
			}); err != nil {
				tb.Fatalf("On: %v", err)
			}
			bus.Connect().Send(gravbus.NewTyped[any]("job", 1))
			<-started
			_ = bus.Close()
		})
		if tolerated == nil {
			fails(t, f, "panicked")
		} else {
			passes(t, f)
		}
	}
}
