//go:build !linux || !(amd64 || arm64)

package native

import "os"

// Probe is what the kernel can enforce here: nothing that ds knows to use.
func Probe() Support { return Support{} }

// domain is what a confined program is held by.
type domain struct{}

// confine is never called: nothing is confined here.
func (r *run) confine([]*os.File) (*domain, error) { return nil, nil }

// confineWorker is nil: nothing is confined here.
func (b *Backend) confineWorker(string) (*domain, error) { return nil, nil }

func (d *domain) enter() error { return nil }

func (d *domain) close() {}

// mainThread reports whether the calling thread stands for the process.
func mainThread() bool { return false }

// undumpable keeps others of the same user out of the memory of ds, where there is a way.
func undumpable() {}

func limitData(int, int64) error { return nil }
