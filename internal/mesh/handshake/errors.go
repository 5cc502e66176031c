package handshake

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gravbus/gravbus/internal/wire"
)

// What ends a connection, in the handshake or later, each with the code that stands for it on the
// wire. An *Error matches the one of its code.
var (
	// ErrProtocol means that a node sent what the protocol does not allow. It is a fault in one of
	// the two programs, or something that is no node.
	ErrProtocol = errors.New("protocol violated")

	// ErrVersion means that the nodes have no protocol version in common. Upgrade the older one.
	ErrVersion = errors.New("no protocol version in common")

	// ErrMeshMismatch means that the nodes are of different meshes. On a shared network this is
	// nothing to worry about.
	ErrMeshMismatch = errors.New("mesh does not match")

	// ErrUnauthorized means that the nodes have no mesh key in common. Check their keys.
	ErrUnauthorized = errors.New("mesh key does not match")

	// ErrSelf means that a node has dialled itself. Its own endpoint need not be dialled again.
	ErrSelf = errors.New("the node has dialled itself")

	// ErrNodeUUIDMismatch means that another node answered than the one that was dialled. Its
	// endpoint is out of date.
	ErrNodeUUIDMismatch = errors.New("not the node that was dialled")

	// ErrRejected means that an application does not accept the other node.
	ErrRejected = errors.New("the application does not accept this node")

	// ErrBusy means that there were too many handshakes, or that one took too long. Try again later.
	ErrBusy = errors.New("too busy for a handshake")

	// ErrWithdrawn means that a node is leaving the mesh.
	ErrWithdrawn = errors.New("the node is leaving")

	// ErrTooLarge means that a message was over the receiver's limit.
	ErrTooLarge = errors.New("message over the limit")

	// ErrTooMuch means that a node sent more than the window, or wants more than is allowed.
	ErrTooMuch = errors.New("more than was allowed")

	// ErrSequence means that items of a stream were missing.
	ErrSequence = errors.New("wrong sequence number")

	// ErrSilent means that nothing was heard from a node for too long.
	ErrSilent = errors.New("nothing was heard for too long")

	// ErrReplaced means that another connection carries the link. There is nothing to do.
	ErrReplaced = errors.New("another connection carries the link")
)

// sentinels has what each code stands for.
var sentinels = [...]error{
	wire.CodeProtocol:     ErrProtocol,
	wire.CodeVersion:      ErrVersion,
	wire.CodeMesh:         ErrMeshMismatch,
	wire.CodeUnauthorized: ErrUnauthorized,
	wire.CodeSelf:         ErrSelf,
	wire.CodeNode:         ErrNodeUUIDMismatch,
	wire.CodeRejected:     ErrRejected,
	wire.CodeBusy:         ErrBusy,
	wire.CodeLeaving:      ErrWithdrawn,
	wire.CodeTooLarge:     ErrTooLarge,
	wire.CodeTooMuch:      ErrTooMuch,
	wire.CodeSequence:     ErrSequence,
	wire.CodeSilent:       ErrSilent,
	wire.CodeReplaced:     ErrReplaced,
}

// sentinel returns what code stands for, or nil if this version does not know it.
func sentinel(code wire.Code) error {
	if code >= wire.Code(len(sentinels)) {
		return nil
	}
	return sentinels[code]
}

// CodeOf returns the code of an *Error or of one of the errors above, which err is or wraps.
func CodeOf(err error) (code wire.Code, ok bool) {
	var e *Error
	if errors.As(err, &e) {
		return e.Code, true
	}
	for code, s := range sentinels {
		if s != nil && errors.Is(err, s) {
			return wire.Code(code), true
		}
	}
	return 0, false
}

// Error tells why a connection ended. It matches the error that its code stands for.
type Error struct {
	Code   wire.Code
	Remote bool   // the other side ended it
	Reason string // more about it, as both sides are told; may be empty
	Err    error  // what caused it, with its text in Reason; or nil
}

// Remote returns what a Refuse or Bye of the other side means. Its Reason is what a stranger chose
// to write, made printable and of one line.
func Remote(f *wire.Refuse) *Error {
	reason := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, f.Reason)
	return &Error{Code: f.Code, Remote: true, Reason: reason}
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Remote {
		b.WriteString("the other side says: ")
	}
	if s := sentinel(e.Code); s != nil {
		b.WriteString(s.Error())
	} else {
		fmt.Fprintf(&b, "code %d", e.Code)
	}
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	return b.String()
}

// Is reports whether target is what the code stands for.
func (e *Error) Is(target error) bool {
	s := sentinel(e.Code)
	return s != nil && target == s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func protocol(format string, args ...any) *Error {
	return &Error{Code: wire.CodeProtocol, Reason: fmt.Sprintf(format, args...)}
}

func unauthorized(reason string) *Error {
	return &Error{Code: wire.CodeUnauthorized, Reason: reason}
}

// rejection turns the error of an Accept or Decide into this side's.
func rejection(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Reason: e.Reason, Err: err}
	}
	code, ok := CodeOf(err)
	if !ok {
		code = wire.CodeRejected
	}
	reason := err.Error()
	if s := sentinel(code); s != nil && reason == s.Error() {
		reason = "" // the code says it all
	}
	return &Error{Code: code, Reason: reason, Err: err}
}

// asError makes an *Error of what a step of the machine returned, which may be the codec's.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: wire.CodeProtocol, Reason: err.Error(), Err: err}
}
