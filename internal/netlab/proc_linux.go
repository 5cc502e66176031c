package netlab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a Proc is waited for, if its field of that name is not changed.
const Patience = 30 * time.Second

// maxLines is how many lines of output may wait for Expect. What is more is lost.
const maxLines = 1 << 16

// A Proc is a program that runs on a host. It is killed when the test ends.
type Proc struct {
	// Patience is how long Expect, ExpectFunc and Wait wait until they end the test.
	Patience time.Duration

	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string   // of its output; closed at its end
	done  chan struct{} // closed when it is no more
	err   error         // how it ended; read after done
	seen  []string      // lines that Expect has read
	log   *tail         // its standard error
}

// Alone runs a program on a host of its own that has nothing but a loopback with multicast. It
// needs no root, but skips the test where users may not make namespaces.
func Alone(t testing.TB, env []string, name string, args ...string) *Proc {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("netlab: there is no program ip; install iproute2")
	}
	const script = `ip link set lo up && ip route add 224.0.0.0/4 dev lo && exec "$@"`
	if out, err := alone("sh", "-c", script, "sh", "true").CombinedOutput(); err != nil {
		t.Skipf("netlab: no namespaces for users here: %v: %s", err, out)
	}
	return start(t, env, alone("sh", append([]string{"-c", script, "sh", name}, args...)...))
}

func alone(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd
}

func start(t testing.TB, env []string, cmd *exec.Cmd) *Proc {
	t.Helper()
	p := &Proc{Patience: Patience, t: t, cmd: cmd, lines: make(chan string, maxLines), done: make(chan struct{}), log: new(tail)}
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = p.log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // should this process be killed
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("netlab: %v", err)
	}
	go p.read(stdout) // until the program ends, which Kill waits for
	t.Cleanup(p.Kill)
	return p
}

// read passes on the output, and then waits for the end.
func (p *Proc) read(stdout io.Reader) {
	scanner := bufio.NewScanner(stdout)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		select {
		case p.lines <- scanner.Text():
		default: // nobody reads; better to lose lines than to keep the program from its end
		}
	}
	close(p.lines)
	p.err = p.cmd.Wait()
	close(p.done)
}

// Expect reads the program's output up to a line that begins with prefix, and returns the rest of
// that line. It ends the test if there is none within Patience.
func (p *Proc) Expect(prefix string) string {
	p.t.Helper()
	return p.ExpectFunc(prefix, func(line string) bool { return strings.HasPrefix(line, prefix) })[len(prefix):]
}

// ExpectFunc reads the program's output up to a line that match returns true for, and returns it.
// What is the line's description. It ends the test if there is none within Patience.
func (p *Proc) ExpectFunc(what string, match func(line string) bool) string {
	p.t.Helper()
	timer := time.NewTimer(p.Patience)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("netlab: process %d has ended without a line %q\n%s", p.cmd.Process.Pid, what, p.Output())
			}
			p.seen = append(p.seen, line)
			if match(line) {
				return line
			}
		case <-timer.C:
			p.t.Fatalf("netlab: process %d prints no line %q\n%s", p.cmd.Process.Pid, what, p.Output())
		}
	}
}

// Lines returns all lines that have come and were not read by Expect.
func (p *Proc) Lines() (lines []string) {
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return lines
			}
			p.seen = append(p.seen, line)
			lines = append(lines, line)
		default:
			return lines
		}
	}
}

// Send writes a line to the program's standard input.
func (p *Proc) Send(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.stdin, line); err != nil {
		p.t.Fatalf("netlab: process %d takes no input: %v\n%s", p.cmd.Process.Pid, err, p.Output())
	}
}

// Signal sends the program a signal.
func (p *Proc) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("netlab: process %d: %v", p.cmd.Process.Pid, err)
	}
}

// Wait waits until the program has ended, and returns nil if that was in order. It ends the test if
// the program is still there after Patience.
func (p *Proc) Wait() error {
	p.t.Helper()
	timer := time.NewTimer(p.Patience)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		p.t.Fatalf("netlab: process %d does not end\n%s", p.cmd.Process.Pid, p.Output())
		return nil
	}
}

// Kill ends the program without a chance to say goodbye, as a power cut does, and waits until it is
// no more. Killing one that has ended has no effect.
func (p *Proc) Kill() {
	_ = p.cmd.Process.Kill() // an error means that it is no more
	<-p.done
}

// Stderr returns the last part of what the program has written to its standard error.
func (p *Proc) Stderr() string { return p.log.String() }

// Seen returns all lines that Expect, ExpectFunc and Lines have read.
func (p *Proc) Seen() []string { return slices.Clone(p.seen) }

// Output returns the last lines that were read and the last part of the standard error, for a test
// that fails.
func (p *Proc) Output() string {
	const most = 100
	lines := p.seen[max(0, len(p.seen)-most):]
	return fmt.Sprintf("its last lines:\n%s\nits standard error:\n%s", strings.Join(lines, "\n"), p.log)
}

// tail keeps the last bytes that are written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

const tailSize = 64 << 10

func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if len(b.buf) > 2*tailSize {
		b.buf = append([]byte(nil), b.buf[len(b.buf)-tailSize:]...)
	}
	return len(p), nil
}

func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}
