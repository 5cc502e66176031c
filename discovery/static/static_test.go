package static_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/discovery/static"
)

// heard is what found was called with, and when.
type heard struct {
	mu    sync.Mutex
	nodes []discovery.Node
	at    []time.Time
}

func (h *heard) found(n discovery.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes = append(h.nodes, n)
	h.at = append(h.at, time.Now())
}

// take returns the endpoints of the nodes since the last take, a line for each node, sorted.
func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for _, n := range h.nodes {
		lines = append(lines, strings.Join(n.Endpoints, " "))
	}
	h.nodes, h.at = nil, nil
	slices.Sort(lines)
	return lines
}

// times returns when found was called since the last take.
func (h *heard) times() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.at)
}

func (h *heard) start(t *testing.T, d discovery.Discovery) discovery.Session {
	t.Helper()
	s, err := d.Start(t.Context(), self(slog.DiscardHandler), h.found)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func self(log slog.Handler) discovery.Self {
	return discovery.Self{
		UUID:      "00000000-0000-4000-8000-000000000001",
		Mesh:      "test",
		Endpoints: func() []string { return nil },
		Log:       slog.New(log),
	}
}

// A lookup returns the addresses of a name, or an error.
type lookup func() ([]netip.Addr, error)

// names is a resolver of the names in it. A lookup of any other takes until it is given up.
type names struct {
	mu  sync.Mutex // guards all
	all map[string]lookup
}

func (n *names) set(host string, l lookup) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = make(map[string]lookup)
	}
	n.all[host] = l
}

func (n *names) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	l := n.all[host]
	n.mu.Unlock()
	if l != nil {
		return l()
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func addrs(texts ...string) lookup {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return func() ([]netip.Addr, error) { return all, nil }
}

func noSuchHost() ([]netip.Addr, error) { return nil, errors.New("no such host") }

func TestWhatSeedsStandFor(t *testing.T) {
	resolver := &names{all: map[string]lookup{
		"one":   addrs("10.0.0.1"),
		"six":   addrs("2001:db8::6"),
		"local": addrs("fe80::1%eth0"),
		"many":  addrs("10.0.0.1", "2001:db8::1", "::ffff:10.0.0.2"),
		"none":  addrs(),
		"gone":  noSuchHost,
	}}
	for _, c := range []struct {
		name  string
		seeds []string
		want  []string // a line for each node
	}{
		{"nothing", nil, nil},
		{"addresses", []string{"10.0.0.9:8080", "[::1]:8080"}, []string{"10.0.0.9:8080", "[::1]:8080"}},
		{"seed given twice", []string{"10.0.0.9:1", "10.0.0.9:1"}, []string{"10.0.0.9:1"}},
		{"name with one address", []string{"one:80"}, []string{"one:80 10.0.0.1:80"}},
		{"name with an IPv6 address", []string{"six:80"}, []string{"six:80 [2001:db8::6]:80"}},
		{"name with a link-local address", []string{"local:80"}, []string{"local:80 [fe80::1%eth0]:80"}},
		{
			"name with several addresses",
			[]string{"many:80"},
			[]string{"10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80", "many:80"},
		},
		{"name without address", []string{"none:80"}, []string{"none:80"}},
		{"name that is not known", []string{"gone:80"}, []string{"gone:80"}},
		{"address of two seeds", []string{"10.0.0.1:80", "one:80"}, []string{"10.0.0.1:80", "one:80"}},
		{
			"what is not name:port",
			[]string{"wss://one:80/x", "ws://one", "one", "one:http", ":80", "one:80/x", "one:"},
			[]string{":80", "one", "one:", "one:80/x", "one:http", "ws://one", "wss://one:80/x"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var h heard
				d := static.New(c.seeds...)
				d.Resolver = resolver
				defer h.start(t, d).Close()
				synctest.Wait()
				if got := h.take(); !reflect.DeepEqual(got, c.want) {
					t.Errorf("the bus hears of\n%q, want\n%q", got, c.want)
				}
			})
		})
	}
}

func TestNoSeedsNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	session, err := static.New().Start(t.Context(), self(slog.DiscardHandler), func(discovery.Node) {})
	if err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
	session.Hurry()
	if err := session.Close(); err != nil {
		t.Error(err)
	}
}

func TestDefaultResolver(t *testing.T) {
	nodes := make(chan discovery.Node, 10)
	d := static.New("localhost:8080")
	session, err := d.Start(t.Context(), self(slog.DiscardHandler), func(n discovery.Node) { nodes <- n })
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for n := range nodes {
		if slices.Contains(n.Endpoints, "127.0.0.1:8080") || slices.Contains(n.Endpoints, "[::1]:8080") {
			return
		}
		if slices.Contains(n.Endpoints, "localhost:8080") { // told last, or with the address
			t.Skip("this machine has no localhost")
		}
	}
}

func TestNamesAreResolvedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		resolver := new(names)
		resolver.set("node", addrs("10.0.0.1"))
		d := static.New("node:80")
		d.Resolver = resolver
		defer h.start(t, d).Close()

		synctest.Wait()
		if got, want := h.take(), []string{"node:80 10.0.0.1:80"}; !slices.Equal(got, want) {
			t.Errorf("at first %q, want %q", got, want)
		}
		resolver.set("node", addrs("10.0.0.2"))
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if got, want := h.take(), []string{"node:80 10.0.0.2:80"}; !slices.Equal(got, want) {
			t.Errorf("after a change %q, want %q", got, want)
		}
	})
}

func TestSlowNameHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		d := static.New("slow:80", "quick:80", "10.0.0.9:80")
		d.Resolver = &names{all: map[string]lookup{"quick": addrs("10.0.0.1")}}
		session := h.start(t, d)

		synctest.Wait()
		if got, want := h.take(), []string{"10.0.0.9:80", "quick:80 10.0.0.1:80"}; !slices.Equal(got, want) {
			t.Errorf("while a lookup hangs %q, want %q", got, want)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got, want := h.take(), []string{"slow:80"}; !slices.Equal(got, want) {
			t.Errorf("when it was given up %q, want %q", got, want)
		}

		// In the middle of the next lookup.
		time.Sleep(3 * time.Second)
		session.Close()
		h.take()
		time.Sleep(time.Hour)
		if got := h.take(); got != nil {
			t.Errorf("after Close it was told of %q", got)
		}
	})
}

func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		session := h.start(t, static.New("10.0.0.1:80"))
		defer session.Close()

		check := func(began time.Time, least ...time.Duration) {
			t.Helper()
			for i, at := range h.times() {
				if i == len(least) {
					break
				}
				pause := at.Sub(began)
				if pause < least[i] || pause > least[i]*5/4 {
					t.Errorf("pause %d lasts %v, want %v and up to a quarter more", i, pause, least[i])
				}
				began = at
			}
			h.take()
		}
		const s = time.Second
		began := time.Now()
		time.Sleep(5 * time.Minute)
		check(began, 0, 1*s, 2*s, 4*s, 8*s, 16*s, 30*s, 30*s, 30*s)

		session.Hurry() // a second has passed, most likely, since it last looked; and it is no more than one
		time.Sleep(1250 * time.Millisecond)
		began = h.times()[0]
		time.Sleep(5 * time.Minute)
		check(began, 0, 1*s, 2*s, 4*s, 8*s, 16*s, 30*s, 30*s, 30*s)
	})
}

func TestHurryLooksNoMoreThanEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		session := h.start(t, static.New("10.0.0.1:80"))
		defer session.Close()
		for range 990 {
			session.Hurry()
			time.Sleep(10 * time.Millisecond)
		}
		times := h.times()
		for i := 1; i < len(times); i++ {
			if pause := times[i].Sub(times[i-1]); pause < time.Second || pause > 1010*time.Millisecond {
				t.Errorf("pause %d lasts %v, want a second", i, pause)
			}
		}
		if len(times) != 10 {
			t.Errorf("it looked %d times in 9.9 s, want 10", len(times))
		}
	})
}

func TestFleetDoesNotLookInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h heard
		for range 20 {
			defer h.start(t, static.New("10.0.0.1:80")).Close()
		}
		synctest.Wait()
		h.take()
		time.Sleep(1300 * time.Millisecond)
		seen := make(map[time.Time]bool)
		for _, at := range h.times() {
			seen[at] = true
		}
		if len(seen) < 15 {
			t.Errorf("20 sessions look at %d different times", len(seen))
		}
	})
}

func TestBadSeeds(t *testing.T) {
	for _, seed := range []string{"", " ", "a b:80", "a:80\n", "a\x00:80", "\u00a0"} {
		d := static.New("10.0.0.1:80", seed)
		s, err := d.Start(t.Context(), self(slog.DiscardHandler), func(discovery.Node) {})
		if err == nil {
			s.Close()
			t.Errorf("seed %q is accepted", seed)
		} else if want := fmt.Sprintf("seed 2 of 2, %q", seed); !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not say %s", err, want)
		}
	}
}

func TestStartWithAnEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := static.New("10.0.0.1:80").Start(ctx, self(slog.DiscardHandler), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Start returns %v", err)
	}
}

// logged is where a log is written.
type logged struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns what was logged since the last take.
func (l *logged) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

// A name that is not resolved is worth one line in the log, not one each time.
func TestLogsChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resolver := new(names)
		resolver.set("node", noSuchHost)
		d := static.New("node:80")
		d.Resolver = resolver
		var log logged
		s, err := d.Start(t.Context(), self(slog.NewTextHandler(&log, nil)), func(discovery.Node) {})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, step := range []struct {
			lookup lookup
			want   string
		}{
			{noSuchHost, "is not resolved"},
			{addrs("10.0.0.1"), "is resolved again"},
			{noSuchHost, "is not resolved"},
		} {
			resolver.set("node", step.lookup)
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if got := log.take(); strings.Count(got, "\n") != 1 || !strings.Contains(got, step.want) {
				t.Errorf("the log is %q, want one line with %q", got, step.want)
			}
		}
	})
}
