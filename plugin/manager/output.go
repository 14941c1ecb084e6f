package manager

import (
	"bytes"
	"io"
	"log/slog"
	"sync"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// maxHandlerOutput is how much of what one process writes goes to the log.
const maxHandlerOutput = 1 << 20

// output puts what a handler writes into the log, line by line, and counts what is too much.
type output struct {
	log *slog.Logger

	mu      sync.Mutex
	left    int
	lost    int64
	streams []*outputStream
}

// outputStream is standard output or standard error; its mutex is that of the output.
type outputStream struct {
	o    *output
	name string
	line []byte
}

func newOutput(log *slog.Logger, name plugin.Name, command string) *output {
	return &output{log: log.With("plugin", name, "handler", command), left: maxHandlerOutput}
}

func (o *output) stream(name string) io.Writer {
	s := &outputStream{o: o, name: name}
	o.streams = append(o.streams, s)
	return s
}

// Write implements io.Writer; it never fails.
func (s *outputStream) Write(p []byte) (int, error) {
	o, n := s.o, len(p)
	o.mu.Lock()
	defer o.mu.Unlock()
	keep := min(len(p), o.left)
	o.left -= keep
	o.lost += int64(len(p) - keep)
	for p = p[:keep]; len(p) > 0; {
		end := bytes.IndexByte(p, '\n')
		take := end
		if end < 0 {
			take = len(p)
		}
		take = min(take, hostabi.MaxLogRecord-len(s.line))
		s.line = append(s.line, p[:take]...)
		if p = p[take:]; len(p) > 0 { // the line ends, or is too long for one record
			s.flush()
			p = bytes.TrimPrefix(p, []byte("\n"))
		}
	}
	return n, nil
}

// flush logs the line; the mutex is held.
func (s *outputStream) flush() {
	s.o.log.Info("output of an event handler", "stream", s.name, "text", string(s.line))
	s.line = s.line[:0]
}

// close logs unfinished lines and how much is missing.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.streams {
		if len(s.line) > 0 {
			s.flush()
		}
	}
	if o.lost > 0 {
		o.log.Info("output of an event handler was too much", "bytes_lost", o.lost)
	}
}
