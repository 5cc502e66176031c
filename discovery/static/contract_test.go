package static_test

import (
	"testing"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/discovery/discoverytest"
	"github.com/gravbus/gravbus/discovery/static"
)

func TestContract(t *testing.T) {
	var seeds []string
	for i := range discoverytest.Nodes {
		seeds = append(seeds, discoverytest.Endpoint(i))
	}
	discoverytest.Test(t, func(*testing.T) discoverytest.Network {
		return discoverytest.Network{
			New:    func() discovery.Discovery { return static.New(seeds...) },
			Bubble: true,
		}
	})
}
