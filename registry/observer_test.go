package registry_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// events collects what a client tells its observer.
type events struct {
	mu   sync.Mutex
	list []registry.Event
}

func (e *events) add(ev registry.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

// of lists "op phase source" of a digest, or all of a phase.
func (e *events) of(match func(registry.Event) bool) (out []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.list {
		if match(ev) {
			out = append(out, strings.TrimSpace(ev.Op+" "+ev.Phase+" "+ev.Source))
		}
	}
	return out
}

func ofDigest(d hostabi.Digest) func(registry.Event) bool {
	return func(e registry.Event) bool {
		return e.Digest == d && e.Op != "resolve" && e.Phase != registry.PhaseProgress
	}
}

func ofPhase(phase string) func(registry.Event) bool {
	return func(e registry.Event) bool { return e.Phase == phase }
}

func TestObserver(t *testing.T) {
	t.Parallel()
	layers := [][]byte{noise(1, 100_000), noise(2, 100)}
	srv, ref, root := pushed(t, dstest.RegistryOptions{}, layers...)
	big, small := hostabi.DigestOf(layers[0]), hostabi.DigestOf(layers[1])
	cache := newSink(t)
	check := func(name string, got []string, want string) {
		t.Helper()
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %s, want %s", name, strings.Join(got, ", "), want)
		}
	}
	watch := func(o registry.Options) (*registry.Client, *events) {
		seen := &events{}
		o.Observer = seen.add
		c, _ := newClient(t, o)
		return c, seen
	}

	srv.Inject(dstest.Fault{Path: string(big), Times: 1, CutAt: 60_000})
	srv.Inject(dstest.Fault{Path: string(small), Times: 1, Status: 503})
	srv.Inject(dstest.Fault{Method: "HEAD", Path: "/manifests/", Times: 1, Status: 429, Header: http.Header{"Retry-After": {"7"}}})
	c, seen := watch(registry.Options{})
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil); err != nil {
		t.Fatal(err)
	}
	check("a cut blob", seen.of(ofDigest(big)), "blob start origin, blob resumed origin, blob done origin")
	check("a retried blob", seen.of(ofDigest(small)), "blob start origin, blob done origin")
	check("the manifest", seen.of(ofDigest(root.Digest)), "manifest start origin, manifest done origin")
	check("retries", seen.of(ofPhase(registry.PhaseRetry)), "blob retry")
	check("waits", seen.of(ofPhase(registry.PhaseWait)), "resolve wait")
	for _, e := range seen.list {
		if e.Phase == registry.PhaseWait && e.Wait != 7*time.Second || e.Phase == registry.PhaseResumed && e.Offset != 60_000 {
			t.Errorf("event %+v", e)
		}
	}

	c, seen = watch(registry.Options{})
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil); err != nil {
		t.Fatal(err)
	}
	check("what is there", seen.of(ofDigest(big)), "blob start origin, blob exists cache")

	mirror, _, _ := pushed(t, dstest.RegistryOptions{}, layers...)
	c, seen = watch(registry.Options{Hosts: []registry.Host{{Host: srv.Host, Mirrors: []string{mirror.Host}}}})
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil); err != nil {
		t.Fatal(err)
	}
	check("from a mirror", seen.of(ofDigest(big)), "blob start origin, blob done mirror")

	c, seen = watch(registry.Options{})
	if _, err := c.Copy(t.Context(), ref, srv.Host+"/team/copy:v1", registry.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	check("mounted", seen.of(ofDigest(big)), "push start origin, mount done mount")

	srv.Inject(dstest.Fault{Path: string(big), Status: 404})
	c, seen = watch(registry.Options{})
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil); err == nil {
		t.Error("a missing blob was pulled")
	}
	check("missing", seen.of(ofDigest(big)), "blob start origin, blob failed origin")
}

// TestObserverHidesAddresses: events carry no query of a signed address.
func TestObserverHidesAddresses(t *testing.T) {
	t.Parallel()
	srv := dstest.Registry(t, dstest.RegistryOptions{})
	srv.Inject(dstest.Fault{Method: "PUT", Path: "/manifests/", Times: 1, Status: 500, Body: `{"errors":[{"code":"UNKNOWN","message":"see https://u:` + canary + `@x.example/?sig=` + canary + `"}]}`})
	seen := &events{}
	c, _ := newClient(t, registry.Options{Observer: seen.add})
	local := newSink(t)
	mustPush(t, c, srv.Host+"/team/app:v1", local.artifact(t, noise(1, 10)), local)
	for _, e := range seen.list {
		if e.Err != nil && strings.Contains(e.Err.Error(), canary) {
			t.Errorf("event %+v", e)
		}
	}
	check := seen.of(ofPhase(registry.PhaseRetry))
	if len(check) != 1 || check[0] != "tag retry" {
		t.Errorf("retries: %v", check)
	}
}
