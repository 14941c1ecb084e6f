package native

import (
	"io"
	"os"
)

// source is ds's stdin as mode goplugin reads it: a Read that waits can be ended.
type source interface {
	io.Reader
	interrupt()
	close()
}

// reader is the source for in, nil if there is nothing to read. It replaces the feed of a stdin that is no
// file: the plugin asked for messages, not for the descriptor.
func (s *streams) reader(in io.Reader) source {
	switch f := in.(type) {
	case nil:
		return nil
	case *os.File:
		return openFileSource(f)
	}
	return newReaderSource(in)
}

// readerSource reads through a pipe, so that a Read of the reader that cannot be ended holds nothing up.
type readerSource struct {
	*io.PipeReader
	from io.Reader
}

func newReaderSource(in io.Reader) *readerSource {
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, in)
		_ = w.CloseWithError(err)
	}()
	return &readerSource{r, in}
}

func (r *readerSource) interrupt() {
	_ = r.Close()
	if c, ok := r.from.(io.Closer); ok {
		_ = c.Close()
	}
}

func (r *readerSource) close() {}
