package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// reroute sends every request to one server, and notes where it was meant to go.
type reroute struct {
	to    string
	asked map[string]bool
}

func (r *reroute) RoundTrip(q *http.Request) (*http.Response, error) {
	r.asked[q.URL.Scheme+"://"+q.URL.Host] = true
	there := q.Clone(q.Context())
	there.URL.Scheme, there.URL.Host = "http", r.to
	resp, err := http.DefaultTransport.RoundTrip(there)
	if err == nil {
		resp.Request = q
	}
	return resp, err
}

// TestHosts: which host is asked, how, and with which credential.
func TestHosts(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]struct {
		ref, want, key string
		o              registry.Options
	}{
		"https":                           {"ghcr.io/a/b", "https://ghcr.io", "ghcr.io", registry.Options{}},
		"docker hub":                      {"docker.io/a/b", "https://registry-1.docker.io", "https://index.docker.io/v1/", registry.Options{}},
		"loopback":                        {"localhost:5/a/b", "http://localhost:5", "localhost:5", registry.Options{}},
		"loopback address":                {"[::1]:5/a/b", "http://[::1]:5", "[::1]:5", registry.Options{}},
		"insecure list":                   {"reg.example:5/a/b", "http://reg.example:5", "reg.example:5", registry.Options{Insecure: []string{"reg.example:5"}}},
		"host entry":                      {"reg.example/a/b", "http://reg.example", "reg.example", registry.Options{Hosts: []registry.Host{{Host: "reg.example", PlainHTTP: true}}}},
		"wildcard entry":                  {"a.corp.example/a/b", "http://a.corp.example", "a.corp.example", registry.Options{Hosts: []registry.Host{{Host: "*.corp.example", PlainHTTP: true}, {Host: "a.corp.example"}}}},
		"wildcard is not the name itself": {"corp.example/a/b", "https://corp.example", "corp.example", registry.Options{Hosts: []registry.Host{{Host: "*.corp.example", PlainHTTP: true}}}},
		"loopback by TLS":                 {"localhost:5/a/b", "https://localhost:5", "localhost:5", registry.Options{Hosts: []registry.Host{{Host: "localhost:5", InsecureTLS: true}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := dstest.Registry(t, dstest.RegistryOptions{Username: "u", Password: canary})
			net := &reroute{to: srv.Host, asked: make(map[string]bool)}
			k.o.Transport, k.o.UserAgent = net, "ds/test"
			k.o.CredentialFiles = []string{dockerConfig(t, k.key, "u", canary)}
			c, _ := newClient(t, k.o)
			local := newSink(t)
			mustPush(t, c, k.ref+":v1", local.artifact(t), local)
			if len(net.asked) != 1 || !net.asked[k.want] {
				t.Errorf("asked %v, want %s", net.asked, k.want)
			}
		})
	}
}

// plainSink is a sink that cannot give back what it holds.
type plainSink struct{ hostabi.Sink }

func TestSinkWithoutOpen(t *testing.T) {
	t.Parallel()
	srv, ref, root := pushed(t, dstest.RegistryOptions{}, noise(1, 1000))
	c, _ := newClient(t, registry.Options{})
	cache := newSink(t)
	for range 2 {
		srv.Forget()
		if d, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, plainSink{cache}, nil); err != nil || d.Digest != root.Digest {
			t.Fatal(err)
		}
	}
	if n := srv.Count("GET", "/blobs/"); n != 0 {
		t.Errorf("%d blobs fetched again", n)
	}
}

// busySink answers EXISTS to Create: another process was faster.
type busySink struct{ *sink }

func (s busySink) Create(context.Context, hostabi.Descriptor) (hostabi.BlobWriter, error) {
	return nil, hostabi.Errorf(hostabi.ReasonExists, "there")
}

// brokenSink fails in one of its methods.
type brokenSink struct {
	*sink
	stat, create error
}

func (s brokenSink) Stat(ctx context.Context, d hostabi.Digest) (hostabi.BlobInfo, error) {
	if s.stat != nil {
		return hostabi.BlobInfo{}, s.stat
	}
	return s.sink.Stat(ctx, d)
}

func (s brokenSink) Create(ctx context.Context, d hostabi.Descriptor) (hostabi.BlobWriter, error) {
	if s.create != nil {
		return nil, s.create
	}
	return s.sink.Create(ctx, d)
}

func TestSinkAnswers(t *testing.T) {
	t.Parallel()
	_, ref, _ := pushed(t, dstest.RegistryOptions{}, noise(1, 1000))
	c, _ := newClient(t, registry.Options{})
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, busySink{newSink(t)}, nil); err != nil {
		t.Errorf("another process was faster: %v", err)
	}
	full := hostabi.Errorf(hostabi.ReasonQuota, "full")
	for _, s := range []hostabi.Sink{brokenSink{newSink(t), full, nil}, brokenSink{newSink(t), nil, full}} {
		_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, s, nil)
		wantReason(t, err, hostabi.ReasonQuota)
	}
	// A blob under the right name with another size is not taken for it.
	cache := newSink(t)
	if err := os.WriteFile(cache.path(hostabi.DigestOf(noise(1, 1000))), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil)
	wantReason(t, err, hostabi.ReasonDigestMismatch)
}

func TestPushSources(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	srv := dstest.Registry(t, dstest.RegistryOptions{})
	local := newSink(t)
	layer := noise(1, 100_000)
	root := local.artifact(t, layer)
	torn := func(ctx context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		f, err := local.Open(ctx, d)
		if err == nil && d == hostabi.DigestOf(layer) {
			return &tornFile{f, 1000}, nil
		}
		return f, err
	}
	err := c.Push(t.Context(), srv.Host+"/a/b:v1", root, torn, nil)
	if hostabi.ReasonOf(err) == "" || srv.Count("POST", "/blobs/") > 2 {
		t.Errorf("a torn source: %v after %d uploads", err, srv.Count("POST", "/blobs/"))
	}
	other := func(ctx context.Context, d hostabi.Digest) (io.ReadSeekCloser, error) {
		return local.Open(ctx, hostabi.DigestOf(layer))
	}
	wantReason(t, c.Push(t.Context(), srv.Host+"/a/b:v1", root, other, nil), hostabi.ReasonDigestMismatch)
	big := local.put(t, typeManifest, noise(2, 5<<20))
	wantReason(t, c.Push(t.Context(), srv.Host+"/a/b:v1", big, local.OpenFunc, nil), hostabi.ReasonBadAnswer)
	bare := local.put(t, "", marshal(t, object{"schemaVersion": 2, "config": jsonDesc(local.put(t, typeEmpty, []byte("{}"))), "layers": []object{}}))
	mustPush(t, c, srv.Host+"/a/b:bare", bare, local)
	if d, err := c.Resolve(t.Context(), srv.Host+"/a/b:bare"); err != nil || d.MediaType != typeManifest {
		t.Errorf("a manifest without a type: %+v, %v", d, err)
	}
}

// TestLostReferrers: another writer undoes the entry of the fallback index, once or always.
func TestLostReferrers(t *testing.T) {
	t.Parallel()
	for times, want := range map[int]hostabi.Reason{1: "", 0: hostabi.ReasonFeatureMissing} {
		srv := dstest.Registry(t, dstest.RegistryOptions{NoReferrers: true})
		local := newSink(t)
		root := local.artifact(t, noise(1, 10))
		c, _ := newClient(t, registry.Options{})
		mustPush(t, c, srv.Host+"/a/b:v1", root, local)
		srv.Inject(dstest.Fault{Method: "PUT", Path: "/manifests/sha256-", Times: times, Status: 201}) // said to be done, and lost
		d, err := c.Attach(t.Context(), srv.Host+"/a/b", root, registry.Referrer{ArtifactType: "a/b", MediaType: "c/d", Blob: []byte("x")})
		wantReason(t, err, want)
		if want == "" {
			if got := collect(t, c.Referrers(t.Context(), srv.Host+"/a/b", root.Digest, "")); len(got) != 1 || got[0].Digest != d.Digest {
				t.Errorf("referrers %v", got)
			}
		}
	}
}

// TestReferrersOfStrangers: a list is a hint, and no answer is not "none".
func TestReferrersOfStrangers(t *testing.T) {
	t.Parallel()
	srv, ref, root := pushed(t, dstest.RegistryOptions{}, noise(1, 10))
	list := func(ds ...hostabi.Descriptor) string {
		entries := []object{}
		for _, d := range ds {
			entries = append(entries, jsonDesc(d, "artifactType", "a/sig"))
		}
		return string(marshal(t, object{"schemaVersion": 2, "mediaType": typeIndex, "manifests": entries}))
	}
	header := http.Header{"Content-Type": {typeIndex}}
	absent := hostabi.Descriptor{MediaType: typeManifest, Digest: someDigest, Size: 5}
	for name, k := range map[string]struct {
		fault dstest.Fault
		want  hostabi.Reason
	}{
		"the subject itself":  {dstest.Fault{Status: 200, Header: header, Body: list(root)}, ""},
		"something stale":     {dstest.Fault{Status: 200, Header: header, Body: list(absent)}, ""},
		"a bad entry":         {dstest.Fault{Status: 200, Header: header, Body: `{"manifests":[{"digest":"x"}]}`}, ""},
		"unavailable":         {dstest.Fault{Status: 503}, hostabi.ReasonRegistryUnavailable},
		"forbidden":           {dstest.Fault{Status: 403}, hostabi.ReasonForbidden},
		"no JSON":             {dstest.Fault{Status: 200, Header: header, Body: "<html>"}, hostabi.ReasonBadAnswer},
		"nothing of the kind": {dstest.Fault{Status: 404}, ""},
	} {
		k.fault.Path = "/referrers/"
		srv.Heal()
		srv.Inject(k.fault)
		c, _ := newClient(t, registry.Options{})
		var last error
		for d, err := range c.Referrers(t.Context(), ref, root.Digest, "a/sig") {
			if last = err; err == nil {
				t.Errorf("%s: %+v", name, d)
			}
		}
		if got := hostabi.ReasonOf(last); got != k.want {
			t.Errorf("%s: %v (%s), want %s", name, last, got, k.want)
		}
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	srv, ref, _ := pushed(t, dstest.RegistryOptions{}, noise(1, 10))
	srv.Inject(dstest.Fault{Status: 404, Body: `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"gone \u202eaway"}]}`, Method: "GET", Path: "/manifests/"})
	c, _ := newClient(t, registry.Options{})
	_, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil)
	if want := ref + ": not found"; err == nil || err.Error() != want && !strings.HasPrefix(err.Error(), want+":") {
		t.Errorf("error %v, want %s", err, want)
	}
	cause, _ := errors.AsType[*registry.Error](err)
	if s := fmt.Sprint(cause); !strings.HasPrefix(s, "pull "+srv.Host+"/team/app") {
		t.Errorf("cause %q", s)
	}
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("permissions do not bind this user")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil { // a directory
		t.Fatal(err)
	}
	local := newSink(t)
	err = c.Push(t.Context(), "oci-layout:"+filepath.Join(dir, "x")+":v1", local.artifact(t), local.OpenFunc, nil)
	wantReason(t, err, hostabi.ReasonReadOnly)
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v hides its cause", err)
	}
}

func TestRetag(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	dir, root := layoutWith(t, c, noise(1, 10))
	ref := "oci-layout:" + dir
	local := newSink(t)
	second := local.artifact(t, noise(2, 10))
	for _, step := range []error{
		c.Tag(t.Context(), ref+":v1", "x"),                          // root has v1 and x
		c.Push(t.Context(), ref+":x", second, local.OpenFunc, nil),  // x moves: root keeps v1 alone
		c.Push(t.Context(), ref+":v1", second, local.OpenFunc, nil), // v1 moves: root stays, without a name
		c.Push(t.Context(), ref+":v1", second, local.OpenFunc, nil),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil || strings.Count(string(b), string(root.Digest)) != 1 || strings.Count(string(b), string(second.Digest)) != 2 {
		t.Errorf("index.json is %s, %v", b, err)
	}
	if d, err := c.Resolve(t.Context(), ref+"@"+string(root.Digest)); err != nil || d.Digest != root.Digest {
		t.Errorf("the content without a name: %v", err)
	}
}
