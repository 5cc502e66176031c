// Package gravbus is an embeddable message bus, within a process and among several.
//
// A Bus routes Messages among lightweight Pods by message type:
//
//	bus := gravbus.New()
//	orders := bus.Connect()
//	orders.OnType("orders.*", func(msg gravbus.Message) error { … })
//	web := bus.Connect()
//	receipt := web.Send(gravbus.NewMsg("orders.created", data))
//	reply, err := receipt.Wait(ctx)
//
// With a transport it is a node of a mesh, in which every node has a link to every other. The same
// methods reach pods on all of them:
//
//	bus := gravbus.New(
//		gravbus.UseTransport(websocket.New(websocket.Config{Addr: ":8080"})),
//		gravbus.UseDiscovery(mdns.New(mdns.Config{})),
//		gravbus.UseMeshKey(key),
//	)
//	err := bus.Start(ctx)
//	defer bus.Shutdown(ctx)
//
// # What is guaranteed
//
//  1. Order. What one pod sends, another receives in that order; redelivered failures are the
//     exception.
//  2. Exactly once, to every pod that listened when Send was called and keeps making progress. On,
//     OnType and FilterType may change what a pod listens to at any time: a message that is wanted
//     before and after comes once.
//  3. No echo. A pod never receives what it sent.
//  4. One handler call at a time per pod, unless it asked for Concurrency. Wait functions and
//     Messages loops run beside the handler.
//  5. Bounded, live, and lossless where that is possible. Every queue has a bound. A full mailbox
//     makes Send wait, inside handlers too, so a pipeline of pods runs at the pace of its slowest
//     and loses nothing. When pods would wait for each other in a circle, the bus sees it and lets
//     the mailbox grow, up to its cap, instead. A pod that finishes nothing for its stall limit
//     while somebody waits for it loses its oldest messages from then on, is told of that in the
//     place where they are missing (MsgTypeLagged), and holds up nobody until it has caught up. At
//     the cap the oldest go too. What is lost is counted and told.
//  6. Handlers cannot hurt the bus. A panic, and runtime.Goexit, counts as an error of the handler.
//     A message that the handler failed on is kept and delivered again when messages begin to
//     succeed; a pod that keeps too many failures is disconnected, and what it held becomes dead
//     letters.
//  7. Waiting never disturbs. The waits do not touch the pod's handler or filters, work from
//     several goroutines at once, and lose no reply that came before they began, within MaxReplies,
//     MaxParkedReplies and MaxUnclaimed. Timeouts are of any duration and on time.
//  8. Replay, then live: no gap, no double, even while others send.
//  9. After Disconnect returned, no handler call of the pod begins or is running; after Shutdown or
//     Close returned, the bus has no goroutine left. (Inside a handler they cannot wait for that
//     handler.)
//  10. No goroutine per message, none per idle pod, none of an idle bus that is in no mesh.
//  11. Messages are immutable once sent, and may be sent again.
//
// # What is guaranteed in a mesh
//
//  1. All of this holds for pods on two nodes. What is sent is kept until the other node has it, and
//     goes on after a cut of the connection: no cut loses or doubles anything. Where messages are
//     lost all the same, since a bound was reached or a node was away for longer than UseResumeFor,
//     both nodes are told how many (EventPeerGap).
//  2. One address of one node is enough to reach all. A message takes one hop and is never passed
//     on. Partitions heal by themselves.
//  3. There is one link between two nodes, also when both dial at once.
//  4. A dead node is noticed within UseDeadAfter, one that closes at once.
//  5. Only what a pod over there wants crosses a link. WaitPeers and WaitInterest tell when others
//     are there and want something. Replay begins with what each node has sent itself.
//  6. A link is a receiver like a pod: bounded, in messages and bytes, with the same policies. A node
//     that goes on, however slowly, paces its senders; one that stands still or is away holds them up
//     for UseLinkStallLimit, once.
//  7. Groups and requests are mesh-wide: a local member first, else one elsewhere. Request fails at
//     once when nobody can answer, or no longer. Tunnel reaches exactly one node.
//  8. Shutdown and Withdraw tell the others, and deliver what was on its way.
//  9. Whoever does not know the mesh key, or does not have the certificate that is asked for, does not
//     get in, and cannot make a node keep more than is bounded.
//
// # What is not promised
//
// Order among different senders: two pods may see the messages of two others in different orders.
// Delivery to pods that connect or set their handler while a Send is in progress: they may get the
// message or not. Survival of the process: nothing is written to disk. That a pod which blocks for
// ever ends: Disconnect and Close wait for handlers that run. That a handler which sends by another
// pod than its own is never taken for one that has stalled: the bus knows it waits, but a moment
// between two waits may be seen as standing still.
//
// In a mesh: what a node that crashes had taken and not handled, which nobody counts. What is sent
// to a node that is given up. Order among messages of different nodes. That two nodes without a link
// hear each other.
//
// The folder docs has all of it in full: GUARANTEES with bounds, exceptions and the tests that show
// them, OPERATIONS for those who run it, WIRE for the protocol.
package gravbus
