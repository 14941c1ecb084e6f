package store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
)

func locked() Locked {
	return Locked{
		Source: "ghcr.io/acme/s3", Constraint: "^1.2", Version: "1.4.0", Index: hostabi.DigestOf([]byte("i")), Signer: "none", Level: LevelUnsigned,
		Capabilities: hostabi.DigestOf([]byte("c")), Artifacts: map[string]hostabi.Digest{"wasm": hostabi.DigestOf([]byte("w")), "linux/amd64": hostabi.DigestOf([]byte("l"))},
	}
}

func TestLockFileHasOneForm(t *testing.T) {
	l := LockFile{"s3": locked(), "a": {Source: "ghcr.io/acme/a", Constraint: "1.x"}}
	b, err := l.Format()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseLock("ds.lock", b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Format()
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("%v\n%s\n%s", err, b, again)
	}
	if diff := got["s3"].Differences(locked()); len(diff) > 0 {
		t.Error(diff)
	}
	if !strings.HasPrefix(string(b), "version: 1\nplugins:\n  a:\n    source: ghcr.io/acme/a\n    constraint: 1.x\n  s3:\n") {
		t.Errorf("%s", b)
	}
}

func TestLockFileIsStrict(t *testing.T) {
	for name, text := range map[string]string{
		"no version":       "plugins: {}\n",
		"other version":    "version: 2\n",
		"unknown key":      "version: 1\nplugin: {}\n",
		"unknown in entry": "version: 1\nplugins: {a: {source: x.io/a, digest: 1}}\n",
		"bad name":         "version: 1\nplugins: {A: {source: x.io/a}}\n",
		"no source":        "version: 1\nplugins: {a: {constraint: ^1}}\n",
		"bad digest":       "version: 1\nplugins: {a: {source: x.io/a, index: sha256:1}}\n",
		"half":             "version: 1\nplugins: {a: {source: x.io/a, index: " + string(hostabi.DigestOf(nil)) + "}}\n",
		"a list":           "version: 1\nplugins: []\n",
		"twice":            "version: 1\nplugins: {a: {source: x.io/a}, a: {source: x.io/b}}\n",
		"not text":         "version: 1\nplugins: {a: {source: [x]}}\n",
		"no yaml":          "{",
	} {
		if l, err := ParseLock("ds.lock", []byte(text)); hostabi.ReasonOf(err) != hostabi.ReasonConfigSyntax {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

func TestDifferences(t *testing.T) {
	for want, change := range map[string]func(*Locked){
		"source":         func(l *Locked) { l.Source = "x.io/a" },
		"version":        func(l *Locked) { l.Version = "2.0.0" },
		"index":          func(l *Locked) { l.Index = hostabi.DigestOf(nil) },
		"signer":         func(l *Locked) { l.Signer = "ed25519:x" },
		"capabilities":   func(l *Locked) { l.Capabilities = "" },
		"artifact wasm":  func(l *Locked) { l.Artifacts["wasm"] = "" },
		"artifact new/x": func(l *Locked) { l.Artifacts["new/x"] = hostabi.DigestOf(nil) },
	} {
		got := locked()
		change(&got)
		if lines := locked().Differences(got); len(lines) != 1 || !strings.HasPrefix(lines[0], want+": locked ") {
			t.Errorf("%s: %q", want, lines)
		}
	}
	high, low := locked(), locked()
	high.Level = "pinned"
	if len(low.Differences(high)) != 0 || len(high.Differences(low)) != 1 {
		t.Errorf("levels: %v, %v", low.Differences(high), high.Differences(low))
	}
}

func TestEditLockKeepsADamagedFile(t *testing.T) {
	s, path := newStore(t), filepath.Join(t.TempDir(), "below", "ds.lock")
	add := func(l LockFile) error { l["s3"] = locked(); return nil }
	if err := s.EditLock(t.Context(), path, add); err != nil {
		t.Fatal(err)
	}
	if l, err := s.ReadLock(path); err != nil || len(l) != 1 {
		t.Errorf("%v, %v", l, err)
	}
	write(t, path, "version: 1\nnonsense: 1\n", 0o600)
	if err := s.EditLock(t.Context(), path, add); hostabi.ReasonOf(err) != hostabi.ReasonConfigSyntax {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "version: 1\nnonsense: 1\n" {
		t.Errorf("it was rewritten: %s", b)
	}
	if _, err := s.ReadLock(path + "x"); hostabi.ReasonOf(err) != hostabi.ReasonConfigFile {
		t.Errorf("got %v", err)
	}
}

func TestLockedReadsTheIndex(t *testing.T) {
	s := newStore(t)
	r := put(t, s, version("1.0.0"), "#!/bin/sh\n")
	l, ok, err := s.Locked(r)
	if err != nil || !ok || l.Signer != "none" || l.Version != "1.0.0" || l.Index != r.Index {
		t.Errorf("%+v, %v, %v", l, ok, err)
	}
	dir := filepath.Join(s.Dir(), "store", r.Kinds[0].Dir, "oci")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "index.json"), "{}", 0o600)
	if _, _, err := s.Locked(r); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
		t.Errorf("another index: %v", err)
	}
	if _, ok, err := s.Locked(&Receipt{Name: "x", Dev: "/x"}); ok || err != nil {
		t.Errorf("a directory: %v, %v", ok, err)
	}
}

func FuzzParseLock(f *testing.F) {
	b, err := (LockFile{"s3": locked()}).Format()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLock("ds.lock", b)
		if err != nil {
			return
		}
		text, err := l.Format()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseLock("ds.lock", text)
		if err != nil {
			t.Fatalf("%v of\n%s", err, text)
		}
		for name, e := range l {
			if !name.Valid() || len(e.Differences(again[name])) > 0 {
				t.Errorf("%s: %v", name, e.Differences(again[name]))
			}
		}
	})
}
