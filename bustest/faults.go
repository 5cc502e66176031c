package bustest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
)

// ErrInjected is the error that Faulty and FaultySends return for a fault, and the value they panic
// with.
var ErrInjected = errors.New("bustest: injected fault")

// Faults says what goes wrong, and how often. Probabilities are from 0 (never; less counts as 0) to
// 1 (always). Of Drop, Fail and Panic at most one befalls a call; if they add up to more than 1 the
// first ones win. A Delay may befall any call, and comes first.
//
// What befalls the n-th call depends on Seed and n alone, and how likely it is on the
// probabilities. So a test with a fixed seed is repeatable as far as its messages come in the same
// order: with one sender, and without Concurrency, always. Give different seeds to handlers that
// should fail independently.
type Faults struct {
	Seed  uint64
	Drop  float64 // the message is lost without a word
	Fail  float64 // the call returns ErrInjected, and has done nothing
	Panic float64 // the call panics with ErrInjected, and has done nothing. Sends do not panic
	Delay float64 // the call is delayed by a timer

	// MaxDelay is the longest delay; they are spread evenly from zero. Zero and less mean 10 ms.
	MaxDelay time.Duration
}

// Faulty returns a handler that calls another one, but not always. A message that is dropped counts
// as handled; one that fails is kept and redelivered by the bus like any other failure, and has
// another fate then. A delay holds up the pod like a slow handler: past its StallLimit it loses
// messages. Faulty of a nil handler is nil.
func Faulty(handler gravbus.MsgFunc, faults Faults) gravbus.MsgFunc {
	if handler == nil {
		return nil
	}
	fates := newFates(faults)
	return func(msg gravbus.Message) error {
		f := fates.next()
		_ = f.wait(context.Background())
		switch f.fault {
		case dropped:
			return nil
		case failed:
			return ErrInjected
		case panicked:
			panic(ErrInjected)
		}
		return handler(msg)
	}
}

// A FaultySender sends by a pod, but not always. It has the methods of a pod that send, for code
// that takes an interface of some of them.
type FaultySender struct {
	pod   *gravbus.Pod
	void  *gravbus.Pod // its bus has nobody else
	fates *fates
}

// FaultySends returns a sender whose messages are dropped, delayed and refused. Delays keep the
// order of what one goroutine sends: they hold up the sender. A send that fails has no receipt. For
// a message that was dropped there is one, as the sender does not know: its waits end by their
// timeout or context, or when the test ends.
func FaultySends(t testing.TB, pod *gravbus.Pod, faults Faults) *FaultySender {
	faults.Panic = 0
	void := gravbus.New(gravbus.UseReplay(0))
	t.Cleanup(func() { void.Close() })
	return &FaultySender{pod: pod, void: void.Connect(), fates: newFates(faults)}
}

// Send is Pod.Send.
func (s *FaultySender) Send(msg gravbus.Message) *gravbus.Receipt {
	r, _ := s.SendContext(context.Background(), msg)
	return r
}

// SendContext is Pod.SendContext. If ctx ends during a delay nothing is sent.
func (s *FaultySender) SendContext(ctx context.Context, msg gravbus.Message) (*gravbus.Receipt, error) {
	lost, err := s.next(ctx)
	switch {
	case err != nil:
		return nil, err
	case lost:
		return s.lose(msg)
	}
	return s.pod.SendContext(ctx, msg)
}

// ReplyTo is Pod.ReplyTo.
func (s *FaultySender) ReplyTo(inReplyTo, msg gravbus.Message) *gravbus.Receipt {
	lost, err := s.next(context.Background())
	switch {
	case err != nil || inReplyTo == nil:
		return nil
	case lost:
		r, _ := s.lose(msg)
		return r
	}
	return s.pod.ReplyTo(inReplyTo, msg)
}

// Request is Pod.Request. If the request is dropped it returns the context's error when that ends.
func (s *FaultySender) Request(ctx context.Context, msg gravbus.Message) (gravbus.Message, error) {
	lost, err := s.next(ctx)
	switch {
	case err != nil:
		return nil, err
	case lost:
		r, err := s.lose(msg)
		if err != nil {
			return nil, err
		}
		return r.Wait(ctx)
	}
	return s.pod.Request(ctx, msg)
}

// next decides the fate of one send, waits for its delay, and reports whether the message is lost.
func (s *FaultySender) next(ctx context.Context) (lost bool, err error) {
	f := s.fates.next()
	if err := f.wait(ctx); err != nil {
		return false, err
	}
	if f.fault == failed {
		return false, ErrInjected
	}
	return f.fault == dropped, nil
}

// lose sends msg to nobody, for the checks and the receipt. It sends a copy with the same UUID,
// because a message made by NewMsgReplyTo finds the receipt it answers without any bus.
func (s *FaultySender) lose(msg gravbus.Message) (*gravbus.Receipt, error) {
	if msg != nil {
		if b, err := msg.Marshal(); err == nil {
			if twin, err := gravbus.MsgFromBytes(b); err == nil {
				msg = twin
			}
		}
	}
	return s.void.SendContext(context.Background(), msg)
}

type fault uint8

const (
	none fault = iota
	dropped
	failed
	panicked
)

// fate is what befalls one call.
type fate struct {
	fault fault
	delay time.Duration
}

// wait waits for the delay, or until ctx ends.
func (f fate) wait(ctx context.Context) error {
	if f.delay <= 0 {
		return nil
	}
	timer := time.NewTimer(f.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fates draws one fate after the other.
type fates struct {
	faults Faults

	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

func newFates(f Faults) *fates {
	if f.MaxDelay <= 0 {
		f.MaxDelay = 10 * time.Millisecond
	}
	f.Drop, f.Fail, f.Panic = max(f.Drop, 0), max(f.Fail, 0), max(f.Panic, 0)
	return &fates{faults: f, rng: rand.New(rand.NewPCG(f.Seed, 0))}
}

// next draws as many numbers for every call, so that one probability does not change the fates that
// others decide.
func (s *fates) next() (f fate) {
	s.mu.Lock()
	which, whether, long := s.rng.Float64(), s.rng.Float64(), s.rng.Float64()
	s.mu.Unlock()
	c := &s.faults
	switch {
	case which < c.Drop:
		f.fault = dropped
	case which < c.Drop+c.Fail:
		f.fault = failed
	case which < c.Drop+c.Fail+c.Panic:
		f.fault = panicked
	}
	if whether < c.Delay {
		f.delay = time.Duration(long * float64(c.MaxDelay))
	}
	return f
}
