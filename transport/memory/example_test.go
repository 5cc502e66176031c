package memory_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/memory"
)

func Example() {
	ctx := context.Background()
	network := memory.NewNetwork(memory.Config{})
	listener, err := network.Transport("moon").Listen(ctx, transport.ListenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	earth, err := network.Transport("earth").Dial(ctx, "memory:moon")
	if err != nil {
		log.Fatal(err)
	}
	defer earth.Close()
	moon, err := listener.Accept()
	if err != nil {
		log.Fatal(err)
	}
	defer moon.Close()

	network.Silence("earth", "moon")
	_ = earth.WriteFrame([]byte("are you there?")) // nobody notices
	network.Heal()
	frame, _ := moon.ReadFrame(nil)
	fmt.Printf("%s\n", frame)

	network.Connections()[0].Stall() // half-open: only a deadline tells
	_ = moon.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err = moon.ReadFrame(nil)
	fmt.Println(errors.Is(err, os.ErrDeadlineExceeded))

	network.Cut("earth", "moon")
	fmt.Println(earth.WriteFrame([]byte("are you there?")))
	// Output:
	// are you there?
	// true
	// memory: connection cut
}
