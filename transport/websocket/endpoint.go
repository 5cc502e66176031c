package websocket

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gravbus/gravbus/transport"
)

// setPort makes port the one that Dial fills in, if it is one.
func (t *Transport) setPort(port string) {
	if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
		t.port = port
	}
}

// parse returns the URL that an endpoint stands for. What it leaves out is as this transport is
// configured itself; the port of one with a scheme is that of the scheme, as everywhere else.
func (t *Transport) parse(endpoint string) (*url.URL, error) {
	t.mu.Lock()
	port, path := t.port, t.path
	t.mu.Unlock()

	raw := endpoint
	bare := !strings.Contains(endpoint, "://")
	if bare {
		host, rest, found := strings.Cut(endpoint, "/")
		if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
			host = "[" + host + "]"
		}
		raw = t.scheme() + "://" + strings.ReplaceAll(host, "%", "%25") // of a zone
		if found {
			raw += "/" + rest
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transport.ErrEndpoint, err)
	}
	bad := func(why string) error { return fmt.Errorf("%w: %q %s", transport.ErrEndpoint, endpoint, why) }
	switch {
	case u.Scheme != "ws" && u.Scheme != "wss":
		return nil, bad("has a scheme other than ws and wss")
	case u.Scheme == "ws" && !t.plain:
		return nil, bad("is not encrypted, and TLS is configured")
	case !isHost(u.Hostname()):
		return nil, bad("has no valid host")
	case u.User != nil || u.Fragment != "":
		return nil, bad("has a user or a fragment")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, bad("has no valid port")
		}
	} else if u.Host = strings.TrimSuffix(u.Host, ":"); bare {
		u.Host += ":" + port
	}
	if u.Path == "" {
		u.Path = path
	}
	return u, nil
}

// isHost tells a name or an address from what else net/url lets through.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && !strings.ContainsAny(s, ":%")
}

func (t *Transport) scheme() string {
	if t.plain {
		return "ws"
	}
	return "wss"
}

// format returns the endpoint of a listener: without scheme and path if they are what everybody
// fills in.
func format(addr netip.AddrPort, secure bool, path string) string {
	if !secure && path == DefaultPath {
		return addr.String()
	}
	u := url.URL{Scheme: "ws", Host: addr.String(), Path: path}
	if secure {
		u.Scheme = "wss"
	}
	return u.String()
}

// reachable returns the addresses that a listener at addr can be dialled at, the best first.
func reachable(addr netip.Addr) []netip.Addr {
	if addr = addr.Unmap(); !addr.IsUnspecified() {
		return []netip.Addr{addr}
	}
	var found []netip.Addr
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range ifaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(n.IP)
			if !ok || ip.IsMulticast() || ip.IsUnspecified() {
				continue
			}
			ip = zoned(ip.Unmap(), i.Name)
			if (ip.Is4() || addr.Is6()) && !slices.Contains(found, ip) {
				found = append(found, ip)
			}
		}
	}
	return ranked(found)
}

// zoned adds the interface to an address that means nothing without.
func zoned(ip netip.Addr, iface string) netip.Addr {
	if ip.Is6() && ip.IsLinkLocalUnicast() {
		return ip.WithZone(iface)
	}
	return ip
}

// ranked sorts addresses by how many can reach them: those for every network first, link-local ones
// next, and loopback ones last. Link-local IPv6 addresses are left out if there is another one that
// is not loopback: they need the interface's name on the machine that dials, which is a guess.
func ranked(addrs []netip.Addr) []netip.Addr {
	rank := func(a netip.Addr) int {
		r := 0
		switch {
		case a.IsLoopback():
			r = 4
		case a.IsLinkLocalUnicast():
			r = 2
		}
		if a.Is6() {
			r++
		}
		return r
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(rank(a), rank(b)) })
	const linkLocal6 = 3
	if len(addrs) > 0 && rank(addrs[0]) < linkLocal6 {
		addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return rank(a) == linkLocal6 })
	}
	return addrs
}
