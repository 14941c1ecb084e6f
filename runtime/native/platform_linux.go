package native

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/delivery-station/ds/plugin"
)

// procAttr makes the kernel kill the plugin when the thread that started it is gone, whatever killed ds.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// aboveExtra is a descriptor number that the child's own descriptors, 0, 1, 2 …, never reach.
const aboveExtra = 32

// beyond is the lowest number that a descriptor may have to survive the fork: package syscall moves files that
// are in the way, and its own pipe, to the numbers after the highest of files.
func beyond(files []*os.File) int {
	high := aboveExtra
	for _, f := range files {
		high = max(high, int(f.Fd()))
	}
	return high + len(files) + 2
}

// executable is the path to execute and a file that must stay open until then. An ELF program is executed by
// its descriptor, so that swapping the file at its path wins nothing. A script goes by its path: its interpreter
// would find the descriptor closed.
func executable(p *plugin.Program, img image, files []*os.File) (string, *os.File, error) {
	f, err := duplicate(p.File, beyond(files))
	if img.script {
		return p.Path, f, err
	}
	if err != nil {
		return "", nil, err
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if _, err := os.Lstat(path); err != nil { // no /proc here
		path = p.Path
	}
	return path, f, nil
}

func duplicate(f *os.File, low int) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, low)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// limitCore forbids a core dump, which would hold what the plugin was trusted with. The process may be gone.
func limitCore(pid int) { _ = limit(pid, unix.RLIMIT_CORE, 0) }

func limit(pid, resource int, value uint64) error {
	return unix.Prlimit(pid, resource, &unix.Rlimit{Cur: value, Max: value}, nil)
}

// limitWorker bounds a worker; zero values do not.
func limitWorker(pid int, cpuSeconds, dataBytes uint64) error {
	limitCore(pid)
	if err := limit(pid, unix.RLIMIT_NOFILE, 64); err != nil {
		return err
	}
	if cpuSeconds > 0 {
		if err := limit(pid, unix.RLIMIT_CPU, cpuSeconds); err != nil {
			return err
		}
	}
	if dataBytes > 0 {
		return limit(pid, unix.RLIMIT_DATA, dataBytes)
	}
	return nil
}

// maxMemory is the most memory that an ended process had resident, in bytes.
func maxMemory(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return int64(u.Maxrss) << 10 //nolint:unconvert // 32 bits on some
	}
	return 0
}

// noexec reports whether f lies on a file system from which nothing may be executed.
func noexec(f *os.File) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(int(f.Fd()), &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}

// self is this executable even after its file was replaced.
func self() (string, error) { return "/proc/self/exe", nil }
