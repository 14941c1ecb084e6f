package wasm

import (
	"errors"
	"io"
	"os"
	"strconv"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
)

// filer is a handle whose bytes are in a file of the host.
type filer interface{ File() *os.File }

// blobFile is an open blob/sha256/HEX: a file of the cache, read straight into guest memory.
type blobFile struct {
	treeLeaf
	h io.Closer
	f *os.File
}

// digest is the request that names the blob of a node.
func (n node) digest() request { return request{"digest": "sha256:" + n.leaf} }

// statBlob asks for a blob without opening it.
func (d *dsTree) statBlob(n node) (st sys.Stat_t, e experimentalsys.Errno) {
	var info struct {
		Size int64 `json:",string"`
	}
	e = d.host(func() error { return d.ask("Cache/Stat", n.digest(), &info) })
	return n.regular(info.Size), e
}

// openBlob opens a blob that the session may read.
func (d *dsTree) openBlob(n node) (f *blobFile, e experimentalsys.Errno) {
	e = d.host(func() error {
		var o struct{ Handle uint32 }
		if err := d.ask("Cache/Open", n.digest(), &o); err != nil {
			return err
		}
		h, err := d.in.session.Handle(o.Handle)
		if err != nil {
			return err
		}
		has, ok := h.(filer)
		if !ok {
			return errors.Join(hostabi.Errorf(hostabi.ReasonInternal, "blob %s has no file", n.leaf), h.Close())
		}
		f = &blobFile{treeLeaf: treeLeaf{d: d, node: n}, h: h, f: has.File()}
		return nil
	})
	return f, e
}

// errno is a failed read. The cause is the host's and has no status.
func (r *blobFile) errno(err error) experimentalsys.Errno {
	if err == nil || errors.Is(err, io.EOF) {
		return 0
	}
	n, lost := errno(err)
	if lost {
		r.d.in.files.cause(dsMount+"/"+r.node.path, reasonOf(err))
	}
	return n
}

// Stat implements sys.File.
func (r *blobFile) Stat() (sys.Stat_t, experimentalsys.Errno) {
	fi, err := r.f.Stat()
	if err != nil {
		return sys.Stat_t{}, r.errno(err)
	}
	return r.node.regular(fi.Size()), 0
}

// Read implements sys.File.
func (r *blobFile) Read(b []byte) (int, experimentalsys.Errno) {
	r.d.in.stop.check()
	n, err := r.f.Read(b)
	return n, r.errno(err)
}

// Pread implements sys.File.
func (r *blobFile) Pread(b []byte, off int64) (int, experimentalsys.Errno) {
	r.d.in.stop.check()
	if off < 0 {
		return 0, experimentalsys.EINVAL
	}
	n, err := r.f.ReadAt(b, off)
	return n, r.errno(err)
}

// Seek implements sys.File.
func (r *blobFile) Seek(off offset, whence int) (offset, experimentalsys.Errno) {
	if whence < io.SeekStart || whence > io.SeekEnd {
		return 0, experimentalsys.EINVAL
	}
	at, err := r.f.Seek(off, whence)
	return at, r.errno(err)
}

// Close implements sys.File.
func (r *blobFile) Close() experimentalsys.Errno {
	r.release()
	return r.treeLeaf.Close()
}

func (r *blobFile) release() { _ = r.h.Close() } // read only; the guest may have closed the handle itself

// sinkFile is an open sink/HANDLE: the bytes of a blob that Cache.Create began. Closing it does not end the sink;
// Cache.Commit and Cache.Close do.
type sinkFile struct {
	treeLeaf
	flag  experimentalsys.Oflag
	id    uint64
	wrote int64 // through this file
}

// sink is the number of a sink of this session.
func (d *dsTree) sink(n node) (id uint64, e experimentalsys.Errno) {
	id, err := strconv.ParseUint(n.leaf, 10, 31)
	if err != nil || strconv.FormatUint(id, 10) != n.leaf {
		return 0, experimentalsys.ENOENT
	}
	e = d.host(func() error {
		h, release, err := d.in.blob(id)
		if err != nil {
			return err
		}
		release()
		if _, readOnly := h.(filer); readOnly {
			return badHandle(id)
		}
		return nil
	})
	return id, e
}

func (d *dsTree) openSink(n node, flag experimentalsys.Oflag) (*sinkFile, experimentalsys.Errno) {
	id, e := d.sink(n)
	return &sinkFile{treeLeaf: treeLeaf{d: d, node: n}, flag: flag, id: id}, e
}

// IsAppend implements sys.File.
func (r *sinkFile) IsAppend() bool { return true }

// Write implements sys.File: a sink only grows.
func (r *sinkFile) Write(b []byte) (n int, e experimentalsys.Errno) {
	if r.flag&accessMask == 0 {
		return 0, experimentalsys.EBADF
	}
	e = r.d.host(func() error {
		h, release, err := r.d.in.blob(r.id)
		if err != nil {
			return err
		}
		defer release()
		n, err = h.Write(b)
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		r.wrote += int64(n)
		return err
	})
	return n, e
}

// Pwrite implements sys.File: only at the end.
func (r *sinkFile) Pwrite(b []byte, off int64) (int, experimentalsys.Errno) {
	if off != r.wrote {
		return 0, experimentalsys.EINVAL
	}
	return r.Write(b)
}

// Seek implements sys.File: only to where the next byte goes anyway.
func (r *sinkFile) Seek(off offset, whence int) (offset, experimentalsys.Errno) {
	if whence == io.SeekStart && off != r.wrote || whence != io.SeekStart && off != 0 {
		return 0, experimentalsys.EINVAL
	}
	return r.wrote, 0
}

// Truncate implements sys.File: nothing that was written can be taken back.
func (r *sinkFile) Truncate(size int64) experimentalsys.Errno {
	if size != r.wrote {
		return experimentalsys.EINVAL
	}
	return 0
}
