package netlab

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// A Host is a computer with a loopback and an interface eth0, eth1 … for each network it is on.
type Host struct {
	lab   *Lab
	ns    string
	links []*link
}

type link struct {
	bridge *Bridge
	port   int    // of the bridge, from 1
	name   string // eth0 …
	metric int    // of the multicast route, smaller for earlier links
}

// Host makes a host on the given networks, with all interfaces up. One that is on none has multicast
// on its loopback.
func (l *Lab) Host(bridges ...*Bridge) *Host {
	l.t.Helper()
	h := &Host{lab: l, ns: l.namespace()}
	l.batch(h.ns, "link set lo up")
	if len(bridges) == 0 {
		l.batch(h.ns, "route add 224.0.0.0/4 dev lo")
	}
	for _, b := range bridges {
		h.Join(b)
	}
	return h
}

// Join gives the host an interface on one network more.
func (h *Host) Join(b *Bridge) {
	h.lab.t.Helper()
	b.ports++
	k := &link{bridge: b, port: b.ports, name: fmt.Sprintf("eth%d", len(h.links)), metric: 1 + len(h.links)}
	h.links = append(h.links, k)
	h.create(k)
}

// create makes the interface and its cable.
func (h *Host) create(k *link) {
	h.lab.t.Helper()
	h.lab.batch(k.bridge.ns,
		fmt.Sprintf("link add p%d type veth peer name %s address 02:00:77:00:%02x:%02x netns %s",
			k.port, k.name, k.bridge.number, k.port, h.ns),
		fmt.Sprintf("link set p%d master br0 up", k.port))
	h.lab.batch(h.ns,
		fmt.Sprintf("addr add %s/24 dev %s", h.Addr(k.bridge), k.name),
		fmt.Sprintf("addr add %s/64 dev %s nodad", h.Addr6(k.bridge), k.name))
	h.up(k)
}

// up brings the interface up. When one is down the kernel forgets its routes.
func (h *Host) up(k *link) {
	h.lab.t.Helper()
	h.lab.batch(h.ns,
		fmt.Sprintf("link set %s up", k.name),
		fmt.Sprintf("route replace 224.0.0.0/4 dev %s metric %d", k.name, k.metric))
}

// on returns the host's link to a network.
func (h *Host) on(b *Bridge) *link {
	h.lab.t.Helper()
	i := slices.IndexFunc(h.links, func(k *link) bool { return k.bridge == b })
	if i < 0 {
		h.lab.t.Fatal("netlab: the host is not on that network")
	}
	return h.links[i]
}

// Addr returns the host's IPv4 address on a network.
func (h *Host) Addr(b *Bridge) string { return fmt.Sprintf("10.77.%d.%d", b.number, h.on(b).port) }

// Addr6 returns the host's IPv6 address on a network.
func (h *Host) Addr6(b *Bridge) string { return fmt.Sprintf("fd77:%x::%x", b.number, h.on(b).port) }

// LinkDown takes the host's interface on a network down.
func (h *Host) LinkDown(b *Bridge) {
	h.lab.t.Helper()
	h.lab.batch(h.ns, fmt.Sprintf("link set %s down", h.on(b).name))
}

// LinkUp undoes LinkDown.
func (h *Host) LinkUp(b *Bridge) {
	h.lab.t.Helper()
	k := h.on(b)
	// IPv6 addresses do not survive a link that is down.
	h.lab.batch(h.ns, fmt.Sprintf("addr replace %s/64 dev %s nodad", h.Addr6(b), k.name))
	h.up(k)
}

// Recreate deletes the host's interface on a network and makes it anew, with the same name and
// addresses, as a virtual machine or a VPN does that comes back.
func (h *Host) Recreate(b *Bridge) {
	h.lab.t.Helper()
	k := h.on(b)
	h.lab.batch(h.ns, fmt.Sprintf("link del %s", k.name))
	h.create(k)
}

// IP runs the program ip in the host and returns what it prints.
func (h *Host) IP(args ...string) string {
	h.lab.t.Helper()
	out, err := exec.Command("ip", append([]string{"-n", h.ns}, args...)...).CombinedOutput()
	if err != nil {
		h.lab.t.Fatalf("netlab: ip -n %s %s: %v: %s", h.ns, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Start runs a program on the host, with env in addition to the environment of this process.
func (h *Host) Start(env []string, name string, args ...string) *Proc {
	h.lab.t.Helper()
	return start(h.lab.t, env, exec.Command("ip", append([]string{"netns", "exec", h.ns, name}, args...)...))
}
