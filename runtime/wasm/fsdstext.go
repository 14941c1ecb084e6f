package wasm

import (
	"encoding/json"
	"io"
	"strings"

	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/sys"
)

// texts are the files with facts about this run, by name.
var texts = map[string]func(*dsTree) (any, error){
	"args.json":       (*dsTree).argsText,
	"caps.json":       (*dsTree).capsText,
	"config.json":     (*dsTree).configText,
	"last_error.json": (*dsTree).lastErrorText,
}

// text is the content of such a file.
func (d *dsTree) text(name string) (b []byte, e experimentalsys.Errno) {
	e = d.host(func() error {
		v, err := texts[name](d)
		if err != nil {
			return err
		}
		b, err = json.Marshal(v)
		b = append(b, '\n')
		return err
	})
	return b, e
}

// describe is the part of Meta.Describe that the files show.
type describe struct {
	Grants     []json.RawMessage
	Invocation struct {
		Plugin string
		Paths  []json.RawMessage
	}
}

func (d *dsTree) describe() (about describe, err error) {
	err = d.ask("Meta/Describe", request{}, &about)
	return about, err
}

// argsText is Invocation.paths.
func (d *dsTree) argsText() (any, error) {
	about, err := d.describe()
	return list(about.Invocation.Paths), err
}

// capsText is the grants of this run.
func (d *dsTree) capsText() (any, error) {
	about, err := d.describe()
	return list(about.Grants), err
}

// list is never null.
func list(l []json.RawMessage) []json.RawMessage {
	if l == nil {
		return []json.RawMessage{}
	}
	return l
}

// configText is the plugin's own settings as a tree of objects, without secrets.
func (d *dsTree) configText() (any, error) {
	about, err := d.describe()
	if err != nil {
		return nil, err
	}
	prefix := "settings." + about.Invocation.Plugin + "."
	var own struct {
		Values []struct {
			Key, JSON string
			Secret    bool
		}
	}
	if err := d.ask("Config/List", request{"prefix": prefix}, &own); err != nil {
		return nil, err
	}
	root := make(map[string]any)
	for _, v := range own.Values {
		if v.Secret || v.JSON == "" {
			continue
		}
		at := root
		key := strings.Split(strings.TrimPrefix(v.Key, prefix), ".")
		for _, part := range key[:len(key)-1] {
			next, ok := at[part].(map[string]any)
			if !ok {
				next = make(map[string]any)
				at[part] = next
			}
			at = next
		}
		at[key[len(key)-1]] = json.RawMessage(v.JSON)
	}
	return root, nil
}

// lastErrorText is the status of the last error, an empty object before the first.
func (d *dsTree) lastErrorText() (any, error) {
	if d.last == nil {
		return struct{}{}, nil
	}
	return json.RawMessage(d.last), nil
}

// textFile is an open file with facts, as they were when it was opened.
type textFile struct {
	treeLeaf
	b  []byte
	at int64
}

// Stat implements sys.File.
func (r *textFile) Stat() (sys.Stat_t, experimentalsys.Errno) {
	return r.node.regular(int64(len(r.b))), 0
}

// Read implements sys.File.
func (r *textFile) Read(b []byte) (int, experimentalsys.Errno) {
	n, e := r.Pread(b, r.at)
	r.at += int64(n)
	return n, e
}

// Pread implements sys.File.
func (r *textFile) Pread(b []byte, off int64) (int, experimentalsys.Errno) {
	if off < 0 {
		return 0, experimentalsys.EINVAL
	}
	if off >= int64(len(r.b)) {
		return 0, 0
	}
	return copy(b, r.b[off:]), 0
}

// Seek implements sys.File.
func (r *textFile) Seek(off offset, whence int) (offset, experimentalsys.Errno) {
	from := map[int]int64{io.SeekStart: 0, io.SeekCurrent: r.at, io.SeekEnd: int64(len(r.b))}
	base, ok := from[whence]
	if !ok || off > 0 && base > base+off || base+off < 0 {
		return 0, experimentalsys.EINVAL
	}
	r.at = base + off
	return r.at, 0
}
