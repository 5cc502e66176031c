// Request-reply asks questions on a bus: to one pod, to several, and to nobody.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/gravbus/gravbus"
)

func main() {
	bus := gravbus.New()
	defer bus.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	// Three shops answer the same question, each in its own way.
	for shop, price := range map[string]string{"corner shop": "3.50", "market": "2.80", "station": "4.20"} {
		pod := bus.Connect(gravbus.Name(shop))
		err := pod.OnType("price.tea", func(question gravbus.Message) error {
			pod.ReplyTo(question, gravbus.NewMsg("price.answer", []byte(price+" at the "+shop)))
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	customer := bus.Connect()

	// Request takes the first answer, whoever gives it.
	answer, err := customer.Request(ctx, gravbus.NewMsg("price.tea", nil))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the first to speak gives a", answer.Type())

	// RequestAll ends when everybody who heard the question has answered.
	var offers []string
	for answer, err := range customer.RequestAll(ctx, gravbus.NewMsg("price.tea", nil)) {
		if err != nil {
			log.Fatal(err) // a *gravbus.MissingError names those who did not answer in time
		}
		offers = append(offers, string(answer.Data()))
	}
	slices.Sort(offers)
	fmt.Println("the cheapest of", len(offers), "is", offers[0])

	// Nobody sells coffee. That is known at once, without waiting for a timeout.
	_, err = customer.Request(ctx, gravbus.NewMsg("price.coffee", nil))
	if errors.Is(err, gravbus.ErrNoResponders) {
		fmt.Println("nobody sells coffee")
	}
}
