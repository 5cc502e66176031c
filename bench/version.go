package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// unknownVersion is the version of gravbus if it cannot be told.
const unknownVersion = "this checkout"

// goFiles are what is measured, as git has it: what else lies in the checkout, such as results and
// README.md, may be changed.
var goFiles = []string{"*.go", "go.mod", "*/go.mod", "go.sum", "*/go.sum", "go.work", "go.work.sum"}

// version returns the version of gravbus in a checkout, which ends in -dirty if Go code is not as it
// was committed. The error says why nobody else could measure the same.
func version(checkout string) (string, error) {
	if checkout == "" {
		return unknownVersion, errors.New("the version of gravbus cannot be told: there is no checkout")
	}
	described, err := git(checkout, "describe", "--always", "--tags")
	if err != nil {
		return unknownVersion, fmt.Errorf("the version of gravbus cannot be told: %w", err)
	}
	described = strings.TrimSpace(described)
	status, err := git(checkout, append([]string{"status", "--porcelain", "--untracked-files=all", "--"}, goFiles...)...)
	if err != nil {
		return unknownVersion, fmt.Errorf("the version of gravbus cannot be told: %w", err)
	}
	var changed []string
	for line := range strings.Lines(status) {
		changed = append(changed, strings.TrimSpace(line[2:])) // after two letters that say how
	}
	if len(changed) > 0 {
		return described + "-dirty", fmt.Errorf("not all Go code is committed, so nobody else could measure it: %s", strings.Join(changed, ", "))
	}
	return described, nil
}

// git returns what git prints when it runs in a directory. In a hook the environment names another
// repository, which must not be taken for the one there.
func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GIT_") })
	out, err := cmd.Output()
	if err != nil {
		var said *exec.ExitError
		if errors.As(err, &said) {
			return "", fmt.Errorf("git %s: %s", args[0], cmp.Or(strings.TrimSpace(string(said.Stderr)), err.Error()))
		}
		return "", err // names git
	}
	return string(out), nil
}
