package discoverytest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gravbus/gravbus/discovery/discoverytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What keeps the rules passes, in a bubble and in real time.
func TestPasses(t *testing.T) {
	for name, bubble := range map[string]bool{"bubble": true, "real time": false} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !bubble {
				t.Skip("it takes seconds")
			}
			discoverytest.Test(t, func(*testing.T) discoverytest.Network {
				return discoverytest.Network{New: newHub("").New, Announces: true, Bubble: bubble}
			})
		})
	}
}

// broken says which rule notices a fault, and by what words.
var broken = []struct{ fault, rule, says string }{
	{"finds nobody", "nodes find each other", "node 0 is not told of node 1 within"},
	{"finds one", "nodes find each other", "node 0 is not told of node 1 within"},
	{"finds earlier ones", "nodes find each other", "node 0 is not told of node 1 within"},
	{"no endpoints", "nodes find each other", "without endpoints"},
	{"an empty endpoint", "nodes find each other", "an endpoint that is empty"},
	{"no UUID", "nodes find each other", "has not 36 characters"},
	{"tells once", "told again, at least every minute", "is not told of node 1 for 10m0s"},
	{"tells every 2 minutes", "told again, at least every minute", "is not told of node 1 for 2m0s"},
	{"tells every 100 ms", "told again, at most every second", "again after 100ms"},
	{"hurries too much", "told again, at most every second", "more often than every second"},
	{"two at a time", "found is called by one at a time", "another call has not returned"},
	{"ends with the context", "the context bounds Start only", "node 0 is not told of node 1"},
	{"first endpoints", "endpoints may change", "node 1 is not told of node 0"},
	{"announces who only dials", "who only dials is not announced", "that has no endpoints"},
	{"Hurry does nothing", "Hurry looks at once", "nothing is told"},
	{"Hurry waits", "Hurry does not wait", "does not return"},
	{"Close does not end", "Hurry and Close at the same time", "does not return"},
	{"Close does not wait", "Close waits for found", "while found is running"},
	{"tells after Close", "nothing is found after Close", "after Close has returned"},
	{"announces for ever", "nobody is announced after Close", "that was closed before"},
	{"leaves a goroutine", "no goroutine is left by Close", "goroutines more than before Start"},
	{"closes once", "Close again", "the second time, error of Close: closed"},
	{"starts once", "Start again", "after Close: error of Start: started"},
}

func TestEachFaultIsNoticed(t *testing.T) {
	for _, b := range broken {
		t.Run(b.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(b.fault)
				defer close(h.release)
				expect(t, b.rule, b.says, discoverytest.Network{New: h.New, Announces: true, Bubble: true})
			})
		})
	}
}

// Faults whose checks are others in real time. How long something took depends on the machine.
func TestFaultsAreNoticedInRealTime(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for _, b := range broken {
		switch b.fault {
		case "tells every 100 ms", "two at a time", "Close does not wait", "tells after Close",
			"leaves a goroutine":
		default:
			continue
		}
		t.Run(b.fault, func(t *testing.T) {
			h := newHub(b.fault)
			defer close(h.release)
			says, _, _ := strings.Cut(b.says, " after ")
			expect(t, b.rule, says, discoverytest.Network{New: h.New, Announces: true, Within: 2 * time.Second})
		})
	}
}

func expect(t *testing.T, rule, says string, n discoverytest.Network) {
	t.Helper()
	if err := discoverytest.Check(rule, n); err == nil {
		t.Errorf("the rule %q notices nothing", rule)
	} else if !strings.Contains(err.Error(), says) {
		t.Errorf("the rule %q says\n%v, want something with\n%s", rule, err, says)
	}
}

// Each rule has a fault that breaks it, or a reason to have none.
func TestEachRuleIsProved(t *testing.T) {
	proved := map[string]bool{}
	for _, b := range broken {
		proved[b.rule] = true
	}
	for _, rule := range discoverytest.Rules(discoverytest.Network{Announces: true, Bubble: true}) {
		if !proved[rule] {
			t.Errorf("no fault breaks %q", rule)
		}
	}
}
