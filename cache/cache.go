// Package cache keeps blobs by digest, shared by all plugins and all ds processes of one user. Files are the
// truth: a blob becomes visible by one rename and is never modified; everything else (snapshot, logs,
// index.json) may be deleted at any time. It knows no registry and no network. The cache holds nothing that
// cannot be fetched again. Start with Open, then Store.View.
package cache

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// Verify says when a blob is hashed before it is handed out.
type Verify string

// The values of cache.verify.
const (
	VerifyStamp  Verify = "stamp"  // unless its stamp proves that it was hashed since the last change and boot
	VerifyAlways Verify = "always" // on each open
)

// Options configure a Store. The zero value of all but Dir is useful.
type Options struct {
	Dir       string        // root of the cache; made with mode 0700 by the first write
	MaxSize   int64         // disk bytes above which gc evicts; 0 = no limit
	TTL       time.Duration // gc removes entries unused for so long; 0 = never
	Threshold float64       // share of MaxSize at which eviction stops; 0 = 0.9
	AutoClean bool          // gc at Close of a process that wrote
	Durable   bool          // fsync each put
	Verify    Verify        // empty = VerifyStamp
	FS        atomicfile.FS // nil = the real one
	Clock     func() time.Time
	BootID    string // empty = of the system
	Remote    Remote // the tier between this cache and the origins
	Log       *slog.Logger
	Observe   func(Metric)                            // called synchronously, possibly from several goroutines
	Publish   func(topic string, data map[string]any) // cache.evicted and cache.corrupt; called like Observe
}

// Metric is one increment: ds.cache.requests{result=hit} by N.
type Metric struct {
	Name, Label, Value string
	N                  int64
}

// Store is one cache directory. All methods are safe for goroutines and processes. Errors are *hostabi.Error;
// a miss has reason NOT_CACHED and satisfies errors.Is(err, fs.ErrNotExist).
type Store struct {
	o       Options
	fs      atomicfile.FS
	dir     string
	boot    string // stamp word of this boot, empty = puts are durable
	durable bool
	network bool // on a network file system
	log     *slog.Logger
	remote  *remote // nil = none

	mu      sync.Mutex
	run     *run                // nil until the first write or lease
	views   map[uint16]struct{} // numbers in use
	hashes  map[hostabi.Digest]*hashing
	known   map[hostabi.Digest]atomicfile.ID // hashed by this process in this state
	touched map[hostabi.Digest]time.Time     // when the time of last use is due to be looked at again
	closed  bool

	dropping sync.Mutex
	leases   *logs // of drop, nil until the first
}

// Open checks the root and creates nothing: that is left to the first write. A directory that others own or
// may write to is UNSAFE_DIR; one made by a newer ds is CONFIG_VERSION, and nothing in it is touched.
func Open(ctx context.Context, o Options) (*Store, error) {
	if ctx.Err() != nil {
		return nil, ctxError(ctx)
	}
	if o.FS == nil {
		o.FS = atomicfile.OS()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Threshold <= 0 || o.Threshold > 1 {
		o.Threshold = 0.9
	}
	if o.BootID == "" {
		o.BootID = o.FS.BootID()
	}
	if !filepath.IsAbs(o.Dir) {
		return nil, hostabi.Errorf(hostabi.ReasonUsage, "cache directory %q is not absolute", o.Dir)
	}
	dir := filepath.Clean(o.Dir)
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		dir = target // a link to another disk is the user's choice; below the root none is followed
	}
	s := &Store{
		o: o, fs: o.FS, dir: dir, boot: o.BootID, log: o.Log,
		views: make(map[uint16]struct{}), hashes: make(map[hostabi.Digest]*hashing),
		known: make(map[hostabi.Digest]atomicfile.ID), touched: make(map[hostabi.Digest]time.Time),
	}
	if err := s.checkRoot(); err != nil {
		return nil, err
	}
	if s.network = isNetwork(dir); s.network {
		s.log.WarnContext(ctx, "cache is on a network file system: puts are slow and each read is verified", "dir", dir)
		s.o.Verify = VerifyAlways
	}
	s.durable = o.Durable || s.network || s.boot == ""
	s.remote = newRemote(s, o.Remote)
	return s, nil
}

// checkRoot refuses a root that strangers can change or a newer ds made. A missing root is fine.
func (s *Store) checkRoot() error {
	fi, err := s.fs.Lstat(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.fail(err)
	}
	if !fi.IsDir() {
		return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s is not a directory", s.dir)
	}
	if why := atomicfile.Unsafe(fi); why != "" {
		return hostabi.Errorf(hostabi.ReasonUnsafeDir, "%s %s", s.dir, why).WithFix("chmod go-w %s", s.dir)
	}
	b, err := atomicfile.ReadFile(s.fs, s.versionFile(), 64)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.fail(err)
	}
	if v := strings.TrimSpace(string(b)); v != version && v != "" {
		return hostabi.Errorf(hostabi.ReasonConfigVersion, "%s was made by a newer ds", s.dir).WithFix("ds --cache-dir DIR")
	}
	return nil
}

// Close ends the leases of this process. First it gives the remote tier five seconds to take what it was to
// get, and runs gc for at most a second if this process wrote and the cache is due. Views and writers must not be used afterwards. It is idempotent.
func (s *Store) Close() error {
	s.remote.close()
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	r := s.run
	s.mu.Unlock()
	if closed || r == nil {
		return nil
	}
	if s.o.AutoClean && !s.network && r.wrote.Load() && s.due() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		if err := s.gc(ctx, gcOptions{last: true}); err != nil && !errors.Is(err, atomicfile.ErrLocked) && ctx.Err() == nil {
			s.log.Warn("cache was not cleaned", "error", err)
		}
		cancel()
	}
	s.mu.Lock()
	r = s.run // gc may have renewed it
	s.run = nil
	s.mu.Unlock()
	return s.fail(r.end(s.fs))
}

func (s *Store) now() time.Time { return s.o.Clock() }

func (s *Store) count(name, label, value string, n int64) {
	if s.o.Observe != nil {
		s.o.Observe(Metric{Name: "ds.cache." + name, Label: label, Value: value, N: n})
	}
}

// List yields the blobs that owner committed, all for "". Nothing is hashed: a listed blob may turn out
// corrupt when it is opened. Expired blobs are left out.
func (s *Store) List(ctx context.Context, owner hostabi.PluginName) hostabi.Seq2[hostabi.BlobInfo] {
	return func(yield func(hostabi.BlobInfo, error) bool) {
		names, err := s.listed(owner)
		if err != nil {
			yield(hostabi.BlobInfo{}, err)
			return
		}
		for _, d := range names {
			if ctx.Err() != nil {
				yield(hostabi.BlobInfo{}, ctxError(ctx))
				return
			}
			info, err := s.describe(d)
			if err != nil {
				continue // gone, half or expired: not there
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (s *Store) listed(owner hostabi.PluginName) ([]hostabi.Digest, error) {
	if owner != "" {
		claims, err := s.claims(owner)
		if err != nil {
			return nil, err
		}
		ds := make([]hostabi.Digest, 0, len(claims))
		for d := range claims {
			ds = append(ds, d)
		}
		return ds, nil
	}
	names, err := s.fs.ReadDir(s.artifacts())
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, s.fail(err)
	}
	ds := make([]hostabi.Digest, 0, len(names))
	for _, n := range names {
		if d := hostabi.Digest("sha256:" + n); d.Valid() {
			ds = append(ds, d)
		}
	}
	return ds, nil
}
