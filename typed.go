package gravbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/gravbus/gravbus/internal/route"
)

// NewTyped returns a message whose payload is v. In the process v is handed over as it is, without
// encoding: who sends it must not change it any more, nor may who receives it. Data, Marshal and a
// link encode it as JSON, once, when they first need it; if that fails Marshal returns the error
// and Data nothing.
func NewTyped[T any](typ string, v T) Message {
	m := newMessage(typ, nil)
	m.extra().value = box[T]{v}
	return m
}

// box keeps T: without it an interface type would be lost, and a nil value would look like no
// value.
type box[T any] struct{ v T }

func (b box[T]) MarshalJSON() ([]byte, error) { return json.Marshal(b.v) }

func (b box[T]) unbox() any { return b.v }

// Decode returns the payload of msg as a T: the very value, if msg was made in this process by
// NewTyped with the same T, and otherwise what its data means as JSON. Its errors are
// ErrNilMessage, and a *PayloadError if the payload is not a T.
func Decode[T any](msg Message) (v T, err error) {
	if isNil(msg) {
		return v, ErrNilMessage
	}
	if m, ok := msg.(*message); ok && m.more != nil {
		if same, ok := m.more.value.(box[T]); ok {
			return same.v, nil
		}
		if other, ok := m.more.value.(interface{ unbox() any }); ok {
			if v, ok := other.unbox().(T); ok {
				return v, nil
			}
		}
	}
	if err := msg.UnmarshalData(&v); err != nil {
		return v, &PayloadError{Type: msg.Type(), Want: reflect.TypeFor[T]().String(), Err: err}
	}
	return v, nil
}

type contextKey struct{}

// MessageFrom returns the message that a typed handler was called with, from the handler's context,
// or nil.
func MessageFrom(ctx context.Context) Message {
	msg, _ := ctx.Value(contextKey{}).(Message)
	return msg
}

// On makes fn receive the payloads of the messages of a type, or of all types that match a pattern,
// as Pod.OnType does for messages, with the errors of that. A payload that is not a T is a
// *PayloadError and counts as a failure. The context ends when the pod is disconnected; MessageFrom
// finds the message in it. Lagged notices do not reach fn; EventPodLagged and Stats tell of losses.
func On[T any](p *Pod, pattern string, fn func(context.Context, T) error) error {
	if fn == nil {
		return p.OnType(pattern, nil)
	}
	ctx := p.context()
	return p.on([]string{pattern}, func(msg Message) error {
		v, err := Decode[T](msg)
		if err != nil {
			return err
		}
		return fn(context.WithValue(ctx, contextKey{}, msg), v)
	}, false)
}

// Handle is On for requests: what fn returns goes back as the reply, with the type of the request
// and ".reply" at its end, or ".error" for an error (or only "reply" or "error", where that would be
// too long). If fn returns an error, or the payload is not a Req, or what fn returns cannot be sent (too
// large, cannot be encoded), Request gets that as a *RemoteError, and the request counts as handled.
// If that cannot be sent either, the request counts as failed. ErrMsgNotWanted sends nothing.
//
// A message that is itself an answer (ReplyTo is not empty) is no request, and is passed over: a
// pattern that matches the types of replies would otherwise have two pods answer each other for
// ever.
func Handle[Req, Resp any](p *Pod, pattern string, fn func(context.Context, Req) (Resp, error)) error {
	if fn == nil {
		return p.OnType(pattern, nil)
	}
	ctx := p.context()
	return p.on([]string{pattern}, func(msg Message) error {
		if msg.ReplyTo() != "" {
			return ErrMsgNotWanted
		}
		req, err := Decode[Req](msg)
		var resp Resp
		if err == nil {
			resp, err = fn(context.WithValue(ctx, contextKey{}, msg), req)
		}
		switch {
		case errors.Is(err, ErrMsgNotWanted):
			return err
		case err != nil:
			err = answer(p, msg, errorSuffix, RemoteError{err.Error()})
		default:
			err = answer(p, msg, replySuffix, resp)
		}
		if err != nil {
			err = answer(p, msg, errorSuffix, RemoteError{"the reply cannot be sent: " + err.Error()})
		}
		return err
	}, false)
}

const (
	replySuffix = ".reply"
	errorSuffix = ".error"
)

// answerType returns the type of answers to requests of a type. Where a suffix makes it longer than
// types are, it is the suffix alone: every request can be answered.
func answerType(typ, suffix string) string {
	if len(typ)+len(suffix) > route.MaxLen {
		return suffix[1:]
	}
	return typ + suffix
}

// answer sends v as an answer to msg. That some pods have no room for it is no error: who asked has
// it.
func answer[T any](p *Pod, msg Message, suffix string, v T) error {
	m := newMessage(answerType(msg.Type(), suffix), nil)
	m.extra().value = box[T]{v}
	if asked, ok := msg.(*message); ok {
		m.origin, m.replyTo = &asked.receipt, asked.receipt.id
		if err := sendable(m, asked.receipt.pod.Load()); err != nil {
			return err
		}
	} else {
		m.SetReplyTo(msg.UUID())
	}
	if r, err := p.SendContext(context.Background(), m); r == nil {
		return err
	}
	return nil
}

// sendable returns why m cannot go to the peer that the pod stands for, if it does. A link finds
// that out when nobody can be told any more.
func sendable(m *message, p *Pod) error {
	if p == nil || p.cfg.peer == nil {
		return nil
	}
	data, err := m.encoded()
	if err != nil {
		return err
	}
	if h := p.cfg.peer.link.Peer(); h != nil && uint64(len(data)) > h.MaxMessage {
		return ErrMessageTooLarge
	}
	return nil
}

// Request sends req as a message of the given type and returns the payload of the first reply. Its
// errors are those of Pod.Request, a *RemoteError if a Handle returned an error, and a
// *PayloadError if the reply is not a Resp.
func Request[Resp, Req any](ctx context.Context, p *Pod, typ string, req Req) (resp Resp, err error) {
	msg, err := p.Request(ctx, NewTyped(typ, req))
	if err != nil {
		return resp, err
	}
	if msg.Type() == answerType(typ, errorSuffix) {
		if remote, err := Decode[RemoteError](msg); err == nil {
			return resp, &remote
		}
	}
	return Decode[Resp](msg)
}

// RemoteError is the error of a handler set by Handle, as it comes to Request, or why its reply could
// not be sent.
type RemoteError struct {
	Message string `json:"error"`
}

func (e *RemoteError) Error() string { return e.Message }

// PayloadError tells that a payload is not of the type that was asked for.
type PayloadError struct {
	Type string // of the message
	Want string // the Go type
	Err  error  // the decoder's
}

func (e *PayloadError) Error() string {
	return fmt.Sprintf("gravbus: payload of %s is no %s: %v", e.Type, e.Want, e.Err)
}

// Unwrap returns the decoder's error.
func (e *PayloadError) Unwrap() error { return e.Err }

// context returns a context that ends when p is disconnected.
func (p *Pod) context() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.extra()
	if x.ctx == nil {
		x.ctx, x.cancel = context.WithCancel(context.Background())
		if p.state.Load() != podOpen {
			x.cancel()
		}
	}
	return x.ctx
}
