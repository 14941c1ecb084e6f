package host

import (
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
)

// maxItems bounds the items whose progress waits to be shown.
const maxItems = 256

type termService struct {
	hostv1.UnimplementedTermServer
	owner Terminal
}

// NewTerm serves Term from t; nil means that nobody looks and nobody answers.
func NewTerm(t Terminal) hostv1.TermServer { return &termService{owner: t} }

// progressState keeps the latest report of each item until it may be shown.
type progressState struct {
	mu      sync.Mutex
	owner   Terminal
	shown   time.Time
	order   []string
	waiting map[string]hostabi.Progress
}

// Report implements hostv1.TermServer: of what a plugin reports faster than the limit only the latest state
// of each item is shown; the end of an item always is.
func (t *termService) Report(ctx context.Context, req *hostv1.ProgressBatch) (*hostv1.Empty, error) {
	s := sessionOf(ctx)
	if t.owner == nil {
		return &hostv1.Empty{}, nil
	}
	p := &s.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owner = t.owner
	final := false
	for _, in := range req.GetItems() {
		p.keep(hostabi.Progress{ID: in.GetId(), Label: in.GetLabel(), Current: in.GetCurrent(), Total: in.GetTotal(), State: in.GetState()})
		final = final || in.GetState() == hostabi.ProgressDone || in.GetState() == hostabi.ProgressFail
	}
	if now := s.r.o.Clock(); final || now.Sub(p.shown) >= time.Second/hostabi.MaxProgress {
		p.shown = now
		p.show()
	}
	return &hostv1.Empty{}, nil
}

func (p *progressState) keep(pr hostabi.Progress) {
	if p.waiting == nil {
		p.waiting = make(map[string]hostabi.Progress)
	}
	if _, ok := p.waiting[pr.ID]; !ok {
		if len(p.order) >= maxItems {
			p.show()
		}
		p.order = append(p.order, pr.ID)
	}
	p.waiting[pr.ID] = pr
}

func (p *progressState) show() {
	for _, id := range p.order {
		p.owner.Report(p.waiting[id])
	}
	p.order = p.order[:0]
	clear(p.waiting)
}

func (s *Session) flushProgress() {
	s.progress.mu.Lock()
	defer s.progress.mu.Unlock()
	if s.progress.owner != nil {
		s.progress.show()
	}
}

func gatePrompt(c *call, req any) error {
	r := req.(*hostv1.PromptRequest)
	switch r.GetKind() {
	case "confirm", "line", "choose", "secret":
	default:
		return hostabi.Errorf(hostabi.ReasonBadMessage, "prompt kind %q: not confirm, line, secret or choose", clean(r.GetKind(), 40))
	}
	return c.need(hostabi.TermPrompt, r.GetKind())
}

// Prompt implements hostv1.TermServer. Without anybody to ask the fallback is the answer, or NO_TERMINAL.
func (t *termService) Prompt(ctx context.Context, req *hostv1.PromptRequest) (*hostv1.PromptReply, error) {
	s := sessionOf(ctx)
	size := len(req.GetText()) + len(req.GetFallback())
	for _, c := range req.GetChoices() {
		size += len(c)
	}
	if size > hostabi.MaxPrompt {
		return nil, hostabi.Errorf(hostabi.ReasonTooLarge, "prompt has %d bytes, at most %d", size, hostabi.MaxPrompt)
	}
	if req.GetKind() == "choose" && len(req.GetChoices()) == 0 {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "a prompt to choose has no choices")
	}
	nobody := t.owner == nil || s.inv.Kind == plugin.KindEvent ||
		s.inv.NoInput && req.GetKind() != "confirm" // --yes answers a confirm without a terminal
	if nobody {
		if req.GetFallback() == "" {
			return nil, hostabi.Errorf(hostabi.ReasonNoTerminal, "there is no terminal to ask on and no fallback")
		}
		return &hostv1.PromptReply{Answer: req.GetFallback(), Defaulted: true}, nil
	}
	answer, defaulted, err := t.owner.Prompt(ctx, hostabi.Prompt{
		Kind: req.GetKind(), Text: req.GetText(), Choices: req.GetChoices(), Fallback: req.GetFallback(), Plugin: s.p.Name,
	})
	if err != nil {
		return nil, err
	}
	return &hostv1.PromptReply{Answer: answer, Defaulted: defaulted}, nil
}

// rowState collects the rows of a run until their end.
type rowState struct {
	mu    sync.Mutex
	owner Terminal
	rows  hostabi.Rows
	bytes int
	drawn bool
}

// Rows implements hostv1.TermServer. They are drawn at the end, or when the run ends without one.
func (t *termService) Rows(ctx context.Context, req *hostv1.RowBatch) (*hostv1.Empty, error) {
	s := sessionOf(ctx)
	if t.owner == nil {
		return nil, missing("output")
	}
	r := &s.rows
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drawn {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "rows after the end of the rows")
	}
	bytes := r.bytes
	for _, row := range req.GetRowsJson() {
		if !isObject(row) {
			return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "row %q: not a JSON object", clean(row, 80))
		}
		bytes += len(row)
	}
	if bytes > hostabi.MaxOutput {
		return nil, hostabi.Errorf(hostabi.ReasonQuota, "rows have %d bytes, at most %d", bytes, hostabi.MaxOutput)
	}
	r.owner, r.bytes = t.owner, bytes
	if len(req.GetColumns()) > 0 {
		r.rows.Columns = req.GetColumns()
	}
	if req.GetFormat() != "" {
		r.rows.Format = req.GetFormat()
	}
	r.rows.JSON = append(r.rows.JSON, req.GetRowsJson()...)
	r.rows.Single = r.rows.Single || req.GetSingle()
	if !req.GetEnd() {
		return &hostv1.Empty{}, nil
	}
	return &hostv1.Empty{}, s.drawRows()
}

// drawRows renders once; s.rows.mu is held.
func (s *Session) drawRows() error {
	r := &s.rows
	r.drawn, r.rows.End = true, true
	w := s.inv.Stdout
	if w == nil {
		w = io.Discard
	}
	format := r.rows.Format
	if format == "" {
		format = s.inv.Terminal.Format
	}
	rows := r.rows
	r.rows.JSON = nil
	return r.owner.Rows(w, format, rows)
}

func (s *Session) flushRows() error {
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	if s.rows.owner == nil || s.rows.drawn {
		return nil
	}
	return s.drawRows()
}

func isObject(text string) bool {
	for _, c := range []byte(text) {
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		}
		return c == '{' && json.Valid([]byte(text))
	}
	return false
}
