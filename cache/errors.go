package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/delivery-station/ds/hostabi"
)

// Why an entry that is on disk counts as a miss.
var (
	errExpired = fmt.Errorf("expired: %w", fs.ErrNotExist)
	errCorrupt = fmt.Errorf("corrupt: %w", fs.ErrNotExist)
)

// miss is the answer for a blob that is not there.
func miss(d hostabi.Digest) error { return missFor(d, fs.ErrNotExist) }

func missFor(d hostabi.Digest, why error) error {
	e := hostabi.Errorf(hostabi.ReasonNotCached, "%s is not in the cache", d)
	e.Err = why
	return e
}

// isMiss reports whether err is a miss and not a failure.
func isMiss(err error) bool { return hostabi.ReasonOf(err) == hostabi.ReasonNotCached }

func exists(d hostabi.Digest) error {
	e := hostabi.Errorf(hostabi.ReasonExists, "%s is in the cache already", d)
	e.Err = fs.ErrExist
	return e
}

// fail gives an error of the file system its reason. A *hostabi.Error passes unchanged.
func (s *Store) fail(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*hostabi.Error](err); ok {
		return e
	}
	reason, msg := hostabi.ReasonInternal, err.Error()
	switch {
	case isFull(err):
		reason, msg = hostabi.ReasonNoSpace, "no space left in "+s.dir
	case errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission):
		reason, msg = hostabi.ReasonReadOnly, "cache is read-only: "+s.dir
	}
	e := hostabi.Errorf(reason, "%s", msg)
	e.Err = err
	switch reason {
	case hostabi.ReasonNoSpace:
		e.Fix = "ds cache evict"
	case hostabi.ReasonReadOnly:
		e.Fix = "ds --cache-dir DIR"
	}
	return e
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, io.ErrShortWrite)
}

// ctxError is the end of ctx as an error for users.
func ctxError(ctx context.Context) error {
	reason, msg := hostabi.ReasonInterrupted, "interrupted"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		reason, msg = hostabi.ReasonTimeout, "time is over"
	}
	e := hostabi.Errorf(reason, "%s", msg)
	e.Err = context.Cause(ctx)
	return e
}

func overQuota(owner hostabi.PluginName, quota int64) error {
	return hostabi.Errorf(hostabi.ReasonQuota, "plugin %s would keep more than its %d bytes in the cache", owner, quota)
}

func mismatch(format string, a ...any) error {
	return hostabi.Errorf(hostabi.ReasonDigestMismatch, format, a...)
}

// badDigest refuses names that are no digests before they become paths.
func badDigest(d hostabi.Digest) error {
	_, err := hostabi.ParseDigest(string(d))
	return err
}

func badOwner(owner hostabi.PluginName) error {
	if owner.Valid() {
		return nil
	}
	return hostabi.Errorf(hostabi.ReasonUsage, "%q is not a plugin name", string(owner))
}

func randomHex() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, crypto/rand
	return hex.EncodeToString(b[:])
}
