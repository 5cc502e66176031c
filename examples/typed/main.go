// Typed sends Go values over a bus, which hands them over as they are: nothing is encoded within a process.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/gravbus/gravbus"
)

type Order struct {
	Item  string
	Count int
}

type Bill struct{ Cents int }

var prices = map[string]int{"tea": 350, "bun": 210}

func main() {
	ctx := context.Background()
	bus := gravbus.New()

	// Handle answers requests: with a value, or with an error.
	err := gravbus.Handle(bus.Connect(), "orders.made", func(_ context.Context, o Order) (Bill, error) {
		price, ok := prices[o.Item]
		if !ok {
			return Bill{}, fmt.Errorf("we have no %s", o.Item)
		}
		return Bill{o.Count * price}, nil
	})
	check(err)

	// On only listens: this pod hears the bills that go over the bus.
	total := 0
	err = gravbus.On(bus.Connect(), "orders.made.reply", func(_ context.Context, b Bill) error {
		total += b.Cents
		return nil
	})
	check(err)

	guest := bus.Connect()
	for _, o := range []Order{{"tea", 2}, {"bun", 3}, {"tiger", 1}} {
		bill, err := gravbus.Request[Bill](ctx, guest, "orders.made", o)
		if refusal := new(gravbus.RemoteError); errors.As(err, &refusal) {
			fmt.Printf("%d %s: sorry, %v\n", o.Count, o.Item, refusal)
			continue
		}
		check(err)
		fmt.Printf("%d %s: %d cents\n", o.Count, o.Item, bill.Cents)
	}

	check(bus.Shutdown(ctx))
	fmt.Println("taken today:", total, "cents")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
