package mdns

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// A node's TXT record (RFC 6763, section 6) has these strings, in this order:
//
//	v=1            the version of this form
//	mesh=orders    the name of the mesh, or a hash of it
//	e0=10.0.0.7:8080
//	e1=[2001:db8::7]:8080
//	…              its endpoints, the best first
//
// All is printable ASCII, as the DNS library does not bring anything else through unchanged. The
// record is kept under 1000 bytes, so that an answer is well below the 1500 of an Ethernet frame.
const (
	version      = "v=1"
	meshKey      = "mesh="
	hashPrefix   = "sha256:"
	maxPlainMesh = 64
	maxEndpoint  = 200  // bytes of an endpoint
	maxEndpoints = 16   // of a node
	maxTXT       = 1000 // bytes of a record, with one for the length of each string
)

// record is what a TXT record says.
type record struct {
	mesh      string // as meshName returns it
	endpoints []string
}

// encode returns the strings of the record, with as many endpoints as there is room for.
func (r record) encode() []string {
	txt := []string{version, meshKey + r.mesh}
	size := len(txt[0]) + len(txt[1]) + 2
	for _, endpoint := range r.endpoints {
		s := "e" + strconv.Itoa(len(txt)-2) + "=" + endpoint
		if len(txt)-2 == maxEndpoints || size+len(s)+1 > maxTXT {
			break
		}
		txt = append(txt, s)
		size += len(s) + 1
	}
	return txt
}

// decode is the inverse of encode. It reports false for anything that encode does not return, but
// passes over strings that it does not know.
func decode(txt []string) (r record, ok bool) {
	if len(txt) < 2 || txt[0] != version {
		return record{}, false
	}
	mesh, ok := strings.CutPrefix(txt[1], meshKey)
	if !ok || len(mesh) > len(hashPrefix)+2*sha256.Size || !isPlain(mesh) {
		return record{}, false
	}
	r.mesh = mesh
	for _, s := range txt[2:] {
		key := "e" + strconv.Itoa(len(r.endpoints)) + "="
		endpoint, ok := strings.CutPrefix(s, key)
		if !ok {
			continue
		}
		if !isEndpoint(endpoint) || len(r.endpoints) == maxEndpoints {
			return record{}, false
		}
		r.endpoints = append(r.endpoints, endpoint)
	}
	return r, len(r.endpoints) > 0
}

// meshName returns the name of a mesh as it stands in a record: as it is when it is short and plain,
// hashed otherwise.
func meshName(mesh string) string {
	if len(mesh) <= maxPlainMesh && isPlain(mesh) && !strings.HasPrefix(mesh, hashPrefix) {
		return mesh
	}
	sum := sha256.Sum256([]byte(mesh))
	return hashPrefix + hex.EncodeToString(sum[:])
}

// isPlain reports whether s is printable ASCII that the DNS library does not escape.
func isPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '\\' || r == '"' })
}

// isEndpoint reports whether s can be announced, and dialled when somebody else has announced it.
func isEndpoint(s string) bool {
	return s != "" && len(s) <= maxEndpoint && isPlain(s) && !strings.Contains(s, " ")
}
