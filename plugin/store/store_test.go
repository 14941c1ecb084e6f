package store

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	return New(Options{Dir: filepath.Join(dir, "plugins"), ExtraDirs: []string{filepath.Join(dir, "hand")}, DS: "test"})
}

func manifest(name, version string) *plugin.Manifest {
	return &plugin.Manifest{
		APIVersion: plugin.APIVersion, Name: plugin.Name(name), Version: version, ABI: hostabi.ABI,
		Run: plugin.Run{Native: &plugin.RunNative{Platforms: map[string]string{runtime.GOOS + "/" + runtime.GOARCH: "x"}}},
	}
}

// put installs a version the way install does.
func put(t *testing.T, s *Store, m *plugin.Manifest, content string) *Receipt {
	t.Helper()
	stage, err := s.Stage(t.Context(), m.Name, plugin.Native)
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.JSON()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(stage.Dir, stage.Program), content, 0o600)
	write(t, filepath.Join(stage.Dir, "plugin.json"), string(text), 0o600)
	index := hostabi.DigestOf([]byte(string(m.Name) + m.Version + content))
	if err := stage.Seal(); err != nil {
		t.Fatal(err)
	}
	k, err := stage.Publish(index, Kind{Kind: plugin.Native, Child: index, Blob: hostabi.DigestOf([]byte(content))})
	if err != nil {
		t.Fatal(err)
	}
	if err := stage.Close(); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.Lock(t.Context(), m.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	r := &Receipt{Name: m.Name, PluginVersion: m.Version, Index: index, Kinds: []Kind{k}, Source: Source{Requested: "reg/x", Repository: "reg/x"}, Trust: Trust{Level: LevelUnsigned}}
	if err := s.Record(r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestInstalledPluginRoundTrip(t *testing.T) {
	s := newStore(t)
	r := put(t, s, manifest("s3", "1.0.0"), "#!/bin/sh\n")
	p, err := s.Lookup(t.Context(), "s3")
	if err != nil {
		t.Fatal(err)
	}
	if p.Version != "1.0.0" || p.Repository != "reg/x" || p.Signer != "none" || p.Index != r.Index || len(p.Programs) != 1 || p.Manifest.Name != "s3" {
		t.Errorf("looked up %+v", p)
	}
	pr, err := s.Open(t.Context(), p, plugin.Native)
	if err != nil {
		t.Fatal(err)
	}
	defer pr.File.Close()
	if pr.Digest != r.Kinds[0].Blob || pr.Size != 10 || pr.Mode != plugin.Direct {
		t.Errorf("opened %+v", pr)
	}
	if info, _ := os.Stat(pr.Path); info.Mode().Perm() != 0o555 {
		t.Errorf("program has mode %v", info.Mode())
	}
	if _, err := s.Open(t.Context(), p, plugin.WASM); hostabi.ReasonOf(err) != hostabi.ReasonPlatformUnsupported {
		t.Errorf("a kind that is not held: %v", err)
	}
}

func TestChangedProgramIsRefused(t *testing.T) {
	for _, full := range []bool{false, true} {
		s := newStore(t)
		s.o.Full = full
		put(t, s, manifest("s3", "1.0.0"), "#!/bin/sh\n")
		p, err := s.Lookup(t.Context(), "s3")
		if err != nil {
			t.Fatal(err)
		}
		open := func() error {
			pr, err := s.Open(t.Context(), p, plugin.Native)
			if err == nil {
				err = pr.File.Close()
			}
			return err
		}
		if err := open(); err != nil {
			t.Fatal(err)
		}
		path := p.Programs[0].Path
		info, _ := os.Stat(path)
		_ = os.Chmod(path, 0o600)
		write(t, path, "#!/bin/no\n", 0o600)
		_ = os.Chtimes(path, info.ModTime(), info.ModTime()) // the content changed, its times did not
		if err := open(); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified || !strings.Contains(hostabi.AsError(err).Fix, "--force") {
			t.Errorf("full=%v: changed program: %v", full, err)
		}
		_ = os.Remove(path)
		if err := open(); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
			t.Errorf("full=%v: removed program: %v", full, err)
		}
	}
}

func TestChangedManifestIsRefused(t *testing.T) {
	for _, old := range []bool{false, true} { // a receipt from before it named the manifest
		s := newStore(t)
		r := put(t, s, manifest("s3", "1.0.0"), "#!/bin/sh\n")
		if old {
			r.Manifest = ""
			b, err := r.encode()
			if err != nil {
				t.Fatal(err)
			}
			write(t, s.receiptPath("active", "s3"), string(b), 0o600)
		}
		if _, err := s.Lookup(t.Context(), "s3"); err != nil {
			t.Fatalf("unchanged: %v", err)
		}
		path := filepath.Join(s.Dir(), "store", r.Kinds[0].Dir, "plugin.json")
		wider := manifest("s3", "1.0.0")
		wider.Capabilities = []plugin.Request{{Cap: hostabi.FSWrite, Scope: []string{"home:**"}, Reason: "no reason"}}
		text, err := wider.JSON()
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Chmod(path, 0o600)
		write(t, path, string(text), 0o600)
		if _, err := s.Lookup(t.Context(), "s3"); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
			t.Errorf("wider request, old receipt %v: %v", old, err)
		}
		_ = os.Remove(path)
		if _, err := s.Lookup(t.Context(), "s3"); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
			t.Errorf("no manifest, old receipt %v: %v", old, err)
		}
	}
}

func TestClaimOfAName(t *testing.T) {
	s := newStore(t)
	retired := 0
	claim := func(source, signer string) error {
		return s.Claim(t.Context(), &plugin.Installed{Name: "s3", Repository: source, Signer: signer}, func(context.Context) error { retired++; return nil })
	}
	for i, c := range []struct {
		source, signer string
		want           int
	}{{"reg/a", "none", 0}, {"reg/a", "none", 0}, {"reg/b", "none", 1}, {"reg/b", "ed25519:1", 2}, {"file:/x/ds-s3", "none", 3}, {"file:/x/ds-s3", "none", 3}, {"reg/a", "none", 4}} {
		if err := claim(c.source, c.signer); err != nil || retired != c.want {
			t.Errorf("%d: retired %d times, want %d (%v)", i, retired, c.want, err)
		}
	}
	write(t, filepath.Join(s.Dir(), "owners", "s3.json"), "{", 0o600) // nobody knows
	if err := claim("reg/a", "none"); err != nil || retired != 5 {
		t.Errorf("damaged record: retired %d times, %v", retired, err)
	}
	failed := errors.New("disk")
	if err := s.Claim(t.Context(), &plugin.Installed{Name: "s3", Repository: "x"}, func(context.Context) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("retiring failed: %v", err)
	}
	if err := claim("reg/a", "none"); err != nil || retired != 5 {
		t.Errorf("a failed claim was recorded: %d, %v", retired, err)
	}
}

func TestStampSavesTheHash(t *testing.T) {
	s := newStore(t)
	put(t, s, manifest("s3", "1.0.0"), "#!/bin/sh\n")
	p, _ := s.Lookup(t.Context(), "s3")
	for range 2 {
		pr, err := s.Open(t.Context(), p, plugin.Native)
		if err != nil {
			t.Fatal(err)
		}
		pr.File.Close()
	}
	stamps, _ := os.ReadDir(filepath.Join(s.Dir(), "stamps"))
	if len(stamps) != 1 {
		t.Fatalf("%d stamps", len(stamps))
	}
	// A forged stamp digest must not let another program pass: the digest of the receipt decides.
	name := filepath.Join(s.Dir(), "stamps", stamps[0].Name())
	b, _ := os.ReadFile(name)
	var st stamp
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	st.Digest = hostabi.DigestOf([]byte("other"))
	b, _ = json.Marshal(st)
	write(t, name, string(b), 0o600)
	if _, err := s.Open(t.Context(), p, plugin.Native); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
		t.Errorf("forged stamp: %v", err)
	}
}

func TestUpgradeKeepsThePrevious(t *testing.T) {
	s := newStore(t)
	put(t, s, manifest("s3", "1.0.0"), "one")
	put(t, s, manifest("s3", "1.1.0"), "two")
	put(t, s, manifest("s3", "1.1.0"), "two") // again, as with --force
	if p, err := s.Lookup(t.Context(), "s3"); err != nil || p.Version != "1.1.0" {
		t.Errorf("active is %v, %v", p, err)
	}
	b, err := os.ReadFile(filepath.Join(s.Dir(), "prev", "s3.json"))
	if err != nil || !strings.Contains(string(b), "1.0.0") {
		t.Errorf("prev holds %s, %v", b, err)
	}
}

func TestReceiptKeepsUnknownMembers(t *testing.T) {
	var r Receipt
	in := `{"version":1,"name":"s3","plugin_version":"1","index":"x","future":{"a":[1]},"source":{}}`
	if err := json.Unmarshal([]byte(in), &r); err != nil {
		t.Fatal(err)
	}
	r.Pinned = true
	out, err := json.Marshal(&r)
	if err != nil || !strings.Contains(string(out), `"future":{"a":[1]}`) || !strings.Contains(string(out), `"pinned":true`) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestDamagedReceiptHidesOnePluginOnly(t *testing.T) {
	s := newStore(t)
	put(t, s, manifest("s3", "1.0.0"), "one")
	put(t, s, manifest("porter", "1.0.0"), "two")
	name := filepath.Join(s.Dir(), "active", "s3.json")
	for what, text := range map[string]string{
		"torn": `{"version":1,`, "other name": `{"version":1,"name":"x"}`, "no index": `{"version":1,"name":"s3"}`,
		"foreign directory": `{"version":1,"name":"s3","index":"` + string(hostabi.DigestOf(nil)) + `","kinds":[{"kind":"native","dir":"../../etc"}]}`,
	} {
		write(t, name, text, 0o600)
		if _, err := s.Lookup(t.Context(), "s3"); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
			t.Errorf("%s: %v", what, err)
		}
		var names, broken []string
		for p, err := range s.All(t.Context()) {
			names = append(names, string(p.Name))
			if err != nil {
				broken = append(broken, string(p.Name))
			}
		}
		if !slices.Equal(names, []string{"porter", "s3"}) || !slices.Equal(broken, []string{"s3"}) {
			t.Errorf("%s: lists %v, broken %v", what, names, broken)
		}
	}
	if _, err := s.Remove(t.Context(), "s3"); err != nil {
		t.Errorf("a damaged receipt cannot be removed: %v", err)
	}
}

func TestRemoveAndSweep(t *testing.T) {
	s := newStore(t)
	old := put(t, s, manifest("s3", "1.0.0"), "one")
	if _, err := s.Remove(t.Context(), "nope"); hostabi.ReasonOf(err) != hostabi.ReasonPluginNotFound {
		t.Errorf("removing what is not there: %v", err)
	}
	r, err := s.Remove(t.Context(), "s3")
	if err != nil || r.Index != old.Index {
		t.Fatalf("removed %+v, %v", r, err)
	}
	if _, err := s.Lookup(t.Context(), "s3"); hostabi.ReasonOf(err) != hostabi.ReasonPluginNotFound {
		t.Errorf("after remove: %v", err)
	}
	dir := filepath.Join(s.Dir(), "store", old.Kinds[0].Dir)
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error("a version younger than a day was swept")
	}
	s.o.Clock = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("an unreferenced version is kept for ever")
	}
}

func TestSweepKeepsWhatIsReferenced(t *testing.T) {
	s := newStore(t)
	put(t, s, manifest("s3", "1.0.0"), "one")
	put(t, s, manifest("s3", "1.1.0"), "two")
	s.o.Clock = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(filepath.Join(s.Dir(), "store")); len(entries) != 2 {
		t.Errorf("%d versions left, want the active and the previous one", len(entries))
	}
}

func TestStageOfADeadProcessIsSwept(t *testing.T) {
	s := newStore(t)
	stage, err := s.Stage(t.Context(), "s3", plugin.Native)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stage.Dir); err != nil {
		t.Fatal("the stage of a living process was swept")
	}
	_ = stage.unlock() // as if it had died
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(filepath.Join(s.Dir(), ".staging")); len(entries) != 0 {
		t.Errorf("left in staging: %v", entries)
	}
}

func TestHandPlaced(t *testing.T) {
	s := newStore(t)
	hand := s.o.ExtraDirs[0]
	mkdir(t, hand)
	write(t, filepath.Join(hand, "ds-hello"), "#!/bin/sh\necho hi\n", 0o700)
	write(t, filepath.Join(hand, "ds-old"), "\x7fELF... DS_PLUGIN_MAGIC_COOKIE ...", 0o700)
	write(t, filepath.Join(hand, "ds-mod.wasm"), "\x00asm", 0o600)
	write(t, filepath.Join(hand, "ds-with"), "#!/bin/sh\n", 0o700)
	write(t, filepath.Join(hand, "ds-with.yaml"), "apiVersion: ds.plugin/v2\nname: with\nversion: 2.0.0\nabi: ds.host/v1\nrun: {native: {linux/amd64: ds-with}}\n", 0o600)
	write(t, filepath.Join(hand, "ds-x.bak"), "", 0o600)
	write(t, filepath.Join(hand, "README"), "", 0o600)
	for name, want := range map[plugin.Name]struct {
		kind    plugin.Kind
		mode    plugin.Mode
		version string
	}{"hello": {plugin.Native, plugin.Direct, ""}, "old": {plugin.Native, plugin.Protocol1, ""}, "mod": {plugin.WASM, plugin.Direct, ""}, "with": {plugin.Native, plugin.Direct, "2.0.0"}} {
		p, err := s.Lookup(t.Context(), name)
		if err != nil || !p.HandPlaced || len(p.Programs) != 1 || p.Programs[0].Kind != want.kind || p.Programs[0].Mode != want.mode || p.Version != want.version || p.Level != LevelLocal {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	var names []string
	for p, err := range s.All(t.Context()) {
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		names = append(names, string(p.Name))
	}
	slices.Sort(names)
	if strings.Join(names, " ") != "hello mod old with" {
		t.Errorf("lists %v", names)
	}
	if _, err := s.Remove(t.Context(), "hello"); hostabi.ReasonOf(err) != hostabi.ReasonUsage || !strings.Contains(hostabi.AsError(err).Fix, "ds-hello") {
		t.Errorf("removing a hand-placed file: %v", err)
	}
	put(t, s, manifest("hello", "1.0.0"), "one")
	if p, _ := s.Lookup(t.Context(), "hello"); p.HandPlaced {
		t.Error("a hand-placed file hides an installed plugin")
	}
}

func TestUnsafeHandPlacedIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing here")
	}
	s := newStore(t)
	hand := s.o.ExtraDirs[0]
	mkdir(t, hand)
	write(t, filepath.Join(hand, "ds-open"), "#!/bin/sh\n", 0o700)
	_ = os.Chmod(filepath.Join(hand, "ds-open"), 0o777)
	if err := os.Symlink("/bin/sh", filepath.Join(hand, "ds-link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []plugin.Name{"open", "link"} {
		if _, err := s.Lookup(t.Context(), name); hostabi.ReasonOf(err) != hostabi.ReasonUnsafeDir {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, filepath.Join(hand, "ds-fine"), "#!/bin/sh\n", 0o700)
	_ = os.Chmod(hand, 0o777)
	if _, err := s.Lookup(t.Context(), "fine"); hostabi.ReasonOf(err) != hostabi.ReasonUnsafeDir {
		t.Errorf("file in a directory that others may write: %v", err)
	}
}

func TestDevelopmentInstallIsReadAgain(t *testing.T) {
	s := newStore(t)
	dir := t.TempDir()
	_ = os.Chmod(dir, 0o700)
	text := "apiVersion: ds.plugin/v2\nname: dev\nversion: 0.1.0\nabi: ds.host/v1\nrun: {native: {" + runtime.GOOS + "/" + runtime.GOARCH + ": ds-dev}}\n"
	write(t, filepath.Join(dir, "plugin.yaml"), text, 0o600)
	write(t, filepath.Join(dir, "ds-dev"), "#!/bin/sh\n", 0o700)
	if err := s.Record(&Receipt{Name: "dev", Dev: dir, Source: Source{Repository: "dir:" + dir}}); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]hostabi.Reason{0o777: hostabi.ReasonUnsafeDir, 0o775: ""} { // a umask of 002 makes the second
		_ = os.Chmod(dir, mode)
		if _, err := s.Lookup(t.Context(), "dev"); hostabi.ReasonOf(err) != want && runtime.GOOS != "windows" {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	_ = os.Chmod(dir, 0o700)
	p, err := s.Lookup(t.Context(), "dev")
	if err != nil || p.Version != "0.1.0" || len(p.Programs) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	write(t, filepath.Join(dir, "plugin.yaml"), strings.Replace(text, "0.1.0", "0.2.0", 1), 0o600)
	write(t, filepath.Join(dir, "ds-dev"), "#!/bin/sh\necho changed\n", 0o700)
	p, err = s.Lookup(t.Context(), "dev")
	if err != nil || p.Version != "0.2.0" {
		t.Fatalf("%+v, %v", p, err)
	}
	if pr, err := s.Open(t.Context(), p, plugin.Native); err != nil {
		t.Errorf("a changed program of a development install: %v", err)
	} else {
		pr.File.Close()
	}
	_ = os.RemoveAll(dir)
	if _, err := s.Lookup(t.Context(), "dev"); hostabi.ReasonOf(err) != hostabi.ReasonPluginModified {
		t.Errorf("directory gone: %v", err)
	}
}

func TestUnsafeStoreIsNotWritten(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing here")
	}
	s := newStore(t)
	mkdir(t, s.Dir())
	_ = os.Chmod(s.Dir(), 0o777)
	if _, err := s.Stage(t.Context(), "s3", plugin.Native); hostabi.ReasonOf(err) != hostabi.ReasonUnsafeDir {
		t.Errorf("got %v", err)
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestLegacyManifestIsKept(t *testing.T) {
	s := newStore(t)
	hand := s.o.ExtraDirs[0]
	mkdir(t, hand)
	write(t, filepath.Join(hand, "ds-old"), "\x7fELF... DS_PLUGIN_MAGIC_COOKIE ...", 0o700)
	write(t, filepath.Join(hand, "ds-named"), "\x7fELF... DS_PLUGIN_MAGIC_COOKIE ... named", 0o700)
	write(t, filepath.Join(hand, "ds-named.yaml"), "name: named\nversion: 7.0.0\ndescription: mine\n", 0o600)
	open := func(name plugin.Name) (*plugin.Installed, *plugin.Program) {
		t.Helper()
		p, err := s.Lookup(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		pr, err := s.Open(t.Context(), p, plugin.Native)
		if err != nil {
			t.Fatal(err)
		}
		pr.File.Close()
		return p, pr
	}
	if p, pr := open("old"); len(p.Manifest.Commands) != 0 || p.Version != "" || s.LegacyManifest(pr.Digest) != nil {
		t.Errorf("something is known before the first run: %+v", p.Manifest)
	}
	said := &plugin.LegacyManifest{
		Metadata: true, Version: "1.0\x1b[31m", Description: "does\nthings",
		Commands: []plugin.Command{{Name: "pull", Summary: "get it"}, {Name: "pull"}, {Name: "--flag"}, {Name: "a b"}, {Name: strings.Repeat("x", 100)}},
	}
	for _, name := range []plugin.Name{"old", "named"} {
		_, pr := open(name)
		if err := s.KeepLegacyManifest(pr.Digest, said); err != nil {
			t.Fatal(err)
		}
		if m := s.LegacyManifest(pr.Digest); m == nil || !m.Metadata {
			t.Errorf("%s: kept %+v", name, m)
		}
	}
	if p, _ := open("old"); p.Version != "1.0 [31m" || p.Manifest.Description != "does things" || len(p.Manifest.Commands) != 1 || p.Manifest.Commands[0].Summary != "get it" {
		t.Errorf("old is %q %+v", p.Version, p.Manifest)
	}
	if p, _ := open("named"); p.Version != "7.0.0" || p.Manifest.Description != "mine" || len(p.Manifest.Commands) != 1 || !p.Legacy() {
		t.Errorf("named is %q %+v", p.Version, p.Manifest)
	}
	// Another program under that name has said nothing yet.
	write(t, filepath.Join(hand, "ds-old"), "\x7fELF... DS_PLUGIN_MAGIC_COOKIE ... other", 0o700)
	if p, pr := open("old"); len(p.Manifest.Commands) != 0 {
		t.Errorf("another program has its commands: %+v", p.Manifest)
	} else {
		write(t, filepath.Join(s.Dir(), "stamps", "rpc-"+pr.Digest.Hex()+".json"), "{", 0o600)
		if s.LegacyManifest(pr.Digest) != nil {
			t.Error("a damaged file counts")
		}
	}
	if s.LegacyManifest("sha256:x") != nil {
		t.Error("no digest has a manifest")
	}
}
