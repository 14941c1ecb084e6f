package term

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/delivery-station/ds/hostabi"
)

// bars shows progress in the mode that New chose and is the writer for everything else on stderr.
type bars struct {
	t    *Terminal
	mode string

	mu    sync.Mutex
	box   *mpb.Progress
	items map[string]*item
}

type item struct {
	bar   *mpb.Bar
	last  hostabi.Progress
	shown time.Time
	start time.Time
}

func newBars(t *Terminal) *bars {
	return &bars{t: t, mode: t.facts.Progress, items: make(map[string]*item)}
}

// Report shows one report. It never fails and never waits for the terminal longer than one write.
func (t *Terminal) Report(p hostabi.Progress) {
	b := t.bars
	if b.mode == "none" {
		return
	}
	p.Label = Clean(p.Label, 60)
	b.mu.Lock()
	defer b.mu.Unlock()
	it, ok := b.items[p.ID]
	if !ok {
		it = &item{start: time.Now()}
		b.items[p.ID] = it
	}
	switch b.mode {
	case "plain":
		b.plain(it, p)
	case "json":
		b.json(it, p)
	case "bars":
		b.draw(it, p)
	}
	it.last = p
	if p.State == hostabi.ProgressDone || p.State == hostabi.ProgressFail {
		delete(b.items, p.ID)
	}
}

func (b *bars) plain(it *item, p hostabi.Progress) {
	if p.State == hostabi.ProgressRun || p.State == "" {
		return
	}
	word := "done"
	if p.State == hostabi.ProgressFail {
		word = "failed"
	}
	digest := "-"
	if p.Transfer != nil {
		word, digest = p.Transfer.How, string(p.Transfer.Descriptor.Digest)
	}
	fmt.Fprintf(b.t.o.Stderr, "%s %s %s %d %.1f\n", word, p.Label, digest, p.Current, time.Since(it.start).Seconds())
}

// json writes one object per change, at most ten a second for one item.
func (b *bars) json(it *item, p hostabi.Progress) {
	final := p.State == hostabi.ProgressDone || p.State == hostabi.ProgressFail
	if !final && (it.last == p || time.Since(it.shown) < 100*time.Millisecond) {
		return
	}
	it.shown = time.Now()
	state := p.State
	if p.Transfer != nil && p.Transfer.How != hostabi.ByNetwork {
		state = "cached"
	}
	line, err := json.Marshal(struct {
		Event   string `json:"event"`
		Name    string `json:"name"`
		Current int64  `json:"current"`
		Total   int64  `json:"total"`
		State   string `json:"state"`
	}{"progress", p.Label, p.Current, p.Total, state})
	if err == nil {
		_, _ = b.t.o.Stderr.Write(append(line, '\n')) // progress is never worth an error
	}
}

func (b *bars) draw(it *item, p hostabi.Progress) {
	if b.box == nil {
		b.box = mpb.New(mpb.WithOutput(b.t.o.Stderr), mpb.WithWidth(60), mpb.WithRefreshRate(100*time.Millisecond), mpb.WithAutoRefresh())
	}
	if it.bar == nil {
		it.bar = b.box.AddBar(max(p.Total, 0),
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(p.Label, decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f")),
			mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")))
	}
	if p.Total > 0 {
		it.bar.SetTotal(p.Total, false)
	}
	it.bar.SetCurrent(p.Current)
	switch p.State {
	case hostabi.ProgressDone:
		it.bar.SetTotal(-1, true)
	case hostabi.ProgressFail:
		it.bar.Abort(true)
	}
}

// Write puts p above the bars, or directly on stderr where there are none.
func (b *bars) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.box != nil {
		return b.box.Write(p)
	}
	return b.t.o.Stderr.Write(p)
}

func (b *bars) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, it := range b.items {
		if it.bar != nil {
			it.bar.Abort(true)
		}
		delete(b.items, id)
	}
	if b.box != nil {
		b.box.Shutdown()
		b.box = nil
	}
}

var _ io.Writer = (*bars)(nil)
