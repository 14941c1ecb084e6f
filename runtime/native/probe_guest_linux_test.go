//go:build linux && (amd64 || arm64)

package native_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probe is a plugin that tries to get out. It prints "NAME=yes" for what it can do, "NAME=no" for what it is
// refused. Its words are NAME=VALUE: out (a directory outside its grants with a file "secret" and a program
// "true"), other (the id of another process), in (a granted directory), port and other-port (of local servers),
// abstract (the name of a socket).
func probe(args []string) int {
	arg := make(map[string]string)
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		arg[name] = value
	}
	out := arg["out"]
	host := os.Getppid()
	other, _ := strconv.Atoi(arg["other"])
	results := map[string]error{
		"read":        readByte(filepath.Join(out, "secret")),
		"list":        second(os.ReadDir(out)),
		"write":       appendByte(filepath.Join(out, "secret")),
		"create":      os.WriteFile(filepath.Join(out, "new"), nil, 0o600),
		"mkdir":       os.Mkdir(filepath.Join(out, "dir"), 0o700),
		"link":        os.Symlink("/", filepath.Join(out, "link")),
		"truncate":    os.Truncate(filepath.Join(out, "secret"), 1),
		"rename":      os.Rename(filepath.Join(out, "victim"), filepath.Join(out, "gone")),
		"exec":        exec.Command(filepath.Join(out, "true")).Run(),
		"etc-shadow":  readByte("/etc/hostname"),
		"exec-system": exec.Command("/bin/true").Run(),
		"etc-passwd":  readByte("/etc/passwd"),
		"proc":        readByte("/proc/version"),
		"null":        appendByte("/dev/null"),
		"rundir":      os.WriteFile(filepath.Join(os.Getenv("TMPDIR"), "x"), nil, 0o600),
		"self":        second(os.ReadFile("/proc/self/environ")),

		"host-environ":  eachTask(host, "environ"),
		"host-memory":   eachTask(host, "mem"),
		"host-fds":      readLinks(fmt.Sprintf("/proc/%d/fd", host)),
		"other-environ": readByte(fmt.Sprintf("/proc/%d/environ", other)),
		"vm-readv":      readMemory(other),
		"ptrace":        attach(other),

		"signal-host":    syscall.Kill(host, 0),
		"signal-threads": signalThreads(host),
		"signal-other":   syscall.Kill(other, 0),
		"prlimit":        unix.Prlimit(other, unix.RLIMIT_CORE, &unix.Rlimit{}, nil),
		"setsig":         second(unix.FcntlInt(0, unix.F_SETSIG, int(unix.SIGUSR1))),
		"tiocsti":        terminalInput(),
		"user-namespace": userNamespace(),
		"unshare":        unix.Unshare(unix.CLONE_NEWUTS),
		"mount":          notBadArgument(unix.Mount("", "", "", 0, "")),
		"clone3":         clone3(),
		"keyring":        keyring(),
	}
	for _, s := range []struct {
		name                string
		family, typ, protol int
	}{
		{"tcp", unix.AF_INET, unix.SOCK_STREAM, 0},
		{"tcp6", unix.AF_INET6, unix.SOCK_STREAM | unix.SOCK_CLOEXEC, unix.IPPROTO_TCP},
		{"udp", unix.AF_INET, unix.SOCK_DGRAM, 0},
		{"udp6", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP},
		{"ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
		{"mptcp", unix.AF_INET, unix.SOCK_STREAM, 262},
		{"sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP},
		{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"unix", unix.AF_UNIX, unix.SOCK_STREAM, 0},
		{"netlink", unix.AF_NETLINK, unix.SOCK_RAW, 0},
		{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0},
		{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	} {
		results["socket-"+s.name] = supported(openSocket(s.family, s.typ, s.protol))
	}
	results["pair-stream"] = openPair(unix.SOCK_STREAM)
	results["pair-datagram"] = openPair(unix.SOCK_DGRAM)
	results["pair-raw"] = openPair(unix.SOCK_RAW)
	if p := arg["port"]; p != "" {
		results["connect"] = connect(p)
	}
	if p := arg["other-port"]; p != "" {
		results["connect-other"] = connect(p)
	}
	if p := arg["abstract"]; p != "" {
		results["abstract"] = connectUnix("\x00" + p)
	}
	if in := arg["in"]; in != "" {
		results["in-read"] = readByte(filepath.Join(in, "secret"))
		results["in-list"] = second(os.ReadDir(in))
		results["in-create"] = os.WriteFile(filepath.Join(in, "new"), nil, 0o600)
		results["in-rename"] = os.Rename(filepath.Join(in, "new"), filepath.Join(in, "newer"))
		results["in-exec"] = exec.Command(filepath.Join(in, "true")).Run()
	}
	var names []string
	for n := range results {
		names = append(names, n)
	}
	sort.Strings(names)
	w := bufio.NewWriter(os.Stdout)
	for _, n := range names {
		answer := "yes"
		if results[n] != nil {
			answer = "no " + results[n].Error()
		}
		fmt.Fprintf(w, "%s=%s\n", n, answer)
	}
	if w.Flush() != nil {
		return 1
	}
	return 0
}

func second[T any](_ T, err error) error { return err }

func readByte(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 1))
	return err
}

func appendByte(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write([]byte("x"))
	return err
}

// eachTask is nil if one of the threads of pid gives its file away.
func eachTask(pid int, name string) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		f, oerr := os.OpenFile(fmt.Sprintf("/proc/%d/task/%s/%s", pid, t.Name(), name), os.O_RDONLY, 0)
		if oerr != nil {
			err = oerr
			continue
		}
		defer f.Close()
		if name == "mem" {
			return nil // whoever opens it can read it
		}
		if _, err = f.Read(make([]byte, 1)); err == nil {
			return nil
		}
	}
	return err
}

func readMemory(pid int) error {
	var b [1]byte
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	_, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 1, Len: 1}}, 0)
	if errors.Is(err, unix.EFAULT) {
		return nil // it may, there is nothing
	}
	return err
}

func attach(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	return nil // ends with this process
}

// signalThreads is nil if a thread of pid, addressed as itself or as a process, can be signalled.
func signalThreads(pid int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, _ := strconv.Atoi(t.Name())
		for _, try := range []func() error{
			func() error { return syscall.Kill(tid, 0) },
			func() error { return unix.Tgkill(pid, tid, 0) },
			func() error {
				_, _, errno := unix.RawSyscall(unix.SYS_TKILL, uintptr(tid), 0, 0)
				if errno != 0 {
					return errno
				}
				return nil
			},
		} {
			if err = try(); err == nil {
				return nil
			}
		}
	}
	return err
}

// terminalInput is refused iff the filter answers: without it standard input is no terminal.
func terminalInput() error {
	var c byte = 'x'
	// The high half of the request is not looked at by the kernel.
	for _, request := range []uintptr{unix.TIOCSTI, unix.TIOCSTI | 1<<40} {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, 0, request, uintptr(unsafe.Pointer(&c))); !errors.Is(errno, unix.EPERM) {
			return nil
		}
	}
	return unix.EPERM
}

func userNamespace() error {
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	return cmd.Run()
}

// clone3 with arguments that are too small is EINVAL where it is not filtered.
func clone3() error {
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	return notBadArgument(errno)
}

func keyring() error {
	_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
	return err
}

// notBadArgument is nil for errors that a call gives which is not filtered.
func notBadArgument(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EFAULT) {
		return nil
	}
	return err
}

// supported is nil where only the kernel does not have a family.
func supported(err error) error {
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		return nil
	}
	return err
}

func openSocket(family, typ, protocol int) error {
	fd, err := unix.Socket(family, typ, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func openPair(typ int) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, typ, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Close(fds[0]), unix.Close(fds[1]))
}

func connect(port string) error {
	c, err := net.Dial("tcp4", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	return c.Close()
}

func connectUnix(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + name[1:]})
}

// readLinks is nil if one of the descriptors in dir says what it is.
func readLinks(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if _, err = os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			return nil
		}
	}
	return err
}
