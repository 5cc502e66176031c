package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"
)

// A member is a process of the demonstration, as the one that tells the story sees it.
type member struct {
	name     string
	uuid     string
	endpoint string
	cmd      *exec.Cmd
	in       io.WriteCloser
	complain bytes.Buffer  // its standard error; complete when gone is closed
	gone     chan struct{} // closed when the process has ended

	mu      sync.Mutex // guards all below, and writing to in
	last    int
	waiting map[int]chan answer
	status  error // of the process; valid when gone is closed
}

// hire starts a process.
func hire(command []string, name string) (*member, error) {
	m := &member{name: name, gone: make(chan struct{}), waiting: map[int]chan answer{}}
	m.cmd = exec.Command(command[0], command[1:]...)
	m.cmd.Stderr = &m.complain
	var err error
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go m.listen(out) // ends with the process
	return m, nil
}

// listen hands out the answers of the process until it ends.
func (m *member) listen(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var a answer
		if json.Unmarshal(line, &a) != nil {
			break
		}
		m.mu.Lock()
		c := m.waiting[a.ID]
		delete(m.waiting, a.ID)
		m.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
	_, _ = io.Copy(io.Discard, out)
	m.status = m.cmd.Wait()
	close(m.gone)
}

// do gives an order and waits for the answer.
func (m *member) do(ctx context.Context, o order) (answer, error) {
	c := make(chan answer, 1)
	m.mu.Lock()
	m.last++
	o.ID = m.last
	m.waiting[o.ID] = c
	line, err := json.Marshal(&o)
	if err == nil {
		_, err = m.in.Write(append(line, '\n'))
	}
	m.mu.Unlock()
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", m.name, err)
	}
	select {
	case a := <-c:
		if a.Error != "" {
			return a, fmt.Errorf("%s: %s: %s", m.name, o.Do, a.Error)
		}
		return a, nil
	case <-m.gone:
		return answer{}, fmt.Errorf("%s has ended while it should %s: %w; it said: %q", m.name, o.Do, m.ending(), m.complain.String())
	case <-ctx.Done():
		return answer{}, fmt.Errorf("%s does not %s: %w", m.name, o.Do, ctx.Err())
	}
}

// ending is how the process has ended.
func (m *member) ending() error {
	if m.status == nil {
		return errors.New("exit status 0")
	}
	return m.status
}

// kill ends the process by SIGKILL, and waits until it has ended.
func (m *member) kill() {
	_ = m.cmd.Process.Kill()
	<-m.gone
}

// dismiss ends a process that has nothing more to do, and returns how that went.
func (m *member) dismiss(ctx context.Context) error {
	m.in.Close()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-m.gone:
		return m.status
	case <-late.C:
	case <-ctx.Done():
	}
	m.kill()
	return errors.New(m.name + " did not end")
}
