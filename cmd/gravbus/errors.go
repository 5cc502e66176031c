package main

import (
	"context"
	"errors"
	"time"

	"github.com/gravbus/gravbus"
)

// Why a command fails. Some have an exit code of their own.
var (
	errSilent      = errors.New("failed") // it has already said why
	errInterrupted = errors.New("interrupted")
	errNobody      = errors.New("nobody is there")
	errTimeout     = errors.New("time is over")
)

// failure is an error of the work of a command. All other errors that come out of cobra are about
// the command line.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// failed returns an error as one of the work of a command.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1 // the command did its work, and the result is bad
	exitUsage   = 2 // the command line is wrong
	exitNobody  = 3 // nobody wanted what was sent, or answers
	exitTimeout = 4 // not all came in time
)

func exitCode(err error) int {
	var f *failure
	switch {
	case err == nil:
		return exitOK
	case !errors.As(err, &f):
		return exitUsage
	case errors.Is(err, errNobody):
		return exitNobody
	case errors.Is(err, errTimeout):
		return exitTimeout
	}
	return exitFailed
}

// checkWait checks flags that many commands have.
func checkWait(peers int, timeout time.Duration) error {
	if peers < 1 {
		return errors.New("--peers must be positive")
	}
	if timeout < 0 {
		return errors.New("--timeout cannot be negative")
	}
	return nil
}

// badType reports whether err is about a type that nobody can send: an error of the command line.
func badType(err error) bool {
	return errors.Is(err, gravbus.ErrInvalidType) || errors.Is(err, gravbus.ErrReservedType)
}

// withTimeout is context.WithTimeout, but zero means for ever.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
