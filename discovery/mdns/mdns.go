// Package mdns is a discovery of nodes on the same LAN by multicast DNS (RFC 6762, RFC 6763). It
// needs no configuration and no server.
//
//	gravbus.UseDiscovery(mdns.New(mdns.Config{}))
//
// A node answers questions for the service _gravbus._tcp.local with its UUID, its mesh and all
// endpoints it can be reached at, on every interface that can multicast. It asks on each of them
// too: at once, after 1, 2, 4 … 30 s, each time up to a quarter later at random, and again at once
// when the bus lost a peer or an interface has changed. A node that starts asks first, so it is
// found when it dials, within half a second.
//
// What has answered once is told of again for as long as its records are valid, 120 s, even if
// answers get lost. So a node that has gone may be told of for two minutes.
//
// # What it does not do
//
// It is no proof of anything: whoever is on the LAN can answer, and can read what is answered, the
// name of the mesh included if that is short and plain. The handshake decides who gets in. Answers
// are bounded: so many endpoints for a node, so many nodes in all, printable ASCII.
//
// Multicast does not leave a LAN, and many cloud and container networks have none. There package
// static helps, also beside this one.
//
// Endpoints with an IPv6 link-local address are not announced, as they mean nothing elsewhere.
// Those of the loopback are announced only if there are no others: they are for this machine.
//
// On Linux a network needs a route for multicast (the default route will do) for IPv4.
package mdns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

// What is used for the zero values of Config.
const (
	DefaultService  = "_gravbus._tcp"
	DefaultDomain   = "local"
	DefaultInterval = 30 * time.Second
	DefaultTimeout  = 300 * time.Millisecond
)

// Config configures a Discovery. The zero value works.
type Config struct {
	// Service is the name of the service, of the form _name._tcp: DefaultService if empty. Nodes
	// find only those with the same service and domain.
	Service string

	// Domain is the domain, without dots at its ends: DefaultDomain if empty.
	Domain string

	// Interfaces are the names of the interfaces to use. If there are none, it uses all that are up,
	// have an address and can multicast, or, without any, the loopback.
	Interfaces []string

	// DisableIPv4 and DisableIPv6 keep it from asking by IPv4 or IPv6. It answers by both. Not both
	// may be true.
	DisableIPv4, DisableIPv6 bool

	// Interval is the longest pause between two questions, DefaultInterval if 0, and at least a
	// second and at most 40 s. Between them lie the first pauses, which double from a second.
	Interval time.Duration

	// Timeout is how long answers are waited for, DefaultTimeout if 0, and at least 50 ms and at most
	// 2 s. Close may take as long.
	Timeout time.Duration
}

// New returns a Discovery. A bad configuration is an error of Start.
func New(c Config) *Discovery { return &Discovery{c} }

// A Discovery finds nodes on the same LAN.
type Discovery struct{ config Config }

// Start implements discovery.Discovery. It returns an error if the configuration is bad, or the UUID
// is none. No network, or one without multicast, is none: that is logged, and may change.
func (d *Discovery) Start(ctx context.Context, self discovery.Self, found func(discovery.Node)) (discovery.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := d.config.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("mdns: %w", err)
	}
	if !isUUID(self.UUID) {
		return nil, fmt.Errorf("mdns: invalid UUID %q", self.UUID)
	}
	return newSession(c, self, found), nil
}

// withDefaults returns the configuration with all fields set.
func (c Config) withDefaults() (Config, error) {
	if c.Service == "" {
		c.Service = DefaultService
	}
	if c.Domain == "" {
		c.Domain = DefaultDomain
	}
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	name, proto, _ := strings.Cut(c.Service, ".")
	switch {
	case !isLabel(name) || name[0] != '_' || (proto != "_tcp" && proto != "_udp"):
		return c, fmt.Errorf("service %q is not of the form _name._tcp", c.Service)
	case len(c.Domain) > 64 || !all(strings.Split(c.Domain, "."), isLabel):
		return c, fmt.Errorf("invalid domain %q", c.Domain)
	case slices.Contains(c.Interfaces, ""):
		return c, errors.New("an interface has no name")
	case c.DisableIPv4 && c.DisableIPv6:
		return c, errors.New("IPv4 and IPv6 are both disabled")
	case c.Interval < time.Second || c.Interval > 40*time.Second:
		return c, fmt.Errorf("interval %v is not between 1 s and 40 s", c.Interval)
	case c.Timeout < 50*time.Millisecond || c.Timeout > 2*time.Second:
		return c, fmt.Errorf("timeout %v is not between 50 ms and 2 s", c.Timeout)
	}
	c.Interfaces = slices.Clone(c.Interfaces)
	return c, nil
}

// serviceName is what is asked for, as DNS writes it.
func (c Config) serviceName() string { return c.Service + "." + c.Domain + "." }

// isLabel reports whether s can be one part of a name without being escaped.
func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

func all(list []string, ok func(string) bool) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !ok(s) })
}

// isUUID reports whether s is a UUID in its usual form of 36 characters.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F'):
			return false
		}
	}
	return true
}
