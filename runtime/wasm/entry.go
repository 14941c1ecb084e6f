package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/wasmcheck"
)

const (
	entryVersion = 1
	meterVersion = wasmcheck.MeterVersion
	moduleFile   = "module.wasm"
	entryFile    = "entry.json"
	lockDir      = ".lock"
	tempPrefix   = ".tmp-"
	trimFile     = ".trim"

	maxIdle    = 30 * 24 * time.Hour // an entry that nobody loaded
	maxForeign = 24 * time.Hour      // an entry of another engine version
	maxStaging = time.Hour           // a staging directory; its process was killed
	trimEvery  = 24 * time.Hour
	touchEvery = time.Hour
	defaultMax = 1 << 30
)

// entryInfo is entry.json: what an entry was made from and which state its files had when it was published.
type entryInfo struct {
	V         int            `json:"v"`
	Source    hostabi.Digest `json:"source"`
	SHA256    string         `json:"sha256"` // of module.wasm
	Engine    string         `json:"engine"`
	OS        string         `json:"os"`
	Arch      string         `json:"arch"`
	Features  uint64         `json:"features"`
	Meter     string         `json:"meter"`
	CompileMS int64          `json:"compile_ms"`
	Files     []stamp        `json:"files,omitempty"`
}

// stamp is one state of one file. It protects from accidents: who can write here is the user.
type stamp struct {
	Name  string `json:"name"` // relative, with slashes
	Size  int64  `json:"size"`
	Ino   int64  `json:"ino"`
	Mtime int64  `json:"mtime_ns"`
	Ctime int64  `json:"ctime_ns"`
}

// entries is the directory of compiled modules. An entry is native code: it is made here, never copied,
// and read only while nobody else could have written it.
type entries struct {
	dir string
	max int64
	fs  atomicfile.FS
	log *slog.Logger
	now func() time.Time
}

// keyOf names the entry of a module: everything that the native code depends on beside the CPU, which is
// part of the name that wazero gives its file.
func keyOf(source hostabi.Digest) string {
	h := sha256.New()
	for _, s := range []string{
		"ds-wasm-1", string(source), meterVersion, engineVersion(), runtime.GOOS + "/" + runtime.GOARCH,
		strconv.FormatUint(uint64(features), 16), "close=" + strconv.FormatBool(closeOnDone), "debug=false",
	} {
		h.Write([]byte(s + "\x00"))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// engineVersion is the version of wazero that is linked here, else that of the main module.
func engineVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, d := range info.Deps {
		if d.Path == "github.com/tetratelabs/wazero" {
			return d.Version
		}
	}
	return info.Main.Version
}

// usable says why nothing may be read or written here, or is nil. It makes the directory.
func (s *entries) usable() error {
	if err := atomicfile.MkdirAll(s.fs, filepath.Join(s.dir, lockDir), 0o700); err != nil {
		return err
	}
	if what := unsafeDir(s.dir); what != "" {
		return errors.New(what)
	}
	return nil
}

// load is the module of a sound entry; its native code lies below dir. A missing entry is fs.ErrNotExist,
// anything else means that the entry is damaged.
func (s *entries) load(key string) (module []byte, dir string, err error) {
	dir = filepath.Join(s.dir, key)
	info, err := s.info(key)
	if err != nil {
		return nil, "", err
	}
	if info.V != entryVersion || len(info.Files) == 0 {
		return nil, "", fmt.Errorf("%s: version %d of the format with %d files", entryFile, info.V, len(info.Files))
	}
	for _, want := range info.Files {
		b, got, err := s.readStamped(dir, want.Name)
		if err != nil {
			return nil, "", &damage{err}
		}
		if got != want {
			return nil, "", fmt.Errorf("%s was changed", want.Name)
		}
		if want.Name == moduleFile {
			module = b
		}
	}
	if module == nil {
		return nil, "", fmt.Errorf("%s lists no %s", entryFile, moduleFile)
	}
	s.touch(dir)
	return module, dir, nil
}

// damage hides that an error is "does not exist": the entry is there, a part of it is not.
type damage struct{ err error }

func (e *damage) Error() string { return e.err.Error() }

func (s *entries) info(key string) (*entryInfo, error) {
	b, err := atomicfile.ReadFile(s.fs, filepath.Join(s.dir, key, entryFile), 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := s.fs.Lstat(filepath.Join(s.dir, key)); serr == nil {
			return nil, &damage{err}
		}
	}
	if err != nil {
		return nil, err
	}
	var info entryInfo
	if err := json.Unmarshal(b, &info); err != nil {
		return nil, fmt.Errorf("%s: %w", entryFile, err)
	}
	return &info, nil
}

// readStamped is the stamp of an open file and, of module.wasm only, its content.
func (s *entries) readStamped(dir, name string) ([]byte, stamp, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return nil, stamp{}, fmt.Errorf("name %q leaves the entry", name)
	}
	f, err := s.fs.Open(filepath.Join(dir, filepath.FromSlash(name)), os.O_RDONLY, 0)
	if err != nil {
		return nil, stamp{}, err
	}
	defer func() { _ = f.Close() }() // read only
	id, err := atomicfile.FileID(f)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, stamp{}, err
	}
	st := stamp{Name: name, Size: id.Size, Ino: id.Ino, Mtime: id.Mtime, Ctime: id.Ctime}
	if name != moduleFile {
		return nil, st, nil
	}
	if id.Size > wasmcheck.MaxMetered {
		return nil, stamp{}, fmt.Errorf("%s: %w", name, atomicfile.ErrTooLarge)
	}
	var b bytes.Buffer
	b.Grow(int(id.Size) + bytes.MinRead)
	_, err = b.ReadFrom(io.LimitReader(f, wasmcheck.MaxMetered+1))
	return b.Bytes(), st, err
}

// touch marks the entry as used, at most hourly, so that a run normally writes nothing.
func (s *entries) touch(dir string) {
	if fi, err := s.fs.Lstat(dir); err == nil && s.now().Sub(fi.ModTime()) > touchEvery {
		_ = s.fs.Chtimes(dir, s.now()) // only the order of eviction suffers
	}
}

// lock keeps other processes from compiling key at the same time.
func (s *entries) lock(ctx context.Context, key string) (unlock func() error, err error) {
	return s.fs.Lock(ctx, filepath.Join(s.dir, lockDir, key))
}

// stage makes the directory that one compile may write to.
func (s *entries) stage() (dir string, err error) {
	return os.MkdirTemp(s.dir, tempPrefix+strconv.Itoa(os.Getpid())+"-")
}

// publish stamps what lies in the staging directory and makes it the entry of key by one rename.
func (s *entries) publish(stage, key string, info *entryInfo) error {
	info.Files = nil
	err := filepath.WalkDir(stage, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(stage, name)
		if err != nil {
			return err
		}
		_, st, err := s.readStamped(stage, filepath.ToSlash(rel))
		info.Files = append(info.Files, st)
		return err
	})
	if err != nil {
		return err
	}
	b, err := json.Marshal(info)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(s.fs, filepath.Join(stage, entryFile), b, 0o400); err != nil {
		return err
	}
	target := filepath.Join(s.dir, key)
	if err := s.remove(key); err != nil {
		return err
	}
	if err := s.fs.Rename(stage, target); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

// remove takes the entry of key away by one rename, then deletes it.
func (s *entries) remove(key string) error {
	gone := filepath.Join(s.dir, tempPrefix+strconv.Itoa(os.Getpid())+"-"+key[:8]+"-"+strconv.FormatInt(s.now().UnixNano(), 36))
	err := s.fs.Rename(filepath.Join(s.dir, key), gone)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return atomicfile.RemoveAll(s.fs, gone)
}

// forget removes the entries that were made from source, of every engine version.
func (s *entries) forget(source hostabi.Digest) error {
	keys, err := s.keys()
	if err != nil {
		return err
	}
	for _, key := range keys {
		if info, err := s.info(key); err == nil && info.Source == source {
			if err := s.remove(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// keys are the names of the entries; a missing directory has none.
func (s *entries) keys() ([]string, error) {
	names, err := s.fs.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names = slices.DeleteFunc(names, func(n string) bool { return len(n) != sha256.Size*2 })
	return names, err
}

// trim bounds the directory: what killed processes left, entries that nobody uses, then the least recently
// used until the rest fits. At most daily, by one process. Code in use is anonymous memory and may go.
func (s *entries) trim(ctx context.Context) error {
	mark := filepath.Join(s.dir, trimFile)
	if fi, err := s.fs.Lstat(mark); err == nil && s.now().Sub(fi.ModTime()) < trimEvery {
		return nil
	}
	done, cancel := context.WithCancel(ctx)
	cancel() // try once: who holds the lock trims
	unlock, err := s.lock(done, "trim")
	if errors.Is(err, atomicfile.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // released at exit at the latest
	if err := atomicfile.Write(s.fs, mark, nil, 0o600); err != nil {
		return err
	}
	return errors.Join(s.sweep(), s.evict())
}

func (s *entries) sweep() error {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		path := filepath.Join(s.dir, n)
		if fi, err := s.fs.Lstat(path); strings.HasPrefix(n, tempPrefix) && err == nil && s.now().Sub(fi.ModTime()) > maxStaging {
			errs = append(errs, atomicfile.RemoveAll(s.fs, path))
		}
	}
	return errors.Join(errs...)
}

func (s *entries) evict() error {
	type used struct {
		key  string
		at   time.Time
		size int64
	}
	keys, err := s.keys()
	if err != nil {
		return err
	}
	var kept []used
	var total int64
	var errs []error
	for _, key := range keys {
		fi, err := s.fs.Lstat(filepath.Join(s.dir, key))
		if err != nil {
			continue // removed meanwhile
		}
		idle := s.now().Sub(fi.ModTime())
		info, err := s.info(key)
		foreign := err != nil || info.Engine != engineName() || info.Meter != meterVersion
		if idle > maxIdle || foreign && idle > maxForeign {
			errs = append(errs, s.remove(key))
			continue
		}
		u := used{key: key, at: fi.ModTime()}
		if info != nil {
			for _, f := range info.Files {
				u.size += f.Size
			}
		}
		total += u.size
		kept = append(kept, u)
	}
	slices.SortFunc(kept, func(a, b used) int { return a.at.Compare(b.at) })
	for _, u := range kept {
		if total <= s.max {
			break
		}
		errs = append(errs, s.remove(u.key))
		total -= u.size
	}
	return errors.Join(errs...)
}

func engineName() string { return "wazero " + engineVersion() }
