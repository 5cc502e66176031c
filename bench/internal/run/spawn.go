package run

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// tooLate begins the error of a child that was killed.
const tooLate = "did not end within"

// spawn has a child do j and returns what it has found. A child that does not end in time is killed;
// one that panics is an error of its Sample. It returns an error only if ctx has ended or no child
// can be started.
func spawn(ctx context.Context, j job, limit time.Duration, env []string) (finding, error) {
	arg, err := json.Marshal(j)
	if err != nil {
		return finding{}, err
	}
	cmd, err := self("child", string(arg))
	if err != nil {
		return finding{}, err
	}
	var out bytes.Buffer
	complaints := &head{most: 1 << 20}
	cmd.Stdout, cmd.Stderr = &out, complaints
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = patience // for a far process that outlives its parent, until it sees so
	if err := cmd.Start(); err != nil {
		return finding{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends when the child is killed at the latest
	timer := time.NewTimer(limit)
	defer timer.Stop()
	late := false
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-ended
	case <-timer.C:
		late = true
		_ = cmd.Process.Kill()
		<-ended
	}
	if ctx.Err() != nil {
		return finding{}, ctx.Err()
	}
	var found finding
	trouble := complaints.trouble()
	switch {
	case late:
		found.Sample.Error = fmt.Sprintf("%s %v", tooLate, limit)
	case err != nil:
		found.Sample.Error = fmt.Sprintf("ended early (%v)", err)
	case json.Unmarshal(out.Bytes(), &found) != nil:
		found = finding{}
		found.Sample.Error = "ended without a result"
	case found.Sample.Error == "":
		return found, nil
	}
	if trouble != "" {
		found.Sample.Error += ": " + trouble
	}
	return found, nil
}

// A head keeps the beginning of what is written to it.
type head struct {
	kept bytes.Buffer
	most int
}

func (h *head) Write(p []byte) (int, error) {
	h.kept.Write(p[:min(len(p), h.most-h.kept.Len())])
	return len(p), nil
}

// trouble returns the first lines of a panic, or the reason for which the process ended itself, in one
// line.
func (h *head) trouble() string {
	lines := strings.Split(h.kept.String(), "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "panic: ") && !strings.HasPrefix(line, "fatal error: ") && line != "WARNING: DATA RACE" {
			continue
		}
		var kept []string
		for _, more := range lines[i:min(i+3, len(lines))] {
			if strings.HasPrefix(more, "goroutine ") || strings.TrimSpace(more) == "" {
				break
			}
			kept = append(kept, strings.TrimSpace(more))
		}
		return strings.Join(kept, " ")
	}
	return ""
}
