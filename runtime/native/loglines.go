package native

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
)

// maxLogLine is the longest line that is looked at; longer ones pass in pieces.
const maxLogLine = 64 << 10

// logLines reads what a plugin of protocol 1 writes to its standard error: hclog's JSON records become records
// of ds's own log, everything else is passed on as it is.
type logLines struct {
	to  io.Writer
	log *slog.Logger

	mu     sync.Mutex
	buf    []byte // the beginning of a line that may be a record
	inLine bool   // in the middle of a line that is none
	forks  []*logLines
}

func newLogLines(to io.Writer, log *slog.Logger) *logLines { return &logLines{to: to, log: log} }

// fork is a second source of lines: what is written to both is not mixed within a line that may be a record.
func (l *logLines) fork() *logLines {
	f := newLogLines(l.to, l.log)
	l.mu.Lock()
	l.forks = append(l.forks, f)
	l.mu.Unlock()
	return f
}

// Write implements io.Writer; it never fails, like the sink behind it.
func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n') + 1
		piece := p
		if end > 0 {
			piece = p[:end]
		}
		l.piece(piece, end > 0)
		p = p[len(piece):]
	}
	return n, nil
}

// piece takes a part of one line; last says that the line ends with it.
func (l *logLines) piece(b []byte, last bool) {
	if l.inLine || len(l.buf) == 0 && b[0] != '{' {
		l.inLine = !last
		_, _ = l.to.Write(b)
		return
	}
	l.buf = append(l.buf, b...)
	switch {
	case last && len(l.buf) <= maxLogLine && l.record(l.buf):
		l.buf = l.buf[:0]
	case last || len(l.buf) > maxLogLine:
		l.inLine = !last
		l.pass()
	}
}

// pass passes on what is not a record.
func (l *logLines) pass() {
	if len(l.buf) > 0 {
		_, _ = l.to.Write(l.buf)
		l.buf = l.buf[:0]
	}
}

// flush passes on a last line that has no end.
func (l *logLines) flush() {
	l.mu.Lock()
	forks := l.forks
	l.pass()
	l.mu.Unlock()
	for _, f := range forks {
		f.flush()
	}
}

// record logs one line if it is a record of hclog, whatever types its fields have.
func (l *logLines) record(b []byte) bool {
	var fields map[string]any
	if json.Unmarshal(b, &fields) != nil {
		return false
	}
	message, ok := fields["@message"]
	if !ok {
		return false
	}
	attrs := make([]slog.Attr, 0, len(fields))
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		if name := strings.TrimPrefix(k, "@"); name != "message" && name != "level" && name != "timestamp" {
			attrs = append(attrs, slog.Any(printable(name), plain(fields[k])))
		}
	}
	l.log.LogAttrs(context.Background(), levelOf(fields["@level"]), printable(fmt.Sprint(message)), attrs...)
	return true
}

// plain is a value without control characters: it goes to a terminal.
func plain(v any) any {
	if s, ok := v.(string); ok {
		return printable(s)
	}
	return v
}

func levelOf(v any) slog.Level {
	switch v {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}
