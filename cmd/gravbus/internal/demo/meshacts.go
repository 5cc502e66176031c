package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gravbus/gravbus"
)

// secondBirch is the process that takes the place of the one that is killed.
const secondBirch = "birch-2"

// pace is how many messages a second a node sends while something happens to the mesh.
const pace = 4000

// seconds writes a time as people say it.
func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// find: three processes start, and find each other by multicast, or by the address of one of them.
func (m *mesh) find(ctx context.Context, nodes *[3]*member) error {
	began := time.Now()
	for i, name := range crewNames[:3] {
		var err error
		if nodes[i], err = m.launch(ctx, nodeOrder{Name: name, Addr: "127.0.0.1:0"}); err != nil {
			return err
		}
	}
	var rows [][]string
	for _, n := range nodes {
		rows = append(rows, []string{n.name, fmt.Sprintf("pid %d", n.cmd.Process.Pid), n.endpoint, n.uuid[:8] + "…"})
	}
	m.out.rows(rows)
	m.report.Discovery = "mdns"
	found := m.loop != nil
	if found && m.cfg.Discovery == "" {
		const long = 4 * time.Second // mDNS needs a third of a second, or a second more if a packet is lost
		trying, cancel := context.WithTimeout(ctx, long)
		found = meet(trying, nodes[:], 2) == nil
		cancel()
	}
	if !found && m.cfg.Discovery != "mdns" {
		m.report.Discovery = "seed"
		for _, n := range nodes[1:] {
			if err := tell(ctx, []*member{n}, order{Do: "connect", Endpoint: nodes[0].endpoint}); err != nil {
				return err
			}
		}
	}
	if err := meet(ctx, nodes[:], 2); err != nil {
		return err
	}
	how := "by multicast DNS"
	if m.report.Discovery == "seed" {
		how = "birch and cedar were told where alder is"
		if m.cfg.Discovery == "" {
			m.out.say("Multicast does not work here.")
		}
	}
	m.out.say("Found after %s: %s.", seconds(time.Since(began)), how)
	links := int64(0)
	for _, n := range nodes {
		stats, err := n.do(ctx, order{Do: "stats"})
		if err != nil {
			return err
		}
		links += stats.N
	}
	m.check("links", 3, links/2)
	return nil
}

// talk: all send as fast as they can.
func (m *mesh) talk(ctx context.Context, nodes *[3]*member) error {
	m.out.say("%s of %d bytes each, as fast as they can. Each gets those of", plural(int(m.cfg.Messages), "message"), messageSize)
	m.out.say("both others.")
	began := time.Now()
	f := m.flow(ctx, nodes[:], m.cfg.Messages, 0)
	if err := f.wait(); err != nil {
		return err
	}
	if err := m.collect(ctx, f, nodes[:], "received"); err != nil {
		return err
	}
	took := time.Since(began)
	m.out.say("%s deliveries a second between processes.", perSecond(float64(6*m.cfg.Messages)/took.Seconds()))
	return nil
}

// ask: a node asks one, all, and nobody.
func (m *mesh) ask(ctx context.Context, nodes *[3]*member) error {
	const questions = 500
	ctx, cancel := patient(ctx)
	defer cancel()
	began := time.Now()
	a, err := nodes[0].do(ctx, order{Do: "ask", Type: "ask.birch", N: questions})
	if err != nil {
		return err
	}
	m.out.say("alder asks birch %d times, one after the other: %s there and back.", questions,
		(time.Since(began) / questions).Round(time.Microsecond))
	all, err := nodes[0].do(ctx, order{Do: "ask all", Type: "ask.all", N: 1})
	if err != nil {
		return err
	}
	m.out.say("It asks everybody: three answer, itself too, and it knows that nobody")
	m.out.say("is missing. It asks what nobody can answer, and is told at once.")
	_, err = nodes[0].do(ctx, order{Do: "ask", Type: "ask.nobody", N: 1})
	told := int64(0)
	if err != nil && strings.Contains(err.Error(), gravbus.ErrNoResponders.Error()) {
		told = 1
	}
	m.check("answers", questions, a.N)
	m.check("answers of all", 3, int64(len(all.Names)))
	m.check("no responders, told", 1, told)
	return nil
}

// pullCable: a node is cut off while all send. Nothing is lost.
func (m *mesh) pullCable(ctx context.Context, nodes *[3]*member) error {
	const out = 3 * time.Second
	m.out.say("All send %s messages a second. For %.0f seconds birch is cut off.", number(int64(pace)), out.Seconds())
	f := m.flow(ctx, nodes[:], 0, pace)
	if err := goOn(ctx, nodes[:], pace/10); err != nil {
		return err
	}
	birch := nodes[1:2]
	if err := tell(ctx, birch, order{Do: "pull"}); err != nil {
		return err
	}
	if err := tell(ctx, birch, order{Do: "alone"}); err != nil {
		return err
	}
	if err := tell(ctx, []*member{nodes[0], nodes[2]}, order{Do: "alone", N: 1}); err != nil {
		return err
	}
	before, err := total(ctx, nodes[:])
	if err != nil {
		return err
	}
	pause := time.NewTimer(out)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := total(ctx, nodes[:])
	if err != nil {
		return err
	}
	began := time.Now()
	if err := tell(ctx, birch, order{Do: "plug"}); err != nil {
		return err
	}
	if err := meet(ctx, nodes[:], 2); err != nil {
		return err
	}
	m.out.say("%s messages were sent meanwhile. %s after it is plugged in again the", number(after-before), seconds(time.Since(began)))
	m.out.say("links are back, and go on where they were cut.")
	if err := goOn(ctx, nodes[:], pace/10); err != nil {
		return err
	}
	if err := m.stop(ctx, f); err != nil {
		return err
	}
	if err := m.collect(ctx, f, nodes[:], "received"); err != nil {
		return err
	}
	ctx, cancel := patient(ctx)
	defer cancel()
	stats, err := birch[0].do(ctx, order{Do: "stats"})
	if err != nil {
		return err
	}
	m.check("birch's links were cut", 2, min(int64(stats.Cuts), 2))
	return nil
}

// killOne: a node is killed while the others send, and another takes its place.
func (m *mesh) killOne(ctx context.Context, nodes *[3]*member) error {
	birch, others := nodes[1], []*member{nodes[0], nodes[2]}
	f := m.flow(ctx, others, 0, pace)
	if err := goOn(ctx, others, pace/10); err != nil {
		return err
	}
	began := time.Now()
	birch.kill()
	m.retire(birch)
	if err := tell(ctx, others, order{Do: "alone", N: 1}); err != nil {
		return err
	}
	m.out.say("birch gets SIGKILL while the others send. They notice after %s.", seconds(time.Since(began)))
	if err := goOn(ctx, others, pace/4); err != nil {
		return err
	}
	if err := m.stop(ctx, f); err != nil {
		return err
	}
	if err := m.collect(ctx, f, others, "received by the others"); err != nil {
		return err
	}

	began = time.Now()
	n := nodeOrder{Name: secondBirch, Addr: birch.endpoint}
	if m.report.Discovery == "seed" {
		n.Seeds = []string{nodes[0].endpoint}
	}
	again, err := m.launch(ctx, n)
	if err != nil {
		return err
	}
	nodes[1] = again
	if err := meet(ctx, []*member{again}, 2); err != nil {
		return err
	}
	if err := tell(ctx, others, order{Do: "interest", Type: streamType("again", "all"), N: 2}); err != nil {
		return err
	}
	m.out.say("Started again, a new node at the same address, it is back after %s.", seconds(time.Since(began)))
	m.act = "again"
	few := min(m.cfg.Messages, 10_000)
	f = m.flow(ctx, nodes[:], few, 0)
	if err := f.wait(); err != nil {
		return err
	}
	if err := m.collect(ctx, f, nodes[:], "received by all three again"); err != nil {
		return err
	}
	m.act = "kill"
	return nil
}

// joinLate: a node comes while others send, and gets what was sent before.
func (m *mesh) joinLate(ctx context.Context, nodes *[3]*member) error {
	const slow = 100 // messages a second: all fit into what a node keeps for replay
	f := m.flow(ctx, nodes[:], 0, slow)
	if err := goOn(ctx, nodes[:], slow/2); err != nil {
		return err
	}
	before, err := total(ctx, nodes[:])
	if err != nil {
		return err
	}
	for _, n := range nodes {
		before -= m.books[n.name].sent
	}
	n := nodeOrder{Name: "damson", Addr: "127.0.0.1:0", Replay: m.act}
	if m.report.Discovery == "seed" {
		n.Seeds = []string{nodes[0].endpoint}
	}
	damson, err := m.launch(ctx, n)
	if err != nil {
		return err
	}
	late := []*member{damson}
	if err := meet(ctx, late, 3); err != nil {
		return err
	}
	if err := goOn(ctx, nodes[:], slow/2); err != nil {
		return err
	}
	if err := m.stop(ctx, f); err != nil {
		return err
	}
	if err := m.collect(ctx, f, append(late, nodes[:]...), "received"); err != nil {
		return err
	}
	m.out.say("damson joins after %s, gets them all, and then live ones.", plural(int(before), "message"))
	return nil
}

// leave: nodes send, and leave at once. The others have everything.
func (m *mesh) leave(ctx context.Context, nodes *[3]*member) error {
	few := min(m.cfg.Messages, 10_000)
	f := m.flow(ctx, nodes[:1], few, 0)
	if err := f.wait(); err != nil {
		return err
	}
	m.out.say("alder sends %s, and leaves at once. Then the others leave.", plural(int(few), "message"))
	ended := int64(0)
	var late []*member
	for _, n := range m.all {
		if n.name == "damson" {
			late = append(late, n)
		}
	}
	bye := func(n *member) error {
		ctx, cancel := patient(ctx)
		defer cancel()
		a, err := n.do(ctx, order{Do: "leave"})
		if err != nil {
			return err
		}
		m.books[n.name].seen = a.Seen
		if n.dismiss(ctx) == nil {
			ended++
		}
		m.retire(n)
		return nil
	}
	if err := bye(nodes[0]); err != nil {
		return err
	}
	if err := m.collect(ctx, f, nodes[1:], "received"); err != nil {
		return err
	}
	for _, n := range append(late, nodes[1:]...) {
		if err := bye(n); err != nil {
			return err
		}
	}
	m.check("ended by themselves", 4, ended)
	return nil
}
