package wire

import (
	"encoding/binary"
	"fmt"
)

// decoder takes the fields of a body one by one. After the first error its methods return zeros, so
// that only finish has to be asked, and loops end.
type decoder struct {
	where string // what is decoded
	b     []byte // what is left
	err   *Error
}

// finish returns the first error. What is left was added by a later version.
func (d *decoder) finish() error {
	if d.err == nil {
		return nil
	}
	return d.err
}

func (d *decoder) fail(field, format string, args ...any) {
	if d.err == nil {
		d.err = &Error{d.where + " " + field, fmt.Sprintf(format, args...)}
		d.b = nil
	}
}

func (d *decoder) uvarint(field string) uint64 {
	v, n := uvarint(d.b)
	if n <= 0 {
		d.fail(field, "%s", badUvarint(n))
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint(field string) int64 { return unzigzag(d.uvarint(field)) }

// fixed fills to.
func (d *decoder) fixed(field string, to []byte) {
	if len(d.b) < len(to) {
		d.fail(field, "%s", tooShort(uint64(len(to)), len(d.b)))
		return
	}
	d.b = d.b[copy(to, d.b):]
}

// bytes returns the next bytes, at most limit of them. They are a part of the body.
func (d *decoder) bytes(field string, limit int) []byte {
	n := d.uvarint(field)
	switch {
	case n > uint64(len(d.b)):
		d.fail(field, "%s", tooShort(n, len(d.b)))
		return nil
	case n > uint64(limit):
		d.fail(field, "%d bytes, at most %d are allowed", n, limit)
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string(field string, limit int) string { return string(d.bytes(field, limit)) }

// count returns the number of elements of a list. As each has at least size bytes there cannot be
// more than are left: who announces many has to send them before memory is spent.
func (d *decoder) count(field string, limit, size int) int {
	n := d.uvarint(field)
	switch {
	case n > uint64(len(d.b)/size):
		d.fail(field, "%d elements announced, %d bytes left", n, len(d.b))
		return 0
	case n > uint64(limit):
		d.fail(field, "%d elements, at most %d are allowed", n, limit)
		return 0
	}
	return int(n)
}

// strings returns a list of at most limit strings of at most MaxName bytes, nil for none.
func (d *decoder) strings(field string, limit int) []string {
	n := d.count(field, limit, 1)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := 0; i < n && d.err == nil; i++ {
		list[i] = d.string(field, MaxName)
	}
	return list
}

// decodeNumber decodes a body of one number.
func decodeNumber(kind Kind, field string, body []byte) (uint64, error) {
	d := decoder{where: kind.String(), b: body}
	v := d.uvarint(field)
	return v, d.finish()
}

// appendNumber appends a frame, or a field of a Rare, that holds one number.
func appendNumber(b []byte, kind byte, v uint64) []byte {
	b = append(b, kind, byte(uvarintLen(v)))
	return binary.AppendUvarint(b, v)
}
