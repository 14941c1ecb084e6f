package wasm

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tetratelabs/wazero/sys"

	"github.com/delivery-station/ds/plugin"
)

// grace is how long a guest may go on after the first signal.
const grace = 2 * time.Second

// stopCode ends guest code from within a host function. The guest can exit with the same number; what counts
// is the reason in stopper.
const stopCode = 255

// reason is why a run was stopped from outside.
type reason struct {
	timeout bool
	signal  int  // 0 = the caller is gone
	pipe    bool // the reader of an output stream is gone
}

// stopper turns deadline, signals and the end of the caller into the two ways in which a run is stopped: wait
// ends first and cancels host calls, sleeps and reads; the stop word and guest end the guest's code, which
// looks at the word in every tick of its meter. After a deadline all end at once, after a signal the guest ends
// two seconds later or at the second signal.
type stopper struct {
	wait  context.Context
	guest context.Context

	cancelWait, cancelGuest context.CancelFunc
	word                    atomic.Bool // set before guest ends
	why                     atomic.Pointer[reason]
	quit, done              chan struct{}
}

// newStopper starts watching; end must be called.
func newStopper(ctx context.Context, inv *plugin.Invocation) *stopper {
	s := &stopper{quit: make(chan struct{}), done: make(chan struct{})}
	base := context.WithoutCancel(ctx)
	s.guest, s.cancelGuest = context.WithCancel(base)
	deadline, ok := ctx.Deadline()
	if d := inv.Deadline; !d.IsZero() && (!ok || d.Before(deadline)) {
		deadline, ok = d, true
	}
	if ok {
		s.wait, s.cancelWait = context.WithDeadline(base, deadline)
	} else {
		s.wait, s.cancelWait = context.WithCancel(base)
	}
	go s.watch(ctx, inv.Signals)
	return s
}

// end stops watching and releases what waits.
func (s *stopper) end() {
	close(s.quit)
	<-s.done
	s.cancelWait()
	s.cancelGuest()
}

// stopGuest ends the guest's code at its next tick.
func (s *stopper) stopGuest() {
	s.word.Store(true)
	s.cancelGuest()
}

// tick ends the guest's code if its time is over.
func (s *stopper) tick() {
	if s.word.Load() {
		panic(sys.NewExitError(stopCode))
	}
}

func (s *stopper) watch(ctx context.Context, signals <-chan os.Signal) {
	defer close(s.done)
	caller, wait := ctx.Done(), s.wait.Done()
	var over <-chan time.Time
	first := func(r reason) {
		s.note(r)
		caller, wait = nil, nil
		s.cancelWait()
		t := time.NewTimer(grace)
		over = t.C
	}
	for {
		select {
		case <-s.quit:
			return
		case <-wait: // nobody else ends it before first does
			s.note(reason{timeout: true})
			s.stopGuest()
			wait = nil
		case <-caller:
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				s.note(reason{timeout: true})
				s.cancelWait()
				s.stopGuest()
				caller, wait = nil, nil
				continue
			}
			first(reason{})
		case sig, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			n := stopSignal(sig)
			switch {
			case n == 0:
			case over != nil:
				s.stopGuest()
			default:
				first(reason{signal: n})
			}
		case <-over:
			s.stopGuest()
		}
	}
}

// stopSignal is the number of a signal that ends a guest, else 0.
func stopSignal(sig os.Signal) int {
	switch sig {
	case syscall.SIGINT, os.Interrupt:
		return int(syscall.SIGINT)
	case syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
		return int(sig.(syscall.Signal))
	}
	return 0
}

// note keeps the first reason.
func (s *stopper) note(r reason) { s.why.CompareAndSwap(nil, &r) }

// late reports whether the deadline has passed, and notes that.
func (s *stopper) late() bool {
	if !errors.Is(s.wait.Err(), context.DeadlineExceeded) {
		return false
	}
	s.note(reason{timeout: true})
	return true
}

// check ends the guest's code if its time is over. Host functions call it when they return from a wait and when
// they may take long: a tick is many host calls away.
func (s *stopper) check() {
	if s.wait.Err() == nil {
		return
	}
	if s.late() || s.word.Load() {
		panic(sys.NewExitError(stopCode))
	}
}

// sleep is the guest's sleep; the engine's own would outlive every deadline.
func (s *stopper) sleep(ns int64) {
	if ns <= 0 {
		return
	}
	t := time.NewTimer(time.Duration(ns))
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.wait.Done():
		s.check()
	}
}
