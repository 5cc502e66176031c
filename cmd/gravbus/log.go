package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
)

// logger returns what commands tell people by, on standard error: warnings and errors unless the
// flags say otherwise.
func (f *joinFlags) logger(cmd *cobra.Command) *logrus.Logger {
	l := logrus.New()
	l.SetOutput(cmd.ErrOrStderr())
	switch {
	case f.quiet:
		l.SetLevel(logrus.ErrorLevel)
	case f.verbose > 1:
		l.SetLevel(logrus.DebugLevel)
	case f.verbose == 1:
		l.SetLevel(logrus.InfoLevel)
	default:
		l.SetLevel(logrus.WarnLevel)
	}
	l.SetFormatter(&lineFormatter{withoutMDNS: !f.mdnsAsked && f.verbose == 0})
	return l
}

// lineFormatter writes lines as a person reads them.
type lineFormatter struct {
	// withoutMDNS leaves out that multicast does not work: many networks have none, and nobody
	// asked for it.
	withoutMDNS bool
}

// Format implements logrus.Formatter.
func (f *lineFormatter) Format(e *logrus.Entry) ([]byte, error) {
	if f.withoutMDNS && strings.HasPrefix(e.Message, "mdns: ") {
		return nil, nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "gravbus: %s", strings.TrimPrefix(e.Message, "gravbus: "))
	var rest []string
	for _, k := range slices.Sorted(maps.Keys(e.Data)) {
		switch k {
		case "error", "err": // of the bus, and of slog in the discoveries
			fmt.Fprintf(&b, ": %v", e.Data[k])
		default:
			rest = append(rest, fmt.Sprintf("%s %v", k, e.Data[k]))
		}
	}
	if len(rest) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(rest, ", "))
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
