package goplugin

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// orphanTime is what a run has left when ds is gone, orphanExit how the process then ends: 128 + SIGHUP.
const (
	orphanTime = 2 * time.Second
	orphanExit = 129
)

// watch makes the context that ends with SIGTERM, the second of which kills, or with ds. SIGINT comes as a
// message, since go-plugin swallows it.
func watch(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if fd, err := strconv.ParseUint(os.Getenv("DS_CTL_FD"), 10, 63); err == nil {
		closeOnExec(uintptr(fd))
		go lifeline(uintptr(fd), cancel)
	}
	sigs := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGTERM) {
		signal.Notify(sigs, syscall.SIGTERM)
	}
	go func() {
		s, ok := (<-sigs).(syscall.Signal)
		signal.Stop(sigs)
		if ok {
			cancel(signalled(s))
		}
	}()
	return ctx, func() { signal.Stop(sigs) }
}

// lifeline waits for the end of the pipe that nobody writes to.
func lifeline(fd uintptr, cancel context.CancelCauseFunc) {
	waitEOF(fd)
	cancel(signalled(orphanExit - 128))
	timer := time.NewTimer(orphanTime)
	<-timer.C
	os.Exit(orphanExit)
}
