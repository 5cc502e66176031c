// Mesh-request asks questions across a mesh of three nodes: one pod, all pods, a group, and nobody.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/discovery/static"
	"github.com/gravbus/gravbus/transport/websocket"
)

type Order struct{ Item string }

type Price struct{ Cents int }

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	// The home knows the market only, and hears of the station from it: one address is enough for all.
	market := start(ctx)
	station := start(ctx, market.Endpoints()...)
	home := start(ctx, market.Endpoints()...)
	check(home.WaitPeers(ctx, 2))

	sell(market, "market", 280)
	sell(station, "station", 420)
	check(home.WaitInterest(ctx, "tea.price", 2))
	customer := home.Connect()

	// RequestAll ends when everybody who got the question, on whatever node, has answered or gone.
	var offers []int
	for answer, err := range customer.RequestAll(ctx, gravbus.NewTyped("tea.price", Order{"tea"})) {
		check(err) // a *gravbus.MissingError names those who have not
		price, err := gravbus.Decode[Price](answer)
		check(err)
		offers = append(offers, price.Cents)
	}
	fmt.Println("the cheapest of", len(offers), "offers is", slices.Min(offers))

	// Of a group one member gets each message. There is none on this node, so those at the shops take turns.
	check(home.WaitInterest(ctx, "tea.buy", 2))
	bills := map[string]int{}
	for range 4 {
		shop, err := gravbus.Request[string](ctx, customer, "tea.buy", Order{"tea"})
		check(err)
		bills[shop]++
	}
	fmt.Println("bought", bills["market"], "at the market and", bills["station"], "at the station")

	// That nobody on any node wants a type is known here, so there is nothing to wait for.
	_, err := customer.Request(ctx, gravbus.NewMsg("coffee.price", nil))
	fmt.Println("nobody sells coffee:", errors.Is(err, gravbus.ErrNoResponders))

	for _, node := range []*gravbus.Bus{home, station, market} {
		check(node.Shutdown(ctx))
	}
}

// sell connects a shop's pods to its node.
func sell(node *gravbus.Bus, shop string, cents int) {
	check(gravbus.Handle(node.Connect(gravbus.Name(shop)), "tea.price", func(context.Context, Order) (Price, error) {
		return Price{cents}, nil
	}))
	till := node.Connect(gravbus.Name(shop+" till"), gravbus.InGroup("tills"))
	check(gravbus.Handle(till, "tea.buy", func(context.Context, Order) (string, error) {
		return shop, nil
	}))
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
