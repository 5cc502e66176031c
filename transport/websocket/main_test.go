package websocket_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const local = "127.0.0.1:0"

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// listen opens a listener of t, until the test ends.
func listen(tb testing.TB, t *websocket.Transport) transport.Listener {
	tb.Helper()
	l, err := t.Listen(tb.Context(), transport.ListenOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

func dial(tb testing.TB, t *websocket.Transport, endpoint string) transport.Conn {
	tb.Helper()
	c, err := t.Dial(tb.Context(), endpoint)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func accept(tb testing.TB, l transport.Listener) transport.Conn {
	tb.Helper()
	c, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// pair returns both ends of a connection.
func pair(tb testing.TB, cfg websocket.Config) (dialled, accepted transport.Conn) {
	tb.Helper()
	if cfg.Addr == "" {
		cfg.Addr = local
	}
	t := websocket.New(cfg)
	l := listen(tb, t)
	dialled = dial(tb, t, l.Endpoints()[0])
	return dialled, accept(tb, l)
}

// carries fails the test unless frames pass in both directions.
func carries(tb testing.TB, a, b transport.Conn) {
	tb.Helper()
	for _, c := range [][2]transport.Conn{{a, b}, {b, a}} {
		if err := c[0].WriteFrame([]byte("hello")); err != nil {
			tb.Fatal(err)
		}
		if frame, err := c[1].ReadFrame(nil); err != nil || string(frame) != "hello" {
			tb.Fatalf("ReadFrame: %q, %v", frame, err)
		}
	}
}

// An authority signs certificates for nodes at 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

var authorities = sync.OnceValues(func() (*authority, *authority) { return newAuthority(), newAuthority() })

// mesh and foreign return two authorities.
func mesh() *authority    { a, _ := authorities(); return a }
func foreign() *authority { _, a := authorities(); return a }

func newAuthority() *authority {
	a := &authority{key: newKey(), pool: x509.NewCertPool()}
	a.cert = certificate(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
	}, nil, &a.key.PublicKey, a.key)
	a.pool.AddCert(a.cert)
	return a
}

// node returns a certificate of a node with that name.
func (a *authority) node(name string) tls.Certificate {
	key := newKey()
	cert := certificate(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func certificate(c, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	c.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

// oneSided returns the configuration of a node that shows its certificate to those who dial.
func (a *authority) oneSided(name string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.node(name)}, RootCAs: a.pool}
}

// mutual returns that of a node which wants to see one as well.
func (a *authority) mutual(name string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.node(name)},
		ClientCAs:    a.pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}
}

// eventually returns what comes from c, and fails the test if nothing does.
func eventually[T any](tb testing.TB, what string, c <-chan T) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		tb.Fatalf("%s: nothing for %v", what, patience)
		panic("unreachable")
	}
}
