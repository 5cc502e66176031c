package mdns

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/mdns"
	"github.com/miekg/dns"

	"github.com/gravbus/gravbus/discovery"
)

// zone is what all servers of a node answer from. They call it from their goroutines, at the same
// time. The records are never changed, only replaced.
type zone struct {
	service atomic.Pointer[mdns.MDNSService]
}

// Records implements mdns.Zone.
func (z *zone) Records(q dns.Question) []dns.RR {
	if s := z.service.Load(); s != nil {
		return s.Records(q)
	}
	return nil
}

// announce makes the zone answer for a node with these endpoints, or not at all if there are none.
func (z *zone) announce(c Config, self discovery.Self, endpoints []string) error {
	if len(endpoints) == 0 {
		z.withdraw()
		return nil
	}
	// The host's name is the node's own, so that no two answer for one name with different addresses.
	host := self.UUID + "." + c.Domain + "."
	ips, port := addresses(endpoints)
	txt := record{meshName(self.Mesh), endpoints}.encode()
	service, err := mdns.NewMDNSService(self.UUID, c.Service, c.Domain+".", host, port, ips, txt)
	if err != nil {
		return err
	}
	z.service.Store(service)
	return nil
}

// withdraw makes the zone answer nothing.
func (z *zone) withdraw() { z.service.Store(nil) }

// announceable returns those of the endpoints that may mean something to others, the best first.
func announceable(endpoints []string) []string {
	var global, loopback []string
	for _, endpoint := range endpoints {
		addr, _ := addrPort(endpoint)
		switch {
		case !isEndpoint(endpoint) || addr.Is6() && addr.IsLinkLocalUnicast() || addr.IsValid() && addr.IsUnspecified():
		case addr.IsLoopback():
			loopback = append(loopback, endpoint)
		default:
			global = append(global, endpoint)
		}
	}
	if len(global) > 0 {
		return global
	}
	return loopback
}

// addresses returns what stands in the records that general tools of DNS service discovery show: the
// first IPv4 and the first IPv6 address, and the first port. Nodes take no notice of them, but the
// DNS library takes a node to be incomplete that has none.
func addresses(endpoints []string) (ips []net.IP, port int) {
	var v4, v6 net.IP
	for _, endpoint := range endpoints {
		addr, p := addrPort(endpoint)
		if port == 0 {
			port = int(p)
		}
		switch {
		case addr.Is4() && v4 == nil:
			v4 = addr.AsSlice()
		case addr.Is6() && v6 == nil:
			v6 = addr.AsSlice()
		}
	}
	if v4 != nil {
		ips = append(ips, v4)
	}
	if v6 != nil {
		ips = append(ips, v6)
	}
	if ips == nil {
		ips = []net.IP{net.IPv4zero} // the endpoints are names
	}
	return ips, max(port, 1)
}

// addrPort returns the address and port in an endpoint such as 10.0.0.7:8080 or
// ws://10.0.0.7:8080/path, zero values for what it does not have.
func addrPort(endpoint string) (addr netip.Addr, port uint16) {
	if _, after, ok := strings.Cut(endpoint, "://"); ok {
		endpoint = after
	}
	endpoint, _, _ = strings.Cut(endpoint, "/")
	host, text, err := net.SplitHostPort(endpoint)
	if err != nil {
		host = strings.Trim(endpoint, "[]")
	}
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		port = uint16(n)
	}
	addr, _ = netip.ParseAddr(host)
	return addr.Unmap(), port
}
