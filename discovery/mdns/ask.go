package mdns

import (
	"log"
	"net"
	"strings"

	"github.com/hashicorp/mdns"
)

// maxAnswers is how many answers are taken on one link in one look. The library drops the others.
const maxAnswers = 256

// An answer is one node that has answered.
type answer struct {
	uuid      string // in lower case
	endpoints []string
}

// groups are the addresses of multicast DNS (RFC 6762, section 3) by network.
var groups = map[string]*net.UDPAddr{
	"udp4": {IP: net.IPv4(224, 0, 0, 251), Port: 5353},
	"udp6": {IP: net.ParseIP("ff02::fb"), Port: 5353},
}

// networks returns by which networks to ask on a link. Each is asked by itself, as the library gives
// up IPv4 when IPv6 fails.
func (c Config) networks(k link) (networks []string) {
	if k.ipv4 && !c.DisableIPv4 {
		networks = append(networks, "udp4")
	}
	if k.ipv6 && !c.DisableIPv6 {
		networks = append(networks, "udp6")
	}
	return networks
}

// ask sends a question on a link by one network and returns the answers that come within the
// timeout, and belong to this mesh.
func (c Config) ask(k link, network, mesh string, library *log.Logger) ([]answer, error) {
	// The library leaves a socket open when it cannot join the group.
	probe, err := net.ListenMulticastUDP(network, nil, groups[network])
	if err != nil {
		return nil, err
	}
	probe.Close()

	entries := make(chan *mdns.ServiceEntry, maxAnswers)
	err = mdns.Query(&mdns.QueryParam{
		Service:     c.Service,
		Domain:      c.Domain,
		Timeout:     c.Timeout,
		Interface:   &k.iface,
		Entries:     entries,
		DisableIPv4: network != "udp4",
		DisableIPv6: network != "udp6",
		Logger:      library,
	})
	if err != nil {
		return nil, err
	}
	// The library goes on writing to entries that it has sent, until it returns.
	close(entries)
	var answers []answer
	for entry := range entries {
		if a, ok := c.check(entry.Name, entry.InfoFields, mesh); ok {
			answers = append(answers, a)
		}
	}
	return answers, nil
}

// check makes an answer of what somebody has sent, which may be anything.
func (c Config) check(name string, txt []string, mesh string) (a answer, ok bool) {
	uuid, ok := cutSuffixFold(name, "."+c.serviceName())
	if !ok || !isUUID(uuid) {
		return answer{}, false
	}
	r, ok := decode(txt)
	if !ok || r.mesh != mesh && r.mesh != "*" && mesh != "*" {
		return answer{}, false
	}
	return answer{strings.ToLower(uuid), r.endpoints}, true
}

// cutSuffixFold is strings.CutSuffix for names of DNS, where upper and lower case are the same.
func cutSuffixFold(s, suffix string) (before string, ok bool) {
	n := len(s) - len(suffix)
	if n < 0 || !strings.EqualFold(s[n:], suffix) {
		return s, false
	}
	return s[:n], true
}
