package cache

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// The snapshot, cache.md section 4: a derived index of all entries, sorted by digest.
const (
	snapshotMagic   = "DSS1"
	snapshotVersion = 1
	snapshotHead    = 64
	snapshotEntry   = 56
)

var errSnapshot = errors.New("snapshot is damaged")

// entryInfo is what the index knows of one entry.
type entryInfo struct {
	digest  sum
	disk    int64 // bytes on disk
	used    int64 // unix ns of the last known use
	expires int64 // unix s, 0 = never
}

// index is all entries, sorted by digest.
type index struct {
	entries   []entryInfo
	time      int64 // unix ns when the logs were read
	reconcile int64 // unix ns when it was last compared with the files
	disk      int64 // sum over entries
	bytes     int64 // sum of the blob sizes, in the header only
	unsure    bool  // an entry went whose blob size nobody knew: bytes must be counted again
}

func (x *index) encodeHead() []byte {
	b := make([]byte, snapshotHead)
	le := binary.LittleEndian
	copy(b, snapshotMagic)
	le.PutUint32(b[4:], snapshotVersion)
	for i, v := range [...]int64{int64(len(x.entries)), x.disk, x.time, x.reconcile, x.bytes} {
		le.PutUint64(b[8+8*i:], uint64(v)) // bits matter, not the sign
	}
	return b
}

// snapshotHeader is the fixed start: entries, disk bytes, time, last reconcile, blob bytes.
type snapshotHeader struct{ entries, disk, time, reconcile, bytes int64 }

func parseSnapshotHead(b []byte) (h snapshotHeader, err error) {
	le := binary.LittleEndian
	if len(b) < snapshotHead || string(b[:4]) != snapshotMagic || le.Uint32(b[4:]) != snapshotVersion {
		return h, errSnapshot
	}
	for i, v := range [...]*int64{&h.entries, &h.disk, &h.time, &h.reconcile, &h.bytes} {
		if *v = int64(le.Uint64(b[8+8*i:])); *v < 0 { // checked for the sign
			return h, errSnapshot
		}
	}
	return h, nil
}

// encode writes the snapshot to w.
func (x *index) encode(w io.Writer) error {
	crc := crc32.New(castagnoli)
	buf := bufio.NewWriterSize(io.MultiWriter(w, crc), 1<<20)
	_, _ = buf.Write(x.encodeHead()) // errors stay until Flush
	var b [snapshotEntry]byte
	le := binary.LittleEndian
	for i := range x.entries {
		e := &x.entries[i]
		copy(b[:], e.digest[:])
		le.PutUint64(b[32:], uint64(e.disk))    // bits matter, not the sign
		le.PutUint64(b[40:], uint64(e.used))    // bits matter, not the sign
		le.PutUint64(b[48:], uint64(e.expires)) // bits matter, not the sign
		_, _ = buf.Write(b[:])
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	_, err := w.Write(le.AppendUint32(nil, crc.Sum32()))
	return err
}

// decodeSnapshot reads what encode wrote. size is the length of r: a header cannot make it allocate more.
func decodeSnapshot(r io.Reader, size int64) (*index, error) {
	crc := crc32.New(castagnoli)
	in := bufio.NewReaderSize(r, 1<<20)
	var head [snapshotHead]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, errSnapshot
	}
	_, _ = crc.Write(head[:])
	h, err := parseSnapshotHead(head[:])
	if err != nil || h.entries > size/snapshotEntry || size != snapshotHead+h.entries*snapshotEntry+4 {
		return nil, errSnapshot
	}
	x := &index{entries: make([]entryInfo, h.entries), time: h.time, reconcile: h.reconcile, bytes: h.bytes}
	le := binary.LittleEndian
	var b [snapshotEntry]byte
	for i := range x.entries {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			return nil, errSnapshot
		}
		_, _ = crc.Write(b[:])
		e := &x.entries[i]
		copy(e.digest[:], b[:])
		e.disk, e.used, e.expires = int64(le.Uint64(b[32:])), int64(le.Uint64(b[40:])), int64(le.Uint64(b[48:])) // bits
		if e.disk < 0 || i > 0 && bytes.Compare(x.entries[i-1].digest[:], e.digest[:]) >= 0 {
			return nil, errSnapshot
		}
		x.disk += e.disk
	}
	if _, err := io.ReadFull(in, b[:4]); err != nil || le.Uint32(b[:]) != crc.Sum32() || x.disk != h.disk {
		return nil, errSnapshot
	}
	return x, nil
}

// find is the position of d, or where it would be.
func (x *index) find(d sum) (int, bool) {
	return slices.BinarySearchFunc(x.entries, d, func(e entryInfo, d sum) int { return bytes.Compare(e.digest[:], d[:]) })
}

// loadSnapshot reads .ds/snapshot.
func (s *Store) loadSnapshot() (*index, error) {
	f, err := s.fs.Open(s.snapshotFile(), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return decodeSnapshot(f, fi.Size())
}

// snapshotHeader reads the fixed start only.
func (s *Store) snapshotHeader() (snapshotHeader, error) {
	f, err := s.fs.Open(s.snapshotFile(), os.O_RDONLY, 0)
	if err != nil {
		return snapshotHeader{}, err
	}
	defer func() { _ = f.Close() }() // read only
	var b [snapshotHead]byte
	if n, err := f.ReadAt(b[:], 0); n < snapshotHead {
		return snapshotHeader{}, cmp.Or(err, errSnapshot)
	}
	return parseSnapshotHead(b[:])
}

// saveSnapshot writes .ds/snapshot by way of the run directory.
func (s *Store) saveSnapshot(x *index) error {
	return s.inRun(func(r *run) error {
		tmp := r.path("n")
		f, err := s.fs.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		if err = errors.Join(x.encode(f), f.Close()); err == nil {
			err = s.fs.Rename(tmp, s.snapshotFile())
		}
		if err != nil {
			_ = s.fs.Remove(tmp) // else removed with the run directory
		}
		return err
	})
}

// runDirs are the run directories of all processes.
func (s *Store) runDirs() ([]string, error) {
	names, err := s.fs.ReadDir(s.runs())
	for i, n := range names {
		names[i] = filepath.Join(s.runs(), n)
	}
	return names, err
}
