package mdns_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/gravbus/gravbus/discovery/mdns"
)

const instanceOf = "._gravbus._tcp.local."

func name(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) + instanceOf }

// through sends a TXT record through the DNS library, there and back.
func through(t *testing.T, txt []string) []string {
	t.Helper()
	rr := &dns.TXT{Hdr: dns.RR_Header{Name: name(1), Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: txt}
	m := new(dns.Msg)
	m.Answer = []dns.RR{rr}
	packet, err := m.Pack()
	if err != nil {
		t.Fatalf("%q cannot be packed: %v", txt, err)
	}
	if err := m.Unpack(packet); err != nil {
		t.Fatal(err)
	}
	return m.Answer[0].(*dns.TXT).Txt
}

func size(txt []string) (n int) {
	for _, s := range txt {
		n += 1 + len(s)
	}
	return n
}

func TestRecord(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("10.0.0.%d:8080", i+1))
	}
	long := strings.Repeat("x", mdns.MaxEndpoint)
	for _, c := range []struct {
		name            string
		endpoints, want []string // want nil: the same
	}{
		{"one", []string{"10.0.0.1:8080"}, nil},
		{"several", []string{"10.0.0.1:8080", "[2001:db8::1]:8080", "wss://host.example/x?y=z"}, nil},
		{"too many", many, many[:mdns.MaxEndpoints]},
		{"long", []string{long}, nil},
		{"long ones", []string{long, long + "", long, long, long, long}, []string{long, long, long, long}},
		{"too long", []string{long + "x", "10.0.0.1:8080"}, []string{"10.0.0.1:8080"}},
		{"with spaces", []string{"10.0.0.1 :8080", "10.0.0.1:8080"}, []string{"10.0.0.1:8080"}},
		{"not ASCII", []string{"höst:8080", "10.0.0.1:8080"}, []string{"10.0.0.1:8080"}},
		{"empty", []string{"", "10.0.0.1:8080"}, []string{"10.0.0.1:8080"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == nil {
				c.want = c.endpoints
			}
			txt := mdns.Encode("orders", c.endpoints)
			if size(txt) > mdns.MaxTXT {
				t.Errorf("it has %d bytes", size(txt))
			}
			n, ok := mdns.Check(name(1), through(t, txt), "orders")
			if !ok {
				t.Fatalf("what was announced is not understood: %q", txt)
			}
			if !slices.Equal(n.Endpoints, c.want) {
				t.Errorf("it announces %q, want %q", n.Endpoints, c.want)
			}
		})
	}
}

func TestMeshesAreToldApart(t *testing.T) {
	meshes := []string{
		"",
		"orders",
		"Orders",
		"orders ",
		"Bestellungen für München",
		`back\slash`,
		`"quoted"`,
		"a=b",
		"sha256:",
		"sha256:5f3c",
		"\x00",
		"\xff",
		strings.Repeat("m", 64),
		strings.Repeat("m", 65),
		strings.Repeat("m", 10000),
	}
	for _, announced := range meshes {
		txt := mdns.Encode(announced, []string{"10.0.0.1:8080"})
		if size(txt) > 200 {
			t.Errorf("a mesh's name takes %d bytes", size(txt))
		}
		txt = through(t, txt)
		for _, wanted := range meshes {
			if _, ok := mdns.Check(name(1), txt, wanted); ok != (wanted == announced) {
				t.Errorf("mesh %.70q finds a node of mesh %.70q: %v", wanted, announced, ok)
			}
		}
	}
	if txt := mdns.Encode("orders", nil); txt[1] != "mesh=orders" {
		t.Errorf("a plain name stands in the record as %q", txt[1])
	}
}

func TestNames(t *testing.T) {
	txt := mdns.Encode("orders", []string{"10.0.0.1:8080"})
	const uuid = "0a1b2c3d-0000-4000-8000-000000000001"
	for name, want := range map[string]bool{
		uuid + instanceOf:                               true,
		strings.ToUpper(uuid + instanceOf):              true, // DNS does not tell them apart
		uuid + "._gravbus._tcp.local":                   false,
		uuid + "._gravbus._udp.local.":                  false,
		uuid + "._http._tcp.local.":                     false,
		uuid + "._gravbus._tcp.example.":                false,
		"x" + uuid + instanceOf:                         false,
		uuid[1:] + instanceOf:                           false,
		"{" + uuid[:34] + "}" + instanceOf:              false,
		strings.Replace(uuid, "a", "g", 1) + instanceOf: false,
		strings.ReplaceAll(uuid, "-", "0") + instanceOf: false,
		instanceOf: false,
		uuid:       false,
		"":         false,
	} {
		n, ok := mdns.Check(name, txt, "orders")
		if ok != want {
			t.Errorf("%q is a node: %v, want %v", name, ok, want)
		}
		if ok && n.UUID != uuid {
			t.Errorf("the UUID is %q, want %q", n.UUID, uuid)
		}
	}
}

// Whatever somebody answers, what is told of is bounded and can be dialled.
func FuzzCheck(f *testing.F) {
	f.Add(name(1), "v=1\nmesh=orders\ne0=10.0.0.1:8080\ne1=[::1]:80")
	f.Add(name(1), "v=1\nmesh=orders\nx=1\ne0=a\ne2=b\ne1=c")
	f.Add(name(1), "v=1\nmesh=orders\ne0=a b")
	f.Add(name(1), "v=1\nmesh=orders\ne0="+strings.Repeat("a", 300))
	f.Add(name(1), "v=2\nmesh=orders\ne0=a")
	f.Add("x"+instanceOf, "")
	f.Fuzz(func(t *testing.T, name, lines string) {
		n, ok := mdns.Check(name, strings.Split(lines, "\n"), "orders")
		if !ok {
			return
		}
		if len(n.UUID) != 36 || n.UUID != strings.ToLower(n.UUID) || !strings.EqualFold(name, n.UUID+instanceOf) {
			t.Errorf("UUID %q of %q", n.UUID, name)
		}
		if len(n.Endpoints) == 0 || len(n.Endpoints) > mdns.MaxEndpoints {
			t.Errorf("%d endpoints", len(n.Endpoints))
		}
		for _, e := range n.Endpoints {
			if e == "" || len(e) > mdns.MaxEndpoint || strings.ContainsFunc(e, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("endpoint %q", e)
			}
		}
	})
}

// Whatever is announced can be packed, and is understood.
func FuzzEncode(f *testing.F) {
	f.Add("orders", "10.0.0.1:8080\n[::1]:80\nhost")
	f.Add("a\\b", "a\\b")
	f.Add("", strings.Repeat("host:1\n", 50))
	f.Add(strings.Repeat("m", 300), strings.Repeat("e", 300))
	f.Fuzz(func(t *testing.T, mesh, lines string) {
		endpoints := mdns.Announceable(strings.Split(lines, "\n")...)
		if len(endpoints) == 0 {
			return
		}
		txt := mdns.Encode(mesh, endpoints)
		if size(txt) > mdns.MaxTXT {
			t.Errorf("%d bytes: %q", size(txt), txt)
		}
		n, ok := mdns.Check(name(1), through(t, txt), mesh)
		if !ok || !reflect.DeepEqual(n.Endpoints, endpoints[:len(n.Endpoints)]) {
			t.Errorf("%q and %q become %q", mesh, endpoints, n)
		}
	})
}
