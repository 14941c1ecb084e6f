// Command starter is the smallest plugin that can make a host call: what BenchmarkStart starts.
package main

import (
	"context"
	"os"
	"strconv"
	"syscall"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
)

func main() {
	if len(os.Args) < 2 {
		return
	}
	fd, err := strconv.Atoi(os.Getenv("DS_HOST_FD"))
	if err != nil {
		os.Exit(1)
	}
	syscall.CloseOnExec(fd)
	conn := frame.NewConn(os.NewFile(uintptr(fd), "host"))
	reply, err := conn.Invoke(context.Background(), hostabi.Call{Method: "/ds.host.v1.Test/Echo", Enc: hostabi.EncProto, Req: []byte("x")})
	if err != nil || string(reply) != "x" {
		os.Exit(1)
	}
}
