package wire

import "math"

// Numbers of a Rare's fields.
const (
	rareEnd = iota
	rareParent
	rareName
	rareReplyTo
	rareFrom
	rareGroup
	rareReplay
	rareCovered
)

// size returns how many bytes append appends.
func (r *Rare) size() int {
	n := 1 + textSize(r.Parent) + textSize(r.Name) + textSize(r.ReplyTo) + numberSize(r.From) + numberSize(r.Replay)
	for _, g := range r.Groups {
		n += 1 + uvarintLen(uint64(len(g))) + len(g)
	}
	for _, c := range r.Covered {
		n += 2 + uvarintLen(c)
	}
	return n
}

func textSize(s string) int {
	if s == "" {
		return 0
	}
	return 1 + uvarintLen(uint64(len(s))) + len(s)
}

func numberSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return 2 + uvarintLen(v)
}

func (r *Rare) append(b []byte) []byte {
	text := func(field byte, s string) {
		if s != "" {
			b = appendString(append(b, field), s)
		}
	}
	text(rareParent, r.Parent)
	text(rareName, r.Name)
	text(rareReplyTo, r.ReplyTo)
	if r.From != 0 {
		b = appendNumber(b, rareFrom, r.From)
	}
	for _, g := range r.Groups {
		b = appendString(append(b, rareGroup), g)
	}
	if r.Replay != 0 {
		b = appendNumber(b, rareReplay, r.Replay)
	}
	for _, c := range r.Covered {
		b = appendNumber(b, rareCovered, c)
	}
	return append(b, rareEnd)
}

// rare decodes into r, up to the end of the fields.
func (d *decoder) rare(r *Rare) {
	*r = Rare{}
	var seen uint
	for {
		field := d.uvarint("field")
		if field == rareEnd { // or an error
			return
		}
		value := d.bytes("field", math.MaxInt)
		switch field {
		case rareParent, rareName, rareReplyTo, rareFrom, rareReplay:
			if seen&(1<<field) != 0 {
				d.fail("field", "%d is there twice", field)
			}
			seen |= 1 << field
		}
		switch field {
		case rareParent:
			r.Parent = d.text("parent", value, MaxText)
		case rareName:
			r.Name = d.text("name", value, MaxText)
		case rareReplyTo:
			r.ReplyTo = d.text("reply to", value, MaxText)
		case rareFrom:
			r.From = d.number("from", value)
		case rareGroup:
			if len(value) == 0 {
				d.fail("group", "it has no name")
			}
			r.Groups = append(r.Groups, d.text("group", value, MaxName))
		case rareReplay:
			r.Replay = d.number("replay", value)
		case rareCovered:
			r.Covered = append(r.Covered, d.number("covered", value))
		}
	}
}

// text returns the value of a field of a Rare.
func (d *decoder) text(field string, value []byte, limit int) string {
	if len(value) > limit {
		d.fail(field, "%d bytes, at most %d are allowed", len(value), limit)
		return ""
	}
	return string(value)
}

// number is text for a number.
func (d *decoder) number(field string, value []byte) uint64 {
	v, n := uvarint(value)
	if n <= 0 {
		d.fail(field, "%s", badUvarint(n))
		return 0
	}
	return v
}
