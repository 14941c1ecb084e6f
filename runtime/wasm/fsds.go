package wasm

import (
	"encoding/json"
	"io"
	"io/fs"
	"slices"
	"strings"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/hostabi"
)

// dsMount is the preopen of dsTree.
const dsMount = "/ds"

// dsTree is the file tree /ds (host-abi.md section 7): the host ABI for guests that cannot import functions. It
// decides nothing: every call goes to the session, as from the imports. What cannot be said in an errno stands
// in last_error.json. Opening and looking at a call or a sink reaches no service, because many runtimes look at
// every file that they open. One goroutine uses it, the one that runs the guest.
type dsTree struct {
	experimentalsys.UnimplementedFS
	in    *instance
	last  []byte                 // the status of the last error, in JSON
	kept  map[string]*callAnswer // of calls that ran when their file was closed, by method
	order []string               // of kept, oldest first
	held  int                    // bytes of requests and answers in memory
	ended bool                   // the guest is gone: nothing runs any more
}

func newDSTree(in *instance) *dsTree { return &dsTree{in: in, kept: make(map[string]*callAnswer)} }

// close ends the streams of kept answers.
func (d *dsTree) close() {
	d.ended = true
	for len(d.order) > 0 {
		d.forget(d.order[0])
	}
}

// host runs f, which uses the session, as an import runs: alone in the instance, and a panic of the host ends the
// guest. The error is kept for last_error.json.
func (d *dsTree) host(f func() error) experimentalsys.Errno {
	d.in.enter()
	defer d.in.returned()
	err := f()
	d.in.stop.check()
	return d.fail(err)
}

// fail is the errno of err, by the table of host-abi.md section 12.
func (d *dsTree) fail(err error) experimentalsys.Errno {
	if err == nil {
		return 0
	}
	e := hostabi.AsError(err)
	d.last = append(e.AppendStatus(nil, hostabi.EncJSON), '\n')
	switch e.Code {
	case hostabi.PermissionDenied, hostabi.Unauthenticated:
		return experimentalsys.EACCES
	case hostabi.NotFound:
		return experimentalsys.ENOENT
	case hostabi.AlreadyExists:
		return experimentalsys.EEXIST
	case hostabi.InvalidArgument, hostabi.OutOfRange:
		return experimentalsys.EINVAL
	case hostabi.Unimplemented:
		return experimentalsys.ENOTSUP
	}
	return experimentalsys.EIO
}

// request is a message in JSON.
type request map[string]any

// ask makes one unary call with JSON on both sides.
func (d *dsTree) ask(method string, req request, reply any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	out, err := d.in.session.Invoke(d.in.stop.wait, hostabi.Call{Method: servicePrefix + method, Enc: hostabi.EncJSON, Req: body})
	if err != nil {
		return err
	}
	return json.Unmarshal(out, reply)
}

// servicePrefix begins the names of methods whose service is given without its package.
const servicePrefix = "/ds.host.v1."

// nodeKind is what a name in the tree stands for.
type nodeKind uint8

const (
	dirNode  nodeKind = iota
	callNode          // call/SERVICE/METHOD
	blobNode          // blob/sha256/HEX
	sinkNode          // sink/HANDLE
	textNode          // *.json
)

// node is one name of the tree.
type node struct {
	kind nodeKind
	path string // "call/Config/Get"
	leaf string // method, hex, handle or file name
}

// find tells what a name stands for. Services and methods are not checked: the session knows them.
func (d *dsTree) find(name string) (n node, slash bool, e experimentalsys.Errno) {
	p, slash, e := cleanName(name)
	if e != 0 {
		return n, false, e
	}
	n.path = strings.Clone(p) // wazero passes a view of guest memory
	part := strings.Split(n.path, "/")
	depth := len(part)
	switch part[0] {
	case ".":
		return n, slash, 0
	case "call":
		n.kind, depth = callNode, depth-3
		if depth == 0 {
			n.leaf = methodOf(part[1], part[2])
		}
	case "blob":
		if len(part) > 1 && part[1] != "sha256" {
			return n, false, experimentalsys.ENOENT
		}
		n.kind, depth = blobNode, depth-3
	case "sink":
		n.kind, depth = sinkNode, depth-2
	default:
		if _, ok := texts[part[0]]; !ok {
			return n, false, experimentalsys.ENOENT
		}
		n.kind, depth = textNode, depth-1
	}
	switch {
	case depth > 0:
		return n, false, experimentalsys.ENOTDIR
	case depth < 0:
		n.kind = dirNode
	case n.kind != callNode:
		n.leaf = part[len(part)-1]
	}
	return n, slash, 0
}

// methodOf is the full name of a method. A service with a dot is a full name already.
func methodOf(service, method string) string {
	if strings.Contains(service, ".") {
		return "/" + service + "/" + method
	}
	return servicePrefix + service + "/" + method
}

// OpenFile implements sys.FS.
func (d *dsTree) OpenFile(name string, flag experimentalsys.Oflag, _ fs.FileMode) (experimentalsys.File, experimentalsys.Errno) {
	d.in.stop.check()
	n, slash, e := d.find(name)
	switch {
	case e != 0:
		return nil, e
	case flag&experimentalsys.O_CREAT != 0 && flag&experimentalsys.O_EXCL != 0:
		return nil, experimentalsys.EEXIST
	case n.kind == dirNode && flag&changeMask != 0:
		return nil, experimentalsys.EISDIR
	case n.kind != dirNode && (slash || flag&experimentalsys.O_DIRECTORY != 0):
		return nil, experimentalsys.ENOTDIR
	case (n.kind == blobNode || n.kind == textNode) && flag&changeMask != 0:
		return nil, experimentalsys.EROFS
	}
	f, e := d.open(n, flag)
	if e != 0 {
		return nil, e
	}
	shut := func(o *opened) func() {
		f.place(o)
		return f.release
	}
	if e := d.in.files.add(dsMount+"/"+n.path, n.path == ".", shut); e != 0 {
		f.release()
		return nil, d.fail(hostabi.Errorf(hostabi.ReasonTooMany, "%w", errOpenFiles))
	}
	return f, 0
}

// treeFile is an open file of the tree.
type treeFile interface {
	experimentalsys.File
	place(o *opened) // its entry in the file table
	release()        // ends it without running anything
}

func (d *dsTree) open(n node, flag experimentalsys.Oflag) (treeFile, experimentalsys.Errno) {
	switch n.kind {
	case callNode:
		return d.openCall(n, flag)
	case blobNode:
		return d.openBlob(n)
	case sinkNode:
		return d.openSink(n, flag)
	case textNode:
		b, e := d.text(n.leaf)
		return &textFile{treeLeaf: treeLeaf{d: d, node: n}, b: b}, e
	}
	return &treeDir{treeLeaf: treeLeaf{d: d, node: n}}, 0
}

// Lstat implements sys.FS.
func (d *dsTree) Lstat(name string) (sys.Stat_t, experimentalsys.Errno) { return d.Stat(name) }

// Stat implements sys.FS.
func (d *dsTree) Stat(name string) (sys.Stat_t, experimentalsys.Errno) {
	d.in.stop.check()
	n, slash, e := d.find(name)
	if e == 0 && slash && n.kind != dirNode {
		e = experimentalsys.ENOTDIR
	}
	if e != 0 {
		return sys.Stat_t{}, e
	}
	switch n.kind {
	case callNode:
		return n.device(), 0
	case blobNode:
		return d.statBlob(n)
	case sinkNode:
		_, e := d.sink(n)
		return n.device(), e
	case textNode:
		b, e := d.text(n.leaf)
		return n.regular(int64(len(b))), e
	}
	return virtualStat(dsMount, n.path), 0
}

// device is the state of what is written and read as a stream and has no size.
func (n node) device() sys.Stat_t {
	return sys.Stat_t{Mode: fs.ModeDevice | fs.ModeCharDevice | 0o600, Nlink: 1, Ino: n.inode()}
}

func (n node) regular(size int64) sys.Stat_t {
	return sys.Stat_t{Mode: 0o400, Nlink: 1, Ino: n.inode(), Size: size}
}

func (n node) inode() sys.Inode { return inode(dsMount + "/" + n.path) }

// Readlink implements sys.FS.
func (*dsTree) Readlink(string) (string, experimentalsys.Errno) { return "", experimentalsys.EINVAL }

// Mkdir implements sys.FS: names in the tree are the host's.
func (*dsTree) Mkdir(string, fs.FileMode) experimentalsys.Errno { return experimentalsys.EROFS }

// Chmod implements sys.FS.
func (*dsTree) Chmod(string, fs.FileMode) experimentalsys.Errno { return experimentalsys.EROFS }

// Rename implements sys.FS.
func (*dsTree) Rename(_, _ string) experimentalsys.Errno { return experimentalsys.EROFS }

// Rmdir implements sys.FS.
func (*dsTree) Rmdir(string) experimentalsys.Errno { return experimentalsys.EROFS }

// Unlink implements sys.FS.
func (*dsTree) Unlink(string) experimentalsys.Errno { return experimentalsys.EROFS }

// Link implements sys.FS.
func (*dsTree) Link(_, _ string) experimentalsys.Errno { return experimentalsys.EROFS }

// Symlink implements sys.FS.
func (*dsTree) Symlink(_, _ string) experimentalsys.Errno { return experimentalsys.EROFS }

// Utimens implements sys.FS.
func (*dsTree) Utimens(string, int64, int64) experimentalsys.Errno { return experimentalsys.EROFS }

// treeLeaf is what the open files of the tree have in common.
type treeLeaf struct {
	experimentalsys.UnimplementedFile
	d    *dsTree
	node node
	slot *opened
}

// Dev implements sys.File.
func (*treeLeaf) Dev() (uint64, experimentalsys.Errno) { return 0, 0 }

// Ino implements sys.File.
func (r *treeLeaf) Ino() (sys.Inode, experimentalsys.Errno) { return r.node.inode(), 0 }

// IsDir implements sys.File.
func (*treeLeaf) IsDir() (bool, experimentalsys.Errno) { return false, 0 }

// Stat implements sys.File.
func (r *treeLeaf) Stat() (sys.Stat_t, experimentalsys.Errno) { return r.node.device(), 0 }

// Read implements sys.File.
func (*treeLeaf) Read([]byte) (int, experimentalsys.Errno) { return 0, experimentalsys.EBADF }

// Pread implements sys.File.
func (*treeLeaf) Pread([]byte, int64) (int, experimentalsys.Errno) { return 0, experimentalsys.EBADF }

// Write implements sys.File.
func (*treeLeaf) Write([]byte) (int, experimentalsys.Errno) { return 0, experimentalsys.EBADF }

// Pwrite implements sys.File.
func (*treeLeaf) Pwrite([]byte, int64) (int, experimentalsys.Errno) { return 0, experimentalsys.EBADF }

// Truncate implements sys.File.
func (*treeLeaf) Truncate(int64) experimentalsys.Errno { return experimentalsys.EBADF }

// Readdir implements sys.File.
func (*treeLeaf) Readdir(int) ([]experimentalsys.Dirent, experimentalsys.Errno) {
	return nil, experimentalsys.ENOTDIR
}

// SetAppend implements sys.File: whether a file only grows is its nature, not a flag.
func (*treeLeaf) SetAppend(bool) experimentalsys.Errno { return 0 }

// Sync implements sys.File.
func (*treeLeaf) Sync() experimentalsys.Errno { return 0 }

// Datasync implements sys.File.
func (*treeLeaf) Datasync() experimentalsys.Errno { return 0 }

// Utimens implements sys.File.
func (*treeLeaf) Utimens(int64, int64) experimentalsys.Errno { return experimentalsys.EBADF }

func (r *treeLeaf) place(o *opened) { r.slot = o }

// Close implements sys.File.
func (r *treeLeaf) Close() experimentalsys.Errno {
	r.d.in.files.drop(r.slot)
	return 0
}

func (*treeLeaf) release() {}

// treeDir is an open directory.
type treeDir struct {
	treeLeaf
	names []experimentalsys.Dirent
	read  bool
}

// IsDir implements sys.File.
func (*treeDir) IsDir() (bool, experimentalsys.Errno) { return true, 0 }

// Stat implements sys.File.
func (r *treeDir) Stat() (sys.Stat_t, experimentalsys.Errno) {
	return virtualStat(dsMount, r.node.path), 0
}

// Read implements sys.File.
func (*treeDir) Read([]byte) (int, experimentalsys.Errno) { return 0, experimentalsys.EISDIR }

// Seek implements sys.File: only rewinding.
func (r *treeDir) Seek(off offset, whence int) (offset, experimentalsys.Errno) {
	if off != 0 || whence != io.SeekStart {
		return 0, experimentalsys.EINVAL
	}
	r.read = false
	return 0, 0
}

// Readdir implements sys.File. Only names that every run has are listed.
func (r *treeDir) Readdir(n int) ([]experimentalsys.Dirent, experimentalsys.Errno) {
	if !r.read {
		var e experimentalsys.Errno
		if r.names, e = r.d.list(r.node); e != 0 {
			return nil, e
		}
		r.read = true
	}
	if n <= 0 || n > len(r.names) {
		n = len(r.names)
	}
	out := r.names[:n]
	r.names = r.names[n:]
	return out, 0
}

// list is the names in a directory. Services and methods are those that the host serves.
func (d *dsTree) list(n node) (out []experimentalsys.Dirent, e experimentalsys.Errno) {
	add := func(mode fs.FileMode, names ...string) {
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			out = append(out, experimentalsys.Dirent{Name: name, Type: mode, Ino: inode(dsMount + "/" + n.path + "/" + name)})
		}
	}
	part := strings.Split(n.path, "/")
	switch {
	case part[0] == ".":
		add(fs.ModeDir, "blob", "call", "sink")
		for name := range texts {
			add(0, name)
		}
	case n.path == "blob":
		add(fs.ModeDir, "sha256")
	case part[0] == "call":
		var about struct{ Methods []string }
		if e = d.host(func() error { return d.ask("Meta/Describe", request{}, &about) }); e != 0 {
			return nil, e
		}
		var services, methods []string
		for _, full := range about.Methods {
			service, method, _ := strings.Cut(strings.TrimPrefix("/"+full, servicePrefix), "/")
			services = append(services, service)
			if len(part) > 1 && part[1] == service {
				methods = append(methods, method)
			}
		}
		if len(part) > 1 {
			add(fs.ModeDevice|fs.ModeCharDevice, methods...)
		} else {
			add(fs.ModeDir, services...)
		}
	}
	return out, 0
}
