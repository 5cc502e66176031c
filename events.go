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
	// EventPodLagged (payload Lagged) follows each such notice.
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
	// EventRefused (payload Refused) says that a message was too large.
	EventRefused = "gravbus.message.refused"
)

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
	Size  int    `json:"size"`  // bytes of data
	Limit int    `json:"limit"` // bytes of data
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
