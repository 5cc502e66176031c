package wire_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/gravbus/gravbus/internal/wire"
)

// A golden is a frame whose bytes are in testdata.
type golden struct {
	name   string
	kind   wire.Kind
	value  any
	layout []string
}

// The handshake of the golden files is a true one, between these nodes, with this key and binding.
var (
	goldenKey      = seq32(0x00)
	goldenBinding  = []byte("binding")
	goldenDialler  = wire.ID{0x01, 0x93, 0xa7, 0x2e, 0x10, 0x00, 0x70, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0x0d}
	goldenListener = wire.ID{0x01, 0x93, 0xa7, 0x2e, 0x10, 0x00, 0x70, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0x1e}

	goldenHelloD = wire.Hello{
		MinVersion: 1, MaxVersion: 1, Node: goldenDialler, Mesh: "lan", Nonce: seq32(0x40),
		MaxMessage: 1 << 20, WindowCount: 4096, WindowCost: 4 << 20,
	}
	goldenHelloL = wire.Hello{
		MinVersion: 1, MaxVersion: 2, Node: goldenListener, Mesh: "lan", Nonce: seq32(0x80),
		MaxMessage: 1 << 20, WindowCount: 4096, WindowCost: 4 << 20,
		Endpoints:    []string{"ws://10.0.0.2:8080/meta/message", "ws://10.1.0.2:8080/meta/message"},
		Capabilities: []string{"gpu"},
		Name:         "b",
	}
)

func seq32(from byte) (b [32]byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

// proofOf computes a MAC as docs/WIRE.md says.
func proofOf(key []byte, label string, helloD, helloL, binding []byte) (sum [32]byte) {
	mac := hmac.New(sha256.New, key)
	var padded [32]byte
	copy(padded[:], label)
	mac.Write(padded[:])
	for _, body := range [][]byte{helloD, helloL} {
		hash := sha256.Sum256(body)
		mac.Write(hash[:])
	}
	mac.Write(binary.AppendUvarint(nil, uint64(len(binding))))
	mac.Write(binding)
	mac.Sum(sum[:0])
	return sum
}

// body returns the body of a frame whose length has the shortest form.
func body(frame []byte) []byte {
	_, body, _, err := wire.Next(frame)
	if err != nil {
		panic(err)
	}
	return body
}

var frameLayout = []string{"byte kind", "uvarint length"}

func layout(fields ...string) []string { return append(frameLayout[:2:2], fields...) }

func goldens() []golden {
	helloD, helloL := body(wire.AppendHello(nil, &goldenHelloD)), body(wire.AppendHello(nil, &goldenHelloL))
	proof := func(label string) [32]byte { return proofOf(goldenKey[:], label, helloD, helloL, goldenBinding) }
	hello := []string{
		"uvarint min version", "uvarint max version", "raw16 node", "string mesh", "raw32 nonce", "uvarint max message",
		"uvarint window count", "uvarint window cost",
	}
	resume := []string{"uvarint stream", "uvarint known", "uvarint received"}
	reason := layout("uvarint code", "string reason")
	return []golden{
		{
			"hello", wire.KindHello, goldenHelloD,
			layout(append(hello, "uvarint endpoints", "uvarint capabilities", "string name")...),
		},
		{
			"hello-listener", wire.KindHello, goldenHelloL,
			layout(append(hello, "uvarint endpoints", "string endpoint", "string endpoint",
				"uvarint capabilities", "string capability", "string name")...),
		},
		{
			"proof", wire.KindProof,
			wire.Proof{MACs: [][32]byte{proof("gravbus.v1 dial")}, Resume: wire.Resume{Stream: 258}},
			layout(append([]string{"uvarint MACs", "raw32 MAC"}, resume...)...),
		},
		{
			"welcome", wire.KindWelcome,
			wire.Welcome{MAC: proof("gravbus.v1 listen"), Resume: wire.Resume{Stream: 772, Known: 258, Received: 10}},
			layout(append([]string{"uvarint key", "raw32 MAC"}, resume...)...),
		},
		{"use", wire.KindUse, wire.Use{}, layout()},
		{"refuse", wire.KindRefuse, wire.Refuse{Code: wire.CodeMesh, Reason: "this is mesh lan"}, reason},
		{"batch", wire.KindBatch, goldenMessages(), batchLayout},
		{"batch-items", wire.KindBatch, goldenItems(), itemsLayout},
		{"ack", wire.KindAck, wire.Ack{Seq: 300}, layout("uvarint seq")},
		{"ping", wire.KindPing, wire.Ping{Token: 7}, layout("uvarint token")},
		{"pong", wire.KindPong, wire.Pong{Token: 7}, layout("uvarint token")},
		{
			"interest", wire.KindInterest,
			wire.Interest{Reset: true, Done: true, Entries: []wire.Entry{
				{Allow: []string{"orders.>"}, Deny: []string{"orders.internal.*"}},
				{Observer: true, Allow: []string{">"}},
				{Group: "workers", Allow: []string{"jobs.resize", "jobs.crop"}},
			}},
			layout("byte flags (reset, done)", "uvarint entries",
				"byte flags", "string group", "uvarint allow", "string pattern", "uvarint deny", "string pattern",
				"byte flags (observer)", "string group", "uvarint allow", "string pattern", "uvarint deny",
				"byte flags", "string group", "uvarint allow", "string pattern", "string pattern", "uvarint deny"),
		},
		{
			"interest-change", wire.KindInterest,
			wire.Interest{Entries: []wire.Entry{{Remove: true, Observer: true, Allow: []string{">"}}}},
			layout("byte flags", "uvarint entries",
				"byte flags (remove, observer)", "string group", "uvarint allow", "string pattern", "uvarint deny"),
		},
		{
			"replay", wire.KindReplay,
			wire.Replay{ID: 3, Allow: []string{"orders.>"}, Last: 100, Since: wire.NoTime},
			layout("uvarint ID", "uvarint allow", "string pattern", "uvarint deny", "uvarint types", "uvarint last",
				"varint since", "string after"),
		},
		{
			"peers", wire.KindPeers,
			wire.Peers{Nodes: []wire.Peer{{Node: goldenListener, Endpoints: goldenHelloL.Endpoints}}},
			layout("uvarint nodes", "raw16 node", "uvarint endpoints", "string endpoint", "string endpoint"),
		},
		{"withdraw", wire.KindWithdraw, wire.Withdraw{}, layout()},
		{"bye", wire.KindBye, wire.Bye{Code: wire.CodeLeaving, Reason: "withdrawn"}, reason},
	}
}

// goldenTime is 2026-11-20T08:00:00Z.
const goldenTime = 1795161600_000_000_000

func goldenMessages() batch {
	id := func(n byte) wire.ID { return wire.ID{0x01, 0x9a, 0x9f, 0x70, 0x98, 0x00, 0x70, 15: n} }
	message := func(seq uint64, m wire.Message) wire.Item {
		m.ID = id(byte(seq))
		return wire.Item{Seq: seq, Tag: m.Flags, Message: m}
	}
	return batch{First: 1, Items: []wire.Item{
		message(1, wire.Message{Type: "orders.created", Time: goldenTime, Data: []byte("one")}),
		message(2, wire.Message{Type: "orders.created", Time: goldenTime + 1500, Data: []byte("two")}),
		message(3, wire.Message{
			Flags: wire.FlagReplyTo | wire.FlagAnswer, Type: "orders.ack", TypeNum: 1, Time: goldenTime + 1400, ReplyTo: id(1),
		}),
		message(4, wire.Message{
			Flags: wire.FlagRare | wire.FlagSkip, Type: "orders.created", Time: wire.NoTime, Data: []byte("four"),
			Rare: &wire.Rare{
				Parent: "request 42", Name: "four", ReplyTo: "one", From: 5, Groups: []string{"a", "b"},
				Replay: 6, Covered: []uint64{7, 300},
			},
		}),
	}}
}

var (
	batchLayout = layout(
		"uvarint first",
		"uvarint item length", "byte tag", "raw16 ID", "varint time", "byte type (new, gets number 2)", "string type", "text3 data",
		"uvarint item length", "byte tag", "raw16 ID", "varint time", "uvarint type", "text3 data",
		"uvarint item length", "byte tag (reply to, answer)", "raw16 ID", "varint time",
		"byte type (new, gets number 3)", "string type", "raw16 reply to",
		"uvarint item length", "byte tag (rare, skip)", "raw16 ID", "varint time", "uvarint type",
		"byte field (parent)", "string value", "byte field (name)", "string value", "byte field (reply to)", "string value",
		"byte field (from)", "uvarint value length", "uvarint value",
		"byte field (groups)", "string value", "byte field (groups)", "string value",
		"byte field (replay)", "uvarint value length", "uvarint value",
		"byte field (covered)", "uvarint value length", "uvarint value",
		"byte field (covered)", "uvarint value length", "uvarint value",
		"byte end of fields", "text4 data",
	)

	itemsLayout = layout(
		"uvarint first",
		"uvarint item length", "byte tag (gap)", "uvarint count", "raw16 from", "raw16 to",
		"uvarint item length", "byte tag (replay end)", "uvarint ID",
		"uvarint item length", "byte tag (targets)", "raw16 request", "uvarint targets",
		"uvarint pods", "uvarint pod", "string name",
		"uvarint pods", "uvarint pod", "string name", "uvarint pod", "string name",
		"uvarint item length", "byte tag (gone)", "uvarint pod",
	)
)

func goldenItems() batch {
	id := func(n byte) wire.ID { return wire.ID{15: n} }
	return batch{First: 1000, Items: []wire.Item{
		{Seq: 1000, Tag: wire.TagGap, Gap: wire.Gap{Count: 9, From: id(1), To: id(9)}},
		{Seq: 1001, Tag: wire.TagReplayEnd, ReplayEnd: 3},
		{Seq: 1002, Tag: wire.TagTargets, Targets: wire.Targets{Request: id(10), List: []wire.Target{
			{Pods: []uint64{4}, Names: []string{"billing"}},
			{Pods: []uint64{5, 600}, Names: []string{"worker 1", "worker 2"}},
		}}},
		{Seq: 1003, Tag: wire.TagGone, Gone: 4},
	}}
}

// goldenBodies calls fn for each golden frame.
func goldenBodies(fn func(name string, kind wire.Kind, body []byte)) {
	for _, g := range goldens() {
		kind, body, rest, err := wire.Next(appendAny(nil, g.kind, g.value))
		if err != nil || len(rest) > 0 {
			panic(fmt.Sprint(g.name, err, rest))
		}
		fn(g.name, kind, body)
	}
}
