package client

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

const (
	logEvery = 50 * time.Millisecond // the longest that a record waits
	logBatch = 100                   // records that do not wait
)

// Logger writes to the host's log, in batches of at most 50 ms. Records below DS_LOG_LEVEL are not sent.
func (c *Client) Logger() *slog.Logger {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logger == nil {
		b := &logs{c: c}
		c.logger = slog.New(&logHandler{logs: b, level: logLevel(env("DS_LOG_LEVEL"))})
	}
	return c.logger
}

func logLevel(name string) slog.Level {
	var l slog.Level
	if strings.EqualFold(name, "trace") || l.UnmarshalText([]byte(name)) != nil {
		return slog.LevelDebug // the host filters
	}
	return l
}

// logs is the batch that all handlers of a client share.
type logs struct {
	c *Client

	mu         sync.Mutex
	records    []hostv1lite.LogRecord
	size       int
	timer      *time.Timer
	registered bool
}

func (l *logs) add(r hostv1lite.LogRecord) {
	l.mu.Lock()
	l.records = append(l.records, r)
	l.size += len(r.Message) + 64*len(r.Attributes)
	full := len(l.records) >= logBatch || l.size >= hostabi.MaxMessage/2
	if l.timer == nil && !full {
		l.timer = time.AfterFunc(logEvery, func() { _ = l.flush() })
	}
	register := !l.registered
	l.registered = true
	l.mu.Unlock()
	if register {
		l.c.mu.Lock()
		l.c.onClose(l.flush)
		l.c.mu.Unlock()
	}
	if full {
		_ = l.flush()
	}
}

// flush sends the batch. A log that cannot be written is no error of the program.
func (l *logs) flush() error {
	l.mu.Lock()
	records := l.records
	l.records, l.size = nil, 0
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.mu.Unlock()
	if len(records) > 0 {
		_ = l.c.invoke(context.Background(), hostv1lite.LogWrite, &hostv1lite.LogBatch{Records: records}, &hostv1lite.Empty{})
	}
	return nil
}

// logHandler is the slog.Handler of the host's log. Groups are joined into attribute names with dots.
type logHandler struct {
	logs   *logs
	level  slog.Level
	prefix string
	attrs  []slog.Attr // with their full names
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// Handle implements slog.Handler.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	room := hostabi.MaxLogRecord
	out := hostv1lite.LogRecord{Level: int32(r.Level), Message: clip(r.Message, room/2)}
	room -= len(out.Message)
	if !r.Time.IsZero() {
		out.Time = r.Time.UnixMilli()
	}
	if n := len(h.attrs) + r.NumAttrs(); n > 0 {
		out.Attributes = make(map[string]string, n)
	}
	add := func(a slog.Attr) {
		key := clip(a.Key, 256)
		if room <= len(key)+64 {
			return
		}
		v := clip(a.Value.String(), room-len(key))
		out.Attributes[key] = v
		room -= len(key) + len(v)
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(func(a slog.Attr) bool {
		for _, a := range flatten(h.prefix, a) {
			add(a)
		}
		return true
	})
	h.logs.add(out)
	return nil
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	out.attrs = slices.Clip(h.attrs)
	for _, a := range attrs {
		out.attrs = append(out.attrs, flatten(h.prefix, a)...)
	}
	return &out
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	out := *h
	out.prefix += name + "."
	return &out
}

// flatten resolves a and spreads groups.
func flatten(prefix string, a slog.Attr) []slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() != slog.KindGroup {
		if a.Key == "" {
			return nil
		}
		a.Key = prefix + a.Key
		return []slog.Attr{a}
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	var out []slog.Attr
	for _, g := range a.Value.Group() {
		out = append(out, flatten(prefix, g)...)
	}
	return out
}

// clip is s as UTF-8 of at most n bytes, n being 16 or more.
func clip(s string, n int) string {
	const more = "…"
	s = strings.ToValidUTF8(s, "?")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n-len(more)], "") + more
	}
	return s
}

// levelNotice is above slog's levels: the host prints such a record as it is, whatever its log level.
const levelNotice = 12

// notice prints text on the user's terminal through the host.
func (c *Client) notice(text string) error {
	r := hostv1lite.LogRecord{Time: time.Now().UnixMilli(), Level: levelNotice, Message: clip(text, hostabi.MaxLogRecord)}
	return c.invoke(context.Background(), hostv1lite.LogWrite, &hostv1lite.LogBatch{Records: []hostv1lite.LogRecord{r}}, &hostv1lite.Empty{})
}
