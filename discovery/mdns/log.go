package mdns

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
)

// maxSaid bounds how many kinds of warnings are remembered. There are a dozen or so.
const maxSaid = 64

// A logger logs for one session, and for the DNS library, which knows only the log package. It is
// safe for concurrent use.
type logger struct {
	to *slog.Logger

	mu     sync.Mutex      // guards the rest
	said   map[string]bool // warnings that are still true
	closed bool

	writing sync.WaitGroup // lines that are being logged; added to with mu held and closed false
}

func newLogger(to *slog.Logger) *logger { return &logger{to: to, said: make(map[string]bool)} }

// library returns what the library is to log to.
func (l *logger) library() *log.Logger { return log.New(l, "", 0) }

// Write logs a line of the library, such as "[ERR] mdns: Failed to bind to udp4 port: reason". What
// is wrong with this machine is a warning. What is wrong with a packet is the fault of somebody
// else, and no more than worth a debug line.
func (l *logger) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p))
	level := slog.LevelDebug
	if rest, isErr := strings.CutPrefix(text, "[ERR] "); isErr {
		text = rest
		if strings.Contains(text, "Failed to bind") || strings.Contains(text, "Failed to read") {
			level = slog.LevelWarn
		}
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, "[INFO] "), "mdns: ")
	const most = 300 // a packet may be part of it
	text = text[:min(len(text), most)]
	if level == slog.LevelWarn {
		l.warn(text, "mdns: "+text)
	} else {
		l.log(level, "mdns: "+text)
	}
	return len(p), nil
}

// warn logs a warning, once until it is cleared.
func (l *logger) warn(key, msg string, args ...any) {
	l.mu.Lock()
	first := !l.said[key] && len(l.said) < maxSaid
	if first {
		l.said[key] = true
	}
	l.mu.Unlock()
	if first {
		l.log(slog.LevelWarn, msg, args...)
	}
}

// clear says that what was warned of is over.
func (l *logger) clear(key, msg string, args ...any) {
	l.mu.Lock()
	over := l.said[key]
	delete(l.said, key)
	l.mu.Unlock()
	if over {
		l.log(slog.LevelInfo, msg, args...)
	}
}

func (l *logger) log(level slog.Level, msg string, args ...any) {
	if !l.to.Enabled(context.Background(), level) {
		return
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.writing.Add(1)
	l.mu.Unlock()
	defer l.writing.Done()
	l.to.Log(context.Background(), level, msg, args...)
}

// close waits for lines that are being logged. Nothing is logged after that.
func (l *logger) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.writing.Wait()
}
