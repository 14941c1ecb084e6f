package wasm

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

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
