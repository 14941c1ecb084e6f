package native

import (
	"bytes"
	"time"
)

// SetHandshake shortens the time a goplugin server has to answer.
func (b *Backend) SetHandshake(d time.Duration) { b.handshake = d }

// SetSupport makes the backend believe that this is what the kernel can enforce.
func (b *Backend) SetSupport(s Support) { b.probe = func() Support { return s } }

// Missing is why require refuses.
func (e Enforcement) Missing() string { return e.missing }

// The pieces that are tested on their own.
var (
	Sweep       = sweep
	NewSockDir  = newSockDir
	WithoutUser = withoutUser
	Short       = short
	LegacyArgs  = legacyArgs
	NewLogLines = newLogLines
)

// Flush passes on a last line that has no end.
func (l *logLines) Flush() { l.flush() }

// Path is where the directory is, Remove removes it.
func (d *sockDir) Path() string { return d.path }
func (d *sockDir) Remove()      { d.remove() }

// Mismatch says why a program with these bytes does not run on goos and goarch.
func Mismatch(b []byte, goos, goarch string) (string, error) {
	img, err := sniff(bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	_ = img.loader()
	return img.mismatch(goos, goarch), nil
}
