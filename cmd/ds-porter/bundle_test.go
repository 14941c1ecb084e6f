//go:build !wasip1

package main_test

import (
	"os"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

// TestBundleIsALayout: what a bundle holds can be pulled from it, platforms and referrers included, and making it
// again gives the same bytes.
func TestBundleIsALayout(t *testing.T) {
	s := newStation(t)
	root := s.multi(s.ref("team/app:1.0.0"))
	referrer := imageOf(descriptor("text/plain", "signature", ""))
	referrer["subject"] = map[string]any{"mediaType": index, "digest": root, "size": s.size(s.ref("team/app:1.0.0"))}
	signature := s.publish(s.ref("team/app:sig"), nil, []any{referrer}, "{}", "signature")
	s.write("ds.lock", "version: 1\nplugins:\n  app:\n    source: x\n    index: "+string(root)+"\n")
	d := document[struct {
		Artifacts int
		Size      int64
	}](s, "bundle", "create", "-o", "a.tar", "--lock", "ds.lock", s.ref("team/app:1.0.0"))
	first, err := os.ReadFile("a.tar")
	if err != nil || d.Artifacts != 1 || d.Size != int64(len(first)) {
		t.Fatalf("%+v, %d bytes, %v", d, len(first), err)
	}
	s.run("bundle", "create", "-o", "b.tar", "--lock", "ds.lock", s.ref("team/app:1.0.0"))
	if again, err := os.ReadFile("b.tar"); err != nil || string(again) != string(first) {
		t.Errorf("%d and %d bytes, %v", len(first), len(again), err)
	}
	for _, digest := range []hostabi.Digest{root, signature} {
		if r := s.run("pull", "--all-arch", "-o", "out-"+digest.Hex()[:6], "oci-layout:./a.tar@"+string(digest)); r.exit != 0 {
			t.Errorf("%s: exit %d, %s", digest, r.exit, r.stderr)
		}
	}
	if !strings.Contains(string(first), s.ref("team/app:1.0.0")) {
		t.Error("the name is not listed")
	}
}

func TestBundleRefuses(t *testing.T) {
	s := newStation(t)
	s.app(s.ref("team/app:1"))
	s.write("other.lock", "    index: "+string(hostabi.DigestOf(nil))+"\n")
	for name, c := range map[string]struct {
		args []string
		exit int
		text string
	}{
		"no output":       {[]string{s.ref("team/app:1")}, 2, "--output"},
		"not there":       {[]string{"-o", "x.tar", s.ref("team/none:1")}, 3, "DS2002"},
		"not in the lock": {[]string{"-o", "x.tar", "--lock", "other.lock", s.ref("team/app:1")}, 2, "is not in the bundle"},
		"no lock file":    {[]string{"-o", "x.tar", "--lock", "none.lock", s.ref("team/app:1")}, 2, "no such file"},
	} {
		r := s.run(append([]string{"bundle", "create"}, c.args...)...)
		if r.exit != c.exit || !strings.Contains(r.stderr, c.text) {
			t.Errorf("%s: exit %d, %s", name, r.exit, r.stderr)
		}
		if _, err := os.Stat("x.tar"); err == nil {
			t.Errorf("%s: a file was written", name)
		}
	}
}

// size is that of the manifest that ref names.
func (s *station) size(ref string) int64 {
	s.t.Helper()
	d, err := s.client.Resolve(s.t.Context(), ref)
	if err != nil {
		s.t.Fatal(err)
	}
	return d.Size
}
