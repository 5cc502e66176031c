package gravbus_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/discovery/mdns"
	"github.com/gravbus/gravbus/internal/netlab"
)

// lanPort is where all nodes of these tests listen, on all interfaces.
const lanPort = 8080

const lanKey = "a mesh key of the tests of the LAN"

// lanConfig is what a node is if nothing else is said.
func lanConfig(name string) procConfig {
	return procConfig{Name: name, Addr: fmt.Sprintf(":%d", lanPort), Key: lanKey, MDNS: true}
}

// lanMesh starts nodes on hosts of one network, which notice after dead that one of them is silent,
// and waits until all are connected.
func lanMesh(
	t *testing.T, lab *netlab.Lab, lan *netlab.Bridge, dead time.Duration, names ...string,
) (p *procTest, nodes []*procChild, hosts []*netlab.Host) {
	t.Helper()
	p = &procTest{t: t}
	for range names {
		hosts = append(hosts, lab.Host(lan))
	}
	for i, name := range names {
		c := lanConfig(name)
		c.DeadAfter = dead
		nodes = append(nodes, p.start(hosts[i], c))
	}
	procTogether(nodes...)
	return p, nodes, hosts
}

// lanConns returns the addresses that established connections from or to lanPort lead to, as the
// kernel lists them for this process's host.
func lanConns() (all []string) {
	for _, name := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			continue // no IPv6
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			const established = "01"
			field := strings.Fields(lines.Text())
			if field[3] != established {
				continue
			}
			local, remote := lanAddr(field[1]), lanAddr(field[2])
			if local.Port() == lanPort || remote.Port() == lanPort {
				all = append(all, remote.Addr().String())
			}
		}
		f.Close()
	}
	return all
}

// lanAddr reads an address in the kernel's form: words of 32 bits, each with its lowest byte first.
func lanAddr(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	number, _ := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{} // the heading
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number))
}

// conns waits until so many connections are left, and returns where they lead to. Those that were
// made for nothing, as when two nodes dial at once, take a moment to end.
func (n *procChild) conns(want int) []string {
	n.test.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		all := n.ask(procCommand{Do: "conns"}).Conns
		if len(all) == want {
			return all
		}
		if time.Now().After(deadline) {
			n.test.t.Fatalf("%s has the connections %v, want %d", n.Name, all, want)
		}
	}
}

// lanPretender is a host that is announced as a node, by the service if it is not empty.
func lanPretender(name, uuid, service string) procConfig {
	return procConfig{Name: name, Addr: fmt.Sprintf(":%d", lanPort), Pretend: uuid, Service: service, Mesh: gravbus.DefaultMesh}
}

// pretend announces that the node with the UUID Pretend is here. Who dials gets no answer, and is
// told of by a line "dialled".
func (n *procNode) pretend() bool {
	ln, err := net.Listen("tcp", n.Addr)
	n.must(err)
	addrs, err := net.InterfaceAddrs()
	n.must(err)
	var endpoints []string
	for _, a := range addrs {
		if ip := netip.MustParsePrefix(a.String()).Addr(); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			endpoints = append(endpoints, netip.AddrPortFrom(ip, lanPort).String())
		}
	}
	_, err = mdns.New(mdns.Config{Service: n.Service}).Start(context.Background(), discovery.Self{
		UUID: n.Pretend, Mesh: n.Mesh, Endpoints: func() []string { return endpoints }, Log: slog.New(slog.DiscardHandler),
	}, func(discovery.Node) {})
	n.must(err)
	go func() { // until the program ends
		for {
			c, err := ln.Accept()
			n.must(err)
			n.say(procLine{Is: "dialled", Text: c.RemoteAddr().String()})
		}
	}()
	n.say(procLine{Is: "ready", UUID: n.Pretend, Endpoints: endpoints})
	return true
}
