package wire

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// uvarint is binary.Uvarint, which is not inlined, with a short way for the numbers that most are.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

// uvarintLen returns how many bytes the shortest form of v has.
func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// zigzag gives numbers near 0 of either sign a short form, as binary.AppendVarint does.
func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// badUvarint is the reason for a uvarint's n of 0 or less.
func badUvarint(n int) string {
	if n == 0 {
		return "it ends within a number"
	}
	return "a number of more than 64 bits"
}

func tooShort(want uint64, have int) string {
	return fmt.Sprintf("%d bytes announced, %d left", want, have)
}
