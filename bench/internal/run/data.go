package run

import "encoding/binary"

// A message begins with its sender (4 bytes), its number (4), and when it was due (8), which only
// some workloads use. Numbers go round: each sender has ringSize messages and publishes them over
// and over, so that making messages is no part of what is measured, and yet each is known again.
const (
	headerSize = 16
	ringSize   = 1024
	maxSenders = 4
)

// small is the size of a message wherever the size is not what is varied.
const small = 128

func stamp(data []byte, sender, number uint32) {
	binary.LittleEndian.PutUint32(data, sender)
	binary.LittleEndian.PutUint32(data[4:], number)
}

func stampDue(data []byte, nanos int64) { binary.LittleEndian.PutUint64(data[8:], uint64(nanos)) }

func senderOf(data []byte) uint32 { return binary.LittleEndian.Uint32(data) }
func numberOf(data []byte) uint32 { return binary.LittleEndian.Uint32(data[4:]) }
func dueOf(data []byte) int64     { return int64(binary.LittleEndian.Uint64(data[8:])) }

// ring makes the data of one sender.
func ring(sender uint32, size int) [][]byte {
	all := make([][]byte, ringSize)
	for i := range all {
		all[i] = make([]byte, max(size, headerSize))
		stamp(all[i], sender, uint32(i))
	}
	return all
}
