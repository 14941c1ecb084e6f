package events

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// Defaults of a Log, and how often a writer looks whether another process rotated the file.
const (
	defaultLogSize = 16 << 20
	lookEvents     = 64
	lookAfter      = time.Second
)

// Log is the persistent event log: every accepted event is one CloudEvents line, written at once to a file
// that all ds processes share. Nothing is synced: a killed process loses nothing, a power cut may tear the
// end. The first error turns it off for this process, with one warning.
type Log struct {
	Path    string
	MaxSize int64                 // bytes after which the file becomes Path.1, default 16 MiB
	Keep    int                   // rotated files that stay; 0 = all
	FS      atomicfile.FS         // default the real one
	Scrub   func(t []byte) []byte // takes known secrets out of data and attributes, and leaves its argument alone
	Warn    *slog.Logger          // default none
}

// logFile is an open Log. The bus calls it with its lock held, so it has none of its own.
type logFile struct {
	Log
	f      atomicfile.File // nil while closed
	size   int64           // at the last look, and own lines since
	lines  int             // since the last look
	looked time.Time
	off    bool
}

func newLog(l Log) *logFile {
	if l.MaxSize <= 0 {
		l.MaxSize = defaultLogSize
	}
	if l.FS == nil {
		l.FS = atomicfile.OS()
	}
	if l.Warn == nil {
		l.Warn = slog.New(slog.DiscardHandler)
	}
	return &logFile{Log: l}
}

// add writes e. It never fails for the caller: what does not work ends the log of this process.
func (l *logFile) add(e *hostabi.Event, now time.Time) {
	if l == nil || l.off {
		return
	}
	if err := l.write(e, now); err != nil {
		l.off = true
		l.close()
		l.Warn.Warn("the event log is off for the rest of this command", "path", l.Path, "error", err)
	}
}

func (l *logFile) write(e *hostabi.Event, now time.Time) error {
	line, err := e.Scrubbed(l.Scrub).CloudEvent()
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if err := l.ready(now); err != nil {
		return err
	}
	n, err := l.f.Write(line)
	if err == nil && n < len(line) {
		err = io.ErrShortWrite
	}
	l.size += int64(n)
	l.lines++
	return err
}

// ready opens the file if it is not, follows a rotation by another process, and rotates a full file.
func (l *logFile) ready(now time.Time) error {
	full := l.size >= l.MaxSize
	if l.f != nil && !full && l.lines < lookEvents && now.Sub(l.looked) < lookAfter {
		return nil
	}
	if l.f != nil {
		same, err := l.current()
		if err != nil {
			return err
		}
		if !same {
			l.close()
		}
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	l.lines, l.looked = 0, now
	if l.size < l.MaxSize {
		return nil
	}
	return l.rotate()
}

// current reports whether Path still is the open file, and takes over its size.
func (l *logFile) current() (bool, error) {
	mine, err := l.f.Stat()
	if err != nil {
		return false, err
	}
	l.size = mine.Size()
	named, err := l.FS.Lstat(l.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, named), err
}

// open ends a line that a power cut or a full disk tore, so that it spoils no other. A line that another process
// is writing just now looks the same; ending it twice leaves an empty line, which readers of JSON lines skip.
func (l *logFile) open() error {
	f, err := l.FS.Open(l.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.f = f
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return &fs.PathError{Op: "open", Path: l.Path, Err: errors.New("not a regular file")}
	}
	l.size = fi.Size()
	if l.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], l.size-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = f.Write([]byte("\n"))
	return err
}

// rotate renames Path.1 to Path.2 and so on, and begins a new file. While another process does the same, lines
// go on into the old file.
func (l *logFile) rotate() (err error) {
	once, cancel := context.WithCancel(context.Background())
	cancel() // one try: publishing never waits
	unlock, err := l.FS.Lock(once, l.Path+".lock")
	if errors.Is(err, atomicfile.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	same, err := l.current()
	if err != nil {
		return err
	}
	if same {
		if err := l.shift(); err != nil {
			return err
		}
	}
	l.close()
	return l.open()
}

// shift makes room for Path.1 from the oldest on; more than Keep files do not stay.
func (l *logFile) shift() error {
	names, err := l.FS.ReadDir(filepath.Dir(l.Path))
	if err != nil {
		return err
	}
	var old []int
	for _, name := range names {
		number, ok := strings.CutPrefix(name, filepath.Base(l.Path)+".")
		if n, err := strconv.Atoi(number); ok && err == nil && n > 0 && strconv.Itoa(n) == number {
			old = append(old, n)
		}
	}
	slices.SortFunc(old, func(a, b int) int { return cmp.Compare(b, a) })
	for _, n := range old {
		if l.Keep > 0 && n >= l.Keep {
			err = l.FS.Remove(l.rotated(n))
		} else {
			err = l.FS.Rename(l.rotated(n), l.rotated(n+1))
		}
		if err != nil {
			return err
		}
	}
	return l.FS.Rename(l.Path, l.rotated(1))
}

func (l *logFile) rotated(n int) string { return l.Path + "." + strconv.Itoa(n) }

func (l *logFile) close() {
	if l == nil || l.f == nil {
		return
	}
	_ = l.f.Close() // written lines are in the kernel already
	l.f = nil
}
