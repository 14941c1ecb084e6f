package cache_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// office is two registries, the origin of an artifact and the tier of a team, and the caches of its hosts.
type office struct {
	*testing.T
	origin, tier *dstest.RegistryServer
	layers       [][]byte
	root         hostabi.Descriptor
}

const artifact = "/team/app"

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{T: t, origin: dstest.Registry(t, dstest.RegistryOptions{}), tier: dstest.Registry(t, dstest.RegistryOptions{})}
	o.layers = [][]byte{content(1, 300<<10), content(2, 5000)}
	o.root = o.publish(artifact, o.layers...)
	return o
}

// publish pushes an artifact of the layers to the origin.
func (o *office) publish(repository string, layers ...[]byte) hostabi.Descriptor {
	o.Helper()
	blobs := map[hostabi.Digest][]byte{hostabi.DigestOf([]byte("{}")): []byte("{}")}
	describe := func(mediaType string, b []byte) map[string]any {
		blobs[hostabi.DigestOf(b)] = b
		return map[string]any{"mediaType": mediaType, "digest": hostabi.DigestOf(b), "size": len(b)}
	}
	var list []any
	for _, l := range layers {
		list = append(list, describe("application/octet-stream", l))
	}
	const manifest = "application/vnd.oci.image.manifest.v1+json"
	text, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifest, "artifactType": "application/vnd.example.app",
		"config": describe("application/vnd.oci.empty.v1+json", []byte("{}")), "layers": list,
	})
	if err != nil {
		o.Fatal(err)
	}
	blobs[hostabi.DigestOf(text)] = text
	root := hostabi.Descriptor{MediaType: manifest, Digest: hostabi.DigestOf(text), Size: int64(len(text))}
	open := func(_ context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		return struct {
			io.ReadSeeker
			io.Closer
		}{bytes.NewReader(blobs[d]), io.NopCloser(nil)}, nil
	}
	if err := o.client().Push(o.Context(), o.origin.Host+repository+":1", root, open, nil); err != nil {
		o.Fatal(err)
	}
	o.origin.Forget()
	return root
}

func (o *office) client() *registry.Client {
	o.Helper()
	c, err := registry.New(registry.Options{})
	if err != nil {
		o.Fatal(err)
	}
	o.Cleanup(func() { _ = c.Close() })
	return c
}

// desk is one host: a cache with the tier behind it, and what it warned of.
type desk struct {
	*harness
	o     *office
	warns *warnings
}

type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, string(b))
	return len(b), nil
}

func (w *warnings) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.list, "")
}

func everything(string) bool { return true }

// host sets up a host; share may be nil.
func (o *office) host(share func(string) bool, r cache.Remote) *desk {
	o.Helper()
	d := &desk{o: o, warns: new(warnings)}
	if r.Upstream == nil {
		u, err := o.client().Upstream(o.tier.Host + "/team/cache")
		if err != nil {
			o.Fatal(err)
		}
		r.Upstream = u
	}
	r.Share, r.Timeout = share, cmp.Or(r.Timeout, time.Minute) // a busy machine is no broken tier
	d.harness = newStore(o.T, cache.Options{Remote: r, Log: slog.New(slog.NewTextHandler(d.warns, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	return d
}

// pull pulls an artifact as one command does, with a process of its own, and compares what came.
func (d *desk) pull(repository string, layers ...[]byte) error {
	d.Helper()
	s := d.another()
	view := s.View("", d.o.origin.Host+repository)
	_, err := d.o.client().Pull(d.Context(), d.o.origin.Host+repository+":1", hostabi.PullOptions{}, view, nil)
	if err == nil {
		for _, l := range layers {
			f, oerr := view.Open(d.Context(), hostabi.DigestOf(l))
			if oerr != nil {
				d.Fatal(oerr)
			}
			got, rerr := io.ReadAll(f)
			if rerr = errors.Join(rerr, f.Close()); rerr != nil || !bytes.Equal(got, l) {
				d.Errorf("layer has other content, %v", rerr)
			}
		}
	}
	return errors.Join(err, view.Close(), s.Close())
}

// fill has another host fill the tier.
func (o *office) fill() {
	o.Helper()
	a := o.host(everything, cache.Remote{})
	a.must(a.pull(artifact, o.layers...))
	if n := a.metric("remote{result=pushed}"); n != 4 || a.warns.String() != "" {
		o.Fatalf("%d blobs were pushed, want manifest, configuration and two layers; %s", n, a.warns)
	}
	o.origin.Forget()
	o.tier.Forget()
}

func TestTierBetweenTwoHosts(t *testing.T) {
	o := newOffice(t)
	o.fill()
	b := o.host(nil, cache.Remote{})
	b.must(b.pull(artifact, o.layers...))
	for _, q := range o.origin.Requests() {
		if q.Method != http.MethodHead || !strings.HasSuffix(q.Path, "/manifests/1") {
			t.Errorf("the origin was asked for %s %s, want one look at the tag", q.Method, q.Path)
		}
	}
	if n := b.metric("requests{result=remote_hit}"); n != 4 {
		t.Errorf("%d blobs came from the tier, want 4", n)
	}
	for _, q := range o.tier.Requests() {
		if q.Method != http.MethodGet && q.Method != http.MethodHead {
			t.Errorf("nothing is shared, but the tier saw %s %s", q.Method, q.Path)
		}
	}
	info, err := b.another().Stat(t.Context(), hostabi.DigestOf(o.layers[0]))
	if err != nil || len(info.Sources) != 1 || info.Sources[0] != o.origin.Host+artifact {
		t.Errorf("the sources are %v, %v", info.Sources, err)
	}
	if b.warns.String() != "" {
		t.Error(b.warns)
	}
}

// TestTierKeepsRepositoriesApart: a manifest that names the digest of another repository's blob gets it no more
// from the tier than from its origin.
func TestTierKeepsRepositoriesApart(t *testing.T) {
	o := newOffice(t)
	secret := o.layers[0]
	o.fill()
	o.publish("/mallory/app", secret) // knows the digest; the test registry wants the blob too
	o.origin.Inject(dstest.Fault{Path: "/mallory/app/blobs/" + string(hostabi.DigestOf(secret)), Status: http.StatusNotFound})
	b := o.host(nil, cache.Remote{})
	if err := b.pull("/mallory/app", secret); hostabi.ReasonOf(err) != hostabi.ReasonRefNotFound {
		t.Errorf("the pull ended with %v", err)
	}
	b.lacks(hostabi.DigestOf(secret))
}

func TestTierFaults(t *testing.T) {
	const blobs = "/blobs/"
	for name, c := range map[string]struct {
		fault    dstest.Fault
		timeout  time.Duration
		down     bool
		quiet    bool // no warning
		failures int  // that the breaker knows
		open     bool
		resumed  bool // the origin was asked for the rest only
	}{
		"stall in mid-blob":    {fault: dstest.Fault{Path: blobs, StallAt: 1000}, timeout: 4 * time.Second, failures: 1, resumed: true},
		"stall before a byte":  {fault: dstest.Fault{Delay: time.Minute}, timeout: 250 * time.Millisecond, failures: 1},
		"cut in mid-blob":      {fault: dstest.Fault{Path: blobs, CutAt: 1000}, failures: 1, resumed: true},
		"wrong bytes":          {fault: dstest.Fault{Path: blobs, Flip: true}, failures: 3, open: true},
		"not there":            {fault: dstest.Fault{Method: http.MethodGet, Status: http.StatusNotFound}, quiet: true},
		"blob is gone":         {fault: dstest.Fault{Method: http.MethodGet, Path: blobs, Status: http.StatusNotFound}, quiet: true},
		"no entry of a cache":  {fault: dstest.Fault{Method: http.MethodGet, Path: "/manifests/", Status: http.StatusOK, Body: "{}", Header: http.Header{"Content-Type": {"application/vnd.oci.image.manifest.v1+json"}}}, quiet: true},
		"web page":             {fault: dstest.Fault{Status: http.StatusOK, Body: "<html>", Header: http.Header{"Content-Type": {"text/html"}}}, failures: 1},
		"login needed":         {fault: dstest.Fault{Status: http.StatusUnauthorized}},
		"forbidden":            {fault: dstest.Fault{Status: http.StatusForbidden}},
		"too many":             {fault: dstest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3600"}}}, failures: 1},
		"broken":               {fault: dstest.Fault{Status: http.StatusInternalServerError}, failures: 1},
		"reset":                {fault: dstest.Fault{CutAt: -1}, failures: 1},
		"refused":              {down: true, failures: 1},
		"other size":           {fault: dstest.Fault{Path: blobs, Status: http.StatusOK, Body: "short"}, failures: 3, open: true},
		"ranges of its choice": {fault: dstest.Fault{Path: blobs, Status: http.StatusPartialContent, Body: "short"}, failures: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t)
			o.fill()
			o.tier.Inject(c.fault)
			if c.down {
				o.tier.Close()
			}
			b := o.host(everything, cache.Remote{Timeout: c.timeout})
			b.must(b.pull(artifact, o.layers...))
			want := 1
			if c.quiet {
				want = 0
			}
			if n := strings.Count(b.warns.String(), "\n"); n != want || n != strings.Count(b.warns.String(), "DS5008") {
				t.Errorf("%d warnings, want %d: %s", n, want, b.warns)
			}
			state, _ := os.ReadFile(filepath.Join(b.dir, ".ds", "remote.json")) // none = in order
			var known struct {
				Failures int
				Until    time.Time
			}
			if len(state) > 0 {
				b.must(json.Unmarshal(state, &known))
			}
			if known.Failures != c.failures || known.Until.After(time.Now()) != c.open {
				t.Errorf("the breaker knows %s", state)
			}
			resumed := 0
			for _, q := range o.origin.Requests() {
				if q.Range != "" {
					resumed++
				}
			}
			if (resumed > 0) != c.resumed {
				t.Errorf("%d blobs were continued at the origin", resumed)
			}
		})
	}
}

// TestTierBreaker: three failures in a row of different commands and nobody asks; then one does.
func TestTierBreaker(t *testing.T) {
	o := newOffice(t)
	b := o.host(nil, cache.Remote{})
	o.tier.Inject(dstest.Fault{Status: http.StatusBadGateway})
	try := func(s *cache.Store) (asked bool) {
		t.Helper()
		o.tier.Forget()
		view := s.View("", o.origin.Host+artifact)
		d := hostabi.Descriptor{Digest: hostabi.DigestOf(o.layers[0]), Size: int64(len(o.layers[0]))}
		b.want(view.Bring(t.Context(), d), hostabi.ReasonNotCached)
		return len(o.tier.Requests()) > 0
	}
	command := func() bool {
		s := b.another()
		defer func() { b.must(s.Close()) }()
		return try(s)
	}
	b.at(0)
	for n := range 3 {
		if !command() {
			t.Errorf("failure %d: the tier was not asked", n+1)
		}
	}
	// 30 s, then doubling: each failed probe makes the next pause.
	later := time.Duration(0)
	for pause, longest := 30*time.Second, 10*time.Minute; pause < 2*longest; pause *= 2 {
		pause := min(pause, longest)
		if b.at(later + pause/2); command() {
			t.Errorf("asked within %s", pause)
		}
		later += pause + time.Second
		b.at(later)
		prober, other := b.another(), b.another()
		if !try(prober) {
			t.Errorf("nobody probed after %s", pause)
		}
		if try(other) {
			t.Errorf("asked just after a failed probe, after %s", pause)
		}
		b.must(errors.Join(prober.Close(), other.Close()))
	}
	// Nobody else asks while one probes, and an answer, here 404, closes it.
	o.tier.Heal()
	later += 11 * time.Minute
	b.at(later)
	o.tier.Inject(dstest.Fault{Delay: time.Minute, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	prober, other := b.another(), b.another()
	done := make(chan error)
	go func() {
		d := hostabi.Descriptor{Digest: hostabi.DigestOf(o.layers[0]), Size: int64(len(o.layers[0]))}
		done <- prober.View("", o.origin.Host+artifact).Bring(ctx, d)
	}()
	for len(o.tier.Requests()) == 0 {
		runtime.Gosched()
	}
	view := other.View("", o.origin.Host+artifact)
	d := hostabi.Descriptor{Digest: hostabi.DigestOf(o.layers[1]), Size: int64(len(o.layers[1]))}
	b.want(view.Bring(t.Context(), d), hostabi.ReasonNotCached)
	if n := len(o.tier.Requests()); n != 1 {
		t.Errorf("%d requests while one process probes", n)
	}
	cancel()
	b.want(<-done, hostabi.ReasonInterrupted)
	b.must(errors.Join(prober.Close(), other.Close()))
	if !command() {
		t.Error("nobody probes after a probe that was interrupted")
	}
	if !command() {
		t.Error("not asked after a good answer")
	}
	if _, err := os.Stat(filepath.Join(b.dir, ".ds", "remote.json")); err == nil {
		t.Error("the breaker still remembers failures")
	}
}

func TestTierBreakerFile(t *testing.T) {
	o := newOffice(t)
	until := time.Now().Add(5 * time.Minute).Format(time.RFC3339)
	name := o.tier.Host + "/team/cache"
	for what, c := range map[string]struct {
		text  string
		asked bool
	}{
		"open":             {fmt.Sprintf(`{"name":%q,"failures":3,"pause_seconds":300,"until":%q}`, name, until), false},
		"of another tier":  {fmt.Sprintf(`{"name":"x/y","failures":3,"pause_seconds":300,"until":%q}`, until), true},
		"no JSON":          {"\x00\x01", true},
		"empty":            {"", true},
		"negative":         {fmt.Sprintf(`{"name":%q,"failures":-3,"until":%q}`, name, until), true},
		"endless pause":    {fmt.Sprintf(`{"name":%q,"failures":3,"pause_seconds":99999999999,"until":%q}`, name, until), true},
		"a clock was away": {fmt.Sprintf(`{"name":%q,"failures":3,"pause_seconds":300,"until":"2999-01-01T00:00:00Z"}`, name), true},
		"two failures":     {fmt.Sprintf(`{"name":%q,"failures":2}`, name), true},
	} {
		t.Run(what, func(t *testing.T) {
			b := o.host(nil, cache.Remote{})
			b.put(b.s, []byte("x"), true, 0) // makes the directories
			b.must(os.WriteFile(filepath.Join(b.dir, ".ds", "remote.json"), []byte(c.text), 0o600))
			o.tier.Forget()
			b.must(b.pull(artifact, o.layers...))
			if asked := len(o.tier.Requests()) > 0; asked != c.asked {
				t.Errorf("the tier was asked: %v", asked)
			}
			if b.warns.String() != "" {
				t.Error(b.warns)
			}
		})
	}
}

func TestTierRemembersMisses(t *testing.T) {
	o := newOffice(t)
	for _, c := range []struct {
		ttl   time.Duration
		later time.Duration
		want  int
	}{{0, 30 * time.Second, 1}, {0, 61 * time.Second, 2}, {time.Second, 2 * time.Second, 2}, {-1, 0, 2}} {
		b := o.host(nil, cache.Remote{NegativeTTL: c.ttl})
		o.tier.Forget()
		d := hostabi.Descriptor{Digest: hostabi.DigestOf(o.layers[0]), Size: int64(len(o.layers[0]))}
		view := b.s.View("", o.origin.Host+artifact)
		b.at(0)
		b.want(view.Bring(t.Context(), d), hostabi.ReasonNotCached)
		b.at(c.later)
		b.want(view.Bring(t.Context(), d), hostabi.ReasonNotCached)
		if n := len(o.tier.Requests()); n != c.want {
			t.Errorf("ttl %s, %s later: %d requests, want %d", c.ttl, c.later, n, c.want)
		}
	}
}

// TestTierLeavesAlone what is not its business.
func TestTierLeavesAlone(t *testing.T) {
	o := newOffice(t)
	only := func(source string) bool { return source == o.origin.Host+artifact }
	for name, c := range map[string]struct {
		r     cache.Remote
		share func(string) bool
		put   func(b *desk, data []byte)
		reads bool
		write bool
	}{
		"shared":       {share: only, put: func(b *desk, data []byte) { b.put(b.s.View("", o.origin.Host+artifact), data, true, 0) }, reads: true, write: true},
		"not shared":   {share: only, put: func(b *desk, data []byte) { b.put(b.s.View("", o.origin.Host+"/private/app"), data, true, 0) }, reads: true},
		"no source":    {share: everything, put: func(b *desk, data []byte) { b.put(b.s, data, true, 0) }},
		"of a plugin":  {share: everything, put: func(b *desk, data []byte) { b.put(b.s.View("porter", ""), data, true, 0) }},
		"itself":       {share: everything, put: func(b *desk, data []byte) { b.put(b.s.View("", o.tier.Host+"/team/cache"), data, true, 0) }},
		"large":        {r: cache.Remote{MaxBlob: 100}, share: everything, put: func(b *desk, data []byte) { b.put(b.s.View("", o.origin.Host+artifact), data, true, 0) }},
		"digest later": {share: everything, put: func(b *desk, data []byte) { b.put(b.s.View("", o.origin.Host+artifact), data, false, 0) }},
		"on this machine": {share: everything, put: func(b *desk, data []byte) {
			v := b.s.View("", o.origin.Host+artifact)
			v.Local()
			b.put(v, data, true, 0)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := o.host(c.share, c.r)
			o.tier.Forget()
			c.put(b, content(77, 2000))
			b.must(b.s.Close())
			reads, writes := 0, 0
			for _, q := range o.tier.Requests() {
				if q.Method == http.MethodGet || q.Method == http.MethodHead {
					reads++
				} else {
					writes++
				}
			}
			if (reads > 0) != c.reads || (writes > 0) != c.write {
				t.Errorf("the tier saw %d reads, %d writes", reads, writes)
			}
		})
	}
}

// slow is an upstream whose pushes wait until they may go on, or their context ends.
type slow struct {
	mu     sync.Mutex
	pushed []hostabi.Digest
	begun  chan struct{}
	goOn   chan struct{}
	active int
}

func (s *slow) Name() string { return "registry.test/team/cache" }

func (s *slow) Fetch(context.Context, string, hostabi.Descriptor, int64) (io.ReadCloser, int64, error) {
	return nil, 0, hostabi.Errorf(hostabi.ReasonRefNotFound, "not there")
}

func (s *slow) Push(ctx context.Context, _ string, d hostabi.Descriptor, open func() (*os.File, error)) error {
	s.mu.Lock()
	s.active++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.active--
		s.mu.Unlock()
	}()
	s.begun <- struct{}{}
	select {
	case <-s.goOn:
	case <-ctx.Done():
		return ctx.Err()
	}
	f, err := open()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.pushed = append(s.pushed, d.Digest)
	s.mu.Unlock()
	return f.Close()
}

func TestWriteBackIsBounded(t *testing.T) {
	o := newOffice(t)
	up := &slow{begun: make(chan struct{}, 100), goOn: make(chan struct{})}
	b := o.host(everything, cache.Remote{Upstream: up})
	var put []hostabi.Digest
	for n := range 70 {
		put = append(put, b.put(b.s.View("", "registry.test/app"), content(uint64(n), 100), true, 0))
		if n < 2 {
			<-up.begun
		}
	}
	if up.active != 2 {
		t.Errorf("%d pushes at a time, want 2", up.active)
	}
	if n := b.metric("remote{result=dropped}"); n != 4 {
		t.Errorf("%d of 68 that wait were dropped, want 4", n)
	}
	close(up.goOn)
	b.must(b.s.Close())
	if len(up.pushed) != 66 || b.metric("remote{result=pushed}") != 66 {
		t.Errorf("%d were pushed, want 66", len(up.pushed))
	}
	for _, d := range put[2:6] {
		if slices.Contains(up.pushed, d) {
			t.Errorf("%s was not the youngest", d)
		}
	}
}

// TestWriteBackEndsInAHurry: what a command is to share must not hold up its end.
func TestWriteBackEndsInAHurry(t *testing.T) {
	o := newOffice(t)
	up, hurry := &slow{begun: make(chan struct{}, 100), goOn: make(chan struct{})}, make(chan struct{})
	b := o.host(everything, cache.Remote{Upstream: up, Hurry: hurry})
	for n := range 5 {
		b.put(b.s.View("", "registry.test/app"), content(uint64(n), 100), true, 0)
	}
	close(hurry)
	b.must(b.s.Close())
	if up.active != 0 || len(up.pushed) != 0 || b.metric("remote{result=dropped}") != 5 {
		t.Errorf("%d still push, %d were pushed, %d dropped", up.active, len(up.pushed), b.metric("remote{result=dropped}"))
	}
	if b.warns.String() != "" {
		t.Error(b.warns)
	}
	b.put(b.s.View("", "registry.test/app"), content(9, 100), true, 0) // after Close: not allowed, and not fatal
}

// TestWriteBackWithoutTheRight: one who may only read is told once, and goes on reading.
func TestWriteBackWithoutTheRight(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed} {
		o := newOffice(t)
		o.fill()
		o.tier.Inject(dstest.Fault{Method: http.MethodPost, Status: status})
		b := o.host(everything, cache.Remote{})
		view := b.s.View("", o.origin.Host+artifact)
		b.put(view, content(9, 100), true, 0)
		for b.metric("remote{result=refused}") == 0 {
			runtime.Gosched()
		}
		b.put(view, content(10, 100), true, 0)
		b.must(view.Bring(t.Context(), hostabi.Descriptor{Digest: hostabi.DigestOf(o.layers[0]), Size: int64(len(o.layers[0]))}))
		b.must(b.s.Close())
		if n := strings.Count(b.warns.String(), "\n"); n != 1 || !strings.Contains(b.warns.String(), "cannot be written to") {
			t.Errorf("%d: %d warnings: %s", status, n, b.warns)
		}
		if n := o.tier.Count(http.MethodPost, "/uploads/"); n != 1 {
			t.Errorf("%d: %d uploads were tried", status, n)
		}
		if _, err := os.Stat(filepath.Join(b.dir, ".ds", "remote.json")); err == nil {
			t.Errorf("%d: a missing right opens the breaker", status)
		}
	}
}

// TestTierAndAFullDisk: that is the command's problem, and not the tier's.
func TestTierAndAFullDisk(t *testing.T) {
	o := newOffice(t)
	o.fill()
	b := o.host(nil, cache.Remote{})
	full := true
	b.harness.o.FS = &faultFS{FS: atomicfile.OS(), write: func(name string) error {
		if full && filepath.Base(name) == "blob" {
			return &os.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
		}
		return nil
	}}
	s := b.another()
	view := s.View("", o.origin.Host+artifact)
	big := hostabi.Descriptor{Digest: hostabi.DigestOf(o.layers[0]), Size: int64(len(o.layers[0]))}
	b.want(view.Bring(t.Context(), big), hostabi.ReasonNoSpace)
	if n := b.count("blob"); n != 0 {
		t.Errorf("staging left: %v", b.files())
	}
	full = false
	var seen []int64
	b.must(view.Bring(hostabi.WithArriving(t.Context(), func(n int64) { seen = append(seen, n) }), big))
	if len(seen) < 2 || !slices.IsSorted(seen) || seen[0] != 0 || seen[len(seen)-1] != big.Size {
		t.Errorf("what arrived: %v", seen)
	}
	if b.warns.String() != "" {
		t.Error(b.warns)
	}
}

// TestTierAndManyProcesses: one of them fetches a blob, the tier sees it once.
func TestTierAndManyProcesses(t *testing.T) {
	o := newOffice(t)
	o.fill()
	b := o.host(nil, cache.Remote{})
	big := hostabi.Descriptor{Digest: hostabi.DigestOf(o.layers[0]), Size: int64(len(o.layers[0]))}
	var all sync.WaitGroup
	for range 8 {
		s := b.another()
		all.Go(func() {
			if err := s.View("", o.origin.Host+artifact).Bring(t.Context(), big); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := o.tier.Count(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("the blob was fetched %d times", n)
	}
}

// TestTierAndAnInterrupt: what came stays for the next run.
func TestTierAndAnInterrupt(t *testing.T) {
	o := newOffice(t)
	o.fill()
	o.tier.Inject(dstest.Fault{Path: "/blobs/", StallAt: 100_000})
	b := o.host(nil, cache.Remote{})
	ctx, cancel := context.WithCancel(t.Context())
	big := hostabi.Descriptor{Digest: hostabi.DigestOf(o.layers[0]), Size: int64(len(o.layers[0]))}
	done := make(chan error)
	view := b.s.View("", o.origin.Host+artifact)
	go func() { done <- view.Bring(ctx, big) }()
	prefix := filepath.Join(b.dir, ".ds", "flight", big.Digest.Hex(), "blob")
	for fi, err := os.Stat(prefix); err != nil || fi.Size() < 100_000; fi, err = os.Stat(prefix) {
		runtime.Gosched()
	}
	cancel()
	b.want(<-done, hostabi.ReasonInterrupted)
	o.tier.Heal()
	o.tier.Forget()
	b.must(view.Bring(t.Context(), big))
	if q := o.tier.Requests(); q[len(q)-1].Range != "bytes=100000-" {
		t.Errorf("the last request asks for %q", q[len(q)-1].Range)
	}
	b.has(big.Digest, o.layers[0])
	if b.warns.String() != "" {
		t.Error(b.warns)
	}
}
