package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gravbus/gravbus/cmd/gravbus/internal/demo"
)

func TestProcessNodeTellsWhoComesAndGoes(t *testing.T) {
	s := newSeed(t, "--name", "home")
	for i, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		sub := s.begin(t, "sub", "t", "--name", "guest")
		up := s.happenings(t, "up", i+1)[i]
		if up.Peer.Name != "guest" || up.Peer.Mesh != "gravbus" || len(up.Peer.Endpoints) != 1 {
			t.Errorf("%+v", up)
		}
		sub.signal(t, sig)
		sub.must(t, exitOK)
		lost := s.happenings(t, "lost", i+1)[i]
		if lost.Peer.NodeUUID != up.Peer.NodeUUID {
			t.Errorf("%+v", lost)
		}
		if !strings.Contains(lost.Error, "withdrawn") && !strings.Contains(lost.Error, "leav") {
			t.Errorf("it left in order, and is told as: %s", lost.Error)
		}
	}
	s.signal(t, syscall.SIGTERM)
	s.must(t, exitOK)
	s.happenings(t, "left", 1)
}

func TestProcessNodeForPeople(t *testing.T) {
	p := begin(t, "node", "--mdns=false", "--listen", "127.0.0.1:0", "--mesh", "shop")
	out := p.told(t, &p.stdout, "listening 127.0.0.1:")
	if !strings.Contains(out, "mesh      shop\n") {
		t.Error(out)
	}
	_, rest, _ := strings.Cut(out, "listening ")
	endpoint, _, _ := strings.Cut(rest, "\n")
	peers := begin(t, "peers", "--mdns=false", "--mesh", "shop", "--seed", endpoint, "--peers", "1", "--name", "looker")
	list := peers.must(t, exitOK)
	if !regexp.MustCompile(`^NAME +RTT +STATE +VERSION +NODE +ENDPOINTS\nnode@\S+ +\S.* +up +1 +[0-9a-f-]{36} +` + endpoint + "\n$").MatchString(list) {
		t.Errorf("%q", list)
	}
	p.told(t, &p.stdout, "+ up      looker")
	p.told(t, &p.stdout, "- lost    looker")
	p.signal(t, os.Interrupt)
	if out := p.must(t, exitOK); !strings.Contains(out, "left the mesh") {
		t.Error(out)
	}
}

func TestProcessPeers(t *testing.T) {
	s := newSeed(t, "--name", "home")
	s.begin(t, "sub", "t", "--name", "other")
	var list []listed
	// A list in JSON, and long enough for a heartbeat.
	if err := json.Unmarshal([]byte(s.begin(t, "peers", "--json", "--timeout", "2500ms").must(t, exitOK)), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Name != "home" || list[0].NodeUUID != s.uuid || list[1].Name != "other" || list[0].RTT <= 0 {
		t.Errorf("%+v", list)
	}
	if r := s.begin(t, "peers", "--peers", "5", "--timeout", "500ms").wait(t); r.code != exitNobody {
		t.Errorf("%+v", r)
	}
	watch := s.begin(t, "peers", "--watch", "--json")
	watch.told(t, &watch.stdout, "other")
	s.begin(t, "sub", "t", "--name", "third")
	watch.told(t, &watch.stdout, "third")
	watch.signal(t, os.Interrupt)
	watch.must(t, exitOK)
}

// Who gives a seed that does not answer is told so, once.
func TestProcessSeedThatIsNotReached(t *testing.T) {
	const told = "gravbus: seed 127.0.0.1:1 is not reached: connection refused; trying again\n"
	sub := begin(t, "sub", "t", "--mdns=false", "--seed", "127.0.0.1:1")
	sub.told(t, &sub.stderr, told)
	for _, tt := range [][]string{
		{"pub", "t", "x", "--timeout", "100ms"},
		{"request", "t", "x", "--timeout", "100ms"},
		{"peers", "--timeout", "100ms"},
	} {
		r := begin(t, append(tt, "--mdns=false", "--seed", "127.0.0.1:1")...).wait(t)
		if r.code != exitNobody || !strings.HasSuffix(r.stderr, "nobody is there: no other node was found (127.0.0.1:1: connection refused)\n") {
			t.Errorf("%q: %+v", tt, r)
		}
	}
	s := newSeed(t)
	both := s.begin(t, "sub", "t", "--seed", "127.0.0.1:1", "--timeout", "2500ms") // one seed is enough
	both.must(t, exitOK)
	sub.signal(t, os.Interrupt)
	if r := sub.wait(t); r.code != exitOK || r.stderr != told {
		t.Errorf("%+v", r)
	}
}

func TestProcessListenErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r := begin(t, "node", "--mdns=false", "--listen", ln.Addr().String()).wait(t)
	if r.code != exitFailed || r.stderr != "gravbus: cannot listen at "+ln.Addr().String()+": bind: address already in use\n" {
		t.Errorf("%+v", r)
	}
}

func TestProcessKeys(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.key"), filepath.Join(dir, "second.key")
	for _, path := range []string{first, second} {
		begin(t, "key", path).must(t, exitOK)
	}
	if info, err := os.Stat(first); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if r := begin(t, "key", first).wait(t); r.code != exitFailed || !strings.Contains(r.stderr, "exists") {
		t.Errorf("%+v", r)
	}
	text, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	s := newSeed(t, "--key-file", first)
	sub := s.begin(t, "sub", "t", "--count", "1", "--key-file", first)
	for _, no := range []struct {
		*process
		why string
	}{
		{s.begin(t, "pub", "t", "x", "--timeout", "1s"), "mesh key does not match"},
		{s.begin(t, "pub", "t", "x", "--timeout", "1s", "--key-file", second), "mesh key does not match"},
		{s.begin(t, "pub", "t", "x", "--timeout", "1s", "--key-file", first, "--mesh", "other"), "mesh does not match"},
	} {
		r := no.wait(t)
		_, nobody, _ := strings.Cut(r.stderr, "nobody is there: no other node was found (")
		if r.code != exitNobody || !strings.Contains(nobody, no.why) {
			t.Errorf("%+v", r)
		}
	}
	if refused := s.happenings(t, "refused", 1)[0]; refused.Error == "" || refused.Remote == "" {
		t.Errorf("%+v", refused)
	}
	yes := beginIn(t, []string{keyVariable + "=" + string(text)}, nil, s.with("pub", "t", "hello")...)
	if r := yes.wait(t); r.code != exitOK {
		t.Errorf("%+v", r)
	}
	if got := sub.must(t, exitOK); got != "hello\n" {
		t.Errorf("%q", got)
	}
}

func TestProcessKeyIsRandom(t *testing.T) {
	one, two := begin(t, "key").must(t, exitOK), begin(t, "key").must(t, exitOK)
	if one == two || !regexp.MustCompile(`^[\w-]{43}\n$`).MatchString(one) {
		t.Errorf("%q, %q", one, two)
	}
}

// With a key a node listens for others by itself.
func TestProcessListensForOthersWithAKey(t *testing.T) {
	p := beginIn(t, []string{keyVariable + "=0123456789abcdef"}, nil, "sub", "t", "--mdns=false", "--seed", "127.0.0.1:1", "-v", "--timeout", "100ms")
	r := p.wait(t)
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() && !strings.Contains(r.stderr, ip.IP.String()+":") {
			t.Errorf("not at %s: %s", ip.IP, r.stderr)
		}
	}
}

// certificates writes an authority and a certificate of it for the loopback, and returns the flags.
func certificates(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	template := func(name string, n int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	sign := func(c, parent *x509.Certificate, key *ecdsa.PrivateKey, by *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	caKey, key := newKey(), newKey()
	ca := template("authority", 1)
	ca.IsCA, ca.KeyUsage = true, x509.KeyUsageCertSign
	cert := template("node", 2)
	cert.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"--tls-ca", write("ca.pem", "CERTIFICATE", sign(ca, ca, caKey, caKey)),
		"--tls-cert", write("cert.pem", "CERTIFICATE", sign(cert, ca, key, caKey)),
		"--tls-key", write("key.pem", "PRIVATE KEY", keyDER),
	}
}

func TestProcessMutualTLS(t *testing.T) {
	ours, others := certificates(t), certificates(t)
	s := newSeed(t, ours...)
	sub := s.begin(t, append([]string{"sub", "t", "--count", "1"}, ours...)...)
	for _, flags := range [][]string{nil, others} {
		if r := s.begin(t, append([]string{"pub", "t", "x", "--timeout", "1s"}, flags...)...).wait(t); r.code != exitNobody {
			t.Errorf("%+v", r)
		}
	}
	s.begin(t, append([]string{"pub", "t", "hello"}, ours...)...).must(t, exitOK)
	if got := sub.must(t, exitOK); got != "hello\n" {
		t.Errorf("%q", got)
	}
}

func TestProcessDemo(t *testing.T) {
	for _, discovery := range []string{"seed", ""} {
		t.Run(discovery, func(t *testing.T) {
			t.Parallel()
			out := begin(t, "demo", "--json", "--messages", "2000", "--discovery", discovery).must(t, exitOK)
			var r demo.MeshReport
			dec := json.NewDecoder(strings.NewReader(out))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&r); err != nil {
				t.Fatal(err)
			}
			if !r.OK || len(r.Checks) != 16 || len(r.Nodes) != 5 || discovery != "" && r.Discovery != discovery {
				t.Errorf("%+v", r)
			}
			sum := r.Total
			if sum.Expected != sum.Received || sum.Received < 3*2*2000 || sum.Lost+sum.Doubled+sum.OutOfOrder != 0 {
				t.Errorf("%+v", sum)
			}
			for _, c := range r.Checks {
				if !c.OK || c.Got != c.Expected {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

var pids = regexp.MustCompile(`pid (\d+)`)

// children returns the processes of a demonstration that has started all three.
func children(t *testing.T, p *process) (all []*os.Process) {
	t.Helper()
	for _, m := range pids.FindAllStringSubmatch(p.told(t, &p.stdout, "Found after"), -1) {
		pid, _ := strconv.Atoi(m[1])
		process, err := os.FindProcess(pid)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, process)
	}
	if len(all) != 3 {
		t.Fatalf("%d processes in:\n%s", len(all), p.stdout.String())
	}
	return all
}

// gone waits until a process, which is no child of this one, is no more.
func gone(t *testing.T, p *os.Process) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for late := time.After(patience); ; {
		if p.Signal(syscall.Signal(0)) != nil || zombie(p.Pid) {
			return
		}
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("process %d is still there", p.Pid)
		}
	}
}

// zombie reports whether a process has ended and only waits for its parent to know.
func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, found := strings.Cut(string(b), ") ")
	return err == nil && found && strings.HasPrefix(state, "Z")
}

func TestProcessDemoLeavesNoProcesses(t *testing.T) {
	for name, sig := range map[string]os.Signal{"interrupted": os.Interrupt, "killed": os.Kill} {
		t.Run(name, func(t *testing.T) {
			p := begin(t, "demo", "--discovery", "seed", "--messages", "1000")
			all := children(t, p)
			p.signal(t, sig)
			r := p.wait(t)
			if sig == os.Interrupt && (r.code != exitFailed || !strings.Contains(r.stderr, "interrupted: not all was counted")) {
				t.Errorf("%+v", r)
			}
			for _, c := range all {
				gone(t, c)
			}
		})
	}
}

func TestProcessDemoFitsATerminal(t *testing.T) {
	out := begin(t, "demo", "--discovery", "seed", "--messages", "1000").must(t, exitOK)
	for line := range strings.Lines(out) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, no := range []string{"✗", "\x1b"} {
		if strings.Contains(out, no) {
			t.Errorf("%q in:\n%s", no, out)
		}
	}
}
