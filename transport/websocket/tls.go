package websocket

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"

	"github.com/gravbus/gravbus/transport"
)

// exporter is the label of the keying material that both sides of a connection share (RFC 5705).
const exporter = "EXPORTER-gravbus-binding"

// http1 is the one protocol to agree on: a connection that has become HTTP/2 cannot become a
// WebSocket.
var http1 = []string{"http/1.1"}

func serverTLS(cfg *tls.Config) *tls.Config {
	if cfg == nil {
		return nil
	}
	cfg = cfg.Clone()
	cfg.NextProtos = http1
	return cfg
}

// clientTLS returns the configuration to dial with: client if there is one, else what server says,
// whose authorities are then good for both directions.
func clientTLS(client, server *tls.Config) *tls.Config {
	var cfg *tls.Config
	switch {
	case client != nil:
		cfg = client.Clone()
	case server != nil:
		cfg = server.Clone()
		if cfg.RootCAs == nil {
			cfg.RootCAs = cfg.ClientCAs
		}
	default:
		cfg = new(tls.Config)
	}
	cfg.NextProtos = http1
	return cfg
}

// secured adds to info what a TLS connection tells.
func secured(info *transport.Info, state *tls.ConnectionState) {
	info.Secure = true
	// There is no binding without TLS 1.3 or an extended master secret (RFC 7627).
	if b, err := state.ExportKeyingMaterial(exporter, nil, 32); err == nil {
		info.Binding = b
	}
	if len(state.VerifiedChains) == 0 {
		return
	}
	// Others than those of the chain may have been sent, and nobody has looked at them.
	for _, cert := range state.VerifiedChains[0] {
		if slices.ContainsFunc(state.PeerCertificates, func(c *x509.Certificate) bool { return c.Equal(cert) }) {
			info.Certificates = append(info.Certificates, cert)
		}
	}
}

// closeNow closes a connection without the farewell of TLS, which can take 5 s.
func closeNow(c net.Conn) error {
	if c, ok := c.(*tls.Conn); ok {
		return c.NetConn().Close()
	}
	return c.Close()
}
