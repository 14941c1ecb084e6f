package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

// blob is what the commands print for one blob.
type blob struct {
	ID          string            `json:"id" ds:"ID"` // first 12 hex digits of the digest, good as an argument
	Digest      client.Digest     `json:"digest" ds:"DIGEST,wide"`
	Size        int64             `json:"size" ds:"SIZE,size"`
	Used        time.Time         `json:"used,omitzero" ds:"USED"`
	Pinned      bool              `json:"pinned" ds:"PINNED"`
	MediaType   string            `json:"media_type,omitempty" ds:"TYPE"`
	Sources     []string          `json:"sources,omitempty" ds:"SOURCES"` // repositories it was pulled from
	Created     time.Time         `json:"created,omitzero" ds:"CREATED,wide"`
	Expires     time.Time         `json:"expires,omitzero" ds:"EXPIRES,wide"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func blobOf(b client.BlobInfo) blob {
	return blob{
		ID: id(b.Digest), Digest: b.Digest, Size: b.Size, MediaType: b.MediaType, Pinned: b.Pinned, Sources: b.Sources,
		Created: seconds(b.Created), Used: seconds(b.Used), Expires: seconds(b.Expires), Annotations: b.Annotations,
	}
}

// seconds is t as people read it.
func seconds(t time.Time) time.Time { return t.Truncate(time.Second) }

func id(d client.Digest) string {
	hex := d.Hex()
	return hex[:min(12, len(hex))]
}

// minPrefix is how many hex digits of a digest are enough to mean it.
const minPrefix = 4

// digests finds the blobs that the user means: digests in full, or the first hex digits of one that is in the cache,
// with sha256: before them or not.
func digests(ctx context.Context, in *client.Invocation, words []string) ([]client.Digest, error) {
	var cached []client.Digest // listed once, when the first prefix needs it
	out := make([]client.Digest, 0, len(words))
	for _, w := range words {
		if d := client.Digest(w); d.Valid() {
			out = append(out, d)
			continue
		}
		prefix := strings.TrimPrefix(w, "sha256:")
		if len(prefix) < minPrefix || len(prefix) > 64 || strings.Trim(prefix, "0123456789abcdef") != "" {
			return nil, client.Usagef("%q is no digest and no beginning of one, which has %d or more hex digits", w, minPrefix)
		}
		if cached == nil {
			for b, err := range in.Cache().List(ctx) {
				if err != nil {
					return nil, err
				}
				cached = append(cached, b.Digest)
			}
		}
		d, err := only(cached, prefix)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// only is the one of ds that begins with prefix.
func only(ds []client.Digest, prefix string) (found client.Digest, err error) {
	n := 0
	for _, d := range ds {
		if strings.HasPrefix(d.Hex(), prefix) {
			n++
			found = d
		}
	}
	switch n {
	case 0:
		return "", hostabi.Errorf(hostabi.ReasonNotCached, "no blob in the cache has a digest that begins with %s", prefix).WithFix("ds cache ls")
	case 1:
		return found, nil
	}
	return "", client.Usagef("%s begins the digests of %d blobs; type more of it", prefix, n)
}

func statusCommand() client.Command {
	return client.Command{Name: "status", Summary: "Show how much the cache holds and may hold", Run: status}
}

// usage is the size of the cache.
type usage struct {
	Entries int64 `json:"entries" ds:"BLOBS"`
	Size    int64 `json:"size" ds:"SIZE,size"`
	Disk    int64 `json:"disk_bytes" ds:"ON DISK,size"`
	Limit   int64 `json:"max_bytes,omitempty" ds:"LIMIT,size"` // of disk_bytes; absent = none
	Pinned  int64 `json:"pinned_bytes" ds:"PINNED,size"`
}

func status(ctx context.Context, in *client.Invocation) error {
	u, err := in.Cache().Usage(ctx)
	if err != nil {
		return err
	}
	return in.Rows(usage{Entries: u.Entries, Size: u.Bytes, Disk: u.DiskBytes, Limit: u.MaxBytes, Pinned: u.PinnedBytes})
}

func infoCommand() client.Command {
	return client.Command{
		Name: "info", Summary: "Show what is known of a blob",
		Help: "A digest may be shortened to its first hex digits. Blobs whose file has changed are hashed first: a damaged one\n" +
			"counts as not cached.",
		Examples: []string{"ds cache info 9f2c41aa", "ds --format json cache info sha256:9f2c41aa"},
		Args:     digestArg("digest, or its first digits", true),
		Run:      info,
	}
}

// details is blob with columns for one object.
type details struct {
	Digest      client.Digest     `json:"digest" ds:"DIGEST"`
	Size        int64             `json:"size" ds:"SIZE,size"`
	MediaType   string            `json:"media_type,omitempty" ds:"TYPE"`
	Sources     []string          `json:"sources,omitempty" ds:"SOURCES"`
	Pinned      bool              `json:"pinned" ds:"PINNED"`
	Created     time.Time         `json:"created,omitzero" ds:"CREATED"`
	Used        time.Time         `json:"used,omitzero" ds:"USED"`
	Expires     time.Time         `json:"expires,omitzero" ds:"EXPIRES"`
	Annotations map[string]string `json:"annotations,omitempty" ds:"ANNOTATIONS,wide"`
}

func info(ctx context.Context, in *client.Invocation) error {
	ds, err := digests(ctx, in, in.Args)
	if err != nil {
		return err
	}
	all := make([]blob, 0, len(ds))
	for _, d := range ds {
		b, err := in.Cache().Stat(ctx, d)
		if err != nil {
			return err
		}
		all = append(all, blobOf(b))
	}
	if len(all) > 1 {
		return in.Rows(all)
	}
	b := all[0]
	return in.Rows(details{b.Digest, b.Size, b.MediaType, b.Sources, b.Pinned, b.Created, b.Used, b.Expires, b.Annotations})
}

// fileError is client.FileError. Who has not granted c sees that instead: a sandbox only shows that nothing is there.
func fileError(host *client.Description, c hostabi.Capability, name string, err error) error {
	granted := slices.ContainsFunc(host.Grants, func(g hostabi.Grant) bool { return g.Cap == c })
	if granted || hostabi.ReasonOf(err) != "" {
		return client.FileError(name, err)
	}
	return hostabi.Errorf(hostabi.ReasonCapabilityDenied, "cache may not use %s %s: not granted", c, name).WithFix("ds plugin grant cache %s=args", c)
}

// blobsText is "1 blob, 12.0 MiB".
func blobsText(n int, size int64) string {
	if n == 1 {
		return "1 blob, " + hostabi.SizeText(size)
	}
	return fmt.Sprintf("%d blobs, %s", n, hostabi.SizeText(size))
}
