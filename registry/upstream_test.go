package registry_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// app is a repository that blobs of a tier are from.
const app = "ghcr.io/acme/app"

func TestUpstream(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]dstest.RegistryOptions{
		"open": {}, "token": {Username: "u", Password: canary, Token: true}, "no ranges": {NoRanges: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := dstest.Registry(t, o)
			testUpstream(t, place{
				ref:   func(*testing.T) string { return srv.Host + "/team/cache" },
				creds: []registry.Credential{{Registry: srv.Host, Username: o.Username, Password: o.Password}},
			}, !o.NoRanges)
			// It asks once: there is the origin.
			c, clock := newClient(t, registry.Options{})
			u, err := c.Upstream(srv.Host + "/team/cache")
			if err != nil {
				t.Fatal(err)
			}
			srv.Inject(dstest.Fault{Status: 503})
			srv.Forget()
			_, _, err = u.Fetch(t.Context(), app, hostabi.Descriptor{Digest: hostabi.DigestOf(nil), Size: 5}, 0)
			wantReason(t, err, hostabi.ReasonRegistryUnavailable)
			if len(srv.Requests()) != 1 || len(clock.slept) > 0 {
				t.Errorf("%d requests, pauses %v", len(srv.Requests()), clock.slept)
			}
		})
	}
	c, _ := newClient(t, registry.Options{})
	_, err := c.Upstream("oci-layout:/x")
	wantReason(t, err, hostabi.ReasonRef)
	_, err = c.Upstream("not a ref")
	wantReason(t, err, hostabi.ReasonRef)
}

func TestDistributionUpstream(t *testing.T) {
	t.Parallel()
	for _, p := range distributions(t) {
		t.Run(p.name, func(t *testing.T) { testUpstream(t, p, true) })
	}
}

func testUpstream(t *testing.T, p place, ranges bool) {
	c := p.client(t)
	u, err := c.Upstream(p.ref(t) + ":ignored")
	if err != nil {
		t.Fatal(err)
	}
	content := noise(7, 100_000)
	d := hostabi.Descriptor{MediaType: "x/y", Digest: hostabi.DigestOf(content), Size: int64(len(content))}
	_, _, err = u.Fetch(t.Context(), app, d, 0)
	wantReason(t, err, hostabi.ReasonRefNotFound)
	noCanary(t, err)
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	opened := 0
	open := func() (*os.File, error) {
		opened++
		return os.Open(file)
	}
	for range 2 {
		if err := u.Push(t.Context(), app, d, open); err != nil {
			t.Fatal(err)
		}
	}
	if opened != 1 {
		t.Errorf("the blob was opened %d times, the second push had nothing to do", opened)
	}
	// What is from one repository is not there for another, until somebody fetched it from there too.
	const other = "ghcr.io/acme/other"
	_, _, err = u.Fetch(t.Context(), other, d, 0)
	wantReason(t, err, hostabi.ReasonRefNotFound)
	if err := u.Push(t.Context(), other, d, open); err != nil || opened != 1 {
		t.Errorf("the second source: %v, the blob was opened %d times", err, opened)
	}
	body, _, err := u.Fetch(t.Context(), other, d, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = body.Close()
	for _, offset := range []int64{0, 1, 60_000, int64(len(content)) - 1} {
		body, at, err := u.Fetch(t.Context(), app, d, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if err := body.Close(); err != nil {
			t.Error(err)
		}
		if err != nil || (ranges && at != offset) || (!ranges && at != 0) || !bytes.Equal(got, content[at:]) {
			t.Errorf("from %d: %d bytes from %d, %v", offset, len(got), at, err)
		}
	}
	lie := d
	lie.Size++
	_, _, err = u.Fetch(t.Context(), app, lie, 0)
	wantReason(t, err, hostabi.ReasonDigestMismatch)
	wantReason(t, u.Push(t.Context(), app, hostabi.Descriptor{Digest: hostabi.DigestOf(noise(8, 3)), Size: 3}, func() (*os.File, error) { return os.Open(file + ".not") }), hostabi.ReasonRefNotFound)
}

func FuzzEntry(f *testing.F) {
	entry := `{"artifactType":"application/vnd.delivery-station.cache.entry.v1","layers":[{"digest":"` + string(someDigest) + `"}],"annotations":{"delivery-station.io/cache.sources":"a/b  c/d"}}`
	f.Add([]byte(entry))
	f.Add([]byte(`{"layers":[{}]}`))
	if s, ok := registry.EntrySources([]byte(entry), someDigest); !ok || len(s) != 2 || s[1] != "c/d" {
		f.Fatalf("sources %q, %v", s, ok)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := registry.EntrySources(b, someDigest)
		if ok && !bytes.Contains(b, []byte(someDigest.Hex()[:8])) {
			t.Errorf("%q is the entry of another blob", b)
		}
		for _, name := range s {
			if name == "" || strings.ContainsAny(name, " \n") {
				t.Errorf("source %q", name)
			}
		}
	})
}
