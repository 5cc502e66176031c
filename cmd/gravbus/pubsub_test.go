package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lines returns n numbered lines, some of them odd.
func lines(n int) []byte {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	for i := range n {
		switch i % 1000 {
		case 7:
			fmt.Fprint(w, "\n")
		case 8:
			fmt.Fprintf(w, "%d with a return\r\n", i)
		case 9:
			fmt.Fprintf(w, "%d \xff\xfe\x00 not text\n", i)
		case 10:
			fmt.Fprintf(w, "%d äöü %s\n", i, strings.Repeat("long ", 30_000/(1+i/1000)))
		default:
			fmt.Fprintf(w, "line number %d of some log\n", i)
		}
	}
	w.Flush()
	return b.Bytes()
}

func same(t *testing.T, want []byte, got string) {
	t.Helper()
	if string(want) == got {
		return
	}
	i := 0
	for i < min(len(want), len(got)) && want[i] == got[i] {
		i++
	}
	t.Fatalf("%d bytes became %d; they differ at %d: %.60q, not %.60q", len(want), len(got), i, got[i:], want[i:])
}

func TestProcessLinesArriveUnchanged(t *testing.T) {
	const n = 100_000
	s := newSeed(t)
	sub := s.begin(t, "sub", "logs.*", "--count", fmt.Sprint(n))
	pub := s.begin(t, "pub", "logs.line", "-")
	want := lines(n)
	if _, err := pub.in.Write(want); err != nil {
		t.Fatal(err)
	}
	pub.in.Close()
	pub.must(t, exitOK)
	same(t, want, sub.must(t, exitOK))
}

func TestProcessNoCountNoLoss(t *testing.T) {
	const n = 20_000
	s := newSeed(t)
	sub := s.begin(t, "sub", "logs.line")
	pub := s.begin(t, "pub", "logs.line", "-")
	want := lines(n)
	if _, err := pub.in.Write(want); err != nil {
		t.Fatal(err)
	}
	pub.in.Close()
	pub.must(t, exitOK)
	sub.signal(t, os.Interrupt) // what was on its way is printed
	same(t, want, sub.must(t, exitOK))
}

func TestProcessLastLineWithoutEnd(t *testing.T) {
	s := newSeed(t)
	sub := s.begin(t, "sub", "logs.line", "--count", "2")
	pub := s.begin(t, "pub", "logs.line", "-")
	fmt.Fprint(pub.in, "one\ntwo")
	pub.in.Close()
	pub.must(t, exitOK)
	same(t, []byte("one\ntwo\n"), sub.must(t, exitOK))
}

func TestProcessFileOfAnyBytes(t *testing.T) {
	s := newSeed(t)
	data := bytes.Repeat([]byte{0, '\n', 0xff, '\r', 1, 2, 3, 254}, 100_000)
	path := t.TempDir() + "/file"
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, arg := range map[string]string{"file": "@" + path, "stdin": "@-"} {
		t.Run(name, func(t *testing.T) {
			sub := s.begin(t, "sub", "files.>", "--raw", "--count", "1")
			pub := s.begin(t, "pub", "files.new", arg)
			if name == "stdin" {
				if _, err := pub.in.Write(data); err != nil {
					t.Fatal(err)
				}
			}
			pub.in.Close()
			pub.must(t, exitOK)
			same(t, data, sub.must(t, exitOK))
		})
	}
}

func TestProcessNullDelimiter(t *testing.T) {
	s := newSeed(t)
	sub := s.begin(t, "sub", "names", "-0", "--count", "3")
	pub := s.begin(t, "pub", "names", "-", "-0")
	const names = "a\nb\x00\x00c\x00"
	fmt.Fprint(pub.in, names)
	pub.in.Close()
	pub.must(t, exitOK)
	same(t, []byte(names), sub.must(t, exitOK))
}

func TestProcessFormats(t *testing.T) {
	s := newSeed(t)
	inJSON := s.begin(t, "sub", "a.b", "--json", "--count", "3")
	inMeta := s.begin(t, "sub", "a.b", "--meta", "--count", "3")
	pub := s.begin(t, "pub", "a.b", "-", "--peers", "2")
	fmt.Fprint(pub.in, "<text>\n\xff\n\n")
	pub.in.Close()
	pub.must(t, exitOK)
	dec := json.NewDecoder(strings.NewReader(inJSON.must(t, exitOK)))
	var r [3]record
	for i := range r {
		if err := dec.Decode(&r[i]); err != nil {
			t.Fatal(err)
		}
		if r[i].Type != "a.b" || len(r[i].UUID) != 36 || time.Since(r[i].Time).Abs() > time.Hour {
			t.Errorf("%+v", r[i])
		}
	}
	if *r[0].Data != "<text>" || string(r[1].Base64) != "\xff" || r[1].Data != nil || *r[2].Data != "" {
		t.Errorf("%+v", r)
	}
	var when, typ, uuid, data string
	if _, err := fmt.Sscan(inMeta.must(t, exitOK), &when, &typ, &uuid, &data); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339, when); err != nil || typ != "a.b" || uuid != r[0].UUID || data != "<text>" {
		t.Errorf("%s %s %s %s, %v", when, typ, uuid, data, err)
	}
}

func TestProcessPubWaitsForSub(t *testing.T) {
	s := newSeed(t)
	pub := s.begin(t, "pub", "orders.created", "seven", "--peers", "2")
	pub.told(t, &pub.stderr, "waiting for 2 nodes that want orders.created")
	one := s.begin(t, "sub", "orders.*", "--count", "1")
	two := s.begin(t, "sub", ">", "--count", "1")
	same(t, []byte("seven\n"), one.must(t, exitOK))
	same(t, []byte("seven\n"), two.must(t, exitOK))
	if r := pub.wait(t); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
}

func TestProcessNobodyIsThere(t *testing.T) {
	s := newSeed(t, "--name", "home")
	for _, args := range [][]string{{"pub", "t", "x"}, {"pub", "t", "-"}, {"request", "t"}, {"request", "t", "--all"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			r := s.begin(t, append(args, "--timeout", "300ms")...).wait(t)
			if r.code != exitNobody || !strings.Contains(r.stderr, "nobody is there") || r.stdout != "" {
				t.Errorf("%+v", r)
			}
		})
	}
	// Who only watches is nobody to ask.
	sub := s.begin(t, "sub", "t", "-v")
	sub.told(t, &sub.stderr, "peer connected")
	if r := s.begin(t, "request", "t", "--timeout", "500ms").wait(t); r.code != exitNobody {
		t.Errorf("%+v", r)
	}
	// Alone.
	r := begin(t, "pub", "t", "x", "--mdns=false", "--seed", "127.0.0.1:1", "--timeout", "200ms").wait(t)
	if r.code != exitNobody || !strings.Contains(r.stderr, "no other node was found") {
		t.Errorf("%+v", r)
	}
	if r := begin(t, "peers", "--mdns=false", "--seed", "127.0.0.1:1", "--timeout", "200ms", "--json").wait(t); r.code != exitNobody || r.stdout != "[]\n" {
		t.Errorf("%+v", r)
	}
}

func TestProcessSubTimeout(t *testing.T) {
	s := newSeed(t)
	if r := s.begin(t, "sub", "t", "--timeout", "100ms").wait(t); r.code != exitOK || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	if r := s.begin(t, "sub", "t", "--timeout", "100ms", "--count", "2").wait(t); r.code != exitTimeout || !strings.Contains(r.stderr, "0 of 2 messages came") {
		t.Errorf("%+v", r)
	}
}

func TestProcessGroups(t *testing.T) {
	const n = 1000
	s := newSeed(t)
	one := s.begin(t, "sub", "jobs", "--group", "workers")
	two := s.begin(t, "sub", "jobs", "--group", "workers")
	pub := s.begin(t, "pub", "jobs", "-", "--peers", "2")
	for i := range n {
		fmt.Fprintln(pub.in, i)
	}
	pub.in.Close()
	pub.must(t, exitOK)
	one.signal(t, syscall.SIGTERM)
	two.signal(t, syscall.SIGTERM)
	seen := map[string]int{}
	both := []string{one.must(t, exitOK), two.must(t, exitOK)}
	for line := range strings.Lines(both[0] + both[1]) {
		seen[line]++
	}
	if len(seen) != n || strings.Count(both[0]+both[1], "\n") != n || both[0] == "" || both[1] == "" {
		t.Errorf("%d different of %d; %d and %d bytes", len(seen), n, len(both[0]), len(both[1]))
	}
}

func TestProcessReplay(t *testing.T) {
	s := newSeed(t)
	first := s.begin(t, "sub", "notes", "--count", "5")
	pub := s.begin(t, "pub", "notes", "-")
	fmt.Fprint(pub.in, "1\n2\n3\n4\n5\n")
	first.must(t, exitOK)
	for what, want := range map[string]string{"": "1\n2\n3\n4\n5\n", "=2": "4\n5\n", "=1h": "1\n2\n3\n4\n5\n"} {
		late := s.begin(t, "sub", "notes", "--replay"+what, "--count", fmt.Sprint(strings.Count(want, "\n")))
		same(t, []byte(want), late.must(t, exitOK))
	}
	pub.in.Close()
	pub.must(t, exitOK)
}

func TestProcessReaderThatHasEnough(t *testing.T) {
	s := newSeed(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	sub := beginIn(t, nil, w, s.with("sub", "logs.line")...)
	w.Close()
	pub := s.begin(t, "pub", "logs.line", "-")
	fmt.Fprintln(pub.in, "first")
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "first\n" {
		t.Fatalf("%q, %v", line, err)
	}
	r.Close()
	fmt.Fprintln(pub.in, "second")
	if got := sub.wait(t); got.code != exitFailed || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	pub.in.Close()
	pub.must(t, exitOK)
}

func TestProcessSlowReader(t *testing.T) {
	const n = 60_000
	s := newSeed(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sub := beginIn(t, nil, w, s.with("sub", "logs.line", "--count", fmt.Sprint(n))...)
	w.Close()
	pub := s.begin(t, "pub", "logs.line", "-")
	want := bytes.Repeat([]byte(strings.Repeat("x", 1023)+"\n"), n) // more than all queues together hold
	go func() {                                                     // ends when all is read, or with the process
		_, _ = pub.in.Write(want)
		pub.in.Close()
	}()
	first := make([]byte, 1024)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err)
	}
	idle := time.NewTimer(2500 * time.Millisecond) // longer than a stall limit of a bus's own
	<-idle.C
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, string(first)+string(rest))
	sub.must(t, exitOK)
	pub.must(t, exitOK)
}

func TestProcessInterruptedPub(t *testing.T) {
	s := newSeed(t)
	sub := s.begin(t, "sub", "logs.line")
	pub := s.begin(t, "pub", "logs.line", "-")
	fmt.Fprint(pub.in, "one\ntwo\n")
	sub.told(t, &sub.stdout, "two\n")
	pub.signal(t, os.Interrupt)
	if r := pub.wait(t); r.code != exitFailed || r.stderr != "gravbus: interrupted\n" {
		t.Errorf("%+v", r)
	}
	sub.signal(t, syscall.SIGTERM)
	same(t, []byte("one\ntwo\n"), sub.must(t, exitOK))
}

// Lines that nobody wants any more wait for somebody who does.
func TestProcessPubWhoseReadersLeave(t *testing.T) {
	s := newSeed(t)
	pub := s.begin(t, "pub", "logs.line", "-", "--timeout", "3s")
	for i := range 3 {
		fmt.Fprintln(pub.in, i)
		same(t, fmt.Appendln(nil, i), s.begin(t, "sub", "logs.line", "--count", "1").must(t, exitOK))
	}
	fmt.Fprintln(pub.in, "for nobody")
	if r := pub.wait(t); r.code != exitNobody || !strings.Contains(r.stderr, "message 4: nobody is there: too few nodes want logs.line; connected are node@") {
		t.Errorf("%+v", r)
	}
}

func TestProcessTooLarge(t *testing.T) {
	s := newSeed(t)
	if r := s.begin(t, "pub", "t", "too long", "--max-size", "7").wait(t); r.code != exitFailed || !strings.Contains(r.stderr, "a message may have 7 bytes") {
		t.Errorf("%+v", r)
	}
	sub := s.begin(t, "sub", "t", "--count", "1")
	pub := s.begin(t, "pub", "t", "-", "--max-size", "100000")
	fmt.Fprintf(pub.in, "fits\n%s\n", strings.Repeat("x", 100_001))
	pub.in.Close()
	if r := pub.wait(t); r.code != exitFailed || !strings.Contains(r.stderr, "message 2: a message may have 100000 bytes") {
		t.Errorf("%+v", r)
	}
	same(t, []byte("fits\n"), sub.must(t, exitOK))
}
