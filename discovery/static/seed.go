package static

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/gravbus/gravbus/discovery"
)

// seed is one address that was given. One goroutine at a time uses it.
type seed struct {
	text       string
	host, port string // empty if text is not name:port
	resolver   Resolver
	log        *slog.Logger
	failing    bool // the last lookup failed
}

func newSeed(text string, resolver Resolver, log *slog.Logger) *seed {
	s := &seed{text: text, resolver: resolver, log: log}
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" || !isPort(port) {
		return s // a URL, or something else that the transport knows
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return s
	}
	s.host, s.port = host, port
	return s
}

// isPort reports whether s is a number. A URL such as ws://host is no name with a port.
func isPort(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

func (s *seed) literal() []discovery.Node {
	return []discovery.Node{{Endpoints: []string{s.text}}}
}

// resolve returns the nodes that the name stands for at present.
func (s *seed) resolve(ctx context.Context) []discovery.Node {
	addrs, err := s.resolver.LookupNetIP(ctx, "ip", s.host)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled): // closed
		return nil
	case err != nil && !s.failing:
		s.log.Warn("static: a seed is not resolved", "seed", s.text, "err", err)
	case err == nil && s.failing:
		s.log.Info("static: a seed is resolved again", "seed", s.text)
	}
	s.failing = err != nil

	var endpoints []string
	for _, addr := range addrs {
		endpoints = append(endpoints, net.JoinHostPort(addr.Unmap().String(), s.port))
	}
	if len(endpoints) == 1 {
		return []discovery.Node{{Endpoints: []string{s.text, endpoints[0]}}}
	}
	var nodes []discovery.Node
	for _, endpoint := range endpoints {
		nodes = append(nodes, discovery.Node{Endpoints: []string{endpoint}})
	}
	return append(nodes, s.literal()...)
}
