package main

import (
	"testing"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/discovery/discoverytest"
)

// What is written for a discovery of one's own is its test, too.
func TestDir(t *testing.T) {
	discoverytest.Test(t, func(t *testing.T) discoverytest.Network {
		dir := Dir(t.TempDir())
		return discoverytest.Network{
			New:       func() discovery.Discovery { return dir },
			Announces: true,
			Bubble:    true,
		}
	})
}
