package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

// ref is a file of the tag memory, cache.md section 8.
type ref struct {
	Name      string         `json:"name"`
	Digest    hostabi.Digest `json:"digest"`
	MediaType string         `json:"media_type"`
	Size      int64          `json:"size"`
	Seen      time.Time      `json:"seen"`
}

const maxRef = 64 << 10 // bytes of one file

func (s *Store) refFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(s.refs(), hex.EncodeToString(sum[:]))
}

// SetRef remembers that the canonical host/repository:tag name was seen to be d. A moved tag overwrites.
func (s *Store) SetRef(ctx context.Context, name string, d hostabi.Descriptor) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	if err := badDigest(d.Digest); err != nil {
		return err
	}
	b, err := json.Marshal(ref{Name: name, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Seen: s.now().UTC()})
	if err != nil {
		return s.fail(err)
	}
	return s.fail(s.inDir(s.refs(), func() error { return s.writeFile(s.refFile(name), append(b, '\n')) }))
}

// Ref is what name was when it was seen last, and when that was. Unknown names are NOT_CACHED; how old an
// answer may be is the caller's decision. A damaged file is deleted and counts as unknown.
func (s *Store) Ref(ctx context.Context, name string) (hostabi.Descriptor, time.Time, error) {
	if ctx.Err() != nil {
		return hostabi.Descriptor{}, time.Time{}, ctxError(ctx)
	}
	unknown := hostabi.Errorf(hostabi.ReasonNotCached, "%s was not seen yet", name)
	unknown.Err = fs.ErrNotExist
	b, err := atomicfile.ReadFile(s.fs, s.refFile(name), maxRef)
	if errors.Is(err, fs.ErrNotExist) {
		return hostabi.Descriptor{}, time.Time{}, unknown
	}
	var r ref
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil || r.Name != name || !r.Digest.Valid() || r.Size < 0 {
		_ = s.fs.Remove(s.refFile(name)) // ignored either way
		return hostabi.Descriptor{}, time.Time{}, unknown
	}
	return hostabi.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, Ref: name}, r.Seen, nil
}
