package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProcessRequests(t *testing.T) {
	s := newSeed(t)
	s.begin(t, "reply", "say.echo", "--echo")
	s.begin(t, "reply", "say.data", "--data", "forty-two")
	s.begin(t, "reply", "say.upper", "--", "tr", "a-z", "A-Z")
	s.begin(t, "reply", "say.env.*", "--", "sh", "-c", `printf %s "$GRAVBUS_TYPE"`)
	s.begin(t, "reply", "say.fail", "--", "sh", "-c", "exit 3")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"say.echo", "a\nb"}, exitOK, "a\nb\n"},
		{[]string{"say.echo"}, exitOK, "\n"},
		{[]string{"say.echo", "@-", "--raw"}, exitOK, "from stdin\x00"},
		{[]string{"say.data", "x"}, exitOK, "forty-two\n"},
		{[]string{"say.upper", "loud"}, exitOK, "LOUD\n"},
		{[]string{"say.upper", "loud", "--all"}, exitOK, "LOUD\n"},
		{[]string{"say.env.x", ""}, exitOK, "say.env.x\n"},
		{[]string{"say.fail", ""}, exitFailed, ""},
		{[]string{"say.fail", "--all"}, exitFailed, ""},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			p := s.begin(t, append([]string{"request"}, tt.args...)...)
			fmt.Fprint(p.in, "from stdin\x00")
			p.in.Close()
			r := p.wait(t)
			if r.code != tt.code || r.stdout != tt.want {
				t.Errorf("%+v", r)
			}
			if tt.code == exitFailed && !strings.Contains(r.stderr, "the answer is an error: sh: exit status 3") {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestProcessRequestAll(t *testing.T) {
	s := newSeed(t)
	s.begin(t, "reply", "who", "--data", "one")
	s.begin(t, "reply", "who", "--data", "two")
	r := s.begin(t, "request", "who", "--all", "--peers", "2").wait(t)
	if r.code != exitOK || r.stdout != "one\ntwo\n" && r.stdout != "two\none\n" {
		t.Errorf("%+v", r)
	}
	s.begin(t, "reply", "who", "--", "sleep", "1000")
	r = s.begin(t, "request", "who", "--all", "--peers", "3", "--timeout", "3s").wait(t)
	if r.code != exitTimeout || strings.Count(r.stdout, "\n") != 2 || !strings.Contains(r.stderr, "no answer from reply@") {
		t.Errorf("%+v", r)
	}
}

func TestProcessReplyCountAndTimeout(t *testing.T) {
	s := newSeed(t)
	reply := s.begin(t, "reply", "slow", "--count", "2", "--timeout", "100ms", "--", "sleep", "1000")
	for range 2 {
		if r := s.begin(t, "request", "slow").wait(t); r.code != exitFailed || !strings.Contains(r.stderr, "the answer is an error: sleep") {
			t.Errorf("%+v", r)
		}
	}
	if r := reply.wait(t); r.code != exitOK || !strings.Contains(r.stderr, "cannot answer slow") {
		t.Errorf("%+v", r)
	}
}

// A pattern that matches the answers too does not have two commands answer each other.
func TestProcessReplyAnswersNoAnswers(t *testing.T) {
	s := newSeed(t)
	log := filepath.Join(t.TempDir(), "log")
	var both [2]*process
	for i := range both {
		both[i] = s.begin(t, "reply", "job.>", "--group", "workers", "--", "sh", "-c", `echo "$GRAVBUS_TYPE" >> `+log)
	}
	for range 3 {
		s.begin(t, "request", "job.mail", "--peers", "2").must(t, exitOK)
	}
	for _, p := range both {
		p.signal(t, os.Interrupt)
	}
	for _, p := range both {
		p.must(t, exitOK)
	}
	if got, err := os.ReadFile(log); err != nil || string(got) != strings.Repeat("job.mail\n", 3) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestProcessRequestOfTheLongestType(t *testing.T) {
	s := newSeed(t)
	typ := strings.Repeat("x", 255)
	s.begin(t, "reply", typ, "--", "sh", "-c", "read what; test $what = good && echo yes")
	if got := s.begin(t, "request", typ, "good").must(t, exitOK); got != "yes\n\n" {
		t.Errorf("%q", got)
	}
	if r := s.begin(t, "request", typ, "bad").wait(t); r.code != exitFailed || !strings.Contains(r.stderr, "the answer is an error: sh: exit status 1") {
		t.Errorf("%+v", r)
	}
}
