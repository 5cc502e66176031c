package handshake

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/gravbus/gravbus/internal/wire"
)

// The labels keep the proofs of the two roles apart, so that none can be sent back to its maker.
// They are zero-padded, so that whatever follows begins at the same place.
var (
	dialLabel   = label("gravbus.v1 dial")
	listenLabel = label("gravbus.v1 listen")
)

// mismatch explains a wrong proof by what an operator can do something about: a proxy that ends TLS
// makes the channel bindings differ.
const mismatch = "the nodes have no key in common, or something between them ends TLS"

func label(s string) (l [32]byte) {
	copy(l[:], s)
	return l
}

// hash takes note of both Hellos in the bytes that crossed the connection, with what only later
// versions understand.
func (m *Machine) hash(theirs []byte) {
	_, mine, _, _ := wire.Next(m.hello)
	m.hashes = [2][32]byte{sha256.Sum256(theirs), sha256.Sum256(mine)}
	if m.dialer {
		m.hashes[0], m.hashes[1] = m.hashes[1], m.hashes[0]
	}
}

// macs returns the proofs by all of this side's keys for the role of label.
func (m *Machine) macs(label [32]byte) [][32]byte {
	if len(m.c.Keys) == 0 {
		return nil
	}
	data := make([]byte, 0, len(label)+2*sha256.Size+binary.MaxVarintLen64+len(m.c.Binding))
	data = append(data, label[:]...)
	data = append(data, m.hashes[0][:]...)
	data = append(data, m.hashes[1][:]...)
	data = binary.AppendUvarint(data, uint64(len(m.c.Binding)))
	data = append(data, m.c.Binding...)

	macs := make([][32]byte, len(m.c.Keys))
	for i, key := range m.c.Keys {
		h := hmac.New(sha256.New, key)
		h.Write(data)
		h.Sum(macs[i][:0])
	}
	return macs
}

// answer checks the dialler's proofs, and returns the listener's by the first key that both hold.
// Every proof is compared with every key, so time does not tell which ones matched.
func (m *Machine) answer(proofs [][32]byte) (wire.Welcome, error) {
	switch {
	case len(proofs) == 0 && len(m.c.Keys) == 0:
		return wire.Welcome{}, nil
	case len(proofs) == 0:
		return wire.Welcome{}, unauthorized("the dialling node has no mesh key, the listening node needs one")
	case len(m.c.Keys) == 0:
		return wire.Welcome{}, unauthorized("the dialling node has a mesh key, the listening node has none")
	}
	due, mine := m.macs(dialLabel), m.macs(listenLabel)
	var found bool
	var w wire.Welcome
	for i := range proofs {
		for k := range due {
			if hmac.Equal(proofs[i][:], due[k][:]) && !found {
				found, w = true, wire.Welcome{Key: uint64(i), MAC: mine[k]}
			}
		}
	}
	if !found {
		return wire.Welcome{}, unauthorized(mismatch)
	}
	return w, nil
}

// verify checks the listener's proof.
func (m *Machine) verify(w *wire.Welcome) error {
	if len(m.c.Keys) == 0 {
		if w.Key != 0 || w.MAC != [32]byte{} {
			return protocol("a proof in an open mesh")
		}
		return nil
	}
	if w.Key >= uint64(len(m.c.Keys)) {
		return protocol("a proof by key %d of %d", w.Key, len(m.c.Keys))
	}
	if due := m.macs(listenLabel)[w.Key]; !hmac.Equal(w.MAC[:], due[:]) {
		return unauthorized(mismatch)
	}
	return nil
}
