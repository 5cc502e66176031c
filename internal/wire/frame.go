package wire

import (
	"encoding/binary"
	"strconv"
	"unicode/utf8"
)

// Next splits the first frame off a packet, which must not be empty. Call it with what is left
// until nothing is. The body and the rest are parts of packet; nothing is allocated.
//
// It returns the frames of kinds it does not know as well: the caller passes over them.
func Next(packet []byte) (kind Kind, body, rest []byte, err error) {
	if len(packet) == 0 {
		return 0, nil, nil, &Error{"frame", "there is none"}
	}
	kind = Kind(packet[0])
	size, n := uvarint(packet[1:])
	if n <= 0 {
		return 0, nil, nil, &Error{kind.String() + " length", badUvarint(n)}
	}
	rest = packet[1+n:]
	if size > uint64(len(rest)) {
		return 0, nil, nil, &Error{kind.String() + " length", tooShort(size, len(rest))}
	}
	return kind, rest[:size:size], rest[size:], nil
}

// String returns the name that docs/WIRE.md gives the kind.
func (k Kind) String() string {
	switch k {
	case KindHello:
		return "hello"
	case KindProof:
		return "proof"
	case KindWelcome:
		return "welcome"
	case KindUse:
		return "use"
	case KindRefuse:
		return "refuse"
	case KindBatch:
		return "batch"
	case KindAck:
		return "ack"
	case KindPing:
		return "ping"
	case KindPong:
		return "pong"
	case KindInterest:
		return "interest"
	case KindReplay:
		return "replay"
	case KindPeers:
		return "peers"
	case KindWithdraw:
		return "withdraw"
	case KindBye:
		return "bye"
	}
	return "frame of kind " + strconv.Itoa(int(k))
}

// appendFrame appends a frame with what body appends to its argument. The length is known, and put
// before it, when it is there: frames that it is for are short or seldom.
func appendFrame(b []byte, kind Kind, body func([]byte) []byte) []byte {
	b = append(b, byte(kind))
	start := len(b)
	b = body(b)
	size := len(b) - start
	n := uvarintLen(uint64(size))
	b = append(b, make([]byte, n)...)
	copy(b[start+n:], b[start:start+size])
	binary.PutUvarint(b[start:start+n], uint64(size))
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// forPeople cuts off what is over MaxName of a text that nothing depends on.
func forPeople(s string) string {
	if len(s) <= MaxName {
		return s
	}
	n := MaxName
	for n > MaxName-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
