package mdns_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func init() { programs["rubbish"] = rubbishProgram }

const service = "_gravbus._tcp.local."

// rubbishProgram answers every question with all kinds of what nobody should answer, and last with
// a node that is in order, number 9. All of the rest has the word rubbish where it could be told.
func rubbishProgram() {
	conn, err := net.ListenMulticastUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353})
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	packets := rubbish()
	fmt.Println("ready")
	for buf := make([]byte, 9000); ; {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var question dns.Msg
		if question.Unpack(buf[:n]) != nil || question.Response || len(question.Question) != 1 ||
			question.Question[0].Name != service {
			continue
		}
		for _, packet := range packets {
			_, _ = conn.WriteTo(packet, from)
		}
	}
}

func rubbish() (packets [][]byte) {
	txt := func(extra ...string) []string { return append([]string{"v=1", "mesh=test"}, extra...) }
	e0 := "e0=rubbish:1"
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("e%d=rubbish:%d", i, i))
	}
	name := uuid(5) + "." + service
	for _, m := range []*dns.Msg{
		instance("rubbish."+service, service, txt(e0)),                         // no UUID
		instance(uuid(5)+"x."+service, service, txt(e0)),                       // nearly
		instance("rubbish."+uuid(5)+"."+service, service, txt(e0)),             // too deep
		instance(uuid(5)+"._http._tcp.local.", "_http._tcp.local.", txt(e0)),   // another service
		instance(uuid(5)+"._gravbus._tcp.other.", service, txt(e0)),            // another domain
		instance(uuid(1)+"."+service, service, txt(e0)),                        // in the name of who asks
		instance(strings.ToUpper(uuid(1))+"."+service, service, txt(e0)),       //
		instance(name, service, []string{"rubbish"}),                           // no record of ours
		instance(name, service, []string{""}),                                  //
		instance(name, service, []string{"v=2", "mesh=test", e0}),              // of another version
		instance(name, service, []string{"mesh=test", "v=1", e0}),              //
		instance(name, service, []string{"v=1", e0}),                           // without a mesh
		instance(name, service, []string{"v=1", "mesh=testrubbish", e0}),       // of another one
		instance(name, service, []string{"v=1", "mesh=", e0}),                  //
		instance(name, service, txt()),                                         // without endpoints
		instance(name, service, txt("e0=")),                                    //
		instance(name, service, txt("e1=rubbish:1")),                           //
		instance(name, service, txt("e0=rub bish:1")),                          // no endpoint
		instance(name, service, txt(`e0=rubbish\010:1`)),                       //
		instance(name, service, txt(`e0=rubbish\195\164:1`)),                   //
		instance(name, service, txt("e0="+strings.Repeat("rubbish", 30)+":1")), // too long
		instance(name, service, txt(many...)),                                  // too many
	} {
		packet, err := m.Pack()
		if err != nil {
			panic(err)
		}
		packets = append(packets, packet, packet[:len(packet)/2], packet[len(packet)/2:])
	}
	last, err := instance(uuid(9)+"."+service, service, txt("e0=good:1")).Pack()
	if err != nil {
		panic(err)
	}
	return append(packets, nil, []byte{0}, make([]byte, 12), make([]byte, 8000), last)
}

// instance is an answer that tells of one instance of a service.
func instance(name, service string, txt []string) *dns.Msg {
	header := func(name string, typ uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: 120}
	}
	m := new(dns.Msg)
	m.Response = true
	m.Compress = true
	m.Answer = []dns.RR{
		&dns.PTR{Hdr: header(service, dns.TypePTR), Ptr: name},
		&dns.SRV{Hdr: header(name, dns.TypeSRV), Port: 1, Target: "host-of-" + name},
		&dns.A{Hdr: header("host-of-"+name, dns.TypeA), A: net.IPv4(192, 0, 2, 1)},
		&dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: txt},
	}
	return m
}

func TestRubbishIsIgnored(t *testing.T) {
	lab := newLab(t)
	lan := lab.Bridge()
	a, b, c := lab.Host(lan), lab.Host(lan), lab.Host(lan)
	stranger := a.Start([]string{programName + "=rubbish"}, os.Args[0])
	stranger.Expect("ready")
	n1, n2 := startNode(t, b, 1, at(b.Addr(lan))), startNode(t, c, 2, at(c.Addr(lan)))
	good := &node{uuid: uuid(9), endpoints: []string{"good:1"}}
	for range 3 {
		n1.expectNode(good)
		n1.expectNode(n2)
		n2.expectNode(good)
	}
	// n1's own name comes from the stranger, too, and is known to be its own; to n2 it is another
	// node, of which two tell. Both are heard, as nobody can say who is right.
	n2.ExpectFunc("found n1", func(line string) bool {
		return strings.HasPrefix(line, "found "+n1.uuid) && strings.Contains(line, n1.endpoints[0])
	})
	for _, line := range append(n1.Seen(), n2.Seen()...) {
		if strings.Contains(line, "rub") && !strings.Contains(line, n1.uuid) || strings.Contains(line, uuid(5)) {
			t.Errorf("found: %s", line)
		}
	}
	for _, line := range n1.Seen() {
		if strings.Contains(line, n1.uuid) {
			t.Errorf("node 1 has found itself: %s", line)
		}
	}
}
