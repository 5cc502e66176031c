package gravbus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus/internal/route"
)

// MsgTypeDefault is the type of a message made with an empty type.
const MsgTypeDefault = "grav.default"

// DefaultMaxMessageSize is how many bytes of data a message from an HTTP request may have
// (MsgFromRequest), and one from a peer unless UseMaxMessageSize says otherwise: 1 MiB.
const DefaultMaxMessageSize = 1 << 20

// A Message is what travels on a bus. Once sent it does not change: any number of pods may read it
// at the same time, and none may modify what Data returns.
//
// NewMsg and its sisters make messages; an implementation of the interface by others is carried as
// well. Its methods must be safe for concurrent use. What goes to peers of it is read by the
// goroutine that sends it, so a method that panics does so there.
type Message interface {
	// UUID identifies the message: a UUID in the usual form of 36 characters.
	UUID() string
	// ParentID is what the message came from, such as the ID of an HTTP request; it may be empty.
	ParentID() string
	// ReplyTo is the UUID of the message that this one answers, or empty.
	ReplyTo() string
	// SetReplyTo makes the message an answer to the one with the given UUID. On a message that was
	// sent it has no effect.
	SetReplyTo(uuid string)
	// Type is what routing looks at: dot-separated tokens, such as "orders.created".
	Type() string
	// Timestamp is when the message was made.
	Timestamp() time.Time
	// Data is the payload. It must not be modified.
	Data() []byte
	// UnmarshalData decodes the payload, which must be JSON, into v.
	UnmarshalData(v any) error
	// Marshal returns the message's JSON form, which MsgFromBytes reads.
	Marshal() ([]byte, error)
	// Unmarshal replaces the message by the one that the JSON describes. It returns ErrImmutable on
	// a message that was sent.
	Unmarshal(b []byte) error
}

// message is the Message that this package makes. With its receipt it is one allocation of 112
// bytes.
type message struct {
	typ     string // what every message needs comes first, on as few cache lines as may be
	data    []byte
	more    *more    // nil if there is nothing in it
	origin  *Receipt // where replies to what this answers are waited for, if known
	receipt Receipt  // of the first pod to send it; holds the UUID. Its pod is set when the message is sent, and from then on nothing else changes
	replyTo uuid.UUID
	nanos   int64 // Unix time; noTime for none
}

// more is what few messages have.
type more struct {
	parent  string
	name    string // a UUID that is no UUID, of a message of others' making that came from a peer
	replyTo string // a ReplyTo that is no UUID
	value   any    // a typed payload
	encode  sync.Once
	encoded []byte
	err     error
}

const noTime = math.MinInt64

// special reports whether a message has more to it than a type, data and a time.
func (m *message) special() bool { return m.origin != nil || m.replyTo != uuid.Nil || m.more != nil }

// NewMsg returns a message of the given type with data, which must not be modified from now on. An
// empty type means MsgTypeDefault. Whether the type is valid is found out when the message is sent.
func NewMsg(typ string, data []byte) Message { return newMessage(typ, data) }

// NewMsgWithParentID is NewMsg for a message that came from something else, such as an HTTP
// request.
func NewMsgWithParentID(typ, parent string, data []byte) Message {
	m := newMessage(typ, data)
	m.setParent(parent)
	return m
}

// NewMsgReplyTo is NewMsg for an answer to the message that r is the receipt of. With a nil receipt
// it is no answer.
func NewMsgReplyTo(r *Receipt, typ string, data []byte) Message {
	m := newMessage(typ, data)
	if r != nil {
		m.origin = r
		m.setReplyTo(r.UUID())
	}
	return m
}

func newMessage(typ string, data []byte) *message {
	if typ == "" {
		typ = MsgTypeDefault
	}
	m := &message{typ: typ, data: data, nanos: now()}
	m.receipt.id = newUUID(m.nanos)
	return m
}

// receiptOf returns the receipt for p, and marks the message as sent.
func (m *message) receiptOf(p *Pod) *Receipt {
	if m.receipt.pod.Load() == p {
		return &m.receipt
	}
	return m.newReceipt(p)
}

// newReceipt is receiptOf for the first time, and apart so that receiptOf is inlined.
func (m *message) newReceipt(p *Pod) *Receipt {
	if m.receipt.pod.Load() == nil && m.receipt.pod.CompareAndSwap(nil, p) {
		return &m.receipt
	}
	// Another pod has sent it before: replies to one are replies to both.
	r := &Receipt{id: m.receipt.id}
	r.pod.Store(p)
	r.box.Store(m.receipt.replies())
	return r
}

// foreignReceipt returns the receipt for p of a message of others' making.
func foreignReceipt(p *Pod, msg Message) *Receipt {
	name := msg.UUID()
	r := &Receipt{id: idOf(name)}
	r.pod.Store(p)
	r.box.Store(&replies{name: name})
	return r
}

// checkType returns a *TypeError for an invalid type.
func checkType(typ string) error { return typeError(route.CheckType(typ)) }

// newUUID makes a version 7 UUID (RFC 9562, section 5.7) in about 5 ns: 48 bits of milliseconds, 12
// bits of the millisecond's fraction (section 6.2, method 3) and 62 random bits from the runtime's
// ChaCha8, which is seeded by the system. They sort by time, and are unique but no secrets.
func newUUID(nanos int64) (id uuid.UUID) {
	ms := uint64(nanos) / 1e6
	fraction := uint64(nanos) % 1e6 << 12 / 1e6
	hi := ms<<16 | 7<<12 | fraction
	lo := 2<<62 | rand.Uint64()>>2
	for i := range 8 {
		id[i] = byte(hi >> (56 - 8*i))
		id[8+i] = byte(lo >> (56 - 8*i))
	}
	return id
}

// clock is a reading of the wall clock to count on from.
type clock struct {
	at    time.Time
	nanos int64
}

var lastClock atomic.Pointer[clock]

// now returns the Unix time in nanoseconds. It reads the monotonic clock only (23 ns instead of 42)
// and the wall clock once a second, so a step of the wall clock shows within a second.
func now() int64 {
	if c := lastClock.Load(); c != nil {
		if d := time.Since(c.at); d >= 0 && d < time.Second {
			return c.nanos + int64(d)
		}
	}
	t := time.Now()
	lastClock.Store(&clock{t, t.UnixNano()})
	return t.UnixNano()
}

// sent reports whether the message is past changing.
func (m *message) sent() bool { return m.receipt.pod.Load() != nil }

func (m *message) UUID() string {
	if m.more != nil && m.more.name != "" {
		return m.more.name
	}
	return m.receipt.id.String()
}

func (m *message) ParentID() string {
	if m.more == nil {
		return ""
	}
	return m.more.parent
}

func (m *message) ReplyTo() string {
	if m.more != nil && m.more.replyTo != "" {
		return m.more.replyTo
	}
	if m.replyTo == uuid.Nil {
		return ""
	}
	return m.replyTo.String()
}

func (m *message) SetReplyTo(id string) {
	if !m.sent() {
		m.origin = nil
		m.setReplyTo(id)
	}
}

func (m *message) setReplyTo(id string) {
	if m.more != nil {
		m.more.replyTo = ""
	}
	if m.replyTo = parseUUID(id); m.replyTo == uuid.Nil && id != "" {
		m.extra().replyTo = id
	}
}

func (m *message) setParent(parent string) {
	if parent != "" {
		m.extra().parent = parent
	}
}

func (m *message) extra() *more {
	if m.more == nil {
		m.more = new(more)
	}
	return m.more
}

func (m *message) Type() string { return m.typ }

func (m *message) Timestamp() time.Time {
	if m.nanos == noTime {
		return time.Time{}
	}
	return time.Unix(0, m.nanos).UTC()
}

func (m *message) Data() []byte {
	if m.more == nil { // the ordinary case
		return m.data
	}
	data, _ := m.encoded()
	return data
}

// encoded returns the payload, encoding a typed one the first time.
func (m *message) encoded() ([]byte, error) {
	x := m.more
	if x == nil || x.value == nil {
		return m.data, nil
	}
	x.encode.Do(func() {
		defer func() {
			if v := recover(); v != nil { // in the value's own MarshalJSON
				x.encoded, x.err = nil, &PanicError{Value: v, Stack: debug.Stack()}
			}
			if x.err != nil {
				x.err = fmt.Errorf("gravbus: encode %s: %w", m.typ, x.err)
			}
		}()
		x.encoded, x.err = json.Marshal(x.value)
	})
	return x.encoded, x.err
}

func (m *message) UnmarshalData(v any) error {
	data, err := m.encoded()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("gravbus: data of %s: %w", m.typ, err)
	}
	return nil
}

// envelope is the JSON form, which is Grav's.
type envelope struct {
	Meta    meta    `json:"meta"`
	Payload payload `json:"payload"`
}

type meta struct {
	UUID      string    `json:"uuid"`
	ParentID  string    `json:"parent_id"`
	ReplyTo   string    `json:"response_to"`
	Type      string    `json:"msg_type"`
	Timestamp time.Time `json:"timestamp"`
}

type payload struct {
	Data []byte `json:"data"`
}

func (m *message) Marshal() ([]byte, error) {
	data, err := m.encoded()
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{
		Meta:    meta{m.UUID(), m.ParentID(), m.ReplyTo(), m.typ, m.Timestamp()},
		Payload: payload{data},
	})
}

func (m *message) Unmarshal(b []byte) error {
	if m.sent() {
		return ErrImmutable
	}
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return &MalformedError{"not the JSON of a message", err}
	}
	id := parseUUID(e.Meta.UUID)
	if id == uuid.Nil {
		return &MalformedError{fmt.Sprintf("meta.uuid %.50q is not a UUID of 36 characters", e.Meta.UUID), nil}
	}
	if err := checkType(e.Meta.Type); err != nil {
		return &MalformedError{"meta.msg_type", err}
	}
	nanos := e.Meta.Timestamp.UnixNano()
	if e.Meta.Timestamp.IsZero() {
		nanos = noTime
	} else if y := e.Meta.Timestamp.UTC().Year(); y < 1678 || y > 2261 { // what 64 bits of nanoseconds hold
		return &MalformedError{fmt.Sprintf("meta.timestamp is in the year %d", y), nil}
	}
	m.receipt.id, m.typ, m.nanos, m.data = id, e.Meta.Type, nanos, e.Payload.Data
	m.more, m.origin = nil, nil
	m.setParent(e.Meta.ParentID)
	m.setReplyTo(e.Meta.ReplyTo)
	return nil
}

// parseUUID reads a UUID of 36 characters; anything else is uuid.Nil.
func parseUUID(s string) uuid.UUID {
	if len(s) != 36 {
		return uuid.Nil
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return uuid.Nil
	}
	return id
}

// clone returns a copy that has not been sent, with a UUID of its own.
func (m *message) clone() *message {
	c := newMessage(m.typ, m.data)
	c.replyTo, c.origin = m.replyTo, m.origin
	if m.more != nil {
		c.more = &more{parent: m.more.parent, replyTo: m.more.replyTo, value: m.more.value}
	}
	return c
}

// MsgFromBytes reads a message in the JSON form that Marshal (and Grav) writes. The error is a
// *MalformedError.
func MsgFromBytes(b []byte) (Message, error) {
	m := new(message)
	if err := m.Unmarshal(b); err != nil {
		return nil, err
	}
	return m, nil
}

// MsgFromRequest reads a message in JSON form from the body of an HTTP request, which may hold
// DefaultMaxMessageSize bytes of data; more is ErrMessageTooLarge. Anything else wrong with the
// body is a *MalformedError.
func MsgFromRequest(r *http.Request) (Message, error) {
	if r == nil || r.Body == nil {
		return nil, &MalformedError{"no body", nil}
	}
	const limit = DefaultMaxMessageSize*4/3 + 4096 // base64, and what is around it
	b, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, ErrMessageTooLarge
		}
		return nil, &MalformedError{"body", err}
	}
	if len(b) > limit {
		return nil, ErrMessageTooLarge
	}
	m, err := MsgFromBytes(b)
	if err == nil && len(m.Data()) > DefaultMaxMessageSize {
		return nil, ErrMessageTooLarge
	}
	return m, err
}

// messageOverhead is what a message counts in the Buffer beside its data: its own size and that of
// its slot.
const messageOverhead = 144

// sizeOf is what msg counts in the Buffer. A typed payload does not count.
func sizeOf(msg Message) int {
	if m, ok := msg.(*message); ok {
		return m.size()
	}
	return messageOverhead + len(msg.Data())
}

// size is what the message counts while it waits. It does not change once it is sent.
func (m *message) size() int {
	n := messageOverhead + len(m.data)
	if m.more != nil {
		n += m.more.texts()
	}
	return n
}

// texts is how many bytes of text a message carries beside its data and its type.
func (x *more) texts() int { return len(x.parent) + len(x.name) + len(x.replyTo) }

// isNil reports whether msg is nil or a nil pointer.
func isNil(msg Message) bool {
	switch m := msg.(type) {
	case nil:
		return true
	case *message:
		return m == nil
	}
	v := reflect.ValueOf(msg)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// idOf returns the ID that a UUID in text stands for: text that is no proper UUID, as others'
// messages may have, gets an ID made from it (version 5).
func idOf(text string) uuid.UUID {
	if id := parseUUID(text); id != uuid.Nil || text == "" {
		return id
	}
	return uuid.NewSHA1(uuid.Nil, []byte(text))
}

// replyID returns the ID of what msg answers, uuid.Nil if nothing.
func replyID(msg Message) uuid.UUID {
	if m, ok := msg.(*message); ok && (m.more == nil || m.more.replyTo == "") {
		return m.replyTo
	}
	return idOf(msg.ReplyTo())
}
