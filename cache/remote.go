package cache

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// Upstream is a tier that a team shares: it holds blobs beside the repositories that they are from. source is
// such a repository: a blob counts as there only if somebody who fetched it from source has said so, or a
// manifest could lift another repository's blob out of the tier by naming its digest. It is safe for
// concurrent use; its calls end when ctx does.
type Upstream interface {
	// Name is what people call it.
	Name() string
	// Fetch opens d from offset on, or from an earlier byte: at says which. REF_NOT_FOUND = not there.
	Fetch(ctx context.Context, source string, d hostabi.Descriptor, offset int64) (body io.ReadCloser, at int64, err error)
	// Push stores d, which open gives, unless it is there from source.
	Push(ctx context.Context, source string, d hostabi.Descriptor, open func() (*os.File, error)) error
}

// Remote configures the tier between this cache and the origins, cache.md section 10. Without Upstream there
// is none. A zero means the value in brackets.
type Remote struct {
	Upstream    Upstream
	Share       func(source string) bool // whose blobs may be written to it; nil = nothing is written
	NegativeTTL time.Duration            // how long a miss is remembered in this process (60 s), negative = not at all
	Timeout     time.Duration            // longest time without a byte (5 s)
	MaxBlob     int64                    // larger blobs pass it by (1 GiB)
	Hurry       <-chan struct{}          // when it is closed, Close does not wait for what is still to be written
}

const maxMisses = 10_000 // remembered

// remote is the tier as this process uses it. The first failure ends that: there is always the origin. nil is
// a tier that has nothing.
type remote struct {
	Remote
	s    *Store
	log  *slog.Logger
	back writeBack
	told sync.Once

	mu       sync.Mutex
	started  bool // the breaker was asked
	off      bool // for the rest of this process
	answered bool
	breaker  breaker
	probe    func() error // lets the next process probe; nil unless this one does
	misses   map[hostabi.Digest]time.Time
}

func newRemote(s *Store, o Remote) *remote {
	if o.Upstream == nil {
		return nil
	}
	o.NegativeTTL = cmp.Or(o.NegativeTTL, time.Minute)
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	o.MaxBlob = cmp.Or(o.MaxBlob, 1<<30)
	t := &remote{Remote: o, s: s, log: s.log.With("remote", o.Upstream.Name()), misses: make(map[hostabi.Digest]time.Time)}
	t.back.ctx, t.back.stop = context.WithCancel(context.Background())
	return t
}

// Bring gets d from the remote tier into the cache. NOT_CACHED = it has to come from elsewhere.
func (v *View) Bring(ctx context.Context, d hostabi.Descriptor) error {
	if badDigest(d.Digest) != nil || !v.s.remote.serves(v, d) {
		return miss(d.Digest)
	}
	w, err := v.Create(ctx, d)
	if hostabi.ReasonOf(err) == hostabi.ReasonExists {
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.Abort(); err != nil { // keeps what came
		return err
	}
	return miss(d.Digest)
}

// serves reports whether it is worth to ask the tier for d.
func (t *remote) serves(v *View, d hostabi.Descriptor) bool {
	if t == nil || v.foreign() == "" || v.foreign() == t.Upstream.Name() || d.Size <= 0 || d.Size > t.MaxBlob {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.off || t.s.now().Before(t.misses[d.Digest]) {
		return false
	}
	t.start()
	return !t.off
}

// errElsewhere says that the tier did not give all of a blob.
var errElsewhere = errors.New("the origin has to give it")

// fill brings the blob of w from the tier and commits it. After errElsewhere w can be used, and holds what
// came; after any other error it is done. DIGEST_MISMATCH = the tier lied, nothing was kept.
func (t *remote) fill(ctx context.Context, w *writer) error {
	err := t.copy(ctx, w)
	w.offset = w.size
	switch {
	case ctx.Err() != nil:
		_ = w.Abort() // keeps the prefix
		return ctxError(ctx)
	case w.err != nil && hostabi.ReasonOf(w.err) != hostabi.ReasonDigestMismatch: // the disk
		_ = w.Abort()
		return w.err
	case w.err == nil && hostabi.ReasonOf(err) == hostabi.ReasonRefNotFound:
		t.missed(w.want.Digest)
		t.succeeded()
		return errElsewhere
	case w.err == nil && err != nil:
		t.failed(err)
		return errElsewhere
	}
	w.tier = true
	if _, err = w.Commit(ctx); err == nil {
		t.succeeded()
		t.s.count("requests", "result", "remote_hit", 1)
		t.s.count("remote", "result", "hit", 1)
		return nil
	}
	if hostabi.ReasonOf(err) == hostabi.ReasonDigestMismatch {
		t.failed(err)
	}
	return err
}

var (
	errStall = errors.New("no data for too long")
	errRange = errors.New("another range was answered")
)

// copy appends to w what the tier has of its blob. The error is the tier's, that of the disk is in w.err.
func (t *remote) copy(ctx context.Context, w *writer) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(t.patience(), func() { cancel(errStall) })
	defer watch.Stop()
	body, at, err := t.Upstream.Fetch(ctx, w.view.foreign(), w.want, w.size)
	if err != nil {
		return stalled(ctx, err)
	}
	defer func() { _ = body.Close() }() // read only
	if at < 0 || at > w.size {
		return errRange
	}
	arrived := hostabi.Arriving(ctx)
	arrived(w.size)
	buf := make([]byte, min(w.want.Size-at, 256<<10))
	for skip := w.size - at; w.size < w.want.Size; {
		n, err := body.Read(buf)
		if n > 0 {
			watch.Reset(t.Timeout)
			have := min(skip, int64(n)) // an upstream without ranges begins at the start
			skip -= have
			if _, werr := w.Write(buf[have:n]); werr != nil {
				return werr
			}
			arrived(w.size)
		}
		if err == nil || w.size == w.want.Size {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return stalled(ctx, err)
	}
	return nil
}

// stalled names the reason if it was us who gave up.
func stalled(ctx context.Context, err error) error {
	if context.Cause(ctx) == errStall { //nolint:errorlint // it was set as it is
		return errStall
	}
	return err
}

// patience is how long the first byte may take: a fifth of Timeout once the tier has answered; before that all of
// it, for names, TLS and tokens take their time.
func (t *remote) patience() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.answered {
		return t.Timeout / 5
	}
	return t.Timeout
}

// missed remembers that d is not there.
func (t *remote) missed(d hostabi.Digest) {
	t.s.count("requests", "result", "remote_miss", 1)
	t.s.count("remote", "result", "miss", 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.misses) >= maxMisses {
		clear(t.misses)
	}
	t.misses[d] = t.s.now().Add(t.NegativeTTL)
}

// succeeded notes that the tier gave an answer.
func (t *remote) succeeded() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered = true
	if !t.off {
		t.healed()
	}
}

// failed ends the use of the tier by this process. That a login is needed is no failure of the tier, and would
// hide the warning from the next command.
func (t *remote) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.off {
		return
	}
	t.off = true
	result := "failed"
	switch hostabi.ReasonOf(err) {
	case hostabi.ReasonAuthRequired, hostabi.ReasonForbidden:
		result = "denied"
	case hostabi.ReasonDigestMismatch:
		result = "wrong"
		t.settle(breaker.opened)
	default:
		t.settle(breaker.failed)
	}
	t.s.count("remote", "result", result, 1)
	t.warn("DS5008: remote cache is not used, the origin is", err)
}

// warn says one thing about the tier, and then no more.
func (t *remote) warn(msg string, err error) {
	t.told.Do(func() { t.log.Warn(msg, "error", err) })
}
