package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"pgregory.net/rapid"
)

var (
	modelTypes    = []string{"a", "a.x", "a.y", "b.x", "b.y", "b.y.z"}
	modelPatterns = []string{">", "a", "a.*", "a.x", "b.>", "*.y", "b.x", "*.*", "c"}
)

// modelMatches is the rule for patterns, as plain as can be.
func modelMatches(pattern, typ string) bool {
	p, t := strings.Split(pattern, "."), strings.Split(typ, ".")
	for i, token := range p {
		if token == ">" {
			return len(t) > i
		}
		if i >= len(t) || token != "*" && token != t[i] {
			return false
		}
	}
	return len(p) == len(t)
}

// modelWants reports whether a pod that allows and denies these patterns wants a type.
func modelWants(allow, deny []string, typ string) bool {
	matches := func(pattern string) bool { return modelMatches(pattern, typ) }
	return slices.ContainsFunc(allow, matches) && !slices.ContainsFunc(deny, matches)
}

// modelBus is a bus and what it should be like. Each step settles before the next begins, so what the pods get is known to the message.
type modelBus struct {
	bus     *gravbus.Bus
	waiting gravbus.OverflowPolicy // of the pods that make senders wait: one of the two in a program
	keep    int                    // limit of the buffer
	pods    []*modelPod
	waits   []*modelWait
	sent    []modelSent
	gone    uint64 // dropped by pods that have gone
}

type modelSent struct {
	typ  string
	from *modelPod
}

type modelPod struct {
	*gravbus.Pod
	name        string
	bound       int
	policy      gravbus.OverflowPolicy
	group       string
	replay      int // -1: none, 0: all
	allow, deny []string

	hand    int // what the handler stands still with, -1 for nothing
	queue   []int
	lost    int // not told yet
	lagging bool
	kept    []int
	dropped uint64
	want    []int // handler calls, a notice as minus its count

	mu    sync.Mutex // guards all below, which the handler uses
	got   []int
	stuck bool
	fail  int // calls that are to fail
	gate  chan struct{}
}

func (p *modelPod) handle(msg gravbus.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if msg.Type() == gravbus.MsgTypeLagged {
		lag, err := gravbus.Decode[gravbus.Lagged](msg)
		p.got = append(p.got, -int(lag.Count))
		return err
	}
	_, n := numberOf(msg)
	p.got = append(p.got, n)
	if p.stuck {
		gate := p.gate
		p.mu.Unlock()
		<-gate
		p.mu.Lock()
	}
	if p.fail > 0 {
		p.fail--
		return errHandler
	}
	return nil
}

// failing is the model's side of handle's fail.
func (p *modelPod) failing(fail *int) bool {
	if *fail > 0 {
		*fail--
		return true
	}
	return false
}

// finish is what follows a call of the handler for n.
func (m *modelBus) finish(p *modelPod, n int, fail *int) {
	if p.failing(fail) {
		p.kept = append(p.kept, n)
		return
	}
	m.redeliver(p, fail)
}

func (m *modelBus) redeliver(p *modelPod, fail *int) {
	for len(p.kept) > 0 {
		n := p.kept[0]
		if modelWants(p.allow, p.deny, m.sent[n].typ) {
			p.want = append(p.want, n)
			if p.failing(fail) {
				return
			}
		}
		p.kept = p.kept[1:]
	}
}

// deliver is what a message does to a pod that wants it, and reports whether the pod has to go without, and whether it stalls now.
func (m *modelBus) deliver(p *modelPod, n int, fail *int) (missed, stalls bool) {
	switch {
	case !p.stuck:
		p.want = append(p.want, n)
		m.finish(p, n, fail)
	case p.hand < 0:
		p.hand = n
		p.want = append(p.want, n)
	case len(p.queue) < p.bound:
		p.queue = append(p.queue, n)
	default:
		p.lost++
		p.dropped++
		switch p.policy {
		case gravbus.Backpressure, gravbus.DropOldest:
			stalls = p.policy == gravbus.Backpressure && !p.lagging
			p.lagging = p.lagging || stalls
			p.queue = append(p.queue[1:], n)
		case gravbus.Block, gravbus.Fail:
			missed = true
		}
	}
	return missed, stalls
}

// wanting returns the pods that listen to what from sends, without those in groups.
func (m *modelBus) wanting(from *modelPod, typ string) (pods []*modelPod) {
	for _, p := range m.pods {
		if p != from && p.group == "" && modelWants(p.allow, p.deny, typ) {
			pods = append(pods, p)
		}
	}
	return pods
}

func (m *modelBus) pod(t *rapid.T) *modelPod {
	if len(m.pods) == 0 {
		t.Skip("no pods")
	}
	return rapid.SampledFrom(m.pods).Draw(t, "pod")
}

func (m *modelBus) connect(t *rapid.T) {
	if len(m.pods) == 7 {
		t.Skip("enough")
	}
	p := &modelPod{
		name:   fmt.Sprint("p", len(m.sent), ".", len(m.pods)),
		bound:  rapid.IntRange(1, 5).Draw(t, "mailbox"),
		policy: rapid.SampledFrom([]gravbus.OverflowPolicy{m.waiting, gravbus.DropOldest, gravbus.DropNewest, gravbus.Fail}).Draw(t, "policy"),
		replay: rapid.IntRange(-1, 4).Draw(t, "replay"),
		hand:   -1,
	}
	opts := []gravbus.PodOption{
		gravbus.Name(p.name), gravbus.Mailbox(p.bound), gravbus.Overflow(p.policy),
		gravbus.MaxFailures(1 << 20), gravbus.MaxRetries(1 << 20),
	}
	if p.replay >= 0 {
		opts = append(opts, gravbus.ReplayLast(p.replay))
	}
	p.Pod = m.bus.Connect(opts...)
	m.pods = append(m.pods, p)
}

func (m *modelBus) join(t *rapid.T) {
	if len(m.pods) == 7 {
		t.Skip("enough")
	}
	p := &modelPod{
		name:   fmt.Sprint("g", len(m.sent), ".", len(m.pods)),
		bound:  gravbus.DefaultMailbox, // never full: who gets what would depend on who is stuck
		group:  rapid.SampledFrom([]string{"g", "h"}).Draw(t, "group"),
		replay: -1,
		hand:   -1,
	}
	if !m.calm(p) {
		t.Skip("it would take what waits")
	}
	p.Pod = m.bus.Connect(gravbus.Name(p.name), gravbus.InGroup(p.group))
	m.pods = append(m.pods, p)
	m.listen(t, p)
}

// calm reports whether nobody in p's group stands still: then nothing waits there.
func (m *modelBus) calm(p *modelPod) bool {
	return !p.stuck && (p.group == "" || !slices.ContainsFunc(m.pods, func(o *modelPod) bool { return o.group == p.group && o.stuck }))
}

func (m *modelBus) on(t *rapid.T) {
	p := m.pod(t)
	if !m.calm(p) {
		t.Skip("what waits would be a matter of the mailbox's inside")
	}
	m.listen(t, p)
}

func (m *modelBus) listen(t *rapid.T, p *modelPod) {
	patterns := rapid.SliceOfNDistinct(rapid.SampledFrom(modelPatterns), 0, 3, rapid.ID[string]).Draw(t, "patterns")
	fail := p.fails()
	var err error
	switch {
	case len(patterns) == 0:
		err = p.OnType("a", nil)
	case patterns[0] == ">" && len(patterns) == 1:
		err = p.On(p.handle)
	default:
		err = p.OnType(patterns[0], p.handle, patterns[1:]...)
	}
	if err != nil {
		t.Fatalf("OnType(%v): %v", patterns, err)
	}
	p.allow = patterns
	m.replayTo(p, fail)
}

// replayTo is what the pod gets of the past when it sets its handler for the first time.
func (m *modelBus) replayTo(p *modelPod, fail int) {
	if p.replay < 0 || len(p.allow) == 0 {
		return
	}
	var past []int
	for n := max(0, len(m.sent)-m.keep); n < len(m.sent); n++ {
		if s := m.sent[n]; s.from != p && modelWants(p.allow, p.deny, s.typ) {
			past = append(past, n)
		}
	}
	if p.replay > 0 && len(past) > p.replay {
		past = past[len(past)-p.replay:]
	}
	p.replay = -1
	for _, n := range past {
		m.deliver(p, n, &fail)
	}
}

// fails returns how many calls are to fail. It is read before the step, as the handler changes it.
func (p *modelPod) fails() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fail
}

func (m *modelBus) filter(t *rapid.T) {
	p := m.pod(t)
	if !m.calm(p) {
		t.Skip("see on")
	}
	pattern := rapid.SampledFrom(modelPatterns).Draw(t, "pattern")
	if rapid.Bool().Draw(t, "allow") {
		p.deny = slices.DeleteFunc(slices.Clone(p.deny), func(d string) bool { return d == pattern })
		if len(p.allow) > 0 && !slices.Equal(p.allow, []string{">"}) && !slices.Contains(p.allow, pattern) {
			p.allow = append(slices.Clone(p.allow), pattern)
		}
		mustRapid(t, p.FilterType(pattern, true))
		return
	}
	if !slices.Contains(p.deny, pattern) {
		p.deny = append(slices.Clone(p.deny), pattern)
	}
	mustRapid(t, p.FilterType(pattern, false))
}

func mustRapid(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func (m *modelBus) send(t *rapid.T) {
	from := m.pod(t)
	typ := rapid.SampledFrom(modelTypes).Draw(t, "type")
	n := len(m.sent)
	fails := map[*modelPod]*int{}
	for _, p := range m.pods {
		fail := p.fails()
		fails[p] = &fail
	}
	ctx, cancel := context.WithCancel(context.Background())
	if m.waiting == gravbus.Block {
		ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
	}
	defer cancel()
	began := time.Now()
	receipt, err := from.SendContext(ctx, nth(typ, 0, n))
	took := time.Since(began)
	synctest.Wait()

	m.sent = append(m.sent, modelSent{typ, from})
	var missed []string
	stalls, blocked := 0, false
	for _, p := range m.wanting(from, typ) {
		miss, stall := m.deliver(p, n, fails[p])
		if miss {
			missed = append(missed, p.name)
			blocked = blocked || p.policy == gravbus.Block
		}
		if stall {
			stalls++
		}
	}
	m.deliverToGroups(t, from, typ, n)
	for _, w := range m.waits {
		w.see(from, typ, n)
	}

	var undelivered *gravbus.UndeliveredError
	var got []string
	if errors.As(err, &undelivered) {
		got = slices.Sorted(slices.Values(undelivered.Pods))
	} else if err != nil {
		t.Fatalf("Send: %v", err)
	}
	slices.Sort(missed)
	if receipt == nil || !slices.Equal(got, missed) {
		t.Fatalf("message %d was not delivered to %v, want %v", n, got, missed)
	}
	switch {
	case blocked && took != 10*time.Second:
		t.Fatalf("message %d: waited %v for a pod that blocks", n, took)
	case stalls > 0 && (took < time.Second || took > time.Duration(stalls)*time.Second):
		t.Fatalf("message %d: waited %v for %d pods that stall", n, took, stalls)
	case stalls == 0 && !blocked && took != 0:
		t.Fatalf("message %d: waited %v for nobody", n, took)
	}
}

// deliverToGroups checks that one member of each group got the message, and takes from the pods who it was. With all that want it standing still
// it waits for the first who goes on.
func (m *modelBus) deliverToGroups(t *rapid.T, from *modelPod, typ string, n int) {
	for _, group := range []string{"g", "h"} {
		var idle, busy, had []*modelPod
		for _, p := range m.pods {
			if p.group != group || p == from || !modelWants(p.allow, p.deny, typ) {
				continue
			}
			if p.hand >= 0 {
				busy = append(busy, p)
			} else {
				idle = append(idle, p)
			}
			p.mu.Lock()
			if len(p.got) > 0 && p.got[len(p.got)-1] == n {
				had = append(had, p)
			}
			p.mu.Unlock()
		}
		switch {
		case len(idle) > 0:
			if len(had) != 1 || !slices.Contains(idle, had[0]) {
				t.Fatalf("%d of %d idle members of group %s got message %d", len(had), len(idle), group, n)
			}
			had[0].want = append(had[0].want, n)
			if had[0].stuck {
				had[0].hand = n
			}
		case len(busy) > 0:
			busy[0].queue = append(busy[0].queue, n) // of the group; see release
		}
	}
}

func (m *modelBus) stick(t *rapid.T) {
	p := m.pod(t)
	if p.stuck {
		t.Skip("stuck already")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stuck, p.gate = true, make(chan struct{})
}

func (m *modelBus) makeFail(t *rapid.T) {
	p := m.pod(t)
	if p.group != "" {
		t.Skip("in a group the order of redelivery is a matter of who got what")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = rapid.IntRange(1, 4).Draw(t, "failures")
}

func (m *modelBus) release(t *rapid.T) {
	p := m.pod(t)
	if !p.stuck {
		t.Skip("not stuck")
	}
	m.letGo(t, p)
}

func (m *modelBus) letGo(t *rapid.T, p *modelPod) {
	if p.group != "" {
		m.letGoGroup(t, p)
		return
	}
	fail := p.fails()
	p.mu.Lock()
	p.stuck = false
	p.mu.Unlock()
	close(p.gate)
	synctest.Wait()
	if p.hand < 0 {
		return
	}
	m.finish(p, p.hand, &fail)
	p.hand = -1
	oldest := p.policy == gravbus.Backpressure || p.policy == gravbus.DropOldest
	tell := func() {
		if p.lost > 0 {
			p.want = append(p.want, -p.lost)
			p.lost = 0
			m.redeliver(p, &fail)
		}
	}
	if oldest {
		tell()
	}
	for _, n := range p.queue {
		p.want = append(p.want, n)
		m.finish(p, n, &fail)
	}
	tell()
	p.queue, p.lagging = nil, false
}

// letGoGroup lets all members go on, and checks that what waited came to one each.
func (m *modelBus) letGoGroup(t *rapid.T, p *modelPod) {
	before := map[*modelPod]int{}
	var waiting []int
	for _, o := range m.pods {
		if o.group != p.group {
			continue
		}
		o.mu.Lock()
		before[o] = len(o.got)
		if o.stuck {
			o.stuck = false
			close(o.gate)
		}
		o.mu.Unlock()
		o.hand = -1
		waiting = append(waiting, o.queue...)
		o.queue = nil
	}
	synctest.Wait()
	var came []int
	for o, n := range before {
		o.mu.Lock()
		came = append(came, o.got[n:]...)
		o.want = append(o.want, o.got[n:]...)
		for _, i := range o.got[n:] {
			if s := m.sent[i]; s.from == o || !modelWants(o.allow, o.deny, s.typ) {
				t.Errorf("message %d came to a member that does not want it", i)
			}
		}
		o.mu.Unlock()
	}
	slices.Sort(came)
	slices.Sort(waiting)
	if !slices.Equal(came, waiting) {
		t.Fatalf("group %s: %v waited, and %v came", p.group, waiting, came)
	}
}

func (m *modelBus) disconnect(t *rapid.T) {
	p := m.pod(t)
	if !m.calm(p) {
		t.Skip("Disconnect waits for the handler")
	}
	p.Disconnect()
	synctest.Wait()
	m.gone += p.dropped
	m.pods = slices.DeleteFunc(m.pods, func(o *modelPod) bool { return o == p })
	for _, w := range m.waits {
		if w.pod == p && !w.over {
			w.over, w.err = true, gravbus.ErrDisconnected
		}
	}
	if err := p.On(p.handle); !errors.Is(err, gravbus.ErrDisconnected) {
		t.Fatalf("On after Disconnect: %v", err)
	}
}

// modelWait is a WaitOn, which wants a type and sees all.
type modelWait struct {
	pod    *modelPod
	typ    string
	deny   []string
	want   []int
	over   bool
	err    error
	mu     sync.Mutex // guards got
	got    []int
	result chan error
}

func (m *modelBus) wait(t *rapid.T) {
	p := m.pod(t)
	w := &modelWait{pod: p, typ: rapid.SampledFrom(modelTypes).Draw(t, "type"), deny: p.deny, result: make(chan error, 1)}
	m.waits = append(m.waits, w)
	go func() { // ends when the wait does
		w.result <- p.WaitOn(func(msg gravbus.Message) error {
			_, n := numberOf(msg)
			w.mu.Lock()
			w.got = append(w.got, n)
			w.mu.Unlock()
			if msg.Type() == w.typ {
				return nil
			}
			return gravbus.ErrMsgNotWanted
		})
	}()
}

func (w *modelWait) see(from *modelPod, typ string, n int) {
	if w.over || from == w.pod || !modelWants([]string{">"}, w.deny, typ) {
		return
	}
	w.want = append(w.want, n)
	w.over = typ == w.typ
}

// check compares everything.
func (m *modelBus) check(t *rapid.T) {
	synctest.Wait()
	dropped := m.gone
	for _, p := range m.pods {
		p.mu.Lock()
		got := slices.Clone(p.got)
		p.mu.Unlock()
		if !slices.Equal(got, p.want) {
			t.Fatalf("%s (mailbox %d, policy %d, group %q) of %v but %v got %v, want %v", p.name, p.bound, p.policy, p.group, p.allow, p.deny, got, p.want)
		}
		dropped += p.dropped
		s := p.Stats()
		if p.group == "" && (s.Dropped != p.dropped || s.Depth != len(p.queue) || s.Kept != len(p.kept)) {
			t.Fatalf("%s: %d dropped, %d kept and %v waiting, stats %+v", p.name, p.dropped, len(p.kept), p.queue, s)
		}
	}
	if s := m.bus.Stats(); s.Dropped != dropped || s.Sent != uint64(len(m.sent)) || s.Buffered != min(len(m.sent), m.keep) {
		t.Fatalf("%d dropped of %d, stats %+v", dropped, len(m.sent), s)
	}
	m.waits = slices.DeleteFunc(m.waits, func(w *modelWait) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !slices.Equal(w.got, w.want) {
			t.Fatalf("a wait for %s got %v, want %v", w.typ, w.got, w.want)
		}
		select {
		case err := <-w.result:
			if !w.over || !errors.Is(err, w.err) {
				t.Fatalf("a wait ended with %v, want %v (%t)", err, w.err, w.over)
			}
		default:
			if w.over {
				t.Fatalf("a wait for %s did not end", w.typ)
			}
		}
		return w.over
	})
}

// Random programs, one step after the other, against a model that knows to the message what each pod gets.
func TestPropertyModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Not t itself: rapid would ask it for its deadline, which it must not be in a bubble.
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) {
			m := &modelBus{
				waiting: rapid.SampledFrom([]gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block}).Draw(t, "waiting"),
				keep:    rapid.SampledFrom([]int{1, 5, 1000}).Draw(t, "buffer"),
			}
			m.bus = gravbus.New(quiet(), gravbus.UseReplay(m.keep))
			defer func() { // also after a failure
				for _, p := range m.pods {
					p.mu.Lock()
					if p.stuck {
						close(p.gate)
						p.stuck = false
					}
					p.mu.Unlock()
				}
				m.bus.Close()
				synctest.Wait()
			}()
			t.Repeat(map[string]func(*rapid.T){
				"":           m.check,
				"connect":    m.connect,
				"join":       m.join,
				"on":         m.on,
				"on again":   m.on,
				"filter":     m.filter,
				"send":       m.send,
				"send 2":     m.send,
				"send 3":     m.send,
				"send 4":     m.send,
				"stick":      m.stick,
				"fail":       m.makeFail,
				"release":    m.release,
				"disconnect": m.disconnect,
				"wait":       m.wait,
			})
			for _, p := range m.pods {
				if p.stuck {
					m.letGo(t, p)
				}
			}
			m.check(t)
		})
	})
}

// stormPod is a pod in a storm. Its handler finds what is out of order as it comes.
type stormPod struct {
	*gravbus.Pod
	wide  bool // more than one call at a time: no order
	gate  chan struct{}
	mu    sync.Mutex // guards all below
	seen  map[[2]int]bool
	next  map[int]int
	told  uint64
	n     int
	wrong []string
}

func (p *stormPod) handle(msg gravbus.Message) error {
	if p.gate != nil {
		<-p.gate
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if msg.Type() == gravbus.MsgTypeLagged {
		lag, err := gravbus.Decode[gravbus.Lagged](msg)
		p.told += lag.Count
		return err
	}
	sender, i := numberOf(msg)
	if p.seen[[2]int{sender, i}] {
		p.wrong = append(p.wrong, fmt.Sprintf("%d of sender %d came twice", i, sender))
	}
	if i < p.next[sender] && !p.wide {
		p.wrong = append(p.wrong, fmt.Sprintf("%d of sender %d came when %d was due", i, sender, p.next[sender]))
	}
	p.seen[[2]int{sender, i}] = true
	p.next[sender] = i + 1
	p.n++
	return nil
}

// Random programs with everything at once. Every pod wants "keep" all the time, whatever else changes, so what came and what was told as lost must be all of it.
func TestPropertyStorm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 150
		bus := gravbus.New(quiet(), gravbus.UseReplay(rapid.SampledFrom([]int{0, 16, 4096}).Draw(t, "buffer")))
		defer bus.Close()
		var told atomic.Uint64 // by events: what waits lose is told to them alone, and perhaps after they have ended
		mustRapid(t, bus.Connect(gravbus.Mailbox(1<<16)).OnType(gravbus.EventPodLagged, func(msg gravbus.Message) error {
			lag, err := gravbus.Decode[gravbus.Lagged](msg)
			told.Add(lag.Count)
			return err
		}))
		senders := rapid.IntRange(1, 3).Draw(t, "senders")
		var pods []*stormPod
		var gates []chan struct{}
		for range rapid.IntRange(1, 5).Draw(t, "pods") {
			policy := rapid.SampledFrom([]gravbus.OverflowPolicy{gravbus.Backpressure, gravbus.Block, gravbus.DropOldest, gravbus.DropNewest, gravbus.Fail}).Draw(t, "policy")
			width := rapid.SampledFrom([]int{1, 1, 3}).Draw(t, "width")
			p := &stormPod{wide: width > 1, seen: map[[2]int]bool{}, next: map[int]int{}}
			if policy > gravbus.Block && rapid.Bool().Draw(t, "stuck") {
				p.gate = make(chan struct{})
				gates = append(gates, p.gate)
			}
			opts := []gravbus.PodOption{
				gravbus.Mailbox(rapid.SampledFrom([]int{1, 2, 8, 64, 1024}).Draw(t, "mailbox")),
				gravbus.Overflow(policy), gravbus.Concurrency(width), gravbus.StallLimit(time.Hour),
			}
			if rapid.Bool().Draw(t, "replay") {
				opts = append(opts, gravbus.Replay())
			}
			p.Pod = bus.Connect(opts...)
			mustRapid(t, p.OnType("keep", p.handle))
			pods = append(pods, p)
		}
		members := rapid.IntRange(0, 3).Draw(t, "members")
		group := &stormPod{wide: true, seen: map[[2]int]bool{}, next: map[int]int{}}
		for range members {
			mustRapid(t, bus.Connect(gravbus.InGroup("g"), gravbus.Mailbox(rapid.SampledFrom([]int{1, 8, 1024}).Draw(t, "mailbox")), gravbus.StallLimit(time.Hour)).OnType("keep", group.handle))
		}

		stop := make(chan struct{})
		var others, sending sync.WaitGroup
		background := func(f func(i int)) {
			others.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
						f(i)
						runtime.Gosched()
					}
				}
			})
		}
		for _, p := range pods {
			switch rapid.IntRange(0, 4).Draw(t, "changes") {
			case 0:
				background(func(i int) { p.OnType("keep", p.handle, fmt.Sprint("other.", i%3)) })
			case 1:
				background(func(i int) { p.FilterType("other.>", i%2 == 0) })
			case 2:
				background(func(int) {
					p.WaitUntil(gravbus.TimeoutAfter(time.Microsecond), func(gravbus.Message) error { return gravbus.ErrMsgNotWanted })
				})
			}
		}
		if rapid.Bool().Draw(t, "churn") {
			background(func(int) {
				pod := bus.Connect(gravbus.Replay())
				pod.On(nop)
				pod.Disconnect()
			})
		}
		for s := range senders {
			pod := bus.Connect()
			sending.Go(func() {
				for i := range n {
					if pod.Send(nth("keep", s, i)) == nil {
						t.Errorf("message %d of %d was not sent", i, s)
					}
				}
			})
		}
		release := sync.OnceFunc(func() {
			for _, gate := range gates {
				close(gate)
			}
		})
		defer release()
		if !finished(sending.Wait) {
			t.Fatalf("the senders hang: %+v", bus.Stats())
		}
		close(stop)
		if !finished(others.Wait) {
			t.Fatalf("the others hang: %+v", bus.Stats())
		}
		release()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := bus.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
		for i, p := range pods {
			if len(p.wrong) > 0 {
				t.Errorf("pod %d: %v", i, p.wrong)
			}
			if p.n+int(p.told) != senders*n {
				t.Errorf("pod %d: %d came and %d were told as lost, of %d", i, p.n, p.told, senders*n)
			}
		}
		if members > 0 && (group.n != senders*n || len(group.wrong) > 0) {
			t.Errorf("%d of %d came to the group, %v", group.n, senders*n, group.wrong)
		}
		if s := bus.Stats(); s.Dropped != told.Load() {
			t.Errorf("%d dropped, %d told", s.Dropped, told.Load())
		}
	})
}

// finished calls f and reports whether it returned in time.
func finished(f func()) bool {
	done := make(chan struct{})
	go func() { // ends with f
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-time.After(patience):
		return false
	}
}
