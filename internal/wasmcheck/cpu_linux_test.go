package wasmcheck_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is what this thread has used: other programs of the machine do not count. The caller keeps its thread.
func cpuTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
