package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/cmd/gravbus/internal/demo"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files")

// asCommand makes the test's own binary the command, for tests with real processes.
const asCommand = "GRAVBUS_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		os.Exit(realMain())
	}
	os.Unsetenv(keyVariable)
	goleak.VerifyTestMain(m)
}

// result is what a command line leads to.
type result struct {
	code           int
	stdout, stderr string
}

// try runs a command line in this process, and fails the test if that does not end.
func try(t *testing.T, ctx context.Context, opts []gravbus.Option, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := tryOn(t, ctx, &stdout, &stderr, opts, args...)
	return result{code, stdout.String(), stderr.String()}
}

func tryOn(t *testing.T, ctx context.Context, stdout, stderr io.Writer, opts []gravbus.Option, args ...string) int {
	t.Helper()
	done := make(chan int, 1)
	go func() { done <- run(ctx, args, strings.NewReader(""), stdout, stderr, opts...) }() // ends with the command
	select {
	case code := <-done:
		return code
	case <-time.After(time.Minute):
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		t.Fatalf("gravbus %q does not end", args)
		return -1
	}
}

// noReplay makes two counts wrong: who comes late gets no old tickets.
var noReplay = []gravbus.Option{gravbus.UseReplay(-1)}

func TestHelp(t *testing.T) {
	for name, args := range map[string][]string{
		"root":       {"--help"},
		"node":       {"node", "--help"},
		"pub":        {"pub", "--help"},
		"sub":        {"sub", "--help"},
		"request":    {"request", "--help"},
		"reply":      {"reply", "--help"},
		"peers":      {"peers", "--help"},
		"key":        {"key", "--help"},
		"demo":       {"demo", "--help"},
		"demo-local": {"demo", "local", "--help"},
		"version":    {"version", "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			got := try(t, t.Context(), nil, args...)
			if got.code != exitOK || got.stderr != "" {
				t.Fatalf("exit code %d, stderr %q", got.code, got.stderr)
			}
			golden(t, "help-"+name+".golden", got.stdout)
			for line := range strings.Lines(got.stdout) {
				if n := utf8.RuneCountInString(line); n > 101 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

func TestNoCommandPrintsHelp(t *testing.T) {
	got := try(t, t.Context(), nil)
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("exit code %d, stderr %q", got.code, got.stderr)
	}
	golden(t, "help-root.golden", got.stdout)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as %s (go test -update writes it):\n%s", path, got)
	}
}

func TestUsageErrors(t *testing.T) {
	const messages = "it must be a whole number from 1 to 100000000"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"dmeo"}, `unknown command "dmeo" for "gravbus"`},
		{[]string{"--bogus"}, "unknown flag: --bogus"},
		{[]string{"demo", "--bogus"}, "unknown flag: --bogus"},
		{[]string{"demo", "extra"}, `unknown command "extra" for "gravbus demo"`},
		{[]string{"demo", "local", "extra"}, `unknown command "extra" for "gravbus demo local"`},
		{[]string{"demo", "--discovery", "x"}, "--discovery is mdns or seed"},
		{[]string{"node", "extra"}, `unknown command "extra" for "gravbus node"`},
		{[]string{"pub"}, "accepts between 1 and 2 arg(s), received 0"},
		{[]string{"pub", "t", "x", "y"}, "accepts between 1 and 2 arg(s), received 3"},
		{[]string{"pub", "a..b", "--mdns=false"}, `invalid type "a..b"`},
		{[]string{"pub", "t", "x", "-0"}, "--null is for messages from standard input"},
		{[]string{"pub", "t", "--stall", "0s"}, "--stall must be positive"},
		{[]string{"pub", "t", "--max-size", "0"}, "--max-size must be positive"},
		{[]string{"pub", "t", "x", "--max-size", "-1"}, "--max-size must be positive"},
		{[]string{"request", "t", "x", "--max-size", "-1"}, "--max-size must be positive"},
		{[]string{"pub", "t", "x", "--seed", "http://127.0.0.1:1"}, `--seed: invalid endpoint: "http://127.0.0.1:1" has a scheme other than ws and wss`},
		{[]string{"sub", ">", "--seed", "--count", "4"}, "--seed needs an endpoint such as host:8080; --count is a flag"},
		{[]string{"pub", "t", "x", "--peers", "0"}, "--peers must be positive"},
		{[]string{"request", "t", "x", "--timeout", "-1s"}, "--timeout cannot be negative"},
		{[]string{"sub"}, "requires at least 1 arg(s)"},
		{[]string{"sub", "a..b"}, `invalid pattern "a..b"`},
		{[]string{"sub", "t", "--count", "-1"}, "cannot be negative"},
		{[]string{"sub", "t", "--replay=yes"}, "it must be all, a number of messages such as 100, or a time such as 10m"},
		{[]string{"sub", "t", "--json", "--raw"}, "none of the others can be"},
		{[]string{"request"}, "accepts between 1 and 2 arg(s), received 0"},
		{[]string{"request", "a..b", "--mdns=false"}, `invalid type "a..b"`},
		{[]string{"reply"}, "requires at least 1 arg(s)"},
		{[]string{"reply", "t"}, "give either --echo, or --data, or -- and a command"},
		{[]string{"reply", "t", "--echo", "--", "cat"}, "give either --echo, or --data, or -- and a command"},
		{[]string{"reply", "t", "u", "--", "cat"}, "there are 2 patterns"},
		{[]string{"reply", "t", "--echo", "--jobs", "0"}, "--jobs must be positive"},
		{[]string{"peers", "--timeout", "0s"}, "--timeout must be positive"},
		{[]string{"node", "--key-file", "/does/not/exist"}, "--key-file: open /does/not/exist"},
		{[]string{"node", "--tls-cert", "x"}, "TLS needs both --tls-cert and --tls-key"},
		{[]string{"node", "--listen", ":0", "--mdns=false"}, "would let in everybody on the network"},
		{[]string{"version", "extra"}, `unknown command "extra" for "gravbus version"`},
		{[]string{"demo", "--messages"}, "flag needs an argument: --messages"},
		{[]string{"demo", "--messages", "0"}, messages},
		{[]string{"demo", "--messages", "-1"}, messages},
		{[]string{"demo", "local", "--messages", "100000001"}, messages},
		{[]string{"demo", "--messages", "99999999999999999999"}, messages},
		{[]string{"demo", "local", "--messages", "1.5"}, messages},
		{[]string{"demo", "--messages", ""}, messages},
		{[]string{"demo", "--json=maybe"}, "--json"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			got := try(t, t.Context(), nil, tt.args...)
			if got.code != exitUsage {
				t.Errorf("exit code %d, want %d", got.code, exitUsage)
			}
			if got.stdout != "" {
				t.Errorf("stdout: %q", got.stdout)
			}
			if !strings.Contains(got.stderr, tt.want) || !strings.HasPrefix(got.stderr, "gravbus: ") || !strings.Contains(got.stderr, "--help' for usage.\n") {
				t.Errorf("stderr: %q, want it to contain %q", got.stderr, tt.want)
			}
		})
	}
}

func TestMessageCountBounds(t *testing.T) {
	for s, ok := range map[string]bool{"0": false, "1": true, "100000000": true, "100000001": false} {
		var c messageCount
		if err := c.Set(s); (err == nil) != ok {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestVersion(t *testing.T) {
	got := try(t, t.Context(), nil, "version")
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("exit code %d, stderr %q", got.code, got.stderr)
	}
	if !regexp.MustCompile(`^gravbus \S+ \(go\S+ \w+/\w+\)\n$`).MatchString(got.stdout) {
		t.Errorf("stdout: %q", got.stdout)
	}
}

func TestDemo(t *testing.T) {
	got := try(t, t.Context(), nil, "demo", "local", "--messages", "1000")
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("exit code %d, stderr %q, stdout:\n%s", got.code, got.stderr, got.stdout)
	}
	for _, want := range []string{"The storm", "4 × 1,000", "counts are right"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in:\n%s", want, got.stdout)
		}
	}
	for _, no := range []string{"✗", "\x1b", "level="} {
		if strings.Contains(got.stdout, no) {
			t.Errorf("%q in:\n%s", no, got.stdout)
		}
	}
}

func TestDemoWithAWrongCount(t *testing.T) {
	got := try(t, t.Context(), noReplay, "demo", "local", "--messages", "1000")
	if got.code != exitFailed || got.stderr != "" {
		t.Fatalf("exit code %d, stderr %q", got.code, got.stderr)
	}
	for _, want := range []string{"✗ board received: 900, not 905", "✗ Wrong: 2 of "} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in:\n%s", want, got.stdout)
		}
	}
}

// decode reads one JSON object and no more.
func decode(t *testing.T, s string) (r demo.Report) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(s))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("%v in:\n%s", err, s)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("more than one object:\n%s", s)
	}
	return r
}

func TestDemoJSON(t *testing.T) {
	got := try(t, t.Context(), nil, "demo", "local", "--messages", "1001", "--json")
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("exit code %d, stderr %q, stdout:\n%s", got.code, got.stderr, got.stdout)
	}
	r := decode(t, got.stdout)
	if !r.OK || len(r.Checks) == 0 || r.Storm.Messages != 1001 || r.Storm.PerSecond <= 0 || r.Seconds <= 0 {
		t.Errorf("%+v", r)
	}
	if r.Counts.Delivered < 4*1001 || r.Counts.Lost != 483 || r.Counts.Failed != 4 || r.Counts.DeadLetters != 1 {
		t.Errorf("counts: %+v", r.Counts)
	}
}

func TestDemoJSONWithAWrongCount(t *testing.T) {
	got := try(t, t.Context(), noReplay, "demo", "local", "--messages", "1", "--json")
	if got.code != exitFailed || got.stderr != "" {
		t.Fatalf("exit code %d, stderr %q", got.code, got.stderr)
	}
	r := decode(t, got.stdout)
	wrong := 0
	for _, c := range r.Checks {
		if c.OK != (c.Expected == c.Got) {
			t.Errorf("%+v", c)
		}
		if !c.OK {
			wrong++
		}
	}
	if r.OK || wrong != 2 {
		t.Errorf("ok=%t with %d wrong counts", r.OK, wrong)
	}
}

// cancelAt cancels when something is written that contains a text.
type cancelAt struct {
	text   string
	cancel context.CancelFunc
	strings.Builder
}

func (c *cancelAt) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(c.text)) {
		c.cancel()
	}
	return c.Builder.Write(b)
}

func TestDemoInterrupted(t *testing.T) {
	for _, at := range []string{
		"A small shop", "Who hears what", "Questions", "Work that is", "Late, and", "A slow pod", "A handler that", "The storm", "messages by 4 senders",
	} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			out, stderr := &cancelAt{text: at, cancel: cancel}, new(strings.Builder)
			code := tryOn(t, ctx, out, stderr, nil, "demo", "local", "--messages", "100000000")
			if code != exitFailed || stderr.String() != "gravbus: interrupted: not all was counted\n" {
				t.Errorf("exit code %d, stderr %q", code, stderr)
			}
			if strings.Contains(out.String(), "✗") || strings.Contains(out.String(), "counts are right") {
				t.Errorf("stdout:\n%s", out)
			}
		})
	}
}

func TestDemoJSONInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := try(t, ctx, nil, "demo", "local", "--json")
	if got.code != exitFailed || !strings.Contains(got.stderr, "interrupted") {
		t.Errorf("exit code %d, stderr %q", got.code, got.stderr)
	}
	if r := decode(t, got.stdout); r.OK || len(r.Checks) > 0 {
		t.Errorf("%+v", r)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestOutputThatCannotBeWritten(t *testing.T) {
	for _, args := range [][]string{{"demo", "local", "--messages", "1"}, {"demo", "local", "--messages", "1", "--json"}, {"version"}} {
		var stderr strings.Builder
		code := tryOn(t, t.Context(), brokenWriter{}, &stderr, nil, args...)
		if code != exitFailed || !strings.Contains(stderr.String(), "disk full") {
			t.Errorf("%q: exit code %d, stderr %q", args, code, stderr.String())
		}
	}
}

func TestColorOnlyOnATerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	for _, tt := range []struct {
		name          string
		out           io.Writer
		noColor, term string
		want          bool
	}{
		{"buffer", new(bytes.Buffer), "", "xterm", false},
		{"file", file, "", "xterm", false},
		{"device", device, "", "xterm", true},
		{"NO_COLOR", device, "1", "xterm", false},
		{"dumb", device, "", "dumb", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", tt.noColor)
			t.Setenv("TERM", tt.term)
			if got := wantsColor(tt.out); got != tt.want {
				t.Errorf("%t, want %t", got, tt.want)
			}
		})
	}
}
