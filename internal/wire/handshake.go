package wire

import (
	"encoding/binary"
	"math"
)

// AppendHello appends a frame. It cuts off what is too long of the name; the caller keeps to the
// other bounds, and to MaxHandshake.
func AppendHello(b []byte, f *Hello) []byte {
	return appendFrame(b, KindHello, func(b []byte) []byte {
		b = binary.AppendUvarint(b, f.MinVersion)
		b = binary.AppendUvarint(b, f.MaxVersion)
		b = append(b, f.Node[:]...)
		b = appendString(b, f.Mesh)
		b = append(b, f.Nonce[:]...)
		b = binary.AppendUvarint(b, f.MaxMessage)
		b = binary.AppendUvarint(b, f.WindowCount)
		b = binary.AppendUvarint(b, f.WindowCost)
		b = appendStrings(b, f.Endpoints)
		b = appendStrings(b, f.Capabilities)
		return appendString(b, forPeople(f.Name))
	})
}

// DecodeHello decodes the body of a Hello.
func DecodeHello(body []byte) (Hello, error) {
	d := handshakeDecoder(KindHello, body)
	var f Hello
	f.MinVersion = d.uvarint("min version")
	f.MaxVersion = d.uvarint("max version")
	if f.MinVersion > f.MaxVersion {
		d.fail("min version", "%d is above the max version %d", f.MinVersion, f.MaxVersion)
	}
	d.fixed("node", f.Node[:])
	f.Mesh = d.string("mesh", MaxName)
	d.fixed("nonce", f.Nonce[:])
	f.MaxMessage = d.uvarint("max message")
	f.WindowCount = d.uvarint("window count")
	f.WindowCost = d.uvarint("window cost")
	f.Endpoints = d.strings("endpoints", MaxEndpoints)
	f.Capabilities = d.strings("capabilities", MaxCapabilities)
	f.Name = d.string("name", MaxName)
	if err := d.finish(); err != nil {
		return Hello{}, err
	}
	return f, nil
}

// AppendProof appends a frame.
func AppendProof(b []byte, f *Proof) []byte {
	return appendFrame(b, KindProof, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(len(f.MACs)))
		for i := range f.MACs {
			b = append(b, f.MACs[i][:]...)
		}
		return appendResume(b, &f.Resume)
	})
}

// DecodeProof decodes the body of a Proof.
func DecodeProof(body []byte) (Proof, error) {
	d := handshakeDecoder(KindProof, body)
	var f Proof
	if n := d.count("MACs", MaxKeys, len(f.MACs[0])); n > 0 {
		f.MACs = make([][32]byte, n)
		for i := range f.MACs {
			d.fixed("MACs", f.MACs[i][:])
		}
	}
	f.Resume = d.resume()
	if err := d.finish(); err != nil {
		return Proof{}, err
	}
	return f, nil
}

// AppendWelcome appends a frame.
func AppendWelcome(b []byte, f *Welcome) []byte {
	return appendFrame(b, KindWelcome, func(b []byte) []byte {
		b = binary.AppendUvarint(b, f.Key)
		b = append(b, f.MAC[:]...)
		return appendResume(b, &f.Resume)
	})
}

// DecodeWelcome decodes the body of a Welcome.
func DecodeWelcome(body []byte) (Welcome, error) {
	d := handshakeDecoder(KindWelcome, body)
	var f Welcome
	f.Key = d.uvarint("key")
	d.fixed("MAC", f.MAC[:])
	f.Resume = d.resume()
	if err := d.finish(); err != nil {
		return Welcome{}, err
	}
	return f, nil
}

func appendResume(b []byte, r *Resume) []byte {
	b = binary.AppendUvarint(b, r.Stream)
	b = binary.AppendUvarint(b, r.Known)
	return binary.AppendUvarint(b, r.Received)
}

func (d *decoder) resume() Resume {
	r := Resume{d.uvarint("stream"), d.uvarint("known stream"), d.uvarint("received")}
	switch {
	case r.Stream == 0:
		d.fail("stream", "it is 0")
	case r.Received > math.MaxInt64:
		d.fail("received", "%d is no sequence number", r.Received)
	}
	return r
}

// AppendUse appends a frame.
func AppendUse(b []byte) []byte { return append(b, byte(KindUse), 0) }

// AppendRefuse appends a frame. It cuts off what is too long of the reason.
func AppendRefuse(b []byte, f *Refuse) []byte { return appendReason(b, KindRefuse, f) }

// AppendBye appends a frame. It cuts off what is too long of the reason.
func AppendBye(b []byte, f *Bye) []byte { return appendReason(b, KindBye, f) }

func appendReason(b []byte, kind Kind, f *Refuse) []byte {
	return appendFrame(b, kind, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(f.Code))
		return appendString(b, forPeople(f.Reason))
	})
}

// DecodeRefuse decodes the body of a Refuse or of a Bye.
func DecodeRefuse(body []byte) (Refuse, error) {
	d := handshakeDecoder(KindRefuse, body)
	f := Refuse{Code: Code(d.uvarint("code")), Reason: d.string("reason", MaxName)}
	if err := d.finish(); err != nil {
		return Refuse{}, err
	}
	return f, nil
}

// handshakeDecoder keeps to MaxHandshake whatever the transport lets through.
func handshakeDecoder(kind Kind, body []byte) *decoder {
	d := &decoder{where: kind.String(), b: body}
	if len(body) > MaxHandshake {
		d.fail("length", "%d bytes, at most %d are allowed", len(body), MaxHandshake)
	}
	return d
}
