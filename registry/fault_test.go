package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// pushed is a registry that holds one artifact under team/app:v1, with an empty log.
func pushed(t *testing.T, o dstest.RegistryOptions, layers ...[]byte) (*dstest.RegistryServer, string, hostabi.Descriptor) {
	t.Helper()
	srv := dstest.Registry(t, o)
	local := newSink(t)
	root := local.artifact(t, layers...)
	c, _ := newClient(t, registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: o.Username, Password: o.Password}}})
	mustPush(t, c, srv.Host+"/team/app:v1", root, local)
	srv.Forget()
	return srv, srv.Host + "/team/app:v1", root
}

// TestPullFaults is the fault matrix of registry.md section 12 for pull: what is injected, what must come out.
func TestPullFaults(t *testing.T) {
	t.Parallel()
	blob := "/blobs/"
	retryAfter := func(v string) http.Header { return http.Header{"Retry-After": {v}} }
	for name, k := range map[string]struct {
		server   dstest.RegistryOptions
		faults   []dstest.Fault
		want     hostabi.Reason // "" = right bytes
		requests int            // GETs of blobs, 0 = not asked
		waited   [2]time.Duration
	}{
		"every blob cut once":           {faults: []dstest.Fault{{Path: blob, Times: 1, EachPath: true, CutAt: 60_000}}, requests: 5},
		"cut before headers":            {faults: []dstest.Fault{{Path: blob, Times: 1, EachPath: true, CutAt: -1}}},
		"cut thrice":                    {faults: []dstest.Fault{{Path: blob, Times: 3, EachPath: true, CutAt: 20_000}}, requests: 9},
		"cut without ranges":            {server: dstest.RegistryOptions{NoRanges: true}, faults: []dstest.Fault{{Path: blob, Times: 1, EachPath: true, CutAt: 60_000}}, requests: 5},
		"wrong range":                   {faults: []dstest.Fault{{Path: blob, Times: 1, EachPath: true, CutAt: 60_000}, {Path: blob, Times: 1, EachPath: true, Status: 206, Header: http.Header{"Content-Range": {"bytes 5-9/100000"}}}}},
		"range not satisfiable":         {faults: []dstest.Fault{{Path: blob, Times: 1, EachPath: true, CutAt: 60_000}, {Path: blob, Times: 1, EachPath: true, Status: 416}}},
		"cut for ever without progress": {faults: []dstest.Fault{{Path: blob, CutAt: -1}}, want: hostabi.ReasonRegistryUnavailable},
		"503 twice":                     {faults: []dstest.Fault{{Path: blob, Times: 2, Status: 503}}},
		"503 for ever":                  {faults: []dstest.Fault{{Path: "/manifests/", Status: 503}}, want: hostabi.ReasonRegistryUnavailable},
		"503 with Retry-After":          {faults: []dstest.Fault{{Path: "/manifests/", Times: 1, Status: 503, Header: retryAfter("2")}}, waited: [2]time.Duration{2 * time.Second, 2500 * time.Millisecond}},
		"429 with Retry-After":          {faults: []dstest.Fault{{Path: "/manifests/", Times: 1, Status: 429, Header: retryAfter("8")}}, waited: [2]time.Duration{8 * time.Second, 8500 * time.Millisecond}},
		"429 too long":                  {faults: []dstest.Fault{{Path: "/manifests/", Status: 429, Header: retryAfter("3600")}}, want: hostabi.ReasonRateLimited, waited: [2]time.Duration{0, 0}},
		"429 for ever":                  {faults: []dstest.Fault{{Path: "/manifests/", Status: 429}}, want: hostabi.ReasonRateLimited},
		"403":                           {faults: []dstest.Fault{{Path: "/manifests/", Status: 403}}, want: hostabi.ReasonForbidden},
		"404":                           {faults: []dstest.Fault{{Path: blob, Status: 404}}, want: hostabi.ReasonRefNotFound},
		"teapot":                        {faults: []dstest.Fault{{Path: blob, Status: 418}}, want: hostabi.ReasonBadAnswer},
		"wrong bytes once":              {faults: []dstest.Fault{{Path: blob, Times: 1, EachPath: true, Flip: true}}},
		"wrong bytes always":            {faults: []dstest.Fault{{Path: blob, Flip: true}}, want: hostabi.ReasonDigestMismatch},
		"wrong manifest once":           {faults: []dstest.Fault{{Method: "GET", Path: "/manifests/", Times: 1, Flip: true}}},
		"wrong manifest always":         {faults: []dstest.Fault{{Method: "GET", Path: "/manifests/", Flip: true}}, want: hostabi.ReasonDigestMismatch},
		"short body":                    {faults: []dstest.Fault{{Path: blob, Status: 200, Body: "short"}}, want: hostabi.ReasonDigestMismatch},
		"long body":                     {faults: []dstest.Fault{{Path: blob, Status: 200, Body: strings.Repeat("long", 100_000)}}, want: hostabi.ReasonDigestMismatch},
		"html":                          {faults: []dstest.Fault{{Path: "/manifests/", Status: 200, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>"}}, want: hostabi.ReasonBadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			layers := [][]byte{noise(1, 100_000), noise(2, 100_000)}
			srv, ref, root := pushed(t, k.server, layers...)
			for _, f := range k.faults {
				srv.Inject(f)
			}
			c, clock := newClient(t, registry.Options{})
			cache := newSink(t)
			_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil)
			wantReason(t, err, k.want)
			if err != nil {
				if cache.holds(root.Digest) {
					t.Error("the manifest was published all the same")
				}
				if cause, ok := errors.AsType[*registry.Error](err); !ok || cause.Host != srv.Host || cause.Repository != "team/app" {
					t.Errorf("the cause is %+v", cause)
				}
			} else {
				for _, l := range layers {
					sameBytes(t, cache, hostabi.DigestOf(l), l)
				}
			}
			if n := srv.Count("GET", blob); k.requests > 0 && n != k.requests {
				t.Errorf("%d requests for blobs, want %d", n, k.requests)
			}
			if w := clock.total(); k.waited[1] > 0 && (w < k.waited[0] || w > k.waited[1]) {
				t.Errorf("waited %s, want %s to %s", w, k.waited[0], k.waited[1])
			}
		})
	}
}

// TestRequestCounts holds the promises of cost that are numbers of requests.
func TestRequestCounts(t *testing.T) {
	t.Parallel()
	srv, ref, root := pushed(t, dstest.RegistryOptions{}, noise(1, 1000), noise(2, 1000))
	c, _ := newClient(t, registry.Options{})
	cache := newSink(t)
	pull := func(ref string) {
		t.Helper()
		srv.Forget()
		if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil); err != nil {
			t.Fatal(err)
		}
	}
	pull(ref)
	if n := len(srv.Requests()); n != 5 {
		t.Errorf("a first pull made %d requests, want HEAD and GET of the manifest and 3 blobs: %v", n, srv.Requests())
	}
	pull(ref)
	if q := srv.Requests(); len(q) != 1 || q[0].Method != http.MethodHead {
		t.Errorf("a pull by tag of what is there: %v", q)
	}
	pull(strings.TrimSuffix(ref, ":v1") + "@" + string(root.Digest))
	if q := srv.Requests(); len(q) != 0 {
		t.Errorf("a pull by digest of what is there: %v", q)
	}
	// An evicted blob of a manifest that is there comes back.
	if err := os.Remove(cache.path(hostabi.DigestOf(noise(2, 1000)))); err != nil {
		t.Fatal(err)
	}
	pull(strings.TrimSuffix(ref, ":v1") + "@" + string(root.Digest))
	if q := srv.Requests(); len(q) != 1 || !cache.holds(hostabi.DigestOf(noise(2, 1000))) {
		t.Errorf("a pull with one blob missing: %v", q)
	}

	srv.Forget()
	if err := c.Push(t.Context(), ref, root, cache.OpenFunc, nil); err != nil {
		t.Fatal(err)
	}
	if q := srv.Requests(); len(q) != 1 {
		t.Errorf("a push of what is there: %v", q)
	}
	srv.Forget()
	if err := c.Push(t.Context(), srv.Host+"/team/other:v1", root, cache.OpenFunc, nil); err != nil {
		t.Fatal(err)
	}
	if heads, posts, puts, n := srv.Count("HEAD", "/blobs/"), srv.Count("POST", "/blobs/"), srv.Count("PUT", ""), len(srv.Requests()); heads != 3 || posts != 3 || puts != 4 || n != 11 {
		t.Errorf("a first push: %d HEAD, %d POST, %d PUT of %d", heads, posts, puts, n)
	}
	if q := srv.Requests(); q[len(q)-1].Path != "/v2/team/other/manifests/v1" {
		t.Errorf("the tag is not last: %v", q[len(q)-1])
	}
	srv.Forget()
	how := newTransfers(t)
	if _, err := c.Copy(t.Context(), srv.Host+"/team/other:v1", srv.Host+"/team/third:v1", registry.CopyOptions{Progress: how.report}); err != nil {
		t.Fatal(err)
	}
	if srv.Count("GET", "/blobs/") != 0 || how.how[hostabi.DigestOf(noise(1, 1000))] != hostabi.ByMount {
		t.Errorf("a copy on one host moved bytes: %v", how.how)
	}
}

// TestResume shows that a later run continues the prefix that an earlier one kept.
func TestResume(t *testing.T) {
	t.Parallel()
	layer := noise(1, 4<<20)
	srv, ref, _ := pushed(t, dstest.RegistryOptions{}, layer)
	c, _ := newClient(t, registry.Options{})
	cache := newSink(t)
	cache.failAt[hostabi.DigestOf(layer)] = 3 << 20
	_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil)
	wantReason(t, err, hostabi.ReasonNoSpace)
	kept := cache.writes[hostabi.DigestOf(layer)]
	clear(cache.failAt)
	srv.Forget()
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, cache, hostabi.DigestOf(layer), layer)
	want := fmt.Sprintf("bytes=%d-", kept)
	for _, q := range srv.Requests() {
		if strings.HasSuffix(q.Path, string(hostabi.DigestOf(layer))) && q.Range != want {
			t.Errorf("asked for %q, want %q", q.Range, want)
		}
	}
	if sent := srv.Sent(string(hostabi.DigestOf(layer))); kept == 0 || sent != int64(len(layer))-kept {
		t.Errorf("kept %d bytes, %d sent again", kept, sent)
	}
}

// TestTornPrefixes: a power cut may leave zeros where a prefix of a blob or a manifest was; the next pull brings all
// the same, in one go.
func TestTornPrefixes(t *testing.T) {
	t.Parallel()
	layer := noise(1, 100_000)
	_, ref, _ := pushed(t, dstest.RegistryOptions{}, layer)
	c, _ := newClient(t, registry.Options{})
	whole, torn := newSink(t), newSink(t)
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, whole, nil); err != nil {
		t.Fatal(err)
	}
	blobs, err := os.ReadDir(whole.dir)
	if err != nil || len(blobs) < 3 {
		t.Fatalf("%d blobs, %v", len(blobs), err)
	}
	for i, b := range blobs {
		fi, err := b.Info()
		if err != nil {
			t.Fatal(err)
		}
		n := fi.Size()
		if i%2 == 0 {
			n = n/2 + 1
		}
		if err := os.WriteFile(filepath.Join(torn.dir, b.Name()+".part"), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, torn, nil); err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		d := hostabi.Digest("sha256:" + b.Name())
		want, err := os.ReadFile(whole.path(d))
		if err != nil {
			t.Fatal(err)
		}
		sameBytes(t, torn, d, want)
	}
}

// TestCutsCostLittle cuts every one of many blobs and counts the bytes on the wire.
func TestCutsCostLittle(t *testing.T) {
	t.Parallel()
	const n, size = 16, 512 << 10
	layers := make([][]byte, n)
	for i := range layers {
		layers[i] = noise(uint64(i), size)
	}
	srv, ref, _ := pushed(t, dstest.RegistryOptions{}, layers...)
	srv.Inject(dstest.Fault{Path: "/blobs/", Times: 1, EachPath: true, CutAt: size / 2})
	c, clock := newClient(t, registry.Options{})
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil); err != nil {
		t.Fatal(err)
	}
	if sent := srv.Sent("/blobs/"); sent > n*size*105/100 {
		t.Errorf("%d bytes crossed the wire for %d", sent, n*size)
	}
	if clock.total() > 0 {
		t.Errorf("waited %s after cuts with progress", clock.total())
	}
}

// TestPushFaults: every step of a push may fail once.
func TestPushFaults(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]struct {
		fault dstest.Fault
		want  hostabi.Reason
		posts int
	}{
		"503 on POST":              {dstest.Fault{Method: "POST", Path: "/blobs/", Times: 1, Status: 503}, "", 4},
		"503 on PUT of a blob":     {dstest.Fault{Method: "PUT", Path: "/blobs/", Times: 1, Status: 503}, "", 4},
		"reset on PUT of a blob":   {dstest.Fault{Method: "PUT", Path: "/blobs/", Times: 1, CutAt: -1}, "", 4},
		"lost upload":              {dstest.Fault{Method: "PUT", Path: "/blobs/", Times: 1, Status: 404}, "", 4},
		"429 on PUT of a blob":     {dstest.Fault{Method: "PUT", Path: "/blobs/", Times: 1, Status: 429, Header: http.Header{"Retry-After": {"3"}}}, "", 4},
		"503 on PUT of manifest":   {dstest.Fault{Method: "PUT", Path: "/manifests/", Times: 1, Status: 503}, "", 3},
		"reset on PUT of manifest": {dstest.Fault{Method: "PUT", Path: "/manifests/", Times: 1, CutAt: -1}, "", 3},
		"503 on HEAD":              {dstest.Fault{Method: "HEAD", Path: "/blobs/", Times: 2, Status: 503}, "", 3},
		"503 for ever":             {dstest.Fault{Method: "PUT", Path: "/blobs/", Status: 503}, hostabi.ReasonRegistryUnavailable, 0},
		"POST 503 for ever":        {dstest.Fault{Method: "POST", Path: "/blobs/", Status: 503}, hostabi.ReasonRegistryUnavailable, 0},
		"manifest invalid":         {dstest.Fault{Method: "PUT", Path: "/manifests/", Status: 400, Body: `{"errors":[{"code":"MANIFEST_INVALID","message":"no \u001b[31mred"}]}`}, hostabi.ReasonPushRefused, 3},
		"too large":                {dstest.Fault{Method: "PUT", Path: "/blobs/", Status: 413}, hostabi.ReasonPushRefused, 0},
		"forbidden":                {dstest.Fault{Method: "POST", Path: "/blobs/", Status: 403}, hostabi.ReasonForbidden, 0},
		"upload elsewhere":         {dstest.Fault{Method: "POST", Path: "/blobs/", Status: 202, Header: http.Header{"Location": {"http://localhost:1/v2/x"}}}, hostabi.ReasonBadAnswer, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := dstest.Registry(t, dstest.RegistryOptions{})
			srv.Inject(k.fault)
			local := newSink(t)
			root := local.artifact(t, noise(1, 300_000), noise(2, 10))
			c, _ := newClient(t, registry.Options{})
			err := c.Push(t.Context(), srv.Host+"/team/app:v1", root, local.OpenFunc, nil)
			wantReason(t, err, k.want)
			if n := srv.Count("POST", "/blobs/"); k.posts > 0 && n != k.posts {
				t.Errorf("%d uploads begun, want %d", n, k.posts)
			}
			if err != nil {
				if strings.ContainsRune(err.Error(), '\x1b') {
					t.Errorf("control character in %q", err)
				}
				return
			}
			cache := newSink(t)
			if _, err := c.Pull(t.Context(), srv.Host+"/team/app:v1", hostabi.PullOptions{}, cache, nil); err != nil {
				t.Fatal(err)
			}
			sameBytes(t, cache, hostabi.DigestOf(noise(1, 300_000)), noise(1, 300_000))
		})
	}
}

// TestForeverIsSixRequests: five repeats, then the error.
func TestForeverIsSixRequests(t *testing.T) {
	t.Parallel()
	srv, ref, _ := pushed(t, dstest.RegistryOptions{}, noise(1, 10))
	for part, want := range map[string]int{"/manifests/": 6, "/blobs/": 6} {
		srv.Heal()
		srv.Inject(dstest.Fault{Path: part, Status: 503, Times: 0, EachPath: true})
		srv.Forget()
		c, _ := newClient(t, registry.Options{Concurrency: 1})
		_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil)
		wantReason(t, err, hostabi.ReasonRegistryUnavailable)
		if n := srv.Count("", part); n != want {
			t.Errorf("%s: %d requests, want %d", part, n, want)
		}
	}
	srv.Heal()
	srv.Inject(dstest.Fault{Status: 429, Header: http.Header{"Retry-After": {"3600"}}})
	srv.Forget()
	c, _ := newClient(t, registry.Options{})
	_, err := c.Resolve(t.Context(), ref)
	wantReason(t, err, hostabi.ReasonRateLimited)
	if cause, _ := errors.AsType[*registry.Error](err); len(srv.Requests()) != 1 || cause.RetryAfter != time.Hour || !strings.Contains(err.Error(), "1h0m0s") {
		t.Errorf("%d requests, %v", len(srv.Requests()), err)
	}
}

// TestOffline: no request and no lookup, but what is known is answered.
func TestOffline(t *testing.T) {
	t.Parallel()
	srv, ref, root := pushed(t, dstest.RegistryOptions{}, noise(1, 10))
	refs := memory{}
	online, _ := newClient(t, registry.Options{Refs: refs})
	cache := newSink(t)
	if _, err := online.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil); err != nil {
		t.Fatal(err)
	}
	srv.Forget()
	c, _ := newClient(t, registry.Options{Refs: refs, Offline: true})
	for _, r := range []string{ref, strings.TrimSuffix(ref, ":v1") + "@" + string(root.Digest)} {
		if d, err := c.Pull(t.Context(), r, hostabi.PullOptions{}, cache, nil); err != nil || d.Digest != root.Digest {
			t.Errorf("pull of what is cached: %v", err)
		}
	}
	_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil)
	wantReason(t, err, hostabi.ReasonOffline)
	_, err = c.Resolve(t.Context(), srv.Host+"/team/app:v2")
	wantReason(t, err, hostabi.ReasonOffline)
	wantReason(t, c.Push(t.Context(), srv.Host+"/x/y:v1", root, cache.OpenFunc, nil), hostabi.ReasonOffline)
	for _, err := range c.Tags(t.Context(), "no-such-host.invalid/x/y") {
		wantReason(t, err, hostabi.ReasonOffline)
	}
	if q := srv.Requests(); len(q) != 0 {
		t.Errorf("requests: %v", q)
	}
}

type memory map[string]hostabi.Descriptor

func (m memory) SetRef(_ context.Context, name string, d hostabi.Descriptor) error {
	m[name] = d
	return nil
}

func (m memory) Ref(_ context.Context, name string) (hostabi.Descriptor, time.Time, error) {
	d, ok := m[name]
	if !ok {
		return d, time.Time{}, hostabi.Errorf(hostabi.ReasonNotCached, "not remembered")
	}
	return d, time.Now(), nil
}

// TestInterrupt: a pull ends with its context and keeps what it has.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	srv, ref, _ := pushed(t, dstest.RegistryOptions{}, noise(1, 10))
	srv.Inject(dstest.Fault{Path: "/blobs/", Delay: time.Hour})
	c, _ := newClient(t, registry.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Pull(ctx, ref, hostabi.PullOptions{}, newSink(t), func(p hostabi.Progress) { cancel() })
	wantReason(t, err, hostabi.ReasonInterrupted)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not say that the context ended", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Pull(ctx, ref, hostabi.PullOptions{}, newSink(t), nil)
	wantReason(t, err, hostabi.ReasonTimeout)
}

// TestSilence: a server that says nothing is left, and one that stops in mid-body too.
func TestSilence(t *testing.T) {
	t.Parallel()
	layer := noise(1, 500_000)
	srv, ref, _ := pushed(t, dstest.RegistryOptions{}, layer)
	srv.Inject(dstest.Fault{Path: "/manifests/", Times: 1, Delay: time.Hour})
	c, _ := newClient(t, registry.Options{Timeouts: registry.Timeouts{Header: 200 * time.Millisecond}})
	cache := newSink(t)
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil); err != nil {
		t.Fatal(err)
	}
	srv.Heal()
	srv.Inject(dstest.Fault{Path: string(hostabi.DigestOf(layer)), Times: 1, StallAt: 100_000})
	c, _ = newClient(t, registry.Options{Timeouts: registry.Timeouts{Idle: 200 * time.Millisecond}})
	cache = newSink(t)
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil); err != nil {
		t.Fatal(err)
	}
	sameBytes(t, cache, hostabi.DigestOf(layer), layer)
}

// TestUnreachable: one clear error, at once.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	srv := dstest.Registry(t, dstest.RegistryOptions{})
	srv.Close()
	c, clock := newClient(t, registry.Options{})
	_, err := c.Resolve(t.Context(), srv.Host+"/team/app:v1")
	wantReason(t, err, hostabi.ReasonRegistryUnavailable)
	if !strings.Contains(err.Error(), "connection refused") || len(clock.slept) > 0 {
		t.Errorf("%v after %v", err, clock.slept)
	}
}
