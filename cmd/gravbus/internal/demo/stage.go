package demo

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus"
)

// patience is how long the story waits for something that should happen at once. Then it goes on,
// and a count will be wrong: that is better than a demonstration that hangs.
const patience = 20 * time.Second

// stage is what the acts share.
type stage struct {
	bus    *gravbus.Bus
	out    *printer
	report *Report
	act    string         // being played
	pods   []*gravbus.Pod // of the act

	sent    atomic.Int64 // messages, replies among them
	handled atomic.Int64 // handler calls that succeeded
	lost    atomic.Int64 // messages that pods were told they lost
}

func (s *stage) check(name string, expected, got int64) {
	s.report.Checks = append(s.report.Checks, Check{s.act, name, expected, got, expected == got})
}

func (s *stage) connect(name string, opts ...gravbus.PodOption) *gravbus.Pod {
	p := s.bus.Connect(append([]gravbus.PodOption{gravbus.Name(name)}, opts...)...)
	s.pods = append(s.pods, p)
	return p
}

// clear ends an act.
func (s *stage) clear() {
	for _, p := range s.pods {
		p.Disconnect()
	}
	s.pods = nil
}

// send sends one message. It may be called from several goroutines.
func (s *stage) send(ctx context.Context, p *gravbus.Pod, msg gravbus.Message) error {
	if _, err := p.SendContext(ctx, msg); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	s.sent.Add(1)
	return nil
}

// sendNumbers sends messages of the given type with the numbers from first to last.
func (s *stage) sendNumbers(ctx context.Context, p *gravbus.Pod, typ string, first, last int) error {
	for n := first; n <= last; n++ {
		if err := s.send(ctx, p, gravbus.NewTyped(typ, n)); err != nil {
			return err
		}
	}
	return nil
}

// bell is the type of the message that ends an act. As pods receive in order what one pod sends,
// who hears the bell has all that was sent before.
func (s *stage) bell() string { return "shop.bell." + s.act }

func (s *stage) ring(ctx context.Context, p *gravbus.Pod) error {
	return s.send(ctx, p, gravbus.NewMsg(s.bell(), nil))
}

// listen makes p handle with fn what matches the pattern, or everything if that is empty, and
// returns a channel that is closed when it hears the bell.
func (s *stage) listen(p *gravbus.Pod, fn gravbus.MsgFunc, pattern string) (<-chan struct{}, error) {
	heard := make(chan struct{})
	var once sync.Once
	bell := s.bell()
	handler := s.counting(func(msg gravbus.Message) error {
		if msg.Type() == bell {
			once.Do(func() { close(heard) })
			return nil
		}
		return fn(msg)
	})
	if pattern == "" {
		return heard, p.On(handler)
	}
	return heard, p.OnType(pattern, handler, bell)
}

// counting counts the calls of fn as the bus should: those that succeed, and not notices of lag.
func (s *stage) counting(fn gravbus.MsgFunc) gravbus.MsgFunc {
	return func(msg gravbus.Message) error {
		err := fn(msg)
		if (err == nil || errors.Is(err, gravbus.ErrMsgNotWanted)) && msg.Type() != gravbus.MsgTypeLagged {
			s.handled.Add(1)
		}
		return err
	}
}

// await waits until all channels are closed.
func await(ctx context.Context, channels ...<-chan struct{}) error {
	for _, c := range channels {
		if _, err := receive(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// receive receives from c, or returns the zero value when its patience ends.
func receive[T any](ctx context.Context, c <-chan T) (v T, err error) {
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case v = <-c:
	case <-ctx.Done():
		err = ctx.Err()
	case <-t.C:
	}
	return v, err
}

// tally counts how often something was seen.
type tally[K comparable] struct {
	mu sync.Mutex // guards n
	n  map[K]int64
}

func (t *tally[K]) add(k K) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[K]int64{}
	}
	t.n[k]++
}

// of returns how often k was seen.
func (t *tally[K]) of(k K) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[k]
}

// sum returns how often anything was seen, and how many different things.
func (t *tally[K]) sum() (sum, different int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.n {
		sum += n
	}
	return sum, int64(len(t.n))
}

// sequence looks at numbers that should come one after the other.
type sequence struct {
	mu          sync.Mutex // guards all below
	first, last int64
	n           int64
	missing     int64
	unordered   int64 // doubled, or too late
}

func (q *sequence) add(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.n++
	switch {
	case q.n == 1:
		q.first, q.last = n, n
	case n > q.last:
		q.missing += n - q.last - 1
		q.last = n
	default:
		q.unordered++
	}
}
