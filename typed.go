package gravbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
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
// NewTyped with the same T, and otherwise what its data means as JSON.
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
	err = msg.UnmarshalData(&v)
	return v, err
}

type contextKey struct{}

// MessageFrom returns the message that a typed handler was called with, from the handler's context,
// or nil.
func MessageFrom(ctx context.Context) Message {
	msg, _ := ctx.Value(contextKey{}).(Message)
	return msg
}

// On makes fn receive the payloads of the messages of a type, or of all types that match a pattern,
// as Pod.OnType does for messages. A payload that is not a T counts as a failure. The context ends
// when the pod is disconnected; MessageFrom finds the message in it. Lagged notices do not reach
// fn; EventPodLagged and Stats tell of losses.
func On[T any](p *Pod, pattern string, fn func(context.Context, T) error) error {
	if fn == nil {
		return p.OnType(pattern, nil)
	}
	ctx := p.context()
	return p.on([]string{pattern}, func(msg Message) error {
		v, err := Decode[T](msg)
		if err != nil {
			return &PayloadError{Type: msg.Type(), Want: reflect.TypeFor[T]().String(), Err: err}
		}
		return fn(context.WithValue(ctx, contextKey{}, msg), v)
	}, false)
}

// Handle is On for requests: what fn returns goes back as the reply, with the type of the request
// and ".reply" at its end. If fn returns an error that goes back instead, as a *RemoteError, and
// the request counts as handled; ErrMsgNotWanted sends nothing.
func Handle[Req, Resp any](p *Pod, pattern string, fn func(context.Context, Req) (Resp, error)) error {
	if fn == nil {
		return p.OnType(pattern, nil)
	}
	return On(p, pattern, func(ctx context.Context, req Req) error {
		msg := MessageFrom(ctx)
		resp, err := fn(ctx, req)
		switch {
		case errors.Is(err, ErrMsgNotWanted):
			return err
		case err != nil:
			p.ReplyTo(msg, NewTyped(msg.Type()+errorSuffix, RemoteError{err.Error()}))
		default:
			p.ReplyTo(msg, NewTyped(msg.Type()+replySuffix, resp))
		}
		return nil
	})
}

const (
	replySuffix = ".reply"
	errorSuffix = ".error"
)

// Request sends req as a message of the given type and returns the payload of the first reply. Its
// errors are those of Pod.Request, a *RemoteError if a Handle returned an error, and a
// *PayloadError if the reply is not a Resp.
func Request[Resp, Req any](ctx context.Context, p *Pod, typ string, req Req) (resp Resp, err error) {
	msg, err := p.Request(ctx, NewTyped(typ, req))
	if err != nil {
		return resp, err
	}
	if msg.Type() == typ+errorSuffix {
		if remote, err := Decode[RemoteError](msg); err == nil {
			return resp, &remote
		}
	}
	if resp, err = Decode[Resp](msg); err != nil {
		return resp, &PayloadError{Type: msg.Type(), Want: reflect.TypeFor[Resp]().String(), Err: err}
	}
	return resp, nil
}

// RemoteError is the error of a handler set by Handle, as it comes to Request.
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
