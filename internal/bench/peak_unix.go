//go:build unix

package main

import (
	"os"
	"syscall"
)

// peak is the largest resident memory of a process and its children, in MiB. It is never below this program's
// own, because a child begins as its copy.
func peak(p *os.ProcessState) float64 {
	usage, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return float64(usage.Maxrss) / 1024 // KiB on Linux, where alone this measures
}
