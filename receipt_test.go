package gravbus_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
)

// fromOneSource returns n messages that were made from the same bytes, as those of a client that tries again.
func fromOneSource(t testing.TB, n int) (msgs []gravbus.Message) {
	t.Helper()
	bytes, err := gravbus.NewMsg("ask", nil).Marshal()
	must(t, err)
	for range n {
		msg, err := gravbus.MsgFromBytes(bytes)
		must(t, err)
		msgs = append(msgs, msg)
	}
	return msgs
}

// Of two messages with one UUID each has the answers that were made to it, whoever waits at the same time and however.
func TestGuarantee7TwoMessagesOfOneUUID(t *testing.T) {
	waits := map[string]func(context.Context, *gravbus.Receipt) (gravbus.Message, error){
		"Wait": func(ctx context.Context, r *gravbus.Receipt) (gravbus.Message, error) { return r.Wait(ctx) },
		"WaitUntil": func(_ context.Context, r *gravbus.Receipt) (got gravbus.Message, err error) {
			err = r.WaitUntil(gravbus.Timeout(1), func(msg gravbus.Message) error { got = msg; return nil })
			return got, err
		},
		"OnReply": func(ctx context.Context, r *gravbus.Receipt) (gravbus.Message, error) {
			got := make(chan gravbus.Message, 1)
			if err := r.OnReply(func(msg gravbus.Message) error { got <- msg; return nil }); err != nil {
				return nil, err
			}
			select {
			case msg := <-got:
				return msg, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
	for name, wait := range waits {
		for _, when := range []string{"before", "while the other one waits", "while both wait"} {
			t.Run(name+"/"+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					bus := testBus(t)
					other := bus.Connect()
					msgs := fromOneSource(t, 2)
					receipts := []*gravbus.Receipt{bus.Connect().Send(msgs[0]), bus.Connect().Send(msgs[1])}
					answer := func(i int) { other.ReplyTo(msgs[i], nth("answer", 0, i)) }
					done := make(chan string, 2)
					begin := func(i int) {
						go func() {
							msg, err := wait(ctx, receipts[i])
							if err != nil {
								done <- fmt.Sprintf("waiting for answer %d: %v", i, err)
							} else if _, n := numberOf(msg); n != i {
								done <- fmt.Sprintf("answer %d went to who asked %d", n, i)
							} else {
								done <- ""
							}
						}()
						synctest.Wait()
					}
					switch when {
					case "before":
						answer(0)
						answer(1)
						begin(0)
						begin(1)
					case "while the other one waits":
						begin(0)
						answer(1)
						begin(1)
						answer(0)
					case "while both wait":
						begin(0)
						begin(1)
						answer(1)
						answer(0)
					}
					for range 2 {
						if fault := <-done; fault != "" {
							t.Error(fault)
						}
					}
				})
			})
		}
	}
}

// An answer that names its question by UUID alone goes to all who wait for one to that UUID: it answers each of them.
func TestGuarantee7AnswerByUUIDToTwoMessages(t *testing.T) {
	makes := map[string]func() []gravbus.Message{
		"bytes": func() []gravbus.Message { return fromOneSource(t, 2) },
		"foreign": func() []gravbus.Message {
			msg := &foreign{Message: gravbus.NewMsg("ask", nil)}
			return []gravbus.Message{msg, msg}
		},
	}
	for name, msgs := range makes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				bus := testBus(t)
				waits := make(chan error, 2)
				var id string
				for _, msg := range msgs() {
					id = msg.UUID()
					receipt := bus.Connect().Send(msg)
					go func() {
						_, err := receipt.Wait(ctx)
						waits <- err
					}()
				}
				synctest.Wait()
				answer := gravbus.NewMsg("answer", nil)
				answer.SetReplyTo(id)
				bus.Connect().Send(answer)
				for range 2 {
					must(t, <-waits)
				}
			})
		})
	}
}

// Functions of OnReply end with the pod: a reply that comes later is for whoever waits.
func TestGuarantee9OnReplyEndsWithThePod(t *testing.T) {
	for _, byUUID := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			bus := testBus(t)
			pod, other := bus.Connect(), bus.Connect()
			msg := gravbus.NewMsg("ask", nil)
			receipt := pod.Send(msg)
			calls := 0
			must(t, receipt.OnReply(func(gravbus.Message) error { calls++; return gravbus.ErrMsgNotWanted }))
			answer := func() {
				reply := gravbus.NewMsg("answer", nil)
				if byUUID {
					reply.SetReplyTo(msg.UUID())
					other.Send(reply)
				} else {
					other.ReplyTo(msg, reply)
				}
				synctest.Wait()
			}
			answer()
			pod.Disconnect()
			answer()
			answer()
			if calls != 1 {
				t.Errorf("%d calls, one before the end", calls)
			}
			for range 2 {
				if _, err := receipt.Wait(t.Context()); err != nil {
					t.Errorf("a reply was lost: %v", err)
				}
			}
		})
	}
}

// A function of OnReply that ends its goroutine is told of like one that panics, and is forgotten: it does not hold up the reply.
func TestGuarantee6OnReplyCannotHurt(t *testing.T) {
	for name, fn := range map[string]gravbus.MsgFunc{
		"panic":  func(gravbus.Message) error { panic("boom") },
		"Goexit": func(gravbus.Message) error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := testBus(t)
				pod, other, watcher := bus.Connect(gravbus.Name("asking")), bus.Connect(), bus.Connect()
				var events recorder
				must(t, watcher.OnType(gravbus.EventPodPanic, events.handle))
				msg := gravbus.NewMsg("ask", nil)
				receipt := pod.Send(msg)
				must(t, receipt.OnReply(fn))
				reply := gravbus.NewMsg("answer", nil)
				other.ReplyTo(msg, reply)
				event, err := gravbus.Decode[gravbus.PodEvent](events.await(t, 1)[0])
				must(t, err)
				if event.Pod != "asking" || event.UUID != reply.UUID() || event.Stack == "" {
					t.Errorf("event %+v", event)
				}
				// Nobody waits any more: what names the message by UUID is kept for who comes.
				late := gravbus.NewMsg("answer", nil)
				late.SetReplyTo(msg.UUID())
				other.Send(late)
				synctest.Wait()
				if got, err := receipt.Wait(t.Context()); err != nil || got.UUID() != late.UUID() {
					t.Errorf("the next reply: %v, %v", got, err)
				}
			})
		})
	}
}
