package wasm

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether f is a terminal.
func isTerminal(f *os.File) bool {
	ok := false
	control(f, func(fd int) {
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		ok = err == nil
	})
	return ok
}

// reopen is what f is open on, opened anew: non-blocking without changing f, and with deadlines. nil if that
// does not work, as for sockets.
func reopen(f *os.File, flag int, tty bool) *os.File {
	var n *os.File
	control(f, func(fd int) {
		var err error
		if n, err = openPollable("/proc/self/fd/"+strconv.Itoa(fd), flag); err != nil && tty {
			n, _ = openPollable("/dev/tty", flag)
		}
	})
	return n
}

func openPollable(name string, flag int) (*os.File, error) {
	f, err := os.OpenFile(name, flag|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := f.SetDeadline(time.Time{}); err != nil { // files that cannot be polled refuse
		_ = f.Close() // not used
		return nil, err
	}
	return f, nil
}

// wakeEvery is how often a thread is woken that may wait in the kernel.
const wakeEvery = 20 * time.Millisecond

// wakeThread pins the calling goroutine to its thread and, once ctx is done, interrupts what the thread waits
// for in the kernel, until release is called. The engine polls a terminal by a plain system call, which no
// deadline reaches. SIGURG is what the Go runtime itself uses for this; its handler does nothing more.
func wakeThread(ctx context.Context) (release func()) {
	runtime.LockOSThread()
	pid, tid := os.Getpid(), unix.Gettid()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-quit:
			return
		case <-ctx.Done():
		}
		tick := time.NewTicker(wakeEvery)
		defer tick.Stop()
		for {
			_ = unix.Tgkill(pid, tid, unix.SIGURG) // the thread exists: it is pinned until release
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(quit)
		<-done
		runtime.UnlockOSThread()
	}
}
