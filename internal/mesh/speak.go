package mesh

import (
	"errors"
	"time"

	"github.com/gravbus/gravbus/internal/wire"
)

// directSize bounds the packet that a sender writes itself, and directRoom how much the peer may then
// not have read yet, this packet included.
const (
	directSize = 8 << 10
	directRoom = 32 << 10
)

// penTime is how long a sender may have the pen when the goroutine that writes wants it back.
const penTime = time.Second

// errPen is why a connection ends whose packet was not completed.
var errPen = errors.New("mesh: a sender has not come to the end of a packet")

// Speak is Wake by a sender that has just made the reader have something to claim, for this peer
// only. If the link has nothing else to do the sender writes the packet itself, in the place of the
// goroutine that writes: to wake that one takes longer than to write a small packet, twice in every
// request.
//
// Invariant: a sender that writes does not wait for the peer. The peer has read all but directRoom of
// what was written, and a transport has room for 64 KiB of frames that nobody has read, see
// transport.Conn. An acknowledgement is no proof that the peer reads, for its number is easily
// guessed; a pong is, see conn.unread. Should a transport have less room, the connection is ended
// when the goroutine that writes has been waiting for the pen for penTime.
func (l *Link[T]) Speak() {
	l.ready.Store(true)
	if c := l.writes.Load(); c != nil {
		select {
		case <-c.pen:
			if c.speak() {
				return
			}
		default:
		}
	}
	l.signal()
}

// speak writes one packet and puts the pen back. It returns false if the goroutine that writes has to
// look around. The caller has the pen.
func (c *conn[T]) speak() (done bool) {
	l := c.link
	ended := false
	defer func() {
		if !ended { // a panic below: nobody knows how much of the packet there is
			c.writeErr = errPen
			l.signal()
		}
		c.pen <- struct{}{}
	}()
	done = c.speakNow()
	ended = true
	return done
}

func (c *conn[T]) speakNow() bool {
	l := c.link
	select {
	case <-c.stop:
		return false
	default:
	}
	if c.writeErr != nil || len(l.hand)+len(l.inject)+len(l.answers)+len(l.aside) > 0 {
		return false
	}
	l.mu.Lock()
	simple := l.state == Ready && l.conn == c && l.unackedLocked() == 0 && len(l.pending) == 0 && l.control.simple()
	l.mu.Unlock()
	if !simple {
		return false
	}
	unread, answered := c.unread()
	if unread > directRoom-directSize {
		c.ask = c.ask || answered
		return false
	}
	c.buf = c.buf[:0]
	if unread > directRoom/3 && answered {
		c.appendPing(time.Now())
	}
	c.appendControl()
	c.appendStream(directSize)
	if len(c.buf) > 0 {
		if err := c.c.WriteFrame(c.buf); err != nil {
			c.writeErr = err
			return false
		}
		c.wrote()
	}
	return len(l.hand)+len(l.inject) == 0 && !l.ready.Load()
}

// unread returns how much of what was written the peer may not have read, and whether it has answered
// the last ping.
func (c *conn[T]) unread() (n uint64, answered bool) {
	if answered = c.ponged.Load() == c.token; answered {
		c.taken = c.before
	}
	return c.written - c.taken, answered
}

// wantPen takes the pen from a sender that has it. One that does not give it back is stuck in a write,
// which ends with the connection.
func (c *conn[T]) wantPen() {
	t := time.NewTimer(penTime)
	defer t.Stop()
	select {
	case <-c.pen:
	case <-t.C:
		c.fail(cut(wire.CodeSilent, "it does not read"))
		<-c.pen
	}
}

// simple reports whether there is nothing to say but an acknowledgement and answers to pings.
func (k *control) simple() bool {
	return k.full == nil && len(k.dirty)+len(k.peers)+len(k.replays) == 0 && !k.mayAsk() && !k.withdraw && !k.bye
}
