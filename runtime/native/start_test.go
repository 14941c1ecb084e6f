//go:build unix

package native_test

import (
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/runtime/native"
)

// TestRefused covers the rows of native.md section 13 that end before the program runs.
func TestRefused(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the texts are about ELF programs")
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	other := append([]byte(nil), self[:4096]...)
	binary.LittleEndian.PutUint16(other[18:], uint16(elf.EM_S390))
	file := func(t *testing.T, b []byte, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "ds-x")
		writeFile(t, path, b, mode)
		return path
	}
	for _, c := range []struct {
		name   string
		c      func(t *testing.T) call
		reason hostabi.Reason
		text   string
	}{
		{
			"other architecture", func(t *testing.T) call { return call{path: file(t, other, 0o755)} },
			hostabi.ReasonPlatformUnsupported, "x 1.4.0: is built for linux/s390x, not linux/" + runtime.GOARCH,
		},
		{
			"no program", func(t *testing.T) call { return call{path: file(t, []byte("just text\n"), 0o755)} },
			hostabi.ReasonPlatformUnsupported, "is no program or #! script",
		},
		{
			"empty file", func(t *testing.T) call { return call{path: file(t, nil, 0o755)} },
			hostabi.ReasonPlatformUnsupported, "is no program or #! script",
		},
		{
			"not executable", func(t *testing.T) call { return call{path: file(t, []byte("#!/bin/sh\n"), 0o644)} },
			hostabi.ReasonStartFailed, "ds-x is not executable (mode 0644)",
		},
		{
			"program not executable", func(t *testing.T) call { return call{path: file(t, self, 0o640)} },
			hostabi.ReasonStartFailed, "ds-x is not executable (mode 0640)",
		},
		{
			"no interpreter", func(t *testing.T) call { return call{path: file(t, []byte("#!/no/such/interp -x\n"), 0o755)} },
			hostabi.ReasonStartFailed, "needs /no/such/interp, which is not here",
		},
		{
			"no loader", func(t *testing.T) call { return call{path: file(t, dynamicELF("/lib/ld-nowhere.so.1"), 0o755)} },
			hostabi.ReasonStartFailed, "needs /lib/ld-nowhere.so.1, which is not here",
		},
		{"removed script", func(t *testing.T) call {
			path := file(t, []byte("#!/bin/sh\n"), 0o755)
			return call{path: path, afterOpen: func() { os.Remove(path) }}
		}, hostabi.ReasonPluginModified, "its program was removed"},
		{"swapped script", func(t *testing.T) call {
			path := file(t, []byte("#!/bin/sh\nexec sleep 5\n"), 0o755)
			return call{path: path, afterOpen: func() {
				os.Remove(path)
				writeFile(t, path, []byte("#!/bin/sh\nexec sleep 10\n"), 0o755)
			}}
		}, hostabi.ReasonPluginModified, "was changed since install"},
		{
			"too many arguments", func(*testing.T) call { return call{args: []string{strings.Repeat("x", 8<<20)}} },
			hostabi.ReasonStartFailed, "argument list too long",
		},
		{
			"protocol 1, confined", func(*testing.T) call { return call{mode: "protocol1", options: native.Options{Confine: "require"}} },
			hostabi.ReasonSandboxRequired, "plugins of protocol 1 cannot be confined",
		},
		{
			"unknown mode", func(*testing.T) call { return call{mode: "ssh"} },
			hostabi.ReasonManifest, `run.native.mode "ssh" is not direct or goplugin`,
		},
		{
			"confinement required", func(*testing.T) call {
				return call{options: native.Options{Confine: "require"}, support: &native.Support{}}
			},
			hostabi.ReasonSandboxRequired, "this system has no Landlock",
		},
		{
			"no wrapper", func(*testing.T) call { return call{options: native.Options{Wrap: []string{"no-such-debugger"}}} },
			hostabi.ReasonStartFailed, "wrapper",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := c.c(t)
			run.name, run.rundir = "x", t.TempDir()
			e := run.refused(t)
			wantError(t, e, c.reason, c.text)
			if left, err := os.ReadDir(run.rundir); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// TestNoexec needs a file system that is mounted noexec and that we may write to.
func TestNoexec(t *testing.T) {
	t.Parallel()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Skip("needs /proc: ", err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[2] != "tmpfs" || !slices.Contains(strings.Split(f[3], ","), "noexec") {
			continue
		}
		dir, err := os.MkdirTemp(f[1], "ds")
		if err != nil {
			continue
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "ds-x")
		writeFile(t, path, []byte("#!/bin/sh\n"), 0o755)
		wantError(t, call{name: "x", path: path}.refused(t), hostabi.ReasonStartFailed, "ds-x is on a noexec mount")
		return
	}
	t.Skip("no writable noexec mount here")
}

// TestBusyProgram: a program that is open for writing is tried again and then refused.
func TestBusyProgram(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("other systems let a program be written while it runs")
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ds-x")
	writeFile(t, path, self, 0o755)
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	wantError(t, call{name: "quiet", path: path}.refused(t), hostabi.ReasonStartFailed, "ds-x is being written")
	w.Close()
	if err := (call{name: "quiet", path: path}).run(t.Context()); err != nil {
		t.Errorf("after it was written: %v", err)
	}
}

// TestSwappedProgram: what runs is the verified file, whatever is at its path by then.
func TestSwappedProgram(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux executes a descriptor")
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ds-x")
	writeFile(t, path, self, 0o755)
	out, code := call{name: "argv", path: path, afterOpen: func() {
		evil := path + ".new"
		writeFile(t, evil, []byte("#!/bin/sh\necho evil\n"), 0o755)
		os.Rename(evil, path)
	}}.output(t)
	if strings.Contains(out, "evil") || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
}

// dynamicELF is the smallest program of this processor that asks for a loader.
func dynamicELF(loader string) []byte {
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	le, path := binary.LittleEndian, loader+"\x00"
	b := make([]byte, 64+56)
	copy(b, elf.ELFMAG)
	b[elf.EI_CLASS], b[elf.EI_DATA], b[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	le.PutUint16(b[16:], uint16(elf.ET_DYN))
	le.PutUint16(b[18:], uint16(machine))
	le.PutUint32(b[20:], uint32(elf.EV_CURRENT))
	le.PutUint64(b[32:], 64) // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint16(b[58:], 64)
	h := b[64:]
	le.PutUint32(h, uint32(elf.PT_INTERP))
	le.PutUint32(h[4:], uint32(elf.PF_R))
	le.PutUint64(h[8:], uint64(len(b)))
	le.PutUint64(h[32:], uint64(len(path)))
	le.PutUint64(h[40:], uint64(len(path)))
	return append(b, path...)
}
