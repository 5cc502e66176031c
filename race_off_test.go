//go:build !race

package gravbus_test

// raceOn tells that the race detector is on, which makes everything several times slower.
const raceOn = false
