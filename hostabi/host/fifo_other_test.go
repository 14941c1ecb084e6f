//go:build !unix

package host_test

import "errors"

func mkfifo(string) error { return errors.New("no pipes here") }
