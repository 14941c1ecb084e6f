package events

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// readLog gives the events of a log with all its rotated files. A line that does not parse fails the test, unless
// it is empty: see logFile.open.
func readLog(t *testing.T, path string) (all []hostabi.Event) {
	t.Helper()
	names, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".lock") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			if len(lines.Bytes()) == 0 {
				continue
			}
			e, err := hostabi.ParseCloudEvent(lines.Bytes())
			if err != nil {
				t.Fatalf("%s: %q: %v", name, lines.Text(), err)
			}
			all = append(all, e)
		}
	}
	return all
}

func TestLogHasEveryAcceptedEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	b := New(Options{Log: &Log{Path: path}})
	if !b.Wanted("a") {
		t.Error("the log is a listener too")
	}
	e := event("a.b")
	e.Data = []byte(`{"n":1}`)
	for _, e := range []hostabi.Event{e, event("A"), event("c")} { // the second one is refused
		_, _, _ = b.Publish(t.Context(), e)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	all := readLog(t, path)
	if len(all) != 2 || all[0].Topic != "a.b" || string(all[0].Data) != `{"n":1}` || all[1].Topic != "c" {
		t.Fatalf("got %+v", all)
	}
	if !strings.HasSuffix(all[0].ID, "-1") || !strings.HasSuffix(all[1].ID, "-2") {
		t.Errorf("ids %s and %s do not count accepted events", all[0].ID, all[1].ID)
	}
	if _, _, err := b.Publish(t.Context(), e); err != nil {
		t.Errorf("publish after Close: %v", err)
	}
	if n := len(readLog(t, path)); n != 2 {
		t.Errorf("a closed bus wrote: %d events", n)
	}
}

// TestLogRotatesUnderManyWriters has buses of their own share one file, as processes do: no event is lost, none
// comes twice, no line is torn.
func TestLogRotatesUnderManyWriters(t *testing.T) {
	const writers, each = 6, 400
	path := filepath.Join(t.TempDir(), "events.jsonl")
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			b := New(Options{Log: &Log{Path: path, MaxSize: 8 << 10}})
			defer b.Close()
			for i := range each {
				if _, _, err := b.Publish(t.Context(), event(fmt.Sprintf("w%d.e%d", w, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[string]bool)
	for _, e := range readLog(t, path) {
		if seen[e.Topic] {
			t.Errorf("%s is there twice", e.Topic)
		}
		seen[e.Topic] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d events, want %d", len(seen), writers*each)
	}
	if _, err := os.Stat(path + ".2"); err != nil {
		t.Errorf("not rotated: %v", err)
	}
}

func TestLogKeepsSoManyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	b := New(Options{Log: &Log{Path: path, MaxSize: 1, Keep: 2}})
	for i := range 6 {
		if _, _, err := b.Publish(t.Context(), event(fmt.Sprintf("e%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	b.Close()
	var topics []string
	for _, e := range readLog(t, path) { // PATH, PATH.1, PATH.2
		topics = append(topics, e.Topic)
	}
	if got := strings.Join(topics, " "); got != "e5 e4 e3" {
		t.Errorf("kept %s", got)
	}
}

func TestLogHidesSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	scrub := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("4711"), []byte("***")) }
	b := New(Options{Log: &Log{Path: path, Scrub: scrub}})
	for name, data := range map[string]string{"text": `{"pin":"4711"}`, "number": `{"pin":4711}`, "binary": "\xff4711"} {
		e := event(name)
		e.Data, e.Attributes = []byte(data), map[string]string{"pin": "4711"}
		if _, _, err := b.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if string(e.Data) != data {
			t.Error("the event itself was changed")
		}
	}
	b.Close()
	all := readLog(t, path)
	if len(all) != 3 {
		t.Errorf("%d events", len(all))
	}
	for _, e := range all {
		if strings.Contains(string(e.Data)+e.Attributes["pin"], "4711") || e.Attributes["pin"] != "***" {
			t.Errorf("got %s %v", e.Data, e.Attributes)
		}
	}
}

// TestTornEndSpoilsNoOtherLine is a power cut: the half line stays alone.
func TestTornEndSpoilsNoOtherLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	if err := os.WriteFile(path, []byte(`{"specversion":"1.0","id":"x-`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := New(Options{Log: &Log{Path: path}})
	if _, _, err := b.Publish(t.Context(), event("a")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), text)
	}
	if e, err := hostabi.ParseCloudEvent(lines[1]); err != nil || e.Topic != "a" {
		t.Errorf("got %+v, %v", e, err)
	}
}

// fullDisk opens files that take half of a line and then nothing.
type fullDisk struct{ atomicfile.FS }

type fullFile struct{ atomicfile.File }

func (d fullDisk) Open(name string, flag int, perm fs.FileMode) (atomicfile.File, error) {
	f, err := d.FS.Open(name, flag, perm)
	return fullFile{f}, err
}

func (f fullFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b[:len(b)/2])
	return n, errors.Join(err, syscall.ENOSPC)
}

// TestBrokenLogFailsNoPublish also asserts that one warning is all there is.
func TestBrokenLogFailsNoPublish(t *testing.T) {
	dir := t.TempDir()
	for name, l := range map[string]Log{
		"no directory": {Path: filepath.Join(dir, "none", "log")},
		"a directory":  {Path: dir},
		"disk full":    {Path: filepath.Join(dir, "full"), FS: fullDisk{atomicfile.OS()}},
	} {
		var text bytes.Buffer
		l.Warn = slog.New(slog.NewTextHandler(&text, nil))
		b := New(Options{Log: &l})
		c := subscribe(t, t.Context(), b, "a")
		for range 3 {
			if n, _, err := b.Publish(t.Context(), event("a")); n != 1 || err != nil {
				t.Errorf("%s: %d subscribers, %v", name, n, err)
			}
			next(t, c)
		}
		b.Close()
		if n := strings.Count(text.String(), "level=WARN"); n != 1 {
			t.Errorf("%s: %d warnings: %s", name, n, text.String())
		}
	}
}

// TestRotationElsewhereNeverBlocks holds the lock of the rotation: lines go on into the old file.
func TestRotationElsewhereNeverBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	files := atomicfile.OS()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	unlock, err := files.Lock(ctx, path+".lock")
	if err != nil {
		t.Fatal(err)
	}
	b := New(Options{Log: &Log{Path: path, MaxSize: 1, FS: files}})
	for range 3 {
		_, _, _ = b.Publish(t.Context(), event("a"))
	}
	if _, err := os.Stat(path + ".1"); err == nil {
		t.Error("rotated without the lock")
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	_, _, _ = b.Publish(t.Context(), event("a"))
	b.Close()
	if _, err := os.Stat(path + ".1"); err != nil {
		t.Errorf("not rotated: %v", err)
	}
	if n := len(readLog(t, path)); n != 4 {
		t.Errorf("%d events", n)
	}
}
