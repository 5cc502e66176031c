// Package peers has the peers, one file each.
package peers

import "github.com/gravbus/gravbus/bench/internal/peer"

// queue is how many messages a receiver may have waiting, where a library lets one choose: what
// gravbus has by default.
const queue = 1024

// All returns the peers in the order of the report: limits, gravbus, then the others by name.
func All() []peer.Peer {
	return []peer.Peer{
		channelPeer, directPeer, ringPeer, rawTCP, rawWSBatched, rawWS,
		gravbusPeer, gravbusNoReplayPeer,
		pubsubPeer,
		eventBusPeer, eventBusAsyncPeer,
		gravPeer,
		hollywoodPeer,
		kelindarPeer,
		mangosInproc, mangosTCP, mangosWS,
		mustafaturanPeer,
		natsInProcess, natsTCP, natsCluster,
		tailscalePeer,
		watermillPeer, watermillAckPeer,
	}
}
