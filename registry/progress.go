package registry

import (
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/delivery-station/ds/hostabi"
)

const progressEvery = 100 * time.Millisecond

// reporter passes reports on, one at a time, and knows what was done in this operation.
type reporter struct {
	mu   sync.Mutex
	f    func(hostabi.Progress)
	now  func() time.Time
	done map[hostabi.Digest]bool

	buffers *sync.Pool // of *[]byte
}

func (c *Client) reporter(f func(hostabi.Progress)) *reporter {
	return &reporter{f: f, now: c.now, done: make(map[hostabi.Digest]bool), buffers: &c.buffers}
}

// finished reports whether d was dealt with: graphs of referrers share blobs.
func (r *reporter) finished(d hostabi.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[d]
}

// item is the progress of one blob or manifest; not safe for concurrent use.
type item struct {
	r    *reporter
	desc hostabi.Descriptor
	have int64
	next time.Time
}

func (r *reporter) item(d hostabi.Descriptor) *item { return &item{r: r, desc: d} }

func (i *item) send(state string, how string) {
	i.r.mu.Lock()
	defer i.r.mu.Unlock()
	if i.r.done[i.desc.Digest] {
		return
	}
	i.r.done[i.desc.Digest] = state == hostabi.ProgressDone
	if i.r.f == nil {
		return
	}
	p := hostabi.Progress{ID: string(i.desc.Digest), Label: label(i.desc), Current: i.have, Total: i.desc.Size, State: state}
	if how != "" {
		p.Transfer = &hostabi.Transfer{Descriptor: i.desc, How: how}
	}
	i.r.f(p)
}

// at reports that n bytes are there, at most ten times a second.
func (i *item) at(n int64) {
	i.have = n
	if now := i.r.now(); !now.Before(i.next) {
		i.next = now.Add(progressEvery)
		i.send(hostabi.ProgressRun, "")
	}
}

// done is the last report.
func (i *item) done(how string) {
	i.have = i.desc.Size
	i.send(hostabi.ProgressDone, how)
}

func (i *item) fail() { i.send(hostabi.ProgressFail, "") }

// label is what people call a blob.
func label(d hostabi.Descriptor) string {
	if title := d.Annotations[ocispec.AnnotationTitle]; title != "" {
		return clip(clean(title), 200)
	}
	if isManifest(d.MediaType) {
		return "manifest " + short(d.Digest)
	}
	return short(d.Digest)
}
