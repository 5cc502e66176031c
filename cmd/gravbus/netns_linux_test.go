package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// alone runs a script in a network namespace of its own, where $0 is the command and only the
// loopback is there.
func alone(t *testing.T, script string) string {
	t.Helper()
	if err := exec.Command("unshare", "-Urn", "ip", "link", "set", "lo", "up").Run(); err != nil {
		t.Skipf("needs unshare, ip and the right to use namespaces: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("timeout", "50", "unshare", "-Urn", "sh", "-c", "ip link set lo up\n"+script, self)
	c.Env = append(os.Environ(), asCommand+"=1")
	var told strings.Builder
	c.Stderr = &told
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v:\n%s%s", err, told.String(), out)
	}
	return string(out)
}

func TestNamespaceWithMulticast(t *testing.T) {
	out := alone(t, `ip route add 224.0.0.0/4 dev lo
"$0" sub t --count 1 &
"$0" pub t hello && wait`)
	if out != "hello\n" {
		t.Errorf("%q", out)
	}
}

func TestNamespaceWithoutMulticast(t *testing.T) {
	out := alone(t, `"$0" node > /dev/null & node=$!
"$0" sub t --count 1 & sub=$!
"$0" pub t hello && wait $sub && kill -INT $node && wait $node`)
	if out != "hello\n" {
		t.Errorf("%q", out)
	}
}

func TestNamespaceDemoSaysHowItFinds(t *testing.T) {
	out := alone(t, `"$0" demo --messages 1000 --no-color`)
	for _, want := range []string{"Multicast does not work here.", "birch and cedar were told where alder is"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
