package gid

import "runtime"

// number reads the goroutine's number from the first line of its traceback, "goroutine 18
// [running]:". It is the portable implementation of Current, and what the tests hold the fast one
// against.
func number() uintptr {
	var buf [64]byte
	n := runtime.Stack(buf[:], false)
	var id uintptr
	for _, c := range buf[len("goroutine "):n] {
		if c < '0' || c > '9' {
			break
		}
		id = id*10 + uintptr(c-'0')
	}
	return id
}
