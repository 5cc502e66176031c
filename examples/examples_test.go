// Package examples tests the programs in its folders.
package examples

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Every example prints exactly what its output.txt holds.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs programs")
	}
	programs, err := filepath.Glob("*/main.go")
	if err != nil || len(programs) == 0 {
		t.Fatalf("there are no examples here (%v)", err)
	}
	for _, program := range programs {
		name := filepath.Dir(program)
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(name, "output.txt"))
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "go", "run", "./"+name)
			cmd.Stderr = &stderr
			got, err := cmd.Output()
			if err != nil {
				t.Fatalf("go run: %v\n%s", err, stderr.Bytes())
			}
			if !bytes.Equal(got, want) {
				t.Errorf("it prints\n%s\nwant\n%s", got, want)
			}
			if stderr.Len() > 0 {
				t.Errorf("it prints to stderr\n%s", stderr.Bytes())
			}
		})
	}
}
