package archive

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

const maxWindow = 8 << 20

// ZstdReader decodes one zstd frame. A second frame, bytes after it, a dictionary, a window over 8 MiB or
// more than limit bytes of content (<= 0: MaxBytes) are an *Error from Read, io.EOF says that all was well.
// The caller closes it; r is not closed.
func ZstdReader(r io.Reader, limit int64) (io.ReadCloser, error) {
	src := &source{r: r}
	frame := &frameReader{r: bufio.NewReader(src)}
	d, err := zstd.NewReader(frame, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err // options only: nothing is read yet
	}
	return &decoder{
		content: newCapped(d, bound(limit)), src: src, what: "bad zstd", close: d.Close,
		end: func() error { return frame.end() },
	}, nil
}

// GzipReader decodes one gzip member under the same rules.
func GzipReader(r io.Reader, limit int64) (io.ReadCloser, error) {
	src := &source{r: r}
	b := bufio.NewReader(src)
	d, err := gzip.NewReader(b)
	if err != nil {
		return nil, src.fault("", "bad gzip", err)
	}
	d.Multistream(false)
	return &decoder{
		content: newCapped(d, bound(limit)), src: src, what: "bad gzip", close: func() { _ = d.Close() },
		end: func() error { return atEnd(b) },
	}, nil
}

// ZstdWriter compresses to one frame at the best level on one thread: the same input gives the same bytes.
// Close ends the frame and leaves w open.
func ZstdWriter(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxWindow))
}

func bound(limit int64) int64 {
	if limit <= 0 {
		return MaxBytes
	}
	return limit
}

type decoder struct {
	content io.Reader
	src     *source
	what    string
	end     func() error // after the content: nil if nothing follows
	close   func()
	err     error
}

func (d *decoder) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.content.Read(p)
	if err == io.EOF {
		if err = d.end(); err == nil {
			err = io.EOF
		}
	}
	if err != nil && err != io.EOF {
		if e, ok := errors.AsType[*Error](err); ok && d.src.err == nil {
			err = e
		} else {
			err = d.src.fault("", d.what, err)
		}
	}
	d.err = err
	return n, err
}

func (d *decoder) Close() error {
	d.close()
	return nil
}

func atEnd(b *bufio.Reader) error {
	switch _, err := b.ReadByte(); err {
	case io.EOF:
		return nil
	case nil:
		return &Error{Msg: "data after the end of the compressed stream"}
	default:
		return err
	}
}
