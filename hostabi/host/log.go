package host

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

type logService struct {
	hostv1.UnimplementedLogServer
}

// noticeLevel is what the SDK's Printf sends while it shows progress: text for the user, not a record.
const noticeLevel slog.Level = 12

// NewLog serves Log: records go to Options.Log with the plugin's name.
func NewLog() hostv1.LogServer { return logService{} }

// logState counts what a session logged in the current second.
type logState struct {
	mu      sync.Mutex
	second  int64
	count   int
	surplus int
}

// Write implements hostv1.LogServer. A record over the size limit refuses the batch; records over the rate
// are counted and reported as one.
func (logService) Write(ctx context.Context, req *hostv1.LogBatch) (*hostv1.Empty, error) {
	s := sessionOf(ctx)
	for _, r := range req.GetRecords() {
		n := len(r.GetMessage())
		for k, v := range r.GetAttributes() {
			n += len(k) + len(v)
		}
		if n > hostabi.MaxLogRecord {
			return nil, hostabi.Errorf(hostabi.ReasonTooLarge, "log record has %d bytes, at most %d", n, hostabi.MaxLogRecord)
		}
	}
	for _, r := range req.GetRecords() {
		if s.mayLog() {
			s.write(ctx, r)
		}
	}
	return &hostv1.Empty{}, nil
}

// mayLog takes one place in this second; at its end the surplus of the last one is told.
func (s *Session) mayLog() bool {
	s.log.mu.Lock()
	now, lost := s.r.o.Clock().Unix(), 0
	if now != s.log.second {
		lost = s.log.surplus
		s.log.second, s.log.count, s.log.surplus = now, 0, 0
	}
	ok := s.log.count < hostabi.MaxLogRate
	if ok {
		s.log.count++
	} else {
		s.log.surplus++
	}
	s.log.mu.Unlock()
	s.lostRecords(lost)
	return ok
}

func (s *Session) flushLog() {
	s.log.mu.Lock()
	lost := s.log.surplus
	s.log.surplus = 0
	s.log.mu.Unlock()
	s.lostRecords(lost)
}

func (s *Session) lostRecords(n int) {
	if n > 0 {
		s.r.o.Log.Warn("log records dropped", "plugin", s.p.Name, "count", n, "limit_per_second", hostabi.MaxLogRate)
	}
}

// write hands one record on. Level, text and attributes are the plugin's, so they are cleaned and cannot take
// the place of the host's own attributes.
func (s *Session) write(ctx context.Context, r *hostv1.LogRecord) {
	h, level := s.r.o.Log.Handler(), slog.Level(r.GetLevel())
	if level >= noticeLevel && s.r.o.Notice != nil {
		s.r.o.Notice(clean(r.GetMessage(), hostabi.MaxLogRecord))
		return
	}
	if !h.Enabled(ctx, level) {
		return
	}
	at := s.r.o.Clock()
	if r.GetTime() > 0 {
		at = time.UnixMilli(r.GetTime())
	}
	rec := slog.NewRecord(at, level, clean(r.GetMessage(), hostabi.MaxLogRecord), 0)
	rec.AddAttrs(slog.String("plugin", string(s.p.Name)))
	attrs := make([]any, 0, len(r.GetAttributes()))
	for _, k := range slices.Sorted(maps.Keys(r.GetAttributes())) {
		attrs = append(attrs, slog.String(clean(k, hostabi.MaxMethod), clean(r.GetAttributes()[k], hostabi.MaxLogRecord)))
	}
	if len(attrs) > 0 {
		rec.AddAttrs(slog.Group("attr", attrs...))
	}
	s.ignored("write log", h.Handle(ctx, rec))
}
