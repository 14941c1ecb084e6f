package wasmcheck_test

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
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

// resetPeak forgets how much memory this process had, if the kernel lets it.
func resetPeak() {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // else the peak is that of all tests before
}

// peakMemory is the most memory that this process had since resetPeak.
func peakMemory() int64 { return memoryOf("self", "VmHWM:") }

// memoryOf is a line of /proc/PID/status, in bytes.
func memoryOf(pid, line string) int64 {
	b, _ := os.ReadFile("/proc/" + pid + "/status")
	_, rest, _ := strings.Cut(string(b), line)
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.ParseInt(kib, 10, 64)
	return n << 10
}
