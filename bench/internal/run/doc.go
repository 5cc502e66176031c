// Package run measures peers. Each measurement is a child process of its own, so that no library
// lives with the goroutines and the garbage of another, and the rounds are interleaved, so that
// what slows the machine down for a while slows down all.
//
// In the child the messages are numbered, and every subscription counts them and checks their
// order; what is lost, doubled or out of order is part of the result.
package run
