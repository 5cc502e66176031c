package wire

import (
	"encoding/binary"
	"math"
)

// Bits of the flags of Interest and Entry. Others are ignored.
const (
	interestReset = 1 << 0
	interestDone  = 1 << 1
	entryRemove   = 1 << 0
	entryObserver = 1 << 1
)

// AppendAck appends a frame.
func AppendAck(b []byte, seq uint64) []byte { return appendNumber(b, byte(KindAck), seq) }

// DecodeAck decodes the body of an Ack.
func DecodeAck(body []byte) (seq uint64, err error) { return decodeNumber(KindAck, "seq", body) }

// AppendPing appends a frame.
func AppendPing(b []byte, token uint64) []byte { return appendNumber(b, byte(KindPing), token) }

// DecodePing decodes the body of a Ping.
func DecodePing(body []byte) (token uint64, err error) { return decodeNumber(KindPing, "token", body) }

// AppendPong appends a frame.
func AppendPong(b []byte, token uint64) []byte { return appendNumber(b, byte(KindPong), token) }

// DecodePong decodes the body of a Pong.
func DecodePong(body []byte) (token uint64, err error) { return decodeNumber(KindPong, "token", body) }

// AppendWithdraw appends a frame.
func AppendWithdraw(b []byte) []byte { return append(b, byte(KindWithdraw), 0) }

// AppendInterest appends a frame.
func AppendInterest(b []byte, f *Interest) []byte {
	return appendFrame(b, KindInterest, func(b []byte) []byte {
		b = append(b, bit(f.Reset, interestReset)|bit(f.Done, interestDone))
		b = binary.AppendUvarint(b, uint64(len(f.Entries)))
		for i := range f.Entries {
			e := &f.Entries[i]
			b = append(b, bit(e.Remove, entryRemove)|bit(e.Observer, entryObserver))
			b = appendString(b, e.Group)
			b = appendStrings(b, e.Allow)
			b = appendStrings(b, e.Deny)
		}
		return b
	})
}

// DecodeInterest decodes the body of an Interest. Whether the patterns are valid is the caller's to
// find out.
func DecodeInterest(body []byte) (Interest, error) {
	d := decoder{where: KindInterest.String(), b: body}
	flags := d.uvarint("flags")
	f := Interest{Reset: flags&interestReset != 0, Done: flags&interestDone != 0}
	if n := d.count("entries", math.MaxInt, 4); n > 0 {
		f.Entries = make([]Entry, n)
	}
	for i := 0; i < len(f.Entries) && d.err == nil; i++ {
		flags := d.uvarint("entry flags")
		f.Entries[i] = Entry{
			Remove:   flags&entryRemove != 0,
			Observer: flags&entryObserver != 0,
			Group:    d.string("group", MaxName),
			Allow:    d.strings("allow", math.MaxInt),
			Deny:     d.strings("deny", math.MaxInt),
		}
	}
	if err := d.finish(); err != nil {
		return Interest{}, err
	}
	return f, nil
}

func bit(set bool, flag byte) byte {
	if set {
		return flag
	}
	return 0
}

// AppendReplay appends a frame.
func AppendReplay(b []byte, f *Replay) []byte {
	return appendFrame(b, KindReplay, func(b []byte) []byte {
		b = binary.AppendUvarint(b, f.ID)
		b = appendStrings(b, f.Allow)
		b = appendStrings(b, f.Deny)
		b = appendStrings(b, f.Types)
		b = binary.AppendUvarint(b, f.Last)
		b = binary.AppendVarint(b, f.Since)
		return appendString(b, f.After)
	})
}

// DecodeReplay decodes the body of a Replay. Whether the patterns are valid is the caller's to find
// out.
func DecodeReplay(body []byte) (Replay, error) {
	d := decoder{where: KindReplay.String(), b: body}
	f := Replay{
		ID:    d.uvarint("ID"),
		Allow: d.strings("allow", math.MaxInt),
		Deny:  d.strings("deny", math.MaxInt),
		Types: d.strings("types", math.MaxInt),
		Last:  d.uvarint("last"),
		Since: d.varint("since"),
		After: d.string("after", MaxText),
	}
	if err := d.finish(); err != nil {
		return Replay{}, err
	}
	return f, nil
}

// AppendPeers appends a frame.
func AppendPeers(b []byte, f *Peers) []byte {
	return appendFrame(b, KindPeers, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(len(f.Nodes)))
		for i := range f.Nodes {
			b = append(b, f.Nodes[i].Node[:]...)
			b = appendStrings(b, f.Nodes[i].Endpoints)
		}
		return b
	})
}

// DecodePeers decodes the body of a Peers.
func DecodePeers(body []byte) (Peers, error) {
	d := decoder{where: KindPeers.String(), b: body}
	var f Peers
	if n := d.count("nodes", math.MaxInt, len(ID{})+1); n > 0 {
		f.Nodes = make([]Peer, n)
	}
	for i := 0; i < len(f.Nodes) && d.err == nil; i++ {
		d.fixed("node", f.Nodes[i].Node[:])
		f.Nodes[i].Endpoints = d.strings("endpoints", MaxEndpoints)
	}
	if err := d.finish(); err != nil {
		return Peers{}, err
	}
	return f, nil
}
