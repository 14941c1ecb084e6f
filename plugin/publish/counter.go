package publish

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"

	"github.com/delivery-station/ds/hostabi"
)

// counter hashes and counts what passes to w.
type counter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func newCounter(w io.Writer) *counter { return &counter{w: w, h: sha256.New()} }

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.h.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func (c *counter) digest() hostabi.Digest { return hostabi.DigestFromSum(c.h.Sum(nil)) }

// digestOf reads r to its end.
func digestOf(r io.Reader) (hostabi.Digest, int64, error) {
	c := newCounter(io.Discard)
	if _, err := io.Copy(c, r); err != nil {
		return "", 0, err
	}
	return c.digest(), c.n, nil
}

// reader ends with ctx.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
