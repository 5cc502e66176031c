//go:build !race

package websocket_test

// raceOn tells that the race detector is on, which allocates too.
const raceOn = false
