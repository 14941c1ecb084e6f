package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

const maxPin = 365 * 24 * time.Hour

// hostPin is the name of the host's own pins; no plugin can have it.
const hostPin = "_"

// A claim is an empty file named after digest and size: a quota is then one readdir.

func (s *Store) claimDir(owner hostabi.PluginName) string {
	return filepath.Join(s.owners(), string(owner))
}

func (s *Store) claimFile(owner hostabi.PluginName, d hostabi.Digest, size int64) string {
	return filepath.Join(s.claimDir(owner), d.Hex()+"-"+strconv.FormatInt(size, 10))
}

// claim notes that owner committed d; fresh says that it had not before.
func (s *Store) claim(owner hostabi.PluginName, d hostabi.Digest, size int64) (fresh bool, err error) {
	err = s.withSpace(0, func() error {
		return s.inDir(s.claimDir(owner), func() error {
			f, err := s.fs.Open(s.claimFile(owner, d, size), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return nil
			}
			if err != nil {
				return err
			}
			fresh = true
			return f.Close()
		})
	})
	return fresh, s.fail(err)
}

func parseClaim(name string) (hostabi.Digest, int64, bool) {
	hash, length, ok := strings.Cut(name, "-")
	size, err := strconv.ParseInt(length, 10, 64)
	d := hostabi.Digest("sha256:" + hash)
	return d, size, ok && err == nil && size >= 0 && d.Valid()
}

// claims are the sizes of what owner committed.
func (s *Store) claims(owner hostabi.PluginName) (map[hostabi.Digest]int64, error) {
	if err := badOwner(owner); err != nil {
		return nil, err
	}
	names, err := s.fs.ReadDir(s.claimDir(owner))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, s.fail(err)
	}
	claims := make(map[hostabi.Digest]int64, len(names))
	for _, n := range names {
		if d, size, ok := parseClaim(n); ok {
			claims[d] = size
		}
	}
	return claims, nil
}

// Owned reports whether owner committed the blob d of that size.
func (s *Store) Owned(_ context.Context, owner hostabi.PluginName, d hostabi.Digest, size int64) bool {
	if !owner.Valid() || !d.Valid() {
		return false
	}
	_, err := s.fs.Lstat(s.claimFile(owner, d, size))
	return err == nil
}

// Pin keeps d from eviction until then, at most a year; a zero time unpins. An empty owner is the host.
func (s *Store) Pin(ctx context.Context, d hostabi.Digest, owner hostabi.PluginName, until time.Time) error {
	if err := badDigest(d); err != nil {
		return err
	}
	name := hostPin
	if owner != "" {
		if err := badOwner(owner); err != nil {
			return err
		}
		name = string(owner)
	}
	dir := filepath.Join(s.pins(), d.Hex())
	pin := filepath.Join(dir, name)
	if until.IsZero() {
		return s.fail(s.unpin(dir, pin))
	}
	if until.Sub(s.now()) > maxPin {
		return hostabi.Errorf(hostabi.ReasonUsage, "a pin lasts at most 365 days")
	}
	if err := s.present(ctx, d); err != nil {
		return err
	}
	err := s.inRun(func(r *run) error {
		// The time is set before the pin can be seen: one with the time of its making would look expired.
		made := r.path("p")
		if err := s.create(made, nil, 0o600); err != nil {
			return err
		}
		if err := s.fs.Chtimes(made, until); err != nil {
			return err
		}
		return s.inDir(dir, func() error { return s.fs.Rename(made, pin) })
	})
	if err != nil {
		return s.fail(err)
	}
	// As with leases: gc looks for pins after it took an entry away, so look for the entry after pinning.
	if _, err := s.fs.Lstat(s.blob(d)); err != nil {
		_ = s.unpin(dir, pin) // an expired one is swept by gc
		return miss(d)
	}
	return nil
}

func (s *Store) unpin(dir, pin string) error {
	if err := s.fs.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = s.fs.Remove(dir) // refused while others pin
	return nil
}

// pinned reports whether anybody pins d now.
func (s *Store) pinned(d hostabi.Digest) bool {
	dir := filepath.Join(s.pins(), d.Hex())
	names, err := s.fs.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, n := range names {
		if fi, err := s.fs.Lstat(filepath.Join(dir, n)); err == nil && fi.ModTime().After(s.now()) {
			return true
		}
	}
	return false
}

// Remove drops the claim and the pin of owner. The blob goes too when no other owner claims it and nobody
// pins or uses it. An empty owner is the host, which has no claims. A blob that owner does not claim is
// NOT_CACHED.
func (s *Store) Remove(ctx context.Context, owner hostabi.PluginName, d hostabi.Digest) error {
	if err := badDigest(d); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	if owner != "" {
		claims, err := s.claims(owner)
		if err != nil {
			return err
		}
		size, ok := claims[d]
		if !ok {
			return miss(d)
		}
		if err := s.fs.Remove(s.claimFile(owner, d, size)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.fail(err)
		}
	}
	if err := s.Pin(ctx, d, owner, time.Time{}); err != nil {
		return err
	}
	fi, err := s.fs.Lstat(s.blob(d))
	if err != nil {
		if owner != "" {
			return nil // evicted before, the claim was all there was
		}
		return miss(d)
	}
	if claimed, err := s.claimed(d, fi.Size()); err != nil || claimed || s.pinned(d) {
		return err
	}
	return s.drop(ctx, d)
}

// claimed reports whether any owner claims d.
func (s *Store) claimed(d hostabi.Digest, size int64) (bool, error) {
	owners, err := s.fs.ReadDir(s.owners())
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, s.fail(err)
	}
	for _, o := range owners {
		if strings.Contains(o, "~") {
			continue // retired
		}
		if _, err := s.fs.Lstat(s.claimFile(hostabi.PluginName(o), d, size)); err == nil {
			return true, nil
		}
	}
	return false, nil
}

// Retire takes the claims of owner away when its name passes to another plugin, so that nothing is inherited.
// The blobs stay and age.
func (s *Store) Retire(owner hostabi.PluginName) error {
	if err := badOwner(owner); err != nil {
		return err
	}
	to := filepath.Join(s.owners(), fmt.Sprintf("%s~%d", owner, s.now().Unix()))
	for n := 0; ; n++ {
		err := s.fs.Rename(s.claimDir(owner), to)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if _, lerr := s.fs.Lstat(to); lerr != nil || n == 10 {
			return s.fail(err)
		}
		to += "~" // retired twice in one second
	}
}
