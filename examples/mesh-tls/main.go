// Mesh-tls lets in only nodes that have a certificate of one authority and know one key, and shows who stays outside.
package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/websocket"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	// In earnest the authority is on a machine of its own, and nodes read files. Docs/OPERATIONS.md has the commands.
	ours, theirs := newAuthority("ours"), newAuthority("theirs")
	key, wrong := random(), random()

	house := node(ours, gravbus.UseMeshKey(key))
	check(house.Start(ctx))
	defer house.Close()
	door := house.Endpoints()[0]

	// The ordinary case: a certificate of the same authority, and the key.
	friend := node(ours, gravbus.UseMeshKey(key))
	defer friend.Close()
	check(friend.ConnectEndpointContext(ctx, door))
	check(house.WaitPeers(ctx, 1))
	check(friend.WaitPeers(ctx, 1))
	fmt.Println("a friend came in, and has proved the key:", friend.Stats().Peers[0].Authenticated)

	// A certificate of somebody else: TLS ends it, before there is anything to say.
	stranger := node(theirs, gravbus.UseMeshKey(key))
	defer stranger.Close()
	err := stranger.ConnectEndpointContext(ctx, door)
	fmt.Println("a stranger's dial failed on the certificate:", errors.As(err, new(*tls.CertificateVerificationError)))

	// A good certificate and a wrong key: the handshake ends it, and both sides know why.
	former := node(ours, gravbus.UseMeshKey(wrong))
	defer former.Close()
	err = former.ConnectEndpointContext(ctx, door)
	fmt.Println("one with an old key was refused:", errors.Is(err, gravbus.ErrUnauthorized))

	// To change the key, all nodes accept both for a while. This one is halfway.
	next := random()
	halfway := node(ours, gravbus.UseMeshKey(next, key))
	defer halfway.Close()
	check(halfway.ConnectEndpointContext(ctx, door))
	fmt.Println("one that has the next key too came in")

	// To listen for everybody has to be meant.
	open := gravbus.New(gravbus.UseTransport(websocket.New(websocket.Config{Addr: ":0"})))
	fmt.Println("a node without any of this did not start:", errors.Is(open.Start(ctx), gravbus.ErrOpenMesh))
}

// node returns a bus that has a certificate of the authority, and asks for one.
func node(a *authority, more ...gravbus.Option) *gravbus.Bus {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	return gravbus.New(append(more,
		gravbus.UseLogger(quiet), // it would tell of those who were refused
		gravbus.UseTransport(websocket.New(websocket.Config{
			Addr: "127.0.0.1:0",
			TLS: &tls.Config{
				Certificates: []tls.Certificate{a.certificate()},
				ClientCAs:    a.pool(), // those who dial, and those who are dialled
				ClientAuth:   tls.RequireAndVerifyClientCert,
				ServerName:   nodeName, // nodes are dialled by address, so all have one name
				MinVersion:   tls.VersionTLS13,
			},
		})),
	)...)
}

func random() []byte {
	key := make([]byte, 32)
	_, err := rand.Read(key)
	check(err)
	return key
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
