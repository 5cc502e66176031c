package gravbus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
	"github.com/sirupsen/logrus"
)

// Every way to answer reaches every way to wait, across a link.
func TestMeshRequestWaysToAnswer(t *testing.T) {
	answers := map[string]func(p *gravbus.Pod, msg gravbus.Message){
		"ReplyTo": func(p *gravbus.Pod, msg gravbus.Message) { p.ReplyTo(msg, gravbus.NewMsg("reply", []byte("yes"))) },
		"SetReplyTo": func(p *gravbus.Pod, msg gravbus.Message) {
			m := gravbus.NewMsg("reply", []byte("yes"))
			m.SetReplyTo(msg.UUID())
			p.Send(m)
		},
		"from another pod": func(p *gravbus.Pod, msg gravbus.Message) {
			p.Send(gravbus.NewMsg("relay", []byte(msg.UUID())))
		},
		"foreign": func(p *gravbus.Pod, msg gravbus.Message) {
			p.ReplyTo(msg, &foreignMsg{id: "answer 1", typ: "reply", data: []byte("yes")})
		},
		"sent again": func(p *gravbus.Pod, msg gravbus.Message) {
			m := gravbus.NewMsg("reply", []byte("yes"))
			p.Send(m)
			p.ReplyTo(msg, m)
		},
		"typed": func(p *gravbus.Pod, msg gravbus.Message) {
			p.ReplyTo(msg, gravbus.NewTyped("reply", json.RawMessage("yes")))
		},
	}
	delete(answers, "typed") // is no JSON
	requests := map[string]func() gravbus.Message{
		"own":          func() gravbus.Message { return gravbus.NewMsg("ask", []byte("?")) },
		"foreign":      func() gravbus.Message { return &foreignMsg{id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", typ: "ask"} },
		"odd UUID":     func() gravbus.Message { return &foreignMsg{id: "question 7", typ: "ask", parent: "p"} },
		"with replyTo": func() gravbus.Message { m := gravbus.NewMsg("ask", nil); m.SetReplyTo("something else"); return m },
	}
	waits := map[string]func(p *gravbus.Pod, msg gravbus.Message) (string, error){
		"Request": func(p *gravbus.Pod, msg gravbus.Message) (string, error) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			rep, err := p.Request(ctx, msg)
			if err != nil {
				return "", err
			}
			return string(rep.Data()), nil
		},
		"RequestAll": func(p *gravbus.Pod, msg gravbus.Message) (got string, err error) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			for rep, e := range p.RequestAll(ctx, msg) {
				if e != nil {
					err = e
				} else {
					got += string(rep.Data())
				}
			}
			return got, err
		},
		"Wait late": func(p *gravbus.Pod, msg gravbus.Message) (string, error) {
			r := p.Send(msg)
			time.Sleep(10 * time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			rep, err := r.Wait(ctx)
			if err != nil {
				return "", err
			}
			return string(rep.Data()), nil
		},
		"WaitUntil late": func(p *gravbus.Pod, msg gravbus.Message) (got string, err error) {
			r := p.Send(msg)
			time.Sleep(10 * time.Second)
			err = r.WaitUntil(gravbus.Timeout(60), func(m gravbus.Message) error { got = string(m.Data()); return nil })
			return got, err
		},
		"OnReply": func(p *gravbus.Pod, msg gravbus.Message) (string, error) {
			got := make(chan string, 1)
			if err := p.Send(msg).OnReply(func(m gravbus.Message) error { got <- string(m.Data()); return nil }); err != nil {
				return "", err
			}
			select {
			case s := <-got:
				return s, nil
			case <-time.After(time.Minute):
				return "", errors.New("no reply")
			}
		},
	}
	for answer, reply := range answers {
		for request, ask := range requests {
			for name, wait := range waits {
				t.Run(answer+"/"+request+"/"+name, func(t *testing.T) {
					meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
						a, b := n.pair()
						p := b.Connect()
						must(t, p.OnType("ask", func(m gravbus.Message) error { reply(p, m); return nil }))
						other := b.Connect()
						must(t, other.OnType("relay", func(m gravbus.Message) error {
							rep := gravbus.NewMsg("reply", []byte("yes"))
							rep.SetReplyTo(string(m.Data()))
							other.Send(rep)
							return nil
						}))
						meshWanted(t, a, "ask", 1)
						asker := a.Connect()
						if name == "RequestAll" && answer == "from another pod" {
							t.Skip("RequestAll waits for the pods that it has asked")
						}
						got, err := wait(asker, ask())
						if err != nil || got != "yes" {
							t.Errorf("got %q, %v", got, err)
						}
						if s := a.Stats(); s.RepliesLost != 0 {
							t.Errorf("%d replies lost", s.RepliesLost)
						}
					})
				})
			}
		}
	}
}

// foreignMsg is a Message of others' making.
type foreignMsg struct {
	id, parent, replyTo, typ string
	at                       time.Time
	data                     []byte
}

func (m *foreignMsg) UUID() string              { return m.id }
func (m *foreignMsg) ParentID() string          { return m.parent }
func (m *foreignMsg) ReplyTo() string           { return m.replyTo }
func (m *foreignMsg) SetReplyTo(uuid string)    { m.replyTo = uuid }
func (m *foreignMsg) Type() string              { return m.typ }
func (m *foreignMsg) Timestamp() time.Time      { return m.at }
func (m *foreignMsg) Data() []byte              { return m.data }
func (m *foreignMsg) UnmarshalData(v any) error { return json.Unmarshal(m.data, v) }
func (m *foreignMsg) Marshal() ([]byte, error)  { return nil, errors.New("it has no JSON form") }
func (m *foreignMsg) Unmarshal([]byte) error    { return errors.New("it has no JSON form") }

// A message arrives as it was sent, all of it.
func TestMeshRequestMessagesArriveAsTheyWere(t *testing.T) {
	at := time.Date(2031, 5, 6, 7, 8, 9, 123456789, time.UTC)
	reply := gravbus.NewMsg("m.reply", []byte("x"))
	reply.SetReplyTo("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	odd := gravbus.NewMsg("m.odd", nil)
	odd.SetReplyTo("not a UUID")
	for _, m := range []gravbus.Message{
		gravbus.NewMsg("m.plain", []byte("data")),
		gravbus.NewMsg("m.empty", nil),
		gravbus.NewMsgWithParentID("m.parent", "request 42", []byte("x")),
		gravbus.NewMsgWithParentID("m.parent", strings.Repeat("p", 64<<10), []byte("x")),
		reply, odd,
		gravbus.NewTyped("m.typed", map[string]int{"a": 1}),
		&foreignMsg{id: "6ba7b810-9dad-11d1-80b4-00c04fd430c9", typ: "m.foreign", data: []byte("d"), at: at, replyTo: "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
		&foreignMsg{id: "odd", parent: "also odd", replyTo: "and this", typ: "m.foreign.odd"},
		gravbus.NewMsg("m.große.Größe.\U0001f600", []byte{0, 255}),
		gravbus.NewMsg("m."+strings.Repeat("x", 253), make([]byte, 1<<20)),
	} {
		t.Run(fmt.Sprintf("%.20s", m.Type()), func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair()
				e := meshWatch(t, a)
				_, got := meshListener(t, b, ">")
				meshWanted(t, a, m.Type(), 1)
				if _, err := a.Connect().SendContext(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				o := got.await(t, 1)[0]
				if o.UUID() != m.UUID() || o.ParentID() != m.ParentID() || o.ReplyTo() != m.ReplyTo() || o.Type() != m.Type() ||
					!o.Timestamp().Equal(m.Timestamp()) || string(o.Data()) != string(m.Data()) {
					t.Errorf("it has become %.200v", o)
				}
				e.want(t)
			})
		})
	}
}

// What cannot travel is a gap of one for the peer and is refused here; what comes before and after
// arrives, and the link stays.
func TestMeshRequestUnsendable(t *testing.T) {
	for _, c := range []struct {
		name string
		msg  func() gravbus.Message
	}{
		{"unencodable", func() gravbus.Message { return gravbus.NewTyped("t", func() {}) }},
		{"panicking", func() gravbus.Message { return gravbus.NewTyped("t", panickingJSON{}) }},
		{"too large", func() gravbus.Message { return gravbus.NewMsg("t", make([]byte, 1<<20+1)) }},
		{"parent too long", func() gravbus.Message { return gravbus.NewMsgWithParentID("t", strings.Repeat("p", 64<<10+1), nil) }},
		{"UUID too long", func() gravbus.Message { return &foreignMsg{id: strings.Repeat("u", 64<<10+1), typ: "t"} }},
		{"reply to too long", func() gravbus.Message {
			m := gravbus.NewMsg("t", nil)
			m.SetReplyTo(strings.Repeat("u", 64<<10+1))
			return m
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair()
				ea, eb := meshWatch(t, a), meshWatch(t, b)
				_, got := meshListener(t, b, "t")
				_, here := meshListener(t, a, "t")
				meshWanted(t, a, "t", 1)
				p := a.Connect()
				p.Send(nth("t", 1, 1))
				bad := c.msg()
				if p.Send(bad) == nil {
					t.Error("it is not sent at all")
				}
				p.Send(nth("t", 1, 2))
				time.Sleep(time.Minute)
				synctest.Wait()
				if all := numbers(t, got.all()); !slices.Equal(all, []int{1, 2}) {
					t.Errorf("the peer got %v", all)
				}
				if len(here.all()) != 3 {
					t.Errorf("here came %d", len(here.all()))
				}
				eb.want(t, "gap 1 in")
				all := ea.take()
				slices.Sort(all)
				if !slices.Equal(all, []string{"gap 1", "message refused"}) {
					t.Errorf("events %q, want the refusal and the gap", all)
				}
				if m := ea.last(gravbus.EventRefused); m != nil {
					r, err := gravbus.Decode[gravbus.Refused](m)
					if err != nil || r.Peer != b.NodeUUID || r.Error == "" || r.Type != "t" {
						t.Errorf("%+v, %v", r, err)
					}
				}
				if sa, sb := meshPeerOf(t, a, "b"), meshPeerOf(t, b, "a"); sa.Lost != 1 || sb.Lost != 1 || sa.Cuts != 0 {
					t.Errorf("stats: %d and %d lost, %d cuts", sa.Lost, sb.Lost, sa.Cuts)
				}
			})
		})
	}
}

type panickingJSON struct{}

func (panickingJSON) MarshalJSON() ([]byte, error) { panic("no JSON today") }

// A typed payload is encoded once for all peers, and not at all without one that wants it.
func TestMeshRequestTypedIsEncodedOnce(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		p := a.Connect()
		var count atomic.Int32
		p.Send(gravbus.NewTyped("t", countedJSON{&count}))
		synctest.Wait()
		if count.Load() != 0 {
			t.Error("encoded for nobody")
		}
		_, gotB := meshListener(t, b, "t")
		_, gotC := meshListener(t, c, "t")
		meshWanted(t, a, "t", 2)
		p.Send(gravbus.NewTyped("t", countedJSON{&count}))
		gotB.await(t, 1)
		gotC.await(t, 1)
		n.Cut("a", "b")
		meshUp(t, a, b, c)
		if count.Load() != 1 {
			t.Errorf("encoded %d times", count.Load())
		}
		if s := string(gotB.all()[0].Data()); s != `"counted"` {
			t.Errorf("it came as %s", s)
		}
	})
}

type countedJSON struct{ n *atomic.Int32 }

func (c countedJSON) MarshalJSON() ([]byte, error) {
	c.n.Add(1)
	return []byte(`"counted"`), nil
}

// Nobody who could answer: at once, however many watch.
func TestMeshRequestNoResponders(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 50 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b, _ := n.trio()
		asker := a.Connect()
		check := func(what string) {
			t.Helper()
			began := time.Now()
			if _, err := asker.Request(t.Context(), gravbus.NewMsg("ask", nil)); !errors.Is(err, gravbus.ErrNoResponders) {
				t.Errorf("%s: Request: %v", what, err)
			}
			for _, err := range asker.RequestAll(t.Context(), gravbus.NewMsg("ask", nil)) {
				if !errors.Is(err, gravbus.ErrNoResponders) {
					t.Errorf("%s: RequestAll: %v", what, err)
				}
			}
			if d := time.Since(began); d > 0 {
				t.Errorf("%s: it took %v", what, d)
			}
		}
		check("nobody")
		watcher, seen := meshListener(t, b, "ask", gravbus.Observer())
		meshWanted(t, a, "ask", 1)
		check("an observer")
		other, _ := meshListener(t, b, ">", gravbus.Observer())
		time.Sleep(time.Second)
		check("two observers")
		replier := meshReplier(t, b, "ask", "r")
		time.Sleep(time.Second)
		if rep, err := asker.Request(meshCtx(t, time.Minute), gravbus.NewMsg("ask", nil)); err != nil || string(rep.Data()) != "r" {
			t.Errorf("Request: %v, %v", rep, err)
		}
		replier.Disconnect()
		time.Sleep(time.Second)
		check("the replier has gone")
		time.Sleep(time.Second)
		watcher.Disconnect()
		other.Disconnect()
		time.Sleep(time.Second)
		check("all have gone")
		if len(seen.all()) != 7 {
			t.Errorf("the observer saw %d of 7", len(seen.all()))
		}
		asked := b.Connect()
		go asked.WaitUntil(gravbus.Timeout(5), func(m gravbus.Message) error {
			asked.ReplyTo(m, gravbus.NewMsg("reply", []byte("w")))
			return nil
		})
		time.Sleep(time.Second)
		if rep, err := asker.Request(meshCtx(t, time.Minute), gravbus.NewMsg("ask", nil)); err != nil || string(rep.Data()) != "w" {
			t.Errorf("a wait is asked: %v, %v", rep, err)
		}
		time.Sleep(10 * time.Second)
		check("the wait is over")
	})
}

// When the only ones who can answer are lost for good, a request ends.
func TestMeshRequestResponderIsLost(t *testing.T) {
	for _, how := range []string{"close", "shutdown", "silence"} {
		t.Run(how, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair(gravbus.UseResumeFor(20*time.Second), gravbus.UseDeadAfter(3*time.Second))
				meshListener(t, b, "ask") // and never answers
				meshWanted(t, a, "ask", 1)
				asker := a.Connect()
				began := time.Now()
				done := make(chan error, 1)
				go func() {
					_, err := asker.Request(context.Background(), gravbus.NewMsg("ask", nil))
					done <- err
				}()
				time.Sleep(time.Second)
				switch how {
				case "close":
					b.Close()
				case "shutdown":
					must(t, b.Shutdown(t.Context()))
				case "silence":
					n.Partition([]string{"a"}, []string{"b"})
				}
				err := awaitDone(t, 5*time.Minute, done)
				var pe *gravbus.PeerError
				if !errors.Is(err, gravbus.ErrPeerLost) || !errors.As(err, &pe) || pe.Peer != b.NodeUUID || pe.Op != "request" {
					t.Errorf("error %v", err)
				}
				if d := time.Since(began); how != "silence" && d > 2*time.Second || d > 30*time.Second {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

// A request that is too large for all who could answer fails at once; others do not.
func TestMeshRequestTooLarge(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 10 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b, c := n.node("a", ""), n.node("b", "a"), n.node("c", "a", gravbus.UseMaxMessageSize(4<<20))
		meshUp(t, a, b, c)
		meshReplier(t, b, "ask.b", "b")
		meshReplier(t, b, "ask.group", "group", gravbus.InGroup("g"))
		meshReplier(t, b, "ask.both", "b")
		meshReplier(t, c, "ask.both", "c")
		meshReplier(t, b, "ask.here", "b")
		meshReplier(t, a, "ask.here", "a")
		meshListener(t, b, "ask.silent")
		meshListener(t, c, "ask.silent")
		time.Sleep(time.Second)
		p, most := a.Connect(), gravbus.DefaultMaxMessageSize
		for _, c := range []struct {
			typ, want string
			size      int
		}{
			{"ask.b", "b", most},
			{"ask.b", "", most + 1},
			{"ask.group", "group", most},
			{"ask.group", "", most + 1},
			{"ask.both", "c", most + 1},
			{"ask.both", "", 4<<20 + 1},
			{"ask.here", "a", most + 1},
		} {
			began := time.Now()
			reply, err := p.Request(meshCtx(t, time.Minute), gravbus.NewMsg(c.typ, make([]byte, c.size)))
			var pe *gravbus.PeerError
			switch {
			case c.want != "":
				if err != nil || string(reply.Data()) != c.want {
					t.Errorf("%s of %d: %v, %v", c.typ, c.size, reply, err)
				}
			case !errors.Is(err, gravbus.ErrMessageTooLarge) || !errors.As(err, &pe) || pe.Op != "request" || pe.Peer == "" || time.Since(began) != 0:
				t.Errorf("%s of %d: %v after %v", c.typ, c.size, err, time.Since(began))
			}
		}
		for _, m := range []gravbus.Message{gravbus.NewTyped("ask.b", math.NaN()), gravbus.NewMsgWithParentID("ask.b", strings.Repeat("x", 64<<10+1), nil)} {
			if _, err := p.Request(meshCtx(t, time.Minute), m); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("what cannot be sent to a peer: %v", err)
			}
		}
		// Who asks all hears from those who can be sent it, and then who cannot.
		for _, c := range []struct {
			typ, want string
			size      int
			missing   int
		}{{"ask.both", "b c", most, 0}, {"ask.both", "c", most + 1, 1}, {"ask.both", "", 4<<20 + 1, 2}, {"ask.here", "a", most + 1, 1}} {
			began := time.Now()
			var got []string
			var missing *gravbus.MissingError
			for reply, err := range p.RequestAll(meshCtx(t, time.Minute), gravbus.NewMsg(c.typ, make([]byte, c.size))) {
				switch {
				case err == nil:
					got = append(got, string(reply.Data()))
				case !errors.Is(err, gravbus.ErrMessageTooLarge) || !errors.As(err, &missing):
					t.Errorf("all of %s of %d: %v", c.typ, c.size, err)
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != c.want || (missing == nil) != (c.missing == 0) || missing != nil && len(missing.Pods) != c.missing {
				t.Errorf("all of %s of %d: replies %v, then %v", c.typ, c.size, got, missing)
			}
			if d := time.Since(began); d > time.Second {
				t.Errorf("all of %s of %d took %v", c.typ, c.size, d)
			}
		}
		// Of those who can be sent it, all have gone.
		time.AfterFunc(time.Second, func() { c.Close() })
		if _, err := p.Request(meshCtx(t, time.Minute), gravbus.NewMsg("ask.silent", make([]byte, most+1))); !errors.Is(err, gravbus.ErrPeerLost) {
			t.Errorf("%v", err)
		}
	})
}

// With another one left who can answer, the request goes on.
func TestMeshRequestOneOfTwoIsLost(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		meshListener(t, b, "ask")
		slow := c.Connect()
		must(t, slow.OnType("ask", func(m gravbus.Message) error {
			time.Sleep(500 * time.Millisecond)
			slow.ReplyTo(m, gravbus.NewMsg("reply", []byte("c")))
			return nil
		}))
		meshWanted(t, a, "ask", 2)
		done := make(chan error, 1)
		go func() {
			rep, err := a.Connect().Request(context.Background(), gravbus.NewMsg("ask", nil))
			if err == nil && string(rep.Data()) != "c" {
				err = errors.New("from another")
			}
			done <- err
		}()
		time.Sleep(100 * time.Millisecond)
		b.Close()
		if err := awaitDone(t, time.Minute, done); err != nil {
			t.Error(err)
		}
	})
}

func meshCollect(ctx context.Context, p *gravbus.Pod, msg gravbus.Message) (got []string, err error) {
	for rep, e := range p.RequestAll(ctx, msg) {
		if e != nil {
			err = e
		} else {
			got = append(got, string(rep.Data()))
		}
	}
	slices.Sort(got)
	return got, err
}

// RequestAll ends when all have answered, wherever they are, and names who has not.
func TestMeshRequestAll(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 10 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		meshReplier(t, a, "ask", "a1")
		meshReplier(t, b, "ask", "b1")
		meshReplier(t, b, ">", "b2")
		meshReplier(t, c, "ask", "c1")
		meshReplier(t, c, "ask", "g1", gravbus.InGroup("g"))
		meshReplier(t, c, "ask", "g2", gravbus.InGroup("g"))
		meshListener(t, c, ">", gravbus.Observer(), gravbus.Name("observer"))
		meshListener(t, a, ">", gravbus.Observer(), gravbus.Name("observer"))
		meshWanted(t, a, "ask", 2)
		time.Sleep(time.Second)
		asker := a.Connect(gravbus.Name("asker"))
		must(t, asker.On(func(gravbus.Message) error { return nil }))
		for range 20 {
			began := time.Now()
			got, err := meshCollect(meshCtx(t, time.Minute), asker, gravbus.NewMsg("ask", nil))
			all := strings.Join(got, " ")
			if err != nil || all != "a1 b1 b2 c1 g1" && all != "a1 b1 b2 c1 g2" {
				t.Errorf("%q, %v", all, err)
			}
			if d := time.Since(began); d > 200*time.Millisecond {
				t.Errorf("it took %v", d)
			}
		}
		meshListener(t, b, "ask", gravbus.Name("silent"))
		here, _ := meshListener(t, a, "ask", gravbus.Name("here"))
		meshListener(t, c, "ask", gravbus.Name("h1"), gravbus.InGroup("h"))
		h2, _ := meshListener(t, c, "ask", gravbus.Name("h2"), gravbus.InGroup("h"))
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		got, err := meshCollect(ctx, asker, gravbus.NewMsg("ask", nil))
		var missing *gravbus.MissingError
		if len(got) != 5 || !errors.As(err, &missing) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%q, %v", got, err)
		}
		want := []string{"h1|h2@" + c.NodeUUID, "here", "silent@" + b.NodeUUID}
		other := []string{"h2|h1@" + c.NodeUUID, "here", "silent@" + b.NodeUUID}
		if !slices.Equal(missing.Pods, want) && !slices.Equal(missing.Pods, other) {
			t.Errorf("missing %q", missing.Pods)
		}

		// They go, one after the other, while it runs.
		type result struct {
			got []string
			err error
		}
		done := make(chan result, 1)
		go func() {
			got, err := meshCollect(context.Background(), asker, gravbus.NewMsg("ask", nil))
			done <- result{got, err}
		}()
		time.Sleep(time.Second)
		h2.Disconnect()
		time.Sleep(time.Second)
		c.Close()
		time.Sleep(time.Second)
		select {
		case <-done:
			t.Error("it ended though two are left")
		default:
		}
		must(t, b.Shutdown(t.Context()))
		select {
		case <-done:
			t.Error("it ended though one is left")
		case <-time.After(time.Second):
		}
		here.Disconnect()
		if r := awaitDone(t, time.Minute, done); len(r.got) != 5 || r.err != nil {
			t.Errorf("%q, %v", r.got, r.err)
		}
	})
}

// An answer and the pod's going right after it: the answer counts.
func TestMeshRequestAllAnswersOfThoseWhoGo(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		asker := a.Connect()
		for i := range 200 {
			for j := range 5 {
				p := b.Connect(gravbus.Name(fmt.Sprint(j)))
				must(t, p.OnType("ask", func(m gravbus.Message) error {
					p.ReplyTo(m, gravbus.NewMsg("reply", []byte(p.Name())))
					p.Disconnect()
					return nil
				}))
			}
			meshWanted(t, a, "ask", 1)
			got, err := meshCollect(meshCtx(t, time.Minute), asker, gravbus.NewMsg("ask", nil))
			if err != nil || len(got) != 5 {
				t.Fatalf("round %d: %q, %v", i, got, err)
			}
			for len(b.Stats().Pods) > 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestMeshRequestAllManyTargets(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		const each = 500
		for i := range each {
			meshReplier(t, b, "ask", fmt.Sprint("b", i))
			meshReplier(t, c, "ask", fmt.Sprint("c", i))
		}
		meshWanted(t, a, "ask", 2)
		asker := a.Connect()
		for range 3 {
			got, err := meshCollect(meshCtx(t, time.Minute), asker, gravbus.NewMsg("ask", nil))
			if err != nil || len(slices.Compact(got)) != 2*each {
				t.Errorf("%d replies, %v", len(got), err)
			}
		}
		if a.Stats().RepliesLost != 0 {
			t.Errorf("%d replies lost", a.Stats().RepliesLost)
		}
	})
}

// Cuts while requests are under way: each gets its one reply.
func TestMeshRequestThroughCuts(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 5 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b, c := n.trio()
		meshReplier(t, b, "ask", "b")
		meshReplier(t, c, "ask", "c")
		meshWanted(t, a, "ask", 2)
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(70 * time.Millisecond):
					n.Cut("a", "b")
				case <-time.After(110 * time.Millisecond):
				}
			}
		}()
		asker := a.Connect()
		for i := range 200 {
			got, err := meshCollect(meshCtx(t, time.Minute), asker, gravbus.NewMsg("ask", nil))
			if err != nil || strings.Join(got, " ") != "b c" {
				t.Fatalf("round %d: %q, %v", i, got, err)
			}
			if _, err := asker.Request(meshCtx(t, time.Minute), gravbus.NewMsg("ask", nil)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A reply that names its question by UUID alone finds it after a lot of other traffic too, and on a
// bus without a buffer.
func TestMeshRequestReplyByUUIDLate(t *testing.T) {
	for name, opts := range map[string][]gravbus.Option{"buffer": nil, "no buffer": {gravbus.UseReplay(0)}, "small buffer": {gravbus.UseReplay(3)}} {
		t.Run(name, func(t *testing.T) {
			meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
				a, b := n.pair(opts...)
				_, got := meshListener(t, b, "ask")
				meshWanted(t, a, "ask", 1)
				asker := a.Connect()
				r := asker.Send(gravbus.NewMsg("ask", nil))
				id := got.await(t, 1)[0].UUID()
				p := b.Connect()
				for range 2000 {
					p.Send(gravbus.NewMsg("noise", nil))
				}
				rep := gravbus.NewMsg("reply", []byte("yes"))
				rep.SetReplyTo(id)
				p.Send(rep)
				m, err := r.Wait(meshCtx(t, time.Minute))
				if err != nil || string(m.Data()) != "yes" {
					t.Errorf("%v, %v", m, err)
				}
			})
		})
	}
}

// The answer comes when the peer was given up and is back: whoever still waits gets it.
func TestMeshRequestAnswerAfterThePeerWasLost(t *testing.T) {
	for _, byUUID := range []bool{false, true} {
		meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
			a, b := n.pair(gravbus.UseResumeFor(5*time.Second), gravbus.UseDeadAfter(3*time.Second))
			p, got := meshListener(t, b, "ask")
			meshWanted(t, a, "ask", 1)
			r := a.Connect().Send(gravbus.NewMsg("ask", nil))
			q := got.await(t, 1)[0]
			n.Partition([]string{"a"}, []string{"b"})
			time.Sleep(time.Minute)
			n.Heal()
			meshUp(t, a, b)
			if rep := gravbus.NewMsg("reply", []byte("late")); byUUID {
				rep.SetReplyTo(q.UUID())
				p.Send(rep)
			} else {
				p.ReplyTo(q, rep)
			}
			m, err := r.Wait(meshCtx(t, time.Minute))
			if err != nil || string(m.Data()) != "late" {
				t.Errorf("by UUID %v: %v, %v", byUUID, m, err)
			}
		})
	}
}

// A poll that a peer takes part in again after it was given up, and one whose asker goes.
func TestMeshRequestAllAskerGoes(t *testing.T) {
	meshBubble(t, memory.Config{Latency: 10 * time.Millisecond}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		slow := b.Connect()
		must(t, slow.OnType("ask", func(m gravbus.Message) error {
			time.Sleep(time.Second)
			slow.ReplyTo(m, gravbus.NewMsg("reply", []byte("slow")))
			return nil
		}))
		meshWanted(t, a, "ask", 1)
		asker := a.Connect()
		done := make(chan error, 1)
		go func() {
			_, err := meshCollect(context.Background(), asker, gravbus.NewMsg("ask", nil))
			done <- err
		}()
		time.Sleep(100 * time.Millisecond)
		asker.Disconnect()
		if err := awaitDone(t, time.Minute, done); !errors.Is(err, gravbus.ErrDisconnected) {
			t.Errorf("%v", err)
		}
		// Leaving the loop early, with answers under way.
		meshReplier(t, b, "ask", "quick")
		time.Sleep(time.Second)
		again := a.Connect()
		for range 10 {
			for rep, err := range again.RequestAll(meshCtx(t, time.Minute), gravbus.NewMsg("ask", nil)) {
				if err != nil || string(rep.Data()) != "quick" {
					t.Errorf("%v, %v", rep, err)
				}
				break
			}
		}
		time.Sleep(time.Minute)
		got, err := meshCollect(meshCtx(t, time.Minute), again, gravbus.NewMsg("ask", nil))
		if err != nil || len(got) != 2 {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// Many at a time, both ways, over real sockets.
func TestMeshRequestWebsocket(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	quiet := gravbus.UseLogger(log)
	a := meshNode(t, nil, quiet)
	b := meshNode(t, a.Endpoints(), quiet)
	for _, x := range []*gravbus.Bus{a, b} {
		p := x.Connect(gravbus.Concurrency(4))
		must(t, p.OnType("ask."+x.NodeUUID, func(m gravbus.Message) error {
			p.ReplyTo(m, gravbus.NewMsg("reply", m.Data()))
			return nil
		}))
	}
	must(t, a.WaitInterest(soon(t), "ask."+b.NodeUUID, 1))
	must(t, b.WaitInterest(soon(t), "ask."+a.NodeUUID, 1))
	var wg sync.WaitGroup
	for i := range 32 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		p := from.Connect()
		wg.Go(func() {
			for k := range 100 {
				want := fmt.Sprint(i, " ", k)
				rep, err := p.Request(soon(t), gravbus.NewMsg("ask."+to.NodeUUID, []byte(want)))
				if err != nil || string(rep.Data()) != want {
					t.Errorf("%v, %v", rep, err)
					return
				}
			}
		})
	}
	within(t, patience, wg.Wait)
}

// A peer that is away when all are asked is named while it has not come back, and asked when it has.
func TestMeshRequestAllPeerIsAway(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		meshReplier(t, b, "ask", "b")
		meshReplier(t, a, "ask", "a")
		meshWanted(t, a, "ask", 1)
		n.Refuse("a", true)
		n.Refuse("b", true)
		n.Cut("a", "b")
		synctest.Wait()
		asker := a.Connect()
		got, err := meshCollect(meshCtx(t, 2*time.Second), asker, gravbus.NewMsg("ask", nil))
		var missing *gravbus.MissingError
		if !slices.Equal(got, []string{"a"}) || !errors.As(err, &missing) || len(missing.Pods) != 1 || !strings.Contains(missing.Pods[0], b.NodeUUID) {
			t.Errorf("%q, %v", got, err)
		}
		time.AfterFunc(time.Second, func() {
			n.Refuse("a", false)
			n.Refuse("b", false)
		})
		got, err = meshCollect(meshCtx(t, time.Minute), asker, gravbus.NewMsg("ask", nil))
		if err != nil || !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%q, %v", got, err)
		}
		if n := a.Stats().Working; n != 0 {
			t.Errorf("%d work", n)
		}
	})
}

// The typed forms work across nodes, errors of the other side included.
func TestMeshRequestTyped(t *testing.T) {
	type question struct{ A, B int }
	type answer struct{ Sum int }
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		must(t, gravbus.Handle(b.Connect(), "sum", func(_ context.Context, q question) (answer, error) {
			if q.A < 0 {
				return answer{}, errors.New("negative")
			}
			return answer{q.A + q.B}, nil
		}))
		meshWanted(t, a, "sum", 1)
		p := a.Connect()
		got, err := gravbus.Request[answer](meshCtx(t, time.Minute), p, "sum", question{2, 3})
		if err != nil || got.Sum != 5 {
			t.Errorf("%v, %v", got, err)
		}
		_, err = gravbus.Request[answer](meshCtx(t, time.Minute), p, "sum", question{-2, 3})
		var remote *gravbus.RemoteError
		if !errors.As(err, &remote) || !strings.Contains(err.Error(), "negative") {
			t.Errorf("%v", err)
		}
		if _, err = gravbus.Request[answer](meshCtx(t, time.Minute), p, "product", question{2, 3}); !errors.Is(err, gravbus.ErrNoResponders) {
			t.Errorf("%v", err)
		}
	})
}

// Who asks is told of a reply that cannot go over the link.
func TestMeshRequestTypedReplyThatCannotBeSent(t *testing.T) {
	meshBubble(t, memory.Config{}, func(t *testing.T, n meshNet) {
		a, b := n.pair()
		must(t, gravbus.Handle(b.Connect(), "ask.>", func(ctx context.Context, _ int) (any, error) {
			if gravbus.MessageFrom(ctx).Type() == "ask.large" {
				return strings.Repeat("x", gravbus.DefaultMaxMessageSize), nil
			}
			return func() {}, nil
		}))
		meshWanted(t, a, "ask.large", 1)
		for typ, want := range map[string]string{"ask.large": gravbus.ErrMessageTooLarge.Error(), "ask.unencodable": "unsupported type"} {
			_, err := gravbus.Request[any](meshCtx(t, time.Minute), a.Connect(), typ, 1)
			var remote *gravbus.RemoteError
			if !errors.As(err, &remote) || !strings.Contains(remote.Message, want) {
				t.Errorf("%s: %v", typ, err)
			}
		}
		if sa, sb := meshPeerOf(t, a, "b"), meshPeerOf(t, b, "a"); sa.Lost != 0 || sb.Lost != 0 {
			t.Errorf("%d and %d lost", sa.Lost, sb.Lost)
		}
	})
}

// A reply reaches the pod's waits from a peer too that does not know yet that somebody waits.
func TestMeshReplyToPodThatWaits(t *testing.T) {
	for _, latency := range []time.Duration{0, time.Millisecond} {
		meshBubble(t, memory.Config{Latency: latency}, func(t *testing.T, n meshNet) {
			a, b := n.pair()
			meshReplier(t, a, "ask", "a")
			meshWanted(t, b, "ask", 1)
			for range 20 {
				pod := b.Connect()
				pod.Send(gravbus.NewMsg("ask", nil))
				must(t, pod.WaitUntil(gravbus.Timeout(60), func(gravbus.Message) error { return nil }))
				pod.Send(gravbus.NewMsg("ask", nil))
				_, err := pod.Wait(meshCtx(t, time.Minute))
				must(t, err)
				pod.Send(gravbus.NewMsg("ask", nil))
				time.Sleep(time.Second)
				_, err = pod.Wait(meshCtx(t, time.Minute))
				must(t, err)
				pod.Disconnect()
			}
		})
	}
}
