package netlab

import (
	"os/exec"
	"testing"
)

// Local runs a program on this machine as it is, outside of all labs. It needs no root.
func Local(t testing.TB, env []string, name string, args ...string) *Proc {
	t.Helper()
	return start(t, env, exec.Command(name, args...))
}
