package gravbus_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
)

// What is done a million times must leave nothing behind. Each test does its work for a while, so that rings, pools and bounded tables have their
// size, and then n times more: the heap may be larger by a fixed amount only, and there may be no goroutine more.

const leakAllowed = 1 << 20 // bytes, whatever n is

// leakFlat fails if work makes the heap or the number of goroutines grow. It does work(i) with n/5 numbers to warm up, and with n after that.
func leakFlat(t *testing.T, n int, work func(i int)) {
	t.Helper()
	watchdog(t, 3*time.Minute)
	i := 0
	run := func(n int) {
		for range n {
			work(i)
			i++
		}
	}
	run(n / 5)
	for attempt := 1; ; attempt++ { // what leaks grows every time; what only came late does not
		leakSettle(1 << 30)
		heap, goroutines := faultHeap(), runtime.NumGoroutine()
		run(n)
		after := leakSettle(goroutines)
		grown := faultHeap() - heap
		if after <= goroutines && grown <= leakAllowed {
			return
		}
		if attempt == 3 {
			t.Errorf("%d goroutines, %d before; %d times made the heap grow by %d bytes, %d each", after, goroutines, n, grown, grown/int64(n))
			return
		}
	}
}

// leakSettle waits until there are at most so many goroutines, for a while, and returns how many there are. Drainers end by themselves, but not at once.
func leakSettle(atMost int) int {
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > atMost && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	return runtime.NumGoroutine()
}

// leakEcho connects a pod that answers messages of the type.
func leakEcho(t *testing.T, bus *gravbus.Bus, typ string) {
	t.Helper()
	pod := bus.Connect()
	must(t, pod.OnType(typ, func(m gravbus.Message) error {
		pod.ReplyTo(m, gravbus.NewMsg("pong", nil))
		return nil
	}))
}

func TestLeakLives(t *testing.T) {
	for _, end := range []string{"Shutdown", "Close", "Disconnect and Shutdown"} {
		t.Run(end, func(t *testing.T) {
			leakFlat(t, 1000, func(int) {
				bus := gravbus.New(quiet())
				pods := []*gravbus.Pod{
					bus.Connect(), bus.Connect(gravbus.InGroup("g")), bus.Connect(gravbus.Concurrency(3)), bus.ConnectWithReplay(),
				}
				for _, pod := range pods {
					must(t, pod.OnType("x.*", nop))
				}
				for range 5 {
					receipt := pods[0].Send(gravbus.NewMsg("x.y", []byte("data")))
					must(t, receipt.OnReply(nop))
					pods[1].ReplyTo(gravbus.NewMsg("x", nil), gravbus.NewMsg("x.z", nil))
				}
				switch end {
				case "Disconnect and Shutdown":
					for _, pod := range pods {
						pod.Disconnect()
					}
					fallthrough
				case "Shutdown":
					must(t, bus.Shutdown(context.Background()))
				case "Close":
					must(t, bus.Close())
				}
			})
		})
	}
}

func TestLeakSends(t *testing.T) {
	n := 10_000_000
	if testing.Short() || raceOn {
		n = 1_000_000
	}
	bus := gravbus.New()
	defer bus.Close()
	sender := bus.Connect()
	must(t, bus.Connect().OnType("x", nop))
	must(t, bus.Connect(gravbus.Overflow(gravbus.DropOldest)).OnType("*", nop))
	leakFlat(t, n, func(int) { sender.Send(gravbus.NewMsg("x", nil)) })
}

func TestLeakSendsToNobody(t *testing.T) {
	bus := gravbus.New(gravbus.UseReplay(0))
	defer bus.Close()
	sender := bus.Connect()
	leakFlat(t, fewer(2_000_000, 10), func(int) { sender.Send(gravbus.NewMsg("x", nil)) })
}

func TestLeakRequests(t *testing.T) {
	bus := gravbus.New()
	defer bus.Close()
	leakEcho(t, bus, "ping")
	pod, ctx := bus.Connect(), context.Background()
	t.Run("Request", func(t *testing.T) {
		leakFlat(t, fewer(100_000, 10), func(int) {
			if _, err := pod.Request(ctx, gravbus.NewMsg("ping", nil)); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("RequestAll", func(t *testing.T) {
		leakFlat(t, fewer(50_000, 10), func(int) {
			for _, err := range pod.RequestAll(ctx, gravbus.NewMsg("ping", nil)) {
				must(t, err)
			}
		})
	})
	t.Run("no responders", func(t *testing.T) {
		leakFlat(t, fewer(100_000, 10), func(int) {
			if _, err := pod.Request(ctx, gravbus.NewMsg("nobody", nil)); err == nil {
				t.Fatal("no error")
			}
		})
	})
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		must(t, bus.Connect().OnType("silent", nop))
		leakFlat(t, fewer(100_000, 10), func(int) {
			if _, err := pod.Request(ctx, gravbus.NewMsg("silent", nil)); err == nil {
				t.Fatal("no error")
			}
		})
	})
	t.Run("replies that nobody takes", func(t *testing.T) {
		leakFlat(t, fewer(100_000, 10), func(int) { pod.Send(gravbus.NewMsg("ping", nil)) })
	})
	t.Run("replies by UUID to nothing", func(t *testing.T) {
		leakFlat(t, fewer(100_000, 10), func(int) {
			msg := gravbus.NewMsg("stray", nil)
			msg.SetReplyTo(gravbus.NewMsg("x", nil).UUID())
			pod.Send(msg)
		})
	})
}

func TestLeakOnReply(t *testing.T) {
	bus := gravbus.New()
	defer bus.Close()
	leakEcho(t, bus, "ping")
	pod := bus.Connect()
	t.Run("never answered", func(t *testing.T) {
		leakFlat(t, fewer(100_000, 10)+gravbus.MaxParkedReplies*5, func(int) {
			must(t, pod.Send(gravbus.NewMsg("x", nil)).OnReply(nop))
		})
	})
	t.Run("answered", func(t *testing.T) {
		leakFlat(t, fewer(100_000, 10), func(int) {
			must(t, pod.Send(gravbus.NewMsg("ping", nil)).OnReply(nop))
		})
	})
	t.Run("not wanted", func(t *testing.T) {
		leakFlat(t, fewer(100_000, 10)+gravbus.MaxParkedReplies*5, func(int) {
			must(t, pod.Send(gravbus.NewMsg("ping", nil)).OnReply(func(gravbus.Message) error { return gravbus.ErrMsgNotWanted }))
		})
	})
}

func TestLeakTypesAndPatterns(t *testing.T) {
	bus := gravbus.New()
	defer bus.Close()
	pod, sender, n := bus.Connect(), bus.Connect(), fewer(100_000, 10)
	must(t, bus.Connect().On(nop))
	t.Run("types", func(t *testing.T) {
		leakFlat(t, n, func(i int) { sender.Send(gravbus.NewMsg("type."+strconv.Itoa(i), nil)) })
	})
	t.Run("types that somebody wanted", func(t *testing.T) {
		leakFlat(t, n, func(i int) {
			typ := fmt.Sprintf("wanted.%d.type", i)
			must(t, pod.OnType(typ, nop))
			sender.Send(gravbus.NewMsg(typ, nil))
		})
	})
	t.Run("patterns", func(t *testing.T) {
		leakFlat(t, n, func(i int) { must(t, pod.OnType(fmt.Sprintf("pattern.%d.>", i), nop, fmt.Sprintf("*.%d", i))) })
	})
	t.Run("filters", func(t *testing.T) {
		must(t, pod.On(nop))
		leakFlat(t, n, func(i int) {
			must(t, pod.FilterType("filter."+strconv.Itoa(i), false))
			must(t, pod.FilterType("filter."+strconv.Itoa(i), true))
			pod.FilterUUID(strconv.Itoa(i), false)
			pod.FilterUUID(strconv.Itoa(i), true)
		})
	})
	t.Run("groups", func(t *testing.T) {
		leakFlat(t, n, func(i int) {
			member := bus.Connect(gravbus.InGroup("group " + strconv.Itoa(i)))
			must(t, member.OnType("group.x", nop))
			sender.Send(gravbus.NewMsg("group.x", nil))
			member.Disconnect()
		})
	})
	t.Run("waits", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		leakFlat(t, n, func(i int) {
			if _, err := pod.Wait(ctx, "wait."+strconv.Itoa(i)); err == nil {
				t.Fatal("no error")
			}
		})
	})
	t.Run("loops", func(t *testing.T) {
		leakFlat(t, n/50, func(int) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			stop := context.AfterFunc(ctx, func() {})
			go func() { // ends with the loop
				for ctx.Err() == nil {
					sender.Send(gravbus.NewMsg("loop", nil))
				}
			}()
			for range pod.Messages(ctx, "loop") {
				break
			}
			stop()
		})
	})
}

func TestLeakConnections(t *testing.T) {
	bus := gravbus.New()
	defer bus.Close()
	must(t, bus.Connect().On(nop))
	t.Run("no traffic", func(t *testing.T) {
		leakFlat(t, fewer(1_000_000, 10), func(int) { bus.Connect().Disconnect() })
	})
	t.Run("options", func(t *testing.T) {
		leakFlat(t, fewer(200_000, 10), func(i int) { bus.Connect(gravbus.Name(strconv.Itoa(i)), gravbus.Mailbox(i%100)).Disconnect() })
	})
	t.Run("handlers", func(t *testing.T) {
		leakFlat(t, fewer(200_000, 10), func(i int) {
			pod := bus.Connect(gravbus.Mailbox(1 + i%100))
			must(t, pod.OnType("a."+strconv.Itoa(i%7), nop))
			pod.Disconnect()
		})
	})
	t.Run("changes of the handler", func(t *testing.T) {
		leakFlat(t, fewer(100_000, 10), func(int) {
			pod := bus.Connect()
			must(t, pod.On(nop))
			must(t, pod.FilterType("a", false))
			pod.Disconnect()
		})
	})
	t.Run("messages that wait", func(t *testing.T) {
		sender := bus.Connect()
		leakFlat(t, fewer(50_000, 10), func(int) {
			pod := bus.Connect()
			must(t, pod.On(func(gravbus.Message) error { runtime.Gosched(); return nil }))
			for range 10 {
				sender.Send(gravbus.NewMsg("x", make([]byte, 100)))
			}
			pod.Disconnect()
		})
	})
	t.Run("failed messages that are kept", func(t *testing.T) {
		sender := bus.Connect()
		leakFlat(t, fewer(50_000, 10), func(int) {
			pod := bus.Connect()
			must(t, pod.On(func(gravbus.Message) error { return context.Canceled }))
			for range 10 {
				sender.Send(gravbus.NewMsg("x", make([]byte, 100)))
			}
			pod.Disconnect()
		})
	})
}
