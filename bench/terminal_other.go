//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package main

import "os"

// columns returns 0: how wide the terminal is is not known.
func columns(*os.File) int { return 0 }

// isTerminal reports false: plain lines can be read anywhere.
func isTerminal(*os.File) bool { return false }
