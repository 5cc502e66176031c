package gravbus

import (
	"time"

	"github.com/gravbus/gravbus/internal/mailbox"
	"github.com/sirupsen/logrus"
)

// Defaults of a pod.
const (
	DefaultMailbox     = 1024        // messages
	DefaultMailboxCap  = 65536       // messages
	DefaultStallLimit  = time.Second // without a finished message; of pods, and of links
	DefaultMaxFailures = 64          // failed messages kept, as in Grav
	DefaultMaxRetries  = 64          // redeliveries of one message
)

// An Option configures a Bus. Those with a zero or negative value fall back to the default that is
// named with them.
type Option func(*busConfig)

type busConfig struct {
	log         logrus.FieldLogger
	maxSize     int
	replay      int
	replayOpts  []BufferOption
	podDefaults []PodOption
	mesh        meshConfig
}

// UseLogger makes the bus log to l instead of logrus's standard logger. It logs little, and nothing
// for each message: a panic in a handler (error), a pod that is disconnected because of its failures
// (error), a pod that has stalled (warning). A node of a mesh also logs a peer that is connected or
// has gone (information), one that lost its connection, has stalled, or has gone with messages under
// way, and a connection that was refused (warnings), and what the mesh and its discoveries have to
// tell. docs/OPERATIONS.md has all lines.
func UseLogger(l logrus.FieldLogger) Option {
	return func(c *busConfig) {
		if l != nil {
			c.log = l
		}
	}
}

// UseReplay makes the bus keep n messages for replay instead of DefaultReplay; n of zero or less
// turns replay off.
func UseReplay(n int, bounds ...BufferOption) Option {
	return func(c *busConfig) { c.replay, c.replayOpts = n, bounds }
}

// UseMaxMessageSize makes the bus refuse messages with more than n bytes of data with
// ErrMessageTooLarge; n of zero or less, the default, means any size. With a limit typed payloads
// are encoded when they are sent, to know their size.
//
// It is also what the node takes from its peers, and tells them: by default that is
// DefaultMaxMessageSize. A message that is larger than a peer takes goes to everybody else, and is told by
// EventRefused.
func UseMaxMessageSize(n int) Option {
	return func(c *busConfig) { c.maxSize = max(n, 0) }
}

// UsePodDefaults makes the bus apply these options to every pod, before those given to Connect.
func UsePodDefaults(opts ...PodOption) Option {
	return func(c *busConfig) { c.podDefaults = append(c.podDefaults, opts...) }
}

// A PodOption configures a Pod. Those with a zero or negative value fall back to the default that
// is named with them.
type PodOption func(*podConfig)

type podConfig struct {
	mail        mailbox.Config
	name        string
	group       string
	maxFailures int
	maxRetries  int
	replay      *replayConfig
	peer        *peer // that the pod stands for; of hidden pods only
}

type replayConfig struct {
	last  int // 0: all
	since time.Time
	after string
	types []string
}

// An OverflowPolicy says what happens when a message comes for a pod whose mailbox is full, or for a
// peer whose link is (UseLinkOverflow). Whatever is dropped is counted in Stats, and told: to a pod
// by a Lagged notice, of a link by EventPeerGap on both nodes.
type OverflowPolicy uint8

const (
	// Backpressure is the default: the sender waits until there is room. It ends when the pod
	// finishes nothing for its stall limit: then its oldest messages give way, and it holds up
	// nobody until it has caught up. It ends too when pods would wait for each other in a circle:
	// then the mailbox grows past its bound, up to its cap.
	Backpressure OverflowPolicy = iota
	// Block is as Backpressure, but without a stall limit. Only the context of SendContext ends the
	// wait.
	Block
	// DropOldest lets the oldest message give way.
	DropOldest
	// DropNewest drops the new message.
	DropNewest
	// Fail drops the new message, and SendContext returns an *UndeliveredError that is
	// ErrMailboxFull.
	Fail
)

// Name names the pod in errors, events, logs and Stats; otherwise it is "pod-" and its number.
func Name(name string) PodOption { return func(c *podConfig) { c.name = name } }

// Mailbox bounds how many messages may wait for the pod, DefaultMailbox unless n is positive. What
// the pod has taken in hand, up to a quarter more, does not count.
func Mailbox(n int) PodOption {
	return func(c *podConfig) { c.mail.Bound = positive(n, DefaultMailbox) }
}

// MailboxCap bounds how far the mailbox may grow when pods send to each other in a circle,
// DefaultMailboxCap unless n is positive, and at least the mailbox's bound. Past it the oldest
// messages give way.
func MailboxCap(n int) PodOption {
	return func(c *podConfig) { c.mail.Cap = positive(n, DefaultMailboxCap) }
}

// Overflow says what happens when the mailbox is full.
func Overflow(o OverflowPolicy) PodOption {
	return func(c *podConfig) {
		if o <= Fail {
			c.mail.Policy = mailbox.Policy(o)
		}
	}
}

// StallLimit is how long the pod may finish nothing, while somebody waits to send to it, before its
// oldest messages give way; DefaultStallLimit unless d is positive. A handler that itself waits in
// a Send by its own pod is not standing still; one that waits for anything else is, such as the
// reply to a Request, or a Send by another pod that comes to a moment between two waits.
func StallLimit(d time.Duration) PodOption {
	return func(c *podConfig) { c.mail.Stall = positive(d, DefaultStallLimit) }
}

// Concurrency lets n of the pod's handler calls run at a time, 1 unless n is positive. Messages are
// taken in order, one for each call; calls that run at the same time have no order among them.
func Concurrency(n int) PodOption {
	return func(c *podConfig) { c.mail.Width = positive(n, 1) }
}

// InGroup makes the pod one of the group's competing members: each message that members want goes
// to exactly one of those. Messages wait in one mailbox for all, which is configured by the member
// that came first; its stall limit is that of the one who has been there longest. An empty name means no group. Members do not replay. A group has members at other
// nodes too.
func InGroup(name string) PodOption { return func(c *podConfig) { c.group = name } }

// Observer makes the pod one that only watches, such as a log: requests do not count it among those
// who could answer, so that it does not hide ErrNoResponders, nor does RequestAll wait for it. In a
// group it has no effect.
func Observer() PodOption { return func(c *podConfig) { c.mail.Extra = true } }

// MaxFailures is how many failed messages are kept before the pod is disconnected,
// DefaultMaxFailures unless n is positive.
func MaxFailures(n int) PodOption {
	return func(c *podConfig) { c.maxFailures = positive(n, DefaultMaxFailures) }
}

// MaxRetries is how often a failed message is redelivered before it becomes a dead letter,
// DefaultMaxRetries unless n is positive.
func MaxRetries(n int) PodOption {
	return func(c *podConfig) { c.maxRetries = positive(n, DefaultMaxRetries) }
}

// Replay makes the pod receive recent messages, oldest first, as soon as it sets its handler, and
// live ones after them: none is missing between and none comes twice. The Replay… options narrow
// down which; several of them narrow further.
func Replay() PodOption { return func(c *podConfig) { c.replaying() } }

// ReplayLast replays the last n messages that the pod wants; all unless n is positive.
func ReplayLast(n int) PodOption { return func(c *podConfig) { c.replaying().last = max(n, 0) } }

// ReplaySince replays messages with a Timestamp of t or later.
func ReplaySince(t time.Time) PodOption { return func(c *podConfig) { c.replaying().since = t } }

// ReplayAfter replays what was sent after the message with the given UUID, or everything if that is
// not in the buffer any more.
func ReplayAfter(uuid string) PodOption { return func(c *podConfig) { c.replaying().after = uuid } }

// ReplayTypes replays only messages of types that match one of the patterns. If one is invalid,
// setting the handler returns the error.
func ReplayTypes(patterns ...string) PodOption {
	return func(c *podConfig) { c.replaying().types = patterns }
}

func (c *podConfig) replaying() *replayConfig {
	if c.replay == nil {
		c.replay = new(replayConfig)
	} else {
		r := *c.replay // options may be shared by pods
		c.replay = &r
	}
	return c.replay
}

func positive[N int | time.Duration](n, otherwise N) N {
	if n > 0 {
		return n
	}
	return otherwise
}

func defaultPodConfig() podConfig {
	return podConfig{
		mail:        mailbox.Config{Bound: DefaultMailbox, Cap: DefaultMailboxCap, Stall: DefaultStallLimit, Width: 1},
		maxFailures: DefaultMaxFailures,
		maxRetries:  DefaultMaxRetries,
	}
}

func (c *podConfig) apply(opts []PodOption) {
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	c.mail.Cap = max(c.mail.Cap, c.mail.Bound)
	if c.mail.Policy != mailbox.Wait {
		c.mail.Stall = 0
	}
}
