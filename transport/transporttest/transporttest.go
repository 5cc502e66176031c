// Package transporttest checks that a transport keeps the rules that stand in package transport.
//
//	func TestConformance(t *testing.T) {
//		transporttest.Run(t, func(t *testing.T) transporttest.Harness {
//			return transporttest.Harness{Listener: quic.New(local), Dialler: quic.New(local)}
//		})
//	}
//
// Each case is a test of its own, whose comment in the source tells the rule. Run it under -race, as
// some rules are about memory, and not in parallel with other tests: after each case no goroutine may
// be left that was not there before.
package transporttest

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus/transport"
)

// A Harness is what one case works with. Listener and Dialler are required. The others tell of what
// the suite cannot bring about by itself; where they are missing the cases that need them are
// skipped.
type Harness struct {
	// Listener is to listen at an address that nobody else uses, of this machine. If the address
	// has a port the suite may give ListenOptions.Port, to listen there once more.
	Listener transport.Transport

	// Dialler can reach what Listener listens at. It may be the same.
	Dialler transport.Transport

	// Silence lets nothing pass any more between the two, in either direction, without either side
	// being told, as when a cable is pulled.
	Silence func()

	// Drip makes what is sent from now on pass in parts of so many bytes, one at each interval, in
	// each direction. It is for transports under which single bytes pass.
	Drip func(part int, interval time.Duration)

	// Unanswered is an endpoint at which Dial gets no answer, neither yes nor no.
	Unanswered string

	// Invalid are endpoints that are not valid, beside those that no transport understands.
	Invalid []string

	// DialRaw connects to an endpoint of Listener below the transport, to send it what it does not
	// expect.
	DialRaw func(endpoint string) (io.ReadWriteCloser, error)
}

// Run checks a transport in real time. It calls harness for each case anew.
func Run(t *testing.T, harness func(t *testing.T) Harness) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { run(t, harness, c.check, false) })
	}
}

// RunInBubbles checks a transport, each case in a testing/synctest bubble of its own, in which
// harness is called too. This is faster and more exact, but only for a transport all of whose waits
// are durable in the sense of that package; sockets are not.
func RunInBubbles(t *testing.T, harness func(t *testing.T) Harness) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { run(t, harness, c.check, true) })
		})
	}
}

var cases = []struct {
	name  string
	check func(*test)
}{
	{"Order", order},
	{"Sizes", sizes},
	{"ReadFrameAppends", readFrameAppends},
	{"FrameBelongsToReader", frameBelongsToReader},
	{"WriteFrameKeepsNothing", writeFrameKeepsNothing},
	{"WriteFrameChangesNothing", writeFrameChangesNothing},
	{"ConcurrentUse", concurrentUse},

	{"ReadLimitDefault", readLimitDefault},
	{"ReadLimitSet", readLimitSet},
	{"ReadLimitSavesMemory", readLimitSavesMemory},
	{"Backpressure", backpressure},
	{"ReadDeadline", readDeadline},
	{"WriteDeadline", writeDeadline},
	{"DeadlineTakenBack", deadlineTakenBack},
	{"ReadIdle", readIdle},
	{"IdleInCallsOnly", idleInCallsOnly},
	{"IdleTakenBack", idleTakenBack},
	{"IdleBesideDeadline", idleBesideDeadline},
	{"IdleWhileBytesCome", idleWhileBytesCome},
	{"Parts", parts},

	{"CloseWakes", closeWakes},
	{"CloseTwice", closeTwice},
	{"CloseByOtherSide", closeByOtherSide},
	{"CloseByOtherSideFreesWriter", closeByOtherSideFreesWriter},
	{"ShutdownDelivers", shutdownDelivers},
	{"ShutdownDeliversWithUnread", shutdownDeliversWithUnread},
	{"ShutdownReadsOn", shutdownReadsOn},
	{"ShutdownByBoth", shutdownByBoth},
	{"ShutdownEndsWithContext", shutdownEndsWithContext},
	{"ShutdownEndsWithClose", shutdownEndsWithClose},

	{"AcceptEnds", acceptEnds},
	{"AddressInUse", addressInUse},
	{"ListenAgain", listenAgain},
	{"ListenContext", listenContext},
	{"AcceptedOutliveListener", acceptedOutliveListener},
	{"PendingCloseWithListener", pendingCloseWithListener},
	{"CloseWhileDialling", closeWhileDialling},
	{"EndpointsAreDialable", endpointsAreDialable},

	{"DialNobody", dialNobody},
	{"DialInvalid", dialInvalid},
	{"DialContextBefore", dialContextBefore},
	{"DialContextDuring", dialContextDuring},
	{"DialContextAfter", dialContextAfter},
	{"Info", info},
	{"ManyAtOnce", manyAtOnce},
	{"Strangers", strangers},
	{"HalfOpen", halfOpen},
}
