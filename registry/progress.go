package registry

import (
	"cmp"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/delivery-station/ds/hostabi"
)

const progressEvery = 100 * time.Millisecond

// Event is what a Client does, for those who watch it. Phases of one blob or manifest: start, any number of
// progress, resumed, retry and wait, then exactly one of done, exists and failed.
type Event struct {
	Op        string // resolve, manifest, blob, mount, push, tag, tags, referrer, token
	Phase     string
	Ref       string // or the host, of a request
	Digest    hostabi.Digest
	MediaType string
	Title     string
	Size      int64
	Offset    int64         // where a blob is, or is continued
	Source    string        // cache, mirror, origin or mount
	Attempt   int           // of a retry, from 1
	Wait      time.Duration // before it, or as the registry asked
	Err       error
}

// Phases of an Event.
const (
	PhaseStart    = "start"
	PhaseProgress = "progress"
	PhaseResumed  = "resumed"
	PhaseRetry    = "retry"
	PhaseWait     = "wait"
	PhaseDone     = "done"
	PhaseExists   = "exists"
	PhaseFailed   = "failed"
)

func (c *Client) observe(e Event) {
	if c.o.Observer == nil {
		return
	}
	if e.Err != nil && hostabi.ReasonOf(e.Err) == "" {
		e.Err = errors.New(clean(detail(e.Err))) // without the query of a signed address
	}
	c.o.Observer(e)
}

// opOf names what a request is for.
func opOf(q *http.Request) string {
	switch path := q.URL.Path; {
	case strings.Contains(path, "/manifests/") && q.Method == http.MethodHead:
		return "resolve"
	case strings.Contains(path, "/manifests/") && q.Method == http.MethodPut:
		return "tag"
	case strings.Contains(path, "/manifests/"):
		return "manifest"
	case strings.Contains(path, "/blobs/uploads/") && q.URL.Query().Get("mount") != "":
		return "mount"
	case strings.Contains(path, "/blobs/uploads/"):
		return "push"
	case strings.Contains(path, "/blobs/"):
		return "blob"
	case strings.HasSuffix(path, "/tags/list"):
		return "tags"
	case strings.Contains(path, "/referrers/"):
		return "referrer"
	}
	return "token"
}

// reporter passes reports on, one at a time, and knows what was done in this operation.
type reporter struct {
	c    *Client
	ref  string
	push bool
	mu   sync.Mutex
	f    func(hostabi.Progress)
	now  func() time.Time
	done map[hostabi.Digest]bool

	buffers *sync.Pool // of *[]byte
}

func (c *Client) reporter(ref Reference, f func(hostabi.Progress)) *reporter {
	return &reporter{c: c, ref: ref.String(), f: f, now: c.now, done: make(map[hostabi.Digest]bool), buffers: &c.buffers}
}

// finished reports whether d was dealt with: graphs of referrers share blobs.
func (r *reporter) finished(d hostabi.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[d]
}

// pushing makes the reports say that content goes out.
func (r *reporter) pushing() *reporter {
	r.push = true
	return r
}

// item is the progress of one blob or manifest; not safe for concurrent use.
type item struct {
	r      *reporter
	desc   hostabi.Descriptor
	have   int64
	next   time.Time
	begun  bool
	source string // where the bytes are from, when it was no origin
	err    error
}

func (r *reporter) item(d hostabi.Descriptor) *item { return &item{r: r, desc: d} }

func (i *item) send(state string, how string) {
	i.r.mu.Lock()
	defer i.r.mu.Unlock()
	if i.r.done[i.desc.Digest] {
		return
	}
	i.r.done[i.desc.Digest] = state == hostabi.ProgressDone
	i.observe(state, how)
	if i.r.f == nil {
		return
	}
	p := hostabi.Progress{ID: string(i.desc.Digest), Label: label(i.desc), Current: i.have, Total: i.desc.Size, State: state}
	if how != "" {
		p.Transfer = &hostabi.Transfer{Descriptor: i.desc, How: how}
	}
	i.r.f(p)
}

// observe derives the events of a report.
func (i *item) observe(state, how string) {
	if i.r.c.o.Observer == nil {
		return
	}
	e := Event{
		Op: "blob", Phase: PhaseProgress, Ref: i.r.ref, Digest: i.desc.Digest, MediaType: i.desc.MediaType, Title: i.desc.Annotations[ocispec.AnnotationTitle],
		Size: i.desc.Size, Offset: i.have, Source: cmp.Or(i.source, "origin"),
	}
	switch {
	case i.r.push:
		e.Op = "push"
	case isManifest(i.desc.MediaType):
		e.Op = "manifest"
	}
	if !i.begun {
		i.begun = true
		start := e
		start.Phase = PhaseStart
		i.r.c.observe(start)
		if state == hostabi.ProgressRun {
			return
		}
	}
	switch {
	case state == hostabi.ProgressFail:
		e.Phase, e.Err = PhaseFailed, i.err
	case how == hostabi.ByMount:
		e.Op, e.Phase, e.Source = "mount", PhaseDone, "mount"
	case how == hostabi.FromCache:
		e.Phase, e.Source = PhaseExists, "cache"
	case how == hostabi.AtTarget:
		e.Phase = PhaseExists
	case state == hostabi.ProgressDone:
		e.Phase = PhaseDone
	}
	i.r.c.observe(e)
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

func (i *item) fail(err error) {
	i.err = err
	i.send(hostabi.ProgressFail, "")
}

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
