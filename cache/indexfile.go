package cache

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// maxListed is how many entries index.json names.
const maxListed = 1000

// indexFile is index.json, for people and scripts: DS never reads it.
type indexFile struct {
	Version   int           `json:"version"`
	Generated string        `json:"generated"`
	Entries   int           `json:"entries"`
	Bytes     int64         `json:"bytes"`
	DiskBytes int64         `json:"disk_bytes"`
	MaxBytes  int64         `json:"max_bytes"`
	Truncated bool          `json:"truncated"`
	Artifacts []indexedBlob `json:"artifacts"`
}

type indexedBlob struct {
	Digest  hostabi.Digest `json:"digest"`
	Size    int64          `json:"size"`
	Used    string         `json:"used"`
	Expires string         `json:"expires,omitempty"`
}

// writeIndex replaces index.json by exact totals and the entries that were used last.
func (s *Store) writeIndex(x *index) error {
	recent := make([]*entryInfo, len(x.entries))
	for i := range x.entries {
		recent[i] = &x.entries[i]
	}
	slices.SortFunc(recent, func(a, b *entryInfo) int { return cmp.Compare(b.used, a.used) })
	f := indexFile{
		Version: 1, Generated: s.now().UTC().Format(timeLayout), Entries: len(x.entries), Bytes: x.bytes, DiskBytes: x.disk,
		MaxBytes: s.o.MaxSize, Truncated: len(recent) > maxListed, Artifacts: []indexedBlob{},
	}
	for _, e := range recent[:min(len(recent), maxListed)] {
		b := indexedBlob{Digest: e.digest.digest(), Used: time.Unix(0, e.used).UTC().Format(timeLayout)}
		if fi, err := s.fs.Lstat(s.blob(b.Digest)); err == nil {
			b.Size = fi.Size()
		}
		if e.expires != 0 {
			b.Expires = time.Unix(e.expires, 0).UTC().Format(timeLayout)
		}
		f.Artifacts = append(f.Artifacts, b)
	}
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return s.writeFile(s.indexFile(), append(b, '\n'))
}
