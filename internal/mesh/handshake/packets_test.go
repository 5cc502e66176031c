package handshake_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/internal/wire"
)

// alter changes fields of the frame in a packet, or the packet itself.
func alter(t *testing.T, packet []byte, changes []string) []byte {
	t.Helper()
	for _, change := range changes {
		field, value, _ := strings.Cut(change, "=")
		value = strings.Trim(value, `"`)
		kind, body, _, err := wire.Next(packet)
		if err != nil {
			t.Fatal(err)
		}
		switch field {
		case "truncate": // to so many bytes
			packet = packet[:number(t, value)]
		case "append": // these bytes
			packet = slices.Concat(packet, unhex(t, value))
		case "pad": // with so many bytes
			packet = slices.Concat(packet, make([]byte, number(t, value)))
		case "node", "mesh", "capabilities", "versions", "nonce":
			h, err := wire.DecodeHello(body)
			if err != nil || kind != wire.KindHello {
				t.Fatal(kind, err)
			}
			switch field {
			case "node":
				h.Node = id(t, value)
			case "mesh":
				h.Mesh = value
			case "capabilities":
				h.Capabilities = strings.Split(value, ",")
			case "versions":
				h.MinVersion, h.MaxVersion = versions(t, value)
			case "nonce":
				h.Nonce = [32]byte{byte(number(t, value))}
			}
			packet = wire.AppendHello(nil, &h)
		case "macs": // of a Proof: only the first so many
			p, err := wire.DecodeProof(body)
			if err != nil || kind != wire.KindProof {
				t.Fatal(kind, err)
			}
			p.MACs = p.MACs[:number(t, value)]
			packet = wire.AppendProof(nil, &p)
		case "reflect": // a Proof becomes a Welcome with its first MAC
			p, err := wire.DecodeProof(body)
			if err != nil || kind != wire.KindProof {
				t.Fatal(kind, err)
			}
			packet = wire.AppendWelcome(nil, &wire.Welcome{MAC: p.MACs[0], Resume: p.Resume})
		case "key": // of a Welcome
			w, err := wire.DecodeWelcome(body)
			if err != nil || kind != wire.KindWelcome {
				t.Fatal(kind, err)
			}
			w.Key = uint64(number(t, value))
			packet = wire.AppendWelcome(nil, &w)
		default:
			t.Fatalf("unknown field %q", field)
		}
	}
	return packet
}

// describe prints a packet the way people think of it.
func describe(packet []byte) string {
	kind, body, rest, err := wire.Next(packet)
	if err != nil || len(rest) > 0 {
		return fmt.Sprintf("%d bytes, %.8x…", len(packet), packet)
	}
	switch kind {
	case wire.KindHello:
		if h, err := wire.DecodeHello(body); err == nil {
			return fmt.Sprintf("hello node=%s mesh=%q versions=%d..%d", short(h.Node), h.Mesh, h.MinVersion, h.MaxVersion)
		}
	case wire.KindProof:
		if p, err := wire.DecodeProof(body); err == nil {
			return fmt.Sprintf("proof macs=%d resume=%s", len(p.MACs), resume(p.Resume))
		}
	case wire.KindWelcome:
		if w, err := wire.DecodeWelcome(body); err == nil {
			return fmt.Sprintf("welcome key=%d mac=%t resume=%s", w.Key, w.MAC != [32]byte{}, resume(w.Resume))
		}
	case wire.KindRefuse:
		if r, err := wire.DecodeRefuse(body); err == nil {
			return fmt.Sprintf("refuse %d %q", r.Code, r.Reason)
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%v %x", kind, body))
}

// short prints the ID that id makes of a number as that number.
func short(id wire.ID) string { return strconv.Itoa(int(id[0])<<8 | int(id[15])) }

func id(t *testing.T, s string) (id wire.ID) {
	t.Helper()
	n := number(t, s)
	id[0], id[15] = byte(n>>8), byte(n)
	return id
}

func resume(r wire.Resume) string { return fmt.Sprintf("%d/%d/%d", r.Stream, r.Known, r.Received) }

func versions(t *testing.T, s string) (low, high uint64) {
	t.Helper()
	if _, err := fmt.Sscanf(s, "%d..%d", &low, &high); err != nil {
		t.Fatal(err)
	}
	return low, high
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
