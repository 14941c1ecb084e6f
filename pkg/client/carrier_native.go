//go:build !wasip1

package client

import (
	"os"
	"strconv"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
)

// hostBlocks says whether a host call stops all goroutines of the program.
const hostBlocks = false

// chunk is how many bytes of a stream or blob are moved at once.
const chunk = 64 << 10

// connect makes the carrier of a program that ds has started: frames on DS_HOST_FD.
func connect() (hostabi.Session, error) {
	n, err := strconv.ParseUint(env("DS_HOST_FD"), 10, 63)
	if err != nil {
		return nil, noHost()
	}
	f, err := hostFile(uintptr(n))
	if err != nil {
		return nil, noHost()
	}
	return frame.NewConn(f), nil
}

func env(name string) string { return os.Getenv(name) }
