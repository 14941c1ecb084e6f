package client_test

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

// TestFileError: one sentence for each refusal, whatever the system calls it; errors of ds pass.
func TestFileError(t *testing.T) {
	for want, err := range map[string]error{
		"x: no such file or directory":                              &fs.PathError{Op: "open", Path: "/host/x", Err: fs.ErrNotExist},
		"x: permission denied":                                      &fs.PathError{Op: "open", Path: "/host/x", Err: fs.ErrPermission},
		"x: a file is in the way":                                   &os.LinkError{Op: "rename", Old: "a", New: "b", Err: fs.ErrExist},
		"x: read-only here, or its parent directory does not exist": &fs.PathError{Op: "open", Path: "/host/x", Err: syscall.EROFS},
		"x: odd":   &fs.PathError{Op: "read", Path: "/host/x", Err: errors.New("Odd")},
		"x: moved": &os.LinkError{Op: "rename", Old: "a", New: "b", Err: errors.New("moved")},
	} {
		got := client.FileError("x", err)
		if got.Error() != want || hostabi.ReasonOf(got) != hostabi.ReasonUsage || !errors.Is(got, client.ErrInvalid) {
			t.Errorf("%v: %v", err, got)
		}
	}
	own := hostabi.Errorf(hostabi.ReasonQuota, "too much")
	if got := client.FileError("x", own); got != error(own) { //nolint:errorlint // the same one, not wrapped
		t.Errorf("of ds: %v", got)
	}
	d := client.Description{Invocation: client.RunInfo{Paths: []hostabi.PathArg{{Typed: "../a", Path: "/args/1/a"}, {Path: "/cwd/b"}}}}
	for value, want := range map[string]string{"/args/1/a": "../a", "/cwd/b": "/cwd/b", "c": "c"} {
		if got := d.Typed(value); got != want {
			t.Errorf("%s: %s", value, got)
		}
	}
}
