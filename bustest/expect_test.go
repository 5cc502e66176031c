package bustest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/bustest"
)

// both runs a test in real time and in a bubble.
func both(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("real time", func(t *testing.T) { // beside others: some wait in vain for a while
		t.Parallel()
		test(t)
	})
	t.Run("bubble", func(t *testing.T) { synctest.Test(t, test) })
}

func types(patterns ...string) (matchers []bustest.Matcher) {
	for _, p := range patterns {
		matchers = append(matchers, bustest.Type(p))
	}
	return matchers
}

func typesOf(msgs []gravbus.Message) (types []string) {
	for _, msg := range msgs {
		types = append(types, msg.Type())
	}
	return types
}

func TestRecordSelects(t *testing.T) {
	tests := []struct {
		name     string
		patterns []string
		want     string
	}{
		{"everything but events", nil, "orders.made orders.paid jobs.one"},
		{"a type", []string{"jobs.one"}, "jobs.one"},
		{"patterns", []string{"*.made", "jobs.>"}, "orders.made jobs.one"},
		{"a pattern twice", []string{"orders.*", "orders.*"}, "orders.made orders.paid"},
		{"events", []string{"gravbus.>"}, gravbus.EventPodPanic},
		{"events too", []string{">", "gravbus.>"}, "orders.made orders.paid jobs.one " + gravbus.EventPodPanic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bus := gravbus.New(quiet())
			bustest.Watch(t, bus, gravbus.EventPodPanic)
			rec := bustest.Record(t, bus, tt.patterns...)
			if err := bus.Connect().OnType("jobs.one", func(gravbus.Message) error { panic("an event") }); err != nil {
				t.Fatal(err)
			}
			send(t, bus, "orders.made", "orders.paid", "jobs.one")
			want := strings.Fields(tt.want)
			rec.Wait(len(want))
			bustest.ExpectExactly(t, rec, types(want...)...)
			if got := rec.Types(); !slices.Equal(got, want) {
				t.Errorf("recorded %v, want %v", got, want)
			}
		})
	}
}

func TestRecordRefusesInvalidPatterns(t *testing.T) {
	for _, patterns := range [][]string{{"a..b"}, {"a", ""}, {">.a"}} {
		fails(t, try(t, 0, func(tb testing.TB) { bustest.Record(tb, bustest.New(tb), patterns...) }), "invalid pattern")
	}
}

func TestRecordEndsWithItsTest(t *testing.T) {
	bus := bustest.New(t)
	var rec *bustest.Recorder
	passes(t, try(t, 0, func(tb testing.TB) {
		rec = bustest.Record(tb, bus)
		send(tb, bus, "a")
		rec.Wait(1)
	}))
	send(t, bus, "b")
	bustest.Settle(t, bus)
	if got := rec.Types(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("recorded %v, want only what was sent during its test", got)
	}
}

func TestRecorderWait(t *testing.T) {
	both(t, func(t *testing.T) {
		bus := bustest.New(t)
		rec := bustest.Record(t, bus)
		pod := bus.Connect()
		go func() { // ends when it has sent
			for _, typ := range []string{"a", "b", "c"} {
				pod.Send(gravbus.NewMsg(typ, nil))
			}
		}()
		if got := typesOf(rec.Wait(3)); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("Wait returned %v, want a b c", got)
		}
		if got := len(rec.Wait(1)); got != 3 {
			t.Errorf("Wait(1) returned %d messages, want all 3", got)
		}
	})
}

func TestRecorderWaitFails(t *testing.T) {
	both(t, func(t *testing.T) {
		fails(t, try(t, inRealTime(t, soon), func(tb testing.TB) {
			bus := bustest.New(tb)
			rec := bustest.Record(tb, bus)
			send(tb, bus, "orders.made")
			rec.Wait(2)
		}), "1 of 2 messages", "orders.made")
	})
}

// inRealTime is d, or zero in a bubble.
func inRealTime(t *testing.T, d time.Duration) time.Duration {
	if strings.HasSuffix(t.Name(), "bubble") {
		return 0
	}
	return d
}

// What is expected in order, with what came: a b c d.
func TestExpect(t *testing.T) {
	tests := []struct {
		expect  string // the matchers of each Expect, separated by |
		exactly string // the same
		none    string // at the end
		fails   string // words of the failure
	}{
		{expect: "a b c d"},
		{expect: "a"},
		{expect: "d"},
		{expect: "b d"},
		{expect: "a|b|c|d"},
		{expect: "a c|d"},
		{expect: "> > > >"},
		{expect: ""},
		{expect: "a b c d|"},
		{expect: "e", fails: "message 1 of 1 has not come"},
		{expect: "b a", fails: "message 2 of 2 has not come"},
		{expect: "a a", fails: "message 2 of 2 has not come"},
		{expect: "b|a", fails: "unread"},
		{expect: "> > > > >", fails: "message 5 of 5 has not come"},
		{expect: "a..b", fails: "invalid pattern"},

		{exactly: "a b c d"},
		{exactly: "> > * *"},
		{expect: "b", exactly: "c d"},
		{exactly: "a b c", fails: "1 more than expected"},
		{exactly: "b c d", fails: "message 1 of 3 is not as expected: type b"},
		{exactly: "a c d", fails: "message 2 of 3 is not as expected: type c"},
		{exactly: "a b c d e", fails: "message 5 of 5 has not come"},
		{exactly: "a b d c", fails: "message 3 of 4 is not as expected: type d"},
		{exactly: "a b|c d", fails: "2 more than expected"},
		{exactly: "a..b", fails: "invalid pattern"},

		{none: "e f.>"},
		{expect: "d", none: ">"},
		{expect: "a b c", none: "a b c"},
		{expect: "c", none: "d", fails: "type d"},
		{none: ">", fails: "type >"},
		{none: "x c", fails: "type c"},
		{none: "..", fails: "invalid pattern"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("expect %s exactly %s none %s", tt.expect, tt.exactly, tt.none), func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T) {
				within := inRealTime(t, soon)
				if tt.fails == "" {
					within = 0 // nothing is waited for in vain
				}
				f := try(t, within, func(tb testing.TB) {
					bus := bustest.New(tb)
					rec := bustest.Record(tb, bus)
					send(tb, bus, "a", "b", "c", "d")
					rec.Wait(4)
					if tt.expect != "" {
						for _, list := range strings.Split(tt.expect, "|") {
							patterns := strings.Fields(list)
							got := bustest.Expect(tb, rec, types(patterns...)...)
							if len(got) != len(patterns) {
								tb.Errorf("Expect(%s) returned %v", list, typesOf(got))
							}
							for i, p := range patterns {
								if p != ">" && got[i].Type() != p {
									tb.Errorf("Expect(%s) returned %v", list, typesOf(got))
								}
							}
						}
					}
					if tt.exactly != "" {
						for _, list := range strings.Split(tt.exactly, "|") {
							bustest.ExpectExactly(tb, rec, types(strings.Fields(list)...)...)
						}
						bustest.ExpectNone(tb, rec)
					}
					if tt.none != "" {
						bustest.ExpectNone(tb, rec, types(strings.Fields(tt.none)...)...)
					}
				})
				if tt.fails == "" {
					passes(t, f)
				} else {
					fails(t, f, tt.fails)
				}
			})
		})
	}
}

// What has not come yet is waited for.
func TestExpectWaits(t *testing.T) {
	for _, expect := range []func(testing.TB, *bustest.Recorder, ...bustest.Matcher) []gravbus.Message{bustest.Expect, bustest.ExpectExactly} {
		both(t, func(t *testing.T) {
			bus := bustest.New(t)
			rec := bustest.Record(t, bus)
			pod, step := bus.Connect(), make(chan struct{})
			go func() { // ends when it has sent
				pod.Send(gravbus.NewMsg("a", nil))
				<-step
				pod.Send(gravbus.NewMsg("b", nil))
			}()
			expect(t, rec, bustest.Type("a"))
			close(step)
			expect(t, rec, bustest.Type("b"))
		})
	}
}

// In a bubble no time passes in Expect and its like: a test says itself how long something may take.
func TestNoTimePassesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := bustest.New(t)
		rec := bustest.Record(t, bus)
		pod := bus.Connect()
		time.AfterFunc(time.Second, func() { pod.Send(gravbus.NewMsg("later", nil)) })
		began := time.Now()

		for name, wait := range map[string]func(testing.TB, *bustest.Recorder){
			"Expect":        func(tb testing.TB, r *bustest.Recorder) { bustest.Expect(tb, r, bustest.Type("later")) },
			"ExpectExactly": func(tb testing.TB, r *bustest.Recorder) { bustest.ExpectExactly(tb, r, bustest.Type("later")) },
		} {
			t.Log(name)
			fails(t, try(t, 0, func(tb testing.TB) { wait(tb, rec) }), "has not come", "unread: nothing")
		}
		bustest.ExpectNone(t, rec)
		bustest.Settle(t, bus)
		if d := time.Since(began); d != 0 {
			t.Errorf("%v have passed, want no time", d)
		}
		time.Sleep(time.Second) // fake
		bustest.ExpectExactly(t, rec, bustest.Type("later"))
	})
}

func TestSkip(t *testing.T) {
	both(t, func(t *testing.T) {
		bus := bustest.New(t)
		rec := bustest.Record(t, bus)
		send(t, bus, "a", "b")
		bustest.Settle(t, bus)
		rec.Skip()
		bustest.ExpectNone(t, rec)
		send(t, bus, "c")
		bustest.ExpectExactly(t, rec, bustest.Type("c"))
		if got := rec.Types(); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("Types returns %v, want all from the beginning", got)
		}
	})
}

// A failure shows what came, marks what matched, and stays short.
func TestFailureShowsWhatCame(t *testing.T) {
	f := try(t, soon, func(tb testing.TB) {
		bus := bustest.New(tb)
		rec := bustest.Record(tb, bus)
		pod := bus.Connect()
		r := pod.Send(gravbus.NewMsg("first", []byte("one")))
		pod.Send(gravbus.NewMsgReplyTo(r, "second", []byte(strings.Repeat("x", 1000))))
		for i := range 100 {
			pod.Send(gravbus.NewTyped("more", map[string]int{"i": i}))
		}
		rec.Wait(102)
		bustest.Expect(tb, rec, bustest.Type("second"), bustest.Type("third"))
	})
	fails(t, f,
		"message 2 of 2 has not come in ", `type third`,
		"\n    1 first \"one\"\n",
		"\n  * 2 second \"xxx", "in reply to ",
		"… 62 more …",
		`102 more "{\"i\":99}"`)
	if _, log := f.outcome(); len(log) > 5000 {
		t.Errorf("the failure takes %d bytes", len(log))
	}
}
