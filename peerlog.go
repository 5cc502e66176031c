package gravbus

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// meshLog is where the mesh, the transport and the discoveries log to: the bus's logger.
type meshLog struct {
	to logrus.FieldLogger

	mu     sync.Mutex // guards all below
	told   time.Time  // when the last refusal was logged
	untold int        // refusals since
}

// refused logs a connection that did not become a link: once a second at most, as strangers decide
// how many there are.
func (l *meshLog) refused(remote string, err error) {
	l.mu.Lock()
	now := time.Now()
	if now.Sub(l.told) < time.Second {
		l.untold++
		l.mu.Unlock()
		return
	}
	more := l.untold
	l.told, l.untold = now, 0
	l.mu.Unlock()
	log := l.to.WithField("remote", remote).WithError(err)
	if more > 0 {
		log = log.WithField("more", more)
	}
	log.Warn("gravbus: node refused")
}

// down logs that a peer has lost its connection: once a second at most for each peer, as peers too
// may come and go as often as they like.
func (l *meshLog) down(p *peer, err error) {
	p.mu.Lock()
	now := time.Now()
	quiet := now.Sub(p.downAt) < time.Second
	if !quiet {
		p.downAt = now
	}
	p.mu.Unlock()
	if !quiet {
		l.to.WithField("peer", p.uuid).WithError(err).Warn("gravbus: peer lost its connection; what is sent to it is kept")
	}
}

func (l *meshLog) slog() *slog.Logger { return slog.New(&slogHandler{log: l}) }

// slogHandler passes what is logged by slog on to logrus.
type slogHandler struct {
	log    *meshLog
	fields logrus.Fields
	group  string
}

// Enabled asks logrus for its level, if it is one of its own loggers.
func (h *slogHandler) Enabled(_ context.Context, level slog.Level) bool {
	switch l := h.log.to.(type) {
	case *logrus.Logger:
		return l.IsLevelEnabled(logrusLevel(level))
	case *logrus.Entry:
		return l.Logger.IsLevelEnabled(logrusLevel(level))
	}
	return true
}

// Handle logs a record.
func (h *slogHandler) Handle(_ context.Context, r slog.Record) error {
	fields := make(logrus.Fields, len(h.fields)+r.NumAttrs())
	for k, v := range h.fields {
		fields[k] = v
	}
	r.Attrs(func(a slog.Attr) bool {
		fields[h.group+a.Key] = a.Value.Resolve().Any()
		return true
	})
	log := h.log.to.WithFields(fields)
	switch logrusLevel(r.Level) {
	case logrus.ErrorLevel:
		log.Error(r.Message)
	case logrus.WarnLevel:
		log.Warn(r.Message)
	case logrus.InfoLevel:
		log.Info(r.Message)
	default:
		log.Debug(r.Message)
	}
	return nil
}

// WithAttrs returns a handler that adds the attributes to every record.
func (h *slogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fields = make(logrus.Fields, len(h.fields)+len(attrs))
	for k, v := range h.fields {
		next.fields[k] = v
	}
	for _, a := range attrs {
		next.fields[h.group+a.Key] = a.Value.Resolve().Any()
	}
	return &next
}

// WithGroup returns a handler that puts the name before the keys that follow.
func (h *slogHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.group += name + "."
	return &next
}

func logrusLevel(l slog.Level) logrus.Level {
	switch {
	case l >= slog.LevelError:
		return logrus.ErrorLevel
	case l >= slog.LevelWarn:
		return logrus.WarnLevel
	case l >= slog.LevelInfo:
		return logrus.InfoLevel
	}
	return logrus.DebugLevel
}
