package main

import "fmt"

func plural[N int | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// verb puts a verb after a count.
func verb(n int, infinitive string) string {
	if n == 1 {
		return infinitive + "s"
	}
	return infinitive
}
