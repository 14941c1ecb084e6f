package install

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"

	"github.com/delivery-station/ds/hostabi"
)

// hashed hashes and counts what is read through it.
type hashed struct {
	r io.Reader
	h hash.Hash
	n int64
}

func newHashed(r io.Reader) *hashed { return &hashed{r: r, h: sha256.New()} }

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	h.n += int64(n)
	return n, err
}

// rest reads to the end and gives digest and size of everything.
func (h *hashed) rest() (hostabi.Digest, int64, error) {
	_, err := io.Copy(io.Discard, h)
	return hostabi.DigestFromSum(h.h.Sum(nil)), h.n, err
}

func copyHashed(w io.Writer, r io.Reader) (hostabi.Digest, int64, error) {
	h := newHashed(r)
	if _, err := io.Copy(w, h); err != nil {
		return "", h.n, err
	}
	return h.rest()
}

// both closes a decoder and the file below it.
type both struct {
	io.ReadCloser
	file *os.File
}

func (b both) Close() error { return errors.Join(b.ReadCloser.Close(), b.file.Close()) }
