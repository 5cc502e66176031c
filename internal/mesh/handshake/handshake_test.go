package handshake_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// config returns that of node n.
func config(n byte) *handshake.Config {
	return &handshake.Config{
		Hello: wire.Hello{
			MinVersion: 1, MaxVersion: 1, Node: wire.ID{15: n}, Mesh: "gravbus", Nonce: [32]byte{n},
			MaxMessage: 1 << 20, WindowCount: 1024, WindowCost: 4 << 20,
		},
		Resume: func(wire.ID) wire.Resume { return wire.Resume{Stream: uint64(n)} },
	}
}

func dial(t testing.TB, c *handshake.Config) *handshake.Machine {
	t.Helper()
	m, err := handshake.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func listen(t testing.TB, c *handshake.Config) *handshake.Machine {
	t.Helper()
	m, err := handshake.Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// receive is Receive where no error is due.
func receive(t testing.TB, m *handshake.Machine, packet []byte) [][]byte {
	t.Helper()
	send, _, err := m.Receive(packet)
	if err != nil {
		t.Fatal(err)
	}
	return send
}

// TestProof computes proofs as docs/WIRE.md tells, without this package.
func TestProof(t *testing.T) {
	d, l := config(2), config(1)
	d.Keys, l.Keys = [][]byte{[]byte("another"), []byte("secret")}, [][]byte{[]byte("secret")}
	d.Binding = []byte(strings.Repeat("b", 200)) // whose length takes two bytes
	l.Binding = d.Binding

	mac := func(key, label string) []byte {
		dialler := sha256.Sum256(wire.AppendHello(nil, &d.Hello)[2:]) // without kind and length
		listener := sha256.Sum256(wire.AppendHello(nil, &l.Hello)[2:])
		h := hmac.New(sha256.New, []byte(key))
		fmt.Fprintf(h, "%s%s%s%s\xc8\x01%s", label, strings.Repeat("\x00", 32-len(label)), dialler, listener, d.Binding)
		return h.Sum(nil)
	}

	dialler, listener := dial(t, d), listen(t, l)
	hello := receive(t, listener, dialler.Start()[0])
	proof := receive(t, dialler, hello[0])
	p, err := wire.DecodeProof(proof[0][2:])
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{"another", "secret"} {
		if got, want := p.MACs[i][:], mac(key, "gravbus.v1 dial"); !slices.Equal(got, want) {
			t.Errorf("proof by %s: %x, not %x", key, got, want)
		}
	}
	welcome := receive(t, listener, proof[0])
	w, err := wire.DecodeWelcome(welcome[0][2:])
	if err != nil {
		t.Fatal(err)
	}
	if got, want := w.MAC[:], mac("secret", "gravbus.v1 listen"); w.Key != 1 || !slices.Equal(got, want) {
		t.Errorf("welcome by key %d: %x, not by 1: %x", w.Key, got, want)
	}
}

// TestDocumented: the machines send to the byte what docs/WIRE.md gives as an example.
func TestDocumented(t *testing.T) {
	golden := func(frame string) []byte {
		content, err := os.ReadFile(filepath.Join("../../wire/testdata", frame+".hex"))
		if err != nil {
			t.Fatal(err)
		}
		var digits strings.Builder
		for line := range strings.Lines(string(content)) {
			code, _, _ := strings.Cut(line, "#")
			digits.WriteString(strings.TrimSpace(code))
		}
		return unhex(t, digits.String())
	}
	config := func(hello []byte) *handshake.Config {
		_, body, _, _ := wire.Next(hello)
		h, err := wire.DecodeHello(body)
		if err != nil {
			t.Fatal(err)
		}
		key := make([]byte, 32)
		for i := range key {
			key[i] = byte(i)
		}
		return &handshake.Config{Hello: h, Keys: [][]byte{key}, Binding: []byte("binding")}
	}
	hello, helloListener, proof, welcome := golden("hello"), golden("hello-listener"), golden("proof"), golden("welcome")
	dc, lc := config(hello), config(helloListener)
	dc.Resume = func(wire.ID) wire.Resume { return wire.Resume{Stream: 258} }
	lc.Resume = func(wire.ID) wire.Resume { return wire.Resume{Stream: 772, Known: 258, Received: 10} }

	d, l := dial(t, dc), listen(t, lc)
	sent := [][]byte{d.Start()[0]}
	for i, m := range []*handshake.Machine{l, d, l, d} {
		sent = append(sent, receive(t, m, sent[i])...)
	}
	receive(t, l, sent[4])
	for i, want := range [][]byte{hello, helloListener, proof, welcome, golden("use")} {
		if !slices.Equal(sent[i], want) {
			t.Errorf("packet %d is %x, not %x", i, sent[i], want)
		}
	}
	if d.Result() == nil || l.Result() == nil {
		t.Error("no result")
	}
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name   string
		change func(*handshake.Config)
		want   string // in the error
	}{
		{"complete", func(*handshake.Config) {}, ""},
		{"four keys", func(c *handshake.Config) { c.Keys = make4([]byte("k")) }, ""},
		{"five keys", func(c *handshake.Config) { c.Keys = append(make4([]byte("k")), []byte("k")) }, "5 mesh keys"},
		{"empty key", func(c *handshake.Config) { c.Keys = make4(nil) }, "empty mesh key"},
		{"no Resume", func(c *handshake.Config) { c.Resume = nil }, "no Resume"},
		{"no nonce", func(c *handshake.Config) { c.Hello.Nonce = [32]byte{} }, "no nonce"},
		{"no ID", func(c *handshake.Config) { c.Hello.Node = wire.ID{} }, "no node ID"},
		{"no versions", func(c *handshake.Config) { c.Hello.MinVersion = 2 }, "min version"},
		{"long mesh", func(c *handshake.Config) { c.Hello.Mesh = strings.Repeat("m", 256) }, "hello mesh"},
		{"long list", func(c *handshake.Config) { c.Hello.Endpoints = make([]string, 33) }, "endpoints"},
		{"long Hello", func(c *handshake.Config) {
			c.Hello.Capabilities = slices.Repeat([]string{strings.Repeat("c", 255)}, 64)
		}, "fewer endpoints or capabilities"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config(1)
			tt.change(c)
			for _, create := range []func(*handshake.Config) (*handshake.Machine, error){handshake.Dial, handshake.Listen} {
				m, err := create(c)
				switch {
				case tt.want == "" && err != nil:
					t.Error(err)
				case tt.want != "" && (err == nil || m != nil || !strings.Contains(err.Error(), tt.want)):
					t.Errorf("%v, %v; not an error with %q", m, err, tt.want)
				}
			}
		})
	}
}

func make4(key []byte) [][]byte { return slices.Repeat([][]byte{key}, 4) }

// TestLargestHello meets the limit of packets, and passes on all that is in it.
func TestLargestHello(t *testing.T) {
	c := config(1)
	for len(wire.AppendHello(nil, &c.Hello)) < wire.MaxHandshake-256 {
		c.Hello.Capabilities = append(c.Hello.Capabilities, strings.Repeat("c", 250))
	}
	c.Hello.Name = strings.Repeat("n", wire.MaxHandshake-len(wire.AppendHello(nil, &c.Hello)))
	for len(wire.AppendHello(nil, &c.Hello)) > wire.MaxHandshake { // a length that takes one byte more
		c.Hello.Name = c.Hello.Name[1:]
	}
	d, l := dial(t, c), listen(t, config(2))
	if n := len(d.Start()[0]); n != wire.MaxHandshake {
		t.Fatalf("the Hello has %d bytes", n)
	}
	receive(t, l, d.Start()[0])
	proof := receive(t, d, wire.AppendHello(nil, &config(2).Hello))
	receive(t, l, proof[0])
	receive(t, l, wire.AppendUse(nil))
	if p := l.Result().Peer; !slices.Equal(p.Capabilities, c.Hello.Capabilities) || p.Name != c.Hello.Name {
		t.Errorf("the peer is %v", p)
	}
}

// TestCalls: Resume before a dialler's proof, Accept after the other side's, then Decide on the
// decider, and Resume on a listener last.
func TestCalls(t *testing.T) {
	tests := []struct {
		dialler, listener byte // IDs
		want              string
	}{
		{1, 2, "1 resumes 2, 2 accepts 1, 2 resumes 1, 1 accepts 2, 1 decides 2"},
		{2, 1, "2 resumes 1, 1 accepts 2, 1 decides 2, 1 resumes 2, 2 accepts 1"},
	}
	for _, tt := range tests {
		var calls []string
		logged := func(n byte) *handshake.Config {
			c := config(n)
			c.Keys = [][]byte{[]byte("secret")}
			c.Resume = func(peer wire.ID) wire.Resume {
				calls = append(calls, fmt.Sprintf("%d resumes %d", n, peer[15]))
				return wire.Resume{Stream: 1}
			}
			called := func(verb string) func(*handshake.Peer) error {
				return func(p *handshake.Peer) error {
					calls = append(calls, fmt.Sprintf("%d %s %d", n, verb, p.ID[15]))
					if !p.Authenticated || p.Version != 1 || p.MaxMessage != 1<<20 {
						t.Errorf("%d %s %v", n, verb, p)
					}
					return nil
				}
			}
			c.Accept, c.Decide = called("accepts"), called("decides")
			return c
		}
		d, l := dial(t, logged(tt.dialler)), listen(t, logged(tt.listener))
		proof := receive(t, d, receive(t, l, d.Start()[0])[0])
		for _, p := range receive(t, l, proof[0]) {
			receive(t, d, p)
		}
		if got := strings.Join(calls, ", "); got != tt.want {
			t.Errorf("%s; not %s", got, tt.want)
		}
	}
}

// TestErrors: code and error stand for each other, both ways.
func TestErrors(t *testing.T) {
	for _, known := range sentinels {
		for _, remote := range []bool{false, true} {
			err := fmt.Errorf("wrapped: %w", &handshake.Error{Code: known.code, Remote: remote})
			for _, other := range sentinels {
				if got := errors.Is(err, other.err); got != (other == known) {
					t.Errorf("Is(%v, %v) = %t", err, other.name, got)
				}
			}
			if code, ok := handshake.CodeOf(err); code != known.code || !ok {
				t.Errorf("%v has code %d, %t", err, code, ok)
			}
		}
		if code, ok := handshake.CodeOf(fmt.Errorf("wrapped: %w", known.err)); code != known.code || !ok {
			t.Errorf("%s has code %d, %t", known.name, code, ok)
		}
	}
	if len(sentinels) != int(wire.CodeReplaced) {
		t.Errorf("%d errors for %d codes", len(sentinels), wire.CodeReplaced)
	}
	if code, ok := handshake.CodeOf(errors.New("something else")); code != 0 || ok {
		t.Errorf("something else has code %d", code)
	}
	for _, code := range []wire.Code{0, 15, 1 << 63} {
		err := &handshake.Error{Code: code}
		if errors.Is(err, nil) || err.Error() != fmt.Sprintf("code %d", code) {
			t.Errorf("code %d is %v", code, err)
		}
		if got, ok := handshake.CodeOf(err); got != code || !ok {
			t.Errorf("code %d has code %d", code, got)
		}
	}
}

// TestCause: errors tell what caused them to this side, and to the other one what it needs.
func TestCause(t *testing.T) {
	failure := errors.New("the directory is down")
	tests := []struct {
		name   string
		err    error // of Accept
		code   wire.Code
		reason string
	}{
		{"text", failure, wire.CodeRejected, "the directory is down"},
		{"sentinel", handshake.ErrBusy, wire.CodeBusy, ""},
		{"wrapped", fmt.Errorf("%w: %w", handshake.ErrWithdrawn, failure), wire.CodeLeaving, "the node is leaving: the directory is down"},
		{"typed", &handshake.Error{Code: 77, Reason: "new", Err: failure}, 77, "new"},
		{"long", errors.New(strings.Repeat("ö", 200)), wire.CodeRejected, strings.Repeat("ö", 127)},
		{"no text", errors.New("a\xff"), wire.CodeRejected, "a\uFFFD"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config(1)
			c.Accept = func(*handshake.Peer) error { return tt.err }
			d, l := dial(t, config(2)), listen(t, c)
			proof := receive(t, d, receive(t, l, d.Start()[0])[0])
			send, _, err := l.Receive(proof[0])
			var local *handshake.Error
			if !errors.As(err, &local) || local.Code != tt.code || local.Remote || !errors.Is(err, tt.err) {
				t.Errorf("this side has %#v", err)
			}
			_, _, err = d.Receive(send[0])
			var remote *handshake.Error
			if !errors.As(err, &remote) || remote.Code != tt.code || !remote.Remote || remote.Reason != tt.reason {
				t.Errorf("the other side has %#v", err)
			}
		})
	}

	_, _, err := listen(t, config(1)).Receive([]byte{byte(wire.KindHello), 0})
	var malformed *wire.Error
	if !errors.As(err, &malformed) || !errors.Is(err, handshake.ErrProtocol) {
		t.Errorf("an empty Hello is %#v", err)
	}
}
