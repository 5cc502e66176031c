// Package demo plays a small story on a bus and counts what happens in it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/gravbus/gravbus"
	"github.com/sirupsen/logrus"
)

// Config is what a demonstration depends on. The zero value is a storm of no messages, without
// color.
type Config struct {
	Messages int              // of the storm
	Color    bool             // whether the story is told in color
	Options  []gravbus.Option // of the bus, after the demonstration's own
}

// Report is what a demonstration found out.
type Report struct {
	OK      bool    `json:"ok"` // the story came to its end and every check is right
	Checks  []Check `json:"checks"`
	Counts  Counts  `json:"counts"`
	Storm   Storm   `json:"storm"`
	Machine Machine `json:"machine"`
	Seconds float64 `json:"seconds"`
}

// Check is one count and what it should be.
type Check struct {
	Act      string `json:"act"`
	Name     string `json:"name"`
	Expected int64  `json:"expected"`
	Got      int64  `json:"got"`
	OK       bool   `json:"ok"`
}

// Counts is what the bus itself has counted in the end.
type Counts struct {
	Sent        uint64 `json:"sent"`
	Delivered   uint64 `json:"delivered"`
	Lost        uint64 `json:"lost"`
	Failed      uint64 `json:"failed"`
	DeadLetters uint64 `json:"dead_letters"`
}

// Storm is the last act in figures.
type Storm struct {
	Messages  int     `json:"messages"`
	Senders   int     `json:"senders"`
	Receivers int     `json:"receivers"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"sent_per_second"`
	Delivered float64 `json:"delivered_per_second"`
}

// Machine is where it ran.
type Machine struct {
	Go   string `json:"go"`
	OS   string `json:"os"`
	Arch string `json:"arch"`
	CPUs int    `json:"cpus"` // that Go may use at a time
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %s/%s, GOMAXPROCS=%d", m.Go, m.OS, m.Arch, m.CPUs)
}

// An act is one part of the story.
type act struct {
	name  string // in checks
	title string
	play  func(context.Context, *stage) error
}

var acts = []act{
	{"patterns", "Who hears what", patterns},
	{"requests", "Questions and answers", requests},
	{"group", "Work that is shared", group},
	{"replay", "Late, and nothing missed", replay},
	{"slow", "A slow pod", slow},
	{"failures", "A handler that fails", failures},
	{"storm", "The storm", storm},
}

// Run plays the story on w, and ends early when ctx does. The report is never nil: after an error
// it has what was counted until then. The content of the story is the same each time but for the
// figures of speed.
func Run(ctx context.Context, w io.Writer, cfg Config) (*Report, error) {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard) // the story tells of panics and slow pods itself
	opts := []gravbus.Option{
		gravbus.UseLogger(quiet),
		// Only the act about a slow pod shall have one, however busy the machine is.
		gravbus.UsePodDefaults(gravbus.StallLimit(patience)),
	}
	s := &stage{
		bus:    gravbus.New(append(opts, cfg.Options...)...),
		out:    &printer{w: w, color: cfg.Color, columns: 92},
		report: &Report{Checks: []Check{}},
	}
	s.report.Machine = Machine{runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0)}
	s.report.Storm = Storm{Messages: cfg.Messages, Senders: stormSenders, Receivers: stormReceivers}
	err := s.run(ctx)
	return s.report, err
}

func (s *stage) run(ctx context.Context) error {
	defer s.bus.Close()
	began := time.Now()
	s.out.headline("gravbus", "A small shop on one bus, in one process.")
	for i, a := range acts {
		if err := s.play(ctx, i+1, a); err != nil {
			return err
		}
	}
	if err := s.audit(ctx); err != nil {
		return err
	}
	s.report.Seconds = time.Since(began).Seconds()
	s.report.OK = true
	for _, c := range s.report.Checks {
		s.report.OK = s.report.OK && c.OK
	}
	s.out.summary(s.report)
	return s.out.err
}

// play plays one act. Its pods leave with it.
func (s *stage) play(ctx context.Context, number int, a act) error {
	s.act = a.name
	s.out.title(number, a.title)
	first := len(s.report.Checks)
	err := a.play(ctx, s)
	s.clear()
	if err == nil {
		err = ctx.Err() // what was not awaited to its end is not a wrong count
	}
	if err != nil {
		s.report.Checks = s.report.Checks[:first]
		return err
	}
	s.out.marks(s.report.Checks[first:])
	return s.out.err
}

// audit compares the books of the bus with what the story has counted.
func (s *stage) audit(ctx context.Context) error {
	s.act = "books"
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.bus.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	stats := s.bus.Stats()
	s.report.Counts = Counts{stats.Sent, stats.Delivered, stats.Dropped, stats.Failed, stats.DeadLetters}
	s.check("sent", s.sent.Load(), int64(stats.Sent))
	s.check("handled", s.handled.Load(), int64(stats.Delivered))
	s.check("lost", s.lost.Load(), int64(stats.Dropped))
	return nil
}
