package registry

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

const (
	mountSize    = 32 << 10 // smaller blobs are sent sooner than asked for
	mountOffers  = 3        // repositories that are tried
	maxMountLog  = 1 << 20
	mountLogMode = 0o600
)

// mounts remembers which repositories of a host were seen to hold a blob, so that a push to another one need
// not send it. The memory is only a hint: a wrong entry costs one request. With a directory it outlives the
// process, a file of lines "DIGEST REPOSITORY" for each host.
type mounts struct {
	fs  atomicfile.FS
	dir string // empty = this process only

	mu    sync.Mutex
	hosts map[string]*mountMemory
}

type mountMemory struct {
	loaded bool
	known  map[hostabi.Digest][]string // the latest last
	unsent []byte                      // lines for the file
}

// of is the memory of a host. m.mu is held.
func (m *mounts) of(host string) *mountMemory {
	if m.hosts == nil {
		m.hosts = make(map[string]*mountMemory)
	}
	if m.hosts[host] == nil {
		m.hosts[host] = &mountMemory{known: make(map[hostabi.Digest][]string)}
	}
	return m.hosts[host]
}

func (m *mounts) file(host string) string {
	return filepath.Join(m.dir, strings.NewReplacer(":", "_", "[", "", "]", "").Replace(host)+".log")
}

// note says that a repository was seen to hold d.
func (m *mounts) note(ref Reference, d hostabi.Descriptor) { m.add(ref, d, m.dir != "") }

// guess says that a manifest of a repository lists d: nothing to keep, but good for a copy in this process.
func (m *mounts) guess(ref Reference, d hostabi.Descriptor) { m.add(ref, d, false) }

func (m *mounts) add(ref Reference, d hostabi.Descriptor, keep bool) {
	if ref.IsLayout() || d.Size < mountSize {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.of(ref.Host)
	if h.add(d.Digest, ref.Repository) && keep {
		h.unsent = append(h.unsent, string(d.Digest)+" "+ref.Repository+"\n"...)
	}
}

// add reports whether that is news.
func (h *mountMemory) add(d hostabi.Digest, repository string) bool {
	list := h.known[d]
	if len(list) > 0 && list[len(list)-1] == repository {
		return false
	}
	list = append(slices.DeleteFunc(list, func(r string) bool { return r == repository }), repository)
	h.known[d] = list[max(0, len(list)-mountOffers-1):] // one may be the target itself
	return true
}

// offers lists where a push to ref may take d from, under what ctx allows.
func (m *mounts) offers(ctx context.Context, ref Reference, d hostabi.Descriptor) (list []string) {
	if ref.IsLayout() || d.Size < mountSize {
		return nil
	}
	m.mu.Lock()
	h := m.of(ref.Host)
	if !h.loaded {
		h.loaded = true
		m.load(ref.Host, h)
	}
	known := slices.Clone(h.known[d.Digest])
	m.mu.Unlock()
	for _, r := range slices.Backward(known) {
		if r != ref.Repository && len(list) < mountOffers && hostabi.Mountable(ctx, ref.Host+"/"+r) {
			list = append(list, r)
		}
	}
	return list
}

// load reads the file of a host: what this process noted stays the latest. A damaged line is left out.
func (m *mounts) load(host string, h *mountMemory) {
	if m.dir == "" {
		return
	}
	b, err := atomicfile.ReadFile(m.fs, m.file(host), 4*maxMountLog)
	if err != nil {
		return // a memory that cannot be read is an empty one
	}
	own := h.known
	h.known = make(map[hostabi.Digest][]string)
	for d, r := range mountLines(b) {
		h.add(d, r)
	}
	for d, list := range own {
		for _, r := range list {
			h.add(d, r)
		}
	}
}

// mountLines yields the whole and valid lines of a file.
func mountLines(b []byte) func(func(hostabi.Digest, string) bool) {
	return func(yield func(hostabi.Digest, string) bool) {
		for line := range bytes.Lines(b) {
			text, whole := strings.CutSuffix(string(line), "\n")
			digest, repository, _ := strings.Cut(text, " ")
			if d := hostabi.Digest(digest); whole && d.Valid() && len(repository) <= maxRepository && validRepository(repository) && !yield(d, repository) {
				return
			}
		}
	}
}

// save appends what was noted since the last time. A memory that cannot be kept costs only itself.
func (m *mounts) save(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for host, h := range m.hosts {
		if len(h.unsent) == 0 {
			continue
		}
		lines := h.unsent
		h.unsent = nil
		_ = m.append(ctx, m.file(host), lines)
	}
}

func (m *mounts) append(ctx context.Context, file string, lines []byte) error {
	if err := atomicfile.MkdirAll(m.fs, m.dir, 0o700); err != nil {
		return err
	}
	f, err := m.fs.Open(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, mountLogMode)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	info, serr := f.Stat()
	if err := errors.Join(err, serr, f.Close()); err != nil || info.Size() <= maxMountLog {
		return err
	}
	return atomicfile.Edit(ctx, m.fs, file, halve)
}

// halve keeps the later half of a file.
func halve(old []byte) ([]byte, error) {
	if len(old) <= maxMountLog {
		return nil, nil // another process was faster
	}
	old = old[len(old)-maxMountLog/2:]
	if i := bytes.IndexByte(old, '\n'); i >= 0 {
		return old[i+1:], nil
	}
	return nil, fs.ErrInvalid
}
