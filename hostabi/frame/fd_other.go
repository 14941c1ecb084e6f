//go:build !unix

package frame

import (
	"io"
	"os"
)

// newSender is nil: descriptors are passed on Unix only.
func newSender(io.ReadWriteCloser) sender { return nil }

// fdReader stands for the receiving end on Unix.
type fdReader struct{}

func newReader(conn io.ReadWriteCloser, _ bool) (io.Reader, *fdReader) { return conn, nil }

func (r *fdReader) soon() bool { return false }

func (r *fdReader) take() *os.File { return nil }

func (r *fdReader) close() {}

func canPass(io.ReadWriteCloser) bool { return false }
