package host

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// sink is a blob being written by the plugin: through Write, or, for a native plugin, into a file of its run
// directory. Exactly one of commit and release ends it.
type sink struct {
	s    *Session
	id   uint32
	want hostabi.Descriptor // as asked at Create
	ttl  time.Duration
	file string // what the plugin writes, relative to DS_RUN_DIR, else empty

	mu    sync.Mutex
	w     hostabi.BlobWriter
	bytes int64
	fed   bool // by the host, so the file is not looked at
	over  bool // committed or discarded
}

func (k *sink) Read([]byte) (int, error) {
	return 0, hostabi.Errorf(hostabi.ReasonBadHandle, "handle %d: a sink is only written", k.id)
}

// Write appends what a carrier brings; it does not keep p.
func (k *sink) Write(p []byte) (int, error) {
	if k.file != "" {
		return 0, hostabi.Errorf(hostabi.ReasonBadHandle, "handle %d: this sink is written at its path", k.id)
	}
	return k.feed(p)
}

// feed appends what the host itself fetches into the sink.
func (k *sink) feed(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return 0, badHandle(k.id)
	}
	k.fed = true
	n, err := k.w.Write(p)
	k.bytes += int64(n)
	return n, err
}

// Close aborts.
func (k *sink) Close() error {
	if _, err := k.s.blobs.take(k.id); err != nil {
		return err
	}
	return k.release()
}

func (k *sink) release() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return nil
	}
	k.over = true
	return errors.Join(k.w.Abort(), k.removeFile())
}

// commit publishes what was written. digest and annotations are what the plugin knows only now.
func (k *sink) commit(ctx context.Context, digest hostabi.Digest, annotations map[string]string) (hostabi.BlobInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return hostabi.BlobInfo{}, badHandle(k.id)
	}
	k.over = true
	info, err := k.publish(ctx, digest, annotations)
	if rerr := k.removeFile(); err == nil {
		err = rerr
	}
	return info, err
}

func (k *sink) publish(ctx context.Context, digest hostabi.Digest, annotations map[string]string) (hostabi.BlobInfo, error) {
	want := k.want
	want.Annotations = annotations
	if digest != "" {
		if want.Digest != "" && want.Digest != digest {
			return hostabi.BlobInfo{}, errors.Join(mismatch(want.Digest, digest), k.w.Abort())
		}
		want.Digest = digest
	}
	if k.file != "" && !k.fed {
		var err error
		if k.bytes, err = k.s.readSink(ctx, k.file, k.w); err != nil {
			return hostabi.BlobInfo{}, errors.Join(err, k.w.Abort())
		}
	}
	if want.Size != 0 && want.Size != k.bytes {
		e := hostabi.Errorf(hostabi.ReasonDigestMismatch, "blob has %d bytes, %d were announced", k.bytes, want.Size)
		return hostabi.BlobInfo{}, errors.Join(e, k.w.Abort())
	}
	want.Size = k.bytes
	e, ok := k.w.(Expecter)
	if ok {
		e.Expect(want, k.ttl)
	}
	info, err := k.w.Commit(ctx)
	if err == nil && want.Digest != "" && info.Digest != want.Digest {
		err = mismatch(want.Digest, info.Digest)
	}
	return info, err
}

func mismatch(want, got hostabi.Digest) *hostabi.Error {
	return hostabi.Errorf(hostabi.ReasonDigestMismatch, "blob is %s, not %s", got, want)
}

func (k *sink) removeFile() error {
	if k.file == "" {
		return nil
	}
	return k.s.removeSink(k.file)
}
