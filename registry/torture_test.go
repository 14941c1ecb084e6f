package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// scale picks how much a row of the scoreboard does: smoke within make test, more by DS_TORTURE=ci or full.
func scale(smoke, ci, full int) int {
	switch os.Getenv("DS_TORTURE") {
	case "ci":
		return ci
	case "full":
		return full
	}
	return smoke
}

// seed is where the random numbers of a row begin; DS_TORTURE_SEED repeats a run.
func seed(t *testing.T) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("DS_TORTURE_SEED"), 10, 64)
	if err != nil {
		n = 1
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with DS_TORTURE=%s DS_TORTURE_SEED=%d go test -run '^%s$' ./registry", os.Getenv("DS_TORTURE"), n, t.Name())
		}
	})
	return n
}

// badDay is one row of the fault matrix. The faults may end an operation only with one of the reasons; none
// means that it has to succeed. Whatever succeeds has to have done the right thing.
type badDay struct {
	name    string
	faults  []dstest.Fault
	reasons []hostabi.Reason
	fails   string // operations that cannot succeed
	none    bool   // no referrers are the truth
}

const (
	reads  = "resolve pull resume fetch list referrers copy "
	writes = "push attach "
	blobs  = "pull resume fetch copy "
)

// badDays are the rows. cut is where bodies end, layer the digest of a blob, foreign the URL of another host.
func badDays(cut int64, layer, foreign string) []badDay {
	header := func(k, v string) http.Header { return http.Header{k: {v}} }
	var (
		down    = []hostabi.Reason{hostabi.ReasonRegistryUnavailable}
		limited = []hostabi.Reason{hostabi.ReasonRateLimited}
		denied  = []hostabi.Reason{hostabi.ReasonAddressDenied, hostabi.ReasonRedirectDenied, hostabi.ReasonBadAnswer}
		wrong   = []hostabi.Reason{hostabi.ReasonDigestMismatch, hostabi.ReasonBadAnswer}
		login   = []hostabi.Reason{hostabi.ReasonAuthRequired, hostabi.ReasonForbidden}
	)
	return []badDay{
		{name: "nothing"},
		{name: "every path reset once", faults: []dstest.Fault{{CutAt: -1, Times: 1, EachPath: true}}},
		{name: "every path 503 twice", faults: []dstest.Fault{{Status: 503, Times: 2, EachPath: true}}},
		{name: "every path 500 once", faults: []dstest.Fault{{Status: 500, Times: 1, EachPath: true}}},
		{name: "every path 504 once", faults: []dstest.Fault{{Status: 504, Times: 1, EachPath: true}}},
		{name: "every path 408 once", faults: []dstest.Fault{{Status: 408, Times: 1, EachPath: true}}},
		{name: "every path 522 once", faults: []dstest.Fault{{Status: 522, Times: 1, EachPath: true}}},
		{name: "503 with a pause", faults: []dstest.Fault{{Status: 503, Times: 1, EachPath: true, Header: header("Retry-After", "2")}}},
		{name: "429 with a pause", faults: []dstest.Fault{{Status: 429, Times: 1, EachPath: true, Header: header("Retry-After", "8")}}},
		{name: "429 until a date", faults: []dstest.Fault{{Status: 429, Times: 1, EachPath: true, Header: header("Retry-After", time.Now().Add(20*time.Second).UTC().Format(http.TimeFormat))}}},
		{name: "429 with nonsense", faults: []dstest.Fault{{Status: 429, Times: 1, EachPath: true, Header: header("Retry-After", "soon")}}},
		{name: "429 for an hour", faults: []dstest.Fault{{Status: 429, Header: header("Retry-After", "3600")}}, reasons: limited, fails: reads + writes},
		{name: "503 for ever", faults: []dstest.Fault{{Status: 503}}, reasons: down, fails: reads + writes},
		{name: "reset for ever", faults: []dstest.Fault{{CutAt: -1}}, reasons: down, fails: reads + writes},
		{name: "every blob cut", faults: []dstest.Fault{{Method: "GET", Path: "/blobs/", CutAt: cut, Times: 1, EachPath: true}}},
		{name: "every blob cut thrice", faults: []dstest.Fault{{Method: "GET", Path: "/blobs/", CutAt: cut / 2, Times: 3, EachPath: true}}},
		{name: "a blob always reset", faults: []dstest.Fault{{Method: "GET", Path: layer, CutAt: -1}}, reasons: down, fails: blobs},
		{name: "wrong bytes once", faults: []dstest.Fault{{Method: "GET", Path: "/blobs/", Flip: true, Times: 1, EachPath: true}}},
		{name: "wrong bytes always", faults: []dstest.Fault{{Method: "GET", Path: layer, Flip: true}}, reasons: append(wrong, hostabi.ReasonPushRefused), fails: "pull fetch copy "}, // a whole blob instead of a range is skipped over
		{name: "wrong manifest once", faults: []dstest.Fault{{Method: "GET", Path: "/manifests/sha256:", Flip: true, Times: 1, EachPath: true}}},
		{name: "wrong manifest always", faults: []dstest.Fault{{Method: "GET", Path: "/manifests/", Flip: true}}, reasons: wrong, fails: blobs},
		{name: "short blob", faults: []dstest.Fault{{Method: "GET", Path: layer, Status: 200, Body: "short"}}, reasons: wrong, fails: blobs},
		{name: "long blob", faults: []dstest.Fault{{Method: "GET", Path: layer, Status: 200, Body: strings.Repeat("long ", 100_000)}}, reasons: wrong, fails: blobs},
		{name: "other range", faults: []dstest.Fault{{Method: "GET", Path: "/blobs/", CutAt: cut, Times: 1, EachPath: true}, {Method: "GET", Path: "/blobs/", Times: 1, EachPath: true, Status: 206, Header: header("Content-Range", "bytes 5-9/100000")}}},
		{name: "no range", faults: []dstest.Fault{{Method: "GET", Path: "/blobs/", CutAt: cut, Times: 1, EachPath: true}, {Method: "GET", Path: "/blobs/", Times: 1, EachPath: true, Status: 416}}},
		{name: "html", faults: []dstest.Fault{{Status: 200, Header: header("Content-Type", "text/html"), Body: "<html>log in"}}, reasons: append(wrong, hostabi.ReasonPushRefused, hostabi.ReasonFeatureMissing), fails: blobs + "list "},
		{name: "401 for ever", faults: []dstest.Fault{{Status: 401, Header: header("Www-Authenticate", `Basic realm="x"`)}}, reasons: login, fails: reads + writes},
		{name: "403", faults: []dstest.Fault{{Status: 403}}, reasons: login, fails: reads + writes},
		{name: "404", faults: []dstest.Fault{{Method: "GET", Path: "/manifests/", Status: 404}}, reasons: []hostabi.Reason{hostabi.ReasonRefNotFound, hostabi.ReasonFeatureMissing}, fails: blobs, none: true},
		{name: "418", faults: []dstest.Fault{{Status: 418}}, reasons: append(wrong, hostabi.ReasonPushRefused), fails: reads + writes},
		{name: "expired token", faults: []dstest.Fault{{Path: "/blobs/", Status: 401, Times: 1, Header: header("Www-Authenticate", `Basic realm="x"`)}}, reasons: login},
		{name: "redirect to private", faults: []dstest.Fault{{Method: "GET", Path: "/v2/", Status: 307, Header: header("Location", "http://10.0.0.1/x")}}, reasons: denied, fails: blobs + "list "},
		{name: "redirect to metadata", faults: []dstest.Fault{{Method: "GET", Path: "/v2/", Status: 307, Header: header("Location", "http://169.254.169.254/latest")}}, reasons: denied, fails: blobs + "list "},
		{name: "redirect to a foreign name", faults: []dstest.Fault{{Method: "GET", Path: "/v2/", Status: 307, Header: header("Location", foreign)}}, reasons: denied, fails: blobs + "list "},
		{name: "redirect to a file", faults: []dstest.Fault{{Method: "GET", Path: "/v2/", Status: 307, Header: header("Location", "file:///etc/passwd")}}, reasons: denied, fails: blobs + "list "},
		{name: "redirect for ever", faults: []dstest.Fault{{Method: "GET", Path: "/v2/", Status: 307, Header: header("Location", "/v2/loop")}}, reasons: denied, fails: blobs + "list "},
		{name: "foreign realm", faults: []dstest.Fault{{Status: 401, Header: header("Www-Authenticate", `Bearer realm="`+foreign+`/token",service="x"`)}}, reasons: append(login, hostabi.ReasonAddressDenied), fails: reads + writes},
		{name: "foreign upload", faults: []dstest.Fault{{Method: "POST", Status: 202, Header: header("Location", foreign+"/v2/x")}}, reasons: append(denied, hostabi.ReasonPushRefused), fails: "push attach copy "},
		{name: "foreign link", faults: []dstest.Fault{{Path: "/tags/list", Header: header("Link", "<"+foreign+`/v2/x/tags/list>; rel="next"`)}}, reasons: denied, fails: "list "},
		{name: "POST 500 once", faults: []dstest.Fault{{Method: "POST", Status: 500, Times: 1}}},
		{name: "PUT 503 once", faults: []dstest.Fault{{Method: "PUT", Status: 503, Times: 1, EachPath: true}}},
		{name: "PUT reset once", faults: []dstest.Fault{{Method: "PUT", CutAt: -1, Times: 1, EachPath: true}}},
		{name: "PUT 413", faults: []dstest.Fault{{Method: "PUT", Status: 413}}, reasons: []hostabi.Reason{hostabi.ReasonPushRefused}, fails: "push attach copy "},
		{name: "PUT 400", faults: []dstest.Fault{{Method: "PUT", Path: "/manifests/", Status: 400, Body: `{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}`}}, reasons: []hostabi.Reason{hostabi.ReasonPushRefused}, fails: "push attach copy "},
	}
}

// cell is one operation on one kind of registry on one bad day.
type cell struct {
	srv    *dstest.RegistryServer
	c      *registry.Client
	clean  *registry.Client // without faults
	ref    string           // team/app
	root   hostabi.Descriptor
	layers [][]byte
	none   bool
}

// operations do something and, if it succeeded, report whether it was the right thing.
func operations() map[string]func(ctx context.Context, t *testing.T, x cell) (check func(), err error) {
	right := func(t *testing.T, x cell, s *sink) func() {
		return func() {
			for _, l := range x.layers {
				sameBytes(t, s, hostabi.DigestOf(l), l)
			}
			if !s.holds(x.root.Digest) {
				t.Error("the manifest is missing")
			}
		}
	}
	pull := func(ctx context.Context, t *testing.T, x cell, s *sink) (func(), error) {
		_, err := x.c.Pull(ctx, x.ref+":v1", hostabi.PullOptions{}, s, nil)
		if err != nil && s.holds(x.root.Digest) {
			t.Error("a failed pull published the manifest")
		}
		return right(t, x, s), err
	}
	arrived := func(t *testing.T, x cell, ref string) func() {
		return func() {
			x.srv.Heal()
			s := newSink(t)
			if _, err := x.clean.Pull(context.WithoutCancel(t.Context()), ref, hostabi.PullOptions{}, s, nil); err != nil {
				t.Errorf("what was sent is not there: %v", err)
				return
			}
			right(t, x, s)()
		}
	}
	return map[string]func(ctx context.Context, t *testing.T, x cell) (func(), error){
		"resolve": func(ctx context.Context, t *testing.T, x cell) (func(), error) {
			d, err := x.c.Resolve(ctx, x.ref+":v1")
			return func() {
				if d.Digest != x.root.Digest {
					t.Errorf("resolved to %s", d.Digest)
				}
			}, err
		},
		"pull": func(ctx context.Context, t *testing.T, x cell) (func(), error) { return pull(ctx, t, x, newSink(t)) },
		"resume": func(ctx context.Context, t *testing.T, x cell) (func(), error) {
			s := newSink(t)
			if err := os.WriteFile(s.path(hostabi.DigestOf(x.layers[0]))+".part", x.layers[0][:len(x.layers[0])/3], 0o600); err != nil {
				t.Fatal(err)
			}
			return pull(ctx, t, x, s)
		},
		"fetch": func(ctx context.Context, t *testing.T, x cell) (func(), error) { // as an installer does
			repo, err := x.c.Repository(x.ref)
			if err != nil {
				return nil, err
			}
			d, err := repo.Resolve(ctx, "v1")
			if err != nil {
				return nil, err
			}
			s := newSink(t)
			return right(t, x, s), repo.Fetch(ctx, d, s)
		},
		"list": func(ctx context.Context, t *testing.T, x cell) (func(), error) {
			var tags []string
			for tag, err := range x.c.Tags(ctx, x.ref) {
				if err != nil {
					return nil, err
				}
				tags = append(tags, tag)
			}
			return func() {
				if !slices.Contains(tags, "v1") {
					t.Errorf("tags are %v", tags)
				}
			}, nil
		},
		"referrers": func(ctx context.Context, t *testing.T, x cell) (func(), error) {
			n := 0
			for _, err := range x.c.Referrers(ctx, x.ref, x.root.Digest, "") {
				if err != nil {
					return nil, err
				}
				n++
			}
			return func() {
				if n != 1 && !x.none {
					t.Errorf("%d referrers, want 1", n)
				}
			}, nil
		},
		"push": func(ctx context.Context, t *testing.T, x cell) (func(), error) {
			local := newSink(t)
			root := local.artifact(t, x.layers...)
			return arrived(t, x, x.ref+"-pushed:v1"), x.c.Push(ctx, x.ref+"-pushed:v1", root, local.OpenFunc, nil)
		},
		"attach": func(ctx context.Context, t *testing.T, x cell) (func(), error) {
			d, err := x.c.Attach(ctx, x.ref, x.root, registry.Referrer{ArtifactType: "a/late", MediaType: "c/d", Blob: []byte("late")})
			return func() {
				x.srv.Heal()
				got := collect(t, x.clean.Referrers(context.WithoutCancel(t.Context()), x.ref, x.root.Digest, "a/late"))
				if len(got) != 1 || got[0].Digest != d.Digest {
					t.Errorf("referrers after attaching: %v", got)
				}
			}, err
		},
		"copy": func(ctx context.Context, t *testing.T, x cell) (func(), error) {
			_, err := x.c.Copy(ctx, x.ref+":v1", "oci-layout:"+t.TempDir()+"/x", registry.CopyOptions{})
			if err != nil {
				return nil, err
			}
			_, err = x.c.Copy(ctx, x.ref+":v1", x.ref+"-copied:v1", registry.CopyOptions{})
			return arrived(t, x, x.ref+"-copied:v1"), err
		},
	}
}

// TestS5_Matrix runs every operation on every kind of registry on every bad day.
func TestS5_Matrix(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed(t), 5))
	kinds := map[string]dstest.RegistryOptions{
		"open":  {},
		"token": {Username: "u", Password: canary, Token: true, NoReferrers: true},
		"basic": {Username: "u", Password: canary, NoRanges: true},
	}
	rounds := scale(1, 1, 3)
	var cells atomic.Int64
	other := dstest.Registry(t, dstest.RegistryOptions{}) // where nothing may ever be seen
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	t.Run("cells", func(t *testing.T) {
		for round := range rounds {
			layers := [][]byte{noise(rng.Uint64(), 60_000+rng.IntN(60_000)), noise(rng.Uint64(), 1000+rng.IntN(1000))}
			cut := 1 + rng.Int64N(900)
			for kind, o := range kinds {
				if scale(1, 3, 3) == 1 && kind != "token" {
					continue // make test is content with one
				}
				for _, day := range badDays(cut, string(hostabi.DigestOf(layers[0])), elsewhere) {
					for name, do := range operations() {
						t.Run(fmt.Sprintf("%d/%s/%s/%s", round, kind, day.name, name), func(t *testing.T) {
							t.Parallel()
							cells.Add(1)
							runCell(t, o, day, name, layers, do)
						})
					}
				}
			}
		}
	})
	for _, q := range other.Requests() {
		t.Errorf("a foreign host saw %+v", q)
	}
	t.Logf("S5: %d cells", cells.Load())
}

func runCell(t *testing.T, o dstest.RegistryOptions, day badDay, name string, layers [][]byte, do func(ctx context.Context, t *testing.T, x cell) (func(), error)) {
	srv, ref, root := pushed(t, o, layers...)
	opt := registry.Options{Timeouts: registry.Timeouts{Header: 10 * time.Second, Idle: 10 * time.Second}}
	if o.Username != "" {
		opt.Credentials = []registry.Credential{{Registry: srv.Host, Username: o.Username, Password: o.Password}}
	}
	x := cell{srv: srv, ref: strings.TrimSuffix(ref, ":v1"), root: root, layers: layers, none: day.none}
	x.c, _ = newClient(t, opt)
	x.clean, _ = newClient(t, opt)
	if _, err := x.clean.Attach(t.Context(), x.ref, root, registry.Referrer{ArtifactType: "a/early", MediaType: "c/d", Blob: []byte("early")}); err != nil {
		t.Fatal(err)
	}
	srv.Forget()
	for _, f := range day.faults {
		srv.Inject(f)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer time.AfterFunc(time.Minute, cancel).Stop() // a hang is a failure; no deadline, which the client's own clock would reach
	check, err := do(ctx, t, x)
	n := len(srv.Requests())
	switch {
	case err == nil && strings.Contains(day.fails, name+" "):
		t.Errorf("succeeded")
	case err == nil:
		check()
	case !slices.Contains(day.reasons, hostabi.ReasonOf(err)):
		t.Errorf("error %v (%s), want one of %v", err, hostabi.ReasonOf(err), day.reasons)
	default:
		if _, ok := errors.AsType[*registry.Error](err); !ok {
			t.Errorf("%v has no cause of this package", err)
		}
	}
	if n > 200 {
		t.Errorf("%d requests", n)
	}
	noCanary(t, err)
}

// TestS5_EveryBlobCutOnce pulls an artifact of 64 blobs each of which is cut once, at random: it succeeds, and
// next to nothing is fetched twice.
func TestS5_EveryBlobCutOnce(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed(t), 64))
	size := scale(32<<10, 1<<20, 8<<20)
	layers := make([][]byte, 64)
	total := int64(2) // the configuration
	for i := range layers {
		layers[i] = noise(rng.Uint64(), size)
		total += int64(size)
	}
	srv, ref, _ := pushed(t, dstest.RegistryOptions{}, layers...)
	for _, l := range layers {
		srv.Inject(dstest.Fault{Method: "GET", Path: string(hostabi.DigestOf(l)), Times: 1, CutAt: 1 + rng.Int64N(int64(size))})
	}
	c, _ := newClient(t, registry.Options{})
	s := newSink(t)
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, s, nil); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		sameBytes(t, s, hostabi.DigestOf(l), l)
	}
	sent := srv.Sent("/blobs/")
	if float64(sent) > 1.05*float64(total) {
		t.Errorf("%d bytes crossed the wire for %d", sent, total)
	}
	t.Logf("S5: 64 blobs of %d bytes, each cut once: %.3f of the bytes sent", size, float64(sent)/float64(total))
}

// TestS5_NothingEndless: bodies without an end are left early, whatever asked for them.
func TestS5_NothingEndless(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	endless := func(w http.ResponseWriter, mediaType, begin, repeat string) {
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Docker-Content-Digest", string(hostabi.DigestOf(nil)))
		_, _ = io.WriteString(w, begin)
		chunk := []byte(strings.Repeat(repeat, 64<<10/len(repeat)))
		for {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}
	pages := atomic.Int64{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case strings.HasPrefix(q.URL.Path, "/v2/pages/"):
			w.Header().Set("Link", fmt.Sprintf(`</v2/pages/tags/list?n=%d>; rel="next"`, pages.Add(1)))
			_, _ = io.WriteString(w, `{"tags":["a"]}`)
		case strings.Contains(q.URL.Path, "/tags/"):
			endless(w, "application/json", `{"tags":["a"`, `,"aaaaaaaaaaaaaaaaaaaaaaa"`)
		case strings.Contains(q.URL.Path, "/referrers/"):
			endless(w, typeIndex, `{"schemaVersion":2,"manifests":[`, " ")
		case q.Method == http.MethodHead:
			w.Header().Set("Content-Type", typeManifest)
			w.Header().Set("Docker-Content-Digest", string(hostabi.DigestOf(nil)))
			w.Header().Set("Content-Length", "1073741824")
		case strings.Contains(q.URL.Path, "/error/"):
			w.WriteHeader(http.StatusTeapot)
			endless(w, "application/json", `{"errors":[{"message":"`, "x")
		default:
			endless(w, typeManifest, `{"schemaVersion":2,"x":"`, "x")
		}
	}))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	c, _ := newClient(t, registry.Options{})
	repo, err := c.Repository(host + "/a/b")
	if err != nil {
		t.Fatal(err)
	}
	lists := func(repo string) error {
		for _, err := range c.Tags(t.Context(), repo) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	for name, do := range map[string]func() error{
		"pull": func() error {
			_, err := c.Pull(t.Context(), host+"/a/b:v1", hostabi.PullOptions{}, newSink(t), nil)
			return err
		},
		"manifest": func() error {
			_, err := repo.Manifest(t.Context(), hostabi.Descriptor{MediaType: typeManifest, Digest: hostabi.DigestOf(nil), Size: 100})
			return err
		},
		"blob": func() error {
			return repo.Fetch(t.Context(), hostabi.Descriptor{MediaType: typeLayer, Digest: hostabi.DigestOf(nil), Size: 100}, newSink(t))
		},
		"error": func() error {
			_, err := c.Pull(t.Context(), host+"/error/b@"+string(hostabi.DigestOf([]byte("x"))), hostabi.PullOptions{}, newSink(t), nil)
			return err
		},
		"tags":  func() error { return lists(host + "/a/b") },
		"pages": func() error { return lists(host + "/pages/x") },
		"referrers": func() error {
			for _, err := range c.Referrers(t.Context(), host+"/a/b", hostabi.DigestOf([]byte("y")), "") {
				if err != nil {
					return err
				}
			}
			return nil
		},
	} {
		sent.Store(0)
		err := do()
		if r := hostabi.ReasonOf(err); r != hostabi.ReasonBadAnswer && r != hostabi.ReasonDigestMismatch {
			t.Errorf("%s: %v (%s)", name, err, r)
		}
		if n := sent.Load(); n > 64<<20 {
			t.Errorf("%s: %d bytes were taken", name, n)
		}
	}
	if n := pages.Load(); n > 1001 {
		t.Errorf("%d pages of tags were asked for", n)
	}
}
