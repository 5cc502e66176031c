package mdns_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/discovery/mdns"
)

// start tries to start something that is not expected to start.
func start(ctx context.Context, c mdns.Config, uuid string) error {
	session, err := mdns.New(c).Start(ctx, discovery.Self{
		UUID:      uuid,
		Endpoints: func() []string { return nil },
		Log:       slog.New(slog.DiscardHandler),
	}, func(discovery.Node) {})
	if err == nil {
		session.Close()
	}
	return err
}

func TestBadConfigurations(t *testing.T) {
	const good = "00000000-0000-4000-8000-000000000001"
	for _, c := range []struct {
		config mdns.Config
		uuid   string
		want   string
	}{
		{mdns.Config{Service: "gravbus"}, good, `service "gravbus" is not of the form`},
		{mdns.Config{Service: "gravbus._tcp"}, good, "is not of the form"},
		{mdns.Config{Service: "_gravbus._sctp"}, good, "is not of the form"},
		{mdns.Config{Service: "_gravbus._tcp.local"}, good, "is not of the form"},
		{mdns.Config{Service: "_grav bus._tcp"}, good, "is not of the form"},
		{mdns.Config{Service: "_" + strings.Repeat("x", 63) + "._tcp"}, good, "is not of the form"},
		{mdns.Config{Domain: "local."}, good, "invalid domain"},
		{mdns.Config{Domain: "."}, good, "invalid domain"},
		{mdns.Config{Domain: "lo cal"}, good, "invalid domain"},
		{mdns.Config{Domain: strings.Repeat("x.", 40) + "x"}, good, "invalid domain"},
		{mdns.Config{Interfaces: []string{"eth0", ""}}, good, "an interface has no name"},
		{mdns.Config{DisableIPv4: true, DisableIPv6: true}, good, "both disabled"},
		{mdns.Config{Interval: time.Millisecond}, good, "interval 1ms"},
		{mdns.Config{Interval: time.Minute}, good, "interval 1m0s"},
		{mdns.Config{Interval: -1}, good, "interval -1ns"},
		{mdns.Config{Timeout: time.Millisecond}, good, "timeout 1ms"},
		{mdns.Config{Timeout: time.Minute}, good, "timeout 1m0s"},
		{mdns.Config{}, "", "invalid UUID"},
		{mdns.Config{}, "{" + good[:34] + "}", "invalid UUID"},
	} {
		err := start(t.Context(), c.config, c.uuid)
		if err == nil || !strings.HasPrefix(err.Error(), "mdns: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: Start returns %v, want something with %q", c.config, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := start(ctx, mdns.Config{}, good); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended Start returns %v", err)
	}
}

func TestWhatIsAnnounced(t *testing.T) {
	for _, c := range []struct {
		endpoints, want []string
		ips             string
		port            int
	}{
		{[]string{"10.0.0.1:8080", "10.0.0.2:8080"}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, "10.0.0.1", 8080},
		{
			[]string{"[2001:db8::1]:80", "10.0.0.1:81"},
			[]string{"[2001:db8::1]:80", "10.0.0.1:81"},
			"10.0.0.1 2001:db8::1", 80,
		},
		// What means nothing elsewhere.
		{[]string{"127.0.0.1:80", "10.0.0.1:80", "[::1]:80"}, []string{"10.0.0.1:80"}, "10.0.0.1", 80},
		{[]string{"127.0.0.1:80", "[::1]:80"}, []string{"127.0.0.1:80", "[::1]:80"}, "127.0.0.1 ::1", 80},
		{[]string{"[fe80::1%eth0]:80", "0.0.0.0:80", "[::]:80"}, nil, "", 0},
		{[]string{"ws://127.0.0.1:80/x", "ws://10.0.0.1:80/x"}, []string{"ws://10.0.0.1:80/x"}, "10.0.0.1", 80},
		{[]string{"169.254.1.1:80"}, []string{"169.254.1.1:80"}, "169.254.1.1", 80}, // it has no zone
		// Names.
		{[]string{"host.example:80", "host"}, []string{"host.example:80", "host"}, "0.0.0.0", 80},
		{[]string{"wss://host.example/x"}, []string{"wss://host.example/x"}, "0.0.0.0", 1},
		{[]string{"[2001:db8::1]"}, []string{"[2001:db8::1]"}, "2001:db8::1", 1},
		{nil, nil, "", 0},
	} {
		got := mdns.Announceable(c.endpoints...)
		if !slices.Equal(got, c.want) {
			t.Errorf("of %q it announces %q, want %q", c.endpoints, got, c.want)
		}
		if len(c.want) == 0 {
			continue
		}
		if ips, port := mdns.Addresses(got...); strings.Join(ips, " ") != c.ips || port != c.port {
			t.Errorf("for %q its other records have %q and %d, want %s and %d", got, ips, port, c.ips, c.port)
		}
	}
}

func TestWhoIsKnown(t *testing.T) {
	node := func(n int, endpoints ...string) discovery.Node {
		return discovery.Node{UUID: fmt.Sprint(n), Endpoints: endpoints}
	}
	nodes := func(k mdns.Known) string {
		var lines []string
		for _, n := range k.Nodes() {
			lines = append(lines, fmt.Sprint(n.UUID, n.Endpoints))
		}
		slices.Sort(lines)
		return strings.Join(lines, " ")
	}
	began := time.Now()
	k := make(mdns.Known)
	for _, c := range []struct {
		name  string
		after time.Duration
		heard []discovery.Node
		want  string
	}{
		{"nobody", 0, nil, ""},
		{"two", 0, []discovery.Node{node(1, "a"), node(2, "b")}, "1[a] 2[b]"},
		{"one that is heard on two links", 1, []discovery.Node{node(1, "a", "c"), node(1, "d", "a")}, "1[a c d] 2[b]"},
		{"one that moves", 2, []discovery.Node{node(1, "x")}, "1[x] 2[b]"},
		{"one that is silent", mdns.Lifetime - 1, nil, "1[x] 2[b]"},
		{"one that is gone", mdns.Lifetime, nil, "1[x]"},
		{"both gone", mdns.Lifetime + 2, nil, ""},
	} {
		if !k.Hear(began.Add(c.after), c.heard...) {
			t.Errorf("%s: too many", c.name)
		}
		if got := nodes(k); got != c.want {
			t.Errorf("%s: known are %q, want %q", c.name, got, c.want)
		}
	}
}

// Nobody can drive out the nodes that are known by inventing others.
func TestKnownNodesAreBounded(t *testing.T) {
	began := time.Now()
	k := make(mdns.Known)
	k.Hear(began, discovery.Node{UUID: "real", Endpoints: []string{"a"}})
	var invented []discovery.Node
	for i := range 2 * mdns.MaxKnown {
		invented = append(invented, discovery.Node{UUID: fmt.Sprint(i), Endpoints: []string{"x"}})
	}
	if k.Hear(began.Add(1), invented...) {
		t.Error("too many are no complaint")
	}
	if len(k) != mdns.MaxKnown {
		t.Errorf("%d are known, want %d", len(k), mdns.MaxKnown)
	}
	if k["real"] == nil {
		t.Error("the real one is gone")
	}
	var endpoints []string
	for i := range 100 {
		endpoints = append(endpoints, fmt.Sprint(i))
	}
	k.Hear(began.Add(2), discovery.Node{UUID: "real", Endpoints: endpoints})
	for _, n := range k.Nodes() {
		if len(n.Endpoints) > mdns.MaxEndpoints {
			t.Errorf("%s has %d endpoints", n.UUID, len(n.Endpoints))
		}
	}
}

func TestLog(t *testing.T) {
	var text strings.Builder
	l := mdns.NewLogger(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})))
	for range 3 {
		l.Library("[ERR] mdns: Failed to bind to udp4 port: no such device")
		l.Warn("key", "trouble")
	}
	l.Library("[ERR] mdns: Failed to unpack packet: overflow")
	l.Library("[INFO] mdns: Failed to listen to both unicast and multicast on IPv4")
	l.Clear("key", "over")
	l.Clear("key", "over")
	l.Warn("key", "trouble")
	l.Library("[ERR] mdns: Failed to query instance " + strings.Repeat("x", 10000))
	want := `level=WARN msg="mdns: Failed to bind to udp4 port: no such device"
level=WARN msg=trouble
level=DEBUG msg="mdns: Failed to unpack packet: overflow"
level=DEBUG msg="mdns: Failed to listen to both unicast and multicast on IPv4"
level=INFO msg=over
level=WARN msg=trouble
level=DEBUG msg="mdns: Failed to query instance xxx`
	got := text.String()
	if !strings.HasPrefix(got, want) {
		t.Errorf("the log is\n%s\nwant\n%s", got, want)
	}
	if len(got) > len(want)+500 {
		t.Errorf("the last line is longer than it should be: %d bytes", len(got)-len(want))
	}
	l.Close()
	l.Library("[INFO] mdns: too late")
	l.Warn("late", "too late")
	l.Clear("key", "too late")
	if text.String() != got {
		t.Errorf("after close it logs %s", text.String()[len(got):])
	}
}

// However many different things go wrong, what is remembered of them is bounded.
func TestLogIsBounded(t *testing.T) {
	var text strings.Builder
	l := mdns.NewLogger(slog.New(slog.NewTextHandler(&text, nil)))
	for i := range 10000 {
		l.Library(fmt.Sprintf("[ERR] mdns: Failed to read packet: %d", i))
	}
	if n := strings.Count(text.String(), "\n"); n > 100 {
		t.Errorf("there are %d warnings", n)
	}
}
