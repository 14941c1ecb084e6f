package registry_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// warnings collects what a client warns of.
type warnings struct {
	mu   sync.Mutex
	text []string
}

func (w *warnings) add(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, text)
}

// TestMirrors: content comes from the first mirror that has it whole, tags from the origin while that is there.
func TestMirrors(t *testing.T) {
	t.Parallel()
	layers := [][]byte{noise(1, 300_000), noise(2, 100)}
	blob := string(hostabi.DigestOf(layers[0]))
	for name, k := range map[string]struct {
		empty   bool          // the mirror holds nothing
		mirror  *dstest.Fault // what is wrong with the mirror
		origin  *dstest.Fault // and with the origin
		down    bool          // the origin is
		blobs   int           // requests for blobs at the origin; -1 = some
		atMost  int           // requests at the mirror, 0 = any number
		warns   string
		refused hostabi.Reason
	}{
		"whole":                    {blobs: 0},
		"empty":                    {empty: true, blobs: 3},
		"fails":                    {mirror: &dstest.Fault{Status: 503}, blobs: 3, atMost: 5},
		"resets":                   {mirror: &dstest.Fault{CutAt: -1}, blobs: 3, atMost: 5},
		"wants a pause":            {mirror: &dstest.Fault{Status: 429, Header: http.Header{"Retry-After": {"3000"}}}, blobs: 3, atMost: 5},
		"wrong bytes":              {mirror: &dstest.Fault{Path: blob, Flip: true}, blobs: -1}, // and whatever begins after it was found out
		"cuts each blob once":      {mirror: &dstest.Fault{Path: blob, Times: 1, EachPath: true, CutAt: 100_000}, blobs: 0},
		"cuts for ever":            {mirror: &dstest.Fault{Path: blob, CutAt: 1}, blobs: -1},
		"lies about the size":      {mirror: &dstest.Fault{Path: blob, Status: 200, Body: "short"}, blobs: -1},
		"origin down":              {down: true, warns: "is unreachable"},
		"origin fails":             {origin: &dstest.Fault{Path: "/manifests/", Status: 503}, warns: "is unreachable"},
		"origin does not have it":  {origin: &dstest.Fault{Path: "/manifests/", Status: 404}, refused: hostabi.ReasonRefNotFound},
		"origin forbids":           {origin: &dstest.Fault{Path: "/manifests/", Status: 403}, refused: hostabi.ReasonForbidden},
		"origin down, mirror also": {down: true, mirror: &dstest.Fault{Status: 500}, refused: hostabi.ReasonRegistryUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin, ref, root := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary}, layers...)
			copyOf := dstest.Registry(t, dstest.RegistryOptions{})
			local := newSink(t)
			if !k.empty {
				c, _ := newClient(t, registry.Options{})
				mustPush(t, c, copyOf.Host+"/proxy/team/app:v1", local.artifact(t, layers...), local)
			}
			for srv, f := range map[*dstest.RegistryServer]*dstest.Fault{copyOf: k.mirror, origin: k.origin} {
				if f != nil {
					srv.Inject(*f)
				}
			}
			origin.Forget()
			copyOf.Forget()
			if k.down {
				origin.Close()
			}
			warned := &warnings{}
			c, _ := newClient(t, registry.Options{
				Hosts:       []registry.Host{{Host: origin.Host, Mirrors: []string{copyOf.Host + "/proxy"}}},
				Credentials: []registry.Credential{{Registry: origin.Host, Username: "u", Password: canary}},
				Retry:       registry.Retry{Attempts: 2}, Warn: warned.add, Timeouts: registry.Timeouts{Header: 5 * time.Second},
			})
			cache := newSink(t)
			d, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil)
			wantReason(t, err, k.refused)
			for _, q := range copyOf.Requests() {
				if q.Authorization != "" {
					t.Errorf("the mirror saw the origin's credentials: %+v", q)
				}
			}
			if k.atMost > 0 && len(copyOf.Requests()) > k.atMost {
				t.Errorf("%d requests to a bad mirror, want at most %d", len(copyOf.Requests()), k.atMost)
			}
			if got := strings.Join(warned.text, "\n"); !strings.Contains(got, k.warns) || (k.warns == "") != (got == "") {
				t.Errorf("warnings %q, want %q", got, k.warns)
			}
			if err != nil {
				return
			}
			if d.Digest != root.Digest {
				t.Errorf("root is %s", d.Digest)
			}
			for _, l := range layers {
				sameBytes(t, cache, hostabi.DigestOf(l), l)
			}
			if n := origin.Count("GET", "/blobs/"); n != k.blobs && (k.blobs >= 0 || n == 0) {
				t.Errorf("%d blobs from the origin, want %d", n, k.blobs)
			}
		})
	}
}

// TestDefaultMirrors: registry.mirrors are those of the default registry's host, and of no other.
func TestDefaultMirrors(t *testing.T) {
	t.Parallel()
	origin, ref, _ := pushed(t, dstest.RegistryOptions{}, noise(1, 10))
	mirror, other, _ := pushed(t, dstest.RegistryOptions{}, noise(1, 10))
	for def, want := range map[string]bool{origin.Host + "/team": true, mirror.Host + "/team": false, "oci-layout:/tmp": false} {
		mirror.Forget()
		c, _ := newClient(t, registry.Options{DefaultRegistry: def, Mirrors: []string{mirror.Host}})
		if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil); err != nil {
			t.Fatal(err)
		}
		if got := mirror.Count("GET", "/blobs/") > 0; got != want {
			t.Errorf("default %s: the mirror was asked %v, want %v", def, got, want)
		}
	}
	c, _ := newClient(t, registry.Options{DefaultRegistry: origin.Host + "/team", Mirrors: []string{mirror.Host}})
	mirror.Forget()
	if _, err := c.Pull(t.Context(), other, hostabi.PullOptions{}, newSink(t), nil); err != nil || mirror.Count("GET", "/blobs/") == 0 {
		t.Errorf("a mirror as the origin: %v", err)
	}
	for _, bad := range []string{"", "host", "https://host.example", "host.example/UPPER", "u:p@host.example"} {
		_, err := registry.New(registry.Options{Mirrors: []string{bad}})
		wantReason(t, err, hostabi.ReasonConfigValue)
		_, err = registry.New(registry.Options{Hosts: []registry.Host{{Host: "a.example", Mirrors: []string{bad}}}})
		wantReason(t, err, hostabi.ReasonConfigValue)
	}
}

// TestRemembersTags: Resolve answers a tag from its memory for five minutes, what changes something never.
func TestRemembersTags(t *testing.T) {
	t.Parallel()
	srv, ref, root := pushed(t, dstest.RegistryOptions{}, noise(1, 10))
	local := newSink(t)
	other := local.artifact(t, noise(2, 10))
	refs := &timed{memory: memory{}, seen: make(map[string]time.Time)}
	c, k := newClient(t, registry.Options{Refs: refs})
	refs.now = k.now
	stranger, _ := newClient(t, registry.Options{})
	ask := func(step string, resolve func() (hostabi.Descriptor, error), want hostabi.Digest, requests int) {
		t.Helper()
		srv.Forget()
		d, err := resolve()
		if err != nil || d.Digest != want || d.Ref != ref {
			t.Errorf("%s: %+v, %v", step, d, err)
		}
		if n := len(srv.Requests()); n != requests {
			t.Errorf("%s: %d requests, want %d", step, n, requests)
		}
	}
	plain := func() (hostabi.Descriptor, error) { return c.Resolve(t.Context(), ref) }
	fresh := func() (hostabi.Descriptor, error) { return c.ResolveFresh(t.Context(), ref) }
	ask("first", plain, root.Digest, 1)
	ask("again", plain, root.Digest, 0)
	mustPush(t, stranger, ref, other, local)
	ask("moved by somebody else", plain, root.Digest, 0)
	ask("fresh", fresh, other.Digest, 1)
	ask("after fresh", plain, other.Digest, 0)
	k.mu.Lock()
	k.t = k.t.Add(6 * time.Minute)
	k.mu.Unlock()
	ask("later", plain, other.Digest, 1)
	third := local.artifact(t, noise(3, 10))
	mustPush(t, c, ref, third, local)
	ask("after its own push", plain, third.Digest, 0)
	if err := c.Tag(t.Context(), srv.Host+"/team/app@"+string(other.Digest), "v1"); err != nil {
		t.Fatal(err)
	}
	ask("after its own tag", plain, other.Digest, 0)
	ask("a memory of the future", func() (hostabi.Descriptor, error) {
		k.mu.Lock()
		k.t = k.t.Add(-time.Hour)
		k.mu.Unlock()
		return c.Resolve(t.Context(), ref)
	}, other.Digest, 1)
	repo, err := c.Repository(ref)
	if err != nil {
		t.Fatal(err)
	}
	ask("an installer", func() (hostabi.Descriptor, error) { return repo.Resolve(t.Context(), "v1") }, other.Digest, 1)
}

// timed is a memory that knows when.
type timed struct {
	memory
	seen map[string]time.Time
	now  func() time.Time
}

func (m *timed) SetRef(ctx context.Context, name string, d hostabi.Descriptor) error {
	m.seen[name] = m.now()
	return m.memory.SetRef(ctx, name, d)
}

func (m *timed) Ref(ctx context.Context, name string) (hostabi.Descriptor, time.Time, error) {
	d, _, err := m.memory.Ref(ctx, name)
	return d, m.seen[name], err
}

// TestWarnings: what makes a host less safe is said once, and not of this machine.
func TestWarnings(t *testing.T) {
	t.Parallel()
	warned := &warnings{}
	c, _ := newClient(t, registry.Options{
		Insecure: []string{"plain.example"}, Hosts: []registry.Host{{Host: "open.example", InsecureTLS: true}, {Host: "127.0.0.1:1", InsecureTLS: true}},
		Offline: true, Warn: warned.add,
	})
	for _, ref := range []string{"plain.example/a/b", "plain.example/c", "open.example/a", "127.0.0.1:1/a", "localhost/a", "safe.example/a"} {
		_, err := c.Resolve(t.Context(), ref)
		wantReason(t, err, hostabi.ReasonOffline)
	}
	if len(warned.text) != 2 || !strings.Contains(warned.text[0], "plain.example is reached by plain HTTP") || !strings.Contains(warned.text[1], "certificate of open.example") {
		t.Errorf("warnings: %q", warned.text)
	}
}
