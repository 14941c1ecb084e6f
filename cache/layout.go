package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const sep = string(filepath.Separator)

// version is the content of .ds/VERSION without its newline.
const version = "1"

const readme = `This directory is the cache of ds (Delivery Station).

It holds copies of artifacts that can be fetched again. You may delete all of it at any time, also while
ds runs. Do not edit files below artifacts/: a changed blob is noticed and thrown away.

  artifacts/<sha256>/blob            the content with that digest
  artifacts/<sha256>/metadata.json   type, size, where it came from
  index.json                         summary for people and scripts; ds never reads it
  .ds/                               locks, staging, pins, quarantine of damaged blobs
`

// Paths below the root, cache.md section 2.

// Those that a hit needs are concatenated: s.dir and digests are clean.

func (s *Store) artifacts() string             { return s.dir + sep + "artifacts" }
func (s *Store) entry(d hostabi.Digest) string { return s.dir + sep + "artifacts" + sep + d.Hex() }
func (s *Store) blob(d hostabi.Digest) string {
	return s.dir + sep + "artifacts" + sep + d.Hex() + sep + "blob"
}

func (s *Store) meta(d hostabi.Digest) string {
	return s.dir + sep + "artifacts" + sep + d.Hex() + sep + "metadata.json"
}
func (s *Store) internal(name string) string        { return filepath.Join(s.dir, ".ds", name) }
func (s *Store) versionFile() string                { return s.internal("VERSION") }
func (s *Store) snapshotFile() string               { return s.internal("snapshot") }
func (s *Store) gcLock() string                     { return s.internal("gc.lock") }
func (s *Store) indexFile() string                  { return filepath.Join(s.dir, "index.json") }
func (s *Store) runs() string                       { return s.internal("run") }
func (s *Store) flight(d hostabi.Digest) string     { return filepath.Join(s.internal("flight"), d.Hex()) }
func (s *Store) flightLock(d hostabi.Digest) string { return s.flight(d) + ".lock" }
func (s *Store) owners() string                     { return s.internal("owners") }
func (s *Store) pins() string                       { return s.internal("pins") }
func (s *Store) refs() string                       { return s.internal("refs") }
func (s *Store) quarantined() string                { return s.internal("quarantine") }

// layout makes the root and the directories that every writer needs.
func (s *Store) layout() error {
	for _, dir := range []string{s.dir, s.internal("")} {
		if err := atomicfile.MkdirAll(s.fs, dir, 0o700); err != nil {
			return err
		}
	}
	if err := s.checkRoot(); err != nil {
		return err
	}
	if _, err := s.fs.Lstat(s.versionFile()); errors.Is(err, fs.ErrNotExist) {
		if err := s.writeFile(s.versionFile(), []byte(version+"\n")); err != nil {
			return err
		}
		if err := s.writeFile(filepath.Join(s.dir, "README"), []byte(readme)); err != nil {
			return err
		}
	}
	for _, dir := range []string{s.artifacts(), s.runs(), s.internal("flight")} {
		if err := s.mkdir(dir); err != nil {
			return err
		}
	}
	return nil
}

// mkdir makes one directory below a directory that exists; an existing one is fine.
func (s *Store) mkdir(dir string) error {
	if err := s.fs.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// inDir repeats write after making dir when it was missing: someone may remove the cache while ds runs, or
// gc an empty directory.
func (s *Store) inDir(dir string, write func() error) error {
	err := write()
	for tries := 0; tries < 3 && errors.Is(err, fs.ErrNotExist); tries++ {
		if err := s.layout(); err != nil {
			return err
		}
		if err := atomicfile.MkdirAll(s.fs, dir, 0o700); err != nil {
			return err
		}
		err = write()
	}
	return err
}

// writeFile replaces a file that is derived or repairable: like atomicfile.Write, but synced only in a
// durable cache.
func (s *Store) writeFile(name string, data []byte) error {
	if s.durable {
		return atomicfile.Write(s.fs, name, data, 0o600)
	}
	tmp := name + "." + randomHex() + atomicfile.TempSuffix
	if err := s.create(tmp, data, 0o600); err != nil {
		_ = s.fs.Remove(tmp) // swept later if this fails too
		return err
	}
	if err := s.fs.Rename(tmp, name); err != nil {
		_ = s.fs.Remove(tmp)
		return err
	}
	return nil
}

// create writes a new file in one write.
func (s *Store) create(name string, data []byte, perm fs.FileMode) error {
	f, err := s.fs.Open(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
