package gravbus

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/gravbus/gravbus/internal/wire"
)

// A poll is a RequestAll in progress.
type poll struct {
	pod     *Pod
	request wire.ID

	mu      sync.Mutex      // guards all below
	missing []asked         // who has neither replied nor gone
	without []*peer         // who cannot be sent the request
	asked   bool            // missing is known
	struck  map[uint64]bool // pods of peers that replied or went before the peer has told that they were asked; at most maxStruck
	told    map[*peer]bool  // peers that have said whom the request went to, which they do once
	done    bool            // over is closed
	over    chan struct{}
}

// asked is a pod, or the members of a group, that the request went to.
type asked struct {
	pods  []uint64
	names []string
	peer  *peer // where they are, nil for here. Without pods: it has not said yet who they are
}

// maxStruck bounds what peers can make a poll keep. Who has more pods that answer before it tells of
// them is waited for in vain.
const maxStruck = 1 << 16

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

// left tells all polls that a pod has gone. at is the peer that has it, nil for here.
func (s *polls) left(at *peer, pod uint64) {
	s.mu.Lock()
	none := len(s.open) == 0
	s.mu.Unlock()
	if none {
		return
	}
	for _, q := range s.all(wire.ID{}) {
		q.strike(at, pod, false)
	}
}

// all returns the polls for a request, or with the zero ID every poll.
func (s *polls) all(request wire.ID) (all []*poll) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for q := range s.open {
		if request == (wire.ID{}) || q.request == request {
			all = append(all, q)
		}
	}
	return all
}

// targets tells whom a request went to at a peer.
func (s *polls) targets(p *peer, t *wire.Targets) {
	for _, q := range s.all(t.Request) {
		q.askedAt(p, t)
	}
}

// lost tells all polls that a peer is given up.
func (s *polls) lost(p *peer) {
	for _, q := range s.all(wire.ID{}) {
		q.mu.Lock()
		q.missing = slices.DeleteFunc(q.missing, func(a asked) bool { return a.peer == p })
		if q.asked {
			q.check()
		}
		q.mu.Unlock()
	}
}

func newPoll(p *Pod) *poll { return &poll{pod: p, over: make(chan struct{})} }

func (q *poll) run(ctx context.Context, msg Message, yield func(Message, error) bool) {
	ctx = orBackground(ctx)
	b := q.pod.bus
	var targets []mailbox.Target[Message]
	s := sending{targets: &targets, track: true}
	if !isNil(msg) {
		q.request = wire.ID(messageID(msg))
	}
	b.polls.add(q)
	defer b.polls.remove(q)
	var undelivered *UndeliveredError
	if err := b.send(ctx, q.pod, msg, &s); err != nil && !(errors.As(err, &undelivered) && s.receivers+len(s.peers) > 0) {
		yield(nil, err)
		return
	}
	if len(targets)+len(s.peers) == 0 {
		yield(nil, ErrNoResponders)
		return
	}
	why := q.ask(msg, targets, s.peers)

	box := b.parked.register(s.receipt) // from the beginning: replies of peers are known by UUID
	defer b.parked.unregister(s.receipt)
	for {
		w := &replyWait{got: make(chan outcome, 1)}
		rep, ok := box.takeOr(w)
		if !ok {
			all := q.answeredByAll()
			var err error
			if !all {
				b.mesh.stepAside()
				select {
				case o := <-w.got:
					rep, ok = o.reply, true
				case <-q.over:
				case <-ctx.Done():
					err = ctx.Err()
				case <-q.pod.done():
					err = q.pod.closedErr()
				}
			}
			if !ok {
				rep, ok = box.leave(w) // it came at the same moment
			}
			if !ok && all {
				if why != nil {
					yield(nil, &MissingError{Pods: q.names(), Err: why})
				}
				return
			}
			if !ok && err != nil {
				yield(nil, &MissingError{Pods: q.names(), Err: err})
				return
			}
			if !ok {
				continue // all have answered or gone: take what is left, and end
			}
		}
		q.strike(cameFrom(rep.msg), rep.from, true)
		if !yield(rep.msg, nil) {
			return
		}
	}
}

// ask notes whom the request went to. Those who have gone meanwhile do not count. It returns why some
// peers cannot be sent it, if so.
func (q *poll) ask(msg Message, targets []mailbox.Target[Message], peers []*peer) (why error) {
	size := 0
	if len(peers) > 0 {
		size, why = sizeAtPeers(msg)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range peers {
		lost, takes := p.takes(size)
		switch {
		case lost || q.told[p]:
		case why == nil && takes:
			q.missing = append(q.missing, asked{peer: p})
		default:
			q.without = append(q.without, p)
		}
	}
	if why = cmp.Or(why, ErrMessageTooLarge); len(q.without) == 0 {
		why = nil
	}
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
	return why
}

// askedAt notes whom the request went to at a peer.
func (q *poll) askedAt(p *peer, t *wire.Targets) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.told[p] {
		return
	}
	if q.told == nil {
		q.told = map[*peer]bool{}
	}
	q.told[p] = true
	q.missing = slices.DeleteFunc(q.missing, func(a asked) bool { return a.peer == p && len(a.pods) == 0 })
	for _, target := range t.List {
		a := asked{names: target.Names, peer: p}
		for _, pod := range target.Pods {
			a.pods = append(a.pods, p.remote(pod))
		}
		if !slices.ContainsFunc(a.pods, func(pod uint64) bool { return q.struck[pod] }) {
			q.missing = append(q.missing, a)
		}
	}
	if q.asked {
		q.check()
	}
}

// strike strikes out a pod that has gone or replied, at a peer or, with nil, here. Of a group, one reply
// is enough, but all have to be gone.
func (q *poll) strike(at *peer, pod uint64, replied bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at != nil && !q.told[at] && len(q.struck) < maxStruck {
		if q.struck == nil {
			q.struck = map[uint64]bool{}
		}
		q.struck[pod] = true
	}
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
		switch name := strings.Join(a.names, "|"); {
		case a.peer == nil:
			names = append(names, name)
		case len(a.pods) == 0:
			names = append(names, a.peer.pod.Name())
		default:
			names = append(names, name+"@"+a.peer.uuid)
		}
	}
	for _, p := range q.without {
		names = append(names, p.pod.Name())
	}
	slices.Sort(names)
	return names
}
