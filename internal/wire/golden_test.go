package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files, and their copies in docs/WIRE.md")

// TestGolden: frames look like those in testdata, and those are read as what they were.
func TestGolden(t *testing.T) {
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			file := filepath.Join("testdata", g.name+".hex")
			packet := appendAny(nil, g.kind, g.value)
			text, err := annotate(g.name, packet, g.layout)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("%s should be\n%s", file, text)
			}
			kind, body := one(t, fromHex(t, string(want)))
			got, err := decodeAny(kind, body)
			if err != nil || kind != g.kind || !reflect.DeepEqual(got, g.value) {
				t.Errorf("read %v %+v, %v\nwant %v %+v", kind, got, err, g.kind, g.value)
			}
		})
	}
}

// TestGoldenIsComplete: there is one of each kind, and no file without a test.
func TestGoldenIsComplete(t *testing.T) {
	kinds, names := map[wire.Kind]bool{}, map[string]bool{}
	for _, g := range goldens() {
		kinds[g.kind], names[g.name+".hex"] = true, true
	}
	for k := range 256 {
		if named := !strings.HasPrefix(wire.Kind(k).String(), "frame of kind"); named != kinds[wire.Kind(k)] {
			t.Errorf("%v: has a name %v, has a golden file %v", wire.Kind(k), named, kinds[wire.Kind(k)])
		}
	}
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.IsDir() && !names[f.Name()] {
			t.Errorf("testdata/%s belongs to no test", f.Name())
		}
	}
}

// annotate writes a packet as lines of hex with comments, its name first. It reads the fields by itself, as
// docs/WIRE.md describes them: a layout is a list of a form and a name each.
func annotate(name string, packet []byte, layout []string) (string, error) {
	var out strings.Builder
	fmt.Fprintln(&out, "#", name)
	for _, field := range layout {
		form, name, _ := strings.Cut(field, " ")
		n, value, err := show(form, packet)
		if err != nil || n > len(packet) {
			return "", fmt.Errorf("%s: %d bytes of %x: %w", field, n, packet, err)
		}
		comment := name
		if value != "" {
			comment += " = " + value
		}
		for rest, first := packet[:n], true; len(rest) > 0; first = false {
			line := rest[:min(len(rest), 16)]
			rest = rest[len(line):]
			if !first {
				comment = ""
			}
			fmt.Fprintln(&out, strings.TrimRight(fmt.Sprintf("%-32x # %s", line, comment), " #"))
		}
		packet = packet[n:]
	}
	if len(packet) > 0 {
		return "", fmt.Errorf("%x is left", packet)
	}
	return out.String(), nil
}

// show returns how long a value of the form at the beginning of b is, and the value for people.
func show(form string, b []byte) (n int, value string, err error) {
	v, n := binary.Uvarint(b)
	if raw, ok := strings.CutPrefix(form, "raw"); ok { // so many bytes that mean nothing to people
		n, err = strconv.Atoi(raw)
		return n, "", err
	}
	if raw, ok := strings.CutPrefix(form, "text"); ok { // so many bytes that do
		n, err = strconv.Atoi(raw)
		return n, strconv.Quote(string(b[:min(n, len(b))])), err
	}
	if n <= 0 {
		return 0, "", fmt.Errorf("no uvarint at %x", b)
	}
	switch form {
	case "byte":
		return 1, strconv.Itoa(int(b[0])), nil
	case "uvarint":
		return n, strconv.FormatUint(v, 10), nil
	case "varint":
		v, n := binary.Varint(b)
		return n, strconv.FormatInt(v, 10), nil
	case "string":
		end := n + int(v)
		if end > len(b) {
			return 0, "", fmt.Errorf("a string of %d bytes at %x", v, b)
		}
		return end, strconv.Quote(string(b[n:end])), nil
	}
	return 0, "", fmt.Errorf("no form %q", form)
}

// fromHex returns the bytes of lines of hex with comments.
func fromHex(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	for line := range strings.Lines(text) {
		digits, _, _ := strings.Cut(line, "#")
		line, err := hex.DecodeString(strings.TrimSpace(digits))
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
	}
	return b.Bytes()
}
