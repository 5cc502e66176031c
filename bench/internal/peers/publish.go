package peers

import "sync"

// plainData is the part of a Publisher that is the same wherever the data itself is the message
// and Publish has handed it over when it returns.
type plainData struct{}

func (plainData) Message(data []byte) any { return data }

func (plainData) Flush() error { return nil }

// A cancelOnce is a Subscription that is ended by calling a function. Cancel may be called again,
// and by several goroutines.
type cancelOnce struct {
	once sync.Once
	stop func() error
}

func (c *cancelOnce) Cancel() (err error) {
	c.once.Do(func() { err = c.stop() })
	return err
}
