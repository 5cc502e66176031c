package wire_test

import (
	"errors"
	"testing"

	"github.com/gravbus/gravbus/internal/wire"
)

// batch is a Batch as a value.
type batch struct {
	First uint64
	Items []wire.Item
}

// appendAny appends a frame. A batch is encoded as the first one of a connection.
func appendAny(b []byte, kind wire.Kind, v any) []byte {
	switch v := v.(type) {
	case wire.Hello:
		return wire.AppendHello(b, &v)
	case wire.Proof:
		return wire.AppendProof(b, &v)
	case wire.Welcome:
		return wire.AppendWelcome(b, &v)
	case wire.Use:
		return wire.AppendUse(b)
	case wire.Refuse:
		if kind == wire.KindBye {
			return wire.AppendBye(b, &v)
		}
		return wire.AppendRefuse(b, &v)
	case batch:
		return appendBatch(b, new(wire.BatchWriter), v)
	case wire.Ack:
		return wire.AppendAck(b, v.Seq)
	case wire.Ping:
		return wire.AppendPing(b, v.Token)
	case wire.Pong:
		return wire.AppendPong(b, v.Token)
	case wire.Interest:
		return wire.AppendInterest(b, &v)
	case wire.Replay:
		return wire.AppendReplay(b, &v)
	case wire.Peers:
		return wire.AppendPeers(b, &v)
	case wire.Withdraw:
		return wire.AppendWithdraw(b)
	}
	panic("no frame")
}

// decodeAny decodes the body of a frame, a batch as the first one of a connection. The value is nil
// for a kind that is not known.
func decodeAny(kind wire.Kind, body []byte) (any, error) {
	switch kind {
	case wire.KindHello:
		return wire.DecodeHello(body)
	case wire.KindProof:
		return wire.DecodeProof(body)
	case wire.KindWelcome:
		return wire.DecodeWelcome(body)
	case wire.KindUse:
		return wire.Use{}, nil
	case wire.KindRefuse, wire.KindBye:
		return wire.DecodeRefuse(body)
	case wire.KindBatch:
		return decodeBatch(new(wire.BatchReader), body)
	case wire.KindAck:
		seq, err := wire.DecodeAck(body)
		return wire.Ack{Seq: seq}, err
	case wire.KindPing:
		token, err := wire.DecodePing(body)
		return wire.Ping{Token: token}, err
	case wire.KindPong:
		token, err := wire.DecodePong(body)
		return wire.Pong{Token: token}, err
	case wire.KindInterest:
		return wire.DecodeInterest(body)
	case wire.KindReplay:
		return wire.DecodeReplay(body)
	case wire.KindPeers:
		return wire.DecodePeers(body)
	case wire.KindWithdraw:
		return wire.Withdraw{}, nil
	}
	return nil, nil
}

func appendBatch(b []byte, w *wire.BatchWriter, v batch) []byte {
	b = w.Begin(b, v.First)
	for i := range v.Items {
		switch it := &v.Items[i]; {
		case it.Tag < wire.TagGap:
			b = w.Message(b, &it.Message)
		case it.Tag == wire.TagGap:
			b = w.Gap(b, &it.Gap)
		case it.Tag == wire.TagReplayEnd:
			b = w.ReplayEnd(b, it.ReplayEnd)
		case it.Tag == wire.TagTargets:
			b = w.Targets(b, &it.Targets)
		case it.Tag == wire.TagGone:
			b = w.Gone(b, it.Gone)
		default:
			panic("no item")
		}
	}
	return w.End(b)
}

// decodeBatch gives each item memory of its own.
func decodeBatch(r *wire.BatchReader, body []byte) (batch, error) {
	var v batch
	var err error
	if v.First, err = r.Begin(body); err != nil {
		return batch{}, err
	}
	for {
		var it wire.Item
		ok, err := r.Next(&it)
		if err != nil {
			return batch{}, err
		}
		if !ok {
			return v, nil
		}
		if it.Message.Rare != nil {
			rare := *it.Message.Rare
			it.Message.Rare = &rare
		}
		v.Items = append(v.Items, it)
	}
}

// one takes a packet of one frame apart.
func one(t testing.TB, packet []byte) (wire.Kind, []byte) {
	t.Helper()
	kind, body, rest, err := wire.Next(packet)
	if err != nil || len(rest) > 0 {
		t.Fatalf("%x: %v, and %d bytes are left", packet, err, len(rest))
	}
	return kind, body
}

// wantMalformed fails the test unless err is an *Error that says where and why.
func wantMalformed(t testing.TB, err error) *wire.Error {
	t.Helper()
	var malformed *wire.Error
	if !errors.As(err, &malformed) {
		t.Fatalf("%v is no *wire.Error", err)
	}
	if malformed.Where == "" || malformed.Reason == "" {
		t.Fatalf("%#v does not say what is wrong", malformed)
	}
	return malformed
}
