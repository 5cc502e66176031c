// Mesh makes two buses one: what a pod sends on one of them reaches the pods of the other, over a websocket.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport/websocket"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	// Both are in this process here. On two machines each would be told the other's address, or find it by mDNS.
	kitchen := start(ctx)
	table := start(ctx, kitchen.Endpoints()...)

	waiter := table.Connect()
	check(waiter.OnType("dish.*", func(msg gravbus.Message) error {
		fmt.Printf("%s: %s\n", msg.Type(), msg.Data())
		return nil
	}))

	// The kitchen sends what somebody wants. That somebody does travels too, so it waits for that.
	check(kitchen.WaitInterest(ctx, "dish.ready", 1))
	cook := kitchen.Connect()
	for i := range 3 {
		cook.Send(gravbus.NewMsg("dish.ready", fmt.Append(nil, "number ", i+1)))
	}
	cook.Send(gravbus.NewMsg("pots.dirty", nil)) // nobody over there wants to know, so it stays here

	// A node that leaves in order has given all it had to its peers.
	check(kitchen.Shutdown(ctx))
	check(table.Shutdown(ctx))
}

// start starts a node at a free port of this machine.
func start(ctx context.Context, seeds ...string) *gravbus.Bus {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	bus := gravbus.New(
		gravbus.UseTransport(websocket.New(websocket.Config{Addr: "127.0.0.1:0"})),
		gravbus.UseDiscovery(static.New(seeds...)),
		gravbus.UseLogger(quiet), // it would tell of peers that come and go
	)
	check(bus.Start(ctx))
	return bus
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
