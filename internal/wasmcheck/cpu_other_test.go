//go:build !linux

package wasmcheck_test

import "time"

var begin = time.Now()

// cpuTime is the time that passes, where there is no clock of a thread.
func cpuTime() time.Duration { return time.Since(begin) }

func resetPeak() {}

// peakMemory is not known here.
func peakMemory() int64 { return 0 }
