package discoverytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// rules are what the contract says, in about its order.
var rules = []rule{
	{name: "nodes find each other", check: nodesFindEachOther},
	{name: "told again, at least every minute", bubble: true, check: toldEveryMinute},
	{name: "told again, at most every second", check: toldEverySecond},
	{name: "found is called by one at a time", check: foundByOneAtATime},
	{name: "the context bounds Start only", check: contextBoundsStart},
	{name: "endpoints may change", announces: true, check: endpointsChange},
	{name: "who only dials is not announced", announces: true, check: onlyDials},
	{name: "Hurry looks at once", bubble: true, check: hurryLooks},
	{name: "Hurry does not wait", check: hurryDoesNotWait},
	{name: "Hurry and Close at the same time", check: concurrentUse},
	{name: "Close waits for found", check: closeWaits},
	{name: "nothing is found after Close", check: nothingAfterClose},
	{name: "nobody is announced after Close", announces: true, check: notAnnouncedAfterClose},
	{name: "no goroutine is left by Close", check: noGoroutineLeft},
	{name: "Close again", check: closeAgain},
	{name: "Start again", check: startAgain},
}

func nodesFindEachOther(e *env) error {
	nodes, err := e.startAll(Nodes)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		err = errors.Join(err, n.hears(0, nodes...))
	}
	return err
}

func toldEveryMinute(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	began := time.Now()
	e.pass(10*time.Minute, 0)
	for i, n := range nodes {
		var times []time.Time
		for _, c := range n.ears.since(0) {
			if nodes[1-i].is(c.node) {
				times = append(times, c.at)
			}
		}
		last := began
		for _, at := range append(times, time.Now()) {
			if pause := at.Sub(last); pause > time.Minute {
				return fmt.Errorf("node %d is not told of node %d for %v, that is not every minute", i, 1-i, pause)
			}
			last = at
		}
	}
	return nil
}

// toldEverySecond first leaves it alone, and then hurries it.
func toldEverySecond(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	if err := nodes[0].hears(0, nodes[1]); err != nil {
		return err
	}
	least := time.Second
	if !e.Bubble {
		least /= 2 // clocks and schedulers are not exact; what is wrong is mostly far more so
	}
	for i := range 20 {
		for _, n := range nodes[:i/10] {
			n.session.Hurry()
		}
		e.pass(300*time.Millisecond, 200*time.Millisecond)
	}
	for i, n := range nodes {
		last := make(map[string]time.Time) // by node
		for _, c := range n.ears.since(0) {
			key := fmt.Sprint(c.node)
			if c.node.UUID != "" {
				key = c.node.UUID
			}
			if pause := c.at.Sub(last[key]); pause < least {
				return fmt.Errorf("node %d is told of %q again after %v, that is more often than every second", i, c.node, pause)
			}
			last[key] = c.at
		}
	}
	return nil
}

// foundByOneAtATime takes its time in found. That calls do not overlap is checked with each.
func foundByOneAtATime(e *env) error {
	var nodes []*node
	for i := range Nodes {
		n := e.node(i)
		n.ears.holdBy(func() { e.pause(1500*time.Millisecond, 100*time.Millisecond) })
		if err := n.start(context.Background()); err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	for range 5 {
		for _, n := range nodes {
			n.session.Hurry()
		}
		e.pass(time.Second, 300*time.Millisecond)
	}
	return errors.Join(nodes[0].hears(0, nodes...), nodes[1].hears(0, nodes...))
}

func contextBoundsStart(e *env) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	early := e.node(0)
	if err := early.start(ctx); err != nil {
		return err
	}
	cancel()
	e.pass(time.Second, 50*time.Millisecond)
	heard := early.ears.count()
	late, err := e.start(1)
	if err != nil {
		return err
	}
	return errors.Join(early.hears(heard, late), late.hears(0, early))
}

func endpointsChange(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	if err := nodes[1].hears(0, nodes[0]); err != nil {
		return err
	}
	nodes[0].move("192.0.2.99:7099", Endpoint(0))
	nodes[1].session.Hurry()
	return nodes[1].hears(0, nodes[0])
}

func onlyDials(e *env) error {
	dials := e.node(0)
	dials.move()
	if err := dials.start(context.Background()); err != nil {
		return err
	}
	if _, err := e.start(1); err != nil {
		return err
	}
	if _, err := e.start(2); err != nil {
		return err
	}
	if err := errors.Join(dials.hears(0, e.nodes[1], e.nodes[2]), e.nodes[1].hears(0, e.nodes[2])); err != nil {
		return err
	}
	e.pass(time.Minute, 0)
	return e.nodes[1].doesNotHear(0, uuid(0), "that has no endpoints")
}

func hurryLooks(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	for range 5 {
		e.pass(2*time.Minute+time.Second, 0)
		heard := nodes[0].ears.count()
		nodes[0].session.Hurry()
		e.pass(2*time.Second, 0) // one until it may tell of it again, and one to look
		if nodes[0].ears.count() == heard {
			return errors.New("2 s after Hurry nothing is told")
		}
	}
	return nil
}

func hurryDoesNotWait(e *env) error {
	inFound, release := make(chan struct{}, 1), make(chan struct{})
	defer close(release)
	n := e.node(0)
	n.ears.holdBy(func() {
		select {
		case inFound <- struct{}{}:
		default:
		}
		<-release
	})
	if err := n.start(context.Background()); err != nil {
		return err
	}
	if _, err := e.start(1); err != nil {
		return err
	}
	select {
	case <-inFound:
	case <-time.After(e.limit):
		return errors.New("nothing is found")
	}
	return e.do("Hurry, while found is running,", func() error {
		for range 100 {
			n.session.Hurry()
		}
		return nil
	})
}

// concurrentUse is for the race detector.
func concurrentUse(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	if err := nodes[0].hears(0, nodes[1]); err != nil {
		return err
	}
	return e.together(8, func(i int) error {
		nodes[0].session.Hurry()
		if i%2 == 0 {
			return nodes[0].session.Close()
		}
		nodes[0].session.Hurry()
		return nil
	})
}

func closeWaits(e *env) error {
	inFound, release := make(chan struct{}, 1), make(chan struct{})
	n := e.node(0)
	n.ears.holdBy(func() {
		select {
		case inFound <- struct{}{}:
		default:
		}
		<-release
	})
	if err := n.start(context.Background()); err != nil {
		return err
	}
	if _, err := e.start(1); err != nil {
		close(release)
		return err
	}
	select {
	case <-inFound:
	case <-time.After(e.limit):
		close(release)
		return errors.New("nothing is found")
	}
	// Close says itself whether found was running when it returned.
	closed := make(chan error, 1)
	go func() { closed <- n.close() }() // until found has returned
	e.pass(10*time.Second, 100*time.Millisecond)
	close(release)
	return <-closed
}

func nothingAfterClose(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	if err := nodes[0].hears(0, nodes[1]); err != nil {
		return err
	}
	nodes[0].session.Hurry()
	if err := nodes[0].close(); err != nil {
		return err
	}
	for range 3 {
		nodes[0].session.Hurry()
		e.pass(time.Minute, 400*time.Millisecond)
	}
	return nil
}

func notAnnouncedAfterClose(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	if err := nodes[1].hears(0, nodes[0]); err != nil {
		return err
	}
	if err := nodes[0].close(); err != nil {
		return err
	}
	late, err := e.start(2)
	if err != nil {
		return err
	}
	for range 2 {
		if err := late.hears(late.ears.count(), nodes[1]); err != nil {
			return err
		}
	}
	return late.doesNotHear(0, uuid(0), "that was closed before")
}

func noGoroutineLeft(e *env) error {
	before := goroutines()
	if _, err := e.startAll(2); err != nil {
		return err
	}
	if err := e.nodes[0].hears(0, e.nodes[1]); err != nil {
		return err
	}
	if err := e.close(); err != nil {
		return err
	}
	if err := e.noMoreThan(before); err != nil {
		return err
	}
	for range 10 { // Close right after Start
		n, err := e.start(2)
		if err != nil {
			return err
		}
		n.session.Hurry()
		if err := n.close(); err != nil {
			return err
		}
	}
	return e.noMoreThan(before)
}

func closeAgain(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	if err := nodes[0].close(); err != nil {
		return err
	}
	for range 2 {
		if err := nodes[0].close(); err != nil {
			return fmt.Errorf("the second time, %w", err)
		}
	}
	return e.together(4, func(int) error { return nodes[1].session.Close() })
}

func startAgain(e *env) error {
	nodes, err := e.startAll(2)
	if err != nil {
		return err
	}
	nodes = slices.Clone(nodes) // start adds to them
	for range 2 {
		if err := nodes[0].close(); err != nil {
			return err
		}
		heard := nodes[0].ears.count()
		if err := nodes[0].start(context.Background()); err != nil {
			return fmt.Errorf("after Close: %w", err)
		}
		if err := nodes[0].hears(heard, nodes[1]); err != nil {
			return fmt.Errorf("after Close and Start: %w", err)
		}
		if err := nodes[1].hears(nodes[1].ears.count(), nodes[0]); err != nil {
			return fmt.Errorf("after Close and Start: %w", err)
		}
	}
	return nil
}
