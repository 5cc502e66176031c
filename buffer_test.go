package gravbus_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gravbus/gravbus"
	"pgregory.net/rapid"
)

// bufferOverhead is what a message counts beside its data, as MaxBytes says.
const bufferOverhead = 144

// bufferMsg returns a message whose data are n, filled up with blanks to size bytes.
func bufferMsg(n, size int) gravbus.Message {
	return gravbus.NewMsg("x", fmt.Appendf(nil, "%-*d", size, n))
}

// bufferNumbers returns the numbers of messages.
func bufferNumbers(seq func(func(gravbus.Message) bool)) (numbers []int) {
	for msg := range seq {
		n, err := strconv.Atoi(strings.TrimSpace(string(msg.Data())))
		if err != nil {
			panic(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

func bufferPush(t *testing.T, b *gravbus.Buffer, from, to, size int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := b.Push(bufferMsg(n, size)); err != nil {
			t.Fatal(err)
		}
	}
}

func bufferWant(t *testing.T, got, want []int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBufferEmpty(t *testing.T) {
	buffers := map[int]*gravbus.Buffer{0: nil} // a nil buffer is empty
	for _, limit := range []int{1, 7, 1024} {
		buffers[limit] = gravbus.NewBuffer(limit)
	}
	for limit, b := range buffers {
		after, found := b.After("x")
		if b.Len() != 0 || b.Limit() != limit || b.Next() != nil || found {
			t.Errorf("%d: length %d, limit %d", limit, b.Len(), b.Limit())
		}
		for name, seq := range map[string]func(func(gravbus.Message) bool){"All": b.All(), "Since": b.Since(time.Time{}), "After": after} {
			if n := bufferNumbers(seq); n != nil {
				t.Errorf("%s yields %v", name, n)
			}
		}
		if err := b.Iter(func(gravbus.Message) error { return errors.New("called") }); err != nil {
			t.Error(err)
		}
	}
}

// What a bus has sent is in its buffer, and nothing else can be put there.
func TestBufferOfABus(t *testing.T) {
	bus := gravbus.New(gravbus.UseReplay(3))
	defer bus.Close()
	pod := bus.Connect()
	for n := range 5 {
		pod.Send(bufferMsg(n, 0))
	}
	b := bus.Buffer()
	bufferWant(t, bufferNumbers(b.All()), span(2, 4))
	if err := b.Push(bufferMsg(9, 0)); !errors.Is(err, gravbus.ErrBusBuffer) || b.Len() != 3 || b.Limit() != 3 {
		t.Errorf("%v, %d messages, limit %d", err, b.Len(), b.Limit())
	}
	if err := (*gravbus.Buffer)(nil).Push(bufferMsg(9, 0)); !errors.Is(err, gravbus.ErrBusBuffer) {
		t.Errorf("nil buffer: %v", err)
	}
	bus.Close()
	bufferWant(t, bufferNumbers(b.All()), span(2, 4))
	if bus.Buffer() != b {
		t.Error("another buffer")
	}
}

func TestBufferBoundByCount(t *testing.T) {
	for _, limit := range []int{1, 2, 3, 15, 16, 17, 100} {
		b := gravbus.NewBuffer(limit)
		for n := 1; n <= 3*limit+1; n++ {
			bufferPush(t, b, n, n, 0)
			want := span(max(1, n-limit+1), n)
			if got := bufferNumbers(b.All()); !slices.Equal(got, want) || b.Len() != len(want) {
				t.Fatalf("limit %d, after %d: %v, length %d", limit, n, got, b.Len())
			}
		}
	}
}

func TestBufferBoundByBytes(t *testing.T) {
	const size = 56 // with the overhead: 200
	b := gravbus.NewBuffer(1000, gravbus.MaxBytes(1000))
	bufferPush(t, b, 1, 5, size)
	bufferWant(t, bufferNumbers(b.All()), span(1, 5))
	bufferPush(t, b, 6, 6, 1) // smaller, but one byte too much is too much
	bufferWant(t, bufferNumbers(b.All()), span(2, 6))
	bufferPush(t, b, 7, 7, 600) // three have to go
	bufferWant(t, bufferNumbers(b.All()), span(6, 7))
	bufferPush(t, b, 8, 8, 1000-bufferOverhead) // just fits
	bufferWant(t, bufferNumbers(b.All()), span(8, 8))
	bufferPush(t, b, 9, 9, 1000-bufferOverhead+1) // does not: no gap may be left
	bufferWant(t, bufferNumbers(b.All()), nil)
	if b.Next() != nil || b.Len() != 0 {
		t.Error("not empty")
	}
	bufferPush(t, b, 10, 20, size)
	bufferWant(t, bufferNumbers(b.All()), span(16, 20))

	b = gravbus.NewBuffer(1000, gravbus.MaxBytes(1))
	bufferPush(t, b, 1, 3, 0)
	bufferWant(t, bufferNumbers(b.All()), nil)
}

// The texts that a message carries count as its data does.
func TestBufferBoundByTexts(t *testing.T) {
	text := strings.Repeat("x", 856)
	answer := gravbus.NewMsg("m", nil)
	answer.SetReplyTo(text)
	for name, m := range map[string]gravbus.Message{
		"parent": gravbus.NewMsgWithParentID("m", text, nil), "reply to": answer, "both": gravbus.NewMsgWithParentID("m", text[:800], make([]byte, 56)),
	} {
		b := gravbus.NewBuffer(1000, gravbus.MaxBytes(3000))
		for range 5 {
			must(t, b.Push(m))
		}
		if n := b.Len(); n != 3 {
			t.Errorf("%s: there are %d messages of 1000 bytes", name, n)
		}
	}
}

func TestBufferBoundByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gravbus.NewBuffer(100, gravbus.MaxAge(10*time.Second))
		for n := 1; n <= 5; n++ {
			bufferPush(t, b, n, n, 0)
			<-time.After(time.Second)
		}
		<-time.After(5 * time.Second) // message 1 is 10 s old: not older than that
		bufferWant(t, bufferNumbers(b.All()), span(1, 5))
		<-time.After(time.Nanosecond)
		if b.Len() != 4 {
			t.Errorf("%d messages, want 4", b.Len())
		}
		<-time.After(time.Second)
		bufferWant(t, bufferNumbers(b.All()), span(3, 5))
		<-time.After(time.Second)
		if msg := b.Next(); msg == nil || strings.TrimSpace(string(msg.Data())) != "4" {
			t.Errorf("Next returns %v", msg)
		}
		<-time.After(time.Second)
		if _, found := b.After("x"); found || b.Len() != 1 {
			t.Errorf("%d messages, want 1", b.Len())
		}
		<-time.After(time.Hour)
		if b.Next() != nil || b.Len() != 0 {
			t.Error("not empty")
		}
		bufferPush(t, b, 6, 7, 0)
		bufferWant(t, bufferNumbers(b.Since(time.Time{})), span(6, 7))

		// A message that is old already when it is pushed goes as soon as it is the oldest.
		old, err := gravbus.MsgFromBytes([]byte(strings.Replace(inputGoodJSON, "2026-", "1990-", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Push(old); err != nil || b.Len() != 3 {
			t.Errorf("%v, %d messages", err, b.Len())
		}
		<-time.After(10*time.Second + 1)
		if b.Len() != 0 {
			t.Errorf("%d messages, want 0", b.Len())
		}

		// A message of others' making counts from when it says that it was made.
		for _, at := range []time.Time{time.Now().Add(-10 * time.Second), {}, time.Unix(0, 0).AddDate(400, 0, 0)} {
			must(t, b.Push(stamped{gravbus.NewMsg("x", nil), func() time.Time { return at }}))
		}
		if b.Len() != 3 {
			t.Errorf("%d messages, want 3", b.Len())
		}
		<-time.After(1)
		if b.Len() != 1 {
			t.Errorf("%d messages, want 1", b.Len())
		}
	})
}

// stamped is a Message of others' making.
type stamped struct {
	gravbus.Message
	at func() time.Time
}

func (s stamped) Timestamp() time.Time { return s.at() }

// When it was made is what a message is asked before anything is locked: it may use the buffer to find out, and fail.
func TestBufferAsksMessagesUnlocked(t *testing.T) {
	bus := testBus(t, gravbus.UseReplay(10, gravbus.MaxAge(time.Hour)))
	sender := bus.Connect()
	must(t, bus.Connect().On(nop))
	for name, push := range map[string]func(*gravbus.Buffer, gravbus.Message) error{
		"Push": func(b *gravbus.Buffer, msg gravbus.Message) error { return b.Push(msg) },
		"Send": func(_ *gravbus.Buffer, msg gravbus.Message) error {
			_, err := sender.SendContext(t.Context(), msg)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := bus.Buffer()
			if name == "Push" {
				b = gravbus.NewBuffer(10, gravbus.MaxAge(time.Hour))
			}
			within(t, patience, func() {
				mustToo(t, push(b, stamped{gravbus.NewMsg("x", nil), func() time.Time { b.Len(); return time.Now() }}))
				func() {
					defer func() {
						if recover() == nil {
							t.Error("no panic")
						}
					}()
					_ = push(b, stamped{gravbus.NewMsg("x", nil), func() time.Time { panic("boom") }})
				}()
				mustToo(t, push(b, gravbus.NewMsg("x", nil)))
				if b.Len() != 2 {
					t.Errorf("%d messages, want 2", b.Len())
				}
			})
		})
	}
}

func TestBufferNext(t *testing.T) {
	b := gravbus.NewBuffer(4)
	next := func(want ...int) {
		t.Helper()
		for _, n := range want {
			if msg := b.Next(); msg == nil || strings.TrimSpace(string(msg.Data())) != strconv.Itoa(n) {
				t.Errorf("got %v, want %d", msg, n)
			}
		}
	}
	bufferPush(t, b, 1, 3, 0)
	next(1, 2, 3, 1, 2)
	bufferPush(t, b, 4, 4, 0)
	next(3, 4, 1)
	bufferPush(t, b, 5, 7, 0) // 2 is next, and has gone
	next(4, 5, 6, 7, 4)
	bufferPush(t, b, 8, 20, 0)
	next(17, 18, 19, 20, 17)
}

func TestBufferIter(t *testing.T) {
	b := gravbus.NewBuffer(10)
	bufferPush(t, b, 1, 5, 0)
	stop, calls := errors.New("stop"), 0
	err := b.Iter(func(gravbus.Message) error {
		calls++
		bufferPush(t, b, 10, 20, 0) // it may use the buffer, and sees what was there
		if calls == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
	calls = 0
	if err := b.Iter(func(gravbus.Message) error { calls++; return nil }); err != nil || calls != 10 {
		t.Errorf("%v after %d calls", err, calls)
	}
	for range b.All() {
		break
	}
	for range b.Since(time.Time{}) {
		break
	}
	rest, _ := b.After("x")
	for range rest {
		break
	}
	all := b.All()
	bufferPush(t, b, 30, 30, 0)
	bufferWant(t, bufferNumbers(all), append(span(12, 20), 30)) // each loop takes its own look
}

func TestBufferSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := gravbus.NewBuffer(10)
		var at []time.Time
		for n := range 5 {
			at = append(at, time.Now())
			bufferPush(t, b, n, n, 0)
			<-time.After(time.Second)
		}
		for n, then := range at {
			bufferWant(t, bufferNumbers(b.Since(then)), span(n, 4))
			bufferWant(t, bufferNumbers(b.Since(then.Add(1))), span(n+1, 4))
			bufferWant(t, bufferNumbers(b.Since(then.In(time.FixedZone("", 3600)))), span(n, 4))
		}
	})
}

func TestBufferAfter(t *testing.T) {
	b := gravbus.NewBuffer(5)
	twice, foreign := bufferMsg(7, 0), &inputForeign{uuid: "no UUID at all", typ: "x"}
	for _, m := range []gravbus.Message{bufferMsg(1, 0), twice, bufferMsg(2, 0), twice, bufferMsg(3, 0)} {
		if err := b.Push(m); err != nil {
			t.Fatal(err)
		}
	}
	after := func(uuid string, wantFound bool, want ...int) {
		t.Helper()
		rest, found := b.After(uuid)
		if found != wantFound {
			t.Errorf("%q: found is %t", uuid, found)
		}
		bufferWant(t, bufferNumbers(rest), want)
	}
	after(twice.UUID(), true, 3) // the latest of two
	after(strings.ToUpper(twice.UUID()), true, 3)
	after("", false, 1, 7, 2, 7, 3)
	after("x", false, 1, 7, 2, 7, 3)
	after("00000000-0000-0000-0000-000000000000", false, 1, 7, 2, 7, 3)
	after(bufferMsg(0, 0).UUID(), false, 1, 7, 2, 7, 3)
	last := bufferMsg(4, 0)
	if err := errors.Join(b.Push(foreign), b.Push(last)); err != nil {
		t.Fatal(err)
	}
	after(last.UUID(), true)
	after("no UUID at all", true, 4)
}

func TestBufferConcurrent(t *testing.T) {
	watchdog(t, time.Minute)
	b := gravbus.NewBuffer(50, gravbus.MaxBytes(50*(bufferOverhead+20)), gravbus.MaxAge(time.Minute))
	const pushers = 4
	n := fewer(20_000, 10)
	var pushing, reading sync.WaitGroup
	done := make(chan struct{})
	// check fails if one pusher's messages are not in its order without gaps. Message n of pusher i is n*pushers+i.
	check := func(numbers []int) {
		last := map[int]int{}
		for _, number := range numbers {
			i := number % pushers
			if before, ok := last[i]; ok && number != before+pushers {
				t.Errorf("%d after %d", number, before)
			}
			last[i] = number
		}
	}
	for i := range pushers {
		pushing.Go(func() {
			for k := range n {
				if err := b.Push(bufferMsg(k*pushers+i, 1+rand.IntN(15))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 4 {
		reading.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				switch i {
				case 0:
					check(bufferNumbers(b.All()))
				case 1:
					check(bufferNumbers(b.Since(time.Now().Add(-time.Hour))))
				case 2:
					if msg := b.Next(); msg != nil {
						rest, _ := b.After(msg.UUID())
						check(bufferNumbers(rest))
					}
				default:
					if l := b.Len(); l > 50 {
						t.Errorf("%d messages", l)
					}
				}
			}
		})
	}
	pushing.Wait()
	close(done)
	reading.Wait()
	check(bufferNumbers(b.All()))
	if b.Len() < 30 {
		t.Errorf("%d messages at the end", b.Len())
	}
}

// bufferModel is a Buffer in the simplest terms.
type bufferModel struct {
	limit, maxBytes int
	maxAge          time.Duration
	kept            []bufferEntry
	pushed, turn    int
}

type bufferEntry struct {
	seq, number, size int
	uuid              string
	time              time.Time
}

func (m *bufferModel) bytes() (sum int) {
	for _, e := range m.kept {
		sum += e.size
	}
	return sum
}

func (m *bufferModel) expire() {
	for m.maxAge > 0 && len(m.kept) > 0 && m.kept[0].time.Before(time.Now().Add(-m.maxAge)) {
		m.kept = m.kept[1:]
	}
}

func (m *bufferModel) push(e bufferEntry) {
	m.pushed++
	e.seq = m.pushed
	m.kept = append(m.kept, e)
	for len(m.kept) > m.limit || m.bytes() > m.maxBytes {
		m.kept = m.kept[1:]
	}
	m.expire()
}

func (m *bufferModel) next() (int, bool) {
	m.expire()
	if len(m.kept) == 0 {
		return 0, false
	}
	i := slices.IndexFunc(m.kept, func(e bufferEntry) bool { return e.seq >= m.turn })
	if i < 0 || m.turn < m.kept[0].seq {
		i = 0
	}
	m.turn = m.kept[i].seq + 1
	return m.kept[i].number, true
}

func (m *bufferModel) numbers(from int) (numbers []int) {
	for _, e := range m.kept[from:] {
		numbers = append(numbers, e.number)
	}
	return numbers
}

// TestBufferModel does the same to a Buffer and to a model of it, in a bubble for the sake of the clock.
func TestBufferModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// rapid asks a *testing.T for its deadline, which it must not in a bubble.
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) {
			model := &bufferModel{
				limit:    rapid.IntRange(1, 40).Draw(t, "limit"),
				maxBytes: rapid.IntRange(1, 40*bufferOverhead).Draw(t, "maxBytes"),
				maxAge:   rapid.SampledFrom([]time.Duration{0, 1, time.Second, time.Minute}).Draw(t, "maxAge"),
			}
			b := gravbus.NewBuffer(model.limit, gravbus.MaxBytes(model.maxBytes), gravbus.MaxAge(model.maxAge))
			var made []gravbus.Message
			push := func(t *rapid.T, msg gravbus.Message) {
				if err := b.Push(msg); err != nil {
					t.Fatal(err)
				}
				n, err := strconv.Atoi(strings.TrimSpace(string(msg.Data())))
				if err != nil {
					t.Fatal(err)
				}
				model.push(bufferEntry{number: n, size: bufferOverhead + len(msg.Data()), uuid: msg.UUID(), time: msg.Timestamp()})
			}
			same := func(t *rapid.T, what string, got, want []int) {
				if !slices.Equal(got, want) {
					t.Fatalf("%s: %v, want %v", what, got, want)
				}
			}
			t.Repeat(map[string]func(*rapid.T){
				"push": func(t *rapid.T) {
					msg := bufferMsg(len(made), rapid.IntRange(0, 300).Draw(t, "size"))
					made = append(made, msg)
					push(t, msg)
				},
				"push again": func(t *rapid.T) {
					if len(made) > 0 {
						push(t, rapid.SampledFrom(made).Draw(t, "msg"))
					}
				},
				"time passes": func(t *rapid.T) {
					<-time.After(rapid.SampledFrom([]time.Duration{1, time.Second / 3, time.Second, time.Minute / 4}).Draw(t, "d"))
				},
				"next": func(t *rapid.T) {
					want, ok := model.next()
					msg := b.Next()
					if (msg != nil) != ok {
						t.Fatalf("Next returns %v, want %t", msg, ok)
					}
					if ok {
						same(t, "Next", bufferNumbers(func(yield func(gravbus.Message) bool) { yield(msg) }), []int{want})
					}
				},
				"after": func(t *rapid.T) {
					if len(made) == 0 {
						return
					}
					uuid := rapid.SampledFrom(made).Draw(t, "msg").UUID()
					model.expire()
					want := -1
					for i, e := range model.kept {
						if e.uuid == uuid {
							want = i
						}
					}
					rest, found := b.After(uuid)
					if found != (want >= 0) {
						t.Fatalf("After: found is %t", found)
					}
					same(t, "After", bufferNumbers(rest), model.numbers(want+1))
				},
				"since": func(t *rapid.T) {
					then := time.Now().Add(-rapid.SampledFrom([]time.Duration{0, time.Second / 3, time.Second, time.Hour}).Draw(t, "d"))
					model.expire()
					var want []int
					for _, e := range model.kept {
						if !e.time.Before(then) {
							want = append(want, e.number)
						}
					}
					same(t, "Since", bufferNumbers(b.Since(then)), want)
				},
				"": func(t *rapid.T) {
					model.expire()
					if b.Len() != len(model.kept) {
						t.Fatalf("%d messages, want %d", b.Len(), len(model.kept))
					}
					same(t, "All", bufferNumbers(b.All()), model.numbers(0))
				},
			})
		})
	})
}
