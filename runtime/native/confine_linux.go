//go:build linux && (amd64 || arm64)

package native

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// Rights of Landlock as native.md section 7 groups them.
const (
	readFile    = unix.LANDLOCK_ACCESS_FS_READ_FILE
	rightRead   = readFile | unix.LANDLOCK_ACCESS_FS_READ_DIR
	rightRun    = rightRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	rightWrite  = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | rightChange
	rightDevice = readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	rightChange = unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_REFER

	// ofFiles are the rights that mean something for a file that is no directory.
	ofFiles = readFile | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	firstRights = unix.LANDLOCK_ACCESS_FS_REFER - 1 // of ABI 1
)

// What every confined program may read and use.
func systemFiles() []string {
	return []string{
		"/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage",
		"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group",
		"/etc/ssl/openssl.cnf", "/etc/ssl/certs", "/etc/pki/tls", "/etc/pki/ca-trust", "/etc/ca-certificates",
	}
}

func systemDevices() []string {
	return []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
}

// networkFiles are read by resolvers.
func networkFiles() []string {
	return []string{"/run/systemd/resolve", "/etc/resolv.conf", "/etc/hosts", "/etc/services", "/etc/gai.conf", "/etc/host.conf"}
}

// Probe is what the kernel can enforce here.
func Probe() Support {
	abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		abi = 0
	}
	return Support{Landlock: int(abi), Seccomp: filters()} // a small number
}

// domain is what a confined program is held by: a Landlock ruleset, and what its filter allows.
type domain struct {
	ruleset        int
	handled        uint64
	sockets, local bool
}

// handledFiles are the rights that a kernel knows.
func handledFiles(abi int) uint64 {
	h := uint64(firstRights)
	for _, r := range []struct {
		abi   int
		right uint64
	}{{2, unix.LANDLOCK_ACCESS_FS_REFER}, {abiFiles, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, {abiDevices, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}} {
		if abi >= r.abi {
			h |= r.right
		}
	}
	return h
}

// confine makes the domain of this run; std are the streams of the program. The caller closes it.
func (r *run) confine(std []*os.File) (*domain, error) {
	_, all := r.box.Ports()
	d, err := newDomain(r.b.probe().Landlock, all)
	if err != nil {
		return nil, r.fail(hostabi.ReasonSandboxRequired, "the kernel refuses a Landlock ruleset: %w", err)
	}
	d.sockets, d.local = r.box.Sockets(), r.p.Program.Mode == plugin.GoPlugin
	for _, fill := range []func(*domain) error{r.allowSystem, r.allowProgram, r.allowMounts, r.allowNetwork} {
		if err := fill(d); err != nil {
			d.close()
			return nil, err
		}
	}
	for _, f := range std {
		if err := d.addStream(f); err != nil {
			d.close()
			return nil, r.ruleError(err)
		}
	}
	return d, nil
}

// newDomain is a domain that allows nothing, on a kernel of this ABI; allPorts leaves TCP connections alone.
func newDomain(abi int, allPorts bool) (*domain, error) {
	d := &domain{handled: handledFiles(abi)}
	a := unix.LandlockRulesetAttr{Handled_access_fs: d.handled}
	if abi >= abiPorts {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if allPorts {
		a.Handled_access_net &^= unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= abiSignals {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	// Older kernels accept the fields that they do not know as long as those are 0.
	fd, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&a)), unsafe.Offsetof(a.Scoped)+unsafe.Sizeof(a.Scoped), 0) //nolint:gosec // the kernel takes an address
	if errno != 0 {
		return nil, errno
	}
	d.ruleset = int(fd) // a descriptor; it is O_CLOEXEC
	return d, nil
}

func (d *domain) close() { _ = unix.Close(d.ruleset) }

// enter restricts the calling thread, and what it starts, for ever.
func (d *domain) enter() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(d.ruleset), 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	if err := newFilter(unix.Getpid(), unix.Gettid(), d.sockets, d.local).install(); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}

// dropCapabilities takes from the calling thread every capability but those that let root write its own files:
// CAP_SYS_PTRACE would undo what keeps the plugin out of the memory of ds.
func dropCapabilities() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var c [2]unix.CapUserData
	if err := unix.Capget(&h, &c[0]); err != nil {
		return err
	}
	if c[0].Permitted|c[1].Permitted|c[0].Inheritable|c[1].Inheritable == 0 {
		return nil
	}
	const keep = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID
	for n := 0; ; n++ {
		if n < 32 && keep&(1<<n) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the last one was before
		}
		if errors.Is(err, unix.EPERM) {
			break // without CAP_SETPCAP; no_new_privs keeps what is dropped below from coming back
		}
		if err != nil {
			return err
		}
	}
	c[0] = unix.CapUserData{Effective: c[0].Effective & keep, Permitted: c[0].Permitted & keep}
	c[1] = unix.CapUserData{}
	return unix.Capset(&h, &c[0])
}

// confineWorker makes the domain of a worker, nil where none can be: it runs nothing but ds, reads what the
// runtime of Go reads, and writes below dir only.
func (b *Backend) confineWorker(dir string) (*domain, error) {
	if b.o.Confine == confineOff || !b.probe().Confines() {
		return nil, nil
	}
	d, err := newDomain(b.probe().Landlock, false)
	if err != nil {
		return nil, err
	}
	exe, _ := self()
	err = errors.Join(
		d.addPath(exe, rightRun), d.addPaths([]string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"}, rightRun),
		d.addPaths([]string{"/etc/ld.so.cache", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage", "/dev/null"}, rightRead),
	)
	if dir != "" {
		err = errors.Join(err, d.addPath(dir, rightRead|rightWrite))
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// mainThread reports whether the calling thread stands for the process in /proc and for signals.
func mainThread() bool { return unix.Gettid() == unix.Getpid() }

// undumpable keeps every program of the same user, and a plugin that shares a domain with a thread of ds, out
// of the memory, environment and descriptors of ds. The price: no core dump, no debugger that attaches late.
func undumpable() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// add allows access beneath the file f.
func (d *domain) add(f int, access uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= ofFiles
	}
	if access &= d.handled; access == 0 {
		return nil
	}
	a := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(f)} // a descriptor
	return d.rule(unix.LANDLOCK_RULE_PATH_BENEATH, unsafe.Pointer(&a))             //nolint:gosec // as above
}

func (d *domain) rule(kind uintptr, attr unsafe.Pointer) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(d.ruleset), kind, uintptr(attr), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// addPath allows access beneath path, if there is such a file.
func (d *domain) addPath(path string, access uint64) error {
	f, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return gone(err)
	}
	defer unix.Close(f) //nolint:errcheck // nothing was written
	return d.add(f, access)
}

func (d *domain) addPaths(paths []string, access uint64) error {
	for _, p := range paths {
		if err := d.addPath(p, access); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// gone is nil for errors that mean that there is nothing to allow.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// addStream lets the program open a stream once more by its name (/dev/stdout, /dev/fd/2), for what it can do
// with the stream anyway. Pipes and sockets need no rule.
func (d *domain) addStream(f *os.File) error {
	var st unix.Stat_t
	fd := int(f.Fd())
	if err := unix.Fstat(fd, &st); err != nil {
		return gone(err)
	}
	kind := st.Mode & unix.S_IFMT
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || kind != unix.S_IFREG && kind != unix.S_IFCHR || flags&unix.O_PATH != 0 {
		return nil //nolint:nilerr // nothing that a rule could be for
	}
	access := uint64(unix.LANDLOCK_ACCESS_FS_IOCTL_DEV)
	if mode := flags & unix.O_ACCMODE; mode != unix.O_WRONLY {
		access |= readFile
	}
	if mode := flags & unix.O_ACCMODE; mode != unix.O_RDONLY {
		access |= unix.LANDLOCK_ACCESS_FS_WRITE_FILE
		if flags&unix.O_APPEND == 0 {
			access |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
		} else if kind == unix.S_IFREG {
			access &^= unix.LANDLOCK_ACCESS_FS_WRITE_FILE // opened again it would not append
		}
	}
	if err := d.add(fd, access); err != nil && !errors.Is(err, unix.EBADFD) { // EBADFD: a file of no file system
		return err
	}
	return nil
}

// ruleError is the error for a rule that the kernel refuses: never a silent start without it.
func (r *run) ruleError(err error) error {
	return r.fail(hostabi.ReasonSandboxRequired, "the kernel refuses a Landlock rule: %w", err)
}

// allowSystem allows what every program needs, and the directories of the run.
func (r *run) allowSystem(d *domain) error {
	own := []string{r.dir}
	local := uint64(0)
	if r.sockDir != "" {
		own, local = append(own, r.sockDir), unix.LANDLOCK_ACCESS_FS_MAKE_SOCK
	}
	err := errors.Join(
		d.addPaths(systemPrograms(), rightRun), d.addPaths(systemFiles(), rightRead), d.addPaths(systemDevices(), rightDevice),
		d.addPaths(own[:1], rightRead|rightWrite), d.addPaths(own[1:], rightRead|rightWrite|local),
	)
	if err == nil && r.box.Has(hostabi.TermPrompt) {
		err = d.addPath("/dev/tty", rightDevice)
	}
	if err != nil {
		return r.ruleError(err)
	}
	return nil
}

// allowProgram allows the program itself: its version directory, or the one file that was put there by hand,
// and the interpreter of a script.
func (r *run) allowProgram(d *domain) error {
	p := r.p.Program
	if err := d.add(int(p.File.Fd()), rightRun); err != nil {
		return r.ruleError(err)
	}
	if p.Dir != "" && !r.p.HandPlaced {
		if err := d.addPath(p.Dir, rightRun); err != nil {
			return r.ruleError(err)
		}
	}
	if !r.image.script {
		return nil
	}
	dirs, err := r.interpreterDirs()
	if err != nil {
		return err
	}
	if err := d.addPaths(dirs, rightRun); err != nil {
		return r.ruleError(err)
	}
	return nil
}

// allowMounts allows what fs.read and fs.write open, rounded up to directories. What may be written may also be
// read, as in a module: programs open files for both.
func (r *run) allowMounts(d *domain) error {
	for _, m := range r.box.Mounts() {
		access := uint64(rightRead)
		if m.Write {
			access |= rightWrite
		}
		if err := r.allowMount(d, m, access); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) allowMount(d *domain, m sandbox.Mount, access uint64) error {
	path, flags := m.Host, unix.O_PATH|unix.O_CLOEXEC
	if m.Name != "" && !m.Create {
		path = filepath.Join(path, m.Name)
		flags |= unix.O_NOFOLLOW // whoever made the directory must not choose what is opened
	}
	f, err := unix.Open(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) && m.Write && m.Name != "" { // may be made, which is a right in its directory
		m.Create, path = true, m.Host
		f, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		if err = gone(err); err != nil {
			return r.ruleError(fmt.Errorf("%s: %w", path, err))
		}
		return nil
	}
	defer unix.Close(f) //nolint:errcheck // nothing was written
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return r.ruleError(err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(f))
	if err != nil {
		target = path
	}
	if err := r.box.Whole(m, target); err != nil {
		if m.Optional { // as in a module, where what is out of reach is cut out, the rest of the plugin works
			r.b.o.Log.Info("optional scope left out", "plugin", r.p.Name, "path", path, "err", err)
			return nil
		}
		e := hostabi.AsError(err)
		e.Op = r.fail(e.Reason, "").Op
		return e
	}
	if err := d.add(f, access); err != nil {
		return r.ruleError(fmt.Errorf("%s: %w", path, err))
	}
	return nil
}

// allowNetwork allows TCP connections to the granted ports, those of the proxies that the program is told of,
// and name servers, and the files that resolvers and TLS read.
func (r *run) allowNetwork(d *domain) error {
	if !d.sockets {
		return nil
	}
	files := networkFiles()
	ports, all := r.box.Ports()
	ports = append(ports, 53)
	for _, kv := range r.inv.Env {
		switch name, value, _ := strings.Cut(kv, "="); {
		case name == "SSL_CERT_FILE":
			files = append(files, value)
		case name == "SSL_CERT_DIR":
			files = append(files, filepath.SplitList(value)...)
		case transport(name):
			if p := proxyPort(value); p != 0 && !slices.Contains(ports, p) {
				ports = append(ports, p)
			}
		}
	}
	for _, f := range files {
		if name, hidden := r.box.Hides(f); hidden {
			return r.fail(hostabi.ReasonCapabilityDenied, "plugins get no access to %s", name)
		}
	}
	if err := d.addPaths(files, rightRead); err != nil {
		return r.ruleError(err)
	}
	if all || r.b.probe().Landlock < abiPorts {
		return nil
	}
	for _, p := range ports {
		a := struct{ access, port uint64 }{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(p)} // struct landlock_net_port_attr
		if err := d.rule(landlockRuleNetPort, unsafe.Pointer(&a)); err != nil {             //nolint:gosec // as above
			return r.ruleError(err)
		}
	}
	return nil
}

const landlockRuleNetPort = 2 // LANDLOCK_RULE_NET_PORT of linux/landlock.h

// proxyPort is the port of a proxy's address, 0 if it has none to tell.
func proxyPort(value string) uint16 {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" {
		return 0
	}
	if p := u.Port(); p != "" {
		n, _ := strconv.ParseUint(p, 10, 16)
		return uint16(n)
	}
	return map[string]uint16{"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}[u.Scheme]
}

// limitData bounds the memory of a confined program. A Go server needs 96 MiB at least; a limit of the address
// space would end Node.
func limitData(pid int, memory int64) error {
	const least = 96 << 20
	err := limit(pid, unix.RLIMIT_DATA, uint64(max(memory, least))) // not negative
	if errors.Is(err, errNoProcess) {
		return nil
	}
	return err
}
