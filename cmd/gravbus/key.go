package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gravbus/gravbus"
	"github.com/spf13/cobra"
)

// keyVariable names the environment variable with the mesh key. A key is never an argument: those
// can be read by every user of the machine.
const keyVariable = "GRAVBUS_KEY"

func newKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "key [FILE]",
		Short: "Make a mesh key",
		Long: `Makes a mesh key: 32 random bytes as a line of text. It is written to FILE,
which nobody else can read and which must not exist yet, or printed.

All nodes of a mesh have the same key. Give it to the other commands by
--key-file or in GRAVBUS_KEY, and to programs of yours by
gravbus.UseMeshKey([]byte(line)), without the line's end.

To change the key of a mesh that runs, give all nodes a file with the old and
the new key, then one with the new key first, then one without the old.`,
		Example: `  gravbus key mesh.key
  GRAVBUS_KEY=$(gravbus key) gravbus node`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			secret := make([]byte, 32)
			rand.Read(secret)
			line := base64.RawURLEncoding.EncodeToString(secret) + "\n"
			if len(args) == 0 {
				_, err := fmt.Fprint(cmd.OutOrStdout(), line)
				return failed(err)
			}
			return failed(writeNew(args[0], line))
		},
	}
}

// writeNew writes a file that is not there yet, and that only its owner can read.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// meshKeys returns the keys in the file, or in the environment without one: lines of text, of which
// empty ones and those that begin with # do not count.
func meshKeys(file string) (keys [][]byte, err error) {
	text, where := os.Getenv(keyVariable), keyVariable
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--key-file: %w", err)
		}
		text, where = string(b), file
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if len(line) < gravbus.MinMeshKey {
			return nil, fmt.Errorf("a key in %s has fewer than %d characters; 'gravbus key' makes good ones", where, gravbus.MinMeshKey)
		}
		keys = append(keys, []byte(line))
	}
	switch {
	case file != "" && len(keys) == 0:
		return nil, fmt.Errorf("there is no key in %s", where)
	case len(keys) > 4:
		return nil, fmt.Errorf("there are %d keys in %s; 4 is the most", len(keys), where)
	}
	return keys, nil
}
