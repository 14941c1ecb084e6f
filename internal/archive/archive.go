// Package archive turns strangers' tar, zstd and gzip bytes into files, and files into the same bytes every
// time. Whatever a rule of install-trust.md section 12 forbids is an error, nothing is skipped or repaired.
// It writes through an os.Root only. Start with UnpackTar over a ZstdReader.
package archive

import (
	"fmt"
	"io"
)

// Limits bound one archive; a zero field has the default of security.md section 8.
type Limits struct {
	Bytes   int64 // of the whole tar stream, headers and padding included; default 1 GiB
	Entries int   // default 10 000
	Path    int   // bytes of one name, default 240
	Element int   // bytes of one element of a name, default 200
	Depth   int   // elements of a name, default 16
}

// MaxBytes is the most that any stream may unpack to.
const MaxBytes = 1 << 30

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = MaxBytes
	}
	for _, f := range []struct {
		p *int
		v int
	}{{&l.Entries, 10_000}, {&l.Path, 240}, {&l.Element, 200}, {&l.Depth, 16}} {
		if *f.p <= 0 {
			*f.p = f.v
		}
	}
	return l
}

// Error says which rule an archive or compressed stream breaks. Errors of reading, of the file system and of
// the context are not of this type.
type Error struct {
	Entry string // name in the archive, as it stands there; empty for the stream itself
	Msg   string
	Err   error // of the decoder, if it found the fault
}

func (e *Error) Error() string {
	if e.Entry == "" {
		return e.Msg
	}
	return fmt.Sprintf("%q: %s", clip(e.Entry), e.Msg)
}

// Unwrap is the decoder's error.
func (e *Error) Unwrap() error { return e.Err }

func clip(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// source remembers errors of the reader below a decoder, so that they are not taken for faults of the content.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// fault is the reader's own error if there was one, else an *Error with msg.
func (s *source) fault(entry, msg string, err error) error {
	if s.err != nil {
		return s.err
	}
	return &Error{Entry: entry, Msg: fmt.Sprintf("%s: %v", msg, err), Err: err}
}

// capped fails with an *Error beyond left bytes.
type capped struct {
	r     io.Reader
	left  int64
	limit int64
}

func newCapped(r io.Reader, limit int64) *capped { return &capped{r: r, left: limit, limit: limit} }

func (c *capped) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if int64(n) > c.left {
		return int(c.left), &Error{Msg: fmt.Sprintf("content is over %d bytes", c.limit)}
	}
	c.left -= int64(n)
	return n, err
}
