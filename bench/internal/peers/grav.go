package peers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/suborbital/grav/grav"

	"github.com/gravbus/gravbus/bench/internal/peer"
)

var gravPeer = peer.Peer{
	ID:     "grav",
	Name:   "Grav",
	Module: "github.com/suborbital/grav",
	Kind:   peer.Async,
	Note:   "a pod per subscription, with a lock since a pod calls its function from several goroutines at once; two goroutines per message and pod, whether the pod wants it or not, without a bound; order is not kept; a reply that comes before the wait for it is lost, and a wait that times out and a disconnect may hang; it cannot be stopped.",

	Local: func() (peer.Bus, error) { return &gravBus{bus: grav.New()}, nil },
}

type gravBus struct {
	bus *grav.Grav

	mu     sync.Mutex
	askers []*grav.Pod // guarded by mu: pods for requests that are not in use; a pod can wait for one reply at a time
}

func (b *gravBus) Subscribe(topic string, fn func([]byte)) (peer.Subscription, error) {
	pod := b.bus.Connect()
	var calling sync.Mutex
	pod.OnType(topic, func(msg grav.Message) error {
		calling.Lock()
		defer calling.Unlock()
		fn(msg.Data())
		return nil
	})
	return gravSub{pod}, nil
}

type gravSub struct{ pod *grav.Pod }

func (s gravSub) Cancel() error {
	s.pod.Disconnect()
	return nil
}

func (b *gravBus) Publisher(topic string) (peer.Publisher, error) {
	return gravPublisher{topic: topic, pod: b.bus.Connect()}, nil
}

// Close does what there is: it closes connections to other nodes. The bus and its pods have no end.
func (b *gravBus) Close() error { return b.bus.Stop() }

type gravPublisher struct {
	topic string
	pod   *grav.Pod
}

func (p gravPublisher) Message(data []byte) any { return grav.NewMsg(p.topic, data) }

func (p gravPublisher) Publish(msg any) error {
	if p.pod.Send(msg.(grav.Message)) == nil {
		return errors.New("grav: the pod is disconnected")
	}
	return nil
}

func (gravPublisher) Flush() error { return nil }

func (b *gravBus) Respond(topic string, fn func([]byte) []byte) error {
	pod, answer := b.bus.Connect(), topic+".answer"
	pod.OnType(topic, func(msg grav.Message) error {
		pod.ReplyTo(msg, grav.NewMsg(answer, fn(msg.Data())))
		return nil
	})
	return nil
}

func (b *gravBus) Request(ctx context.Context, topic string, data []byte) (reply []byte, err error) {
	pod := b.asker()
	// grav.Timeout counts in seconds and leaves a goroutine until they have passed.
	ended := make(chan time.Time, 1)
	stop := context.AfterFunc(ctx, func() { ended <- time.Now() })
	defer stop()
	timeout := func() chan time.Time { return ended }
	err = pod.Send(grav.NewMsg(topic, data)).WaitUntil(timeout, func(msg grav.Message) error {
		reply = msg.Data()
		return nil
	})
	if err != nil {
		pod.Disconnect() // a late reply may still hold it
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.askers = append(b.askers, pod)
	return reply, nil
}

// asker returns a pod for one request.
func (b *gravBus) asker() *grav.Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.askers); n > 0 {
		pod := b.askers[n-1]
		b.askers = b.askers[:n-1]
		return pod
	}
	return b.bus.Connect()
}
