//go:build unix

package native_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	hclog "github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/delivery-station/ds/hostabi/hostv1"
)

// serveGoPlugin is a plugin in mode goplugin: gp is a stock Go server, the others do one thing wrong.
func serveGoPlugin(name string) {
	dir := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	switch name {
	case "gp":
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig: goplugin.HandshakeConfig{
				MagicCookieKey: "DS_PLUGIN_MAGIC_COOKIE", MagicCookieValue: "delivery-station-plugin",
			},
			VersionedPlugins: map[int]goplugin.PluginSet{2: {"ds-plugin": &served{}}},
			GRPCServer:       goplugin.DefaultGRPCServer,
			Logger:           hclog.NewNullLogger(),
		})
	case "gp-one": // protocol 1, but nothing of ds
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig: goplugin.HandshakeConfig{
				MagicCookieKey: "DS_PLUGIN_MAGIC_COOKIE", MagicCookieValue: "delivery-station-plugin", ProtocolVersion: 1,
			},
			Plugins:    goplugin.PluginSet{"ds-plugin": &served{}},
			GRPCServer: goplugin.DefaultGRPCServer,
			Logger:     hclog.NewNullLogger(),
		})
	case "gp-probe": // words come with RunStart, which this one does not wait for
		os.Stdout = os.Stderr
		probe(strings.Fields(os.Getenv("LC_PROBE")))
	case "gp-hello":
		fmt.Println("hello world")
		select {}
	case "gp-long":
		fmt.Print(strings.Repeat("x", 5000))
		select {}
	case "gp-netrpc":
		fmt.Println("1|2|unix|" + filepath.Join(dir, "s"))
		select {}
	case "gp-v3":
		fmt.Println("1|3|unix|" + filepath.Join(dir, "s") + "|grpc")
		select {}
	case "gp-v1":
		fmt.Println("1|1|unix|" + filepath.Join(dir, "s") + "|grpc")
		select {}
	case "gp-elsewhere":
		elsewhere, _ := os.MkdirTemp("/tmp", "gp")
		defer os.RemoveAll(elsewhere)
		l, _ := net.Listen("unix", filepath.Join(elsewhere, "s"))
		defer l.Close()
		fmt.Println("1|2|unix|" + l.Addr().String() + "|grpc")
		select {}
	case "gp-silent":
		select {}
	case "gp-closed":
		os.Stdout.Close()
		select {}
	case "gp-early":
		syscall.Exit(3)
	case "gp-early-zero":
		syscall.Exit(0)
	case "gp-early-signal":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "gp-orphan": // ends early and leaves a child with the handshake pipe
		_ = leaveChild()
		syscall.Exit(3)
	case "gp-mute": // a socket that nobody serves
		l, _ := net.Listen("unix", filepath.Join(dir, "s"))
		fmt.Println("1|2|unix|" + l.Addr().String() + "|grpc")
		select {}
	case "gp-bare": // no controller, no broker, no stdio: other languages
		serveBare(dir, "")
	case "gp-cert": // a certificate nobody asked for
		serveBare(dir, "|"+strings.Repeat("A", 200))
	}
	syscall.Exit(0)
}

func serveBare(dir, more string) {
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		syscall.Exit(50)
	}
	g := grpc.NewServer()
	hostv1.RegisterPluginServer(g, &served{})
	fmt.Println("1|2|unix|" + l.Addr().String() + "|grpc" + more)
	_ = g.Serve(l)
}

// served is the plugin; its first argument says what it does.
type served struct {
	goplugin.NetRPCUnsupportedPlugin
	hostv1.UnimplementedPluginServer
	broker *goplugin.GRPCBroker
}

func (p *served) GRPCServer(b *goplugin.GRPCBroker, s *grpc.Server) error {
	p.broker = b
	hostv1.RegisterPluginServer(s, p)
	return nil
}

func (p *served) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func (p *served) Run(stream hostv1.Plugin_RunServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	code, err := p.run(stream, start)
	if err != nil {
		return err
	}
	return stream.Send(&hostv1.RunEvent{Event: &hostv1.RunEvent_Exit{Exit: &hostv1.RunExit{Code: int32(code)}}})
}

func (p *served) run(stream hostv1.Plugin_RunServer, start *hostv1.RunStart) (int, error) {
	say := func(s string) {
		_ = stream.Send(&hostv1.RunEvent{Event: &hostv1.RunEvent_Stdout{Stdout: []byte(s)}})
	}
	args := start.GetArgs()
	switch args[0] {
	case "exit":
		return strconv.Atoi(args[1])
	case "words":
		say(strings.Join(os.Args, ",") + ";" + strings.Join(args, ",") + ";" + start.GetVars()["DS_PLUGIN"])
	case "env":
		say(strings.Join(os.Environ(), "\n"))
	case "flood": // by RunEvents
		n, _ := strconv.ParseInt(args[1], 10, 64)
		r, buf := io.LimitReader(noise(), n), make([]byte, 64<<10)
		for {
			k, err := r.Read(buf)
			if k > 0 {
				_ = stream.Send(&hostv1.RunEvent{Event: &hostv1.RunEvent_Stdout{Stdout: buf[:k]}})
			}
			if err != nil {
				return 0, nil
			}
		}
	case "stdio": // by go-plugin's stdio stream, which has no end mark
		n, _ := strconv.ParseInt(args[1], 10, 64)
		_, _ = io.CopyN(os.Stdout, noise(), n)
	case "raw": // by descriptor 1, the handshake pipe
		n, _ := strconv.ParseInt(args[1], 10, 64)
		_, _ = io.CopyN(os.NewFile(1, "1"), noise(), n)
	case "stderr": // what makes go-plugin's parser panic
		_, _ = os.NewFile(2, "2").WriteString("{\"@message\":1}\nplain\n")
		_ = stream.Send(&hostv1.RunEvent{Event: &hostv1.RunEvent_Stderr{Stderr: []byte("event\n")}})
	case "fds": // the real streams
		var in, out, errs uintptr
		_, _ = fmt.Sscanf(os.Getenv("DS_STDIO_FDS"), "%d,%d,%d", &in, &out, &errs)
		_ = stream.SendHeader(metadata.Pairs("ds-output", "complete"))
		w := os.NewFile(out, "out")
		fmt.Fprintf(w, "%t%t%t", isTTY(int(in)), isTTY(int(out)), isTTY(int(errs)))
		if len(args) > 1 {
			if _, err := io.Copy(w, os.NewFile(in, "in")); err != nil {
				return 0, err
			}
		}
	case "cat":
		_ = stream.SendHeader(metadata.Pairs("ds-stdin", "want"))
		for {
			m, err := stream.Recv()
			if err == io.EOF {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			say(string(m.GetStdin()))
		}
	case "signal":
		say("ready\n")
		for {
			m, err := stream.Recv()
			if err != nil {
				return 0, err
			}
			if n := m.GetSignal(); n != 0 {
				return 40 + int(n), nil
			}
		}
	case "stuck": // ignores everything
		signal.Ignore(syscall.SIGTERM)
		say("ready\n")
		select {}
	case "wait":
		say("ready\n")
		<-stream.Context().Done()
	case "die":
		n, _ := strconv.Atoi(args[1])
		_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
		select {}
	case "os-exit":
		n, _ := strconv.Atoi(args[1])
		syscall.Exit(n)
	case "error":
		return 0, fmt.Errorf("bad\x1b[31m thing")
	case "huge":
		say(strings.Repeat("x", 5<<20))
		select {}
	case "child":
		if !leaveChild() {
			return 1, nil
		}
		return 7, nil
	case "host":
		if p.broker == nil || start.GetHostBrokerId() == 0 {
			say("no host")
			return 0, nil
		}
		conn, err := p.broker.Dial(start.GetHostBrokerId())
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		reply, err := hostv1.NewMetaClient(conn).Describe(stream.Context(), &hostv1.DescribeRequest{})
		if err != nil {
			return 0, err
		}
		say(reply.GetAbi())
	}
	return 0, nil
}
