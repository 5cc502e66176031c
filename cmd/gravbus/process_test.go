package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests run the command in processes of its own, as people do.

// process is a command line at work.
type process struct {
	cmd    *exec.Cmd
	args   []string
	in     io.WriteCloser
	stdout safeBuffer
	stderr safeBuffer
	ended  chan struct{} // closed at its end
}

// safeBuffer is what a process has written so far.
type safeBuffer struct {
	mu   sync.Mutex // guards all below
	buf  bytes.Buffer
	more chan struct{}
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.more != nil {
		close(b.more)
		b.more = nil
	}
	return b.buf.Write(p)
}

// next returns what there is, and a channel that is closed when there is more.
func (b *safeBuffer) next() (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.more == nil {
		b.more = make(chan struct{})
	}
	return b.buf.String(), b.more
}

func (b *safeBuffer) String() string {
	s, _ := b.next()
	return s
}

// begin starts a command line. Its standard input is open until it is closed.
func begin(t *testing.T, args ...string) *process { return beginIn(t, nil, nil, args...) }

func beginIn(t *testing.T, env []string, stdout io.Writer, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(self, args...), args: args, ended: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), asCommand+"=1"), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	p.cmd.WaitDelay = time.Second
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// patience is how long anything may take. It is longer than all that a command waits for.
const patience = time.Minute

// wait waits for the end and returns how it was.
func (p *process) wait(t *testing.T) result {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.ended
		t.Fatalf("gravbus %q does not end:\n%s", p.args, p.stderr.String())
	}
	return result{p.cmd.ProcessState.ExitCode(), p.stdout.String(), p.stderr.String()}
}

// must waits for the end and fails the test unless that has the exit code and says nothing on
// standard error.
func (p *process) must(t *testing.T, code int) string {
	t.Helper()
	r := p.wait(t)
	if r.code != code || code == exitOK && r.stderr != "" {
		t.Fatalf("gravbus %q: exit code %d, want %d, stderr:\n%s", p.args, r.code, code, r.stderr)
	}
	return r.stdout
}

// told waits until the process has written the text.
func (p *process) told(t *testing.T, b *safeBuffer, text string) string {
	t.Helper()
	late := time.After(patience)
	for {
		s, more := b.next()
		if strings.Contains(s, text) {
			return s
		}
		select {
		case <-more:
			continue
		case <-p.ended:
			if strings.Contains(b.String(), text) {
				return b.String()
			}
		case <-late:
		}
		t.Fatalf("gravbus %q does not tell %q, but:\n%s%s", p.args, text, p.stdout.String(), p.stderr.String())
	}
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// seed is a node that the others find each other by.
type seed struct {
	*process
	uuid  string
	flags []string // of the others
}

func newSeed(t *testing.T, args ...string) *seed {
	t.Helper()
	p := begin(t, append([]string{"node", "--json", "--mdns=false", "--listen", "127.0.0.1:0"}, args...)...)
	p.told(t, &p.stdout, "\n")
	var first happening
	if err := json.NewDecoder(strings.NewReader(p.stdout.String())).Decode(&first); err != nil {
		t.Fatal(err)
	}
	if first.Event != "started" || len(first.Endpoints) == 0 {
		t.Fatalf("%+v", first)
	}
	return &seed{p, first.NodeUUID, []string{"--mdns=false", "--listen", "127.0.0.1:0", "--seed", first.Endpoints[0]}}
}

// begin starts a command that knows the seed.
func (s *seed) begin(t *testing.T, args ...string) *process {
	t.Helper()
	return begin(t, s.with(args...)...)
}

// with adds the flags of the mesh before what stands behind "--".
func (s *seed) with(args ...string) []string {
	for i, a := range args {
		if a == "--" {
			return append(append(append([]string{}, args[:i]...), s.flags...), args[i:]...)
		}
	}
	return append(append([]string{}, args...), s.flags...)
}

// happenings waits until a node in JSON has told n happenings of a kind, and returns these.
func (p *process) happenings(t *testing.T, event string, n int) (all []happening) {
	t.Helper()
	late := time.After(patience)
	for {
		s, more := p.stdout.next()
		all = nil
		for line := range strings.Lines(s) {
			var h happening
			if strings.HasSuffix(line, "\n") {
				if err := json.Unmarshal([]byte(line), &h); err != nil {
					t.Fatalf("%v in %q", err, line)
				}
			}
			if h.Event == event {
				all = append(all, h)
			}
		}
		if len(all) >= n {
			return all
		}
		select {
		case <-more:
			continue
		case <-p.ended:
		case <-late:
		}
		t.Fatalf("%d of %d %q in:\n%s%s", len(all), n, event, s, p.stderr.String())
	}
}
