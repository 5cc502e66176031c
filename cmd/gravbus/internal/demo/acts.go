package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gravbus/gravbus"
)

// patterns: who hears what.
func patterns(ctx context.Context, s *stage) error {
	s.out.say("web sends orders, payments and clicks, and listens to everything itself.")
	types := []string{
		"clicks.home", "orders.created", "payments.card.captured", "orders.created", "payments.cash",
		"payments.card.refused", "clicks.basket", "payments.card.captured", "orders.shipped",
	}
	listeners := []struct {
		name, pattern, refused, note string
		want                         int64
		got                          tally[string]
	}{
		{name: "kitchen", pattern: "orders.*", want: 3, note: "* stands for one token"},
		{name: "till", pattern: "payments.>", want: 4, note: "> stands for one or more"},
		{name: "audit", refused: "clicks.*", want: 7, note: "but clicks.*, by a filter"},
		{name: "web", want: 0, note: "a pod never hears itself"},
	}
	var heard []<-chan struct{}
	var web *gravbus.Pod
	for i := range listeners {
		l := &listeners[i]
		web = s.connect(l.name)
		if l.refused != "" {
			if err := web.FilterType(l.refused, false); err != nil {
				return err
			}
		}
		fn := func(msg gravbus.Message) error {
			l.got.add(msg.Type())
			return nil
		}
		c, err := s.listen(web, fn, l.pattern)
		if err != nil {
			return err
		}
		heard = append(heard, c)
	}
	for _, typ := range types {
		if err := s.send(ctx, web, gravbus.NewMsg(typ, nil)); err != nil {
			return err
		}
	}
	if err := s.ring(ctx, web); err != nil {
		return err
	}
	if err := await(ctx, heard[:len(heard)-1]...); err != nil { // web does not hear its own bell
		return err
	}
	var rows [][]string
	for i := range listeners {
		l := &listeners[i]
		got, _ := l.got.sum()
		rows = append(rows, []string{l.name, cmp.Or(l.pattern, "everything"), received(got), l.note})
		s.check(l.name+" received", l.want, got)
	}
	s.out.rows(rows)
	return nil
}

func received(n int64) string { return number(n) + " received" }

type quote struct {
	Carrier string
	Price   int
}

// requests: one responder, none, and several of whom one is silent.
func requests(ctx context.Context, s *stage) error {
	s.out.say("stock knows prices. bike and van quote for delivery, and ship never answers.")
	web, stock := s.connect("web"), s.connect("stock")
	err := gravbus.Handle(stock, "stock.price", func(_ context.Context, item string) (int, error) {
		s.handled.Add(1)
		s.sent.Add(1) // the reply
		if item == "teapot" {
			return 24, nil
		}
		return 0, fmt.Errorf("no %s here", item)
	})
	if err != nil {
		return err
	}
	prices := map[string]int{"bike": 7, "van": 12, "ship": 0}
	for _, name := range []string{"bike", "van", "ship"} {
		err := gravbus.Handle(s.connect(name), "delivery.quote", func(context.Context, string) (quote, error) {
			s.handled.Add(1)
			if prices[name] == 0 {
				return quote{}, gravbus.ErrMsgNotWanted // sends no reply
			}
			s.sent.Add(1) // the reply
			return quote{name, prices[name]}, nil
		})
		if err != nil {
			return err
		}
	}

	// A question that nobody answers, though somebody should, ends with patience.
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ask := func(typ, item string) (string, int, error) {
		s.sent.Add(1)
		price, err := gravbus.Request[int](asking, web, typ, item)
		if err != nil {
			return err.Error(), 0, err
		}
		return fmt.Sprintf("%d coins", price), price, nil
	}
	teapot, price, _ := ask("stock.price", "teapot")
	dragon, _, refusal := ask("stock.price", "dragon")
	nobody, _, silence := ask("stock.recipe", "tea")

	s.sent.Add(1)
	quotes, missing := s.collect(asking, web)
	var offers []string
	for _, q := range quotes {
		offers = append(offers, fmt.Sprintf("%s %d", q.Carrier, q.Price))
	}
	s.out.rows([][]string{
		{"stock.price", "teapot", teapot},
		{"stock.price", "dragon", dragon + " (the error of the handler)"},
		{"stock.recipe", "tea", strings.TrimPrefix(nobody, "gravbus: ") + " (at once)"},
		{"delivery.quote", "to all", strings.Join(offers, ", ") + "; no answer from " + strings.Join(missing, ", ")},
	})
	var remote *gravbus.RemoteError
	s.check("price of a teapot", 24, int64(price))
	s.check("error came back", 1, one(errors.As(refusal, &remote)))
	s.check("no responders, told", 1, one(errors.Is(silence, gravbus.ErrNoResponders)))
	s.check("quotes", 2, int64(len(quotes)))
	s.check("ship named as missing", 1, one(slices.Equal(missing, []string{"ship"})))
	return nil
}

// collect asks all carriers, and when two have answered waits a little for the third.
func (s *stage) collect(ctx context.Context, p *gravbus.Pod) (quotes []quote, missing []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for reply, err := range p.RequestAll(ctx, gravbus.NewTyped("delivery.quote", "teapot")) {
		var m *gravbus.MissingError
		if errors.As(err, &m) {
			missing = m.Pods
		}
		if err != nil {
			break
		}
		if q, err := gravbus.Decode[quote](reply); err == nil {
			quotes = append(quotes, q)
		}
		if len(quotes) == 2 {
			defer time.AfterFunc(100*time.Millisecond, cancel).Stop()
		}
	}
	slices.SortFunc(quotes, func(a, b quote) int { return strings.Compare(a.Carrier, b.Carrier) })
	return quotes, missing
}

// one is 1 for true.
func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// group: jobs are shared, each is done once, and one who is held up holds up nobody.
func group(ctx context.Context, s *stage) error {
	const jobs = 500
	names := []string{"ada", "bob", "cleo", "dora"}
	s.out.say("%d parcels for a group of %d packers. dora takes one, and then the telephone rings.", jobs, len(names))
	var parcels tally[int]
	var packed tally[string]
	var begun, others atomic.Int64
	begin, free, end := make(chan struct{}), make(chan struct{}), make(chan struct{})
	for _, name := range names {
		var once sync.Once
		pack := func(msg gravbus.Message) error {
			parcel, err := gravbus.Decode[int](msg)
			if err != nil {
				return err
			}
			once.Do(func() { // all begin together, so that everybody has a parcel
				if begun.Add(1) == int64(len(names)) {
					close(begin)
				}
				err = await(ctx, begin)
			})
			if err == nil && name == "dora" {
				err = await(ctx, free)
			}
			if err != nil {
				return err
			}
			parcels.add(parcel)
			packed.add(name)
			if name == "dora" {
				close(end)
			} else if others.Add(1) == jobs-1 {
				close(free)
			}
			return nil
		}
		if err := s.connect(name, gravbus.InGroup("packers")).OnType("parcels.pack", s.counting(pack)); err != nil {
			return err
		}
	}
	if err := s.sendNumbers(ctx, s.connect("web"), "parcels.pack", 1, jobs); err != nil {
		return err
	}
	if err := await(ctx, end); err != nil {
		return err
	}
	s.clear() // waits for handlers, so that what follows is final
	sum, different := parcels.sum()
	dora := packed.of("dora")
	s.out.rows([][]string{
		{"ada, bob, cleo", number(sum-dora) + " packed"},
		{"dora", fmt.Sprintf("%3d packed", dora), "the one she had in hand"},
	})
	s.check("parcels packed", jobs, different)
	s.check("none packed twice", 0, sum-different)
	s.check("packed by dora", 1, dora)
	return nil
}

// replay: who comes late gets the last messages and then all that follow.
func replay(ctx context.Context, s *stage) error {
	// The last ticket of each stretch. The bus remembers all of them.
	const early, calm, rush = 100, 300, gravbus.DefaultReplay - 24
	s.out.say("%s tickets. board comes after ticket %d, for the last 5; screen in the rush, for all.", number(rush), early)
	counter := s.connect("counter")
	if err := s.sendNumbers(ctx, counter, "tickets", 1, early); err != nil {
		return err
	}

	// board is still at its first old ticket while live ones come.
	var board, screen sequence
	live := make(chan struct{})
	boardHeard, err := s.listen(s.connect("board", gravbus.ReplayLast(5)), s.following(&board, func() error { return await(ctx, live) }), "tickets")
	if err != nil {
		return err
	}
	if err := s.sendNumbers(ctx, counter, "tickets", early+1, calm); err != nil {
		return err
	}
	close(live)

	// screen joins while they are sold as fast as it goes.
	rushing, joined := make(chan struct{}), make(chan struct{})
	sold := make(chan error, 1)
	go func() { // ends when all is sold, or with ctx; the act waits for it
		const from, until = calm + (rush-calm)/4, calm + (rush-calm)*3/4
		err := s.sendNumbers(ctx, counter, "tickets", calm+1, from)
		close(rushing)
		if err == nil {
			err = s.sendNumbers(ctx, counter, "tickets", from+1, until)
		}
		if err == nil {
			err = await(ctx, joined)
		}
		if err == nil {
			err = s.sendNumbers(ctx, counter, "tickets", until+1, rush)
		}
		if err == nil {
			err = s.ring(ctx, counter)
		}
		sold <- err
	}()
	<-rushing
	screenHeard, err := s.listen(s.connect("screen", gravbus.Replay()), s.following(&screen, nil), "tickets")
	close(joined)
	if err := errors.Join(err, <-sold); err != nil {
		return err
	}
	if err := await(ctx, boardHeard, screenHeard); err != nil {
		return err
	}
	s.clear()
	s.out.rows([][]string{
		{"board", fmt.Sprintf("%s … %s", number(board.first), number(board.last)), fmt.Sprintf("%5s received", number(board.n)), "5 old ones, then live"},
		{"screen", fmt.Sprintf("%s … %s", number(screen.first), number(screen.last)), received(screen.n), "old ones from memory, while new ones were sold"},
	})
	s.check("board received", rush-early+5, board.n)
	s.check("screen received", rush, screen.n)
	s.check("no gap", 0, board.missing+screen.missing)
	s.check("none doubled", 0, board.unordered+screen.unordered)
	return nil
}

// following adds the numbers it receives to q, each after before if that is not nil.
func (s *stage) following(q *sequence, before func() error) gravbus.MsgFunc {
	return func(msg gravbus.Message) error {
		n, err := gravbus.Decode[int](msg)
		if err == nil && before != nil {
			err = before()
		}
		if err == nil {
			q.add(int64(n))
		}
		return err
	}
}
