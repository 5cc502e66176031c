package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/sirupsen/logrus"
)

func TestSplitter(t *testing.T) {
	const most = 100_000 // more than the reader's buffer
	long := strings.Repeat("x", most)
	for _, tt := range []struct {
		name, in  string
		delimiter byte
		want      []string
		tooLarge  bool
	}{
		{"nothing", "", '\n', nil, false},
		{"one line", "a\n", '\n', []string{"a"}, false},
		{"no end", "a\nb", '\n', []string{"a", "b"}, false},
		{"empty lines", "\n\n", '\n', []string{"", ""}, false},
		{"returns stay", "a\r\n", '\n', []string{"a\r"}, false},
		{"NUL", "a\nb\x00\x00", 0, []string{"a\nb", ""}, false},
		{"long", long + "\nb\n", '\n', []string{long, "b"}, false},
		{"long, no end", long, '\n', []string{long}, false},
		{"too long", "a\n" + long + "x\nb\n", '\n', []string{"a"}, true},
		{"too long, no end", long + "x", '\n', nil, true},
		{"far too long", long + long, '\n', nil, true},
	} {
		for how, in := range map[string]io.Reader{
			"at once": strings.NewReader(tt.in), "in halves": iotest.HalfReader(strings.NewReader(tt.in)), "end with data": iotest.DataErrReader(strings.NewReader(tt.in)),
		} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				s := newSplitter(in, tt.delimiter, most)
				var got []string
				var err error
				for err == nil {
					var part []byte
					if part, err = s.next(); err == nil {
						got = append(got, string(part))
					}
				}
				if !reflect.DeepEqual(got, tt.want) || tt.tooLarge == errors.Is(err, io.EOF) {
					t.Errorf("%d parts, %v", len(got), err)
				}
			})
		}
	}
}

func TestSplitterTellsOfErrors(t *testing.T) {
	broken := errors.New("broken")
	s := newSplitter(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), '\n', 10)
	if part, err := s.next(); string(part) != "a" || err != nil {
		t.Errorf("%q, %v", part, err)
	}
	if _, err := s.next(); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// gate is a writer that waits.
type gate struct {
	entered, leave chan struct{}
	writes         [][]byte
}

func (g *gate) Write(p []byte) (int, error) {
	g.entered <- struct{}{}
	<-g.leave
	g.writes = append(g.writes, bytes.Clone(p))
	return len(p), nil
}

func TestOutputGathersWhileItWrites(t *testing.T) {
	g := &gate{entered: make(chan struct{}, 10), leave: make(chan struct{}, 10)}
	o := newOutput(g)
	print := func(s string) { o.print(func(b []byte) []byte { return append(b, s...) }) }
	print("a")
	<-g.entered
	print("b")
	print("c")
	g.leave <- struct{}{}
	g.leave <- struct{}{}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if len(g.writes) != 2 || string(g.writes[0]) != "a" || string(g.writes[1]) != "bc" {
		t.Errorf("%q", g.writes)
	}
}

func TestOutputIsBounded(t *testing.T) {
	g := &gate{entered: make(chan struct{}, 10), leave: make(chan struct{}, 10)}
	o := newOutput(g)
	big := func(b []byte) []byte { return append(b, make([]byte, maxUnwritten+1)...) }
	o.print(big)
	<-g.entered
	o.print(big)
	done := make(chan struct{})
	go func() { // ends when there is room
		o.print(big)
		close(done)
	}()
	select {
	case <-done:
		t.Error("no bound")
	case <-time.After(20 * time.Millisecond):
	}
	for range 3 {
		g.leave <- struct{}{}
	}
	<-done
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
}

func TestOutputThatFails(t *testing.T) {
	o := newOutput(brokenWriter{})
	big := func(b []byte) []byte { return append(b, make([]byte, maxUnwritten+1)...) }
	for range 5 { // nobody waits for room that never comes
		o.print(big)
	}
	<-o.done
	if err := o.close(); err == nil || err.Error() != "disk full" {
		t.Error(err)
	}
}

func TestMeshKeys(t *testing.T) {
	const a, b = "0123456789abcdef", "fedcba9876543210"
	for name, tt := range map[string]struct {
		env, file string
		want      []string
		err       string
	}{
		"none":             {"", "", nil, ""},
		"from environment": {a, "", []string{a}, ""},
		"file first":       {a, b, []string{b}, ""},
		"two":              {"", "# new\n" + b + "\n\n  " + a + " \r\n", []string{b, a}, ""},
		"short":            {"0123456789abcde", "", nil, "a key in GRAVBUS_KEY has fewer than 16 characters"},
		"empty file":       {"", "\n", nil, "there is no key in "},
		"five":             {strings.Repeat(a+"\n", 5), "", nil, "there are 5 keys in GRAVBUS_KEY; 4 is the most"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(keyVariable, tt.env)
			path := ""
			if tt.file != "" {
				path = filepath.Join(t.TempDir(), "keys")
				if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			keys, err := meshKeys(path)
			var got []string
			for _, k := range keys {
				got = append(got, string(k))
			}
			if tt.err == "" && (err != nil || !reflect.DeepEqual(got, tt.want)) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestLogLines(t *testing.T) {
	var out bytes.Buffer
	l := logrus.New()
	l.SetOutput(&out)
	l.SetFormatter(&lineFormatter{withoutMDNS: true})
	l.WithField("peer", "p").WithError(errors.New("x y")).Warn("gravbus: peer has gone")
	l.Warn("mdns: no multicast")
	l.Warn("own")
	if want := "gravbus: peer has gone: x y (peer p)\ngravbus: own\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}

func TestOnlyForThisMachine(t *testing.T) {
	for listen, local := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:80": true, "localhost:8080": true, "127.3.2.1:1": true,
		":8080": false, "0.0.0.0:0": false, "10.0.0.7:8080": false, "example.org:80": false, "[::]:0": false,
	} {
		if c := mdnsConfig(listen); (len(c.Interfaces) > 0) != local {
			t.Errorf("%s: %+v", listen, c)
		}
	}
}
