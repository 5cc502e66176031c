package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// change writes a file of a checkout.
func change(t *testing.T, checkout, name, text string) {
	t.Helper()
	path := filepath.Join(checkout, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// committed returns a checkout whose files are all committed.
func committed(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"README.md", "bus.go", "go.mod", "bench/go.sum", "bench/results/report.md"} {
		change(t, dir, name, "first\n")
	}
	for _, args := range [][]string{
		{"init", "--quiet"},
		{"add", "."},
		{"-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false", "commit", "--quiet", "--message=first"},
	} {
		if _, err := git(dir, args...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Only Go code that is not committed makes a version that nobody else can measure.
func TestVersion(t *testing.T) {
	t.Setenv("GIT_DIR", filepath.Join(t.TempDir(), "another")) // as in a hook
	for _, test := range []struct {
		name    string
		changed []string
		dirty   bool
	}{
		{"nothing", nil, false},
		{"results", []string{"README.md", "bench/results/report.md", "bench/results/new.svg", "docs/new.md"}, false},
		{"code", []string{"README.md", "bus.go"}, true},
		{"code of the bench", []string{"bench/internal/run/run.go"}, true},
		{"new code", []string{"new.go"}, true},
		{"a module's versions", []string{"go.mod"}, true},
		{"another module's versions", []string{"bench/go.sum"}, true},
		{"a workspace", []string{"go.work"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := committed(t)
			for _, name := range test.changed {
				change(t, dir, name, "second\n")
			}
			got, err := version(dir)
			if got == "" || strings.HasSuffix(got, "-dirty") != test.dirty || (err != nil) != test.dirty {
				t.Fatalf("%q, %v", got, err)
			}
			if last := len(test.changed) - 1; test.dirty && !strings.HasSuffix(err.Error(), ": "+test.changed[last]) {
				t.Errorf("%v: does not name what is changed, and nothing else", err)
			}
		})
	}
}

func TestVersionUnknown(t *testing.T) {
	dir := t.TempDir()
	change(t, dir, ".git", "gitdir: nowhere\n")
	for _, checkout := range []string{"", dir, filepath.Join(dir, "nowhere")} {
		if got, err := version(checkout); got != unknownVersion || err == nil || !strings.Contains(err.Error(), "cannot be told") {
			t.Errorf("%q: %q, %v", checkout, got, err)
		}
	}
}
