package netlab

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// namespaces are named gravlab-PID-NUMBER.
const namePrefix = "gravlab-"

var lastName atomic.Uint32

// A Lab is a set of networks. Its methods, and those of what it makes, are for the goroutine of the
// test, which they end if something fails.
type Lab struct {
	t       testing.TB
	bridges int
}

// New returns an empty lab. It skips the test if there can be none: not root, no program ip, or a
// kernel without namespaces.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("netlab: only root can make networks")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("netlab: there is no program ip; install iproute2")
	}
	sweep()
	probe := newName()
	if out, err := exec.Command("ip", "netns", "add", probe).CombinedOutput(); err != nil {
		t.Skipf("netlab: no network namespaces here: %v: %s", err, out)
	}
	l := &Lab{t: t}
	l.ip("netns", "del", probe)
	return l
}

// sweep deletes the namespaces of test runs that are no more. It does not matter if it fails.
func sweep() {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest, ours := strings.CutPrefix(name, namePrefix)
		text, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(text)
		if !ours || err != nil {
			continue
		}
		if err := syscall.Kill(pid, 0); err == syscall.ESRCH {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}

func newName() string {
	return fmt.Sprintf("%s%d-%d", namePrefix, os.Getpid(), lastName.Add(1))
}

// namespace makes a network namespace that lasts as long as the test.
func (l *Lab) namespace() string {
	l.t.Helper()
	name := newName()
	l.ip("netns", "add", name)
	l.t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			l.t.Errorf("netlab: ip netns del %s: %v: %s", name, err, out)
		}
	})
	// An address can be used at once, not only when a second has shown that nobody else has it.
	l.sh(name, "for f in all default; do echo 0 >/proc/sys/net/ipv6/conf/$f/accept_dad; done || true")
	return name
}

// ip runs the program ip.
func (l *Lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("netlab: ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// batch runs ip in a namespace, once for all commands.
func (l *Lab) batch(ns string, commands ...string) {
	l.t.Helper()
	cmd := exec.Command("ip", "-n", ns, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("netlab: ip -n %s: %v: %s\n%s", ns, err, out, strings.Join(commands, "\n"))
	}
}

// sh runs a shell script in a namespace.
func (l *Lab) sh(ns, script string) {
	l.t.Helper()
	if out, err := exec.Command("ip", "netns", "exec", ns, "sh", "-c", script).CombinedOutput(); err != nil {
		l.t.Fatalf("netlab: %s: %v: %s", script, err, out)
	}
}

// A Bridge is a network that hosts are plugged into.
type Bridge struct {
	lab    *Lab
	ns     string
	number int // of the network: its addresses are 10.77.number.0/24 and fd77:number::/64
	ports  int
}

// Bridge makes a network.
func (l *Lab) Bridge() *Bridge {
	l.t.Helper()
	l.bridges++
	b := &Bridge{lab: l, ns: l.namespace(), number: l.bridges}
	// Without snooping, multicast reaches everybody; with it, those who a router has asked.
	l.batch(b.ns, "link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up")
	return b
}

// Unplug cuts a host off this network. The host can see that the link has lost its carrier.
func (b *Bridge) Unplug(h *Host) { b.set(h, "down") }

// Plug undoes Unplug.
func (b *Bridge) Plug(h *Host) { b.set(h, "up") }

// Partition cuts these hosts off the other hosts of this network, and not from each other. The
// hosts see no change of their links. A network can have one partition at a time.
func (b *Bridge) Partition(hosts ...*Host) {
	b.lab.t.Helper()
	b.lab.batch(b.ns, "link add br1 type bridge forward_delay 0 mcast_snooping 0", "link set br1 up")
	for _, h := range hosts {
		b.lab.batch(b.ns, fmt.Sprintf("link set p%d master br1", h.on(b).port))
	}
}

// Heal undoes Partition.
func (b *Bridge) Heal() {
	b.lab.t.Helper()
	for port := 1; port <= b.ports; port++ {
		b.lab.batch(b.ns, fmt.Sprintf("link set p%d master br0", port))
	}
	b.lab.batch(b.ns, "link del br1")
}

func (b *Bridge) set(h *Host, state string) {
	b.lab.t.Helper()
	b.lab.batch(b.ns, fmt.Sprintf("link set p%d %s", h.on(b).port, state))
}
