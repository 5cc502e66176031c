package gravbus

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/gravbus/gravbus/internal/mailbox"
)

// A poll is a RequestAll in progress.
type poll struct {
	pod *Pod

	mu      sync.Mutex // guards all below
	missing []asked    // who has neither replied nor gone
	asked   bool       // missing is known
	done    bool       // over is closed
	over    chan struct{}
}

// asked is a pod, or the members of a group, that the request went to.
type asked struct {
	pods  []uint64
	names []string
}

// polls is all polls of a bus.
type polls struct {
	mu   sync.Mutex
	open map[*poll]bool
}

func (s *polls) add(q *poll) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*poll]bool{}
	}
	s.open[q] = true
}

func (s *polls) remove(q *poll) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, q)
}

// left tells all polls that a pod has gone.
func (s *polls) left(pod uint64) {
	s.mu.Lock()
	var open []*poll
	for q := range s.open {
		open = append(open, q)
	}
	s.mu.Unlock()
	for _, q := range open {
		q.left(pod)
	}
}

func newPoll(p *Pod) *poll { return &poll{pod: p, over: make(chan struct{})} }

func (q *poll) run(ctx context.Context, msg Message, yield func(Message, error) bool) {
	ctx = orBackground(ctx)
	b := q.pod.bus
	b.polls.add(q)
	defer b.polls.remove(q)
	var targets []mailbox.Target[Message]
	s := sending{targets: &targets}
	var undelivered *UndeliveredError
	if err := b.send(ctx, q.pod, msg, &s); err != nil && !(errors.As(err, &undelivered) && s.receivers > 0) {
		yield(nil, err)
		return
	}
	if len(targets) == 0 {
		yield(nil, ErrNoResponders)
		return
	}
	q.ask(targets)

	box := s.receipt.replies()
	for {
		w := &replyWait{got: make(chan outcome, 1)}
		rep, ok := box.takeOr(w)
		if !ok {
			if q.answeredByAll() {
				box.leave(w)
				return
			}
			b.parked.register(s.receipt, box)
			var err error
			select {
			case o := <-w.got:
				rep, ok = o.reply, true
			case <-q.over:
			case <-ctx.Done():
				err = ctx.Err()
			case <-q.pod.done():
				err = q.pod.closedErr()
			}
			b.parked.unregister(s.receipt.id)
			if !ok {
				rep, ok = box.leave(w) // it came at the same moment
			}
			if !ok && err != nil {
				yield(nil, &MissingError{Pods: q.names(), Err: err})
				return
			}
			if !ok {
				continue // all have answered or gone: take what is left, and end
			}
		}
		q.strike(rep.from, true)
		if !yield(rep.msg, nil) {
			return
		}
	}
}

// ask notes whom the request went to. Those who have gone meanwhile do not count.
func (q *poll) ask(targets []mailbox.Target[Message]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range targets {
		var a asked
		for _, r := range t.Readers {
			if p := q.pod.bus.pods.get(r.Owner()); p != nil && r.Owner() != q.pod.id {
				a.pods = append(a.pods, p.id)
				a.names = append(a.names, p.Name())
			}
		}
		// A pod that wants the message in two ways (by its handler and by a wait) is asked once.
		again := slices.ContainsFunc(q.missing, func(o asked) bool { return slices.Equal(o.pods, a.pods) })
		if len(a.pods) > 0 && !again {
			q.missing = append(q.missing, a)
		}
	}
	q.asked = true
	q.check()
}

// left strikes out a pod that has gone or replied. Of a group, one reply is enough, but all have to
// be gone.
func (q *poll) left(pod uint64) { q.strike(pod, false) }

func (q *poll) strike(pod uint64, replied bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.asked { // ask will see that it has gone
		return
	}
	q.missing = slices.DeleteFunc(q.missing, func(a asked) bool {
		i := slices.Index(a.pods, pod)
		return i >= 0 && (replied || len(a.pods) == 1)
	})
	for i := range q.missing {
		a := &q.missing[i]
		if j := slices.Index(a.pods, pod); j >= 0 {
			a.pods = slices.Delete(slices.Clone(a.pods), j, j+1)
			a.names = slices.Delete(slices.Clone(a.names), j, j+1)
		}
	}
	q.check()
}

// check tells the loop when nobody is missing.
func (q *poll) check() {
	if len(q.missing) == 0 && !q.done {
		q.done = true
		close(q.over)
	}
}

func (q *poll) answeredByAll() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.missing) == 0
}

func (q *poll) names() (names []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.missing {
		names = append(names, strings.Join(a.names, "|"))
	}
	slices.Sort(names)
	return names
}
