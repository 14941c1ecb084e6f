package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// blobReader reads a blob of a remote repository. The request is sent at the first Read, from the offset
// given to Seek; a cut body is continued where it ended, always at the registry because signed addresses of
// its storage expire. Not safe for concurrent use.
type blobReader struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no other way
	repo *remoteRepo
	via  *mirror // of the open or last body; nil = the registry itself
	desc hostabi.Descriptor

	off    int64 // of the next byte that Read gives
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	watch  *time.Timer
	begun  int64 // where the open body began to be used
	moved  bool  // it gave at least one byte
	stalls int   // cuts since the last byte
}

// Seek sets the offset of the next Read.
func (b *blobReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.off
	case io.SeekEnd:
		offset += b.desc.Size
	}
	if offset < 0 || offset > b.desc.Size {
		return b.off, fmt.Errorf("seek to %d of %d: %w", offset, b.desc.Size, errSize)
	}
	if offset != b.off {
		b.drop()
		b.off = offset
	}
	return offset, nil
}

func (b *blobReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if b.body == nil {
			if b.off == b.desc.Size {
				return 0, io.EOF
			}
			if err := b.open(); err != nil {
				return 0, err
			}
		}
		if b.off == b.desc.Size {
			return 0, b.end()
		}
		n, err := b.read(p[:min(int64(len(p)), b.desc.Size-b.off)])
		if n > 0 {
			b.off += int64(n)
			b.moved, b.stalls = true, 0
			return n, nil
		}
		if err == nil {
			continue
		}
		if err := b.cut(err); err != nil {
			return 0, err
		}
	}
}

// Close ends the request; it may be followed by Seek and Read.
func (b *blobReader) Close() error {
	b.drop()
	return nil
}

// end makes sure that the body ends with the blob.
func (b *blobReader) end() error {
	var more [1]byte
	n, _ := b.read(more[:]) // every byte is here, so that a late error means nothing
	b.drop()
	if n > 0 {
		return fmt.Errorf("body is longer than %d bytes: %w", b.desc.Size, errSize)
	}
	return io.EOF
}

// cut decides what follows a body that ended early: nil means open it again.
func (b *blobReader) cut(err error) error {
	moved := b.moved
	b.drop()
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	if b.via != nil && b.off-b.begun < mirrorPatience {
		b.via.failure(b.ctx, err)
	}
	if b.stalls++; b.stalls > b.repo.c.o.Retry.Attempts {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return &errShort{b.off, b.desc.Size, err}
	}
	if moved {
		return nil
	}
	return b.repo.c.sleep(b.ctx, backoff(b.stalls-1))
}

// read is one Read of the body that fails when nothing comes for too long.
func (b *blobReader) read(p []byte) (int, error) {
	b.watch.Reset(b.repo.c.o.Timeouts.Idle)
	n, err := b.body.Read(p)
	b.watch.Stop()
	if errors.Is(err, context.Canceled) && b.ctx.Err() == nil {
		err = errIdle
	}
	return n, err
}

func (b *blobReader) drop() {
	if b.body == nil {
		return
	}
	b.watch.Stop()
	_ = b.body.Close() // read only
	b.cancel(nil)
	b.body, b.moved = nil, false
}

// open sends the request for the bytes from b.off on, to the mirrors first.
func (b *blobReader) open() error {
	for _, m := range b.repo.mirrors {
		if !m.usable() {
			continue
		}
		b.via = m
		err := b.ask(once(b.ctx), m.repo)
		if err == nil || b.ctx.Err() != nil {
			return err
		}
		m.failure(b.ctx, err)
	}
	b.via = nil
	return b.ask(b.ctx, b.repo)
}

func (b *blobReader) ask(ctx context.Context, r *remoteRepo) error {
	err := b.request(ctx, r, b.off)
	if errors.Is(err, errOtherRange) {
		err = b.request(ctx, r, 0)
	}
	return err
}

// source says where the open or last body is from.
func (b *blobReader) source() string {
	if b.via != nil {
		return "mirror"
	}
	return "origin"
}

// distrust makes the next try go elsewhere: these bytes were wrong.
func (b *blobReader) distrust() {
	if b.via != nil {
		b.via.distrust()
	}
}

// errOtherRange says that a registry did not give the range that was asked for.
var errOtherRange = errors.New("another range was answered")

func (b *blobReader) request(ctx context.Context, r *remoteRepo, offset int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := r.get(ctx, b.desc.Digest, offset)
	if err != nil {
		cancel(nil)
		return err
	}
	if err := b.accept(resp, offset); err != nil {
		drain(resp)
		cancel(nil)
		return err
	}
	b.body, b.cancel, b.begun = resp.Body, cancel, b.off
	b.watch = time.AfterFunc(b.repo.c.o.Timeouts.Idle, func() { cancel(errIdle) })
	b.watch.Stop()
	if offset > 0 {
		b.repo.c.observe(Event{
			Op: "blob", Phase: PhaseResumed, Ref: b.repo.ref.Name(), Digest: b.desc.Digest, MediaType: b.desc.MediaType, Size: b.desc.Size, Offset: offset, Source: b.source(),
		})
	}
	if resp.StatusCode == http.StatusOK && b.off > 0 {
		return b.skip()
	}
	return nil
}

// accept checks the head of an answer to a request for the bytes from offset on.
func (b *blobReader) accept(resp *http.Response, offset int64) error {
	left := b.desc.Size - offset
	switch {
	case resp.StatusCode == http.StatusOK:
		left = b.desc.Size
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		from, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || from != offset || (size >= 0 && size != b.desc.Size) {
			return errOtherRange
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		return errOtherRange
	default:
		return answerError(resp)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != left {
		if offset > 0 {
			return errOtherRange
		}
		return fmt.Errorf("Content-Length %d of a blob of %d bytes: %w", resp.ContentLength, left, errSize)
	}
	return nil
}

// skip reads over what the caller has already, when the whole blob came instead of a range.
func (b *blobReader) skip() error {
	buf := make([]byte, min(b.off, 64<<10))
	for left := b.off; left > 0; {
		n, err := b.read(buf[:min(left, int64(len(buf)))])
		left -= int64(n)
		if err != nil && left > 0 {
			if err := b.cut(err); err != nil {
				return err
			}
			return b.open()
		}
	}
	return nil
}

// parseContentRange reads "bytes FROM-TO/SIZE" (RFC 9110 section 14.4); size is -1 for "*".
func parseContentRange(s string) (from, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, false
	}
	r, total, ok := strings.Cut(s, "/")
	if !ok {
		return 0, 0, false
	}
	a, z, ok := strings.Cut(r, "-")
	if !ok {
		return 0, 0, false
	}
	first, err1 := strconv.ParseUint(a, 10, 63)
	last, err2 := strconv.ParseUint(z, 10, 63)
	if err1 != nil || err2 != nil || last < first {
		return 0, 0, false
	}
	if total == "*" {
		return int64(first), -1, true
	}
	n, err := strconv.ParseUint(total, 10, 63)
	if err != nil || last >= n {
		return 0, 0, false
	}
	return int64(first), int64(n), true
}
