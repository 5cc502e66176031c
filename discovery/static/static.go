// Package static is a discovery of nodes whose addresses are known beforehand.
//
//	gravbus.UseDiscovery(static.New("10.0.0.7:8080", "nodes.internal:8080"))
//
// One address of a node that runs is enough, as nodes tell each other their peers.
//
// The bus is told of every seed at once, and then for ever: after a second, after two more, and so
// on up to every 30 s, each time up to a quarter later at random, so that a whole fleet that is
// started at once does not dial in step.
//
// # Names
//
// A seed of the form name:port is resolved each time it is told of, so changes in DNS are followed.
// A name with several addresses may stand for as many nodes: each address is told of as a node of
// its own, and the name as one more. A name with one address is one node with two endpoints, first
// the name, which is what a certificate is checked against. What cannot be resolved is told of by
// its name alone. All other seeds, such as URLs and names without a port, are told of as they are.
//
// Where names with several addresses meet TLS, set tls.Config.ServerName: to connect to an address
// that its certificate does not name fails.
package static

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/gravbus/gravbus/discovery"
)

// A Discovery tells of its seeds. The fields must not be changed after Start.
type Discovery struct {
	// Seeds are endpoints, as the transport understands them. The node's own may be among them, so
	// that all nodes can have the same list. None at all is allowed, and finds nobody.
	Seeds []string

	// Resolver looks names up, net.DefaultResolver if nil. It should return when its context ends:
	// Close waits for it.
	Resolver Resolver
}

// A Resolver looks up the addresses of a host. It is safe for concurrent use. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// New returns a Discovery with these seeds.
func New(seeds ...string) *Discovery { return &Discovery{Seeds: seeds} }

// Start implements discovery.Discovery. It returns an error if a seed is empty or has white space
// or control characters in it.
func (d *Discovery) Start(ctx context.Context, self discovery.Self, found func(discovery.Node)) (discovery.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var seeds []string
	for i, seed := range d.Seeds {
		if err := check(seed); err != nil {
			return nil, fmt.Errorf("static: seed %d of %d, %q: %w", i+1, len(d.Seeds), seed, err)
		}
		if !slices.Contains(seeds, seed) {
			seeds = append(seeds, seed)
		}
	}
	return newSession(seeds, d.Resolver, self.Log, found), nil
}

func check(seed string) error {
	switch {
	case seed == "":
		return errEmpty
	case strings.ContainsFunc(seed, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return errSpace
	}
	return nil
}
