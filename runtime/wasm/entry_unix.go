//go:build unix

package wasm

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/delivery-station/ds/internal/atomicfile"
)

// unsafeDir says why others could put native code into dir, or is empty: dir must be ours alone, on a local
// file system, and no directory above it may let a stranger replace the next one.
func unsafeDir(dir string) string {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err.Error()
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err.Error()
	}
	if what := atomicfile.Unsafe(fi); what != "" {
		return fmt.Sprintf("%s %s; run: chmod go-w %s", dir, what, dir)
	}
	if what := remote(dir); what != "" {
		return fmt.Sprintf("%s is on %s", dir, what)
	}
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		fi, err := os.Lstat(up)
		if err != nil {
			return err.Error()
		}
		uid := atomicfile.OwnerUID(fi)
		if uid != 0 && uid != os.Geteuid() {
			return fmt.Sprintf("%s belongs to another user", up)
		}
		if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&os.ModeSticky == 0 {
			return fmt.Sprintf("%s is writable by group or others; run: chmod go-w %s", up, up)
		}
		if up == filepath.Dir(up) {
			return ""
		}
	}
}
