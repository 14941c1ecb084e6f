package cache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

// R4 of reliability.md on a tmpfs of 16 MiB, in a user namespace of its own.
func TestR4_SmallDisk(t *testing.T) {
	if dir := os.Getenv("CACHE_SMALL_DISK"); dir != "" {
		f, err := onSmallDisk(t.Context(), dir, faulttest.Seed(t))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("filled:", f)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestR4_SmallDisk$")
	cmd.Env = append(os.Environ(), "CACHE_SMALL_DISK="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC), strings.Contains(string(out), errNoMount.Error()):
		t.Skipf("no user namespace with a file system of its own here: %v; TestR4_SimulatedDisk has it simulated", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
	_, line, _ := strings.Cut(string(out), "filled: ")
	line, _, _ = strings.Cut(line, "\n")
	t.Logf("R4: tmpfs of 16 MiB, %s, 0 corrupt", line)
}

var errNoMount = errors.New("nothing can be mounted")

func onSmallDisk(ctx context.Context, dir string, seed uint64) (filled, error) {
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskSize)); err != nil {
		return filled{}, fmt.Errorf("%w: %w", errNoMount, err)
	}
	o := cache.Options{Dir: filepath.Join(dir, "cache"), MaxSize: 10 << 30}
	return fillDisk(ctx, o, func() (func() error, error) { return lastBytes(filepath.Join(dir, "other")) }, faulttest.Scale(1, 20, 300), seed)
}

// lastBytes writes to a file until the disk is full.
func lastBytes(name string) (undo func() error, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	if err := f.Close(); err != nil && !errors.Is(err, io.ErrShortWrite) {
		return nil, err
	}
	return func() error { return os.Remove(name) }, nil
}
