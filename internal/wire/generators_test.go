package wire_test

import (
	"math"

	"pgregory.net/rapid"

	"github.com/gravbus/gravbus/internal/wire"
)

// Generators of frames that keep to the bounds.
var (
	number = rapid.OneOf(rapid.Uint64Range(0, 300), rapid.Uint64())
	name   = rapid.OneOf(rapid.StringN(0, 8, 8), rapid.StringN(0, -1, wire.MaxName))
	names  = listOf(name, 8)

	anyHello = rapid.Custom(func(t *rapid.T) any {
		return wire.Hello{
			MinVersion:   rapid.Uint64Range(0, 5).Draw(t, "min"),
			MaxVersion:   rapid.Uint64Range(5, math.MaxUint64).Draw(t, "max"),
			Node:         anyID.Draw(t, "node"),
			Mesh:         name.Draw(t, "mesh"),
			Nonce:        raw32.Draw(t, "nonce"),
			MaxMessage:   number.Draw(t, "max message"),
			WindowCount:  number.Draw(t, "window count"),
			WindowCost:   number.Draw(t, "window cost"),
			Endpoints:    listOf(name, wire.MaxEndpoints).Draw(t, "endpoints"),
			Capabilities: listOf(rapid.StringN(0, 8, 8), wire.MaxCapabilities).Draw(t, "capabilities"),
			Name:         name.Draw(t, "name"),
		}
	})

	anyProof = rapid.Custom(func(t *rapid.T) any {
		return wire.Proof{MACs: listOf(raw32, wire.MaxKeys).Draw(t, "MACs"), Resume: anyResume.Draw(t, "resume")}
	})

	anyWelcome = rapid.Custom(func(t *rapid.T) any {
		return wire.Welcome{
			Key:    number.Draw(t, "key"),
			MAC:    raw32.Draw(t, "MAC"),
			Resume: anyResume.Draw(t, "resume"),
		}
	})

	anyResume = rapid.Custom(func(t *rapid.T) wire.Resume {
		return wire.Resume{
			Stream:   rapid.Uint64Min(1).Draw(t, "stream"),
			Known:    number.Draw(t, "known"),
			Received: rapid.Uint64Max(math.MaxInt64).Draw(t, "received"),
		}
	})

	anyRefuse = rapid.Custom(func(t *rapid.T) any {
		return wire.Refuse{Code: wire.Code(number.Draw(t, "code")), Reason: name.Draw(t, "reason")}
	})

	anyInterest = rapid.Custom(func(t *rapid.T) any {
		return wire.Interest{
			Reset:   rapid.Bool().Draw(t, "reset"),
			Done:    rapid.Bool().Draw(t, "done"),
			Entries: listOf(anyEntry, 8).Draw(t, "entries"),
		}
	})

	anyEntry = rapid.Custom(func(t *rapid.T) wire.Entry {
		return wire.Entry{
			Remove:   rapid.Bool().Draw(t, "remove"),
			Observer: rapid.Bool().Draw(t, "observer"),
			Group:    name.Draw(t, "group"),
			Allow:    names.Draw(t, "allow"),
			Deny:     names.Draw(t, "deny"),
		}
	})

	anyReplay = rapid.Custom(func(t *rapid.T) any {
		return wire.Replay{
			ID:    number.Draw(t, "ID"),
			Allow: names.Draw(t, "allow"),
			Deny:  names.Draw(t, "deny"),
			Types: names.Draw(t, "types"),
			Last:  number.Draw(t, "last"),
			Since: anyTime.Draw(t, "since"),
			After: name.Draw(t, "after"),
		}
	})

	anyPeers = rapid.Custom(func(t *rapid.T) any {
		return wire.Peers{Nodes: listOf(anyPeer, 8).Draw(t, "nodes")}
	})

	anyPeer = rapid.Custom(func(t *rapid.T) wire.Peer {
		return wire.Peer{
			Node:      anyID.Draw(t, "node"),
			Endpoints: listOf(name, wire.MaxEndpoints).Draw(t, "endpoints"),
		}
	})

	anyItem = rapid.Custom(func(t *rapid.T) wire.Item {
		it := wire.Item{Tag: wire.TagMessage}
		switch rapid.IntRange(0, 9).Draw(t, "item") {
		case 0:
			it.Tag = wire.TagGap
			it.Gap = wire.Gap{Count: number.Draw(t, "count"), From: anyID.Draw(t, "from"), To: anyID.Draw(t, "to")}
		case 1:
			it.Tag = wire.TagReplayEnd
			it.ReplayEnd = number.Draw(t, "ID")
		case 2:
			it.Tag = wire.TagTargets
			it.Targets = wire.Targets{Request: anyID.Draw(t, "request"), List: listOf(anyTarget, 4).Draw(t, "list")}
		case 3:
			it.Tag = wire.TagGone
			it.Gone = number.Draw(t, "pod")
		default:
			it.Message = anyMessage.Draw(t, "message")
			it.Tag = it.Message.Flags
		}
		return it
	})

	anyTarget = rapid.Custom(func(t *rapid.T) wire.Target {
		pods := rapid.SliceOfN(number, 1, 4).Draw(t, "pods")
		return wire.Target{Pods: pods, Names: rapid.SliceOfN(name, len(pods), len(pods)).Draw(t, "names")}
	})

	// anyMessage takes its types from few, so that they get numbers.
	anyMessage = rapid.Custom(func(t *rapid.T) wire.Message {
		m := wire.Message{
			ID:    anyID.Draw(t, "ID"),
			Flags: byte(rapid.IntRange(0, 127).Draw(t, "flags")) &^ wire.FlagRare,
			Type:  rapid.OneOf(rapid.SampledFrom([]string{"a", "a.b", "c"}), rapid.StringN(1, -1, wire.MaxName)).Draw(t, "type"),
			Time:  anyTime.Draw(t, "time"),
			Data:  listOf(rapid.Byte(), 300).Draw(t, "data"),
		}
		if m.Flags&wire.FlagReplyTo != 0 {
			m.ReplyTo = anyID.Draw(t, "reply to")
		}
		if rapid.Bool().Draw(t, "rare") {
			m.Flags |= wire.FlagRare
			m.Rare = &wire.Rare{
				Parent:  name.Draw(t, "parent"),
				Name:    name.Draw(t, "name"),
				ReplyTo: name.Draw(t, "reply to text"),
				From:    number.Draw(t, "from"),
				Groups:  listOf(rapid.StringN(1, -1, wire.MaxName), 3).Draw(t, "groups"),
				Replay:  number.Draw(t, "replay"),
				Covered: listOf(number, 3).Draw(t, "covered"),
			}
		}
		return m
	})

	anyTime = rapid.OneOf(
		rapid.Int64Range(goldenTime, goldenTime+1e9), rapid.Int64(),
		rapid.SampledFrom([]int64{wire.NoTime, math.MaxInt64, 0}),
	)

	anyID = rapid.Map(rapid.SliceOfN(rapid.Byte(), 16, 16), func(b []byte) wire.ID { return wire.ID(b) })
	raw32 = rapid.Map(rapid.SliceOfN(rapid.Byte(), 32, 32), func(b []byte) [32]byte { return [32]byte(b) })
)

// listOf generates lists up to a length, nil for empty ones.
func listOf[T any](element *rapid.Generator[T], limit int) *rapid.Generator[[]T] {
	return rapid.Map(rapid.SliceOfN(element, 0, limit), func(list []T) []T {
		if len(list) == 0 {
			return nil
		}
		return list
	})
}
