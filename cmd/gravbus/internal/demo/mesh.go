package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"time"
)

// MeshConfig is what the demonstration of a mesh depends on.
type MeshConfig struct {
	Command   []string // starts a process that calls RunChild
	Messages  int64    // that each node sends as fast as it can; positive
	Discovery string   // "mdns" or "seed"; if empty mDNS is tried first
	Color     bool     // whether the story is told in color
}

// MeshReport is what the demonstration of a mesh found out.
type MeshReport struct {
	OK        bool      `json:"ok"`        // the story came to its end and every check is right
	Discovery string    `json:"discovery"` // by which the nodes found each other: "mdns" or "seed"
	Checks    []Check   `json:"checks"`
	Nodes     []NodeSum `json:"nodes"`
	Total     NodeSum   `json:"total"`
	Machine   Machine   `json:"machine"`
	Seconds   float64   `json:"seconds"`
}

// NodeSum is what a node has sent and received in all acts.
type NodeSum struct {
	Name       string `json:"name"`
	Sent       int64  `json:"sent"`
	Expected   int64  `json:"expected"` // what others have sent for it
	Received   int64  `json:"received"`
	Lost       int64  `json:"lost"`
	Doubled    int64  `json:"doubled"`
	OutOfOrder int64  `json:"out_of_order"`
}

func (n *NodeSum) add(o *NodeSum) {
	n.Sent += o.Sent
	n.Expected += o.Expected
	n.Received += o.Received
	n.Lost += o.Lost
	n.Doubled += o.Doubled
	n.OutOfOrder += o.OutOfOrder
}

// mesh is what the acts with processes share.
type mesh struct {
	cfg    MeshConfig
	out    *printer
	report *MeshReport
	act    string
	name   string // of the mesh
	key    string
	loop   []string // loopback interfaces, if mDNS is tried
	all    []*member
	books  map[string]*account // by name of the node
}

// account is what a node should and does have.
type account struct {
	sent int64
	due  map[string]int64 // messages of each stream that it should have
	seen map[string]Seen
}

// patient is ctx with an end to what should happen at once.
func patient(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, patience+patience/2) // a node itself has patience first
}

// RunMesh plays the story of three processes on w, and ends early when ctx does. The report is
// never nil: after an error it has what was counted until then.
func RunMesh(ctx context.Context, w io.Writer, cfg MeshConfig) (*MeshReport, error) {
	m := &mesh{
		cfg:    cfg,
		out:    &printer{w: w, color: cfg.Color, columns: 78},
		report: &MeshReport{Checks: []Check{}, Nodes: []NodeSum{}},
		name:   "demo-" + rand.Text()[:8],
		key:    rand.Text(),
		books:  map[string]*account{},
	}
	m.report.Machine = Machine{runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0)}
	if cfg.Discovery != "seed" {
		m.loop = loopbacks()
	}
	err := m.run(ctx)
	for _, node := range m.all { // those that have not ended in order
		node.kill()
	}
	return m.report, err
}

func loopbacks() (names []string) {
	all, _ := net.Interfaces()
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp != 0 {
			names = append(names, i.Name)
		}
	}
	return names
}

func (m *mesh) run(ctx context.Context) error {
	began := time.Now()
	m.out.headline("gravbus", "Three processes on this machine become one mesh.")
	var nodes [3]*member
	for i, a := range []struct {
		name, title string
		play        func(context.Context, *[3]*member) error
	}{
		{"find", "They find each other", m.find},
		{"talk", "Everybody talks to everybody", m.talk},
		{"ask", "Questions and answers", m.ask},
		{"cable", "A cable is pulled out", m.pullCable},
		{"kill", "A process is killed", m.killOne},
		{"late", "Late, and nothing missed", m.joinLate},
		{"leave", "They leave in order", m.leave},
	} {
		m.act = a.name
		m.out.title(i+1, a.title)
		first := len(m.report.Checks)
		if err := a.play(ctx, &nodes); err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(a.title), err)
		}
		m.out.marks(m.report.Checks[first:])
		if m.out.err != nil {
			return m.out.err
		}
	}
	m.sum()
	m.report.Seconds = time.Since(began).Seconds()
	m.report.OK = !slices.ContainsFunc(m.report.Checks, func(c Check) bool { return !c.OK })
	m.out.meshSummary(m.report)
	return m.out.err
}

func (m *mesh) check(name string, expected, got int64) {
	m.report.Checks = append(m.report.Checks, Check{m.act, name, expected, got, expected == got})
}

// launch starts a node in a process of its own.
func (m *mesh) launch(ctx context.Context, n nodeOrder) (*member, error) {
	node, err := hire(m.cfg.Command, n.Name)
	if err != nil {
		return nil, err
	}
	m.all = append(m.all, node)
	n.Mesh, n.Key, n.Interfaces = m.name, m.key, m.loop
	ctx, cancel := patient(ctx)
	defer cancel()
	a, err := node.do(ctx, order{Do: "start", Node: &n})
	if err != nil {
		return nil, err
	}
	node.uuid, node.endpoint = a.UUID, a.Endpoint
	m.books[n.Name] = &account{due: map[string]int64{}, seen: map[string]Seen{}}
	return node, nil
}

// retire takes a node off the list of those that are to be ended.
func (m *mesh) retire(node *member) {
	m.all = slices.DeleteFunc(m.all, func(o *member) bool { return o == node })
}

// each does the same with several nodes at the same time.
func each(nodes []*member, do func(*member) error) error {
	errs := make(chan error, len(nodes))
	for _, node := range nodes {
		go func() { errs <- do(node) }() // ends with do; all are awaited
	}
	var all []error
	for range nodes {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// tell gives several nodes the same order.
func tell(ctx context.Context, nodes []*member, o order) error {
	ctx, cancel := patient(ctx)
	defer cancel()
	return each(nodes, func(node *member) error {
		_, err := node.do(ctx, o)
		return err
	})
}

// meet waits until nodes are connected with n others each, and know what these want.
func meet(ctx context.Context, nodes []*member, n int) error {
	return tell(ctx, nodes, order{Do: "peers", N: int64(n)})
}

// A flow is what several nodes send at the same time.
type flow struct {
	nodes []*member
	sent  map[*member]int64
	err   error
	done  chan struct{} // closed when all have sent everything
}

// flow makes nodes send n messages each, or with no n until stop is called.
func (m *mesh) flow(ctx context.Context, nodes []*member, n, rate int64) *flow {
	f := &flow{nodes: nodes, sent: map[*member]int64{}, done: make(chan struct{})}
	ctx, cancel := patient(ctx)
	go func() { // ends when all have sent everything, or with ctx
		defer cancel()
		defer close(f.done)
		counts := make(chan int64, 1)
		counts <- 0
		f.err = each(nodes, func(node *member) error {
			a, err := node.do(ctx, order{Do: "send", Act: m.act, N: n, Rate: rate})
			<-counts
			f.sent[node] = a.N
			counts <- 0
			return err
		})
	}()
	return f
}

// wait waits until all is sent.
func (f *flow) wait() error {
	<-f.done
	return f.err
}

// stop ends the sending.
func (m *mesh) stop(ctx context.Context, f *flow) error {
	if err := tell(ctx, f.nodes, order{Do: "stop", Act: m.act}); err != nil {
		return err
	}
	return f.wait()
}

// total returns how many messages the nodes have sent in all acts.
func total(ctx context.Context, nodes []*member) (n int64, err error) {
	ctx, cancel := patient(ctx)
	defer cancel()
	for _, node := range nodes {
		a, err := node.do(ctx, order{Do: "sent"})
		if err != nil {
			return 0, err
		}
		n += a.N
	}
	return n, nil
}

// goOn waits until each of the nodes has sent some more messages.
func goOn(ctx context.Context, nodes []*member, more int64) error {
	ctx, cancel := patient(ctx)
	defer cancel()
	return each(nodes, func(node *member) error {
		a, err := node.do(ctx, order{Do: "sent"})
		if err == nil {
			_, err = node.do(ctx, order{Do: "sent", N: a.N + more})
		}
		return err
	})
}

// collect enters a flow into the books, waits until receivers have it, and checks that by the name.
func (m *mesh) collect(ctx context.Context, f *flow, receivers []*member, check string) error {
	ctx, cancel := patient(ctx)
	defer cancel()
	for _, from := range f.nodes {
		m.books[from.name].sent += f.sent[from]
	}
	var due, received int64
	for _, to := range receivers {
		book := m.books[to.name]
		for _, from := range f.nodes {
			if from == to {
				continue
			}
			name, n := streamType(m.act, from.name), f.sent[from]
			a, err := to.do(ctx, order{Do: "seen", Act: m.act, From: from.name, N: n})
			if err != nil {
				return err
			}
			book.due[name] = n
			book.seen = a.Seen
			due += n
			received += a.Seen[name].Received
		}
	}
	m.check(check, due, received)
	return nil
}

// crewNames are the nodes of the story, in the order in which they come.
var crewNames = []string{"alder", "birch", "cedar", secondBirch, "damson"}

// sum closes the books.
func (m *mesh) sum() {
	m.report.Total.Name = "total"
	for _, name := range crewNames {
		book := m.books[name]
		n := NodeSum{Name: name, Sent: book.sent}
		for stream, due := range book.due {
			seen := book.seen[stream]
			n.Expected += due
			n.Received += seen.Received
			n.Doubled += seen.Doubled
			n.OutOfOrder += seen.Late
			n.Lost += due - (seen.Received - seen.Doubled)
		}
		m.report.Nodes = append(m.report.Nodes, n)
		m.report.Total.add(&n)
	}
	m.act = "books"
	t := &m.report.Total
	m.check("received", t.Expected, t.Received)
	m.check("lost", 0, t.Lost)
	m.check("doubled", 0, t.Doubled)
	m.check("out of order", 0, t.OutOfOrder)
}

const meshRow = "%-8s %11s %11s %11s %7s %8s %13s"

// meshSummary prints the books, and the last word.
func (p *printer) meshSummary(r *MeshReport) {
	p.printf("\n  %s\n", p.dim(fmt.Sprintf(meshRow, "node", "sent", "for it", "received", "lost", "doubled", "out of order")))
	for _, n := range append(slices.Clone(r.Nodes), r.Total) {
		line := fmt.Sprintf(meshRow,
			n.Name, number(n.Sent), number(n.Expected), number(n.Received), number(n.Lost), number(n.Doubled), number(n.OutOfOrder))
		switch {
		case n.Lost != 0 || n.Doubled != 0 || n.OutOfOrder != 0:
			line = p.bad(line)
		case n.Name == r.Total.Name:
			line = p.bold(line)
		}
		p.printf("  %s\n", line)
	}
	wrong := 0
	for _, c := range r.Checks {
		if !c.OK {
			wrong++
		}
	}
	if wrong == 0 {
		p.printf("\n  %s\n", p.good(p.bold("✓ Every message arrived, once and in order"))+
			fmt.Sprintf(": %d counts are right, in %.1f s.", len(r.Checks), r.Seconds))
		return
	}
	p.printf("\n  %s\n", p.bad(fmt.Sprintf("✗ Wrong: %d of %d counts.", wrong, len(r.Checks))))
	for _, c := range r.Checks {
		if !c.OK {
			p.printf("    %s %s: %s: %s, not %s\n", p.mark(false), c.Act, c.Name, number(c.Got), number(c.Expected))
		}
	}
}
