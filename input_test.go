package gravbus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// Whatever is passed to the package, it answers with an error that can be told from others or does what is documented: it neither panics
// nor hangs. Bubbles see to the latter: one in which everybody waits for ever panics.

var inputBadTypes = map[string]string{
	"leading dot":  ".a",
	"trailing dot": "a.",
	"empty token":  "a..b",
	"dot":          ".",
	"blank":        "a b",
	"tab":          "a\tb",
	"new line":     "a\n",
	"no-break":     "a\u00a0b",
	"NUL":          "a\x00b",
	"DEL":          "a\x7fb",
	"not UTF-8":    "a\xffb",
	"cut UTF-8":    "\xe2\x82",
	"too long":     strings.Repeat("a", 256),
	"far too long": strings.Repeat("a.", 1<<20) + "a",
	"> in between": "a.>.b",
	"> first":      ">.a",
	"only a blank": " ",
}

var inputWildcards = []string{"*", ">", "a.*", "*.a", "a.*.b", "a.>"}

func inputWantTypeError(t *testing.T, err error, sentinel error, input string) {
	t.Helper()
	var typeErr *gravbus.TypeError
	if !errors.Is(err, sentinel) || !errors.As(err, &typeErr) {
		t.Errorf("%.40q: %v, want %v", input, err, sentinel)
		return
	}
	if typeErr.Input != input || typeErr.Reason == "" || len(err.Error()) > 1000 {
		t.Errorf("%.40q: %.200v", input, err)
	}
}

// inputForeign is a Message of somebody else's making.
type inputForeign struct {
	gravbus.Message // nil: what is not overridden panics
	uuid, typ       string
}

func (m *inputForeign) UUID() string         { return m.uuid }
func (m *inputForeign) Type() string         { return m.typ }
func (m *inputForeign) ReplyTo() string      { return "" }
func (m *inputForeign) SetReplyTo(string)    {}
func (m *inputForeign) Timestamp() time.Time { return time.Unix(0, 0) }
func (m *inputForeign) Data() []byte         { return nil }

// inputNilMessages are a nil Message, and nil pointers in one.
func inputNilMessages() map[string]gravbus.Message {
	ours := reflect.TypeOf(gravbus.NewMsg("x", nil))
	return map[string]gravbus.Message{
		"nil":           nil,
		"typed nil":     reflect.Zero(ours).Interface().(gravbus.Message),
		"another's nil": (*inputForeign)(nil),
	}
}

func TestInputNilMessage(t *testing.T) {
	for name, msg := range inputNilMessages() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := gravbus.New(gravbus.UseMaxMessageSize(10))
				defer bus.Close()
				pod, good := bus.Connect(), gravbus.NewMsg("x", nil)
				if err := bus.Connect().On(nop); err != nil {
					t.Fatal(err)
				}
				// Each in a function of its own: one that panics is not to hide the others.
				for what, call := range map[string]func() error{
					"Send": func() error {
						if pod.Send(msg) != nil {
							return errors.New("a receipt")
						}
						return gravbus.ErrNilMessage
					},
					"SendContext": func() error { _, err := pod.SendContext(context.Background(), msg); return err },
					"Request":     func() error { _, err := pod.Request(context.Background(), msg); return err },
					"RequestAll": func() (err error) {
						for _, err = range pod.RequestAll(context.Background(), msg) {
							if !errors.Is(err, gravbus.ErrNilMessage) {
								return err
							}
						}
						return err
					},
					"ReplyTo with nil": func() error {
						if pod.ReplyTo(good, msg) != nil {
							return errors.New("a receipt")
						}
						return gravbus.ErrNilMessage
					},
					"ReplyTo to nil": func() error {
						if pod.ReplyTo(msg, good) != nil {
							return errors.New("a receipt")
						}
						return gravbus.ErrNilMessage
					},
					"Push":   func() error { return gravbus.NewBuffer(1).Push(msg) },
					"Decode": func() error { _, err := gravbus.Decode[int](msg); return err },
				} {
					func() {
						defer func() {
							if v := recover(); v != nil {
								t.Errorf("%s panics: %v", what, v)
							}
						}()
						if err := call(); !errors.Is(err, gravbus.ErrNilMessage) {
							t.Errorf("%s: %v, want %v", what, err, gravbus.ErrNilMessage)
						}
					}()
				}
				if s := bus.Stats(); s.Sent != 0 {
					t.Errorf("%d sent", s.Sent)
				}
			})
		})
	}
}

func TestInputNilFunctions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New()
		defer bus.Close()
		pod := bus.Connect()
		receipt := pod.Send(gravbus.NewMsg("x", nil))
		for what, err := range map[string]error{
			"Pod.WaitOn":        pod.WaitOn(nil),
			"Pod.WaitUntil":     pod.WaitUntil(nil, nil),
			"Receipt.WaitOn":    receipt.WaitOn(nil),
			"Receipt.WaitUntil": receipt.WaitUntil(gravbus.Timeout(1), nil),
			"Receipt.OnReply":   receipt.OnReply(nil),
			"Buffer.Iter":       bus.Buffer().Iter(nil),
		} {
			if !errors.Is(err, gravbus.ErrNilHandler) {
				t.Errorf("%s: %v, want %v", what, err, gravbus.ErrNilHandler)
			}
		}
		// A nil handler ignores all messages.
		sender := bus.Connect()
		for what, set := range map[string]func() error{
			"On":     func() error { return pod.On(nil) },
			"OnType": func() error { return pod.OnType("x", nil) },
			"typed":  func() error { return gravbus.On[int](pod, "x", nil) },
			"Handle": func() error { return gravbus.Handle[int, int](pod, "x", nil) },
		} {
			if err := pod.On(func(gravbus.Message) error { t.Error("a message for a handler that was taken away"); return nil }); err != nil {
				t.Error(err)
			}
			if err := set(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			sender.Send(gravbus.NewMsg("x", nil))
			synctest.Wait()
		}
		// A timeout whose channel is nil never fires.
		ended := false
		go func() {
			err := pod.WaitUntil(func() <-chan time.Time { return nil }, nop)
			if !errors.Is(err, gravbus.ErrDisconnected) {
				t.Errorf("WaitUntil: %v", err)
			}
			ended = true
		}()
		<-time.After(1000 * time.Hour)
		if ended {
			t.Error("a nil channel fired")
		}
		pod.Disconnect()
		synctest.Wait()
	})
}

func TestInputNilReceipt(t *testing.T) {
	var r *gravbus.Receipt
	_, err := r.Wait(context.Background())
	for what, err := range map[string]error{
		"Wait": err, "WaitOn": r.WaitOn(nop), "WaitOn(nil)": r.WaitOn(nil), "OnReply": r.OnReply(nop),
		"WaitUntil": r.WaitUntil(gravbus.Timeout(1), nop),
	} {
		if !errors.Is(err, gravbus.ErrNoReceipt) {
			t.Errorf("%s: %v, want %v", what, err, gravbus.ErrNoReceipt)
		}
	}
	if r.UUID() != "" {
		t.Errorf("UUID is %q", r.UUID())
	}
	if m := gravbus.NewMsgReplyTo(r, "x", nil); m.ReplyTo() != "" {
		t.Errorf("ReplyTo is %q", m.ReplyTo())
	}
}

func TestInputTypes(t *testing.T) {
	bus := gravbus.New()
	defer bus.Close()
	pod := bus.Connect()
	send := func(typ string) error {
		r, err := pod.SendContext(context.Background(), gravbus.NewMsg(typ, nil))
		if (r == nil) != (err != nil) {
			t.Errorf("%.40q: receipt %v with error %v", typ, r, err)
		}
		return err
	}
	for name, typ := range inputBadTypes {
		t.Run(name, func(t *testing.T) {
			inputWantTypeError(t, send(typ), gravbus.ErrInvalidType, typ)
			if _, err := pod.Request(context.Background(), gravbus.NewTyped(typ, 1)); !errors.Is(err, gravbus.ErrInvalidType) {
				t.Errorf("Request: %v", err)
			}
			if errors.Is(send(typ), gravbus.ErrInvalidPattern) {
				t.Error("a type is no pattern")
			}
			_, err := pod.SendContext(context.Background(), &inputForeign{uuid: "u", typ: typ})
			inputWantTypeError(t, err, gravbus.ErrInvalidType, typ)
		})
	}
	for _, typ := range inputWildcards {
		inputWantTypeError(t, send(typ), gravbus.ErrInvalidType, typ)
	}
	_, err := pod.SendContext(context.Background(), &inputForeign{uuid: "u"})
	inputWantTypeError(t, err, gravbus.ErrInvalidType, "")
	for _, typ := range []string{"gravbus", "gravbus.x", gravbus.MsgTypeLagged, gravbus.EventDeadLetter} {
		if err := send(typ); !errors.Is(err, gravbus.ErrReservedType) {
			t.Errorf("%s: %v, want %v", typ, err, gravbus.ErrReservedType)
		}
	}
	for _, typ := range []string{"", "a", "a*", "a.b>", "gravbusses", "x.gravbus", "Ä.ö", strings.Repeat("a", 255), "a.*b.c"} {
		if err := send(typ); err != nil {
			t.Errorf("%.40q: %v", typ, err)
		}
	}
	if typ := gravbus.NewMsg("", nil).Type(); typ != gravbus.MsgTypeDefault {
		t.Errorf("an empty type became %q", typ)
	}
	if s := bus.Stats(); s.Sent != 9 {
		t.Errorf("%d sent, want 9", s.Sent)
	}
}

func TestInputPatterns(t *testing.T) {
	bad := map[string]string{"empty": ""}
	for name, p := range inputBadTypes {
		bad[name] = p
	}
	for name, pattern := range bad {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := gravbus.New()
				defer bus.Close()
				pod, got := bus.Connect(), 0
				if err := pod.OnType("x", func(gravbus.Message) error { got++; return nil }); err != nil {
					t.Fatal(err)
				}
				_, waitErr := pod.Wait(context.Background(), pattern)
				replaying := bus.Connect(gravbus.ReplayTypes("a", pattern))
				for what, err := range map[string]error{
					"OnType":              pod.OnType(pattern, nop),
					"OnType, second":      pod.OnType("a", nop, "b", pattern),
					"OnType with nil":     pod.OnType(pattern, nil),
					"FilterType":          pod.FilterType(pattern, false),
					"FilterType, allowed": pod.FilterType(pattern, true),
					"Wait":                waitErr,
					"typed On":            gravbus.On(pod, pattern, func(context.Context, int) error { return nil }),
					"Handle":              gravbus.Handle(pod, pattern, func(context.Context, int) (int, error) { return 0, nil }),
					"ReplayTypes":         replaying.On(nop),
				} {
					if !errors.Is(err, gravbus.ErrInvalidPattern) {
						t.Errorf("%s: %v", what, err)
						continue
					}
					inputWantTypeError(t, err, gravbus.ErrInvalidPattern, pattern)
				}
				for range pod.Messages(context.Background(), pattern) {
					t.Error("Messages yields something")
				}
				// The handler that was there before is still there.
				bus.Connect().Send(gravbus.NewMsg("x", nil))
				synctest.Wait()
				if got != 1 {
					t.Errorf("%d messages, want 1", got)
				}
			})
		})
	}
	pod := gravbus.New().Connect()
	for _, pattern := range append(inputWildcards, "gravbus.>", "gravbus", "*.*.*", "a*.>") {
		if err := pod.OnType(pattern, nop); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

func TestInputUnencodablePayload(t *testing.T) {
	for _, v := range []any{func() {}, make(chan int), math.NaN(), map[string]any{"a": func() {}}} {
		msg := gravbus.NewTyped("x", v)
		var unsupportedType *json.UnsupportedTypeError
		var unsupportedValue *json.UnsupportedValueError
		if _, err := msg.Marshal(); !errors.As(err, &unsupportedType) && !errors.As(err, &unsupportedValue) {
			t.Errorf("%T: Marshal: %v", v, err)
		}
		if data := msg.Data(); data != nil {
			t.Errorf("%T: Data is %q", v, data)
		}
		if err := msg.UnmarshalData(new(any)); err == nil {
			t.Errorf("%T: UnmarshalData succeeded", v)
		}
		bus := gravbus.New()
		if _, err := bus.Connect().SendContext(context.Background(), msg); err != nil {
			t.Errorf("%T: in the process it need not be encoded, but %v", v, err)
		}
		bus.Close()
		bus = gravbus.New(gravbus.UseMaxMessageSize(100))
		r, err := bus.Connect().SendContext(context.Background(), gravbus.NewTyped("x", v))
		if r != nil || !errors.As(err, &unsupportedType) && !errors.As(err, &unsupportedValue) {
			t.Errorf("%T: with a limit: %v, %v", v, r, err)
		}
		bus.Close()
	}
}

func TestInputTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New(gravbus.UseMaxMessageSize(10))
		defer bus.Close()
		var refused []gravbus.Refused
		err := gravbus.On(bus.Connect(), gravbus.EventRefused, func(_ context.Context, r gravbus.Refused) error { refused = append(refused, r); return nil })
		if err != nil {
			t.Fatal(err)
		}
		pod := bus.Connect(gravbus.Name("sender"))
		large := gravbus.NewMsg("x", make([]byte, 11))
		if r, err := pod.SendContext(context.Background(), large); r != nil || !errors.Is(err, gravbus.ErrMessageTooLarge) {
			t.Errorf("%v, %v", r, err)
		}
		if _, err := pod.SendContext(context.Background(), gravbus.NewTyped("x", "0123456789")); !errors.Is(err, gravbus.ErrMessageTooLarge) {
			t.Errorf("typed: %v", err) // twelve bytes with the quotes
		}
		if _, err := pod.SendContext(context.Background(), gravbus.NewMsg("x", make([]byte, 10))); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		want := gravbus.Refused{Pod: "sender", Type: "x", UUID: large.UUID(), Size: 11, Limit: 10}
		if len(refused) != 2 || refused[0] != want {
			t.Errorf("told of %+v, want %+v", refused, want)
		}
		if s := bus.Stats(); s.Refused != 2 || s.Sent != 1 {
			t.Errorf("%d refused, %d sent", s.Refused, s.Sent)
		}
	})
}

const inputGoodJSON = `{"meta":{"uuid":"0198f3a2-1b2c-7d3e-8f40-516273849506","parent_id":"","response_to":"","msg_type":"a.b","timestamp":"2026-11-20T08:00:00Z"},"payload":{"data":"aGk="}}`

// inputBadJSON are bytes that are no message.
var inputBadJSON = map[string]string{
	"empty":                 "",
	"blank":                 "  ",
	"null":                  "null",
	"a number":              "42",
	"an array":              "[]",
	"an object":             "{}",
	"cut off":               inputGoodJSON[:len(inputGoodJSON)-3],
	"two":                   inputGoodJSON + inputGoodJSON,
	"no JSON":               "hello",
	"deep":                  strings.Repeat("[", 100_000),
	"meta is a string":      `{"meta":"x"}`,
	"no UUID":               strings.Replace(inputGoodJSON, "0198f3a2-1b2c-7d3e-8f40-516273849506", "", 1),
	"UUID of 35":            strings.Replace(inputGoodJSON, "849506", "84950", 1),
	"UUID in braces":        strings.Replace(inputGoodJSON, "0198f3a2-1b2c-7d3e-8f40-516273849506", "{0198f3a2-1b2c-7d3e-8f40-516273849506}", 1),
	"UUID without hyphens":  strings.Replace(inputGoodJSON, "0198f3a2-1b2c-7d3e-8f40-516273849506", "0198f3a21b2c7d3e8f40516273849506", 1),
	"UUID with letters":     strings.Replace(inputGoodJSON, "0198f3a2", "0198f3ag", 1),
	"UUID of zeros":         strings.Replace(inputGoodJSON, "0198f3a2-1b2c-7d3e-8f40-516273849506", "00000000-0000-0000-0000-000000000000", 1),
	"UUID is a number":      strings.Replace(inputGoodJSON, `"0198f3a2-1b2c-7d3e-8f40-516273849506"`, "7", 1),
	"no type":               strings.Replace(inputGoodJSON, "a.b", "", 1),
	"type with blank":       strings.Replace(inputGoodJSON, "a.b", "a b", 1),
	"type with wildcard":    strings.Replace(inputGoodJSON, "a.b", "a.>", 1),
	"type too long":         strings.Replace(inputGoodJSON, "a.b", strings.Repeat("a", 256), 1),
	"data not base64":       strings.Replace(inputGoodJSON, "aGk=", "a-b!", 1),
	"data is an object":     strings.Replace(inputGoodJSON, `"aGk="`, "{}", 1),
	"timestamp is a number": strings.Replace(inputGoodJSON, `"2026-11-20T08:00:00Z"`, "1", 1),
	"timestamp no time":     strings.Replace(inputGoodJSON, "2026-11-20T08:00:00Z", "yesterday", 1),
	"year 9999":             strings.Replace(inputGoodJSON, "2026-", "9999-", 1),
	"year 2262":             strings.Replace(inputGoodJSON, "2026-", "2262-", 1),
	"year 1":                strings.Replace(inputGoodJSON, "2026-11-20T08:00:00Z", "0001-01-02T00:00:00Z", 1),
	"year 1600":             strings.Replace(inputGoodJSON, "2026-", "1600-", 1),
	"month 13":              strings.Replace(inputGoodJSON, "-11-", "-13-", 1),
}

func TestInputMsgFromBytes(t *testing.T) {
	if _, err := gravbus.MsgFromBytes(nil); !errors.Is(err, gravbus.ErrMalformedMessage) {
		t.Errorf("nil: %v", err)
	}
	for name, in := range inputBadJSON {
		t.Run(name, func(t *testing.T) {
			var malformed *gravbus.MalformedError
			msg, err := gravbus.MsgFromBytes([]byte(in))
			if msg != nil || !errors.Is(err, gravbus.ErrMalformedMessage) || !errors.As(err, &malformed) || malformed.Reason == "" {
				t.Errorf("%v, %v", msg, err)
			}
			if len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			kept := gravbus.NewMsg("kept", []byte("data"))
			before, _ := kept.Marshal()
			if err := kept.Unmarshal([]byte(in)); !errors.Is(err, gravbus.ErrMalformedMessage) {
				t.Errorf("Unmarshal: %v", err)
			}
			if after, _ := kept.Marshal(); !bytes.Equal(before, after) {
				t.Errorf("Unmarshal failed and changed the message from %s to %s", before, after)
			}
		})
	}
	for name, in := range map[string]string{
		"as is":            inputGoodJSON,
		"with blanks":      "\n " + inputGoodJSON + "\t\n",
		"more fields":      strings.Replace(inputGoodJSON, `{"meta":`, `{"version":2,"meta":`, 1),
		"no timestamp":     strings.Replace(inputGoodJSON, `,"timestamp":"2026-11-20T08:00:00Z"`, "", 1),
		"zero timestamp":   strings.Replace(inputGoodJSON, "2026-11-20T08:00:00Z", "0001-01-01T00:00:00Z", 1),
		"no data":          strings.Replace(inputGoodJSON, `"aGk="`, "null", 1),
		"no payload":       strings.Replace(inputGoodJSON, `,"payload":{"data":"aGk="}`, "", 1),
		"upper case UUID":  strings.Replace(inputGoodJSON, "0198f3a2", "0198F3A2", 1),
		"year 2261":        strings.Replace(inputGoodJSON, "2026-", "2261-", 1),
		"year 1678":        strings.Replace(inputGoodJSON, "2026-", "1678-", 1),
		"reply to no UUID": strings.Replace(inputGoodJSON, `"response_to":""`, `"response_to":"something"`, 1),
	} {
		if msg, err := gravbus.MsgFromBytes([]byte(in)); err != nil || msg.Type() != "a.b" {
			t.Errorf("%s: %v, %v", name, msg, err)
		}
	}
}

type inputFailing struct{ err error }

func (r inputFailing) Read([]byte) (int, error) { return 0, r.err }

func TestInputMsgFromRequest(t *testing.T) {
	request := func(body io.Reader) *http.Request { return httptest.NewRequest(http.MethodPost, "/meta/message", body) }
	for name, r := range map[string]*http.Request{
		"nil request":     nil,
		"nil body":        {},
		"no body":         request(http.NoBody),
		"body that fails": request(inputFailing{io.ErrUnexpectedEOF}),
	} {
		if msg, err := gravbus.MsgFromRequest(r); msg != nil || !errors.Is(err, gravbus.ErrMalformedMessage) {
			t.Errorf("%s: %v, %v", name, msg, err)
		}
	}
	if _, err := gravbus.MsgFromRequest(request(inputFailing{io.ErrClosedPipe})); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the body's error is not in %v", err)
	}
	for name, in := range inputBadJSON {
		if msg, err := gravbus.MsgFromRequest(request(strings.NewReader(in))); msg != nil || !errors.Is(err, gravbus.ErrMalformedMessage) {
			t.Errorf("%s: %v, %v", name, msg, err)
		}
	}
	if msg, err := gravbus.MsgFromRequest(request(strings.NewReader(inputGoodJSON))); err != nil || string(msg.Data()) != "hi" {
		t.Errorf("%v, %v", msg, err)
	}
	sized := func(n int) []byte {
		b, err := gravbus.NewMsg("x", make([]byte, n)).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if msg, err := gravbus.MsgFromRequest(request(bytes.NewReader(sized(gravbus.DefaultMaxMessageSize)))); err != nil || len(msg.Data()) != gravbus.DefaultMaxMessageSize {
		t.Errorf("as large as allowed: %v", err)
	}
	for name, body := range map[string]io.Reader{
		"one byte more":      bytes.NewReader(sized(gravbus.DefaultMaxMessageSize + 1)),
		"far too large":      bytes.NewReader(sized(3 * gravbus.DefaultMaxMessageSize)),
		"endless":            inputEndless('{'),
		"MaxBytesReader":     http.MaxBytesReader(httptest.NewRecorder(), io.NopCloser(strings.NewReader(inputGoodJSON)), 10),
		"valid, then blanks": io.MultiReader(strings.NewReader(inputGoodJSON), inputEndless(' ')),
	} {
		if msg, err := gravbus.MsgFromRequest(request(body)); msg != nil || !errors.Is(err, gravbus.ErrMessageTooLarge) {
			t.Errorf("%s: %v, %v", name, msg, err)
		}
	}
}

type inputEndless byte

func (b inputEndless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

// Zero and negative values of options mean what is documented with them, and nil options nothing.
func TestInputOptions(t *testing.T) {
	t.Run("nil", func(t *testing.T) {
		bus := gravbus.New(nil, gravbus.UseLogger(nil), gravbus.UsePodDefaults(), gravbus.UsePodDefaults(nil, nil), gravbus.UseReplay(3, nil))
		defer bus.Close()
		for _, pod := range []*gravbus.Pod{bus.Connect(nil), bus.ConnectWithReplay(nil, nil)} {
			if err := pod.On(nop); err != nil {
				t.Error(err)
			}
		}
		if n := bus.Buffer().Limit(); n != 3 {
			t.Errorf("limit %d", n)
		}
		gravbus.NewBuffer(1, nil)
	})
	// stuckDepth returns how many of n messages wait for a pod that handles nothing.
	stuckDepth := func(t *testing.T, n int, opts ...gravbus.PodOption) (depth int) {
		bus := gravbus.New(quiet())
		defer bus.Close()
		gate := make(chan struct{})
		defer close(gate)
		pod := bus.Connect(append([]gravbus.PodOption{gravbus.Overflow(gravbus.DropNewest)}, opts...)...)
		if err := pod.On(func(gravbus.Message) error { <-gate; return nil }); err != nil {
			t.Fatal(err)
		}
		sender := bus.Connect()
		sender.Send(gravbus.NewMsg("x", nil))
		synctest.Wait()
		for range n {
			sender.Send(gravbus.NewMsg("x", nil))
		}
		return pod.Stats().Depth
	}
	for _, n := range []int{0, -1, math.MinInt} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if d := stuckDepth(t, 3000, gravbus.Mailbox(n)); d != gravbus.DefaultMailbox {
					t.Errorf("Mailbox: %d waiting", d)
				}
				if d := stuckDepth(t, 3000, gravbus.Mailbox(7), gravbus.MailboxCap(n)); d != 7 {
					t.Errorf("MailboxCap: %d waiting", d)
				}
				if d := stuckDepth(t, 30, gravbus.Mailbox(7), gravbus.Concurrency(n)); d != 7 {
					t.Errorf("Concurrency: %d waiting", d)
				}

				// StallLimit
				bus := gravbus.New(quiet(), gravbus.UseMaxMessageSize(n))
				defer bus.Close()
				gate := make(chan struct{})
				defer close(gate)
				stuck, sender := bus.Connect(gravbus.Mailbox(1), gravbus.StallLimit(time.Duration(n))), bus.Connect()
				if err := stuck.OnType("stall", func(gravbus.Message) error { <-gate; return nil }); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				for range 5 {
					sender.Send(gravbus.NewMsg("stall", nil))
				}
				if d := time.Since(start); d != gravbus.DefaultStallLimit {
					t.Errorf("StallLimit: the sender waited %v", d)
				}

				// MaxFailures
				fails, calls := bus.Connect(gravbus.MaxFailures(n)), 0
				if err := fails.OnType("fail", func(gravbus.Message) error { calls++; return errors.New("no") }); err != nil {
					t.Fatal(err)
				}
				for range 2 * gravbus.DefaultMaxFailures {
					sender.Send(gravbus.NewMsg("fail", nil))
				}
				synctest.Wait()
				if calls != gravbus.DefaultMaxFailures || !errors.Is(fails.On(nop), gravbus.ErrDisconnected) {
					t.Errorf("MaxFailures: %d calls", calls)
				}

				// MaxRetries
				retries := bus.Connect(gravbus.MaxRetries(n))
				attempts := 0
				err := retries.OnType("retry.*", func(m gravbus.Message) error {
					if m.Type() == "retry.bad" {
						attempts++
						return errors.New("no")
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				sender.Send(gravbus.NewMsg("retry.bad", nil))
				for range 2 * gravbus.DefaultMaxRetries {
					sender.Send(gravbus.NewMsg("retry.good", nil))
				}
				synctest.Wait()
				if attempts != 1+gravbus.DefaultMaxRetries || retries.Stats().DeadLetters != 1 {
					t.Errorf("MaxRetries: %d attempts", attempts)
				}

				// UseMaxMessageSize
				if _, err := sender.SendContext(context.Background(), gravbus.NewMsg("x", make([]byte, 10<<20))); err != nil {
					t.Errorf("UseMaxMessageSize: %v", err)
				}

				// Replay
				replayed := 0
				sender.Send(gravbus.NewMsg("y", nil))
				sender.Send(gravbus.NewMsg("y", nil))
				if err := bus.Connect(gravbus.ReplayLast(n), gravbus.ReplaySince(time.Time{}), gravbus.ReplayTypes(), gravbus.ReplayAfter("")).
					OnType("y", func(gravbus.Message) error { replayed++; return nil }); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if replayed != 2 {
					t.Errorf("ReplayLast: %d replayed", replayed)
				}

				// UseReplay
				off := gravbus.New(gravbus.UseReplay(n))
				defer off.Close()
				got := 0
				off.Connect().Send(gravbus.NewMsg("x", nil))
				if err := off.ConnectWithReplay().On(func(gravbus.Message) error { got++; return nil }); err != nil {
					t.Fatal(err)
				}
				off.Connect().Send(gravbus.NewMsg("x", nil))
				synctest.Wait()
				if b := off.Buffer(); got != 1 || b != nil {
					t.Errorf("UseReplay: %d messages, buffer %v", got, b)
				}

				// Buffer
				b := gravbus.NewBuffer(n, gravbus.MaxBytes(n), gravbus.MaxAge(time.Duration(n)))
				old, err := gravbus.MsgFromBytes([]byte(strings.Replace(inputGoodJSON, "2026-", "1999-", 1)))
				if err != nil {
					t.Fatal(err)
				}
				if err := b.Push(old); err != nil || b.Limit() != gravbus.DefaultReplay || b.Len() != 1 {
					t.Errorf("NewBuffer: %v, limit %d, %d messages", err, b.Limit(), b.Len())
				}

				// Timeouts
				if gravbus.Timeout(min(n, 0)) != nil || gravbus.TimeoutAfter(time.Duration(n)) != nil {
					t.Error("a timeout that fires")
				}
			})
		})
	}
	t.Run("others", func(t *testing.T) {
		bus := gravbus.New()
		defer bus.Close()
		if name := bus.Connect(gravbus.Name("")).Name(); name != "pod-1" {
			t.Errorf("Name: %q", name)
		}
		synctest.Test(t, func(t *testing.T) {
			if d := stuckDepth(t, 20, gravbus.Mailbox(5), gravbus.Overflow(gravbus.Fail+1), gravbus.Overflow(255)); d != 5 {
				t.Errorf("Overflow that does not exist: %d waiting", d)
			}
		})
		pod := bus.Connect(gravbus.InGroup(""))
		if err := pod.On(nop); err != nil || pod.Stats().Group != "" {
			t.Errorf("InGroup: %v, %q", err, pod.Stats().Group)
		}
	})
}

// lateCalls calls every method of a pod and a receipt with good arguments, each with the error that it returns.
func lateCalls(pod *gravbus.Pod, receipt *gravbus.Receipt, want error) map[string]func() error {
	ctx := context.Background()
	msg := func() gravbus.Message { return gravbus.NewMsg("x", nil) }
	noReceipt := func(r *gravbus.Receipt) error {
		if r != nil {
			return errors.New("a receipt")
		}
		return want
	}
	return map[string]func() error{
		"Pod.Tunnel": func() error { _, err := pod.Tunnel("c", gravbus.NewMsg("x", nil)); return err },
		"Pod.Name":   func() error { pod.Name(); return want },
		"Pod.Stats":  func() error { pod.Stats(); return want },
		"Pod.FilterUUID": func() error {
			pod.FilterUUID("x", false)
			pod.FilterUUID("x", true)
			return want
		},
		"Pod.Disconnect":  func() error { pod.Disconnect(); pod.Disconnect(); return want },
		"Pod.Send":        func() error { return noReceipt(pod.Send(msg())) },
		"Pod.SendContext": func() error { r, err := pod.SendContext(ctx, msg()); return errors.Join(noReceipt(r), err) },
		"Pod.ReplyTo":     func() error { return noReceipt(pod.ReplyTo(msg(), msg())) },
		"Pod.Request":     func() error { _, err := pod.Request(ctx, msg()); return err },
		"Pod.RequestAll": func() (err error) {
			n := 0
			for _, err = range pod.RequestAll(ctx, msg()) {
				n++
			}
			if n != 1 {
				return fmt.Errorf("RequestAll yields %d times", n)
			}
			return err
		},
		"Pod.On":         func() error { return errors.Join(pod.On(nop), pod.On(nil)) },
		"Pod.OnType":     func() error { return pod.OnType("x", nop, "y") },
		"Pod.FilterType": func() error { return errors.Join(pod.FilterType("x", false), pod.FilterType("x", true)) },
		"Pod.WaitOn":     func() error { return pod.WaitOn(nop) },
		"Pod.WaitUntil":  func() error { return pod.WaitUntil(gravbus.Timeout(1), nop) },
		"Pod.Wait":       func() error { _, err := pod.Wait(ctx, "x"); return err },
		"Pod.Messages": func() error {
			for range pod.Messages(ctx) {
				return errors.New("Messages yields")
			}
			return want
		},
		"On": func() error { return gravbus.On(pod, "x", func(context.Context, int) error { return nil }) },
		"Handle": func() error {
			return gravbus.Handle(pod, "x", func(context.Context, int) (int, error) { return 0, nil })
		},
		"Request": func() error {
			_, err := gravbus.Request[int](ctx, pod, "x", 1)
			return err
		},
		"Receipt.UUID":      func() error { receipt.UUID(); return want },
		"Receipt.Wait":      func() error { _, err := receipt.Wait(ctx); return err },
		"Receipt.WaitOn":    func() error { return receipt.WaitOn(nop) },
		"Receipt.WaitUntil": func() error { return receipt.WaitUntil(gravbus.Timeout(1), nop) },
		"Receipt.OnReply":   func() error { return receipt.OnReply(nop) },
	}
}

func TestInputEveryMethodAfterTheEnd(t *testing.T) {
	shutdown := func(b *gravbus.Bus, _ *gravbus.Pod) {
		if err := b.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	}
	ends := map[string]struct {
		end  func(*gravbus.Bus, *gravbus.Pod)
		want error
	}{
		"Disconnect":           {func(_ *gravbus.Bus, p *gravbus.Pod) { p.Disconnect() }, gravbus.ErrDisconnected},
		"Close":                {func(b *gravbus.Bus, _ *gravbus.Pod) { b.Close() }, gravbus.ErrClosed},
		"Shutdown":             {shutdown, gravbus.ErrClosed},
		"Disconnect, Close":    {func(b *gravbus.Bus, p *gravbus.Pod) { p.Disconnect(); b.Close() }, gravbus.ErrClosed},
		"Close, Disconnect":    {func(b *gravbus.Bus, p *gravbus.Pod) { b.Close(); p.Disconnect() }, gravbus.ErrClosed},
		"Shutdown, then Close": {func(b *gravbus.Bus, p *gravbus.Pod) { shutdown(b, p); b.Close() }, gravbus.ErrClosed},
	}
	for name, e := range ends {
		for _, used := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/used=%t", name, used), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bus := gravbus.New()
					defer bus.Close()
					if err := bus.Connect().OnType("x", nop); err != nil {
						t.Fatal(err)
					}
					pod := bus.Connect()
					receipt := pod.Send(gravbus.NewMsg("x", nil))
					if used {
						if err := pod.On(nop); err != nil {
							t.Fatal(err)
						}
					}
					e.end(bus, pod)
					checkLate(t, pod, receipt, e.want)
				})
			})
		}
	}
	t.Run("connected after Close", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			bus := gravbus.New()
			receipt := bus.Connect().Send(gravbus.NewMsg("x", nil))
			bus.Close()
			checkLate(t, bus.Connect(), receipt, gravbus.ErrClosed)
			checkLate(t, bus.ConnectWithReplay(gravbus.InGroup("g")), receipt, gravbus.ErrClosed)
			for range 2 {
				if err := errors.Join(bus.Shutdown(context.Background()), bus.Close()); err != nil {
					t.Error(err)
				}
			}
			if s := bus.Stats(); s.Sent != 1 || len(s.Pods) != 0 || bus.Buffer().Len() != 1 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("table", func(t *testing.T) {
		calls := lateCalls(nil, nil, nil)
		for _, typ := range []reflect.Type{reflect.TypeFor[*gravbus.Pod](), reflect.TypeFor[*gravbus.Receipt]()} {
			for m := range typ.Methods() {
				if name := typ.Elem().Name() + "." + m.Name; calls[name] == nil {
					t.Errorf("%s is not in lateCalls", name)
				}
			}
		}
	})
}

func checkLate(t *testing.T, pod *gravbus.Pod, receipt *gravbus.Receipt, want error) {
	t.Helper()
	start := time.Now()
	for name, call := range lateCalls(pod, receipt, want) {
		if err := call(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if d := time.Since(start); d != 0 {
		t.Errorf("the calls waited for %v", d)
	}
}

// A reply that came in time is still to be had.
func TestInputReplyOutlivesThePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := gravbus.New()
		pod, other := bus.Connect(), bus.Connect()
		if err := other.OnType("ping", func(m gravbus.Message) error { other.ReplyTo(m, gravbus.NewMsg("pong", nil)); return nil }); err != nil {
			t.Fatal(err)
		}
		receipt := pod.Send(gravbus.NewMsg("ping", nil))
		synctest.Wait()
		bus.Close()
		if msg, err := receipt.Wait(context.Background()); err != nil || msg.Type() != "pong" {
			t.Errorf("%v, %v", msg, err)
		}
		if _, err := receipt.Wait(context.Background()); !errors.Is(err, gravbus.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}

// What waits when the pod or the bus goes ends at once, with the error that says so.
func TestInputWaitsEndWithThePod(t *testing.T) {
	for name, end := range map[string]func(*gravbus.Bus, *gravbus.Pod){
		"Disconnect": func(_ *gravbus.Bus, p *gravbus.Pod) { p.Disconnect() },
		"Close":      func(b *gravbus.Bus, _ *gravbus.Pod) { b.Close() },
		"Shutdown": func(b *gravbus.Bus, _ *gravbus.Pod) {
			if err := b.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		},
	} {
		want := gravbus.ErrClosed
		if name == "Disconnect" {
			want = gravbus.ErrDisconnected
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := gravbus.New()
				defer bus.Close()
				if err := bus.Connect().OnType("x", nop); err != nil {
					t.Fatal(err)
				}
				pod, ctx := bus.Connect(), context.Background()
				receipt := pod.Send(gravbus.NewMsg("x", nil))
				never := func(gravbus.Message) error { return gravbus.ErrMsgNotWanted }
				waits := map[string]func() error{
					"Pod.WaitOn":        func() error { return pod.WaitOn(never) },
					"Pod.WaitUntil":     func() error { return pod.WaitUntil(gravbus.Timeout(60), never) },
					"Pod.Wait":          func() error { _, err := pod.Wait(ctx); return err },
					"Pod.Request":       func() error { _, err := pod.Request(ctx, gravbus.NewMsg("x", nil)); return err },
					"Receipt.Wait":      func() error { _, err := receipt.Wait(ctx); return err },
					"Receipt.WaitOn":    func() error { return receipt.WaitOn(never) },
					"Receipt.WaitUntil": func() error { return receipt.WaitUntil(gravbus.Timeout(60), never) },
					"Messages": func() error {
						for range pod.Messages(ctx) {
							return errors.New("a message")
						}
						return want
					},
					"RequestAll": func() (err error) {
						for _, err = range pod.RequestAll(ctx, gravbus.NewMsg("x", nil)) {
							continue
						}
						if err == nil {
							return want // all others had gone before
						}
						return err
					},
				}
				errs := make(chan error, len(waits))
				for name, wait := range waits {
					go func() {
						if err := wait(); !errors.Is(err, want) {
							errs <- fmt.Errorf("%s: %w, want %w", name, err, want)
							return
						}
						errs <- nil
					}()
				}
				synctest.Wait()
				start := time.Now()
				end(bus, pod)
				for range waits {
					if err := <-errs; err != nil {
						t.Error(err)
					}
				}
				if d := time.Since(start); d != 0 {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// A nil context is taken for one that never ends.
func TestInputNilContext(t *testing.T) {
	bus := gravbus.New(quiet())
	asker, answerer := bus.Connect(), bus.Connect(gravbus.Mailbox(1))
	var none context.Context
	if err := answerer.OnType("ask", func(msg gravbus.Message) error {
		answerer.ReplyTo(msg, gravbus.NewMsg("answer", nil))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for range 100 { // some of them wait for room
		if _, err := asker.SendContext(none, gravbus.NewMsg("ask", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := asker.Request(none, gravbus.NewMsg("ask", nil)); err != nil {
		t.Error(err)
	}
	for _, err := range asker.RequestAll(none, gravbus.NewMsg("ask", nil)) {
		if err != nil {
			t.Error(err)
		}
	}
	go asker.Send(gravbus.NewMsg("ask", nil))
	if err := bus.Shutdown(none); err != nil {
		t.Error(err)
	}
	for range asker.Messages(none) {
		t.Error("a message after the end")
	}
	if _, err := asker.Wait(none); err == nil {
		t.Error("Wait after the end")
	}
}
