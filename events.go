package gravbus

import (
	"encoding/json"
	"time"
)

// Types of the bus's own messages. They stay on the node, are not replayed, and match only patterns
// that begin with "gravbus": On alone does not get them. A pod that cannot keep up with them loses
// the oldest; they make nobody wait. Decode gives their payload.
const (
	// MsgTypeLagged is the notice that a pod gets in the place of messages it lost, whatever its
	// patterns; its payload is a Lagged.
	MsgTypeLagged = "gravbus.lagged"
	// EventPodLagged (payload Lagged) follows each such notice, unless it would come to the one who
	// lost the messages: whoever wants this type is told of losses of others.
	EventPodLagged = "gravbus.pod.lagged"
	// EventPodSlow (payload PodEvent) says that a pod has stalled: from now on its oldest messages
	// give way.
	EventPodSlow = "gravbus.pod.slow"
	// EventPodPanic (payload PodEvent) says that a handler has panicked.
	EventPodPanic = "gravbus.pod.panic"
	// EventPodFailed (payload PodEvent) says that a pod was disconnected because it kept too many
	// failures.
	EventPodFailed = "gravbus.pod.failed"
	// EventDeadLetter (payload DeadLetter) carries a message that a pod could not handle.
	EventDeadLetter = "gravbus.deadletter"
	// EventRefused (payload Refused) says that a message was too large, or could not be encoded
	// for a peer.
	EventRefused = "gravbus.message.refused"
	// EventPeerUp (payload PeerEvent) says that a peer is connected, and what it wants is known.
	EventPeerUp = "gravbus.peer.up"
	// EventPeerDown (payload PeerEvent) says that a peer has lost its connection. What is sent to
	// it is kept.
	EventPeerDown = "gravbus.peer.down"
	// EventPeerLost (payload PeerEvent) says that a peer has left or is given up.
	EventPeerLost = "gravbus.peer.lost"
	// EventPeerSlow (payload PeerEvent) says that a peer has stalled: from now on the oldest
	// messages to it give way.
	EventPeerSlow = "gravbus.peer.slow"
	// EventPeerGap (payload Gap) says that messages on their way to or from a peer were lost.
	EventPeerGap = "gravbus.peer.gap"
	// EventPeerRefused (payload PeerEvent) says that a connection, dialled or accepted, did not
	// become a link: a stranger, a wrong key, a foreign mesh.
	EventPeerRefused = "gravbus.peer.refused"
)

// PeerEvent tells that something happened to a peer.
type PeerEvent struct {
	Peer   PeerInfo `json:"peer"`             // may be empty for one that was refused
	Remote string   `json:"remote,omitempty"` // address of one that was refused
	Error  string   `json:"error,omitempty"`  // why
}

// Gap tells that Count messages between a peer and this node were lost, in the order in which they
// were sent. If the peer was given up, some of them may have reached it.
type Gap struct {
	Peer     string `json:"peer"`     // UUID of the node
	Incoming bool   `json:"incoming"` // they were on their way from the peer, otherwise to it
	From     string `json:"from"`     // UUID of the first
	To       string `json:"to"`       // UUID of the last
	Count    uint64 `json:"count"`
}

// Lagged tells what a pod has lost: Count messages, in the order in which it would have received
// them. What is still in the Buffer can be read there, after the last message received.
type Lagged struct {
	Pod   string `json:"pod"`
	From  string `json:"from"` // UUID of the first
	To    string `json:"to"`   // UUID of the last
	Count uint64 `json:"count"`
}

// PodEvent tells that something happened to a pod.
type PodEvent struct {
	Pod   string `json:"pod"`
	Type  string `json:"type,omitempty"`  // of the message that was handled
	UUID  string `json:"uuid,omitempty"`  // of the message that was handled
	Error string `json:"error,omitempty"` // what went wrong
	Stack string `json:"stack,omitempty"` // of a panic
}

// Refused tells of a message that was refused.
type Refused struct {
	Pod   string `json:"pod"` // that wanted to send it
	Type  string `json:"type"`
	UUID  string `json:"uuid"`
	Size  int    `json:"size"`            // bytes of data
	Limit int    `json:"limit"`           // bytes of data
	Peer  string `json:"peer,omitempty"`  // UUID of the node that it could not be sent to; empty if it was not sent at all
	Error string `json:"error,omitempty"` // why it could not be sent to Peer
}

// DeadLetter is a message that a pod could not handle.
type DeadLetter struct {
	Pod      string
	Message  Message
	Attempts int    // handler calls it had; 0 if it was still waiting when the pod was disconnected for its failures
	Error    string // of the last attempt
	Time     time.Time
}

type deadLetterJSON struct {
	Pod      string          `json:"pod"`
	Message  json.RawMessage `json:"message"`
	Attempts int             `json:"attempts"`
	Error    string          `json:"error"`
	Time     time.Time       `json:"time"`
}

// MarshalJSON encodes the letter with its message in JSON form.
func (d DeadLetter) MarshalJSON() ([]byte, error) {
	msg, err := d.Message.Marshal()
	if err != nil {
		return nil, err
	}
	return json.Marshal(deadLetterJSON{d.Pod, msg, d.Attempts, d.Error, d.Time})
}

// UnmarshalJSON decodes what MarshalJSON encodes.
func (d *DeadLetter) UnmarshalJSON(b []byte) error {
	var j deadLetterJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	msg, err := MsgFromBytes(j.Message)
	if err != nil {
		return err
	}
	*d = DeadLetter{j.Pod, msg, j.Attempts, j.Error, j.Time}
	return nil
}
