// Custom-discovery lets buses find each other by a discovery of one's own: a directory that they
// share. In dir.go is all that it takes.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/websocket"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	dir, err := os.MkdirTemp("", "nodes")
	check(err)
	defer os.RemoveAll(dir)

	// The first cannot know of the second yet. Whoever looks next finds the other.
	tea := start(ctx, dir, "tea")
	bun := start(ctx, dir, "bun")
	check(tea.WaitPeers(ctx, 1))
	check(bun.WaitPeers(ctx, 1))
	fmt.Println("tea has found", tea.Stats().Peers[0].Name)
	fmt.Println("bun has found", bun.Stats().Peers[0].Name)

	check(bun.Shutdown(ctx))
	check(tea.Shutdown(ctx))
	left, err := os.ReadDir(dir)
	check(err)
	fmt.Println("files left:", len(left))
}

func start(ctx context.Context, dir, name string) *gravbus.Bus {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	bus := gravbus.New(
		gravbus.UseTransport(websocket.New(websocket.Config{Addr: "127.0.0.1:0"})),
		gravbus.UseDiscovery(Dir(dir)),
		gravbus.UseNodeName(name),
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
