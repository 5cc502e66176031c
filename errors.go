package gravbus

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/route"
	"github.com/gravbus/gravbus/transport"
)

var (
	// ErrMsgNotWanted is what a wait function returns to keep waiting. From an ordinary handler it
	// means that the message was of no interest: it counts as handled.
	ErrMsgNotWanted = errors.New("gravbus: message not wanted")

	// ErrWaitTimeout is returned when the time of a wait is over.
	ErrWaitTimeout = errors.New("gravbus: wait timed out")

	// ErrNoReceipt is returned by the methods of a nil *Receipt: the message could not be sent.
	// SendContext tells why.
	ErrNoReceipt = errors.New("gravbus: no receipt: the message was not sent")

	// ErrNoResponders is returned at once when no pod wants a request's type. Nothing else happened
	// to the request; it may be sent again later.
	ErrNoResponders = errors.New("gravbus: no pod wants this type of request")

	// ErrDisconnected is returned by what is asked of a pod after its Disconnect. Connect a new
	// one.
	ErrDisconnected = errors.New("gravbus: pod is disconnected")

	// ErrClosed is returned by what is asked of a bus, or its pods, after its Shutdown or Close
	// began.
	ErrClosed = errors.New("gravbus: bus is closed")

	// ErrNilMessage is returned for a nil Message.
	ErrNilMessage = errors.New("gravbus: nil message")

	// ErrNilHandler is returned for a nil function where one is needed.
	ErrNilHandler = errors.New("gravbus: nil handler")

	// ErrMessageTooLarge is returned for a message with more data than the bus (UseMaxMessageSize)
	// or MsgFromRequest allows; in a *PeerError of Request, than any node takes that could answer.
	// Split it, or raise the limit.
	ErrMessageTooLarge = errors.New("gravbus: message too large")

	// ErrReservedType is returned when a message of a type gravbus.… is sent. Those are the bus's
	// own events.
	ErrReservedType = errors.New(`gravbus: types that begin with "gravbus." are reserved for events of the bus`)

	// ErrMailboxFull is the reason in an *UndeliveredError when a pod with the policy Fail had no
	// room.
	ErrMailboxFull = errors.New("gravbus: mailbox full")

	// ErrImmutable is returned by Unmarshal on a message that has been sent.
	ErrImmutable = errors.New("gravbus: a message cannot be changed once it is sent")

	// ErrBusBuffer is returned by Push on a bus's own buffer, which holds what was sent. Send the
	// message.
	ErrBusBuffer = errors.New("gravbus: this buffer belongs to a bus: send the message instead")

	// ErrMalformedMessage is the reason in a *MalformedError.
	ErrMalformedMessage = errors.New("gravbus: malformed message")

	// ErrInvalidType is what errors about types match. The errors themselves, of type *TypeError,
	// tell what is wrong with which string.
	ErrInvalidType = errors.New("gravbus: invalid type")

	// ErrTransportNotConfigured is returned by what needs peers, on a bus without UseTransport.
	ErrTransportNotConfigured = errors.New("gravbus: no transport: give New the option UseTransport")

	// ErrStarted is returned by Start on a bus that was started before.
	ErrStarted = errors.New("gravbus: bus is started already")

	// ErrOpenMesh is returned by Start when everybody on the network could connect: there is no
	// mesh key, the transport asks for no client certificates, and it listens beyond this machine.
	// Give UseMeshKey, or say UseOpenMesh if that is meant.
	ErrOpenMesh = errors.New("gravbus: it would listen beyond this machine for everybody: give UseMeshKey, or UseOpenMesh if that is meant")

	// ErrMeshKey is returned by Start for a mesh key of fewer than MinMeshKey bytes, or more than 4
	// of them.
	ErrMeshKey = errors.New("gravbus: a mesh key has at least 16 bytes, and there are at most 4")

	// ErrTunnelNotEstablished is returned by Tunnel when no connected node has the capability.
	ErrTunnelNotEstablished = errors.New("gravbus: tunnel not established")

	// ErrPeerLost is the reason in a *PeerError when a peer has left, or was away for too long.
	ErrPeerLost = errors.New("gravbus: peer is lost")

	// ErrInvalidPattern is the same for patterns.
	ErrInvalidPattern = errors.New("gravbus: invalid pattern")
)

// Why two nodes do not become peers, or stop being it. The errors themselves say more; the other
// node has the same error.
var (
	// ErrVersion: the nodes have no protocol version in common.
	ErrVersion = handshake.ErrVersion
	// ErrMeshMismatch: they have different mesh names (UseMesh).
	ErrMeshMismatch = handshake.ErrMeshMismatch
	// ErrBelongsToMismatch is Grav's name for ErrMeshMismatch.
	ErrBelongsToMismatch = ErrMeshMismatch
	// ErrUnauthorized: they have no mesh key in common, or only one of them has a key.
	ErrUnauthorized = handshake.ErrUnauthorized
	// ErrNodeUUIDMismatch: another node answered than the one that was dialled.
	ErrNodeUUIDMismatch = handshake.ErrNodeUUIDMismatch
	// ErrSelf: the node has dialled itself.
	ErrSelf = handshake.ErrSelf
	// ErrRejected: UseAccept of one of them refused the other.
	ErrRejected = handshake.ErrRejected
	// ErrBusy: too many handshakes or peers, or the handshake took too long. It is tried again.
	ErrBusy = handshake.ErrBusy
	// ErrNodeWithdrawn: the other node is leaving.
	ErrNodeWithdrawn = handshake.ErrWithdrawn
	// ErrProtocol: the other node sent what the protocol does not allow.
	ErrProtocol = handshake.ErrProtocol
	// ErrSilent: nothing was heard of the other node for too long (UseDeadAfter).
	ErrSilent = handshake.ErrSilent
	// ErrConnectionClosed is what a transport's errors match when the other side has closed.
	ErrConnectionClosed = transport.ErrPeerClosed
)

// PeerError tells what went wrong with another node. Err matches the error that says why two nodes do
// not become peers (ErrVersion, ErrMeshMismatch, ErrUnauthorized, ErrNodeUUIDMismatch, ErrSelf,
// ErrRejected, ErrBusy, ErrNodeWithdrawn or ErrProtocol), or ErrPeerLost.
type PeerError struct {
	Peer     string // UUID of the node, empty if not known
	Endpoint string // that was dialled, if any
	Op       string // "connect" or "request"
	Err      error
}

func (e *PeerError) Error() string {
	return fmt.Sprintf("gravbus: %s %s: %v", e.Op, cmp.Or(e.Endpoint, e.Peer), e.Err)
}

// Unwrap returns the reason.
func (e *PeerError) Unwrap() error { return e.Err }

// TypeError tells what is wrong with a type or pattern. It matches ErrInvalidType or
// ErrInvalidPattern.
type TypeError struct {
	Input   string // the type or pattern
	Pattern bool   // whether it was meant as a pattern
	Reason  string // what is wrong with it
}

func (e *TypeError) Error() string {
	what := "type"
	if e.Pattern {
		what = "pattern"
	}
	return fmt.Sprintf("gravbus: invalid %s %.80q: %s", what, e.Input, e.Reason)
}

// Is reports whether target is the sentinel for this kind of error.
func (e *TypeError) Is(target error) bool {
	return target == ErrInvalidPattern && e.Pattern || target == ErrInvalidType && !e.Pattern
}

// typeError turns an error of package route into a *TypeError.
func typeError(err error) error {
	if err == nil {
		return nil
	}
	var s *route.SyntaxError
	if errors.As(err, &s) {
		return &TypeError{Input: s.Input, Pattern: s.Pattern, Reason: s.Reason}
	}
	return err
}

// MalformedError tells why bytes are not a message. It matches ErrMalformedMessage.
type MalformedError struct {
	Reason string
	Err    error // the decoder's, or nil
}

func (e *MalformedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("gravbus: malformed message: %s: %v", e.Reason, e.Err)
	}
	return "gravbus: malformed message: " + e.Reason
}

// Unwrap returns the decoder's error.
func (e *MalformedError) Unwrap() error { return e.Err }

// Is reports whether target is ErrMalformedMessage.
func (e *MalformedError) Is(target error) bool { return target == ErrMalformedMessage }

// UndeliveredError is returned by SendContext when a message was sent, but some pods or peers have
// not got it: they were full, and either their policy is Fail or the context ended while waiting for
// room. All others have it. The pods are told by a Lagged notice as well, the peers by EventPeerGap.
type UndeliveredError struct {
	Type string   // of the message
	Pods []string // names of the pods that do not have it; "node" and its UUID for a peer
	Err  error    // ErrMailboxFull or the context's error
}

func (e *UndeliveredError) Error() string {
	return fmt.Sprintf("gravbus: %s not delivered to %s: %v", e.Type, strings.Join(e.Pods, ", "), e.Err)
}

// Unwrap returns the reason.
func (e *UndeliveredError) Unwrap() error { return e.Err }

// MissingError ends a RequestAll to which not all have replied.
type MissingError struct {
	// Pods has the names of the pods that have not replied, sorted: "a|b" for a group of two, with "@"
	// and the node's UUID behind it for pods of a peer, and "node" and its UUID for a peer that has not
	// told who got the request, or cannot be sent it.
	Pods []string
	// Err is why the wait ended: the context's error, or, when all others have replied, why peers
	// cannot be sent the request, such as ErrMessageTooLarge.
	Err error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("gravbus: no reply from %s: %v", strings.Join(e.Pods, ", "), e.Err)
}

// Unwrap returns why the wait ended.
func (e *MissingError) Unwrap() error { return e.Err }

// PanicError is what a panic in a handler becomes. A handler that calls runtime.Goexit (as
// t.FailNow does) fails in the same way.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // the goroutine's stack at that moment, as debug.Stack prints it
}

func (e *PanicError) Error() string { return fmt.Sprintf("gravbus: handler panicked: %v", e.Value) }

// Unwrap returns the value of the panic if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ShutdownError is returned by Shutdown and Withdraw when their context ended before all was done, or
// peers that were away, or cut off meanwhile, have not got what was sent to them.
type ShutdownError struct {
	Pods  []string // names of pods whose handlers were still running, sorted
	Peers []string // UUIDs of nodes that have not got, or not sent, everything, sorted
	Err   error    // the context's error; ErrPeerLost if it has not ended
}

func (e *ShutdownError) Error() string {
	if len(e.Peers) > 0 {
		return fmt.Sprintf("gravbus: shutdown cut short: pods [%s], nodes [%s] were not done: %v", strings.Join(e.Pods, ", "), strings.Join(e.Peers, ", "), e.Err)
	}
	if len(e.Pods) == 0 {
		return fmt.Sprintf("gravbus: shutdown cut short: %v", e.Err)
	}
	return fmt.Sprintf("gravbus: shutdown cut short while handlers of %s run: %v", strings.Join(e.Pods, ", "), e.Err)
}

// Unwrap returns the context's error, or ErrPeerLost.
func (e *ShutdownError) Unwrap() error { return e.Err }
