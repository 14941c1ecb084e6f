package events

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

// numbered is the n-th event of the scenario; three fill a file of the log.
func numbered(n int) hostabi.Event {
	e := event("a.b")
	e.Data = []byte(fmt.Sprintf(`{"n":%d,"fill":%q}`, n, strings.Repeat("x", 2000)))
	return e
}

func faultLog(f atomicfile.FS, dir string, warned *bytes.Buffer) *Log {
	return &Log{Path: filepath.Join(dir, "events.jsonl"), MaxSize: 6000, FS: f, Warn: slog.New(slog.NewTextHandler(warned, nil))}
}

// logScenario publishes 8 events after one, with two rotations. An event is acknowledged as long as the log is on.
func logScenario() faulttest.Scenario {
	return faulttest.Scenario{
		Name: "log",
		Setup: func(t *testing.T, f atomicfile.FS, dir string) {
			b := New(Options{Log: faultLog(f, dir, new(bytes.Buffer))})
			if _, _, err := b.Publish(t.Context(), numbered(0)); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		},
		Run: func(ctx context.Context, f atomicfile.FS, dir string, ack func(string)) error {
			var warned bytes.Buffer
			b := New(Options{Log: faultLog(f, dir, &warned)})
			for n := 1; n <= 8; n++ {
				if _, _, err := b.Publish(ctx, numbered(n)); err != nil {
					return err
				}
				if warned.Len() == 0 {
					ack(fmt.Sprint(n))
				}
			}
			return b.Close()
		},
		Check: checkLog,
	}
}

// checkLog: nothing fails for those who publish; acknowledged events are in the log, each once; a torn line spoils no
// other, and the next process writes on.
func checkLog(t *testing.T, r faulttest.Result) {
	t.Helper()
	if r.Err != nil {
		t.Errorf("publishing failed: %v", r.Err)
	}
	var warned bytes.Buffer
	b := New(Options{Log: faultLog(r.FS, r.Dir, &warned)})
	if _, _, err := b.Publish(t.Context(), numbered(99)); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil || warned.Len() > 0 {
		t.Errorf("the next process: %v, %s", err, &warned)
	}
	count, broken := logged(t, r.Dir)
	if broken > 1 && !r.Cut {
		t.Errorf("%d lines are broken", broken)
	}
	for n, times := range count {
		if times > 1 {
			t.Errorf("event %d is there %d times", n, times)
		}
	}
	if count[99] != 1 || !r.Cut && count[0] != 1 {
		t.Errorf("the first and the last event are there %d and %d times", count[0], count[99])
	}
	for _, item := range r.Acked {
		var n int
		if _, err := fmt.Sscan(item, &n); err != nil || !r.Cut && count[n] != 1 {
			t.Errorf("acknowledged event %s is there %d times", item, count[n])
		}
	}
}

// logged counts the events in all files of the log by their number, and the lines that are none.
func logged(t *testing.T, dir string) (count map[int]int, broken int) {
	t.Helper()
	count = make(map[int]int)
	names, err := filepath.Glob(filepath.Join(dir, "events.jsonl*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			if len(lines.Bytes()) == 0 {
				continue
			}
			var n int
			e, err := hostabi.ParseCloudEvent(lines.Bytes())
			if err == nil {
				_, err = fmt.Sscanf(string(e.Data), `{"n":%d`, &n)
			}
			if err != nil {
				broken++
				continue
			}
			count[n]++
		}
	}
	return count, broken
}

// R2 of reliability.md: each operation of the file system fails, or the process dies there.
func TestR2_Log(t *testing.T) { faulttest.Loop(t, logScenario()) }

// R3 of reliability.md: the power is cut. Nothing of the log is synced, so only what comes later is promised.
func TestR3_Log(t *testing.T) { faulttest.Cuts(t, logScenario(), faulttest.Scale(4, 40, 400)) }
