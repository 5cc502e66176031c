package mesh

import (
	"errors"
	"slices"
	"time"

	"github.com/gravbus/gravbus/internal/mesh/handshake"
	"github.com/gravbus/gravbus/internal/wire"
)

// resume tells the peer, in a handshake, where the streams go on.
func (l *Link[T]) resume() wire.Resume {
	l.mu.Lock()
	defer l.mu.Unlock()
	return wire.Resume{Stream: l.node.streamID(l.id, l.epoch), Known: l.inStream, Received: l.received}
}

// attach makes c carry the link from now on, in the place of the connection that did. It returns
// an error if the peer's word on the streams cannot be true, or the link was given up meanwhile.
func (l *Link[T]) attach(c *conn[T], r *handshake.Result) error {
	<-l.turn
	err := l.attachInTurn(c, r)
	l.turn <- struct{}{}
	if err != nil {
		l.mu.Lock()
		over := l.left || l.node.leaving.Load()
		l.mu.Unlock()
		if over {
			l.lose(err) // who wanted to do so meanwhile could not
		}
	}
	return err
}

func (l *Link[T]) attachInTurn(c *conn[T], r *handshake.Result) error {
	peer, theirs := r.Peer, r.PeerResume
	n := l.node
	if n.Find(l.id) != l { // from here on it is not forgotten, see forgetLocked
		return errGivenUp
	}
	l.mu.Lock()
	if l.state != Lost && theirs.Known == l.stream && theirs.Received >= l.next {
		l.mu.Unlock() // before the connection that is there is given up for it
		return protocolError("it says that it has item %d, and %d were sent", theirs.Received, l.next-1)
	}
	l.mu.Unlock()
	for {
		l.mu.Lock()
		old := l.conn
		l.mu.Unlock()
		if old == nil {
			break
		}
		old.fail(cut(wire.CodeReplaced, ""))
		<-old.done
	}

	l.mu.Lock()
	reopen := l.state == Lost
	if reopen {
		l.reopenLocked()
	}
	var err error
	if l.stream != r.Mine.Stream {
		err = errGivenUp
	} else {
		err = l.rewindLocked(c, theirs)
	}
	if err != nil {
		l.mu.Unlock()
		return err
	}
	c.choice = l.choice
	l.peer, l.conn, l.dialled = peer, c, c.dialled
	l.left, l.drained = false, false
	l.met = l.met || meets(c.c.Info(), peer.Endpoints)
	l.attached = n.attached.Add(1)
	l.learnLocked(c.c.Info().Endpoint, peer.Endpoints, nil)
	l.setLocked(Connected)
	l.mu.Unlock()

	if reopen {
		side, r := n.host.Open(l)
		l.side.Store(side)
		l.mu.Lock()
		l.reader = r
		l.mu.Unlock()
	}
	n.interests.syncTo(l)
	if !n.running(func() { c.start() }) {
		l.mu.Lock()
		l.conn = nil
		l.setLocked(Away)
		l.mu.Unlock()
		return ErrClosed
	}
	return nil
}

// errGivenUp is why a connection does not carry a link that its peer's handshake was for.
var errGivenUp = cut(wire.CodeReplaced, "the link was given up during the handshake")

// reopenLocked begins a new stream on a link that was given up.
func (l *Link[T]) reopenLocked() {
	l.stream = l.node.streamID(l.id, l.epoch)
	l.next, l.acked = 1, 0
	l.control = control{}
	l.wanted, l.sync, l.wantSize, l.syncSize = nil, nil, 0, 0
	l.replayed = 0
	if l.missed.Count > 0 {
		l.inject = append(l.inject, outItem[T]{cost: wire.Cost(0), extra: &extra{tag: wire.TagGap, gap: l.missed}})
		l.missed = Gap{}
	}
}

// rewindLocked goes back to where the peer's word says.
func (l *Link[T]) rewindLocked(c *conn[T], theirs wire.Resume) error {
	c.send = l.acked + 1
	if theirs.Known == l.stream {
		if theirs.Received >= l.next {
			return protocolError("it says that it has item %d, and %d were sent", theirs.Received, l.next-1)
		}
		c.send = max(c.send, theirs.Received+1)
	}
	if theirs.Stream == 0 {
		return protocolError("stream 0")
	}
	if theirs.Stream != l.inStream {
		l.inStream, l.fresh = theirs.Stream, true
		l.received, l.delivered, l.ackSaid, l.ackCost = 0, 0, 0, 0
	}
	l.control.ack = true
	l.control.pongs = nil
	l.control.asked = 0
	l.control.byeSent = false
	l.count.resent.Add(l.next - c.send)
	return nil
}

func (l *Link[T]) setLocked(s State) {
	l.state = s
	l.since = time.Now()
}

// learnLocked notes where the peer can be reached: what worked comes first, then what the peer says,
// and what others say comes last.
func (l *Link[T]) learnLocked(worked string, own, hearsay []string) {
	var all []string
	add := func(e string) {
		if e != "" && !slices.Contains(all, e) && len(all) < maxEndpoints {
			all = append(all, e)
		}
	}
	add(worked)
	for _, e := range own {
		add(e)
	}
	for _, e := range l.endpoints {
		add(e)
	}
	for _, e := range hearsay {
		add(e)
	}
	l.endpoints = all
}

// maxEndpoints is how many addresses of one peer are tried.
const maxEndpoints = 32

// detached is called when c has ended.
func (l *Link[T]) detached(c *conn[T]) {
	n := l.node
	l.writes.Store(nil)
	l.mu.Lock()
	if c.choice == l.choice {
		l.deciding = false // it was this one that was chosen
	}
	wasReady := l.state == Ready
	if wasReady && time.Since(l.since) > lastDelay {
		l.delay = 0 // it was a good connection
	} else if wasReady && !wanted(c.err) {
		l.delay = min(l.delay, 2*firstDelay) // it was cut soon: not at once again
	}
	l.conn = nil
	l.setLocked(Away)
	rejected := !wasReady && refusal(c.err) // a Refuse that crossed this side's Use
	l.left = l.left || rejected && l.count.cuts.Load() == 0
	over := l.left || n.leaving.Load()
	said := l.left || l.drained
	l.count.cuts.Add(1)
	l.mu.Unlock()
	switch {
	case rejected:
		n.refused(c.c, c.peer, c.err)
	case over && said: // it said so before it closed
		c.err = &handshake.Error{Code: wire.CodeLeaving, Remote: true, Err: c.err}
	}
	if wasReady {
		n.host.Down(l, c.err)
	}
	close(c.done)
	n.changed()
	if over {
		l.lose(c.err)
		return
	}
	n.hurry()
	n.chase(l, courtesy)
}

// wanted reports whether one of the two nodes wanted a connection to end, for what the other did.
func wanted(err error) bool {
	var e *handshake.Error
	return errors.As(err, &e) && e.Code != wire.CodeSilent && e.Code != wire.CodeReplaced
}

// refusal reports whether err is the other side's word that it does not want this node.
func refusal(err error) bool {
	var e *handshake.Error
	if !errors.As(err, &e) || !e.Remote {
		return false
	}
	switch e.Code {
	case wire.CodeLeaving, wire.CodeReplaced, wire.CodeBusy, wire.CodeSilent:
		return false
	}
	return true
}
