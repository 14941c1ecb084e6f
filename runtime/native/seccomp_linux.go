//go:build linux && (amd64 || arm64)

package native

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Answers of the filter.
const (
	allow    = unix.SECCOMP_RET_ALLOW
	refuse   = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown  = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	killSelf = unix.SECCOMP_RET_KILL_PROCESS
)

// refusedCalls reach other processes, the kernel or other views of the file system; no plugin needs them
// (native.md section 7).
var refusedCalls = [...]uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_SWAPON,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_REBOOT, unix.SYS_ACCT, unix.SYS_SETTIMEOFDAY,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
}

// namespaces are the CLONE_NEW* flags that clone takes.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

const socketType = 0xf // the type without its flags

// filter is a program of classic BPF over struct seccomp_data. Every block that when adds ends in a return, so
// that a call which no block is about reaches the end, where it is allowed.
type filter []unix.SockFilter

// newFilter is the filter of a plugin below the thread tid of the process pid; sockets and local say which
// families it may open.
func newFilter(pid, tid int, sockets, local bool) filter {
	f := filter{load(4), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: auditArch}, answer(killSelf), load(0)}
	if foreignCalls != 0 {
		f = append(f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jf: 1, K: foreignCalls}, answer(killSelf))
	}
	for _, nr := range refusedCalls {
		f.when(nr, answer(refuse))
	}
	f.when(unix.SYS_CLONE3, answer(unknown)) // its flags lie in memory; libraries fall back to clone
	f.when(unix.SYS_CLONE, argument(0), has(namespaces), answer(refuse), answer(allow))
	// A terminal must not become a keyboard.
	f.when(unix.SYS_IOCTL, argument(1), is(unix.TIOCSTI), answer(refuse), is(unix.TIOCLINUX), answer(refuse), answer(allow))
	// The parked thread is in the plugin's Landlock domain, so Landlock would allow these.
	for _, nr := range [...]uint32{
		unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_TGKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_PIDFD_OPEN,
	} {
		f.when(nr, argument(0), is(uint32(pid)), answer(refuse), is(uint32(tid)), answer(refuse), answer(allow)) // ids of threads are positive
	}
	// The same by way of a descriptor that is ready: without it only SIGIO is sent, which ds ignores.
	f.when(unix.SYS_FCNTL, argument(1), is(unix.F_SETSIG), answer(refuse), answer(allow))
	// A CPU limit of 0 kills any process of the user, and Landlock does not look at limits.
	f.when(unix.SYS_PRLIMIT64, argument(0), isNot(0), skip(1), answer(allow),
		argument(2), isNot(0), answer(refuse), argumentHigh(2), isNot(0), answer(refuse), answer(allow))
	f.sockets(sockets, local)
	return append(f, answer(allow))
}

// sockets limits the families. local is AF_UNIX, which go-plugin needs.
func (f *filter) sockets(inet, local bool) {
	if !inet && !local {
		f.when(unix.SYS_SOCKET, answer(refuse))
	} else {
		b := filter{argument(0)}
		if local {
			b = append(b, is(unix.AF_UNIX), answer(allow))
		}
		if inet { // no MPTCP, which passes Landlock's rules for TCP, and nothing raw
			b = append(b, is(unix.AF_INET), skip(2), isNot(unix.AF_INET6), answer(refuse),
				argument(1), and(socketType),
				isNot(unix.SOCK_STREAM), skip(6), argument(2), is(0), answer(allow), is(unix.IPPROTO_TCP), answer(allow), answer(refuse))
			b = append(b, isNot(unix.SOCK_DGRAM), answer(refuse), argument(2), is(0), answer(allow), is(unix.IPPROTO_UDP), answer(allow))
		}
		f.when(unix.SYS_SOCKET, append(b, answer(refuse))...)
	}
	// A datagram socket of a pair may still be connected to any address, a stream one may not.
	pair := filter{argument(0), isNot(unix.AF_UNIX), answer(refuse), argument(1), and(socketType)}
	if local {
		pair = append(pair, answer(allow))
	}
	pair = append(pair, is(unix.SOCK_STREAM), answer(allow), is(unix.SOCK_SEQPACKET), answer(allow), answer(refuse))
	f.when(unix.SYS_SOCKETPAIR, pair...)
}

// when adds a block for the call nr.
func (f *filter) when(nr uint32, block ...unix.SockFilter) {
	over := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(len(block)), K: nr} // blocks are short
	*f = append(append(*f, over), block...)
}

// load reads the 32 bits at an offset of struct seccomp_data: 0 the number, 4 the architecture.
func load(at uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
}

// argument reads the low half of argument i; both processors are little endian. Kernel parameters that are
// ints ignore the high half.
func argument(i uint32) unix.SockFilter { return load(16 + 8*i) }

func argumentHigh(i uint32) unix.SockFilter { return load(20 + 8*i) }

func answer(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

// is, isNot and has let the next instruction run only if they hold; else it is skipped.
func is(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: k}
}

func isNot(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: k}
}

func has(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: k}
}

func and(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: k}
}

// skip jumps over n instructions.
func skip(n uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: n}
}

// install loads the filter for the calling thread, which has no_new_privs.
func (f filter) install() error {
	p := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}                                                        // some hundred instructions
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&p))) //nolint:gosec // the kernel takes an address
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

// filters reports whether the kernel loads filters that answer with an error.
func filters() bool {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))) //nolint:gosec // as above
	return errno == 0
}
