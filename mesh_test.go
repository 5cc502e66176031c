package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport/websocket"
)

// meshNode starts a node on a loopback websocket that knows the seeds.
func meshNode(t testing.TB, seeds []string, opts ...gravbus.Option) *gravbus.Bus {
	t.Helper()
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	opts = append([]gravbus.Option{
		gravbus.UseTransport(websocket.New(websocket.Config{Addr: "127.0.0.1:0"})),
		gravbus.UseLogger(silent),
	}, opts...)
	if len(seeds) > 0 {
		opts = append(opts, gravbus.UseDiscovery(static.New(seeds...)))
	}
	b := gravbus.New(opts...)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestMeshTwoNodes(t *testing.T) {
	a := meshNode(t, nil)
	b := meshNode(t, a.Endpoints())
	if err := a.WaitPeers(soon(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitPeers(soon(t), 1); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 2000)
	b.Connect().OnType("orders.*", func(m gravbus.Message) error {
		got <- string(m.Data())
		return nil
	})
	if err := a.WaitInterest(soon(t), "orders.created", 1); err != nil {
		t.Fatal(err)
	}
	p := a.Connect()
	for i := range 1000 {
		if p.Send(gravbus.NewMsg("orders.created", fmt.Append(nil, i))) == nil {
			t.Fatal("not sent")
		}
	}
	for i := range 1000 {
		select {
		case s := <-got:
			if s != fmt.Sprint(i) {
				t.Fatalf("got %s, want %d", s, i)
			}
		case <-soon(t).Done():
			t.Fatalf("message %d did not come", i)
		}
	}
	q := b.Connect()
	q.OnType("ask", func(m gravbus.Message) error {
		q.ReplyTo(m, gravbus.NewMsg("answer", []byte("yes")))
		return nil
	})
	if err := a.WaitInterest(soon(t), "ask", 1); err != nil {
		t.Fatal(err)
	}
	reply, err := p.Request(soon(t), gravbus.NewMsg("ask", nil))
	if err != nil || string(reply.Data()) != "yes" {
		t.Fatalf("reply %v, error %v", reply, err)
	}
	if _, err := p.Request(soon(t), gravbus.NewMsg("nobody", nil)); !errors.Is(err, gravbus.ErrNoResponders) {
		t.Fatalf("error %v", err)
	}
	n := 0
	for r, err := range p.RequestAll(soon(t), gravbus.NewMsg("ask", nil)) {
		if err != nil {
			t.Fatal(err)
		}
		_ = r
		n++
	}
	if n != 1 {
		t.Fatalf("%d replies", n)
	}
	if err := a.Shutdown(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := b.Shutdown(soon(t)); err != nil {
		t.Fatal(err)
	}
}
