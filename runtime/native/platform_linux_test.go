package native

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/delivery-station/ds/plugin"
)

// TestProgramDescriptorSurvivesTheFork puts the child's files right below the number that the program's
// descriptor would get: the child moves files to the numbers above them before it executes.
func TestProgramDescriptorSurvivesTheFork(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var last *os.File
	for { // every number from 32 to 40 and beyond is taken
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, aboveExtra)
		if err != nil {
			t.Fatal(err)
		}
		last = os.NewFile(uintptr(fd), "null")
		defer last.Close()
		if fd >= 40 {
			break
		}
	}
	program, err := os.Open("/bin/true")
	if err != nil {
		t.Skip("needs /bin/true")
	}
	defer program.Close()
	// The same file three times: standard output and error lie below their places and are moved.
	files := []*os.File{last, null, null}
	path, held, err := executable(&plugin.Program{File: program, Path: "/bin/true"}, image{}, files)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	p, err := launch(command{path: path, argv: []string{"true"}, files: files})
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	if err := p.result(); err != nil {
		t.Error(err)
	}
}
