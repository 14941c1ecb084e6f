// Package hostabi holds the words of the host ABI ds.host.v1: names, codes, errors and the few interfaces
// through which a carrier, a backend and a service owner meet. It holds meaning, not work: no gRPC, no
// protobuf, no package of this module, only the standard library. Start with Session.
package hostabi

import (
	"context"
	"io"
)

// ABI is the identifier that plugin manifests and Describe use for this contract.
const ABI = "ds.host/v1"

// Minor counts the releases of ds.host.v1 that added methods.
const Minor = 1

// Encoding says how one message is written: EncProto or EncJSON (protobuf-JSON).
type Encoding uint8

// The encodings of host-abi.md section 5.
const (
	EncProto Encoding = iota
	EncJSON
)

// Session is one invocation's bound view of the host. Carriers cannot read or change its identity. It is
// safe for concurrent use. Errors are always *Error.
type Session interface {
	// Invoke runs a unary method. The result is c.Dst with the encoded reply appended. c.Req is not kept.
	Invoke(ctx context.Context, c Call) (reply []byte, err error)
	// Stream starts a streaming method; the stream ends with ctx or with the session.
	Stream(ctx context.Context, method string, e Encoding) (Stream, error)
	// Handle is a blob or HTTP body that this session opened; Read returns io.EOF at its end, Write appends
	// to a sink. Values that hold a file also have a method File() *os.File.
	Handle(id uint32) (io.ReadWriteCloser, error)
	// Close cancels running calls, closes every handle and waits for both. It is idempotent.
	Close() error
}

// Call is one unary host call.
type Call struct {
	Method string   // full name, "/ds.host.v1.Cache/Open"
	Enc    Encoding // of Req and of the reply
	Req    []byte   // encoded request, valid until Invoke returns
	Dst    []byte   // the reply is appended here
}

// Stream is a streaming host call in progress. Send and Recv may be called concurrently with each other,
// each from one goroutine at a time. Recv returns io.EOF after a clean end, else *Error.
type Stream interface {
	Send(msg []byte) error
	CloseSend() error
	Recv() ([]byte, error)
	Close() error // cancels; idempotent
}

// Poller is a Stream that tells what would not wait, for guests that can do one thing at a time.
type Poller interface {
	Stream
	// Poll waits until Recv has a message or the result, or Send has room, and says which.
	Poll() (recv, send bool)
}

// Sink is where content goes whose digest is known or will be. It is implemented by cache and written to
// by registry.
type Sink interface {
	// Stat answers NOT_CACHED when the blob is absent.
	Stat(ctx context.Context, d Digest) (BlobInfo, error)
	// Create opens a writer for want; an empty want.Digest means that the digest is known at Commit only.
	// It blocks while another process ingests the same digest, or while the sink gets the blob from a place of
	// its own, and answers EXISTS when that has finished.
	Create(ctx context.Context, want Descriptor) (BlobWriter, error)
}

type arrivingKey struct{}

// WithArriving has Sink.Create tell f how many bytes are there while the sink gets a blob by itself.
func WithArriving(ctx context.Context, f func(bytes int64)) context.Context {
	return context.WithValue(ctx, arrivingKey{}, f)
}

// Arriving is the function of WithArriving, or one that does nothing.
func Arriving(ctx context.Context) func(bytes int64) {
	if f, ok := ctx.Value(arrivingKey{}).(func(bytes int64)); ok {
		return f
	}
	return func(int64) {}
}

// BlobWriter receives the bytes of one blob. Exactly one of Commit and Abort ends it.
type BlobWriter interface {
	io.Writer
	// Offset is the length of a kept prefix: the caller resumes there.
	Offset() int64
	// Commit checks size and digest and publishes the blob, or discards it with DIGEST_MISMATCH.
	Commit(ctx context.Context) (BlobInfo, error)
	// Abort gives up; a prefix of a known digest may be kept for resume.
	Abort() error
}

// OpenFunc opens a blob for reading; NOT_CACHED when absent.
type OpenFunc func(ctx context.Context, d Digest) (io.ReadSeekCloser, error)

type publicOnlyKey struct{}

// WithPublicOnly marks ctx: connections made under it may go to public addresses only. The gate sets it
// when a plugin's reference was granted by a host wildcard; internal/egress obeys it.
func WithPublicOnly(ctx context.Context) context.Context {
	return context.WithValue(ctx, publicOnlyKey{}, true)
}

type mountableKey struct{}

// WithMountable says from which repositories of the same registry a push under ctx may take blobs instead of
// sending them. The gate sets it to what the plugin may pull; without it there is none.
func WithMountable(ctx context.Context, allow func(repository string) bool) context.Context {
	return context.WithValue(ctx, mountableKey{}, allow)
}

// Mountable reports whether a push under ctx may take blobs from a repository, a canonical name.
func Mountable(ctx context.Context, repository string) bool {
	allow, ok := ctx.Value(mountableKey{}).(func(string) bool)
	return ok && allow(repository)
}

// PublicOnly reports whether ctx was marked by WithPublicOnly.
func PublicOnly(ctx context.Context) bool {
	v, _ := ctx.Value(publicOnlyKey{}).(bool)
	return v
}
