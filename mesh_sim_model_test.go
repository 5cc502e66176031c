package gravbus_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
)

var (
	simSeed = flag.Uint64("simseed", 0, "run this schedule of TestSimSchedules only; goroutines may still take turns otherwise: repeat with -count")
	simFrom = flag.Uint64("simfrom", 1, "the first schedule of TestSimSchedules")
	simRuns = flag.Uint64("simruns", 0, "how many schedules TestSimSchedules runs; 0 for as many as are reasonable")
)

// TestSimSchedules runs random programs against a model: nodes that send, while connections are cut
// on one side or both or stand still, nodes are parted, slow, crash and come back, and pods come and
// go. Then all heals, and the nodes have to be a full mesh with nothing unaccounted for.
func TestSimSchedules(t *testing.T) {
	if *simSeed != 0 {
		simulateSchedule(t, *simSeed)
		return
	}
	runs := *simRuns
	if runs == 0 {
		runs = 2000
		if raceOn {
			runs = 200
		}
		if testing.Short() {
			runs /= 10
		}
	}
	for seed := *simFrom; seed < *simFrom+runs && !t.Failed(); seed++ {
		simulateSchedule(t, seed)
	}
}

func simulateSchedule(t *testing.T, seed uint64) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("that was schedule %d: repeat it with -run TestSimSchedules -simseed %d", seed, seed)
		}
	}()
	random := rand.New(rand.NewPCG(seed, 42))
	cuts := rand.New(rand.NewPCG(seed, 43))
	config := memory.Config{Buffer: []int{0, 64 << 10}[random.IntN(2)]}
	m := &simModel{random: random}
	config.Connected = func(c *memory.Connection) { // called by one at a time for one connection only
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.fragile && cuts.IntN(3) == 0 {
			c.CutAfter(cuts.IntN(60))
		}
	}
	simulate(t, config, func(s *sim) {
		m.sim = s
		m.run()
	})
}

// simReplays makes some pods ask for replay.
const simReplays = true

// simTypes are what messages are of.
var simTypes = []string{"t.a", "t.b", "t.c.d"}

// A simModel knows what was sent and what came.
type simModel struct {
	*sim
	random *rand.Rand
	opts   []gravbus.Option
	names  []string
	seeds  []string
	dead   time.Duration // UseDeadAfter

	mu      sync.Mutex // guards all below
	fragile bool       // new connections are cut after some frames
	live    map[string]*simMember
	members []*simMember      // also those that have gone; their number is in their messages
	asked   map[[2]string]int // requests from one node to another
	sends   sync.WaitGroup
}

// A simMember is a node with a pod that sends, and pods that receive.
type simMember struct {
	*simNode
	number int
	first  bool // it was there before the faults began
	gone   bool

	sending chan struct{} // holds one: a burst
	sender  *gravbus.Pod
	sent    []simSent
	all     *simPod // wants everything
	pods    []*simPod
}

// simSent is a message that was sent, between two times.
type simSent struct {
	typ           int
	before, after time.Duration
}

// A simPod is a pod that receives.
type simPod struct {
	*gravbus.Pod
	model  *simModel
	on     *simMember
	pause  time.Duration
	types  []bool // that it wants
	steady bool   // it was there before the faults began, and stays

	mu     sync.Mutex    // guards all below
	got    map[int][]int // numbers of messages, by sender
	lagged int
	left   bool
	faults []string
}

func (m *simModel) now() time.Duration { return time.Since(m.began) }

// pick returns one of some.
func pick[T any](r *rand.Rand, some ...T) T { return some[r.IntN(len(some))] }

// run sets up the mesh, disturbs it for a while, lets it heal and checks.
func (m *simModel) run() {
	r := m.random
	m.live, m.asked = map[string]*simMember{}, map[[2]string]int{}
	m.dead = pick(r, time.Second, 3*time.Second, 10*time.Second)
	m.opts = []gravbus.Option{
		gravbus.UseDeadAfter(m.dead),
		gravbus.UseResumeFor(pick(r, 2*time.Second, 20*time.Second, 2*time.Minute)),
		gravbus.UseLinkBounds(pick(r, 4, 100, 0), 0),
	}
	for i := range 2 + r.IntN(4) {
		m.names = append(m.names, fmt.Sprint("n", i))
	}
	m.seeds = m.names
	if r.IntN(2) == 0 {
		m.seeds = m.names[:1]
	}
	m.latencies(pick(r, time.Microsecond, 2*time.Millisecond, 30*time.Millisecond))
	for _, name := range m.names {
		n := m.join(name)
		n.first = true
		for range r.IntN(3) {
			m.connect(n).steady = true
		}
	}
	for _, n := range m.live {
		must(m, n.WaitPeers(m.within(time.Minute), len(m.names)-1))
		must(m, n.WaitInterest(m.within(time.Minute), simTypes[0], len(m.names)-1))
	}
	time.Sleep(time.Second) // what pods want is known everywhere

	for range 10 + r.IntN(40) {
		m.step()
	}
	m.heal()
	m.check()
}

func (m *simModel) latencies(most time.Duration) {
	for _, from := range m.names {
		for _, to := range m.names {
			m.net.SetLatency(from, to, time.Duration(m.random.Int64N(int64(most))))
		}
	}
}

// join starts a node.
func (m *simModel) join(name string) *simMember {
	n := &simMember{number: len(m.members), sending: make(chan struct{}, 1), simNode: m.node(name, m.seeds, m.opts...)}
	n.all = m.listener(n, []bool{true, true, true}, 0, gravbus.Mailbox(1<<20))
	n.all.steady = true
	n.sender = n.Connect(gravbus.Name("sender"))
	ask := n.Connect(gravbus.Name("responder"))
	ask.OnType("ask."+name, func(msg gravbus.Message) error {
		ask.ReplyTo(msg, gravbus.NewMsg("answer", msg.Data()))
		return nil
	})
	m.mu.Lock()
	m.live[name] = n
	m.members = append(m.members, n)
	m.mu.Unlock()
	must(m, n.Start(m.Context()))
	return n
}

// listener connects a pod that wants some types.
func (m *simModel) listener(n *simMember, types []bool, pause time.Duration, opts ...gravbus.PodOption) *simPod {
	p := &simPod{model: m, on: n, pause: pause, types: types, got: map[int][]int{}}
	p.Pod = n.Connect(opts...)
	var wanted []string
	for i, want := range types {
		if want {
			wanted = append(wanted, simTypes[i])
		}
	}
	p.OnType(wanted[0], p.handle, wanted[1:]...)
	n.pods = append(n.pods, p)
	return p
}

// connect connects a pod that wants something, and may be slow.
func (m *simModel) connect(n *simMember) *simPod {
	r := m.random
	types := []bool{r.IntN(2) == 0, r.IntN(2) == 0, true}
	pause := pick(r, 0, 0, time.Millisecond, 50*time.Millisecond, 1500*time.Millisecond)
	opts := [][]gravbus.PodOption{nil, nil, nil, {gravbus.Replay()}, {gravbus.ReplayLast(20)}}[r.IntN(5)]
	if !simReplays {
		opts = nil
	}
	mailbox := pick(r, 1, 10)
	if pause < time.Second {
		mailbox = pick(r, 1, 10, 1000)
	}
	name := fmt.Sprintf("pod %d, replay %t", len(n.pods), opts != nil)
	m.trace("%s connects %s", n.name, name)
	return m.listener(n, types, pause, append(opts, gravbus.Mailbox(mailbox), gravbus.Name(name))...)
}

func (p *simPod) handle(msg gravbus.Message) error {
	p.mu.Lock()
	from, i := -1, 0
	if msg.Type() != gravbus.MsgTypeLagged {
		from, i = numberOf(prefixed{msg})
	}
	switch {
	case from < 0:
		lag, err := gravbus.Decode[gravbus.Lagged](msg)
		if err != nil {
			p.faults = append(p.faults, err.Error())
		}
		p.lagged += int(lag.Count)
	case !p.types[slices.Index(simTypes, msg.Type())]:
		p.faults = append(p.faults, "got a message of type "+msg.Type())
	case p.left:
		p.faults = append(p.faults, "got a message after Disconnect")
	case len(p.got[from]) > 0 && p.got[from][len(p.got[from])-1] >= i:
		p.faults = append(p.faults, fmt.Sprintf("%s: message %d of member %d came after %d; before: %t", p.Name(), i, from, p.got[from][len(p.got[from])-1], slices.Contains(p.got[from], i)))
	default:
		p.got[from] = append(p.got[from], i)
	}
	p.mu.Unlock()
	if p.pause > 0 {
		time.Sleep(p.pause)
	}
	return nil
}

// prefixed is a message that has more behind its number.
type prefixed struct{ gravbus.Message }

func (p prefixed) Data() []byte { return p.Message.Data()[:8] }

// some returns a node that is there, or nil.
func (m *simModel) some() *simMember {
	return m.live[pick(m.random, m.names...)]
}

// step does one thing at random.
func (m *simModel) step() {
	r := m.random
	n := m.some()
	a, b := pick(r, m.names...), pick(r, m.names...)
	conns := m.net.Connections()
	switch k := r.IntN(100); {
	case k < 35:
		if n != nil {
			m.burst(n, r.IntN(pick(r, 5, 50, 300)), pick(r, 0, time.Millisecond, 20*time.Millisecond))
		}
	case k < 45:
		m.trace("cut %s %s", a, b)
		m.net.Cut(a, b)
	case k < 52:
		if ends := m.ends(a); len(ends) > 0 {
			end := ends[len(ends)-1-r.IntN(min(len(ends), 4))]
			m.trace("%s closes its end of a connection", a)
			end.Close()
		}
	case k < 58:
		if len(conns) > 0 {
			c := pick(r, conns...)
			m.trace("stall %s %s", c.From(), c.To())
			c.Stall()
		}
	case k < 62: // half-open, and one side knows
		if ends := m.ends(a); len(ends) > 0 && len(conns) > 0 {
			m.trace("stall all, %s closes an end", a)
			for _, c := range conns {
				c.Stall()
			}
			ends[len(ends)-1].Close()
		}
	case k < 66:
		i := r.IntN(len(m.names) + 1)
		m.trace("partition %v %v", m.names[:i], m.names[i:])
		m.net.Partition(m.names[:i], m.names[i:])
	case k < 68:
		m.trace("%s does not hear %s", a, b)
		m.net.Silence(b, a)
	case k < 75:
		m.trace("heal")
		m.net.Heal()
	case k < 78:
		refuse := r.IntN(2) == 0
		m.trace("%s refuses %t", a, refuse)
		m.net.Refuse(a, refuse)
	case k < 80:
		m.latencies(pick(r, time.Microsecond, 2*time.Millisecond, 30*time.Millisecond, 300*time.Millisecond))
	case k < 82:
		m.mu.Lock()
		m.fragile = !m.fragile
		m.mu.Unlock()
	case k < 87:
		if n != nil {
			m.connect(n)
		}
	case k < 91:
		m.leave(n)
	case k < 94:
		m.crash(n)
	case k < 96:
		if m.live[a] == nil {
			m.trace("%s joins", a)
			m.join(a)
		}
	default:
		if n != nil {
			m.ask(n, a)
		}
	}
	time.Sleep(time.Duration(r.IntN(pick(r, 1, 50, 1000, 5000))) * time.Millisecond)
}

func (m *simModel) trace(format string, args ...any) {
	if *simVerbose {
		m.Logf("%10v "+format, append([]any{m.now()}, args...)...)
	}
}

// burst makes a node send some messages.
func (m *simModel) burst(n *simMember, count int, pause time.Duration) {
	m.trace("%s sends %d, one each %v", n.name, count, pause)
	types := make([]int, count)
	for i := range types {
		types[i] = m.random.IntN(len(simTypes))
	}
	pad := make([]byte, pick(m.random, 0, 0, 0, 100, 5000, 100_000))
	if len(pad) > 10_000 {
		types = types[:min(count, 60)]
	}
	m.sends.Go(func() {
		n.sending <- struct{}{}
		defer func() { <-n.sending }()
		for _, typ := range types {
			msg := gravbus.NewMsg(simTypes[typ], append(nth("x", n.number, len(n.sent)).Data(), pad...))
			before := m.now()
			if n.sender.Send(msg) == nil {
				m.mu.Lock()
				gone := n.gone
				m.mu.Unlock()
				if !gone {
					m.Errorf("%s could not send", n.name)
				}
				return
			}
			n.sent = append(n.sent, simSent{typ, before, m.now()})
			time.Sleep(pause)
		}
	})
}

// ask makes a request, which has to end.
func (m *simModel) ask(n *simMember, name string) {
	if n.name == name {
		return
	}
	m.asked[[2]string{n.name, name}]++
	m.trace("%s asks %s", n.name, name)
	pod, data := n.Connect(), []byte(fmt.Sprint(m.now()))
	m.sends.Go(func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		reply, err := pod.Request(ctx, gravbus.NewMsg("ask."+name, data))
		var peer *gravbus.PeerError
		switch {
		case err == nil && string(reply.Data()) == string(data):
		case errors.Is(err, gravbus.ErrNoResponders), errors.Is(err, context.DeadlineExceeded), errors.Is(err, gravbus.ErrClosed), errors.As(err, &peer):
		default:
			m.Errorf("request to %s: %v, %v", name, reply, err)
		}
		if took := time.Since(began); took > 25*time.Second {
			m.Errorf("request to %s: took %v", name, took)
		}
		pod.Disconnect()
	})
}

// leave disconnects a pod that is not steady.
func (m *simModel) leave(n *simMember) {
	if n == nil {
		return
	}
	for _, p := range n.pods {
		if p.steady || p.left {
			continue
		}
		p.Disconnect()
		p.mu.Lock()
		p.left = true
		p.mu.Unlock()
		return
	}
}

// crash ends a node: with a word to its peers, without one, or in order.
func (m *simModel) crash(n *simMember) {
	if n == nil || len(m.live) < 2 {
		return
	}
	m.mu.Lock()
	n.gone = true
	delete(m.live, n.name)
	m.mu.Unlock()
	how := m.random.IntN(3)
	m.trace("%s ends, %d", n.name, how)
	switch how {
	case 0:
		for _, c := range m.net.Connections() {
			if c.From() == n.name || c.To() == n.name {
				c.Stall()
			}
		}
	case 1:
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		_ = n.Withdraw(ctx)
		cancel()
		if took := time.Since(began); took > 5*time.Second {
			m.Errorf("%s: Withdraw took %v", n.name, took)
		}
	}
	n.Close()
}

// heal ends all faults, and waits until nothing moves any more.
func (m *simModel) heal() {
	m.trace("all heals")
	m.mu.Lock()
	m.fragile = false
	m.mu.Unlock()
	for _, name := range m.names {
		m.net.Refuse(name, false)
		for _, to := range m.names {
			m.net.SetLatency(name, to, time.Millisecond)
		}
	}
	for _, c := range m.net.Connections() {
		c.CutAfter(-1)
	}
	m.net.Heal()
	if m.live[m.seeds[0]] == nil {
		m.join(m.seeds[0]) // without the seed they need not find each other
	}
	m.sends.Wait()
	began := m.now()
	for _, n := range m.live {
		if err := n.WaitPeers(m.within(m.dead+time.Minute), len(m.live)-1); err != nil {
			m.Errorf("%s has not met all of %d others after %v", n.name, len(m.live)-1, m.now()-began)
		}
	}
	for _, n := range m.live {
		if err := n.WaitInterest(m.within(m.dead+time.Minute), simTypes[2], len(m.live)-1); err != nil {
			m.Errorf("%s does not know what all of %d others want", n.name, len(m.live)-1)
		}
	}
	time.Sleep(10 * time.Second)
}
