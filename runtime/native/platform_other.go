//go:build !linux

package native

import (
	"os"
	"syscall"

	"github.com/delivery-station/ds/plugin"
)

// procAttr: only Linux kills a child with its parent. Elsewhere plugins watch DS_CTL_FD.
func procAttr() *syscall.SysProcAttr { return nil }

// executable is the program's path: there is no way to execute a descriptor. The second value is nil.
func executable(p *plugin.Program, _ image, _ []*os.File) (string, *os.File, error) {
	return p.Path, nil, nil
}

func limitCore(int) {}

// limitWorker: limits of another process cannot be set here; the wall clock bounds a worker.
func limitWorker(int, uint64, uint64) error { return nil }

func maxMemory(*os.ProcessState) int64 { return 0 }

func noexec(*os.File) bool { return false }

func self() (string, error) { return os.Executable() }
