package websocket

import (
	"net"
	"net/netip"
	"strings"
	"time"
)

// A Line is a line.
type Line struct{ *line }

// NewLine is newLine.
func NewLine(c net.Conn) Line { return Line{newLine(c)} }

// SetReadIdle is what that of the connection sets.
func (l Line) SetReadIdle(d time.Duration) error { return l.setReadIdle(d) }

// Parse returns the URL that t dials for an endpoint.
func Parse(t *Transport, endpoint string) (string, error) {
	u, err := t.parse(endpoint)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// Format is format.
func Format(addr netip.AddrPort, secure bool, path string) string { return format(addr, secure, path) }

// Rank is ranked, on addresses with spaces between them.
func Rank(addrs string) string {
	var all []netip.Addr
	for _, a := range strings.Fields(addrs) {
		all = append(all, netip.MustParseAddr(a))
	}
	var sorted []string
	for _, a := range ranked(all) {
		sorted = append(sorted, a.String())
	}
	return strings.Join(sorted, " ")
}
