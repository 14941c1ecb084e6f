package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// notify catches the signals of section 5 of the entry contract. Before a plugin runs, INT and TERM cancel
// ctx; while one runs they go to its backend. A signal that was ignored when ds started stays ignored, so
// that nohup and background jobs of scripts work, and none is ever set to ignored: that would survive exec.
//
// Registering goes on beside the caller until a.catching is closed: each signal costs two switches to a thread
// of the runtime, together a twentieth of ds version.
func (a *app) notify(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	caught := make(chan os.Signal, 8)
	go func() {
		defer close(a.catching)
		for _, s := range caughtSignals {
			if !signal.Ignored(s) {
				signal.Notify(caught, s)
			}
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := range caught {
			if n, ok := s.(syscall.Signal); ok && ends(s) && a.signalled.Swap(int32(n)) == 0 {
				close(a.ending)
			}
			if a.forward.Load() {
				select {
				case a.signals <- s:
				default: // the backend has eight to work on
				}
				continue
			}
			if ends(s) {
				cancel()
			}
		}
	}()
	return ctx, func() {
		<-a.catching
		signal.Stop(caught)
		close(caught)
		<-done
		cancel()
	}
}

// ends reports whether s asks a command to end.
func ends(s os.Signal) bool { return s == os.Interrupt || s == syscall.SIGTERM || s == syscall.SIGHUP }
