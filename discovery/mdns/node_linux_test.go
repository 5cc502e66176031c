package mdns_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gravbus/gravbus/discovery"
	"github.com/gravbus/gravbus/discovery/mdns"
	"github.com/gravbus/gravbus/internal/netlab"
)

func init() { programs["node"] = nodeProgram }

// nodeProgram is a node without a bus. It prints "ready", and "found UUID ENDPOINT …" for each time
// that a node is found. It takes commands: "hurry", "endpoints ENDPOINT …", "servers", which is
// answered by "servers NUMBER", and "close", which is answered by "closed".
func nodeProgram() {
	env := func(name string) string { return os.Getenv("NODE_" + name) }
	var mu sync.Mutex // guards endpoints, and keeps lines whole
	endpoints := strings.Fields(env("ENDPOINTS"))
	before := goleak.IgnoreCurrent()

	session, err := mdns.New(mdns.Config{
		Service:     env("SERVICE"),
		Interfaces:  strings.Fields(env("INTERFACES")),
		DisableIPv4: env("NO4") != "",
		DisableIPv6: env("NO6") != "",
		Interval:    2 * time.Second,
	}).Start(context.Background(), discovery.Self{
		UUID: env("UUID"),
		Mesh: env("MESH"),
		Endpoints: func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(endpoints)
		},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, func(n discovery.Node) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println("found", n.UUID, strings.Join(n.Endpoints, " "))
	})
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch command, args, _ := strings.Cut(in.Text(), " "); command {
		case "hurry":
			session.Hurry()
		case "endpoints":
			mu.Lock()
			endpoints = strings.Fields(args)
			mu.Unlock()
		case "servers":
			buf := make([]byte, 1<<20)
			buf = buf[:runtime.Stack(buf, true)]
			// Each has two goroutines, for IPv4 and IPv6.
			fmt.Println("servers", bytes.Count(buf, []byte("mdns.(*Server).recv("))/2)
		case "close":
			session.Close()
			if err := goleak.Find(before); err != nil {
				fmt.Println("leak", strings.ReplaceAll(err.Error(), "\n", " "))
			}
			fmt.Println("closed")
		}
	}
}

// node is a node that runs on a host.
type node struct {
	*netlab.Proc
	t         *testing.T
	uuid      string
	endpoints []string
}

// uuid returns the UUID of a test's node number n.
func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// startNode starts node number n. The environment may change what it is.
func startNode(t *testing.T, h *netlab.Host, n int, endpoints []string, env ...string) *node {
	t.Helper()
	k := &node{t: t, uuid: uuid(n), endpoints: endpoints}
	env = append([]string{
		programName + "=node",
		"NODE_UUID=" + k.uuid,
		"NODE_MESH=test",
		"NODE_ENDPOINTS=" + strings.Join(endpoints, " "),
	}, env...)
	if h == nil {
		k.Proc = netlab.Alone(t, env, os.Args[0])
	} else {
		k.Proc = h.Start(env, os.Args[0])
	}
	t.Cleanup(func() {
		k.Kill()
		if log := k.Stderr(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic: ") {
			t.Errorf("node %d:\n%s", n, log)
		}
	})
	k.Expect("ready")
	return k
}

// expectNode waits until n is told of other with its present endpoints.
func (n *node) expectNode(other *node) {
	n.t.Helper()
	want := "found " + other.uuid + " " + strings.Join(other.endpoints, " ")
	n.ExpectFunc(want, func(line string) bool { return line == want })
}

// expectNone checks that none of what n was told of up to now is other.
func (n *node) expectNone(others ...string) {
	n.t.Helper()
	for _, line := range n.Lines() {
		for _, other := range others {
			if strings.Contains(line, other) {
				n.t.Errorf("%s was told: %s", n.uuid, line)
			}
		}
	}
}

// move changes the endpoints of a node.
func (n *node) move(endpoints ...string) {
	n.t.Helper()
	n.endpoints = endpoints
	n.Send("endpoints " + strings.Join(endpoints, " "))
	n.Send("hurry")
}

// expectServers waits until the node has so many servers. It looks for changes every few seconds.
func (n *node) expectServers(want int) {
	n.t.Helper()
	var got string
	for deadline := time.Now().Add(netlab.Patience); time.Now().Before(deadline); {
		n.Send("servers")
		if got = n.Expect("servers "); got == fmt.Sprint(want) {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	n.t.Fatalf("it has %s servers, want %d", got, want)
}

// close ends a node in order.
func (n *node) close() {
	n.t.Helper()
	n.Send("close")
	line := n.ExpectFunc("closed or leak", func(line string) bool {
		return line == "closed" || strings.HasPrefix(line, "leak")
	})
	if line != "closed" {
		n.t.Error(line)
	}
}

// expectAll waits until each of the nodes has been told of each other.
func expectAll(nodes ...*node) {
	for _, a := range nodes {
		a.t.Helper()
		missing := make(map[string]bool)
		for _, b := range nodes {
			if a != b {
				missing["found "+b.uuid+" "+strings.Join(b.endpoints, " ")] = true
			}
		}
		a.ExpectFunc(fmt.Sprint(missing), func(line string) bool {
			delete(missing, line)
			return len(missing) == 0
		})
	}
}
