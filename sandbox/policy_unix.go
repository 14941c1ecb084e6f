//go:build unix

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/delivery-station/ds/internal/atomicfile"
)

// adminOnly checks that only root can change the open file and its directory.
func adminOnly(path string, f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(rootOnly("it", fi), rootOnly("its directory", dir))
}

func rootOnly(what string, fi fs.FileInfo) error {
	if atomicfile.OwnerUID(fi) != 0 {
		return errNotAdmin
	}
	if fi.Mode().Perm()&0o022 != 0 && fi.Mode()&(fs.ModeSticky|fs.ModeDir) != fs.ModeSticky|fs.ModeDir {
		return fmt.Errorf("%s is writable by group or others", what)
	}
	return nil
}
