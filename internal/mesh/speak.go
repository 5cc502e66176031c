package mesh

// directSize bounds the packet that a sender writes itself.
const directSize = 8 << 10

// Speak is Wake by a sender that has just made the reader have something to claim, for this peer
// only. If the link has nothing else to do the sender writes the packet itself, in the place of the
// goroutine that writes: to wake that one takes longer than to write a small packet, twice in every
// request.
//
// Invariant: a sender that writes does not wait for the peer. What is under way to the peer and not
// acknowledged is nothing of the stream, and the packet is small; a transport has room for 64 KiB of
// frames that nobody has read, see transport.Conn.
func (l *Link[T]) Speak() {
	l.ready.Store(true)
	if c := l.writes.Load(); c != nil {
		select {
		case <-c.pen:
			done := c.speak()
			c.pen <- struct{}{}
			if done {
				return
			}
		default:
		}
	}
	l.signal()
}

// speak writes one packet. It returns false if the goroutine that writes has to look around. The
// caller has the pen.
func (c *conn[T]) speak() bool {
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
	c.buf = c.buf[:0]
	c.appendControl()
	c.appendStream(directSize)
	if len(c.buf) > 0 {
		if err := c.c.WriteFrame(c.buf); err != nil {
			c.writeErr = err
			return false
		}
		l.count.bytesOut.Add(uint64(len(c.buf)))
	}
	return len(l.hand)+len(l.inject) == 0 && !l.ready.Load()
}

// simple reports whether there is nothing to say but an acknowledgement and answers to pings.
func (k *control) simple() bool {
	return k.full == nil && len(k.dirty)+len(k.peers)+len(k.replays) == 0 && k.asked == len(k.asks) && !k.withdraw && !k.bye
}
