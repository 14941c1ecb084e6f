package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

const lockFlags = os.O_CREATE | os.O_RDONLY

// openFile opens links themselves and then refuses them; directories need no flag, os opens them.
func openFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag|syscall.FILE_FLAG_OPEN_REPARSE_POINT|syscall.FILE_FLAG_BACKUP_SEMANTICS, perm)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		err = &os.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// rename repeats while someone has the file open: virus scanners and indexers do that for moments.
func readHead(name string, b []byte) (int, error) { return headByFile(&osFS{}, name, b) }

func rename(from, to string) error { return patient(func() error { return os.Rename(from, to) }) }

func remove(name string) error {
	return patient(func() error {
		err := os.Remove(name)
		if errors.Is(err, fs.ErrPermission) && os.Chmod(name, 0o600) == nil { // read-only attribute
			err = os.Remove(name)
		}
		return err
	})
}

func patient(call func() error) error {
	wait := time.Millisecond
	for i := 0; ; i++ {
		err := call()
		busy := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION)
		if !busy || i == 9 {
			return err
		}
		<-time.After(wait)
		wait = min(2*wait, 100*time.Millisecond)
	}
}

func chtimes(name string, mtime time.Time) error { return os.Chtimes(name, time.Time{}, mtime) }

func syncDir(string) error { return nil } // NTFS journals names

// OwnerUID is the numeric owner of a file; -1 where the system has none.
func OwnerUID(fs.FileInfo) int { return -1 }

// DiskBytes is the space that a file takes on disk; here its length.
func DiskBytes(fi fs.FileInfo) int64 { return fi.Size() }

// Unsafe says why others could change what is in a directory, or is empty. Access lists are not read here.
func Unsafe(fs.FileInfo) string { return "" }

// Foreign is Unsafe for a directory that the user works in and named.
func Foreign(fs.FileInfo) string { return "" }

func handleID(f File, fi fs.FileInfo) (ID, error) {
	o := f.OS()
	if o == nil {
		return ID{}, errors.ErrUnsupported
	}
	var info syscall.ByHandleFileInformation
	if err := syscall.GetFileInformationByHandle(syscall.Handle(o.Fd()), &info); err != nil {
		return ID{}, os.NewSyscallError("GetFileInformationByHandle", err)
	}
	var basic struct { // FILE_BASIC_INFO
		creation, access, write, change int64
		attributes                      uint32
	}
	err := windows.GetFileInformationByHandleEx(windows.Handle(o.Fd()), windows.FileBasicInfo, (*byte)(unsafe.Pointer(&basic)), uint32(unsafe.Sizeof(basic)))
	if err != nil {
		return ID{}, os.NewSyscallError("GetFileInformationByHandleEx", err)
	}
	return ID{
		Ino: int64(info.FileIndexHigh)<<32 | int64(info.FileIndexLow), Size: fi.Size(),
		Mtime: fi.ModTime().UnixNano(), Ctime: basic.change * 100,
	}, nil
}
