package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// UnpackTar writes the regular files and directories of the tar stream r below root, which should be empty.
// Files have the mode of the archive & 0755, readable and writable by the owner; directories 0700; owners,
// times and attributes are dropped. A rule broken by the archive is an *Error. After any error the caller
// removes root's content; nothing is synced.
func UnpackTar(ctx context.Context, r io.Reader, root *os.Root, l Limits) error {
	l = l.withDefaults()
	src := &source{r: r}
	in := newCapped(src, l.Bytes)
	u := unpacker{root: root, limits: l, in: tar.NewReader(in), seen: make(map[string]entry)}
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := u.in.Next()
		if err == io.EOF {
			return checkEnd(src, in)
		}
		if err != nil {
			return tarFault(src, "", err)
		}
		if n >= l.Entries {
			return &Error{Msg: fmt.Sprintf("archive has over %d entries", l.Entries)}
		}
		if err := u.entry(ctx, src, h); err != nil {
			return err
		}
	}
}

type unpacker struct {
	root   *os.Root
	limits Limits
	in     *tar.Reader
	seen   map[string]entry // by folded name
}

// entry is what an earlier header made: directories that only were parents may be named once later.
type entry struct {
	name    string
	implied bool
}

func (u *unpacker) entry(ctx context.Context, src *source, h *tar.Header) error {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return &Error{Entry: h.Name, Msg: "entry is a sparse file"}
		}
	}
	name := strings.TrimPrefix(h.Name, "./")
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeDir:
		if name = strings.TrimSuffix(name, "/"); name == "" || name == "." {
			return nil // the root itself, as tar writes it for "."
		}
	default:
		return &Error{Entry: h.Name, Msg: fmt.Sprintf("entry is no file or directory but type %q", h.Typeflag)}
	}
	if msg := checkName(name, u.limits); msg != "" {
		return &Error{Entry: h.Name, Msg: msg}
	}
	if err := u.parents(path.Dir(name)); err != nil {
		return err
	}
	made, err := u.claim(name, h.Typeflag == tar.TypeDir)
	if err != nil || made {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return u.mkdir(name)
	}
	return u.file(ctx, src, name, h)
}

// claim books name for this entry; made says that a directory is there because it was a parent.
func (u *unpacker) claim(name string, dir bool) (made bool, err error) {
	key := fold(name)
	old, ok := u.seen[key]
	if again := dir && old.implied && old.name == name; ok && !again {
		return false, &Error{Entry: name, Msg: fmt.Sprintf("name is there already as %q", old.name)}
	}
	u.seen[key] = entry{name: name}
	return ok, nil
}

func (u *unpacker) parents(dir string) error {
	if dir == "." {
		return nil
	}
	key := fold(dir)
	if old, ok := u.seen[key]; ok {
		if old.name != dir {
			return &Error{Entry: dir, Msg: fmt.Sprintf("name is there already as %q", old.name)}
		}
		return nil
	}
	if err := u.parents(path.Dir(dir)); err != nil {
		return err
	}
	u.seen[key] = entry{name: dir, implied: true}
	return u.mkdir(dir)
}

func (u *unpacker) mkdir(name string) error { return u.made(name, u.root.Mkdir(name, 0o700)) }

func (u *unpacker) file(ctx context.Context, src *source, name string, h *tar.Header) error {
	mode := fs.FileMode(h.Mode)&0o755 | 0o600
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return u.made(name, err)
	}
	in := &ctxReader{ctx: ctx, r: u.in}
	n, err := io.Copy(f, in)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case in.err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case in.err != nil:
		return tarFault(src, name, in.err)
	case err != nil:
		return err
	case n != h.Size:
		return &Error{Entry: name, Msg: fmt.Sprintf("header says %d bytes, content has %d", h.Size, n)}
	}
	return nil
}

// made turns "exists", and a parent that is a file, into faults of the archive.
func (u *unpacker) made(name string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return &Error{Entry: name, Msg: "name is there already", Err: err}
	}
	if err == nil {
		return nil
	}
	if fi, serr := u.root.Lstat(path.Dir(name)); serr == nil && !fi.IsDir() {
		return &Error{Entry: name, Msg: "a parent is a file", Err: err}
	}
	return err
}

// ctxReader ends with ctx and keeps the error of reading apart from that of writing.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if c.err = c.ctx.Err(); c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// checkEnd reads what follows the end mark: tar programs pad with zeros, anything else is hidden data.
func checkEnd(src *source, r io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return &Error{Msg: "data after the end of the archive"}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return tarFault(src, "", err)
		}
	}
}

func tarFault(src *source, entry string, err error) error {
	if src.err != nil {
		return src.err
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e // over the limit, here or in a decoder below
	}
	return src.fault(entry, "bad tar", err)
}
