package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gravbus/gravbus/bench/internal/report"
	"github.com/gravbus/gravbus/bench/internal/result"
)

var update = flag.Bool("update", false, "write what the report makes into testdata, to be looked at and committed")

// made reads the made-up report of testdata. Its figures are not measured: they are there to show all
// that can happen to a figure.
func made(t *testing.T) *result.Report {
	t.Helper()
	return readReport(t, "testdata/report.json")
}

func readReport(t *testing.T, path string) *result.Report {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := new(result.Report)
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("%s:%d: got\n%s\nwant\n%s\n(go test ./internal/report -update writes it anew)", path, i+1, g[i], w[i])
		}
	}
	t.Fatalf("%s: got %d lines, want %d", path, len(g), len(w))
}

func TestTableGolden(t *testing.T) {
	for _, width := range []int{100, 160} {
		var out bytes.Buffer
		if err := report.Table(&out, made(t), width); err != nil {
			t.Fatal(err)
		}
		golden(t, fmt.Sprintf("table-%d.txt", width), out.Bytes())
	}
}

// A table stays within its width, down to what one column and the names of the peers need.
func TestTableWidth(t *testing.T) {
	for width := 60; width <= 240; width += 20 {
		var out bytes.Buffer
		if err := report.Table(&out, made(t), width); err != nil {
			t.Fatal(err)
		}
		matrix, _, _ := strings.Cut(out.String(), "gravbus beside")
		for line := range strings.Lines(matrix) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width {
				t.Errorf("width %d: a line of %d: %s", width, n, line)
			}
		}
	}
}

// What is no terminal gets no colour.
func TestTablePlainInFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "table"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := report.Table(f, made(t), 0); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if len(data) == 0 || bytes.ContainsRune(data, '\x1b') {
		t.Errorf("escape sequences, or nothing, in a file of %d bytes", len(data))
	}
}

func TestWriteGolden(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "results")
	written, err := report.Write(dir, made(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range written {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		names = append(names, name)
		switch filepath.Ext(name) {
		case ".json": // compared below
		case ".svg":
			wellFormed(t, name, data)
			golden(t, name, data)
		default:
			golden(t, name, data)
		}
	}
	want := "report.json overview.svg in-process.svg between-processes.svg latency.svg report.md"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("wrote %s, want %s", got, want)
	}
	if got := readReport(t, filepath.Join(dir, "report.json")); !reflect.DeepEqual(got, made(t)) {
		t.Error("report.json does not hold the report")
	}
}

// wellFormed checks that an image is XML, with a title and a description.
func wellFormed(t *testing.T, name string, data []byte) {
	t.Helper()
	var elements []string
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e, ok := token.(xml.StartElement); ok {
			elements = append(elements, e.Name.Local)
		}
	}
	if len(elements) < 3 || elements[0] != "svg" || elements[1] != "title" || elements[2] != "desc" {
		t.Errorf("%s does not begin with svg, title, desc", name)
	}
	for _, bad := range []string{"NaN", "Inf"} {
		if bytes.Contains(data, []byte(bad)) {
			t.Errorf("%s has a coordinate that is %s", name, bad)
		}
	}
}
