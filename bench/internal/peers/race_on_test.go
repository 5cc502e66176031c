//go:build race

package peers_test

// raceOn says whether the race detector is in, which is slow and allows 8,128 goroutines.
const raceOn = true
