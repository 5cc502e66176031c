// Custom-discovery lets nodes find each other by a discovery of one's own: a directory that they
// share. In dir.go is all that it takes.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"

	"github.com/gravbus/gravbus/discovery"
)

// A bus gives its discovery these. Here we are the bus, to see what a discovery does.
var (
	tea = discovery.Self{
		UUID:      "7ea00000-0000-4000-8000-000000000000",
		Endpoints: func() []string { return []string{"10.0.0.1:8080"} },
		Log:       slog.Default(),
	}
	bun = discovery.Self{
		UUID:      "b0000000-0000-4000-8000-000000000000",
		Endpoints: func() []string { return []string{"10.0.0.2:8080", "bun.internal:8080"} },
		Log:       slog.Default(),
	}
)

func main() {
	dir, err := os.MkdirTemp("", "nodes")
	check(err)
	defer os.RemoveAll(dir)

	// The first cannot know of the second yet. It is told when it looks again.
	first, teaFinds := start(Dir(dir), tea)
	second, bunFinds := start(Dir(dir), bun)
	fmt.Println("tea finds bun at", await(teaFinds, bun.UUID).Endpoints)
	fmt.Println("bun finds tea at", await(bunFinds, tea.UUID).Endpoints)

	check(first.Close())
	check(second.Close())
	left, err := os.ReadDir(dir)
	check(err)
	fmt.Println("files left:", len(left))
}

// start starts to look, and returns what is found.
func start(d discovery.Discovery, self discovery.Self) (discovery.Session, <-chan discovery.Node) {
	nodes := make(chan discovery.Node, 100)
	session, err := d.Start(context.Background(), self, func(n discovery.Node) {
		select {
		case nodes <- n:
		default: // found must not wait
		}
	})
	check(err)
	return session, nodes
}

func await(nodes <-chan discovery.Node, uuid string) discovery.Node {
	for n := range nodes {
		if n.UUID == uuid {
			return n
		}
	}
	panic("the channel is not closed")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
