package mdns

import (
	"log/slog"
	"time"

	"github.com/gravbus/gravbus/discovery"
)

// Encode returns the TXT record of a node.
func Encode(mesh string, endpoints []string) []string {
	return record{meshName(mesh), announceable(endpoints)}.encode()
}

// Check is what a node of the mesh makes of an answer.
func Check(name string, txt []string, mesh string) (discovery.Node, bool) {
	c, err := Config{}.withDefaults()
	if err != nil {
		panic(err)
	}
	a, ok := c.check(name, txt, meshName(mesh))
	return discovery.Node{UUID: a.uuid, Endpoints: a.endpoints}, ok
}

// Limits of what is told of.
const (
	MaxEndpoints = maxEndpoints
	MaxEndpoint  = maxEndpoint
	MaxTXT       = maxTXT
	MaxKnown     = maxKnown
	Lifetime     = lifetime
)

// Known is what a session knows.
type Known = known

// Hear takes answers that came in one look.
func (k known) Hear(now time.Time, nodes ...discovery.Node) bool {
	var answers []answer
	for _, n := range nodes {
		answers = append(answers, answer{n.UUID, n.Endpoints})
	}
	return k.hear(answers, now)
}

// Nodes returns what is told of.
func (k known) Nodes() []discovery.Node { return k.nodes() }

// Announceable returns what is announced of the endpoints.
func Announceable(endpoints ...string) []string { return announceable(endpoints) }

// Addresses returns the addresses and the port in the records for other tools.
func Addresses(endpoints ...string) (ips []string, port int) {
	list, port := addresses(endpoints)
	for _, ip := range list {
		ips = append(ips, ip.String())
	}
	return ips, port
}

// A Logger is what a session logs by.
type Logger struct{ *logger }

// NewLogger returns a Logger.
func NewLogger(to *slog.Logger) Logger { return Logger{newLogger(to)} }

// Library logs a line as the DNS library does.
func (l Logger) Library(line string) { l.library().Print(line) }

// Warn logs a warning.
func (l Logger) Warn(key, msg string) { l.warn(key, msg) }

// Clear says that it is over.
func (l Logger) Clear(key, msg string) { l.clear(key, msg) }

// Close ends logging.
func (l Logger) Close() { l.close() }
