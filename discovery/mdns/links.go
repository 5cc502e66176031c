package mdns

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// maxLinks bounds how many interfaces are used at a time. Each costs four sockets.
const maxLinks = 32

// A link is an interface that is used.
type link struct {
	iface      net.Interface
	ipv4, ipv6 bool   // it has an address of this kind
	state      string // all that membership in a multicast group depends on
}

// findLinks returns the interfaces to use at present, in the order of the system.
func (c Config) findLinks() ([]link, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var links, loopbacks []link
	for _, iface := range ifaces {
		named := slices.Contains(c.Interfaces, iface.Name)
		if len(c.Interfaces) > 0 && !named {
			continue
		}
		k, ok := newLink(iface)
		switch {
		case !ok:
		case named || iface.Flags&(net.FlagMulticast|net.FlagLoopback) == net.FlagMulticast:
			links = append(links, k)
		case iface.Flags&net.FlagLoopback != 0:
			loopbacks = append(loopbacks, k)
		}
	}
	if len(links) == 0 {
		links = loopbacks
	}
	return links, nil
}

// newLink reports false for an interface that is down or has no address.
func newLink(iface net.Interface) (k link, ok bool) {
	const up = net.FlagUp | net.FlagRunning
	if iface.Flags&up != up {
		return link{}, false
	}
	addrs, err := iface.Addrs()
	if err != nil {
		return link{}, false // it has just gone
	}
	k.iface = iface
	var texts []string
	for _, addr := range addrs {
		ip, ok := addr.(*net.IPNet)
		if !ok {
			continue
		}
		if ip.IP.To4() != nil {
			k.ipv4 = true
		} else {
			k.ipv6 = true
		}
		texts = append(texts, ip.String())
	}
	// An interface that is made anew has another index. The kernel joins a group by address.
	k.state = fmt.Sprint(iface.Index, iface.Name, iface.MTU, iface.Flags, strings.Join(texts, " "))
	return k, k.ipv4 || k.ipv6
}
