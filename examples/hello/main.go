// Hello connects two pods to a bus: one speaks, the other listens.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/gravbus/gravbus"
)

func main() {
	bus := gravbus.New()

	// A pod says what it wants by type. In a pattern * stands for one token.
	ear := bus.Connect()
	err := ear.OnType("greeting.*", func(msg gravbus.Message) error {
		fmt.Printf("%s: %s\n", msg.Type(), msg.Data())
		return nil
	})
	if err != nil {
		log.Fatal(err) // the pattern is not valid
	}

	// Send hands the message over and goes on; the handler runs beside it.
	mouth := bus.Connect()
	mouth.Send(gravbus.NewMsg("greeting.morning", []byte("hello, world")))
	mouth.Send(gravbus.NewMsg("weather.today", []byte("rain"))) // nobody wants to know
	mouth.Send(gravbus.NewMsg("greeting.night", []byte("sleep well, world")))

	// Shutdown waits until all that was sent is handled.
	if err := bus.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}
