// Command grpcecho is the contender of the host call rows: grpc-go unary calls on a unix socket between two
// processes. It starts itself as the server, makes -calls calls and prints how long one took. With -read it is the
// contender of the blob rows: it takes so many bytes from a server stream of chunks.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/delivery-station/ds/testdata/peers/stock"
)

func main() {
	calls := flag.Int("calls", 20000, "calls to make")
	size := flag.Int("size", 64, "bytes of the reply")
	read := flag.Int("read", 0, "bytes to take from a stream instead")
	chunk := flag.Int("chunk", 256<<10, "bytes of its messages")
	serve := flag.String("serve", "", "be the server on this socket")
	flag.Parse()
	measure := func(ctx context.Context, conn *grpc.ClientConn) (string, error) {
		return stock.Measure(*calls, func() (string, error) { return stock.Get(ctx, conn) })
	}
	if *read > 0 {
		measure = func(ctx context.Context, conn *grpc.ClientConn) (string, error) {
			return stock.MeasureRead(ctx, conn, *read, *chunk)
		}
	}
	err := run(context.Background(), *serve, *size, measure)
	if err != nil {
		fmt.Fprintln(os.Stderr, "grpcecho:", err)
		os.Exit(1)
	}
}

type measurement func(ctx context.Context, conn *grpc.ClientConn) (string, error)

func run(ctx context.Context, serve string, size int, measure measurement) error {
	if serve != "" {
		return server(serve, size)
	}
	dir, err := os.MkdirTemp("", "grpcecho-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return client(ctx, filepath.Join(dir, "s"), size, measure)
}

// server serves until its stdin ends and says on stdout when it listens.
func server(socket string, size int) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	stock.Register(s, stock.Value(size))
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		s.Stop()
	}()
	fmt.Println("ready")
	return s.Serve(l)
}

func client(ctx context.Context, socket string, size int, measure measurement) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-serve", socket, "-size", fmt.Sprint(size))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	text, err := measure(ctx, conn)
	if err != nil {
		return err
	}
	_, err = fmt.Print(text)
	return err
}
