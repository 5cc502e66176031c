package demo_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gravbus/gravbus/cmd/gravbus/internal/demo"
	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

// What measures must itself see what is wrong.
func TestStreamSees(t *testing.T) {
	for _, tt := range []struct {
		name    string
		numbers []int64
		want    demo.Seen
	}{
		{"nothing", nil, demo.Seen{}},
		{"all", []int64{1, 2, 3}, demo.Seen{Received: 3}},
		{"gap", []int64{1, 4}, demo.Seen{Received: 2}},
		{"doubled", []int64{1, 1, 2, 1}, demo.Seen{Received: 4, Doubled: 2}},
		{"late", []int64{1, 3, 2}, demo.Seen{Received: 3, Late: 1}},
		{"late and doubled", []int64{5, 2, 2, 5}, demo.Seen{Received: 4, Late: 1, Doubled: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := demo.Stream(tt.numbers...); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestMeshSumSees(t *testing.T) {
	for _, tt := range []struct {
		name string
		seen demo.Seen
		want []string // checks that are wrong
	}{
		{"all", demo.Seen{Received: 10}, nil},
		{"lost", demo.Seen{Received: 9}, []string{"received", "lost"}},
		{"doubled", demo.Seen{Received: 11, Doubled: 1}, []string{"received", "doubled"}},
		{"lost and doubled", demo.Seen{Received: 10, Doubled: 1}, []string{"lost", "doubled"}},
		{"late", demo.Seen{Received: 10, Late: 2}, []string{"out of order"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			report := demo.Sum(&out, 10, tt.seen)
			var wrong []string
			for _, c := range report.Checks {
				if !c.OK {
					wrong = append(wrong, c.Name)
				}
			}
			if strings.Join(wrong, ",") != strings.Join(tt.want, ",") {
				t.Errorf("wrong are %q", wrong)
			}
			if ok := strings.Contains(out.String(), "Every message arrived"); ok != (tt.want == nil) {
				t.Error(out.String())
			}
		})
	}
}

func TestMeshThatCannotStart(t *testing.T) {
	var out bytes.Buffer
	report, err := demo.RunMesh(t.Context(), &out, demo.MeshConfig{Command: []string{"/does/not/exist"}, Messages: 1})
	if err == nil || report == nil || report.OK {
		t.Errorf("%+v, %v", report, err)
	}
	report, err = demo.RunMesh(t.Context(), &out, demo.MeshConfig{Command: []string{"sh", "-c", "echo broken >&2; exit 7"}, Messages: 1})
	if err == nil || !strings.Contains(err.Error(), "alder") || report.OK {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestChildRefusesNonsense(t *testing.T) {
	var out bytes.Buffer
	in := strings.NewReader(`{"id":1,"do":"peers"}` + "\n" + `{"id":2,"do":"start"}` + "\n")
	if err := demo.RunChild(in, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`{"id":1,"error":"not started"}`, `{"id":2,"error":"a node is started once"}`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
	if err := demo.RunChild(strings.NewReader("nonsense\n"), &out); err == nil {
		t.Error("no error")
	}
}

func TestCable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	network := memory.NewNetwork(memory.Config{})
	pull, plug, cable := demo.NewCable(network.Transport("a"))
	ln, err := cable.Listen(ctx, transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	other := network.Transport("b")
	far, err := other.Listen(ctx, transport.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	connect := func() (there, here transport.Conn) {
		t.Helper()
		there, err := other.Dial(ctx, ln.Endpoints()[0])
		if err != nil {
			t.Fatal(err)
		}
		if here, err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		return there, here
	}
	there, here := connect()
	defer there.Close()
	defer here.Close()
	pull()
	if _, err := here.ReadFrame(nil); !errors.Is(err, transport.ErrClosed) {
		t.Error(err)
	}
	if _, err := there.ReadFrame(nil); err == nil {
		t.Error("the other side is still connected")
	}
	if _, err := cable.Dial(ctx, far.Endpoints()[0]); err == nil {
		t.Error("dialled without a cable")
	}
	plug()
	there, here = connect()
	defer there.Close()
	defer here.Close()
	if err := there.WriteFrame([]byte("again")); err != nil {
		t.Fatal(err)
	}
	if frame, err := here.ReadFrame(nil); err != nil || string(frame) != "again" {
		t.Errorf("%q, %v", frame, err)
	}
}
