package wasm

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// heldBlob is a blob of the host as the session hands it out.
type heldBlob struct {
	f      *os.File
	closed int
}

func (h *heldBlob) File() *os.File             { return h.f }
func (h *heldBlob) Read(b []byte) (int, error) { return h.f.Read(b) }
func (*heldBlob) Write([]byte) (int, error)    { return 0, errors.New("a blob is only read") }
func (h *heldBlob) Close() error               { h.closed++; return h.f.Close() }

func TestTreeBlobs(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	content := strings.Repeat("content ", 1000)
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, []byte(content), 0o400); err != nil {
		t.Fatal(err)
	}
	hex := hostabi.DigestOf([]byte(content)).Hex()
	var held *heldBlob
	s.handles = make(map[uint32]io.ReadWriteCloser)
	answer := func(out string) func(string) (string, error) {
		return func(req string) (string, error) {
			switch req {
			case `{"digest":"sha256:` + hex + `"}`:
			case `{"digest":"sha256:beef"}`:
				return "", hostabi.Errorf(hostabi.ReasonBadDigest, "asked %s", req)
			default:
				return "", hostabi.Errorf(hostabi.ReasonNotCached, "asked %s", req)
			}
			f, err := os.Open(path)
			if err != nil {
				return "", err
			}
			t.Cleanup(func() { _ = f.Close() })
			held = &heldBlob{f: f}
			s.handles[5] = held
			return out, nil
		}
	}
	s.methods["Cache/Stat"] = answer(`{"size":"8000"}`)
	s.methods["Cache/Open"] = answer(`{"handle":5}`)
	name := "blob/sha256/" + hex
	if st, e := d.Stat(name); e != 0 || st.Size != 8000 || !st.Mode.IsRegular() {
		t.Errorf("stat: %+v, %v", st, e)
	}
	f := mustOpen(t, d, name, forRead)
	if st, e := f.Stat(); e != 0 || st.Size != 8000 || !st.Mode.IsRegular() {
		t.Errorf("stat of the open file: %+v, %v", st, e)
	}
	b := make([]byte, 7)
	if n, e := f.Pread(b, 8); n != 7 || e != 0 || string(b) != "content" {
		t.Errorf("pread: %q, %v", b[:n], e)
	}
	if n, e := f.Pread(b, 1<<40); n != 0 || e != 0 {
		t.Errorf("pread behind the end: %d, %v", n, e)
	}
	if _, e := f.Pread(b, -1); e != experimentalsys.EINVAL {
		t.Errorf("pread before the start: %v", e)
	}
	if at, e := f.Seek(-8, io.SeekEnd); at != 7992 || e != 0 {
		t.Errorf("seek: %d, %v", at, e)
	}
	if _, e := f.Seek(0, 9); e != experimentalsys.EINVAL {
		t.Errorf("seek from nowhere: %v", e)
	}
	if _, e := f.Seek(-1, io.SeekStart); e != experimentalsys.EINVAL {
		t.Errorf("seek before the start: %v", e)
	}
	if got, e := readFile(f); got != "content " || e != 0 {
		t.Errorf("tail %q, %v", got, e)
	}
	if _, e := f.Write(b); e != experimentalsys.EBADF {
		t.Errorf("write: %v", e)
	}
	f.Close()
	if held.closed != 1 {
		t.Error("handle left open")
	}
	if got, e := slurp(d, name); got != content || e != 0 {
		t.Errorf("content of %d bytes, %v", len(got), e)
	}
	f = mustOpen(t, d, name, forRead)
	_ = held.Close() // the guest closed the handle by its number
	if _, e := f.Read(b); e != experimentalsys.EBADF {
		t.Errorf("read after that: %v", e)
	}
	f.Close()

	for name, want := range map[string]experimentalsys.Errno{
		"blob/sha256/" + strings.Repeat("0", 64): experimentalsys.ENOENT,
		"blob/sha256/beef":                       experimentalsys.EINVAL,
	} {
		if _, e := d.OpenFile(name, forRead, 0); e != want {
			t.Errorf("open %s: %v", name, e)
		}
		if _, e := d.Stat(name); e != want {
			t.Errorf("stat %s: %v", name, e)
		}
	}
	if _, e := d.OpenFile(name, forBoth, 0); e != experimentalsys.EROFS {
		t.Errorf("for writing: %v", e)
	}
	s.handles[5] = &fakeBlob{}
	s.methods["Cache/Open"] = func(string) (string, error) { return `{"handle":5}`, nil }
	if _, e := d.OpenFile(name, forRead, 0); e != experimentalsys.EIO || lastReason(t, d) != hostabi.ReasonInternal {
		t.Errorf("a blob without a file: %v", e)
	}
	s.methods["Cache/Open"] = func(string) (string, error) { return `{"handle":6}`, nil }
	if _, e := d.OpenFile(name, forRead, 0); e != experimentalsys.EINVAL {
		t.Errorf("a blob without a handle: %v", e)
	}
}

func TestTreeSinks(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	other, theirs := newTree(t, &plugin.Invocation{})
	k, foreign := &fakeBlob{}, &fakeBlob{}
	s.handles = map[uint32]io.ReadWriteCloser{1: k, 3: &heldBlob{}}
	theirs.handles = map[uint32]io.ReadWriteCloser{2: foreign}

	f := mustOpen(t, d, "sink/1", forWrite)
	for i, piece := range []string{"one ", "two"} {
		if n, e := f.Write([]byte(piece)); n != len(piece) || e != 0 {
			t.Errorf("write: %d, %v", n, e)
		}
		if at, e := f.Seek(0, io.SeekEnd); at != int64(4+3*i) || e != 0 {
			t.Errorf("seek to the end: %d, %v", at, e)
		}
	}
	if n, e := f.Pwrite([]byte("!"), 7); n != 1 || e != 0 {
		t.Errorf("pwrite at the end: %d, %v", n, e)
	}
	for what, e := range map[string]experimentalsys.Errno{
		"seek to the start": second(f.Seek(0, io.SeekStart)), "seek back": second(f.Seek(-1, io.SeekCurrent)),
		"pwrite": second(f.Pwrite([]byte("x"), 0)), "truncate": f.Truncate(0),
	} {
		if e != experimentalsys.EINVAL {
			t.Errorf("%s: %v", what, e)
		}
	}
	if e := f.Truncate(8); e != 0 {
		t.Errorf("truncate to what is there: %v", e)
	}
	if _, e := f.Read(make([]byte, 1)); e != experimentalsys.EBADF {
		t.Errorf("read: %v", e)
	}
	f.Close()
	f = mustOpen(t, d, "sink/1", forWrite) // appends, whatever the flags say
	if !f.IsAppend() || f.Truncate(0) != 0 {
		t.Error("a sink only grows")
	}
	_, _ = f.Write([]byte(" more"))
	if k.wrote.String() != "one two! more" || k.closed {
		t.Errorf("sink has %q, closed %t", k.wrote.String(), k.closed)
	}
	delete(s.handles, 1) // committed
	if n, e := f.Write([]byte("x")); n != 0 || e != experimentalsys.EINVAL || lastReason(t, d) != hostabi.ReasonBadHandle {
		t.Errorf("write after the commit: %d, %v", n, e)
	}
	f.Close()

	for _, name := range []string{"sink/2", "sink/3"} { // of another instance; a blob
		if _, e := d.OpenFile(name, forWrite, 0); e != experimentalsys.EINVAL || lastReason(t, d) != hostabi.ReasonBadHandle {
			t.Errorf("%s: %v", name, e)
		}
	}
	if f := mustOpen(t, other, "sink/2", forWrite); f.Close() != 0 || foreign.closed || foreign.wrote.Len() != 0 {
		t.Error("the other instance has lost its sink")
	}
	s.handles[4] = &fakeBlob{err: hostabi.Errorf(hostabi.ReasonQuota, "full")}
	f = mustOpen(t, d, "sink/4", forWrite)
	if _, e := f.Write([]byte("x")); e != experimentalsys.EIO || lastReason(t, d) != hostabi.ReasonQuota {
		t.Errorf("over quota: %v", e)
	}
	f.Close()
	f = mustOpen(t, d, "sink/4", forRead)
	if _, e := f.Write([]byte("x")); e != experimentalsys.EBADF {
		t.Errorf("write to a file for reading: %v", e)
	}
	f.Close()
}
