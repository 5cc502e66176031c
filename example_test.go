package gravbus_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/transport/memory"
)

// Two pods: one listens to a type, the other sends it.
func Example() {
	bus := gravbus.New()

	greeter := bus.Connect()
	greeter.OnType("greetings.*", func(msg gravbus.Message) error {
		fmt.Printf("%s: %s\n", msg.Type(), msg.Data())
		return nil
	})

	sender := bus.Connect()
	sender.Send(gravbus.NewMsg("greetings.en", []byte("hello")))
	sender.Send(gravbus.NewMsg("greetings.fr", []byte("bonjour")))

	bus.Shutdown(context.Background()) // lets the handlers finish
	// Output:
	// greetings.en: hello
	// greetings.fr: bonjour
}

// Options name a pod and bound what may wait for it.
func ExampleBus_Connect() {
	bus := gravbus.New()
	defer bus.Close()

	thumbnails := bus.Connect(
		gravbus.Name("thumbnails"),
		gravbus.Mailbox(100),
		gravbus.Overflow(gravbus.DropOldest),
		gravbus.Concurrency(4),
	)
	fmt.Println(thumbnails.Name())
	// Output: thumbnails
}

// A request is a message whose sender waits for the first reply.
func ExamplePod_Request() {
	bus := gravbus.New()
	defer bus.Close()

	clock := bus.Connect()
	clock.OnType("time.ask", func(msg gravbus.Message) error {
		clock.ReplyTo(msg, gravbus.NewMsg("time.answer", []byte("half past nine")))
		return nil
	})

	pod, ctx := bus.Connect(), context.Background()
	reply, err := pod.Request(ctx, gravbus.NewMsg("time.ask", nil))
	fmt.Printf("%s %v\n", reply.Data(), err)

	_, err = pod.Request(ctx, gravbus.NewMsg("weather.ask", nil)) // nobody there: no need to wait
	fmt.Println(err)
	// Output:
	// half past nine <nil>
	// gravbus: no pod wants this type of request
}

// RequestAll ends when everybody who got the request has answered.
func ExamplePod_RequestAll() {
	bus := gravbus.New()
	defer bus.Close()

	for _, name := range []string{"ada", "grace", "barbara"} {
		pod := bus.Connect()
		pod.OnType("who", func(msg gravbus.Message) error {
			pod.ReplyTo(msg, gravbus.NewMsg("me", []byte(name)))
			return nil
		})
	}

	var names []string
	for reply, err := range bus.Connect().RequestAll(context.Background(), gravbus.NewMsg("who", nil)) {
		if err != nil {
			fmt.Println(err)
			return
		}
		names = append(names, string(reply.Data()))
	}
	slices.Sort(names)
	fmt.Println(names)
	// Output: [ada barbara grace]
}

// Messages come one after the other in a loop; leaving it is all there is to unsubscribing.
func ExamplePod_Messages() {
	bus := gravbus.New()
	defer bus.Close()

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sensor := bus.Connect()
	go func() { // ends with ctx
		for i := 20; ctx.Err() == nil; i++ {
			sensor.Send(gravbus.NewTyped("temperature.kitchen", i))
		}
	}()

	for msg := range bus.Connect().Messages(ctx, "temperature.*") {
		if degrees, _ := gravbus.Decode[int](msg); degrees > 25 {
			fmt.Println("warm in", msg.Type())
			break
		}
	}
	// Output: warm in temperature.kitchen
}

// A wait function looks at each reply, and keeps waiting while it returns ErrMsgNotWanted.
func ExampleReceipt_WaitUntil() {
	bus := gravbus.New()
	defer bus.Close()

	printer := bus.Connect()
	printer.OnType("print", func(msg gravbus.Message) error {
		for _, state := range []string{"warming up", "printing", "done"} {
			printer.ReplyTo(msg, gravbus.NewMsg("print.state", []byte(state)))
		}
		return nil
	})

	receipt := bus.Connect().Send(gravbus.NewMsg("print", nil))
	err := receipt.WaitUntil(gravbus.Timeout(5), func(state gravbus.Message) error {
		fmt.Printf("%s\n", state.Data())
		if string(state.Data()) != "done" {
			return gravbus.ErrMsgNotWanted
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// warming up
	// printing
	// done
	// <nil>
}

// Payloads can be Go values. In the process they are handed over without being encoded.
func ExampleOn() {
	type Order struct {
		Item   string
		Pieces int
	}
	bus := gravbus.New()

	gravbus.On(bus.Connect(), "orders.created", func(ctx context.Context, o Order) error {
		fmt.Printf("%s: %d × %s\n", gravbus.MessageFrom(ctx).Type(), o.Pieces, o.Item)
		return nil
	})
	bus.Connect().Send(gravbus.NewTyped("orders.created", Order{"teapot", 2}))

	bus.Shutdown(context.Background())
	// Output: orders.created: 2 × teapot
}

// Handle answers requests with what a function returns; Request asks for it.
func ExampleHandle() {
	bus := gravbus.New()
	defer bus.Close()

	gravbus.Handle(bus.Connect(), "math.half", func(_ context.Context, n int) (int, error) {
		if n%2 != 0 {
			return 0, errors.New("it is odd")
		}
		return n / 2, nil
	})

	pod, ctx := bus.Connect(), context.Background()
	fmt.Println(gravbus.Request[int](ctx, pod, "math.half", 84))
	fmt.Println(gravbus.Request[int](ctx, pod, "math.half", 7))
	// Output:
	// 42 <nil>
	// 0 it is odd
}

// Of the pods in a group exactly one gets each message.
func ExampleInGroup() {
	bus := gravbus.New()

	done := make(chan string, 10)
	for range 3 {
		worker := bus.Connect(gravbus.InGroup("workers"))
		worker.OnType("jobs.*", func(job gravbus.Message) error {
			done <- job.Type()
			return nil
		})
	}
	sender := bus.Connect()
	for _, job := range []string{"jobs.wash", "jobs.dry", "jobs.iron"} {
		sender.Send(gravbus.NewMsg(job, nil))
	}

	bus.Shutdown(context.Background())
	close(done)
	var jobs []string
	for job := range done {
		jobs = append(jobs, job)
	}
	slices.Sort(jobs)
	fmt.Println(jobs)
	// Output: [jobs.dry jobs.iron jobs.wash]
}

// A pod that comes late gets what it has missed first, and then what is sent from now on.
func ExampleReplay() {
	bus := gravbus.New()
	sender := bus.Connect()
	for _, line := range []string{"one", "two", "three"} {
		sender.Send(gravbus.NewMsg("log", []byte(line)))
	}

	late := bus.Connect(gravbus.ReplayLast(2))
	late.OnType("log", func(msg gravbus.Message) error {
		fmt.Printf("%s\n", msg.Data())
		return nil
	})
	sender.Send(gravbus.NewMsg("log", []byte("four")))

	bus.Shutdown(context.Background())
	// Output:
	// two
	// three
	// four
}

// A Buffer keeps the latest messages. Those after one that is known can be asked for.
func ExampleBuffer() {
	buffer := gravbus.NewBuffer(3, gravbus.MaxBytes(1<<20))
	var second gravbus.Message
	for i, text := range []string{"a", "b", "c", "d"} {
		msg := gravbus.NewMsg("letters", []byte(text))
		if i == 1 {
			second = msg
		}
		buffer.Push(msg)
	}

	for msg := range buffer.All() {
		fmt.Printf("%s\n", msg.Data())
	}
	newer, found := buffer.After(second.UUID())
	fmt.Println("after b, found:", found)
	for msg := range newer {
		fmt.Printf("%s\n", msg.Data())
	}
	// Output:
	// b
	// c
	// d
	// after b, found: true
	// c
	// d
}

// Two nodes in one process, as tests have them: package memory is a network without sockets. With
// package websocket in its place they are on two machines.
func ExampleUseTransport() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	network := memory.NewNetwork(memory.Config{})
	a := gravbus.New(gravbus.UseTransport(network.Transport("a")))
	defer a.Shutdown(ctx)
	b := gravbus.New(gravbus.UseTransport(network.Transport("b")))
	defer b.Shutdown(ctx)
	if err := a.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := b.ConnectEndpoint("memory:a"); err != nil {
		log.Fatal(err)
	}

	gravbus.Handle(a.Connect(), "greet", func(_ context.Context, name string) (string, error) {
		return "Hello, " + name + "!", nil
	})
	if err := b.WaitInterest(ctx, "greet", 1); err != nil {
		log.Fatal(err)
	}
	fmt.Println(gravbus.Request[string](ctx, b.Connect(), "greet", "moon"))
	// Output: Hello, moon! <nil>
}
