package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

// The near process starts the far one and tells it what to do, a line of JSON for each command and
// each answer, over the far one's standard input and output. The end of its input ends it.
type (
	command struct {
		Do      string        `json:"do"` // listen, expect, wait, usage
		Nodes   int           `json:"nodes,omitempty"`
		Respond bool          `json:"respond,omitempty"` // listen: answer requests, rather than subscribe
		Count   int           `json:"count,omitempty"`   // expect: messages to each node
		Times   bool          `json:"times,omitempty"`   // expect: measure from when each was due
		Silence time.Duration `json:"silence,omitempty"` // wait: what has not come after it is lost
	}
	answer struct {
		Skip  string `json:"skip,omitempty"`
		Error string `json:"error,omitempty"`
		Addr  string `json:"addr,omitempty"` // listen

		// Of all but listen. Counts are of the whole time.
		Complete   bool               `json:"complete,omitempty"` // wait
		Last       int64              `json:"last,omitempty"`     // wait: when the last message came, in ns of the wall clock
		Due        int                `json:"due,omitempty"`
		Received   int                `json:"received,omitempty"`
		Disordered int                `json:"disordered,omitempty"`
		Latency    map[string]float64 `json:"latency,omitempty"` // wait: p50, p99
		CPU        time.Duration      `json:"cpu,omitempty"`
		Grown      int                `json:"grown,omitempty"` // wait: since expect
	}
)

// A farSide is the state of the far process.
type farSide struct {
	peer  peer.Peer
	nodes []peer.Bus
	board *board
	times atomic.Pointer[times]
}

// times are the latencies of one trial, in the order of arrival; written by the subscription's calls.
type times struct {
	ns []int64
	n  int
}

// copied returns them so far. It may be called while nothing orders it after the subscription's calls,
// see tally.seen.
//
//go:norace
func (t *times) copied() []int64 {
	all := make([]int64, 0, t.n)
	for i := range t.n {
		all = append(all, t.ns[i])
	}
	return all
}

// serveFar obeys commands until in ends.
func serveFar(p peer.Peer, in io.Reader, out io.Writer) error {
	f := &farSide{peer: p}
	enc := json.NewEncoder(out)
	commands := make(chan command)
	go func() { // ends the process when the near one has gone, whatever the library is doing
		dec := json.NewDecoder(in)
		for {
			var c command
			if dec.Decode(&c) != nil {
				os.Exit(0)
			}
			commands <- c
		}
	}()
	for {
		a, err := f.obey(<-commands)
		var s skip
		if errors.As(err, &s) {
			a.Skip = s.Error()
		} else if err != nil {
			a.Error = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

func (f *farSide) obey(c command) (answer, error) {
	switch c.Do {
	case "listen":
		return f.listen(c)
	case "expect":
		t := &times{}
		if c.Times {
			t.ns = make([]int64, c.Count)
		}
		f.times.Store(t)
		runtime.GC()
		meter.mark()
		f.board.expect(1, c.Count)
		return f.count(answer{CPU: processorTime()}), nil
	case "wait":
		return f.wait(c), nil
	case "usage":
		return f.count(answer{CPU: processorTime()}), nil
	}
	return answer{}, fmt.Errorf("no such command: %q", c.Do)
}

func (f *farSide) listen(c command) (answer, error) {
	nodes, addr, err := f.peer.Remote.Listen(c.Nodes)
	if err != nil {
		return answer{}, asSkip(err)
	}
	f.nodes, f.board = nodes, newBoard(len(nodes))
	f.times.Store(&times{})
	for i, node := range nodes {
		if c.Respond {
			err = respond(node)
		} else {
			_, err = node.Subscribe(topic, f.taker(i))
		}
		if err != nil {
			return answer{}, asSkip(err)
		}
	}
	return answer{Addr: addr}, nil
}

// taker returns what node i does with a message.
func (f *farSide) taker(i int) func(data []byte) {
	t := &f.board.tallies[i]
	if i > 0 {
		return t.take // only one node measures times
	}
	return func(data []byte) {
		if times := f.times.Load(); times.n < len(times.ns) {
			times.ns[times.n] = time.Now().UnixNano() - dueOf(data)
			times.n++
		}
		t.take(data)
	}
}

func (f *farSide) wait(c command) answer {
	last, complete := f.board.wait(c.Silence)
	a := answer{Complete: complete, Last: last.UnixNano(), CPU: processorTime(), Grown: meter.growth()}
	if all := f.times.Load().copied(); len(all) > 0 {
		slices.Sort(all)
		a.Latency = map[string]float64{"p50": percentile(all, 50), "p99": percentile(all, 99)}
	}
	return f.count(a)
}

func (f *farSide) count(a answer) answer {
	if f.board != nil {
		a.Due, a.Received, a.Disordered = f.board.due, f.board.received(), f.board.disordered()
	}
	return a
}

// A far is the far process, seen from the near one.
type far struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder

	latency map[string]float64 // of the last trial, if its times were measured
}

// startFar starts it, and has it listen.
func startFar(p peer.Peer, nodes int, respond bool) (f *far, addr string, err error) {
	cmd, err := self("far", p.ID)
	if err != nil {
		return nil, "", err
	}
	cmd.Stderr = os.Stderr
	f = &far{cmd: cmd}
	if f.in, err = cmd.StdinPipe(); err != nil {
		return nil, "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	f.enc, f.dec = json.NewEncoder(f.in), json.NewDecoder(out)
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	a, err := f.call(command{Do: "listen", Nodes: nodes, Respond: respond})
	if err != nil {
		f.stop()
		return nil, "", err
	}
	return f, a.Addr, nil
}

// call has the far process do something.
func (f *far) call(c command) (answer, error) {
	var a answer
	if err := f.enc.Encode(c); err != nil {
		return a, fmt.Errorf("the far process has ended: %w", err)
	}
	if err := f.dec.Decode(&a); err != nil {
		return a, fmt.Errorf("the far process has ended: %w", err)
	}
	if a.Skip != "" {
		return a, skip(a.Skip)
	}
	if a.Error != "" {
		return a, errors.New("the far process: " + a.Error)
	}
	return a, nil
}

func (f *far) usage() (time.Duration, error) {
	a, err := f.call(command{Do: "usage"})
	return a.CPU, err
}

// stop ends the far process, which ends by itself unless it is stuck.
func (f *far) stop() {
	_ = f.in.Close()
	kill := time.AfterFunc(patience, func() { _ = f.cmd.Process.Kill() })
	_ = f.cmd.Wait() // it was told to go
	kill.Stop()
}
