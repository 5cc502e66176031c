// Worker-group shares jobs among workers: each job goes to exactly one of them.
package main

import (
	"context"
	"fmt"
	"log"
	"sync"

	"github.com/gravbus/gravbus"
)

const workers, jobs = 3, 12

func main() {
	bus := gravbus.New()

	// Every worker waits with its first job until the others have one too: without work at the same time this would never end.
	var allBusy sync.WaitGroup
	allBusy.Add(workers)

	for i := range workers {
		worker := bus.Connect(gravbus.Name(fmt.Sprint("worker-", i+1)), gravbus.InGroup("workers"))
		var first sync.Once
		err := worker.OnType("jobs.*", func(job gravbus.Message) error {
			first.Do(func() { allBusy.Done(); allBusy.Wait() })
			worker.Send(gravbus.NewMsg("results", job.Data()))
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
	}

	// A pod's handler runs once at a time, so it needs no lock.
	done := map[string]int{}
	err := bus.Connect().OnType("results", func(result gravbus.Message) error {
		done[string(result.Data())]++
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	boss := bus.Connect()
	for i := range jobs {
		boss.Send(gravbus.NewTyped("jobs.sum", i))
	}
	if err := bus.Shutdown(context.Background()); err != nil { // all jobs are done, and all results are in
		log.Fatal(err)
	}

	fmt.Println(workers, "workers were busy at the same time")
	once := 0
	for _, times := range done {
		if times == 1 {
			once++
		}
	}
	fmt.Println(once, "of", jobs, "jobs were done exactly once")
}
