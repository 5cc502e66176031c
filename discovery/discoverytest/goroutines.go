package discoverytest

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing/synctest"
	"time"
)

// goroutines returns the stacks of all goroutines, by the goroutines' names.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		name, _, _ := strings.Cut(stack, " [") // goroutine 7 [select]:
		stacks[name] = stack
	}
	return stacks
}

// noMoreThan reports an error if there are goroutines that were not there before. One that has done
// its work may need a moment to end.
func (e *env) noMoreThan(before map[string]string) error {
	deadline := time.Now().Add(e.limit)
	for {
		if e.Bubble {
			synctest.Wait()
		}
		var left []string
		for name, stack := range goroutines() {
			if _, ok := before[name]; !ok {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return nil
		}
		if e.Bubble || time.Now().After(deadline) {
			return fmt.Errorf("after Close there are %d goroutines more than before Start:\n%s", len(left), strings.Join(left, "\n\n"))
		}
		<-time.After(time.Millisecond)
	}
}

// together calls f in so many goroutines at the same time.
func (e *env) together(count int, f func(i int) error) error {
	begin := make(chan struct{})
	errs := make(chan error, count)
	for i := range count {
		go func() { // until f returns
			<-begin
			errs <- e.do("one of several calls at the same time", func() error { return f(i) })
		}()
	}
	close(begin)
	var err error
	for range count {
		err = errors.Join(err, <-errs)
	}
	return err
}
