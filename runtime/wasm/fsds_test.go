package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// treeSession answers in JSON. Each method of methods gets its request; a stream is one whose requests are all read
// before it answers, or one that never ends.
type treeSession struct {
	fakeSession
	methods map[string]func(req string) (string, error)
	asked   []string     // methods that were called
	open    atomic.Int32 // streams
}

func (s *treeSession) Invoke(ctx context.Context, c hostabi.Call) ([]byte, error) {
	s.asked = append(s.asked, c.Method)
	name, own := strings.CutPrefix(c.Method, servicePrefix)
	if f := s.methods[name]; own && f != nil {
		if c.Enc != hostabi.EncJSON {
			return nil, errors.New("the tree speaks JSON")
		}
		if len(c.Req) > hostabi.MaxMessage {
			return nil, errTooLarge
		}
		out, err := f(string(c.Req))
		return []byte(out), err
	}
	c.Method = strings.TrimPrefix(c.Method, "/fake/x")
	return s.fakeSession.Invoke(ctx, c)
}

func (*treeSession) Streaming(method string) bool {
	return strings.HasPrefix(method, servicePrefix+"Stream/")
}

func (s *treeSession) Stream(ctx context.Context, method string, _ hostabi.Encoding) (hostabi.Stream, error) {
	s.asked = append(s.asked, method)
	ctx, cancel := context.WithCancel(ctx)
	st := &treeStream{s: s, ctx: ctx, cancel: cancel, in: make(chan string, 1), half: make(chan struct{})}
	switch strings.TrimPrefix(method, servicePrefix+"Stream/") {
	case "Echo":
	case "Endless":
		st.endless = true
	case "Fails":
		st.end = hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no")
	case "Refused":
		cancel()
		return nil, hostabi.Errorf(hostabi.ReasonTooMany, "no more streams")
	}
	s.open.Add(1)
	return st, nil
}

type treeStream struct {
	s       *treeSession
	ctx     context.Context
	cancel  context.CancelFunc
	in      chan string
	half    chan struct{}
	endless bool
	end     error
	closed  bool
}

func (st *treeStream) Send(msg []byte) error {
	select {
	case st.in <- string(msg):
		return nil
	case <-st.ctx.Done():
		return io.EOF
	}
}

func (st *treeStream) CloseSend() error {
	close(st.half)
	return nil
}

// Recv answers each message with itself, and more than a whole queue of them.
func (st *treeStream) Recv() ([]byte, error) {
	if st.endless && st.ctx.Err() == nil {
		return bytes.Repeat([]byte("y"), 1<<16), nil
	}
	select {
	case m := <-st.in:
		return []byte("<" + m + ">"), nil
	case <-st.ctx.Done():
		return nil, hostabi.Errorf(hostabi.ReasonInterrupted, "cancelled")
	case <-st.half:
	}
	select {
	case m := <-st.in:
		return []byte("<" + m + ">"), nil
	default:
	}
	if st.end != nil {
		return nil, st.end
	}
	return nil, io.EOF
}

func (st *treeStream) Close() error {
	if !st.closed {
		st.closed = true
		st.s.open.Add(-1)
	}
	st.cancel()
	return nil
}

// newTree is a tree as an instance has it, and what its session does.
func newTree(t testing.TB, inv *plugin.Invocation) (*dsTree, *treeSession) {
	t.Helper()
	s := &treeSession{methods: map[string]func(string) (string, error){
		"Echo/Say":  func(req string) (string, error) { return "said " + req, nil },
		"Echo/Fail": func(string) (string, error) { return "", hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no") },
		"Echo/Big":  func(string) (string, error) { return strings.Repeat("b", hostabi.MaxMessage), nil },
		"Meta/Describe": func(req string) (string, error) {
			if req != "{}" {
				return "", hostabi.Errorf(hostabi.ReasonBadMessage, "asked %s", req)
			}
			return `{"methods":["ds.host.v1.Meta/Describe","ds.host.v1.Echo/Say","ds.host.v1.Echo/Fail"],"grants":[{"cap":"state.read"}],` +
				`"invocation":{"plugin":"demo","paths":[{"index":1,"typed":"/x"}]}}`, nil
		},
		"Config/List": func(req string) (string, error) {
			if req != `{"prefix":"settings.demo."}` {
				return "", hostabi.Errorf(hostabi.ReasonConfigKey, "asked %s", req)
			}
			return `{"values":[{"key":"settings.demo.a.b","json":"[1]"},{"key":"settings.demo.a.c","json":"\"x\""},` +
				`{"key":"settings.demo.password","json":"\"p\"","secret":true},{"key":"settings.demo.z","json":""}]}`, nil
		},
	}}
	stop := newStopper(t.Context(), inv)
	t.Cleanup(stop.end)
	in := &instance{session: s, stop: stop, files: &fileTable{note: func(string) {}}}
	in.tree = newDSTree(in)
	t.Cleanup(in.tree.close)
	return in.tree, s
}

const (
	forRead  = experimentalsys.O_RDONLY
	forWrite = experimentalsys.O_WRONLY | experimentalsys.O_CREAT | experimentalsys.O_TRUNC
	forBoth  = experimentalsys.O_RDWR
)

func mustOpen(t testing.TB, d *dsTree, name string, flag experimentalsys.Oflag) experimentalsys.File {
	t.Helper()
	f, e := d.OpenFile(name, flag, 0)
	if e != 0 {
		t.Fatalf("open %s: %v, %s", name, e, d.last)
	}
	return f
}

// ask writes a request and closes the file, which runs it.
func ask(t testing.TB, d *dsTree, name, req string) {
	t.Helper()
	f := mustOpen(t, d, name, forWrite)
	for piece := range slices.Chunk([]byte(req), 5000) {
		if n, e := f.Write(piece); e != 0 || n != len(piece) {
			t.Fatalf("write %s: %d, %v", name, n, e)
		}
	}
	if e := f.Close(); e != 0 {
		t.Errorf("close %s: %v; wazero keeps such a descriptor", name, e)
	}
}

// readFile is all that a file holds, and the errno that ended it.
func readFile(f experimentalsys.File) (string, experimentalsys.Errno) {
	var all bytes.Buffer
	b := make([]byte, 3000)
	for {
		n, e := f.Read(b)
		all.Write(b[:n])
		if n == 0 || e != 0 {
			return all.String(), e
		}
	}
}

// slurp opens, reads and closes.
func slurp(d *dsTree, name string) (string, experimentalsys.Errno) {
	f, e := d.OpenFile(name, forRead, 0)
	if e != 0 {
		return "", e
	}
	text, e := readFile(f)
	f.Close()
	return text, e
}

func lastReason(t testing.TB, d *dsTree) hostabi.Reason {
	t.Helper()
	text, e := slurp(d, "last_error.json")
	if e != 0 {
		t.Fatal(e)
	}
	return hostabi.ParseStatusJSON([]byte(text)).Reason
}

func TestTreeNames(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	s.handles = map[uint32]io.ReadWriteCloser{7: &fakeBlob{}}
	const (
		ok, noent, notdir, isdir = experimentalsys.Errno(0), experimentalsys.ENOENT, experimentalsys.ENOTDIR, experimentalsys.EISDIR
		inval, rofs, acces       = experimentalsys.EINVAL, experimentalsys.EROFS, experimentalsys.EACCES
	)
	for _, c := range []struct {
		name             string
		stat, read, make experimentalsys.Errno
		mode             fs.FileMode
	}{
		{".", ok, ok, isdir, fs.ModeDir},
		{"/", ok, ok, isdir, fs.ModeDir},
		{"call", ok, ok, isdir, fs.ModeDir},
		{"/call/", ok, ok, isdir, fs.ModeDir},
		{"call/Echo", ok, ok, isdir, fs.ModeDir},
		{"call/Anything", ok, ok, isdir, fs.ModeDir},
		{"call/Echo/Say", ok, ok, ok, fs.ModeDevice | fs.ModeCharDevice},
		{"call/No/Such", ok, ok, ok, fs.ModeDevice | fs.ModeCharDevice},
		{"call/Echo/Say/", notdir, notdir, notdir, 0},
		{"call/Echo/Say/more", notdir, notdir, notdir, 0},
		{"call/../call/Echo/Say", ok, ok, ok, fs.ModeDevice | fs.ModeCharDevice},
		{"../call/Echo/Say", acces, acces, acces, 0},
		{"call/\x00/Say", inval, inval, inval, 0},
		{"blob", ok, ok, isdir, fs.ModeDir},
		{"blob/sha256", ok, ok, isdir, fs.ModeDir},
		{"blob/md5", noent, noent, noent, 0},
		{"blob/sha256/aa/b", notdir, notdir, notdir, 0},
		{"blob/sha256/aa", experimentalsys.ENOTSUP, experimentalsys.ENOTSUP, rofs, 0}, // this session has no cache
		{"sink", ok, ok, isdir, fs.ModeDir},
		{"sink/7", ok, ok, ok, fs.ModeDevice | fs.ModeCharDevice},
		{"sink/8", inval, inval, inval, 0},
		{"sink/0", inval, inval, inval, 0},
		{"sink/07", noent, noent, noent, 0},
		{"sink/+7", noent, noent, noent, 0},
		{"sink/99999999999", noent, noent, noent, 0},
		{"sink/7/x", notdir, notdir, notdir, 0},
		{"caps.json", ok, ok, rofs, 0},
		{"caps.json/x", notdir, notdir, notdir, 0},
		{"other.json", noent, noent, noent, 0},
		{"last_error.json", ok, ok, rofs, 0},
		{strings.Repeat("x", 5000), experimentalsys.ENAMETOOLONG, experimentalsys.ENAMETOOLONG, experimentalsys.ENAMETOOLONG, 0},
	} {
		st, e := d.Stat(c.name)
		if e != c.stat || e == 0 && st.Mode.Type() != c.mode {
			t.Errorf("stat %q: %v %v, want %v %v", c.name, e, st.Mode, c.stat, c.mode)
		}
		f, e := d.OpenFile(c.name, forRead, 0)
		if e != c.read {
			t.Errorf("open %q: %v, want %v", c.name, e, c.read)
		}
		if e == 0 {
			if got, _ := f.Stat(); got.Mode != st.Mode || got.Ino != st.Ino || got.Ino == 0 {
				t.Errorf("%q: open %v %d, before %v %d", c.name, got.Mode, got.Ino, st.Mode, st.Ino)
			}
			f.Close()
		}
		f, e = d.OpenFile(c.name, forWrite, 0)
		if e != c.make {
			t.Errorf("open %q for writing: %v, want %v", c.name, e, c.make)
		}
		if e == 0 {
			f.Close()
		}
	}
	for _, m := range s.asked {
		if m != "/ds.host.v1.Meta/Describe" && m != "/ds.host.v1.Cache/Stat" && m != "/ds.host.v1.Cache/Open" {
			t.Errorf("looking called %s", m)
		}
	}
	for what, e := range map[string]experimentalsys.Errno{
		"mkdir": d.Mkdir("x", 0), "rmdir": d.Rmdir("call"), "unlink": d.Unlink("caps.json"), "rename": d.Rename("call", "c"),
		"link": d.Link("caps.json", "x"), "symlink": d.Symlink("x", "y"), "chmod": d.Chmod("call", 0), "utimens": d.Utimens("call", 0, 0),
	} {
		if e != experimentalsys.EROFS {
			t.Errorf("%s: %v", what, e)
		}
	}
	if _, e := d.OpenFile("call/Echo/Say", forWrite|experimentalsys.O_EXCL, 0); e != experimentalsys.EEXIST {
		t.Errorf("exclusive: %v", e)
	}
	if _, e := d.OpenFile("call/Echo/Say", experimentalsys.O_DIRECTORY, 0); e != notdir {
		t.Errorf("a call as a directory: %v", e)
	}
	if n := len(d.in.files.open); n != 0 {
		t.Errorf("%d entries left in the file table", n)
	}
}

func TestTreeLists(t *testing.T) {
	d, _ := newTree(t, &plugin.Invocation{})
	for name, want := range map[string]string{
		".":           "args.json blob call caps.json config.json last_error.json sink",
		"call":        "Echo Meta",
		"call/Echo":   "Fail Say",
		"call/Nobody": "",
		"blob":        "sha256",
		"blob/sha256": "",
		"sink":        "",
	} {
		f := mustOpen(t, d, name, forRead)
		for range 2 {
			var names []string
			for {
				list, e := f.Readdir(2)
				if e != 0 {
					t.Fatalf("%s: %v", name, e)
				}
				for _, entry := range list {
					names = append(names, entry.Name)
					if st, e := d.Stat(name + "/" + entry.Name); e != 0 || st.Mode.Type() != entry.Type {
						t.Errorf("%s: %v, listed as %v", entry.Name, st.Mode, entry.Type)
					}
				}
				if len(list) < 2 {
					break
				}
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			if _, e := f.Seek(0, io.SeekStart); e != 0 {
				t.Errorf("rewind: %v", e)
			}
		}
		if _, e := f.Seek(1, io.SeekStart); e != experimentalsys.EINVAL {
			t.Errorf("seek: %v", e)
		}
		if _, e := f.Read(make([]byte, 1)); e != experimentalsys.EISDIR {
			t.Errorf("read: %v", e)
		}
		f.Close()
	}
}

func TestTreeFacts(t *testing.T) {
	d, _ := newTree(t, &plugin.Invocation{})
	for name, want := range map[string]string{
		"args.json":       `[{"index":1,"typed":"/x"}]`,
		"caps.json":       `[{"cap":"state.read"}]`,
		"config.json":     `{"a":{"b":[1],"c":"x"}}`,
		"last_error.json": `{}`,
	} {
		got, e := slurp(d, name)
		if e != 0 || got != want+"\n" {
			t.Errorf("%s: %v %s, want %s", name, e, got, want)
		}
		if st, e := d.Stat(name); e != 0 || st.Size != int64(len(want)+1) || !st.Mode.IsRegular() {
			t.Errorf("%s: %v size %d", name, e, st.Size)
		}
	}
	f := mustOpen(t, d, "args.json", forRead)
	if at, e := f.Seek(-2, io.SeekEnd); e != 0 || at != 25 {
		t.Errorf("seek: %d, %v", at, e)
	}
	if text, e := readFile(f); text != "]\n" || e != 0 {
		t.Errorf("tail %q, %v", text, e)
	}
	if _, e := f.Seek(-1, io.SeekStart); e != experimentalsys.EINVAL {
		t.Errorf("seek: %v", e)
	}
	if _, e := f.Pread(make([]byte, 1), -1); e != experimentalsys.EINVAL {
		t.Errorf("pread: %v", e)
	}
	if _, e := f.Write([]byte("x")); e != experimentalsys.EBADF {
		t.Errorf("write: %v", e)
	}
	f.Close()
	d, s := newTree(t, &plugin.Invocation{})
	s.methods["Meta/Describe"] = func(string) (string, error) { return `{}`, nil }
	s.methods["Config/List"] = func(string) (string, error) {
		return "", hostabi.Errorf(hostabi.ReasonCapabilityDenied, "no")
	}
	if got, e := slurp(d, "caps.json"); got != "[]\n" || e != 0 {
		t.Errorf("no grants: %q, %v", got, e)
	}
	if _, e := slurp(d, "config.json"); e != experimentalsys.EACCES {
		t.Errorf("denied: %v", e)
	}
	if r := lastReason(t, d); r != hostabi.ReasonCapabilityDenied {
		t.Errorf("reason %s", r)
	}
}

func TestTreeCall(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	const name = "call/Echo/Say"
	if _, e := slurp(d, name); e != experimentalsys.EINVAL || lastReason(t, d) != hostabi.ReasonBadMessage || len(s.asked) != 0 {
		t.Errorf("without a request: %v, %v", e, s.asked)
	}
	ask(t, d, name, " \n{\"a\":\n1}\n")
	for range 2 { // the answer stays
		if got, e := slurp(d, name); got != "said {\"a\":\n1}\n" || e != 0 {
			t.Errorf("answer %q, %v", got, e)
		}
	}
	if len(s.asked) != 1 {
		t.Errorf("called %v", s.asked)
	}
	f := mustOpen(t, d, name, forWrite)
	f.Close() // nothing written: nothing runs
	if _, e := slurp(d, name); e != 0 || len(s.asked) != 1 {
		t.Errorf("touched: %v %v", e, s.asked)
	}
	f = mustOpen(t, d, name, forWrite|experimentalsys.O_APPEND)
	if !f.IsAppend() || f.SetAppend(true) != 0 || f.Truncate(0) != 0 || f.Sync() != 0 || f.Datasync() != 0 {
		t.Error("text layers do not get what they need")
	}
	_, _ = f.Write([]byte("new"))
	if _, e := slurp(d, name); e != experimentalsys.EINVAL {
		t.Errorf("an old answer beside a new request: %v", e)
	}
	if _, e := f.Read(make([]byte, 9)); e != experimentalsys.EBADF {
		t.Errorf("read of a file for writing: %v", e)
	}
	f.Close()
	f = mustOpen(t, d, name, forRead)
	if _, e := f.Write([]byte("x")); e != experimentalsys.EBADF {
		t.Errorf("write to a file for reading: %v", e)
	}
	if e := f.Truncate(0); e != experimentalsys.EBADF {
		t.Errorf("truncate: %v", e)
	}
	f.Close()

	// both ways in one file, twice
	f = mustOpen(t, d, name, forBoth)
	for _, req := range []string{"one", "two"} {
		if n, e := f.Pwrite([]byte(req), 77); n != 3 || e != 0 {
			t.Errorf("pwrite: %d, %v", n, e)
		}
		if at, e := f.Seek(0, io.SeekEnd); at != 0 || e != 0 {
			t.Errorf("seek before the first read: %d, %v", at, e)
		}
		b := make([]byte, 4)
		if n, e := f.Pread(b, 99); n != 4 || e != 0 || string(b) != "said" {
			t.Errorf("pread: %q, %v", b[:n], e)
		}
		if _, e := f.Seek(0, io.SeekStart); e != experimentalsys.EINVAL {
			t.Errorf("seek after the first read: %v", e)
		}
		if got, e := readFile(f); got != " "+req+"\n" || e != 0 {
			t.Errorf("answer %q, %v", got, e)
		}
	}
	f.Close()
	if d.held != 0 && len(d.kept) == 0 {
		t.Errorf("%d bytes held for nothing", d.held)
	}

	ask(t, d, "call/ds.host.v1.Echo/Say", "full")
	if got, e := slurp(d, "call/Echo/Say"); got != "said full\n" || e != 0 {
		t.Errorf("by its full name: %q, %v", got, e)
	}
}

// TestTreeErrors: a call that ran at close fails at the next open for reading, one that ran at a read there.
func TestTreeErrors(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	ask(t, d, "call/Echo/Fail", "{}")
	for range 2 {
		if _, e := d.OpenFile("call/Echo/Fail", forRead, 0); e != experimentalsys.EACCES {
			t.Errorf("open: %v", e)
		}
		if r := lastReason(t, d); r != hostabi.ReasonCapabilityDenied {
			t.Errorf("reason %s", r)
		}
		d.last = nil // each open tells it again
	}
	if _, e := d.Stat("call/Echo/Fail"); e != 0 {
		t.Errorf("stat: %v", e)
	}
	f := mustOpen(t, d, "call/Echo/Fail", forBoth)
	_, _ = f.Write([]byte("{}"))
	for range 2 {
		if n, e := f.Read(make([]byte, 9)); n != 0 || e != experimentalsys.EACCES {
			t.Errorf("read: %d, %v", n, e)
		}
	}
	f.Close()
	for reason, want := range map[hostabi.Reason]experimentalsys.Errno{
		hostabi.ReasonCapabilityDenied: experimentalsys.EACCES, hostabi.ReasonAuthRequired: experimentalsys.EACCES,
		hostabi.ReasonNotCached: experimentalsys.ENOENT, hostabi.ReasonExists: experimentalsys.EEXIST,
		hostabi.ReasonBadKey: experimentalsys.EINVAL, hostabi.ReasonUnknownMethod: experimentalsys.ENOTSUP,
		hostabi.ReasonQuota: experimentalsys.EIO, hostabi.ReasonStateConflict: experimentalsys.EIO,
		hostabi.ReasonTimeout: experimentalsys.EIO, hostabi.ReasonInterrupted: experimentalsys.EIO,
		hostabi.ReasonOffline: experimentalsys.EIO, hostabi.ReasonCacheCorrupt: experimentalsys.EIO,
		hostabi.ReasonCallCycle: experimentalsys.EIO, hostabi.ReasonInternal: experimentalsys.EIO,
	} {
		s.methods["Echo/Fail"] = func(string) (string, error) {
			return "", hostabi.Errorf(reason, "text").WithMeta("resource", "r").WithFix("ds fix")
		}
		ask(t, d, "call/Echo/Fail", "{}")
		if _, e := slurp(d, "call/Echo/Fail"); e != want {
			t.Errorf("%s: %v, want %v", reason, e, want)
		}
		text, _ := slurp(d, "last_error.json")
		if e := hostabi.ParseStatusJSON([]byte(text)); e.Reason != reason || e.Fix != "ds fix" || e.Meta["resource"] != "r" || e.Msg != "text" {
			t.Errorf("%s: last error %s", reason, text)
		}
	}
	ask(t, d, "call/Echo/Nothing", "{}")
	if _, e := slurp(d, "call/Echo/Nothing"); e != experimentalsys.ENOTSUP || lastReason(t, d) != hostabi.ReasonUnknownMethod {
		t.Errorf("unknown method: %v", e)
	}
	if e := d.fail(errors.New("no host error")); e != experimentalsys.EIO || lastReason(t, d) != hostabi.ReasonInternal {
		t.Errorf("any error: %v", e)
	}
}

func TestTreeStreams(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	var lines, want strings.Builder
	for i := range 100 { // more than any queue holds
		fmt.Fprintf(&lines, "{\"n\":%d}\n\n", i)
		fmt.Fprintf(&want, "<{\"n\":%d}>\n", i)
	}
	ask(t, d, "call/Stream/Echo", lines.String())
	if s.open.Load() != 0 {
		t.Errorf("%d streams open although it has ended", s.open.Load())
	}
	for range 2 {
		if got, e := slurp(d, "call/Stream/Echo"); got != want.String() || e != 0 {
			t.Errorf("run at close: %q, %v", got, e)
		}
	}
	f := mustOpen(t, d, "call/Stream/Echo", forBoth)
	_, _ = f.Write([]byte(lines.String()))
	if got, e := readFile(f); got != want.String() || e != 0 {
		t.Errorf("run at a read: %q, %v", got, e)
	}
	f.Close()
	for _, c := range []struct {
		method string
		errno  experimentalsys.Errno
		reason hostabi.Reason
		text   string
	}{
		{"Fails", experimentalsys.EACCES, hostabi.ReasonCapabilityDenied, "<1>\n"},
		{"Refused", experimentalsys.EIO, hostabi.ReasonTooMany, ""},
	} {
		ask(t, d, "call/Stream/"+c.method, "1")
		got, e := slurp(d, "call/Stream/"+c.method)
		if got != c.text || e != c.errno || lastReason(t, d) != c.reason {
			t.Errorf("%s: %q, %v, %s", c.method, got, e, d.last)
		}
	}
	if n := s.open.Load(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}

// TestTreeStreamIsNotRead: a guest that asks for an endless answer and reads none of it, or a little, holds what was
// read ahead and one stream, until it asks again or ends.
func TestTreeStreamIsNotRead(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	ask(t, d, "call/Stream/Endless", "{}\n{}\n{}")
	if s.open.Load() != 1 || d.held < maxAhead || d.held > maxAhead+1<<17 {
		t.Errorf("%d streams, %d bytes", s.open.Load(), d.held)
	}
	ask(t, d, "call/Stream/Endless", "{}")
	if s.open.Load() != 1 || d.held > maxAhead+1<<17 {
		t.Errorf("asked again: %d streams, %d bytes", s.open.Load(), d.held)
	}
	f := mustOpen(t, d, "call/Stream/Endless", forRead)
	got := 0
	for b := make([]byte, 1<<16); got < 2*maxAhead; { // goes on behind what was read ahead
		n, e := f.Read(b)
		if n == 0 || e != 0 {
			t.Fatalf("after %d bytes: %d, %v", got, n, e)
		}
		got += n
	}
	f.Close()
	if s.open.Load() != 0 {
		t.Error("closed in the middle and still open")
	}
	if text, e := slurp(d, "call/Stream/Endless"); e != experimentalsys.EIO || len(text) < maxAhead || lastReason(t, d) != hostabi.ReasonInterrupted {
		t.Errorf("read again: %d bytes, %v", len(text), e)
	}

	// closed in the middle of one's own answer, while requests are still to be sent
	f = mustOpen(t, d, "call/Stream/Endless", forBoth)
	_, _ = f.Write([]byte(strings.Repeat("{}\n", 1000)))
	_, _ = f.Read(make([]byte, 10))
	if s.open.Load() != 1 {
		t.Error("not open")
	}
	f.Close()
	if s.open.Load() != 0 {
		t.Error("closed in the middle and still open")
	}

	ask(t, d, "call/Stream/Endless", "{}")
	f = mustOpen(t, d, "call/Stream/Endless", forBoth)
	_, _ = f.Write([]byte("{}"))
	_, _ = f.Read(make([]byte, 10))
	d.in.files.close() // as at the end of the guest
	d.close()
	if s.open.Load() != 0 || d.held != 0 {
		t.Errorf("after the guest: %d streams, %d bytes", s.open.Load(), d.held)
	}
}

func TestTreeLimits(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	big := strings.Repeat("x", hostabi.MaxMessage)
	ask(t, d, "call/Echo/Say", big)
	if got, e := slurp(d, "call/Echo/Say"); len(got) != len(big)+6 || e != 0 {
		t.Errorf("largest: %d bytes, %v", len(got), e)
	}
	tooLarge := func(what string, e experimentalsys.Errno) {
		t.Helper()
		if r := lastReason(t, d); e != experimentalsys.EIO || r != hostabi.ReasonTooLarge {
			t.Errorf("%s: %v, %s", what, e, r)
		}
	}
	ask(t, d, "call/Echo/Say", big+"x")
	_, e := slurp(d, "call/Echo/Say")
	tooLarge("one more", e)
	ask(t, d, "call/Stream/Echo", "1\n"+big+"x\n2")
	_, e = slurp(d, "call/Stream/Echo")
	tooLarge("one more in a stream", e)
	if slices.Contains(s.asked, "/ds.host.v1.Stream/Echo") {
		t.Error("a stream with a message that is too large ran")
	}

	// many requests that are never sent
	var files []experimentalsys.File
	e = 0
	for i := 0; e == 0 && i < 100; i++ {
		f := mustOpen(t, d, fmt.Sprint("call/Echo/M", i), forWrite)
		files = append(files, f)
		_, e = f.Write([]byte(big))
	}
	tooLarge("many requests", e)
	if d.held > maxHeld || len(files) > maxHeld/hostabi.MaxMessage+1 {
		t.Errorf("%d files hold %d bytes", len(files), d.held)
	}
	last := files[len(files)-1]
	_, e = last.Write([]byte("x"))
	tooLarge("a request that was cut", e)
	s.asked = nil
	last.Close()
	if len(s.asked) != 0 {
		t.Errorf("a request that was cut ran: %v", s.asked)
	}
	for _, f := range files[:len(files)-1] {
		f.Close()
	}

	// many answers that are never read
	for i := range 2 * maxKept {
		s.methods[fmt.Sprint("Echo/N", i)] = s.methods["Echo/Say"]
		ask(t, d, fmt.Sprint("call/Echo/N", i), "x")
	}
	if len(d.kept) > maxKept || len(d.order) != len(d.kept) {
		t.Errorf("%d answers, %d in order", len(d.kept), len(d.order))
	}
	if _, e := slurp(d, "call/Echo/N0"); e != experimentalsys.EINVAL {
		t.Errorf("the oldest: %v", e)
	}
	if got, e := slurp(d, fmt.Sprint("call/Echo/N", 2*maxKept-1)); got != "said x\n" || e != 0 {
		t.Errorf("the newest: %q, %v", got, e)
	}
	files, e = nil, 0
	for i := 0; e == 0 && i < 100; i++ {
		f := mustOpen(t, d, "call/Echo/Big", forBoth)
		files = append(files, f)
		_, _ = f.Write([]byte("x"))
		_, e = f.Read(make([]byte, 1))
	}
	tooLarge("many answers that were begun", e)
	if d.held > maxHeld+hostabi.MaxMessage {
		t.Errorf("%d bytes held", d.held)
	}
	for _, f := range files {
		f.Close()
	}
	d.close()
	if d.held != 0 || len(d.in.files.open) != 0 {
		t.Errorf("%d bytes, %d files left", d.held, len(d.in.files.open))
	}

	d, _ = newTree(t, &plugin.Invocation{})
	for range hostabi.MaxOpenFiles {
		mustOpen(t, d, "call/Echo/Say", forBoth)
	}
	if _, e := d.OpenFile("call/Echo/Say", forBoth, 0); e != experimentalsys.EIO {
		t.Errorf("file %d: %v", hostabi.MaxOpenFiles+1, e)
	}
	if !strings.Contains(string(d.last), "TOO_MANY") {
		t.Errorf("last error %s", d.last)
	}
}

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

func second[T any](_ T, e experimentalsys.Errno) experimentalsys.Errno { return e }

// TestTreeGuestEnds: what a guest wrote and did not close before it was stopped does not run.
func TestTreeGuestEnds(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	f := mustOpen(t, d, "call/Echo/Say", forWrite)
	_, _ = f.Write([]byte(`{"half`))
	d.ended = true
	f.Close()
	f = mustOpen(t, d, "call/Echo/Say", forBoth)
	_, _ = f.Write([]byte(`{"half`))
	d.in.files.close()
	if len(s.asked) != 0 || d.held != 0 {
		t.Errorf("called %v, %d bytes held", s.asked, d.held)
	}
}

// stopsGuest reports whether f ended the guest.
func stopsGuest(f func()) (ended bool) {
	defer func() { _, ended = recover().(*sys.ExitError) }()
	f()
	return false
}

func TestTreePanicOfTheHost(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{})
	s.methods["Echo/Say"] = func(string) (string, error) { panic("planted") }
	f := mustOpen(t, d, "call/Echo/Say", forWrite)
	_, _ = f.Write([]byte("{}"))
	if !stopsGuest(func() { f.Close() }) {
		t.Error("the guest goes on")
	}
	if d.in.panicked == nil || d.in.panicked.value != "planted" || d.in.busy.Load() {
		t.Errorf("remembered %v", d.in.panicked)
	}
}

func TestTreeDeadline(t *testing.T) {
	d, s := newTree(t, &plugin.Invocation{Deadline: time.Now().Add(50 * time.Millisecond)})
	s.methods["Echo/Say"] = func(string) (string, error) {
		<-d.in.stop.wait.Done()
		return "", hostabi.Errorf(hostabi.ReasonTimeout, "late")
	}
	f := mustOpen(t, d, "call/Echo/Say", forBoth)
	_, _ = f.Write([]byte("{}"))
	if !stopsGuest(func() { _, _ = f.Read(make([]byte, 1)) }) {
		t.Error("the guest goes on after its deadline")
	}
	if !stopsGuest(func() { _, _ = d.OpenFile("call", forRead, 0) }) || !stopsGuest(func() { _, _ = d.Stat("call") }) {
		t.Error("opening goes on after the deadline")
	}
}

// FuzzTree: any sequence of calls on any names ends without a panic of the host, without an errno that runtimes
// retry for ever, and leaves nothing.
func FuzzTree(f *testing.F) {
	f.Add([]byte("\x00\x00\x02\x06\x03\x09"), "call/Echo/Say")
	f.Add([]byte("\x01\x00\x02\x02\x06\x03\x05\x04\x07\x03"), "call/Stream/Endless")
	f.Add([]byte("\x02\x02\x01\x06\x08\x03"), "sink/1")
	f.Add([]byte("\x03\x01\x03"), "blob/sha256/"+strings.Repeat("a", 64))
	f.Add([]byte("\x04\x0a\x01\x03"), "call/../call//Echo/./Say/")
	f.Fuzz(func(t *testing.T, steps []byte, name string) {
		d, s := newTree(t, &plugin.Invocation{})
		s.handles = map[uint32]io.ReadWriteCloser{1: &fakeBlob{}}
		names := []string{"call/Echo/Say", "call/Stream/Echo", "call/Echo/Fail", "last_error.json", ".", name}
		flags := []experimentalsys.Oflag{forRead, forWrite, forBoth, forBoth | experimentalsys.O_APPEND, experimentalsys.O_DIRECTORY}
		var open []experimentalsys.File
		next := func() int {
			if len(steps) == 0 {
				return 0
			}
			n := int(steps[0])
			steps = steps[1:]
			return n
		}
		check := func(e experimentalsys.Errno) {
			if e == experimentalsys.EINTR || e == experimentalsys.EAGAIN || e == experimentalsys.ENOSYS {
				t.Fatalf("errno %v", e)
			}
		}
		for i := 0; i < 64 && len(steps) > 0; i++ {
			op, arg := next(), next()
			if op%12 < 3 || len(open) == 0 {
				g, e := d.OpenFile(names[op%len(names)], flags[arg%len(flags)], 0)
				check(e)
				if e == 0 {
					open = append(open, g)
				}
				continue
			}
			at := arg % len(open)
			g := open[at]
			switch op % 12 {
			case 3, 4:
				_, e := g.Read(make([]byte, arg))
				check(e)
			case 5, 6:
				_, e := g.Write([]byte(name))
				check(e)
			case 7:
				_, e := g.Seek(int64(arg-100), op%4)
				check(e)
			case 8:
				_, e := g.Pwrite([]byte("{}\n"), int64(arg))
				check(e)
			case 9:
				_, e := g.Stat()
				check(e)
				check(g.Truncate(int64(arg)))
			case 10:
				if isDir, _ := g.IsDir(); isDir {
					_, e := g.Readdir(arg)
					check(e)
				}
				_, e := d.Stat(names[arg%len(names)])
				check(e)
			default:
				check(g.Close())
				open = slices.Delete(open, at, at+1)
			}
		}
		d.in.files.close()
		d.close()
		if d.held != 0 || s.open.Load() != 0 || len(d.kept) != 0 {
			t.Fatalf("left: %d bytes, %d streams, %d answers", d.held, s.open.Load(), len(d.kept))
		}
	})
}
