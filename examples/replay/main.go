// Replay lets a pod that comes late hear what it has missed, and then go on live.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/gravbus/gravbus"
)

func main() {
	// The bus keeps the last messages. How many is up to you: 1024 if you say nothing.
	bus := gravbus.New(gravbus.UseReplay(100))

	match := bus.Connect()
	score := func(s string) { match.Send(gravbus.NewMsg("match.score", []byte(s))) }
	score("0:0")
	score("1:0")
	match.Send(gravbus.NewMsg("match.weather", []byte("it begins to rain")))
	score("1:1")

	// Two come late. What each of them hears is kept in order, without gap or double, even while others send.
	var everything, lastScore []string
	listen(bus.ConnectWithReplay(), "match.>", &everything)
	listen(bus.Connect(gravbus.ReplayLast(1)), "match.score", &lastScore)

	score("2:1")

	if err := bus.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("who wants everything:    ", everything)
	fmt.Println("who wants the last score:", lastScore)

	// The buffer can be read without a pod, too.
	fmt.Println("kept for the next:       ", bus.Buffer().Len(), "messages")
}

// listen notes what comes. Replay begins when the handler is set.
func listen(pod *gravbus.Pod, pattern string, heard *[]string) {
	err := pod.OnType(pattern, func(msg gravbus.Message) error {
		*heard = append(*heard, string(msg.Data()))
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
