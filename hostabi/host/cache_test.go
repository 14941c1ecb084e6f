package host_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
)

// store puts a blob into the cache as owner, or as pulled from source.
func (f *fixture) store(owner hostabi.PluginName, source, text string) hostabi.Digest {
	f.t.Helper()
	v := f.blobs.View(owner, source)
	defer v.Close()
	w, err := v.Create(f.t.Context(), hostabi.Descriptor{})
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		_, err = w.Commit(f.t.Context())
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return hostabi.DigestOf([]byte(text))
}

func stat(t testing.TB, s *host.Session, d hostabi.Digest) error {
	return call(t.Context(), s, hostv1.Cache_Stat_FullMethodName, &hostv1.BlobRef{Digest: string(d)}, nil)
}

// TestWhoMayRead: each ground on which a blob may be read, and that nothing tells a foreign blob from a
// missing one.
func TestWhoMayRead(t *testing.T) {
	f := newFixture(t)
	own, foreign := f.store("kit", "", "own"), f.store("other", "", "foreign")
	public, private := f.store("other", "registry.example/pub/app", "public"), f.store("other", "registry.example/priv/app", "private")
	absent := hostabi.DigestOf([]byte("absent"))
	for _, c := range []struct {
		name    string
		granted scopes
		change  func(*plugin.Invocation)
		may     []hostabi.Digest
		denied  hostabi.Reason
	}{
		{"own", scopes{hostabi.CacheRead: only("own")}, nil, []hostabi.Digest{own}, hostabi.ReasonNotCached},
		{"artifact", scopes{hostabi.CacheRead: only("artifact:registry.example/pub/**")}, nil, []hostabi.Digest{public}, hostabi.ReasonNotCached},
		{"any", scopes{hostabi.CacheRead: only("any")}, nil, []hostabi.Digest{own, foreign, public, private}, hostabi.ReasonNotCached},
		{"args", scopes{hostabi.CacheRead: only("args")}, func(inv *plugin.Invocation) {
			inv.Args = []string{string(foreign)}
			inv.Typed = []plugin.Typed{{Type: "digest", Value: string(foreign)}}
		}, []hostabi.Digest{foreign}, hostabi.ReasonNotCached},
		{"handed by the caller", scopes{}, func(inv *plugin.Invocation) { inv.Blobs = []hostabi.Digest{private} }, []hostabi.Digest{private}, hostabi.ReasonCapabilityDenied},
		{"nothing", scopes{}, nil, nil, hostabi.ReasonCapabilityDenied},
	} {
		s := f.open(c.granted, c.change)
		texts := make(map[string]bool)
		for _, d := range []hostabi.Digest{own, foreign, public, private, absent} {
			err := stat(t, s, d)
			if contains(c.may, d) {
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				continue
			}
			wantReason(t, c.name, err, c.denied)
			texts[strings.ReplaceAll(err.Error(), string(d), "D")] = true
		}
		if len(texts) > 1 {
			t.Errorf("%s: refusals differ: %v", c.name, texts)
		}
		if c.name == "nothing" {
			continue
		}
		if infos, err := list[hostv1.BlobInfo](t, s, hostv1.Cache_List_FullMethodName, &hostv1.ListBlobsRequest{}); err == nil && len(infos) != len(c.may) {
			t.Errorf("%s: lists %d blobs, may read %d", c.name, len(infos), len(c.may))
		}
	}
}

func contains(ds []hostabi.Digest, d hostabi.Digest) bool {
	for _, x := range ds {
		if x == d {
			return true
		}
	}
	return false
}

func TestWhoMayChange(t *testing.T) {
	f := newFixture(t)
	own, foreign := f.store("kit", "", "own"), f.store("other", "", "foreign")
	change := func(s *host.Session, method string, d hostabi.Digest) error {
		var req proto.Message = &hostv1.BlobRef{Digest: string(d)}
		if method == hostv1.Cache_Pin_FullMethodName {
			req = &hostv1.PinRequest{Digest: string(d), Ttl: 1000}
		}
		return call(t.Context(), s, method, req, nil)
	}
	for _, method := range []string{hostv1.Cache_Pin_FullMethodName, hostv1.Cache_Remove_FullMethodName} {
		reader := f.open(scopes{hostabi.CacheRead: only("any")}, nil)
		wantReason(t, "reader "+method, change(reader, method, own), hostabi.ReasonCapabilityDenied)
		owner := f.open(scopes{hostabi.CacheRead: only("any"), hostabi.CacheWrite: only("own")}, nil)
		wantReason(t, "owner, foreign blob "+method, change(owner, method, foreign), hostabi.ReasonCapabilityDenied)
		if err := change(owner, method, own); err != nil {
			t.Errorf("owner %s: %v", method, err)
		}
	}
	admin := f.open(scopes{hostabi.CacheRead: only("any"), hostabi.CacheWrite: only("any", "own")}, nil)
	if err := change(admin, hostv1.Cache_Remove_FullMethodName, foreign); err != nil {
		t.Errorf("admin: %v", err)
	}
}

func TestHousekeeping(t *testing.T) {
	f := newFixture(t)
	own := f.store("kit", "", "own")
	f.store("other", "", "foreign")
	user := f.open(scopes{hostabi.CacheRead: only("own"), hostabi.CacheWrite: only("own")}, nil)
	_, err := list[hostv1.BlobInfo](t, user, hostv1.Cache_Evict_FullMethodName, &hostv1.EvictRequest{})
	wantReason(t, "evict", err, hostabi.ReasonCapabilityDenied)
	_, err = list[hostv1.VerifyEvent](t, user, hostv1.Cache_Verify_FullMethodName, &hostv1.VerifyRequest{Repair: true})
	wantReason(t, "repair", err, hostabi.ReasonCapabilityDenied)
	got, err := list[hostv1.VerifyEvent](t, user, hostv1.Cache_Verify_FullMethodName, &hostv1.VerifyRequest{})
	if err != nil || len(got) != 1 || got[0].GetDigest() != string(own) || !got[0].GetOk() {
		t.Errorf("verify of all readable: %v %v", got, err)
	}
	admin := f.open(scopes{hostabi.CacheRead: only("any"), hostabi.CacheWrite: only("any")}, nil)
	var u hostv1.UsageReply
	if err := call(t.Context(), admin, hostv1.Cache_Usage_FullMethodName, &hostv1.UsageRequest{}, &u); err != nil || u.GetEntries() != 2 {
		t.Errorf("usage: %v %v", &u, err)
	}
	evicted, err := list[hostv1.BlobInfo](t, admin, hostv1.Cache_Evict_FullMethodName, &hostv1.EvictRequest{MaxBytes: 1, DryRun: true})
	if err != nil {
		t.Errorf("evict: %v", err)
	}
	for _, b := range evicted {
		if hostabi.ReasonOf(stat(t, admin, hostabi.Digest(b.GetDigest()))) != "" {
			t.Error("a dry run removed a blob")
		}
	}
}

func TestPaths(t *testing.T) {
	f := newFixture(t)
	text := strings.Repeat("blob", 1000)
	d := f.store("kit", "", text)
	open := func(s *host.Session, wantFD bool) *hostv1.OpenedBlob {
		t.Helper()
		var o hostv1.OpenedBlob
		if err := call(t.Context(), s, hostv1.Cache_Open_FullMethodName, &hostv1.OpenBlobRequest{Digest: string(d), WantFd: wantFD}, &o); err != nil {
			t.Fatal(err)
		}
		return &o
	}
	read := func(path string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	unconfined := f.open(nil, nil)
	read(open(unconfined, false).GetPath())

	dir := t.TempDir()
	confined := f.open(nil, nil)
	confined.SetRunDir(dir, true)
	for range 2 {
		o := open(confined, false)
		if o.GetPath() != filepath.Join(dir, "blob", d.Hex()) {
			t.Errorf("confined plugin is sent to %s", o.GetPath())
		}
		read(o.GetPath())
	}
	o := open(confined, true)
	if o.GetPath() != "" {
		t.Errorf("confined plugin that takes a descriptor is sent to %s", o.GetPath())
	}
	h, err := confined.Handle(o.GetHandle())
	if err != nil {
		t.Fatal(err)
	}
	file, ok := h.(interface{ File() *os.File })
	if !ok || file.File() == nil {
		t.Fatal("the handle of a blob has no file")
	}
	if _, err := h.Write([]byte("x")); hostabi.ReasonOf(err) != hostabi.ReasonBadHandle {
		t.Errorf("write to a blob: %v", err)
	}
	if b, err := io.ReadAll(h); err != nil || string(b) != text {
		t.Errorf("handle: %d bytes, %v", len(b), err)
	}
	at := make([]byte, 4)
	if n, err := h.(io.ReaderAt).ReadAt(at, 4); n != 4 || err != nil || string(at) != "blob" {
		t.Errorf("ReadAt: %q %v", at, err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := h.Close(); hostabi.ReasonOf(err) != hostabi.ReasonBadHandle {
		t.Errorf("closed twice: %v", err)
	}

	f.Installed.Program = &plugin.Program{Kind: plugin.WASM}
	module := f.open(nil, nil)
	if p := open(module, false).GetPath(); p != "/ds/blob/sha256/"+d.Hex() {
		t.Errorf("module is sent to %s", p)
	}
	var k hostv1.OpenedBlob
	if err := call(t.Context(), module, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &k); err != nil || k.GetPath() != "/ds/sink/2" {
		t.Errorf("sink of a module: %v %v", &k, err)
	}
	w, err := module.Handle(k.GetHandle())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Read(at); hostabi.ReasonOf(err) != hostabi.ReasonBadHandle {
		t.Errorf("read of a sink: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.Write(at); hostabi.ReasonOf(err) != hostabi.ReasonBadHandle {
		t.Errorf("write to a closed sink: %v", err)
	}
}

// TestSinkFile: what a native plugin does to the file of its sink.
func TestSinkFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links")
	}
	f := newFixture(t)
	elsewhere := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(elsewhere, []byte("secret of the user"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		write  func(path string) error
		want   hostabi.Reason
		digest string
	}{
		{"written", func(p string) error { return os.WriteFile(p, []byte("bytes"), 0) }, "", ""},
		{"written, digest known at commit", func(p string) error { return os.WriteFile(p, []byte("bytes2"), 0) }, "", "bytes2"},
		{"written, other digest", func(p string) error { return os.WriteFile(p, []byte("bytes3"), 0) }, hostabi.ReasonDigestMismatch, "bytes4"},
		{"replaced by another file", func(p string) error {
			if err := os.WriteFile(p+".new", []byte("renamed"), 0o600); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		}, "", ""},
		{"a link", func(p string) error { _ = os.Remove(p); return os.Symlink(elsewhere, p) }, hostabi.ReasonBadHandle, ""},
		{"a directory", func(p string) error { _ = os.Remove(p); return os.Mkdir(p, 0o700) }, hostabi.ReasonBadHandle, ""},
		{"a pipe", func(p string) error { _ = os.Remove(p); return mkfifo(p) }, hostabi.ReasonBadHandle, ""},
		{"gone", os.Remove, hostabi.ReasonBadHandle, ""},
	} {
		s := f.open(nil, nil)
		s.SetRunDir(t.TempDir(), false)
		var o hostv1.OpenedBlob
		if err := call(t.Context(), s, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &o); err != nil {
			t.Fatal(err)
		}
		if err := c.write(o.GetPath()); err != nil {
			t.Fatal(c.name, err)
		}
		req := &hostv1.CommitRequest{Handle: o.GetHandle()}
		if c.digest != "" {
			req.Digest = string(hostabi.DigestOf([]byte(c.digest)))
		}
		var info hostv1.BlobInfo
		err := call(t.Context(), s, hostv1.Cache_Commit_FullMethodName, req, &info)
		wantReason(t, c.name, err, c.want)
		if _, err := os.Lstat(o.GetPath()); err == nil && c.name != "a directory" {
			t.Errorf("%s: the file of the sink is still there", c.name)
		}
		if err == nil {
			if err := stat(t, s, hostabi.Digest(info.GetDigest())); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: close: %v", c.name, err)
		}
	}
	view := f.blobs.View("", "")
	defer view.Close()
	if _, err := view.Stat(t.Context(), hostabi.DigestOf([]byte("secret of the user"))); err == nil {
		t.Error("a link brought a file of the user into the cache")
	}
}

func TestBadCreate(t *testing.T) {
	f := newFixture(t)
	s := f.open(nil, nil)
	for name, req := range map[string]*hostv1.CreateBlobRequest{"size": {Size: -1}, "ttl": {Ttl: -1}} {
		wantReason(t, name, call(t.Context(), s, hostv1.Cache_Create_FullMethodName, req, nil), hostabi.ReasonBadMessage)
	}
	var o hostv1.OpenedBlob
	if err := call(t.Context(), s, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{Digest: string(hostabi.DigestOf([]byte("a")))}, &o); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "commit as garbage", call(t.Context(), s, hostv1.Cache_Commit_FullMethodName, &hostv1.CommitRequest{Handle: o.GetHandle(), Digest: "x"}, nil), hostabi.ReasonBadDigest)
	wantReason(t, "commit as another", call(t.Context(), s, hostv1.Cache_Commit_FullMethodName,
		&hostv1.CommitRequest{Handle: o.GetHandle(), Digest: string(hostabi.DigestOf([]byte("b")))}, nil), hostabi.ReasonDigestMismatch)
}

// TestHostWithoutParts: a host that lacks an owner says so.
func TestHostWithoutParts(t *testing.T) {
	r := host.New(host.Options{})
	hostv1.RegisterCacheServer(r, host.NewCache())
	hostv1.RegisterRegistryServer(r, host.NewRegistry(nil))
	hostv1.RegisterEventsServer(r, host.NewEvents())
	hostv1.RegisterStateServer(r, host.NewState(nil))
	hostv1.RegisterTermServer(r, host.NewTerm(nil))
	f := newFixture(t)
	inv := f.Invocation()
	s, err := r.Open(f.Installed, f.Box(inv), inv)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for method, req := range map[string]proto.Message{
		hostv1.Cache_Create_FullMethodName:     &hostv1.CreateBlobRequest{},
		hostv1.Registry_Resolve_FullMethodName: &hostv1.RefRequest{Ref: "registry.example/kit/app:v1"},
		hostv1.Events_Publish_FullMethodName:   &hostv1.Event{Topic: "kit.x"},
		hostv1.State_Get_FullMethodName:        &hostv1.StateKey{Key: "k"},
		hostv1.Term_Rows_FullMethodName:        &hostv1.RowBatch{},
	} {
		wantReason(t, method, call(t.Context(), s, method, req, nil), hostabi.ReasonUnknownMethod)
	}
	if err := call(t.Context(), s, hostv1.Term_Report_FullMethodName, &hostv1.ProgressBatch{}, nil); err != nil {
		t.Errorf("progress that nobody sees: %v", err)
	}
}

// TestRunDirLinks: a confined plugin that puts a link in the place of a directory of DS_RUN_DIR makes the host,
// which reaches more than the plugin does, neither write nor read nor remove anything where the link leads.
func TestRunDirLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links")
	}
	f := newFixture(t)
	d := f.store("kit", "", "blob of the cache")
	elsewhere := t.TempDir()
	for _, name := range []string{"1", "2", "3"} { // what sinks are called
		if err := os.WriteFile(filepath.Join(elsewhere, name), []byte("secret "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(dir, name string) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(filepath.Join(dir, name)), os.Symlink(elsewhere, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	s, dir := f.open(nil, nil), t.TempDir()
	s.SetRunDir(dir, true)
	var sink, none hostv1.OpenedBlob
	if err := call(t.Context(), s, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &sink); err != nil {
		t.Fatal(err)
	}
	link(dir, "sink")
	link(dir, "blob")
	if err := call(t.Context(), s, hostv1.Cache_Open_FullMethodName, &hostv1.OpenBlobRequest{Digest: string(d)}, &none); err == nil {
		t.Error("a blob was copied through a link")
	}
	if err := call(t.Context(), s, hostv1.Cache_Create_FullMethodName, &hostv1.CreateBlobRequest{}, &none); err == nil {
		t.Error("a sink was made through a link")
	}
	err := call(t.Context(), s, hostv1.Cache_Commit_FullMethodName, &hostv1.CommitRequest{Handle: sink.GetHandle()}, &hostv1.BlobInfo{})
	wantReason(t, "commit through a link", err, hostabi.ReasonBadHandle)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(elsewhere)
	if err != nil || len(left) != 3 {
		t.Errorf("the directory that the links lead to holds %v, %v", left, err)
	}
}
