package wire_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/internal/wire"
)

const wireDoc = "../../docs/WIRE.md"

// hexBlock is an example: a golden file, which begins with its name.
var hexBlock = regexp.MustCompile("(?ms)^```hex\n# ([a-z-]+)\n.*?^```$")

// TestDocsExamples: the examples of docs/WIRE.md are the golden files, each of them once.
func TestDocsExamples(t *testing.T) {
	doc := readDoc(t)
	texts, seen := map[string]string{}, map[string]bool{}
	for _, g := range goldens() {
		text, err := annotate(g.name, appendAny(nil, g.kind, g.value), g.layout)
		if err != nil {
			t.Fatal(err)
		}
		texts[g.name] = text
	}
	fixed := hexBlock.ReplaceAllStringFunc(doc, func(block string) string {
		name := hexBlock.FindStringSubmatch(block)[1]
		if texts[name] == "" || seen[name] {
			t.Errorf("%s is no golden file, or is there twice", name)
		}
		seen[name] = true
		want := "```hex\n" + texts[name] + "```"
		if block != want && !*update {
			t.Errorf("the example %s is not testdata/%s.hex", name, name)
		}
		return want
	})
	if n := strings.Count(doc, "```hex"); n != len(seen) {
		t.Errorf("%d blocks of hex, %d of them with the name of an example", n, len(seen))
	}
	for _, g := range goldens() {
		if !seen[g.name] {
			t.Errorf("there is no example %s", g.name)
		}
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(wireDoc, []byte(fixed), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDocsTables: kinds, limits and the input of the example of a proof are as the code has them.
func TestDocsTables(t *testing.T) {
	var want []string
	for k := range 256 {
		if name := wire.Kind(k).String(); !strings.HasPrefix(name, "frame of kind") {
			want = append(want, fmt.Sprintf("| %d | %s |", k, name))
		}
	}
	for _, limit := range []struct {
		of    string
		value int
	}{
		{"a packet of the handshake", wire.MaxHandshake},
		{"or reason", wire.MaxName},
		{"a UUID that is none", wire.MaxText},
		{"endpoints of a node", wire.MaxEndpoints},
		{"capabilities of a node", wire.MaxCapabilities},
		{"MACs in a proof", wire.MaxKeys},
		{"in each direction of a connection", wire.MaxTypes},
	} {
		want = append(want, fmt.Sprintf("%s | %d |", limit.of, limit.value))
	}
	want = append(want,
		fmt.Sprintf("| %d | gap |", wire.TagGap),
		fmt.Sprintf("| %d | replay end |", wire.TagReplayEnd),
		fmt.Sprintf("| %d | targets |", wire.TagTargets),
		fmt.Sprintf("| %d | gone |", wire.TagGone),
		fmt.Sprintf("| %d | another connection carries the link |", wire.CodeReplaced),
		fmt.Sprintf("`%s`", hex.EncodeToString(goldenKey[:])),
		fmt.Sprintf("`%s`", goldenBinding),
	)
	doc := readDoc(t)
	for _, s := range want {
		if !strings.Contains(doc, s) {
			t.Errorf("docs/WIRE.md does not say %q", s)
		}
	}
}

func readDoc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(wireDoc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
