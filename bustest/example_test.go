package bustest_test

import (
	"fmt"

	"github.com/gravbus/gravbus"
	"github.com/gravbus/gravbus/bustest"
)

// Till is the code under test: it takes orders and asks for payment.
type Till struct{ pod *gravbus.Pod }

type Order struct {
	Item  string
	Cents int
}

func NewTill(bus *gravbus.Bus) *Till {
	t := &Till{bus.Connect(gravbus.Name("till"))}
	_ = t.pod.OnType("orders.made", func(order gravbus.Message) error {
		o, err := gravbus.Decode[Order](order)
		if err != nil {
			return err
		}
		if o.Cents > 0 {
			t.pod.ReplyTo(order, gravbus.NewTyped("payments.due", o.Cents))
		}
		return nil
	})
	return t
}

func Example() {
	t := new(printingT) // in a test of yours its *testing.T
	defer t.End()

	bus := bustest.New(t)
	payments := bustest.Record(t, bus, "payments.>")
	NewTill(bus)

	order := bus.Connect().Send(gravbus.NewTyped("orders.made", Order{"tea", 350}))

	bustest.ExpectExactly(t, payments,
		bustest.All(bustest.Type("payments.due"), bustest.Equal(350), bustest.ReplyTo(order)),
	)
	// Output: PASS
}

// Expect looks for messages in an order, among others; ExpectNone makes sure that something does not come.
func ExampleExpect() {
	t := new(printingT)
	defer t.End()

	bus := bustest.New(t)
	all := bustest.Record(t, bus)
	NewTill(bus)

	desk := bus.Connect()
	desk.Send(gravbus.NewTyped("orders.made", Order{"tea", 350}))
	bustest.Expect(t, all, bustest.Type("payments.due"))

	desk.Send(gravbus.NewTyped("orders.made", Order{"a smile", 0}))
	bustest.Expect(t, all, bustest.Payload(func(o Order) bool { return o.Item == "a smile" }))
	bustest.ExpectNone(t, all, bustest.Type("payments.>"))
	// Output: PASS
}

// A failure tells what was expected and what came instead.
func ExampleExpectExactly() {
	t := new(printingT)
	defer t.End()

	bus := bustest.New(t)
	orders := bustest.Record(t, bus, "orders.>")
	desk := bus.Connect()
	desk.Send(gravbus.NewTyped("orders.made", Order{"tea", 350}))
	desk.Send(gravbus.NewTyped("orders.made", Order{"a bun", 210}))

	bustest.ExpectExactly(t, orders,
		bustest.Equal(Order{"tea", 350}),
		bustest.Equal(Order{"a bun", 220}),
	)
	// Output:
	// bustest: message 2 of 2 is not as expected: payload bustest_test.Order equal to {Item:a bun Cents:220}
	// unread:
	//   * 1 orders.made "{\"Item\":\"tea\",\"Cents\":350}"
	//     2 orders.made "{\"Item\":\"a bun\",\"Cents\":210}"
	// FAIL
}

// A message that fails is delivered again when others begin to succeed: the code must be able to handle that.
func ExampleFaulty() {
	t := new(printingT)
	defer t.End()

	bus := bustest.New(t)
	handled := 0
	counter := bus.Connect()
	_ = counter.OnType("count", bustest.Faulty(
		func(gravbus.Message) error { handled++; return nil },
		bustest.Faults{Seed: 1, Fail: 0.3},
	))
	pod := bus.Connect()
	for range 100 {
		pod.Send(gravbus.NewMsg("count", nil))
	}
	bustest.Settle(t, bus)
	s := counter.Stats()
	fmt.Printf("%d calls failed, yet %d messages are handled and %d kept for later\n", s.Failed, handled, s.Kept)
	// Output:
	// 40 calls failed, yet 100 messages are handled and 0 kept for later
	// PASS
}
