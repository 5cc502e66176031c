package transporttest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gravbus/gravbus/transport/transporttest"
)

// faultVar names the fault that TestFault has, in the process that tests it.
const faultVar = "TRANSPORTTEST_FAULT"

// TestFault runs the suite on a transport with a fault, which may end the process: so only
// TestSuiteFindsFaults runs it, in one of its own.
func TestFault(t *testing.T) {
	name, ok := os.LookupEnv(faultVar)
	if !ok {
		t.Skip("for TestSuiteFindsFaults")
	}
	for _, f := range faults {
		if f.name == name {
			transporttest.RunInBubbles(t, func(*testing.T) transporttest.Harness { return newHarness(f) })
			return
		}
	}
	t.Fatalf("there is no fault %q", name)
}

// suite runs cases of the suite on a transport with a fault.
func suite(t *testing.T, fault, cases string) (passed bool, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.v", "-test.run=^TestFault$/"+cases)
	cmd.Env = append(os.Environ(), faultVar+"="+fault)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("running the suite: %v\n%s", err, out)
	}
	return err == nil, string(out)
}

// A suite that accepts everything is worth nothing: each case fails a transport that breaks its
// rule, and says why; and no case fails one that keeps all rules, wrapped in the same way.
func TestSuiteFindsFaults(t *testing.T) {
	passed, output := suite(t, "none", ".")
	if !passed {
		t.Fatalf("the suite fails a transport without a fault:\n%s", output)
	}
	found := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^=== RUN +TestFault/(\w+)$`).FindAllStringSubmatch(output, -1) {
		found[m[1]] = false
	}
	if len(found) == 0 {
		t.Fatalf("the suite has no cases:\n%s", output)
	}

	for _, f := range faults {
		if f.name == "none" {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			passed, output := suite(t, f.name, "^"+f.found+"$")
			switch {
			case passed:
				t.Errorf("%s passes", f.found)
			case !strings.Contains(output, "--- FAIL: TestFault/"+f.found) || !strings.Contains(output, f.says):
				t.Errorf("%s does not say %q:\n%s", f.found, f.says, output)
			default:
				found[f.found] = true
			}
		})
	}
	for name, ok := range found {
		if !ok && !t.Failed() {
			t.Errorf("no fault shows that %s can fail", name)
		}
	}
}
