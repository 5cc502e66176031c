package handshake_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// TestScripts plays the stories in testdata. A story is made of blocks with an empty line between
// them; a block has commands, a line of dashes, and what they print:
//
//	dial NAME OPTION…       a machine that dials; the options are at the method machine below
//	listen NAME OPTION…     a machine that listens
//	connect D L             both start, and packets pass between them from now on
//	deliver                 the packet that was sent first arrives
//	run                     all packets arrive, and what is sent in answer
//	drop                    the packet that would be delivered next is lost
//	alter FIELD=VALUE…      somebody changes it on its way; the fields are at the function alter
//	keep COPY               somebody keeps a copy of it
//	inject COPY NAME        the copy arrives at a machine
//	forge NAME HEX          a packet with these bytes arrives at a machine
//	timeout NAME            the machine's owner has waited long enough
//	result NAME             prints what the handshake came to
//
// Text from # to the end of a line is a comment. With -update the outputs are rewritten.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			blocks := strings.Split(strings.TrimSpace(string(content)), "\n\n")
			stage := newStage(t)
			for i, block := range blocks {
				commands, want, ok := strings.Cut(block, "\n----")
				if !ok { // a comment by itself: the next story
					for line := range strings.Lines(block) {
						if !strings.HasPrefix(line, "#") {
							t.Fatalf("no ---- after %s", block)
						}
					}
					stage = newStage(t)
					continue
				}
				got := stage.play(commands)
				if want = strings.TrimPrefix(want, "\n"); got != want && !*update {
					t.Errorf("%s\ngives\n%s\nnot\n%s", commands, got, want)
				}
				blocks[i] = strings.TrimSuffix(commands+"\n----\n"+got, "\n")
			}
			if *update {
				if err := os.WriteFile(file, []byte(strings.Join(blocks, "\n\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// stage is where one story plays.
type stage struct {
	t       *testing.T
	actors  map[string]*actor
	flying  []flight
	copies  map[string][]byte
	created byte
	out     strings.Builder
}

type actor struct {
	*handshake.Machine
	name  string
	other *actor
}

// flight is a packet on its way.
type flight struct {
	from, to *actor
	packet   []byte
}

func newStage(t *testing.T) *stage {
	return &stage{t: t, actors: map[string]*actor{}, copies: map[string][]byte{}}
}

func (s *stage) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *stage) play(commands string) string {
	s.t.Helper()
	s.out.Reset()
	for line := range strings.Lines(commands) {
		if words := split(line); len(words) > 0 {
			s.command(words[0], words[1:])
		}
	}
	return strings.TrimSuffix(s.out.String(), "\n")
}

// split splits a line at spaces outside of quotes, up to a comment.
func split(line string) []string {
	var quoted, comment bool
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		comment = comment || r == '#' && !quoted
		return comment || !quoted && (r == ' ' || r == '\n')
	})
}

func (s *stage) command(name string, args []string) {
	s.t.Helper()
	switch name {
	case "dial", "listen":
		s.actors[args[0]] = s.machine(name == "dial", args[0], args[1:])
	case "connect":
		d, l := s.actor(args[0]), s.actor(args[1])
		d.other, l.other = l, d
		s.send(d, d.Start())
		s.send(l, l.Start())
	case "run":
		for len(s.flying) > 0 {
			s.deliver()
		}
	case "deliver":
		s.deliver()
	case "drop":
		f := s.flying[0]
		s.flying = s.flying[1:]
		s.printf("%s → …  %s", f.from.name, describe(f.packet))
	case "alter":
		s.flying[0].packet = alter(s.t, s.flying[0].packet, args)
	case "keep":
		s.copies[args[0]] = slices.Clone(s.flying[0].packet)
	case "inject":
		s.arrive("…", s.actor(args[1]), s.copies[args[0]])
	case "forge":
		s.arrive("…", s.actor(args[0]), unhex(s.t, args[1]))
	case "timeout":
		a := s.actor(args[0])
		s.send(a, a.Refuse(wire.CodeBusy, "the handshake took too long"))
	case "result":
		s.result(s.actor(args[0]))
	default:
		s.t.Fatalf("unknown command %q", name)
	}
}

func (s *stage) actor(name string) *actor {
	s.t.Helper()
	a := s.actors[name]
	if a == nil {
		s.t.Fatalf("no machine is called %q", name)
	}
	return a
}

func (s *stage) send(from *actor, packets [][]byte) {
	for _, p := range packets {
		s.flying = append(s.flying, flight{from, from.other, p})
	}
}

func (s *stage) deliver() {
	f := s.flying[0]
	s.flying = s.flying[1:]
	s.arrive(f.from.name, f.to, f.packet)
}

// arrive lets a machine receive a packet, and prints what it makes of it.
func (s *stage) arrive(from string, to *actor, packet []byte) {
	s.printf("%s → %s  %s", from, to.name, describe(packet))
	send, done, err := to.Receive(packet)
	switch {
	case err != nil:
		s.printf("  %s ends: %v", to.name, err)
		for _, known := range sentinels {
			if errors.Is(err, known.err) {
				s.printf("       %s", known.name)
			}
		}
	case done:
		s.printf("  %s is done", to.name)
	}
	s.send(to, send)
}

func (s *stage) result(a *actor) {
	r := a.Result()
	if r == nil {
		s.printf("%s: nothing", a.name)
		return
	}
	p := r.Peer
	s.printf("%s: node %s of mesh %q, version %d, authenticated %t", a.name, short(p.ID), p.Mesh, p.Version, p.Authenticated)
	s.printf("   name %q, messages of %d, window %d/%d", p.Name, p.MaxMessage, p.WindowCount, p.WindowCost)
	s.printf("   endpoints %q, capabilities %q", p.Endpoints, p.Capabilities)
	s.printf("   sends %s, is sent %s", resume(r.Mine), resume(r.PeerResume))
}

// machine makes a machine from options.
func (s *stage) machine(dialer bool, name string, options []string) *actor {
	s.t.Helper()
	s.created++
	c := &handshake.Config{
		Hello: wire.Hello{
			MinVersion: 1, MaxVersion: 1, Mesh: "gravbus", Name: name,
			Nonce: [32]byte{s.created}, MaxMessage: 1 << 20, WindowCount: 1024, WindowCost: 4 << 20,
		},
		Resume: func(wire.ID) wire.Resume { return wire.Resume{Stream: 1} },
	}
	if !dialer {
		c.Resume = func(wire.ID) wire.Resume { return wire.Resume{Stream: 2} }
	}
	var future []byte
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		value = strings.Trim(value, `"`)
		switch key {
		case "id":
			c.Hello.Node = id(s.t, value)
		case "mesh":
			c.Hello.Mesh = value
		case "versions":
			c.Hello.MinVersion, c.Hello.MaxVersion = versions(s.t, value)
		case "endpoints":
			c.Hello.Endpoints = strings.Split(value, ",")
		case "capabilities":
			c.Hello.Capabilities = strings.Split(value, ",")
		case "keys":
			for key := range strings.SplitSeq(value, ",") {
				c.Keys = append(c.Keys, []byte(key))
			}
		case "binding":
			c.Binding = []byte(value)
		case "expect":
			c.Expect = id(s.t, value)
		case "resume": // stream/known/received
			var r wire.Resume
			if _, err := fmt.Sscanf(value, "%d/%d/%d", &r.Stream, &r.Known, &r.Received); err != nil {
				s.t.Fatal(err)
			}
			c.Resume = func(wire.ID) wire.Resume { return r }
		case "accept": // the error of Accept: a text, or the name of an error of this package
			c.Accept = func(*handshake.Peer) error { return errorNamed(value) }
		case "decide": // the same of Decide
			c.Decide = func(*handshake.Peer) error { return errorNamed(value) }
		case "future": // fields that a later version adds to the Hello
			future = unhex(s.t, value)
		default:
			s.t.Fatalf("unknown option %q", o)
		}
	}
	create := handshake.Listen
	if dialer {
		create = handshake.Dial
	}
	m, err := create(c)
	if err != nil {
		s.t.Fatal(err)
	}
	if future != nil {
		m.Extend(future)
	}
	return &actor{Machine: m, name: name}
}

var sentinels = []struct {
	name string
	code wire.Code
	err  error
}{
	{"ErrProtocol", wire.CodeProtocol, handshake.ErrProtocol},
	{"ErrVersion", wire.CodeVersion, handshake.ErrVersion},
	{"ErrMeshMismatch", wire.CodeMesh, handshake.ErrMeshMismatch},
	{"ErrUnauthorized", wire.CodeUnauthorized, handshake.ErrUnauthorized},
	{"ErrSelf", wire.CodeSelf, handshake.ErrSelf},
	{"ErrNodeUUIDMismatch", wire.CodeNode, handshake.ErrNodeUUIDMismatch},
	{"ErrRejected", wire.CodeRejected, handshake.ErrRejected},
	{"ErrBusy", wire.CodeBusy, handshake.ErrBusy},
	{"ErrWithdrawn", wire.CodeLeaving, handshake.ErrWithdrawn},
	{"ErrTooLarge", wire.CodeTooLarge, handshake.ErrTooLarge},
	{"ErrTooMuch", wire.CodeTooMuch, handshake.ErrTooMuch},
	{"ErrSequence", wire.CodeSequence, handshake.ErrSequence},
	{"ErrSilent", wire.CodeSilent, handshake.ErrSilent},
	{"ErrReplaced", wire.CodeReplaced, handshake.ErrReplaced},
}

func errorNamed(s string) error {
	for _, known := range sentinels {
		if s == known.name {
			return known.err
		}
	}
	return errors.New(s)
}
