package run

import (
	"context"
	"errors"

	"github.com/gravbus/gravbus/bench/internal/peer"
	"github.com/gravbus/gravbus/bench/internal/result"
)

// A Workload is one thing that is measured of each peer, with one figure or several.
type Workload struct {
	ID    string // for the command line
	Group string // result.GroupLocal or result.GroupRemote
	About string // one sentence

	figures []figure
	run     func(ctx context.Context, p peer.Peer, j job) (result.Sample, error)
}

type figure struct{ id, name, unit string }

// Rows returns the rows of the report that the workload gives.
func (w Workload) Rows() []result.Row {
	rows := make([]result.Row, len(w.figures))
	for i, f := range w.figures {
		rows[i] = result.Row{
			ID: w.ID + "." + f.id, Workload: w.ID, Figure: f.id, Group: w.Group, Name: f.name, Unit: f.unit, About: w.About,
		}
	}
	return rows
}

// weight is how long a measurement takes, roughly and beside the shortest ones.
func (w Workload) weight() int {
	switch {
	case w.ID == "net-latency":
		return 5
	case w.Group == result.GroupRemote:
		return 2
	}
	return 1
}

// A skip is the error of a workload that the peer has no means for.
type skip string

func (s skip) Error() string { return string(s) }

const (
	skipLocal    skip = "not for use in one process"
	skipRemote   skip = "not for use between processes"
	skipRequests skip = "has no requests"
)

// lacks says, without starting p, that it has no means for w; else it returns "".
func (w Workload) lacks(p peer.Peer) skip {
	switch {
	case w.Group == result.GroupLocal && p.Local == nil:
		return skipLocal
	case w.Group == result.GroupRemote && p.Remote == nil:
		return skipRemote
	}
	return ""
}

// asSkip makes err a skip if the library lacks what was asked of it.
func asSkip(err error) error {
	if errors.Is(err, peer.ErrUnsupported) {
		return skip(err.Error())
	}
	return err
}

func one(name string) []figure { return []figure{{"ns", name, "ns"}} }

func requestFigures() []figure {
	return []figure{
		{"p50", "request, p50", "ns"},
		{"p99", "request, p99", "ns"},
		{"p99.9", "request, p99.9", "ns"},
		{"mean", "request, mean", "ns"},
	}
}

// Workloads returns all, in the order of the report.
func Workloads() []Workload {
	const local, remote = result.GroupLocal, result.GroupRemote
	const perRequest = "128 bytes there and back, one request after the other"
	return []Workload{
		{
			"1-1", local, "A message of 128 bytes made beforehand, one sender, one subscription: time per delivery.",
			one("1 → 1"), fanOut{senders: 1, subscriptions: 1}.run,
		},
		{
			"1-1-new", local, "As 1 → 1, but the library's message is made for each publishing, out of 128 bytes.",
			one("1 → 1, new message"), fanOut{senders: 1, subscriptions: 1, fresh: true}.run,
		},
		{
			"1-10", local, "As 1 → 1, with 10 subscriptions that all get each message: time per delivery.",
			one("1 → 10"), fanOut{senders: 1, subscriptions: 10}.run,
		},
		{
			"1-100", local, "As 1 → 10, with 100 subscriptions.",
			one("1 → 100"), fanOut{senders: 1, subscriptions: 100}.run,
		},
		{
			"1-1000", local, "As 1 → 10, with 1,000 subscriptions.",
			one("1 → 1,000"), fanOut{senders: 1, subscriptions: 1000}.run,
		},
		{
			"4-4", local, "Four senders at once to one topic, of which each of four subscriptions gets everything: time per delivery.",
			one("4 → 4"), fanOut{senders: 4, subscriptions: 4}.run,
		},
		{
			"selective", local, "As 1 → 1, on a bus with 999 other topics that have a subscription each.",
			one("1 topic of 1,000"), fanOut{senders: 1, subscriptions: 1, others: 999}.run,
		},
		{
			"request", local, "A request and its reply, " + perRequest + ". The figures include one reading of the clock.",
			requestFigures(), localRequests(1),
		},
		{
			"request-64", local, "The same by 64 goroutines at once: the whole time divided by the number of requests.",
			one("request, 64 at once"), localRequests(64),
		},
		{
			"idle", local, "What each of 10,000 subscriptions to as many topics of one bus costs while nothing happens (of fewer where making them takes too long).",
			[]figure{{"bytes", "idle, memory", "B"}, {"goroutines", "idle, goroutines", "goroutines"}},
			idle,
		},
		{
			"churn", local, "To subscribe and cancel, beside 100 other subscriptions to the topic.",
			one("subscribe + cancel"), churn,
		},
		{
			"net-128", remote, "Messages of 128 bytes, made for each publishing, to one subscription in another process: time per message.",
			one("128 B"), farFan{nodes: 1, size: small}.run,
		},
		{"net-1k", remote, "The same with 1 KiB.", one("1 KiB"), farFan{nodes: 1, size: 1 << 10}.run},
		{"net-16k", remote, "The same with 16 KiB.", one("16 KiB"), farFan{nodes: 1, size: 16 << 10}.run},
		{
			"net-1-8", remote, "Messages of 128 bytes to 8 nodes in another process, with one subscription each: time per delivery.",
			one("1 → 8 nodes"), farFan{nodes: 8, size: small}.run,
		},
		{
			"net-request", remote, "A request answered by another process, " + perRequest + ".",
			requestFigures(), remoteRequests(1),
		},
		{
			"net-request-64", remote, "The same by 64 goroutines at once: the whole time divided by the number of requests.",
			one("request, 64 at once"), remoteRequests(64),
		},
		{
			"net-latency", remote,
			"Time from when a message of 128 bytes was due to its delivery in another process, with messages due evenly, " +
				"at 10, 50 and 90 % of the rate the peer itself is capable of.",
			latencyFigures(), latency,
		},
	}
}
