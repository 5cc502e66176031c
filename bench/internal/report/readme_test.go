package report_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gravbus/gravbus/bench/internal/report"
	"github.com/gravbus/gravbus/bench/internal/result"
)

func TestREADME(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "README.md")
	before, after := "# gravbus\r\n\n  text  \n<!-- bench -->\n", "<!-- /bench -->\n\nThe rest, without an end of line"
	write(t, path, before+"old\n"+after)
	dir := filepath.Join(root, "bench", "the results")
	for range 2 { // the second time changes nothing
		if err := report.README(path, dir, made(t)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body, ok := strings.CutPrefix(string(data), before)
	if ok {
		body, ok = strings.CutSuffix(body, after)
	}
	if !ok {
		t.Fatalf("what stands outside the marks has changed:\n%s", data)
	}
	if !strings.Contains(body, "(bench/the%20results/overview.svg)") {
		t.Error("no link to the plot, relative to the README")
	}
	golden(t, "readme.md", []byte(body))
}

// The limit of a row is the lowest that has lost nothing, whichever it is.
func TestREADMELimit(t *testing.T) {
	lossy := took(1)
	lossy[0].Received--
	for _, c := range []struct {
		channel, direct []result.Sample
		want            string
	}{
		{took(9), took(4), "| 4.00 ns (direct) |"},
		{took(4), took(9), "| 4.00 ns (channel) |"},
		{took(9), lossy, "| 9.00 ns (channel) |"},
		{lossy, lossy, "| – |"},
	} {
		path := filepath.Join(t.TempDir(), "README.md")
		write(t, path, "<!-- bench -->\n<!-- /bench -->\n")
		r := one(map[string][]result.Sample{"gravbus": took(5), "alpha": took(6), "channel": c.channel, "direct": c.direct})
		if err := report.README(path, t.TempDir(), r); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), c.want) {
			t.Errorf("no %q in\n%s", c.want, data)
		}
	}
}

func TestREADMEMarks(t *testing.T) {
	for _, file := range []string{
		"",
		"<!-- bench -->\n",
		"<!-- /bench -->\n<!-- bench -->\n",
		"<!-- bench -->\n<!-- bench -->\n<!-- /bench -->\n",
		"<!-- bench -->\n<!-- /bench -->\n<!-- /bench -->\n",
		"say <!-- bench --> and\n<!-- /bench -->\n",
	} {
		path := filepath.Join(t.TempDir(), "README.md")
		write(t, path, file)
		if err := report.README(path, t.TempDir(), made(t)); err == nil {
			t.Errorf("%q: no error", file)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != file {
			t.Errorf("%q became %q (%v)", file, data, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}
