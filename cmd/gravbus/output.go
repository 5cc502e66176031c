package main

import (
	"io"
	"sync"
)

// maxUnwritten is how many bytes may wait to be written.
const maxUnwritten = 256 << 10

// output writes what is printed from a goroutine of its own: at once if it comes seldom, and much in
// one write while it comes fast.
type output struct {
	w    io.Writer
	done chan struct{} // closed when the goroutine has ended: after close, or an error

	mu     sync.Mutex // guards all below
	more   sync.Cond  // there is something to write, or an end
	room   sync.Cond  // there is room, or an error
	buf    []byte
	closed bool
	err    error // of the first write that failed; nothing is written after it
}

func newOutput(w io.Writer) *output {
	o := &output{w: w, done: make(chan struct{})}
	o.more.L, o.room.L = &o.mu, &o.mu
	go o.write() // ends after close, or an error
	return o
}

func (o *output) write() {
	defer close(o.done)
	var spare []byte
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.buf) == 0 && !o.closed {
			o.more.Wait()
		}
		if len(o.buf) == 0 {
			return
		}
		buf := o.buf
		o.buf = spare[:0]
		o.room.Broadcast()
		o.mu.Unlock()
		_, err := o.w.Write(buf)
		o.mu.Lock()
		spare = buf
		if err != nil {
			o.err = err
			o.room.Broadcast()
			return
		}
	}
}

// print prints what add appends, unless writing has failed. It waits while too much has not been
// written.
func (o *output) print(add func([]byte) []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) > maxUnwritten && o.err == nil {
		o.room.Wait()
	}
	if o.err == nil {
		o.buf = add(o.buf)
		o.more.Signal()
	}
}

// close waits until all is written. It returns the error of writing if there was one.
func (o *output) close() error {
	o.mu.Lock()
	o.closed = true
	o.more.Signal()
	o.mu.Unlock()
	<-o.done
	return o.err
}
