package handshake

import (
	"fmt"

	"github.com/gravbus/gravbus/internal/wire"
)

// meet compares the other side's Hello with one's own. Nobody has proved anything yet, so what it
// refuses with tells no more than the Hellos do.
func (m *Machine) meet(h *wire.Hello) (*Peer, error) {
	own := &m.c.Hello
	dialling, listening := own, h // both operators read the same text
	if !m.dialer {
		dialling, listening = h, own
	}
	if h.Node == (wire.ID{}) {
		return nil, protocol("a node without an ID")
	}
	version := min(own.MaxVersion, h.MaxVersion)
	if version < max(own.MinVersion, h.MinVersion) {
		return nil, &Error{Code: wire.CodeVersion, Reason: fmt.Sprintf("the dialling node speaks %s, the listening node %s",
			versions(dialling), versions(listening))}
	}
	if h.Node == own.Node {
		return nil, &Error{Code: wire.CodeSelf, Reason: "both sides have the ID " + uuid(own.Node)}
	}
	if m.dialer && m.c.Expect != (wire.ID{}) && m.c.Expect != h.Node {
		return nil, &Error{Code: wire.CodeNode, Reason: fmt.Sprintf("dialled %s, reached %s",
			uuid(m.c.Expect), uuid(h.Node))}
	}
	if own.Mesh != h.Mesh && own.Mesh != AnyMesh && h.Mesh != AnyMesh {
		return nil, &Error{Code: wire.CodeMesh, Reason: fmt.Sprintf("the dialling node is of mesh %.64q, the listening node of %.64q",
			dialling.Mesh, listening.Mesh)}
	}
	return &Peer{
		ID:           h.Node,
		Mesh:         h.Mesh,
		Name:         h.Name,
		Version:      version,
		MaxMessage:   h.MaxMessage,
		WindowCount:  h.WindowCount,
		WindowCost:   h.WindowCost,
		Endpoints:    h.Endpoints,
		Capabilities: h.Capabilities,
	}, nil
}

func versions(h *wire.Hello) string {
	if h.MinVersion == h.MaxVersion {
		return fmt.Sprintf("version %d", h.MinVersion)
	}
	return fmt.Sprintf("versions %d to %d", h.MinVersion, h.MaxVersion)
}

func uuid(id wire.ID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
