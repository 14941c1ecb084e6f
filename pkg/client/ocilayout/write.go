// Package ocilayout writes and reads OCI image layouts in plain tars (image-spec 1.1, image-layout.md): how content of the
// cache travels in one file. A tar is never unpacked and never held in memory: blobs are read where they lie, and
// nothing that it says of itself is believed before it is hashed. Start with Write and Open.
package ocilayout

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// Names and types of the format.
const (
	MediaIndex    = "application/vnd.oci.image.index.v1+json"
	MediaManifest = "application/vnd.oci.image.manifest.v1+json"
	RefName       = "org.opencontainers.image.ref.name" // annotation of an Entry: how it is called

	versionFile = "oci-layout"
	indexFile   = "index.json"
	blobDir     = "blobs/sha256/"
	version     = "1.0.0"
)

// Entry is one manifest that index.json lists, or one descriptor of a manifest.
type Entry struct {
	MediaType    string            `json:"mediaType"`
	Digest       hostabi.Digest    `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// Write writes a layout that lists entries and holds blobs, which have these sizes and are opened one after the other.
// The same content gives the same bytes.
func Write(ctx context.Context, w io.Writer, entries []Entry, blobs map[hostabi.Digest]int64, open func(hostabi.Digest) (io.ReadCloser, error)) error {
	if entries == nil {
		entries = []Entry{}
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": MediaIndex, "manifests": entries})
	if err != nil {
		return err
	}
	if len(index) > maxIndex || len(blobs) > maxBlobs {
		return hostabi.Errorf(hostabi.ReasonTooLarge, "%d blobs and an index of %d bytes are too many for one layout", len(blobs), len(index))
	}
	out := tar.NewWriter(w)
	for _, f := range []struct{ name, text string }{{versionFile, `{"imageLayoutVersion":"` + version + `"}`}, {indexFile, string(index)}} {
		if err := add(out, f.name, int64(len(f.text)), strings.NewReader(f.text)); err != nil {
			return err
		}
	}
	for _, d := range slices.Sorted(maps.Keys(blobs)) {
		if !d.Valid() {
			return badLayout("%q is no digest", d)
		}
		r, err := open(d)
		if err != nil {
			return err
		}
		if err := errors.Join(add(out, blobDir+d.Hex(), blobs[d], Until(ctx, r)), r.Close()); err != nil {
			return err
		}
	}
	return out.Close()
}

// WriteFile is Write into the file name, whose size it returns. What cannot be finished is emptied, so that nobody takes
// it for a layout: plugins may not make files beside the one that the user named.
func WriteFile(ctx context.Context, name string, entries []Entry, blobs map[hostabi.Digest]int64, open func(hostabi.Digest) (io.ReadCloser, error)) (size int64, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // the user's own file, like any tool makes it
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Truncate(0))
		}
		err = errors.Join(err, f.Close())
	}()
	if err := Write(ctx, f, entries, blobs, open); err != nil {
		return 0, err
	}
	return f.Seek(0, io.SeekCurrent)
}

// add writes one file of a tar that is the same whenever it is made.
func add(out *tar.Writer, name string, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if size >= 8<<30 {
		h.Format = tar.FormatPAX
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(plainWriter{out}, r, make([]byte, 64<<10))
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && n != size {
		return hostabi.Errorf(hostabi.ReasonDigestMismatch, "%s does not have the %d bytes that it should", name, size)
	}
	return err
}

// plainWriter hides everything but Write, so that CopyBuffer uses its buffer.
type plainWriter struct{ io.Writer }

// Until is r until ctx ends.
func Until(ctx context.Context, r io.Reader) io.Reader { return ending{ctx, r} }

type ending struct {
	ctx context.Context
	r   io.Reader
}

func (e ending) Read(p []byte) (int, error) {
	if e.ctx.Err() != nil {
		return 0, hostabi.Errorf(hostabi.ReasonInterrupted, "%w", context.Cause(e.ctx))
	}
	return e.r.Read(p)
}
