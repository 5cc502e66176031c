package gravbus_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gravbus/gravbus"
)

// The benchmarks count what is delivered and fail when anything is missing. Compare them with the BenchmarkChannel… of the same run: these
// machines are shared, and absolute figures wander.

// tally counts without synchronization, for one pod whose handler runs one call at a time.
type tally struct {
	n int64
	_ [56]byte
}

func (t *tally) handle(gravbus.Message) error { t.n++; return nil }

func closeBus(b *testing.B, bus *gravbus.Bus) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := bus.Shutdown(ctx); err != nil {
		b.Fatal(err)
	}
}

// perDelivery reports ns/delivery for a benchmark in which each operation makes n deliveries.
func perDelivery(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/delivery")
}

// BenchmarkSend sends a message made beforehand from one pod to others.
func BenchmarkSend(b *testing.B) {
	for _, replay := range []bool{true, false} {
		for _, pods := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("replay=%t/pods=%d", replay, pods), func(b *testing.B) {
				benchmarkSend(b, pods, 0, replay)
			})
		}
	}
}

// BenchmarkSendOwnMailbox is BenchmarkSend to pods that cannot share a ring, because of their policy: each has a mailbox of its own.
func BenchmarkSendOwnMailbox(b *testing.B) {
	for _, pods := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("pods=%d", pods), func(b *testing.B) {
			benchmarkSend(b, pods, 0, true, gravbus.Overflow(gravbus.Block))
		})
	}
}

// BenchmarkSendAmongOthers sends to one pod on a bus where others want other types.
func BenchmarkSendAmongOthers(b *testing.B) {
	for _, others := range []int{0, 100, 10000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) { benchmarkSend(b, 1, others, true) })
	}
}

func benchmarkSend(b *testing.B, pods, others int, replay bool, podOpts ...gravbus.PodOption) {
	var opts []gravbus.Option
	if !replay {
		opts = append(opts, gravbus.UseReplay(0))
	}
	bus := gravbus.New(opts...)
	for i := range others {
		bus.Connect().OnType(fmt.Sprintf("other.type%d", i), func(gravbus.Message) error { b.Error("not for me"); return nil })
	}
	tallies := make([]tally, pods)
	for i := range tallies {
		if err := bus.Connect(podOpts...).OnType("bench.message", tallies[i].handle); err != nil {
			b.Fatal(err)
		}
	}
	pod := bus.Connect()
	msg := gravbus.NewMsg("bench.message", make([]byte, 128))
	runtime.GC()
	b.ReportAllocs()
	for b.Loop() {
		pod.Send(msg)
	}
	closeBus(b, bus) // delivers all; it is part of the measured time's work, so it stays inside
	perDelivery(b, pods)
	for i := range tallies {
		if tallies[i].n != int64(b.N) {
			b.Fatalf("pod %d got %d of %d", i, tallies[i].n, b.N)
		}
	}
}

// BenchmarkChannel is the same over buffered Go channels, one to each of so many goroutines.
func BenchmarkChannel(b *testing.B) {
	for _, receivers := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("receivers=%d", receivers), func(b *testing.B) {
			channels := make([]chan gravbus.Message, receivers)
			tallies := make([]tally, receivers)
			var wg sync.WaitGroup
			for i := range channels {
				channels[i] = make(chan gravbus.Message, gravbus.DefaultMailbox)
				wg.Go(func() {
					for msg := range channels[i] {
						tallies[i].handle(msg)
					}
				})
			}
			msg := gravbus.NewMsg("bench.message", make([]byte, 128))
			runtime.GC()
			b.ReportAllocs()
			for b.Loop() {
				for _, c := range channels {
					c <- msg
				}
			}
			for _, c := range channels {
				close(c)
			}
			wg.Wait()
			perDelivery(b, receivers)
			for i := range tallies {
				if tallies[i].n != int64(b.N) {
					b.Fatalf("receiver %d got %d of %d", i, tallies[i].n, b.N)
				}
			}
		})
	}
}

// BenchmarkMany has several senders at once.
func BenchmarkMany(b *testing.B) {
	for _, c := range []struct{ senders, pods int }{{4, 1}, {4, 4}} {
		b.Run(fmt.Sprintf("senders=%d/pods=%d", c.senders, c.pods), func(b *testing.B) {
			bus := gravbus.New()
			tallies := make([]tally, c.pods)
			for i := range tallies {
				bus.Connect().OnType("bench.message", tallies[i].handle)
			}
			b.ReportAllocs()
			runtime.GC()
			b.ResetTimer()
			var wg sync.WaitGroup
			each := b.N/c.senders + 1
			for range c.senders {
				pod := bus.Connect()
				msg := gravbus.NewMsg("bench.message", make([]byte, 128))
				wg.Go(func() {
					for range each {
						pod.Send(msg)
					}
				})
			}
			wg.Wait()
			closeBus(b, bus)
			perDelivery(b, c.pods)
			for i := range tallies {
				if tallies[i].n != int64(each*c.senders) {
					b.Fatalf("pod %d got %d of %d", i, tallies[i].n, each*c.senders)
				}
			}
		})
	}
}

// BenchmarkManyChannel is BenchmarkMany over channels.
func BenchmarkManyChannel(b *testing.B) {
	for _, c := range []struct{ senders, receivers int }{{4, 1}, {4, 4}} {
		b.Run(fmt.Sprintf("senders=%d/receivers=%d", c.senders, c.receivers), func(b *testing.B) {
			channels := make([]chan gravbus.Message, c.receivers)
			tallies := make([]tally, c.receivers)
			var receiving, sending sync.WaitGroup
			for i := range channels {
				channels[i] = make(chan gravbus.Message, gravbus.DefaultMailbox)
				receiving.Go(func() {
					for msg := range channels[i] {
						tallies[i].handle(msg)
					}
				})
			}
			msg := gravbus.NewMsg("bench.message", make([]byte, 128))
			b.ReportAllocs()
			b.ResetTimer()
			each := b.N/c.senders + 1
			for range c.senders {
				sending.Go(func() {
					for range each {
						for _, ch := range channels {
							ch <- msg
						}
					}
				})
			}
			sending.Wait()
			for _, ch := range channels {
				close(ch)
			}
			receiving.Wait()
			perDelivery(b, c.receivers)
		})
	}
}

// BenchmarkNewMsg makes a message; its data is made beforehand.
func BenchmarkNewMsg(b *testing.B) {
	data := make([]byte, 128)
	b.ReportAllocs()
	for b.Loop() {
		gravbus.NewMsg("bench.message", data)
	}
}

// BenchmarkNewMsgSend makes a message, sends it, and has it delivered.
func BenchmarkNewMsgSend(b *testing.B) {
	bus := gravbus.New()
	var got tally
	bus.Connect().OnType("bench.message", got.handle)
	pod := bus.Connect()
	data := make([]byte, 128)
	runtime.GC()
	b.ReportAllocs()
	for b.Loop() {
		pod.Send(gravbus.NewMsg("bench.message", data))
	}
	closeBus(b, bus)
	if got.n != int64(b.N) {
		b.Fatalf("%d of %d", got.n, b.N)
	}
}

func responder(bus *gravbus.Bus) {
	pod := bus.Connect()
	pod.OnType("bench.request", func(msg gravbus.Message) error {
		pod.ReplyTo(msg, gravbus.NewMsg("bench.reply", nil))
		return nil
	})
}

// BenchmarkRequest is request and reply, one after the other; it reports the median and the 99th percentile.
func BenchmarkRequest(b *testing.B) {
	bus := gravbus.New()
	responder(bus)
	pod := bus.Connect()
	ctx := context.Background()
	took := make([]time.Duration, 0, 1<<20)
	runtime.GC()
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if _, err := pod.Request(ctx, gravbus.NewMsg("bench.request", nil)); err != nil {
			b.Fatal(err)
		}
		if len(took) < cap(took) {
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
	closeBus(b, bus)
}

// BenchmarkRequestInFlight has 64 requests in flight.
func BenchmarkRequestInFlight(b *testing.B) {
	bus := gravbus.New()
	responder(bus)
	ctx := context.Background()
	const inFlight = 64
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range inFlight {
		pod := bus.Connect()
		wg.Go(func() {
			for range b.N/inFlight + 1 {
				if _, err := pod.Request(ctx, gravbus.NewMsg("bench.request", nil)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	closeBus(b, bus)
}

// BenchmarkChannelPingPong is request and reply over two unbuffered channels.
func BenchmarkChannelPingPong(b *testing.B) {
	ping, pong := make(chan gravbus.Message), make(chan gravbus.Message)
	go func() { // ends when ping is closed
		for msg := range ping {
			pong <- msg
		}
		close(pong)
	}()
	msg := gravbus.NewMsg("bench.request", nil)
	b.ReportAllocs()
	for b.Loop() {
		ping <- msg
		<-pong
	}
	close(ping)
	<-pong
}

// BenchmarkChurn connects a pod, sets a handler and disconnects it, on a bus with other pods.
func BenchmarkChurn(b *testing.B) {
	for _, types := range []string{"same", "distinct"} {
		for _, pods := range []int{100, 10000} {
			b.Run(fmt.Sprintf("types=%s/pods=%d", types, pods), func(b *testing.B) {
				bus := gravbus.New()
				name := func(i int) string {
					if types == "same" {
						return "bench.message"
					}
					return fmt.Sprintf("bench.message%d", i)
				}
				for i := range pods {
					bus.Connect().OnType(name(i), nop)
				}
				own := name(pods)
				b.ReportAllocs()
				for b.Loop() {
					pod := bus.Connect()
					pod.OnType(own, nop)
					pod.Disconnect()
				}
				if n := len(bus.Stats().Pods); n != pods {
					b.Fatalf("%d pods left, want %d", n, pods)
				}
			})
		}
	}
}

// BenchmarkIdlePod reports what an idle pod with a handler costs in heap and goroutines, with 100,000 of them.
func BenchmarkIdlePod(b *testing.B) {
	for _, types := range []string{"same", "distinct"} {
		b.Run("types="+types, func(b *testing.B) {
			const pods = 100_000
			names := make([]string, pods)
			for i := range names {
				names[i] = "bench.message"
				if types == "distinct" {
					names[i] += fmt.Sprint(i)
				}
			}
			for b.Loop() {
				var before, after runtime.MemStats
				goroutines := runtime.NumGoroutine()
				runtime.GC()
				runtime.ReadMemStats(&before)
				bus := gravbus.New()
				for i := range pods {
					bus.Connect().OnType(names[i], nop)
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/pods, "B/pod")
				b.ReportMetric(float64(runtime.NumGoroutine()-goroutines), "goroutines")
				if n := runtime.NumGoroutine() - goroutines; n > 0 {
					b.Fatalf("%d idle pods have %d goroutines", pods, n)
				}
				bus.Close()
			}
		})
	}
}
