package mdns_test

import (
	"os"
	"testing"
	"time"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/discovery/discoverytest"
	"github.com/gravbus/gravbus/discovery/mdns"
	"github.com/gravbus/gravbus/internal/netlab"
)

// inNamespace is set for the child that runs the suite: multicast is to stay away from real networks.
const inNamespace = "GRAVBUS_MDNS_CONTRACT"

// The suite runs where users may have namespaces, with root or without.
func TestContract(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		if testing.Short() {
			t.Skip("it takes seconds")
		}
		t.Parallel()
		p := netlab.Alone(t, []string{inNamespace + "=1"}, os.Args[0], "-test.run=^TestContract$", "-test.v")
		p.Patience = 2 * time.Minute // it takes half a minute
		line := p.ExpectFunc("PASS or FAIL", func(line string) bool { return line == "PASS" || line == "FAIL" })
		if err := p.Wait(); line != "PASS" || err != nil {
			t.Errorf("%v\n%s", err, p.Output())
		}
		return
	}
	discoverytest.Test(t, func(*testing.T) discoverytest.Network {
		return discoverytest.Network{
			New:       func() discovery.Discovery { return mdns.New(mdns.Config{}) },
			Announces: true,
		}
	})
}
