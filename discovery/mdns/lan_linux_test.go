package mdns_test

import (
	"strings"
	"testing"

	"github.com/gravbus/gravbus/internal/netlab"
)

// newLab returns the lab of one test, beside those of others.
func newLab(t *testing.T) *netlab.Lab {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	t.Parallel()
	return netlab.New(t)
}

// at returns an endpoint on the host.
func at(addr string) []string { return []string{addr + ":8080"} }

func TestFiveHostsFindEachOther(t *testing.T) {
	lab := newLab(t)
	lan := lab.Bridge()
	var nodes []*node
	for i := range 5 {
		h := lab.Host(lan)
		nodes = append(nodes, startNode(t, h, i, at(h.Addr(lan))))
	}
	expectAll(nodes...)
	for _, n := range nodes {
		n.close()
		n.expectNone(n.uuid)
	}
}

func TestNodesOfOneHostFindEachOther(t *testing.T) {
	lab := newLab(t)
	lan := lab.Bridge()
	h, other := lab.Host(lan), lab.Host(lan)
	expectAll(
		startNode(t, h, 1, []string{"10.77.1.1:8081"}),
		startNode(t, h, 2, []string{"10.77.1.1:8082"}),
		startNode(t, h, 3, []string{"10.77.1.1:8083"}),
		startNode(t, other, 4, []string{"10.77.1.2:8080"}),
	)
}

func TestByOneNetworkOnly(t *testing.T) {
	for name, env := range map[string]string{"IPv4": "NODE_NO6=1", "IPv6": "NODE_NO4=1"} {
		t.Run(name, func(t *testing.T) {
			lab := newLab(t)
			lan := lab.Bridge()
			expectAll(
				startNode(t, lab.Host(lan), 1, []string{"10.77.1.1:8080", "[fd77:1::1]:8080"}, env),
				startNode(t, lab.Host(lan), 2, []string{"10.77.1.2:8080", "[fd77:1::2]:8080"}, env),
			)
		})
	}
}

func TestOthersAreIgnored(t *testing.T) {
	lab := newLab(t)
	lan := lab.Bridge()
	a, b, c := lab.Host(lan), lab.Host(lan), lab.Host(lan)
	foreign := startNode(t, b, 3, at(b.Addr(lan)), "NODE_MESH=another")
	foreign2 := startNode(t, b, 4, at(b.Addr(lan)), "NODE_MESH=another")
	service := startNode(t, c, 5, at(c.Addr(lan)), "NODE_SERVICE=_other._tcp")
	service2 := startNode(t, c, 6, at(c.Addr(lan)), "NODE_SERVICE=_other._tcp")
	onlyDials := startNode(t, c, 7, nil)
	n1 := startNode(t, a, 1, at(a.Addr(lan)))
	n2 := startNode(t, b, 2, at(b.Addr(lan)))

	for range 2 { // more than one look
		expectAll(n1, n2)
		expectAll(foreign, foreign2)
		expectAll(service, service2)
		onlyDials.expectNode(n1)
		onlyDials.expectNode(n2)
	}
	n1.expectNone(uuid(1), uuid(3), uuid(4), uuid(5), uuid(6), uuid(7))
	foreign.expectNone(uuid(1), uuid(2), uuid(3), uuid(5), uuid(6), uuid(7))
	service.expectNone(uuid(1), uuid(2), uuid(3), uuid(4), uuid(5), uuid(7))
	onlyDials.expectNone(uuid(3), uuid(4), uuid(5), uuid(6), uuid(7))
}

func TestHostOnTwoNetworks(t *testing.T) {
	lab := newLab(t)
	lan1, lan2 := lab.Bridge(), lab.Bridge()
	left, both, right := lab.Host(lan1), lab.Host(lan1, lan2), lab.Host(lan2)
	n1 := startNode(t, left, 1, at(left.Addr(lan1)))
	n2 := startNode(t, both, 2, []string{both.Addr(lan1) + ":8080", both.Addr(lan2) + ":8080"})
	n3 := startNode(t, right, 3, at(right.Addr(lan2)))
	expectAll(n1, n2)
	expectAll(n2, n3)
	n1.expectNone(n3.uuid)
	n3.expectNone(n1.uuid)

	// Of a host that is on a network of its own, too, the named one is used.
	named := startNode(t, both, 4, at(both.Addr(lan1)), "NODE_INTERFACES=eth0")
	expectAll(n1, named)
	named.expectNode(n2)
	named.expectNode(n2) // again: the first look is over, in which it would have found n3, too
	named.expectNone(n3.uuid)
}

// In these tests a node moves to other endpoints while it cannot be heard, for what was heard before
// counts for two minutes.

func TestLinkComesBack(t *testing.T) {
	lab := newLab(t)
	lan := lab.Bridge()
	a, b := lab.Host(lan), lab.Host(lan)
	n1, n2 := startNode(t, a, 1, at(a.Addr(lan))), startNode(t, b, 2, at(b.Addr(lan)))
	expectAll(n1, n2)

	for _, c := range []struct {
		name      string
		away, not func()
	}{
		{"down and up", func() { b.LinkDown(lan) }, func() { b.LinkUp(lan) }},
		{"unplugged and plugged", func() { lan.Unplug(b) }, func() { lan.Plug(b) }},
		{"partition", func() { lan.Partition(b) }, func() { lan.Heal() }},
		{"made anew", func() {}, func() { b.Recreate(lan) }},
		{"another address", func() { b.IP("addr", "flush", "dev", "eth0") }, func() {
			b.IP("addr", "add", "10.77.1.99/24", "dev", "eth0")
			b.IP("route", "replace", "224.0.0.0/4", "dev", "eth0", "metric", "1")
		}},
	} {
		t.Log(c.name)
		c.away()
		n1.move("192.0.2.1:1", "n1."+c.name[:2]+":1")
		n2.move("192.0.2.2:1", "n2."+c.name[:2]+":1")
		c.not()
		expectAll(n1, n2)
	}
}

func TestNetworkComesLater(t *testing.T) {
	lab := newLab(t)
	lan := lab.Bridge()
	a, b := lab.Host(lan), lab.Host()
	n1 := startNode(t, a, 1, at(a.Addr(lan)))
	n2 := startNode(t, b, 2, []string{"192.0.2.2:1"})
	b.Join(lan)
	expectAll(n1, n2)

	c := lab.Host()
	c.IP("link", "set", "lo", "down")
	n3 := startNode(t, c, 3, []string{"192.0.2.3:1"})
	c.Join(lan)
	expectAll(n1, n2, n3)
}

// What answered on an interface that is gone, or is down, does not stay.
func TestServersFollowTheLinks(t *testing.T) {
	lab := newLab(t)
	lan, other := lab.Bridge(), lab.Bridge()
	h := lab.Host(lan, other)
	n := startNode(t, h, 1, at(h.Addr(lan)))
	n.expectServers(2)
	for range 3 {
		h.Recreate(lan)
	}
	n.expectServers(2)
	h.LinkDown(lan)
	n.expectServers(1)
	h.LinkUp(lan)
	n.expectServers(2)
	n.move() // it only dials now
	n.expectServers(0)
	n.move("192.0.2.1:1")
	n.expectServers(2)
	n.close()
}

func TestWrongInterfaceIsLogged(t *testing.T) {
	lab := newLab(t)
	h := lab.Host(lab.Bridge())
	n := startNode(t, h, 1, []string{"192.0.2.1:1"}, "NODE_INTERFACES=eth7")
	n.expectServers(0)
	for _, want := range []string{
		`level=WARN msg="mdns: there is no network to look in"`,
		`level=WARN msg="mdns: an interface is not there, is down or has no address" interface=eth7`,
	} {
		if got := n.Stderr(); strings.Count(got, want) != 1 {
			t.Errorf("the log is\n%s\nwant %s once", got, want)
		}
	}
}

func TestEndpointsChange(t *testing.T) {
	lab := newLab(t)
	lan := lab.Bridge()
	n1 := startNode(t, lab.Host(lan), 1, []string{"192.0.2.1:1"})
	n2 := startNode(t, lab.Host(lan), 2, nil)
	n2.expectNode(n1)
	n1.expectNone(n2.uuid)
	n2.move("192.0.2.2:1", "host.example:1")
	n1.expectNode(n2)
}

// Nodes on a machine that has no network find each other.
func TestLoopbackOnly(t *testing.T) {
	h := newLab(t).Host()
	expectAll(
		startNode(t, h, 1, []string{"127.0.0.1:8081"}),
		startNode(t, h, 2, []string{"127.0.0.1:8082"}),
	)
}
