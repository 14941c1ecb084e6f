package host

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/delivery-station/ds/hostabi"
)

// Directories of DS_RUN_DIR, made when they are first needed: most runs exchange no blob.
const (
	blobDir = "blob" // copies for a confined plugin to read
	sinkDir = "sink" // files that a native plugin writes
)

// inRunDir opens DS_RUN_DIR for f. Everything in it is the plugin's, which may put a link or another file in the
// place of anything at any time; the host, which may reach more than the plugin, goes through the root, which no link
// leads out of.
func (s *Session) inRunDir(f func(root *os.Root) error) error {
	dir, _ := s.dirs()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // a directory
	return f(root)
}

func makeDir(root *os.Root, name string) error {
	if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// copyBlob gives a confined plugin its own file: the cache tree is never opened to it.
func (s *Session) copyBlob(ctx context.Context, from *os.File, d hostabi.Digest) (path string, err error) {
	name := filepath.Join(blobDir, d.Hex())
	err = s.inRunDir(func(root *os.Root) error {
		if _, err := root.Lstat(name); err == nil {
			return nil
		}
		if err := makeDir(root, blobDir); err != nil {
			return err
		}
		id, err := s.blobs.nextID()
		if err != nil {
			return err
		}
		part := filepath.Join(blobDir, ".copy-"+strconv.FormatUint(uint64(id), 10))
		if err := copyTo(ctx, root, part, from); err != nil {
			return errors.Join(err, root.Remove(part))
		}
		return root.Rename(part, name)
	})
	dir, _ := s.dirs()
	return filepath.Join(dir, name), err
}

func copyTo(ctx context.Context, root *os.Root, name string, from *os.File) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = ctx.Err(); err == nil {
		_, err = io.Copy(f, io.NewSectionReader(from, 0, 1<<62))
	}
	if err == nil {
		err = f.Chmod(0o400)
	}
	return errors.Join(err, f.Close())
}

// sinkFile makes the file that a native plugin writes; its name is relative to DS_RUN_DIR.
func (s *Session) sinkFile(id uint32) (name string, err error) {
	name = filepath.Join(sinkDir, strconv.FormatUint(uint64(id), 10))
	return name, s.inRunDir(func(root *os.Root) error {
		if err := makeDir(root, sinkDir); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// readSink copies the plugin's file name to w. The plugin may still hold it open, so only the copy counts.
func (s *Session) readSink(ctx context.Context, name string, w io.Writer) (n int64, err error) {
	err = s.inRunDir(func(root *os.Root) error {
		f, err := openOwn(root, name)
		if err != nil {
			return err
		}
		n, err = io.Copy(w, contextReader{ctx, f})
		return errors.Join(err, f.Close())
	})
	return n, err
}

// removeSink removes what the plugin has left at name, if anything.
func (s *Session) removeSink(name string) error {
	err := s.inRunDir(func(root *os.Root) error { return root.Remove(name) })
	if errors.Is(err, fs.ErrNotExist) { // the plugin's directory
		return nil
	}
	return err
}

// runFile opens a file of the plugin's run directory by its absolute path. The host opens nothing else that a
// plugin names: it may reach more than the plugin does.
func (s *Session) runFile(path string) (f *os.File, err error) {
	dir, _ := s.dirs()
	name, rerr := filepath.Rel(dir, path)
	if dir == "" || rerr != nil || !filepath.IsAbs(path) || !filepath.IsLocal(name) {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "body_path %s: not below DS_RUN_DIR", clean(path, 200))
	}
	err = s.inRunDir(func(root *os.Root) error {
		f, err = openOwn(root, name)
		return err
	})
	if err != nil {
		return nil, hostabi.Errorf(hostabi.ReasonBadMessage, "body_path %s: not a regular file of this user", clean(path, 200))
	}
	return f, nil
}

func notRegular(name string) error {
	return hostabi.Errorf(hostabi.ReasonBadHandle, "sink %s: not a regular file of this user", filepath.Base(name))
}

// contextReader ends a long copy with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
