package gravbus_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
)

var errForeign = errors.New("a method of others")

// panicky is a message of others' making, one of whose methods panics.
type panicky struct {
	gravbus.Message
	in string
}

func (m *panicky) panics(in string) {
	if m.in == in {
		panic(errForeign)
	}
}

func (m *panicky) ParentID() string     { m.panics("ParentID"); return m.Message.ParentID() }
func (m *panicky) ReplyTo() string      { m.panics("ReplyTo"); return m.Message.ReplyTo() }
func (m *panicky) Timestamp() time.Time { m.panics("Timestamp"); return m.Message.Timestamp() }

// A message of others' making that panics when it is read for a peer panics in the goroutine that
// sends it, whoever writes to the link; the link goes on.
func TestMeshForeignMessagePanics(t *testing.T) {
	for _, busy := range []bool{false, true} {
		meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
			a, b := n.pair(gravbus.UseInterests("news"))
			_, got := meshListener(t, b, "news")
			meshWanted(t, a, "news", 1)
			p, sent := a.Connect(), 0
			must(t, p.OnType("go", func(msg gravbus.Message) error {
				p.Send(&panicky{gravbus.NewMsg("news", nil), string(msg.Data())})
				t.Errorf("Send returned")
				return nil
			}))
			other := a.Connect()
			for i, in := range []string{"ParentID", "Timestamp", "ReplyTo"} {
				time.Sleep(time.Second) // all is acknowledged
				if busy {
					for range 100 {
						other.Send(nth("news", 1, sent))
						sent++
					}
				}
				other.Send(gravbus.NewMsg("go", []byte(in)))
				synctest.Wait()
				if s := a.Stats(); s.Panics != uint64(i+1) {
					t.Errorf("%s: %d panics are counted", in, s.Panics)
				}
				func() {
					defer func() {
						if v := recover(); v != any(errForeign) {
							t.Errorf("%s: Tunnel panics with %v", in, v)
						}
					}()
					a.Tunnel("news", &panicky{gravbus.NewMsg("news", nil), in})
				}()
				other.Send(nth("news", 1, sent))
				sent++
			}
			time.Sleep(time.Second)
			if all := numbers(t, got.all()); !slices.Equal(all, span(0, sent-1)) {
				t.Errorf("busy %v: got %v", busy, all)
			}
		})
	}
}

// A replay passes over such a message, and it is told as refused.
func TestMeshForeignMessagePanicsInReplay(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		_, refused := meshListener(t, a, gravbus.EventRefused)
		p := a.Connect()
		p.Send(nth("t", 1, 0))
		p.Send(&panicky{gravbus.NewMsg("t", nil), "ParentID"})
		p.Send(&panicky{nth("t", 1, 1), ""})
		var got recorder
		must(t, b.ConnectWithReplay().OnType("t", got.handle))
		time.Sleep(time.Second)
		p.Send(nth("t", 1, 2))
		time.Sleep(time.Second)
		if all := numbers(t, got.all()); !slices.Equal(all, span(0, 2)) {
			t.Errorf("got %v", all)
		}
		if e := refused.all(); len(e) != 1 || a.Stats().Refused != 1 {
			t.Errorf("told of %d refused messages, counted %d", len(e), a.Stats().Refused)
		} else if r, err := gravbus.Decode[gravbus.Refused](e[0]); err != nil || r.Type != "t" || r.Peer != b.NodeUUID || r.Error == "" {
			t.Errorf("told %+v, %v", r, err)
		}
	})
}
