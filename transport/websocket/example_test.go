package websocket_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/gravbus/gravbus/transport"
	"github.com/gravbus/gravbus/transport/websocket"
)

// Nodes connect beside the other routes of a server.
func ExampleTransport_Handler() {
	t := websocket.New(websocket.Config{Mounted: true})
	mux := http.NewServeMux()
	mux.Handle("/bus", t.Handler())
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	server := httptest.NewServer(mux)
	defer server.Close()

	ctx := context.Background()
	l, err := t.Listen(ctx, transport.ListenOptions{}) // the bus does this in Start
	if err != nil {
		panic(err)
	}
	defer l.Close()
	there, err := t.Dial(ctx, strings.TrimPrefix(server.URL, "http://")+"/bus") // and this for each peer
	if err != nil {
		panic(err)
	}
	defer there.Close()
	here, err := l.Accept()
	if err != nil {
		panic(err)
	}
	defer here.Close()

	if err := there.WriteFrame([]byte("a frame")); err != nil {
		panic(err)
	}
	frame, err := here.ReadFrame(nil)
	fmt.Println(string(frame), err)
	// Output: a frame <nil>
}
