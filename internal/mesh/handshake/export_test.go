package handshake

import (
	"encoding/binary"

	"github.com/gravbus/gravbus/internal/wire"
)

// Extend appends what a later version might add to this side's Hello.
func (m *Machine) Extend(fields []byte) {
	_, body, _, _ := wire.Next(m.hello)
	body = append(body[:len(body):len(body)], fields...)
	m.hello = append([]byte{byte(wire.KindHello)}, binary.AppendUvarint(nil, uint64(len(body)))...)
	m.hello = append(m.hello, body...)
}
