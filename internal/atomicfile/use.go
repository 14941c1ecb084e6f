package atomicfile

import (
	"os"

	"github.com/gofrs/flock"
)

// Share marks an open file as in use, until f and every copy of it in other processes is closed. It fails only
// while InUse asks about the file.
func Share(f *os.File) error { return share(f) }

// InUse reports whether anybody holds Share of the file name; a file that cannot be asked about counts as used.
func InUse(name string) bool {
	l := flock.New(name, flock.SetFlag(os.O_RDONLY))
	free, err := l.TryLock()
	if err != nil || !free {
		return !os.IsNotExist(err)
	}
	return l.Unlock() != nil
}
