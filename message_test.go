package gravbus_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/gravbus/gravbus"
)

func messageUUID(t *testing.T, msg gravbus.Message) uuid.UUID {
	t.Helper()
	if len(msg.UUID()) != 36 {
		t.Fatalf("UUID %q", msg.UUID())
	}
	id, err := uuid.Parse(msg.UUID())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// UUIDs are of version 7, RFC 9562 section 5.7.
func TestMessageUUIDIsVersion7(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []uuid.UUID
		for range 5000 {
			before := time.Now()
			msg := gravbus.NewMsg("x", nil)
			id := messageUUID(t, msg)
			if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
				t.Fatalf("%v is of version %d, variant %v", id, id.Version(), id.Variant())
			}
			if !msg.Timestamp().Equal(before) || msg.Timestamp().Location() != time.UTC {
				t.Fatalf("timestamp %v at %v", msg.Timestamp(), before)
			}
			if ms := binary.BigEndian.Uint64(id[:]) >> 16; ms != uint64(before.UnixMilli()) {
				t.Fatalf("%v says %d ms, it is %d", id, ms, before.UnixMilli())
			}
			// 12 bits of the millisecond's fraction, section 6.2 method 3
			fraction := float64(binary.BigEndian.Uint16(id[6:])&0xfff) / 4096
			if want := float64(before.Nanosecond()%1e6) / 1e6; fraction > want || fraction < want-1.0/4096 {
				t.Fatalf("%v says %v of a millisecond, it is %v", id, fraction, want)
			}
			ids = append(ids, id)
			<-time.After(250 * time.Nanosecond) // what the fraction tells apart
		}
		if !slices.IsSortedFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }) {
			t.Error("UUIDs are not in the order of time")
		}
	})
}

func TestMessageUUIDsAreUnique(t *testing.T) {
	const makers = 8
	each := fewer(1_000_000, 10) / makers
	made := make([][]uuid.UUID, makers)
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			for range each {
				id, err := uuid.Parse(gravbus.NewMsg("x", nil).UUID())
				if err != nil {
					t.Error(err)
					return
				}
				made[i] = append(made[i], id)
			}
		})
	}
	wg.Wait()
	seen := make(map[uuid.UUID]bool, makers*each)
	for _, ids := range made {
		for _, id := range ids {
			if seen[id] {
				t.Fatalf("%v twice", id)
			}
			seen[id] = true
		}
	}
}

func TestMessageConstructors(t *testing.T) {
	bus := gravbus.New()
	defer bus.Close()
	receipt := bus.Connect().Send(gravbus.NewMsg("x", nil))
	id := receipt.UUID()
	for _, c := range []struct {
		name                 string
		msg                  gravbus.Message
		typ, parent, replyTo string
		data                 string
	}{
		{"NewMsg", gravbus.NewMsg("a.b", []byte("data")), "a.b", "", "", "data"},
		{"NewMsg, no type", gravbus.NewMsg("", nil), gravbus.MsgTypeDefault, "", "", ""},
		{"NewMsgWithParentID", gravbus.NewMsgWithParentID("a", "request 7", []byte("d")), "a", "request 7", "", "d"},
		{"NewMsgWithParentID, none", gravbus.NewMsgWithParentID("a", "", nil), "a", "", "", ""},
		{"NewMsgReplyTo", gravbus.NewMsgReplyTo(receipt, "a", []byte("d")), "a", "", id, "d"},
		{"NewMsgReplyTo, no type", gravbus.NewMsgReplyTo(receipt, "", nil), gravbus.MsgTypeDefault, "", id, ""},
		{"NewTyped", gravbus.NewTyped("a", map[string]int{"n": 1}), "a", "", "", `{"n":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.msg
			if m.Type() != c.typ || m.ParentID() != c.parent || m.ReplyTo() != c.replyTo || string(m.Data()) != c.data {
				t.Errorf("type %q, parent %q, reply to %q, data %q", m.Type(), m.ParentID(), m.ReplyTo(), m.Data())
			}
			for _, to := range []string{"0198f3a2-1b2c-7d3e-8f40-516273849506", "no UUID", "", "00000000-0000-0000-0000-000000000000"} {
				if m.SetReplyTo(to); m.ReplyTo() != to {
					t.Errorf("SetReplyTo(%q) made it %q", to, m.ReplyTo())
				}
			}
			b, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			same, err := gravbus.MsgFromBytes(b)
			if err != nil {
				t.Fatal(err)
			}
			if same.UUID() != m.UUID() || same.ParentID() != c.parent || !same.Timestamp().Equal(m.Timestamp()) || string(same.Data()) != c.data {
				t.Errorf("became %v by way of %s", same, b)
			}
		})
	}
}

// gravFixtures are messages as Grav wrote them, and what is in them.
var gravFixtures = []struct {
	json                             string
	uuid, parent, replyTo, typ, data string
	time                             string
	again                            string // what Marshal makes of it; the same if empty
}{
	{
		json: `{"meta":{"uuid":"9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0","parent_id":"","response_to":"","msg_type":"grav.default","timestamp":"2021-06-01T12:30:45.123456789Z"},"payload":{"data":"aGVsbG8sIHdvcmxk"}}`,
		uuid: "9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0", typ: "grav.default", data: "hello, world", time: "2021-06-01T12:30:45.123456789Z",
	},
	{
		json: `{"meta":{"uuid":"9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0","parent_id":"req-1","response_to":"0d5b1f3e-1f6f-4a0e-9d7a-3f4f0e5b6c7d","msg_type":"a.b","timestamp":"2021-06-01T14:30:45.5+02:00"},"payload":{"data":"eyJuIjoxfQ=="}}`,
		uuid: "9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0", parent: "req-1", replyTo: "0d5b1f3e-1f6f-4a0e-9d7a-3f4f0e5b6c7d", typ: "a.b", data: `{"n":1}`,
		time:  "2021-06-01T12:30:45.5Z",
		again: `{"meta":{"uuid":"9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0","parent_id":"req-1","response_to":"0d5b1f3e-1f6f-4a0e-9d7a-3f4f0e5b6c7d","msg_type":"a.b","timestamp":"2021-06-01T12:30:45.5Z"},"payload":{"data":"eyJuIjoxfQ=="}}`,
	},
	{ // nil and empty data
		json: `{"meta":{"uuid":"9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0","parent_id":"","response_to":"","msg_type":"x","timestamp":"2021-06-01T12:30:45Z"},"payload":{"data":null}}`,
		uuid: "9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0", typ: "x", time: "2021-06-01T12:30:45Z",
	},
	{
		json: `{"meta":{"uuid":"9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0","parent_id":"","response_to":"","msg_type":"x","timestamp":"0001-01-01T00:00:00Z"},"payload":{"data":""}}`,
		uuid: "9bf7a0fc-6d0f-4cf6-8d6d-6b2f6c9d4bd0", typ: "x", time: "0001-01-01T00:00:00Z",
	},
}

func TestMessageJSONIsGravs(t *testing.T) {
	for _, f := range gravFixtures {
		msg, err := gravbus.MsgFromBytes([]byte(f.json))
		if err != nil {
			t.Errorf("%s: %v", f.json, err)
			continue
		}
		want, err := time.Parse(time.RFC3339Nano, f.time)
		if err != nil {
			t.Fatal(err)
		}
		if msg.UUID() != f.uuid || msg.ParentID() != f.parent || msg.ReplyTo() != f.replyTo || msg.Type() != f.typ ||
			string(msg.Data()) != f.data || !msg.Timestamp().Equal(want) {
			t.Errorf("%s became %q %q %q %q %q %v", f.json, msg.UUID(), msg.ParentID(), msg.ReplyTo(), msg.Type(), msg.Data(), msg.Timestamp())
		}
		if f.again == "" {
			f.again = f.json
		}
		if b, err := msg.Marshal(); err != nil || string(b) != f.again {
			t.Errorf("Marshal: %v\n%s, want\n%s", err, b, f.again)
		}
		posted, err := gravbus.MsgFromRequest(httptest.NewRequest("POST", "/meta/message", strings.NewReader(f.json)))
		if err != nil || posted.UUID() != f.uuid {
			t.Errorf("MsgFromRequest: %v, %v", posted, err)
		}
	}
	// Grav's own structs read what Marshal writes.
	type gravMessage struct {
		Meta struct {
			UUID      string    `json:"uuid"`
			ParentID  string    `json:"parent_id"`
			ReplyTo   string    `json:"response_to"`
			MsgType   string    `json:"msg_type"`
			Timestamp time.Time `json:"timestamp"`
		} `json:"meta"`
		Payload struct {
			Data []byte `json:"data"`
		} `json:"payload"`
	}
	msg := gravbus.NewMsgWithParentID("a.b", "parent", []byte{0, 255, '"'})
	msg.SetReplyTo("0d5b1f3e-1f6f-4a0e-9d7a-3f4f0e5b6c7d")
	b, err := msg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var g gravMessage
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&g); err != nil {
		t.Fatal(err)
	}
	if g.Meta.UUID != msg.UUID() || g.Meta.ParentID != "parent" || g.Meta.ReplyTo != msg.ReplyTo() || g.Meta.MsgType != "a.b" ||
		!g.Meta.Timestamp.Equal(msg.Timestamp()) || !bytes.Equal(g.Payload.Data, msg.Data()) {
		t.Errorf("%s is read as %+v", b, g)
	}
}

func TestMessageCannotBeChangedOnceSent(t *testing.T) {
	bus := gravbus.New()
	defer bus.Close()
	msg := gravbus.NewMsg("x", []byte("data"))
	if err := msg.Unmarshal([]byte(gravFixtures[0].json)); err != nil || msg.UUID() != gravFixtures[0].uuid {
		t.Fatalf("before: %v", err)
	}
	bus.Connect().Send(msg)
	before, err := msg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	msg.SetReplyTo("0d5b1f3e-1f6f-4a0e-9d7a-3f4f0e5b6c7d")
	if err := msg.Unmarshal([]byte(gravFixtures[1].json)); !errors.Is(err, gravbus.ErrImmutable) {
		t.Errorf("Unmarshal: %v", err)
	}
	if after, _ := msg.Marshal(); !bytes.Equal(before, after) {
		t.Errorf("%s became %s", before, after)
	}
	// ReplyTo makes a copy of a message that was sent.
	other := bus.Connect()
	question := gravbus.NewMsg("question", nil)
	asked := bus.Connect().Send(question)
	if r := other.ReplyTo(question, msg); r == nil || r.UUID() == msg.UUID() {
		t.Errorf("the copy's UUID is %q", r.UUID())
	}
	reply, err := asked.Wait(context.Background())
	if err != nil || reply.Type() != msg.Type() || !bytes.Equal(reply.Data(), msg.Data()) || reply.ReplyTo() != question.UUID() {
		t.Errorf("%v, %v", reply, err)
	}
	if msg.ReplyTo() != "" {
		t.Error("ReplyTo changed a message that was sent")
	}
}

func TestMessageUnmarshalData(t *testing.T) {
	type order struct{ N int }
	var o order
	if err := gravbus.NewMsg("x", []byte(`{"N":7}`)).UnmarshalData(&o); err != nil || o.N != 7 {
		t.Errorf("%v, %+v", err, o)
	}
	for _, data := range []string{"", "{", `"x"`, `{"N":"x"}`} {
		err := gravbus.NewMsg("some.type", []byte(data)).UnmarshalData(&o)
		if err == nil || !strings.Contains(err.Error(), "some.type") {
			t.Errorf("%q: %v", data, err)
		}
	}
	if err := gravbus.NewMsg("x", []byte("1")).UnmarshalData(nil); err == nil {
		t.Error("into nil")
	}
	if err := gravbus.NewTyped("x", order{3}).UnmarshalData(&o); err != nil || o.N != 3 {
		t.Errorf("typed: %v, %+v", err, o)
	}
}

func TestMessageAllocations(t *testing.T) {
	if raceOn {
		t.Skip("the race detector allocates")
	}
	data := []byte("data")
	var kept gravbus.Message
	if n := testing.AllocsPerRun(1000, func() { kept = gravbus.NewMsg("x", data) }); n != 1 {
		t.Errorf("NewMsg makes %v allocations, want 1", n)
	}
	_ = kept
	for _, receivers := range []int{0, 1, 10} {
		for _, replay := range []int{0, 64} {
			t.Run(fmt.Sprintf("Send/pods=%d/replay=%d", receivers, replay), func(t *testing.T) {
				bus := gravbus.New(gravbus.UseReplay(replay))
				defer bus.Close()
				var got atomic.Int64
				for range receivers {
					if err := bus.Connect().OnType("x", func(gravbus.Message) error { got.Add(1); return nil }); err != nil {
						t.Fatal(err)
					}
				}
				sender := bus.Connect()
				const rounds = 20_000
				made := make([]gravbus.Message, 2*rounds+1)
				for i := range made {
					made[i] = gravbus.NewMsg("x", data)
				}
				i := 0
				for range rounds { // rings, pools and goroutines are there now
					sender.Send(made[i])
					i++
				}
				n := testing.AllocsPerRun(rounds, func() { sender.Send(made[i]); i++ })
				if n != 0 {
					t.Errorf("Send makes %v allocations, want 0", n)
				}
				if err := bus.Shutdown(context.Background()); err != nil {
					t.Fatal(err)
				}
				if want := int64(receivers * len(made)); got.Load() != want {
					t.Errorf("%d received, want %d", got.Load(), want)
				}
			})
		}
	}
}

// encodedOnce is a payload that counts how often it is encoded.
type encodedOnce struct {
	N     int
	times *atomic.Int64
}

func (c *encodedOnce) MarshalJSON() ([]byte, error) {
	c.times.Add(1)
	return fmt.Appendf(nil, `{"N":%d}`, c.N), nil
}

func TestMessageTypedPayloadIsEncodedOnce(t *testing.T) {
	for range 50 {
		c := &encodedOnce{N: 7, times: new(atomic.Int64)}
		msg := gravbus.NewTyped("x", c)
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				var err error
				var got struct{ N int }
				switch i % 4 {
				case 0:
					if string(msg.Data()) != `{"N":7}` {
						t.Errorf("Data is %s", msg.Data())
					}
				case 1:
					var b []byte
					if b, err = msg.Marshal(); err == nil && !bytes.Contains(b, []byte(`"payload":{"data":"eyJOIjo3fQ=="}`)) {
						t.Errorf("Marshal made %s", b)
					}
				case 2:
					if err = msg.UnmarshalData(&got); got.N != 7 {
						t.Errorf("UnmarshalData made %+v", got)
					}
				default:
					if got, err = gravbus.Decode[struct{ N int }](msg); got.N != 7 {
						t.Errorf("Decode made %+v", got)
					}
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := c.times.Load(); n != 1 {
			t.Fatalf("encoded %d times", n)
		}
	}
}

// In the process a typed payload is handed over as it is: nothing is encoded, neither for many pods nor for replay.
func TestMessageTypedPayloadIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New()
		defer bus.Close()
		sent := &encodedOnce{N: 7, times: new(atomic.Int64)}
		var got atomic.Int64
		handler := func(_ context.Context, c *encodedOnce) error {
			if c != sent {
				t.Errorf("another value: %p, want %p", c, sent)
			}
			got.Add(1)
			return nil
		}
		for _, pod := range []*gravbus.Pod{bus.Connect(), bus.Connect(gravbus.InGroup("g"))} {
			if err := gravbus.On(pod, "x", handler); err != nil {
				t.Fatal(err)
			}
		}
		sender := bus.Connect()
		sender.Send(gravbus.NewTyped("x", sent))
		if err := gravbus.On(bus.ConnectWithReplay(), "x", handler); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got.Load() != 3 || sent.times.Load() != 0 {
			t.Errorf("received %d times, want 3; encoded %d times, want 0", got.Load(), sent.times.Load())
		}
		// A reply made of a message that was sent keeps the value.
		msg, question := gravbus.NewTyped("y", sent), gravbus.NewMsg("question", nil)
		receipt := bus.Connect().Send(question)
		sender.Send(msg)
		sender.ReplyTo(question, msg)
		reply, err := receipt.Wait(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if c, err := gravbus.Decode[*encodedOnce](reply); c != sent || err != nil {
			t.Errorf("%v, %v", c, err)
		}
	})
}

func TestMessageDecode(t *testing.T) {
	type point struct{ X, Y int }
	check := func(name string, got, want any, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	p := &point{1, 2}
	v, err := gravbus.Decode[point](gravbus.NewTyped("x", *p))
	check("the same type", v, *p, err)
	pp, err := gravbus.Decode[*point](gravbus.NewTyped("x", p))
	check("a pointer", pp, p, err)
	a, err := gravbus.Decode[any](gravbus.NewTyped("x", p))
	check("as any", a, p, err)
	a, err = gravbus.Decode[any](gravbus.NewTyped[any]("x", nil))
	check("nil as any", a, nil, err)
	v, err = gravbus.Decode[point](gravbus.NewTyped("x", p))
	check("what a pointer points to", v, *p, err)
	s, err := gravbus.Decode[fmt.Stringer](gravbus.NewTyped("x", time.Second))
	check("as an interface", s, time.Second, err)
	e, err := gravbus.Decode[error](gravbus.NewTyped[error]("x", context.Canceled))
	check("an interface", e, context.Canceled, err)
	np, err := gravbus.Decode[*point](gravbus.NewTyped[*point]("x", nil))
	check("a nil pointer", np, (*point)(nil), err)
	v, err = gravbus.Decode[point](gravbus.NewMsg("x", []byte(`{"X":1,"Y":2}`)))
	check("JSON", v, *p, err)
	b, err := gravbus.NewTyped("x", p).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	wired, err := gravbus.MsgFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	v, err = gravbus.Decode[point](wired)
	check("from a wire", v, *p, err)
	for name, msg := range map[string]gravbus.Message{
		"a string": gravbus.NewTyped("x", "text"),
		"nothing":  gravbus.NewMsg("x", nil),
	} {
		v, err := gravbus.Decode[point](msg)
		var wrong *gravbus.PayloadError
		if !errors.As(err, &wrong) || wrong.Type != "x" || wrong.Want != "gravbus_test.point" || wrong.Err == nil {
			t.Errorf("%s became %v, %v", name, v, err)
		}
	}
	if b := gravbus.NewTyped[*point]("x", nil).Data(); string(b) != "null" {
		t.Errorf("a nil pointer is encoded as %q", b)
	}
}

// A dead letter survives its JSON form.
func TestMessageDeadLetterJSON(t *testing.T) {
	letter := gravbus.DeadLetter{
		Pod: "p", Message: gravbus.NewMsg("x", []byte("data")), Attempts: 3, Error: "no", Time: time.Unix(1, 2).UTC(),
	}
	b, err := json.Marshal(letter)
	if err != nil {
		t.Fatal(err)
	}
	var got gravbus.DeadLetter
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Message.UUID() != letter.Message.UUID() || string(got.Message.Data()) != "data" {
		t.Errorf("%s became %+v", b, got)
	}
	if got.Message = letter.Message; got != letter {
		t.Errorf("%s became %+v", b, got)
	}
	for _, bad := range []string{`{}`, `{"message":{}}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is a dead letter", bad)
		}
	}
}
