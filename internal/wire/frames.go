// Package wire is what nodes say to each other: frames, and their form in bytes.
//
// docs/WIRE.md describes the protocol for those who write it in another language; this package is
// its codec and holds no state but that of one connection's type table. Everything a decoder reads
// may come from a stranger: it never panics, never allocates more than 32 times what it was given,
// and returns an *Error for whatever is not well-formed. What an encoder is given is its caller's to
// keep within the bounds.
//
// A transport frame, here called a packet, holds one or more frames:
//
//	frame = kind (1 byte) length (uvarint) body
//
// Numbers are uvarints (encoding/binary), signed ones zigzag varints, strings and bytes are a
// uvarint length and that many bytes, lists a uvarint count and the elements; IDs, nonces and MACs
// are raw bytes. Booleans are bits of one number. The fields of a body come in the order in which
// they stand in its type.
//
// Frames of an unknown kind are skipped, and so is what follows the fields that a decoder knows in a
// body or an item, and bits that it does not know: that is how later versions add to the protocol.
package wire

// Version is the protocol version that this package speaks.
const Version = 1

// Bounds, in bytes or elements. What is over them is malformed.
const (
	MaxHandshake    = 16 << 10 // a packet of the handshake
	MaxName         = 255      // a name, type, pattern, endpoint, capability or reason
	MaxText         = 64 << 10 // a parent, or a UUID that is none
	MaxEndpoints    = 32
	MaxCapabilities = 256
	MaxKeys         = 4    // MACs in a Proof
	MaxTypes        = 4096 // types that a connection numbers in each direction
)

// ID is a UUID in raw form.
type ID [16]byte

// Kind is the kind of a frame.
type Kind byte

// Kinds of frames. Those of the handshake come first, alone in their packet, and never again.
const (
	KindHello   Kind = 1
	KindProof   Kind = 2
	KindWelcome Kind = 3
	KindUse     Kind = 4
	KindRefuse  Kind = 5

	KindBatch    Kind = 16 // items of the stream, numbered
	KindAck      Kind = 17
	KindPing     Kind = 18
	KindPong     Kind = 19
	KindInterest Kind = 20
	KindReplay   Kind = 21
	KindPeers    Kind = 22
	KindWithdraw Kind = 23
	KindBye      Kind = 24
)

// Hello is the first frame of both sides. The one who dialled sends it first.
type Hello struct {
	MinVersion, MaxVersion uint64 // that the node speaks
	Node                   ID
	Mesh                   string   // at most MaxName
	Nonce                  [32]byte // fresh, from a cryptographic source
	MaxMessage             uint64   // bytes of data a message to this node may have
	WindowCount            uint64   // items it takes before it has acknowledged some
	WindowCost             uint64   // the same, by cost (see Cost)
	Endpoints              []string // where it can be dialled, at most MaxEndpoints of at most MaxName
	Capabilities           []string // what Tunnel finds it by, at most MaxCapabilities of at most MaxName
	Name                   string   // for people, at most MaxName
}

// Proof is what the one who dialled answers to a Hello.
type Proof struct {
	MACs   [][32]byte // one for each mesh key it holds, its preferred one first, at most MaxKeys; none in an open mesh
	Resume Resume
}

// Welcome is what the other one answers to a Proof.
type Welcome struct {
	Key    uint64   // which of the MACs it found right, counting from 0; 0 in an open mesh
	MAC    [32]byte // by the same key; zero in an open mesh
	Resume Resume
}

// Resume tells where a stream of items goes on. Each direction is a stream of its own.
type Resume struct {
	Stream   uint64 // of the items that the sender of this frame sends; random, never 0
	Known    uint64 // the stream of the other side that it has received from; 0 for none
	Received uint64 // the highest sequence number it has of that; 0 for none
}

// Use ends the handshake: the node with the lower ID decides that this connection carries the link
// from now on. It has no fields.
type Use struct{}

// Refuse and Bye end a connection with a reason.
type Refuse struct {
	Code   Code
	Reason string // for people, at most MaxName
}

// Bye says that the connection ends, and why. It is like Refuse, after the handshake. With
// CodeLeaving it says that its sender sends no more items; the one that has withdrawn closes when
// both have said so.
type Bye = Refuse

// Code says why a connection ends.
type Code uint64

// Codes. A decoder passes on those that it does not know.
const (
	CodeProtocol     Code = 1  // malformed, or not what the protocol allows
	CodeVersion      Code = 2  // no version in common
	CodeMesh         Code = 3  // a node of another mesh
	CodeUnauthorized Code = 4  // no proof of the mesh key
	CodeSelf         Code = 5  // the node has dialled itself
	CodeNode         Code = 6  // not the node that was dialled
	CodeRejected     Code = 7  // the application does not accept this peer
	CodeBusy         Code = 8  // too many connections in handshake, or it took too long
	CodeLeaving      Code = 9  // the node has withdrawn
	CodeTooLarge     Code = 10 // a message over the limit
	CodeTooMuch      Code = 11 // more than the window, or more interest than allowed
	CodeSequence     Code = 12 // wrong sequence numbers
	CodeSilent       Code = 13 // nothing was heard for too long
	CodeReplaced     Code = 14 // another connection carries the link
)

// Cost is what an item counts in a window that has n bytes. Those of a message are its data, the texts
// of its Rare, 8 for each number in Covered, and for each group its name and 16. Targets have 64 for
// each pod; other items none.
func Cost(n int) uint64 { return uint64(n) + 64 }

// Ack says that all items up to Seq have been delivered: they leave the window.
type Ack struct{ Seq uint64 }

// Ping asks for a Pong with the same token. It is how a link knows that it lives, and its round
// trip time.
type Ping struct{ Token uint64 }

// Pong answers a Ping.
type Pong struct{ Token uint64 }

// Interest changes what the node wants to be sent.
//
// After each handshake both sides send all they want: the first frame has Reset, the last one has
// Done (one frame may have both). Between these two what was known before stays in force; with Done
// it is replaced. Later frames have neither and change single entries.
type Interest struct {
	Reset, Done bool
	Entries     []Entry
}

// Entry is one interest: messages that match one of Allow and none of Deny. It is identified by
// Group, Allow and Deny together; as sets: order does not matter.
type Entry struct {
	Remove   bool   // it is wanted no longer
	Observer bool   // only by pods that watch, and would not answer a request
	Group    string // for one member of this group, at most MaxName; empty for all pods
	Allow    []string
	Deny     []string
}

// Replay asks for the messages that the node has in its buffer and sent itself. The interest in
// what comes after has to be sent before.
type Replay struct {
	ID    uint64 // rising; a request with an ID not above the last one's is a repetition and ignored
	Allow []string
	Deny  []string
	Types []string // if not empty, only these patterns
	Last  uint64   // if not 0, only so many, the latest
	Since int64    // Unix nanoseconds; messages of this time or later. NoTime for all
	After string   // if not empty, at most MaxText: only what came after the message with this UUID; all if that is not known
}

// NoTime stands for no time at all, as Since and as a message's time.
const NoTime = -1 << 63

// Peers tells of other nodes of the mesh.
type Peers struct{ Nodes []Peer }

// Peer is a node and where it can be dialled.
type Peer struct {
	Node      ID
	Endpoints []string // at most MaxEndpoints of at most MaxName
}

// Withdraw says that the node is about to leave: it wants no new messages, and closes once what is
// under way has been delivered. It has no fields.
type Withdraw struct{}

// A Batch holds consecutive items of the sender's stream. The first ever has sequence number 1.
//
//	batch = first (uvarint) items
//	item  = length (uvarint) what follows it: tag (1 byte) and fields
//
// Items with an unknown tag are skipped, but count. The length of a batch may be longer than it need
// be, with leading zeros: it is filled in at the end.

// Tags of items.
const (
	TagMessage   = 0 // to 127: the low seven bits are flags, see below
	TagGap       = 128
	TagReplayEnd = 129
	TagTargets   = 130
	TagGone      = 131
)

// Flags of a message, in its tag. A bit without a name has no field, now and later: what a message
// may need to carry besides goes into a Rare.
const (
	FlagReplyTo = 1 << 0 // it answers a message: ReplyTo follows
	FlagPoll    = 1 << 1 // tell by a Targets item who got it
	FlagRare    = 1 << 2 // a Rare follows
	FlagAnswer  = 1 << 3 // the receipt of the message it answers is at the receiver, or may be
	FlagSkip    = 1 << 4 // not for pods that merely want its type
)

// A Message is an item that carries a message.
//
//	message = tag, ID, time, type, [ReplyTo], [Rare], data (to the end of the item)
//	time    = signed difference in ns to the message before in the batch, the first to 0; as 64 bits
//	          that wrap around
//	type    = 0 string                 a type, once
//	        | 1 string                 a type, which gets the next number: 2, 3, …
//	        | n                        the type with number n
//
// A connection numbers at most MaxTypes types in each direction.
type Message struct {
	ID      ID
	Flags   byte
	Type    string // 1 to MaxName bytes of UTF-8
	TypeNum int    // when decoded: from 0, the same for the same type on this connection; -1 if it has no number
	Time    int64  // Unix nanoseconds or NoTime
	ReplyTo ID
	Rare    *Rare
	Data    []byte
}

// Rare is what few messages have. Each field that is not empty is written as its number (1 to 7,
// uvarint) and its value as bytes, the elements of a list as fields of their own with the same
// number, the end as 0; unknown numbers are skipped. The value of a number is a uvarint.
type Rare struct {
	Parent  string   // 1: at most MaxText
	Name    string   // 2: the message's UUID in text, if it is no UUID, at most MaxText
	ReplyTo string   // 3: the same for ReplyTo
	From    uint64   // 4: number of the pod that sent it, for answers to polls
	Groups  []string // 5: deliver to one member of each of these groups; none empty, at most MaxName
	Replay  uint64   // 6: only for the pod that asked for this replay
	Covered []uint64 // 7: not for the pods that asked for these replays: they have it already
}

// Gap is an item that stands for messages that were lost: they count, but have no number of their
// own.
type Gap struct {
	Count    uint64
	From, To ID // the first and the last of them
}

// ReplayEnd is the item that ends a replay: what comes after is live.
type ReplayEnd struct{ ID uint64 }

// Targets is the item that answers a message with FlagPoll.
type Targets struct {
	Request ID
	List    []Target
}

// A Target is a pod that got the message, or the members of a group of whom one got it. Pods and
// Names have the same length, at least 1.
//
//	targets = Request, count, targets
//	target  = count, that many times: pod (uvarint), name (string)
type Target struct {
	Pods  []uint64
	Names []string // for people, at most MaxName
}

// Gone is the item that tells that a pod, named in a Targets item before, has disconnected.
type Gone struct{ Pod uint64 }

// Error says why bytes are not what they should be.
type Error struct {
	Where  string // the kind of frame, and the field
	Reason string
}

func (e *Error) Error() string { return "malformed " + e.Where + ": " + e.Reason }
