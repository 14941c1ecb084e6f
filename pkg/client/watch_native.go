//go:build !wasip1

package client

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// orphanTime is what a program has left when ds is gone, orphanExit how it then ends: 128 + SIGHUP.
const (
	orphanTime = 2 * time.Second
	orphanExit = 129
)

// signalled is the cause of a context that a signal of this process has cancelled.
type signalled int

func (s signalled) Error() string { return "signal " + strconv.Itoa(int(s)) }

// Signal is the number.
func (s signalled) Signal() int { return int(s) }

// watch makes the context of Main: it ends with a signal or with ds.
func watch(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	closeOnExec("DS_HOST_FD")
	if fd := closeOnExec("DS_CTL_FD"); fd != nil {
		go lifeline(*fd, cancel)
	}
	sigs := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		if !signal.Ignored(s) { // nohup and shells mean it
			signal.Notify(sigs, s)
		}
	}
	go func() {
		s, ok := (<-sigs).(syscall.Signal)
		signal.Stop(sigs) // the next one kills
		if ok {
			cancel(signalled(s))
		}
	}()
	return ctx, func() { signal.Stop(sigs) }
}

// lifeline reads the pipe that nobody writes to: its end means that ds is gone.
func lifeline(fd uintptr, cancel context.CancelCauseFunc) {
	waitEOF(fd)
	cancel(signalled(orphanExit - 128))
	timer := time.NewTimer(orphanTime)
	<-timer.C
	os.Exit(orphanExit)
}

// descriptorOf is the number in a variable, nil if there is none.
func descriptorOf(variable string) *uintptr {
	n, err := strconv.ParseUint(env(variable), 10, 63)
	if err != nil {
		return nil
	}
	return new(uintptr(n))
}
