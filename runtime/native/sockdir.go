package native

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// maxSockDir keeps <dir>/plugin-dir1234567890/plugin1234567890 within the 104 bytes of a socket address.
const maxSockDir = 60

// sweepEvery is how often what killed processes left behind is looked for.
const sweepEvery = time.Hour

// sockDir is the private directory of one run: it is the credential of the sockets in it. It is locked as long
// as the run lasts.
type sockDir struct {
	path string
	lock *os.File
}

// openSockDir makes the directory below the first base that is short enough and ours.
func (r *run) openSockDir() (*sockDir, error) {
	bases := []string{r.b.o.SockDir}
	if r.b.o.SockDir == "" {
		bases = []string{lookup(r.inv.Env, "XDG_RUNTIME_DIR"), os.TempDir()}
	}
	if runtime.GOOS != "windows" {
		bases = append(bases, "/tmp")
	}
	var problem error
	for _, base := range bases {
		if base == "" {
			continue
		}
		d, err := newSockDir(base)
		if err == nil {
			return d, nil
		}
		if problem == nil {
			problem = err
		}
	}
	return nil, r.fail(hostabi.ReasonStartFailed, "socket directory: %w", problem)
}

func newSockDir(base string) (*sockDir, error) {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	parent := filepath.Join(base, fmt.Sprintf("ds-%d", uid()))
	d := &sockDir{path: filepath.Join(parent, hex.EncodeToString(id[:]))}
	if len(d.path) > maxSockDir && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s is longer than %d bytes", d.path, maxSockDir)
	}
	if err := os.Mkdir(parent, 0o700); err != nil && !os.IsExist(err) {
		return nil, err
	}
	info, err := os.Lstat(parent)
	if err != nil {
		return nil, err
	}
	if !ownedPrivate(info) {
		return nil, fmt.Errorf("%s is not a private directory of yours", parent)
	}
	sweep(parent, time.Now())
	if err := os.Mkdir(d.path, 0o700); err != nil {
		return nil, err
	}
	if d.lock, err = lockDir(d.path); err == nil {
		err = os.Mkdir(tmpIn(d.path), 0o700)
	}
	if err != nil {
		d.remove()
		return nil, err
	}
	return d, nil
}

// tmpIn is TMPDIR of the plugin: servers that do not know PLUGIN_UNIX_SOCKET_DIR put their socket there.
func tmpIn(dir string) string { return filepath.Join(dir, "t") }

func (d *sockDir) remove() {
	_ = removeTree(d.path) // what stays is swept
	if d.lock != nil {
		_ = d.lock.Close()
	}
}

// sweep removes, at most hourly, the directories in parent whose process is gone: those that nobody has locked.
// Young ones may be about to be locked.
func sweep(parent string, now time.Time) {
	mark := filepath.Join(parent, "swept")
	if info, err := os.Lstat(mark); err == nil && now.Sub(info.ModTime()) < sweepEvery {
		return
	}
	if os.WriteFile(mark, nil, 0o600) != nil || os.Chtimes(mark, now, now) != nil {
		return
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.IsDir() || now.Sub(info.ModTime()) < time.Minute {
			continue
		}
		path := filepath.Join(parent, e.Name())
		if lock, err := lockDir(path); err == nil {
			_ = removeTree(path)
			_ = lock.Close()
		}
	}
}

// reachable reports whether a socket that the plugin names is one of this run: ds must not be sent to the
// socket of somebody else.
func reachable(dir, network, addr string) bool {
	if runtime.GOOS == "windows" {
		return network == "tcp" && strings.HasPrefix(addr, "127.0.0.1:")
	}
	if network != "unix" || !filepath.IsAbs(addr) {
		return false
	}
	info, err := os.Lstat(addr)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	home, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	at, err := filepath.EvalSymlinks(filepath.Dir(addr))
	return err == nil && (at == home || strings.HasPrefix(at, home+string(filepath.Separator)))
}

// keepFields is the handshake line without what go-plugin must not see: the certificate of a server that was
// not asked for one.
func keepFields(f []string) string {
	if runtime.GOOS == "windows" { // AutoMTLS
		return strings.Join(f, "|")
	}
	return strings.Join(f[:5], "|")
}

// lookup is the value of name in an environment, empty if unset.
func lookup(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}
