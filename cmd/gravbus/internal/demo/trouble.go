package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gravbus/gravbus"
)

// slow: a pod stands still, is not waited for any longer, is told what it has lost, and recovers.
func slow(ctx context.Context, s *stage) error {
	const (
		room  = 16  // in the printer's mailbox
		jam   = 500 // the last receipt before the paper is freed
		round = 10  // less than room: a round is never waited for
		last  = jam + 20*round
	)
	s.out.say("%d receipts. printer has room for %d, and its paper jams on the first for longer than its", last, room)
	s.out.say("stall limit of 100 ms. display gets the same receipts.")

	var mu sync.Mutex // guards printed, notices, told and misplaced
	var printed, notices, told, misplaced int64
	var before int64 // the last number seen; the handler's own
	var lag int64    // since then; the handler's own
	jammed, freed := make(chan struct{}), make(chan struct{})
	free := sync.OnceFunc(func() { close(freed) })
	defer free()
	numbers := make(chan int64, last)
	pod := s.connect("printer", gravbus.Mailbox(room), gravbus.StallLimit(100*time.Millisecond))
	err := pod.OnType("receipts", s.counting(func(msg gravbus.Message) error {
		if msg.Type() == gravbus.MsgTypeLagged {
			l, err := gravbus.Decode[gravbus.Lagged](msg)
			mu.Lock()
			notices++
			told += int64(l.Count)
			mu.Unlock()
			lag += int64(l.Count)
			s.lost.Add(int64(l.Count))
			return err
		}
		n, err := gravbus.Decode[int](msg)
		if err != nil {
			return err
		}
		if n == 1 {
			close(jammed)
			if err := await(ctx, freed); err != nil {
				return err
			}
		}
		mu.Lock()
		printed++
		if int64(n) != before+lag+1 {
			misplaced++
		}
		mu.Unlock()
		before, lag = int64(n), 0
		select {
		case numbers <- int64(n):
		default: // more than were sent: a check will tell
		}
		return nil
	}))
	if err != nil {
		return err
	}
	var display sequence
	shown, err := s.listen(s.connect("display"), s.following(&display, nil), "receipts")
	if err != nil {
		return err
	}
	var events tally[string]
	event := make(chan struct{}, 16)
	err = s.connect("ops").OnType(gravbus.EventPodSlow, s.counting(func(msg gravbus.Message) error {
		events.add(msg.Type())
		select {
		case event <- struct{}{}:
		default:
		}
		return nil
	}), gravbus.EventPodLagged)
	if err != nil {
		return err
	}

	till := s.connect("till")
	if err := s.sendNumbers(ctx, till, "receipts", 1, 1); err != nil {
		return err
	}
	if err := await(ctx, jammed); err != nil {
		return err
	}
	if err := s.sendNumbers(ctx, till, "receipts", 2, jam); err != nil {
		return err
	}
	free()
	if err := awaitNumber(ctx, numbers, jam); err != nil {
		return err
	}
	mu.Lock()
	caughtUp := printed
	mu.Unlock()
	// Nothing tells when a pod that has lagged is waited for again. Rounds that fit into its
	// mailbox lose nothing before that either.
	for n := jam; n < last; n += round {
		if err := s.sendNumbers(ctx, till, "receipts", n+1, n+round); err != nil {
			return err
		}
		if err := awaitNumber(ctx, numbers, int64(n+round)); err != nil {
			return err
		}
	}
	if err := s.ring(ctx, till); err != nil {
		return err
	}
	if err := await(ctx, shown); err != nil {
		return err
	}
	for range 2 {
		if _, err := receive(ctx, event); err != nil {
			return err
		}
	}
	s.clear()
	s.out.rows([][]string{
		{"display", "1 … " + number(display.last), received(display.n)},
		{"printer", "1 … " + number(jam), fmt.Sprintf("%3d received", caughtUp), fmt.Sprintf("told in their place: %s lost", number(told))},
		{"", fmt.Sprintf("%d … %s", jam+1, number(before)), received(printed - caughtUp), "it has recovered"},
		{"ops", "events", fmt.Sprintf("%d slow", events.of(gravbus.EventPodSlow)), fmt.Sprintf("%d lagged", events.of(gravbus.EventPodLagged))},
	})
	s.check("display received", last, display.n)
	s.check("printer received", 1+room+last-jam, printed)
	s.check("losses told to printer", jam-1-room, told)
	s.check("received + lost", last, printed+told)
	s.check("notices", 1, notices)
	s.check("no gap without notice", 0, misplaced)
	s.check("events for ops", 2, events.of(gravbus.EventPodSlow)+events.of(gravbus.EventPodLagged))
	return nil
}

// awaitNumber receives until n comes.
func awaitNumber(ctx context.Context, c <-chan int64, n int64) error {
	for {
		got, err := receive(ctx, c)
		if err != nil || got == n || got == 0 { // 0: patience has ended
			return err
		}
	}
}

// failures: a handler panics and fails, the bus goes on, and what it cannot handle becomes a dead
// letter.
func failures(ctx context.Context, s *stage) error {
	const letters, panics, fails, tries = 10, 3, 7, 3
	s.out.say("mailer gets letters 1 to %d. It panics on %d, once, and fails on %d each time.", letters, panics, fails)
	var mu sync.Mutex // guards all below
	var calls []string
	var delivered tally[int]
	attempts := map[int]int{}
	mailer := s.connect("mailer", gravbus.MaxRetries(tries-1))
	heard, err := s.listen(mailer, func(msg gravbus.Message) error {
		n, err := gravbus.Decode[int](msg)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		attempts[n]++
		switch {
		case n == panics && attempts[n] == 1:
			calls = append(calls, s.out.bad(fmt.Sprintf("%d!", n)))
			panic("out of stamps")
		case n == fails:
			calls = append(calls, s.out.bad(fmt.Sprintf("%d!", n)))
			return errors.New("no such street")
		}
		calls = append(calls, fmt.Sprint(n))
		delivered.add(n)
		return nil
	}, "letters")
	if err != nil {
		return err
	}
	dead := make(chan gravbus.DeadLetter, letters)
	err = gravbus.On(s.connect("archive"), gravbus.EventDeadLetter, func(_ context.Context, d gravbus.DeadLetter) error {
		s.handled.Add(1)
		select {
		case dead <- d:
		default: // far too many: a check will tell
		}
		return nil
	})
	if err != nil {
		return err
	}
	web := s.connect("web")
	if err := s.sendNumbers(ctx, web, "letters", 1, letters); err != nil {
		return err
	}
	if err := s.ring(ctx, web); err != nil {
		return err
	}
	if err := await(ctx, heard); err != nil {
		return err
	}
	letter, err := receive(ctx, dead)
	if err != nil {
		return err
	}
	stats := mailer.Stats()
	s.clear()
	var lost int
	if letter.Message != nil {
		if lost, err = gravbus.Decode[int](letter.Message); err != nil {
			return err
		}
	}
	s.out.rows([][]string{
		{"mailer", strings.Join(calls, " "), s.out.bad("!") + " failed, and is tried again after a success"},
		{"archive", fmt.Sprintf("letter %d", lost), fmt.Sprintf("a dead letter after %d tries: %s", letter.Attempts, letter.Error)},
	})
	sum, different := delivered.sum()
	s.check("letters delivered", letters-1, different)
	s.check("none delivered twice", 0, sum-different)
	s.check("panics caught", 1, int64(stats.Panics))
	s.check("failed calls", 1+tries, int64(stats.Failed))
	s.check("the dead letter", fails, int64(lost))
	s.check("dead letters", 1, int64(stats.DeadLetters)+int64(len(dead)))
	return nil
}
