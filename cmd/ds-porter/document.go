package main

import (
	"context"
	"fmt"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

// document is what the commands print for one artifact. Its members are those of the original porter; scripts
// read them.
type document struct {
	ID            string            `json:"id" ds:"ID"` // first 16 hex digits of the digest
	Reference     string            `json:"reference" ds:"REFERENCE"`
	Digest        client.Digest     `json:"digest" ds:"DIGEST"`
	Size          int64             `json:"size" ds:"SIZE"` // bytes of the layers, each counted once
	LocalPath     string            `json:"local_path,omitempty" ds:"PATH,wide"`
	Metadata      map[string]string `json:"metadata,omitempty"` // annotations of the manifest
	Cached        bool              `json:"cached" ds:"CACHED,wide"`
	CachedAt      time.Time         `json:"cached_at,omitzero" ds:"CACHED AT"`
	ExportedFiles []string          `json:"exported_files,omitempty"`
}

// newDocument fills in what follows from the digest.
func newDocument(ref string, d client.Digest) document {
	return document{ID: id(d), Reference: ref, Digest: d}
}

func id(d client.Digest) string {
	hex := d.Hex()
	return hex[:min(16, len(hex))]
}

// stamp sets when the artifact came into the cache. What cannot be asked stays unknown.
func (d *document) stamp(ctx context.Context, in *client.Invocation) {
	if info, err := in.Cache().Stat(ctx, d.Digest); err == nil {
		d.CachedAt = info.Created
	}
}

// print shows the result of a command: one line for people on a terminal, else the document, as JSON unless
// the user chose a format.
func (d *document) print(ctx context.Context, in *client.Invocation, line string) error {
	return printResult(ctx, in, *d, line)
}

func printResult(ctx context.Context, in *client.Invocation, v any, line string) error {
	host, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	format, err := in.Format(ctx)
	if err != nil {
		return err
	}
	if format == "" && host.Terminal.StdoutTTY {
		_, err := fmt.Fprintln(in.Stdout, line)
		return err
	}
	return printRows(ctx, in, v)
}

// printRows hands v to the host, as JSON unless the user chose a format.
func printRows(ctx context.Context, in *client.Invocation, v any) error {
	if err := in.DefaultFormat(ctx, "json"); err != nil {
		return err
	}
	return in.Rows(v)
}

// typed is client.Description.Typed.
func typed(host *client.Description, value string) string { return host.Typed(value) }

// sinceText is the time since start for people: "840ms", "2.3s".
func sinceText(start time.Time) string {
	d := time.Since(start)
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// counted is n things in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// recordPrefix begins the state keys of what was pulled and pushed, one per digest and reference.
const recordPrefix = "artifact/"

func (d *document) recordKey() string {
	return recordPrefix + d.Digest.Hex() + "/" + hostabi.DigestOf([]byte(d.Reference)).Hex()[:16]
}
