package goplugin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	hplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/pkg/client"
	"github.com/delivery-station/ds/pkg/client/goplugin"
)

// The test binary is the plugin when its environment says so.
func TestMain(m *testing.M) {
	if os.Getenv("DS_TEST_GUEST") != "" {
		goplugin.Main(app())
	}
	os.Exit(m.Run())
}

func app() client.App {
	cmd := func(name string, run func(ctx context.Context, in *client.Invocation) error) client.Command {
		return client.Command{Name: name, Args: []client.Arg{{Name: "words", Repeat: true}}, Run: run}
	}
	return client.App{Name: "guest", Version: "1.0.0", Commands: []client.Command{
		cmd("say", func(_ context.Context, in *client.Invocation) error {
			fmt.Fprintln(in.Stdout, strings.Join(in.Args, ","), os.Getenv("DS_PLUGIN"))
			fmt.Println("by os.Stdout")
			fmt.Fprintln(os.Stderr, "by os.Stderr")
			return nil
		}),
		cmd("exit", func(context.Context, *client.Invocation) error { return &client.ExitError{Code: 7} }),
		cmd("cat", func(_ context.Context, in *client.Invocation) error {
			_, err := io.Copy(in.Stdout, in.Stdin)
			return err
		}),
		cmd("prompt", func(_ context.Context, in *client.Invocation) error {
			fmt.Fprint(in.Stdout, "name? ")
			b, err := io.ReadAll(in.Stdin)
			fmt.Fprintf(in.Stdout, "hello %s", b)
			return err
		}),
		cmd("config", func(ctx context.Context, in *client.Invocation) error {
			var v string
			if err := in.ConfigValue(ctx, in.Args[0], &v); err != nil {
				return err
			}
			_, err := fmt.Fprint(in.Stdout, v)
			return err
		}),
		cmd("state", func(ctx context.Context, in *client.Invocation) error {
			for e, err := range in.ListState(ctx, "") {
				if err != nil {
					return err
				}
				fmt.Fprint(in.Stdout, e.Key, " ")
			}
			return nil
		}),
		cmd("wait", func(ctx context.Context, in *client.Invocation) error {
			fmt.Fprintln(in.Stdout, "ready")
			<-ctx.Done()
			return ctx.Err()
		}),
	}}
}

// services are what the host offers over the broker.
type services struct {
	hostv1.UnimplementedConfigServer
	hostv1.UnimplementedStateServer
}

func (services) Get(_ context.Context, req *hostv1.GetConfigRequest) (*hostv1.ConfigValue, error) {
	if req.GetKey() != "settings.guest.greeting" {
		e := hostabi.Errorf(hostabi.ReasonCapabilityDenied, "config.read %s", req.GetKey()).WithFix("ds plugin grant")
		return nil, statusOf(e)
	}
	return &hostv1.ConfigValue{Key: req.GetKey(), Json: `"hi"`}, nil
}

type stateService struct {
	hostv1.UnimplementedStateServer
}

func (stateService) List(_ *hostv1.ListStateRequest, out grpc.ServerStreamingServer[hostv1.StateEntry]) error {
	for i := range 40 {
		if err := out.Send(&hostv1.StateEntry{Key: fmt.Sprint("k", i)}); err != nil {
			return err
		}
	}
	return nil
}

type configService struct {
	hostv1.UnimplementedConfigServer
}

func (configService) Get(ctx context.Context, req *hostv1.GetConfigRequest) (*hostv1.ConfigValue, error) {
	return services{}.Get(ctx, req)
}

// statusOf is e as gRPC carries it.
func statusOf(e *hostabi.Error) error {
	st := status.New(codes.Code(e.Code), e.Error()).Proto()
	if err := proto.Unmarshal(e.AppendStatus(nil, hostabi.EncProto), st); err != nil {
		return err
	}
	return status.ErrorProto(st)
}

// peer is the host's side of go-plugin.
type peer struct {
	hplugin.NetRPCUnsupportedPlugin
	broker *hplugin.GRPCBroker
	client hostv1.PluginClient
}

func (*peer) GRPCServer(*hplugin.GRPCBroker, *grpc.Server) error { return errors.New("host") }

func (p *peer) GRPCClient(_ context.Context, b *hplugin.GRPCBroker, cc *grpc.ClientConn) (any, error) {
	p.broker, p.client = b, hostv1.NewPluginClient(cc)
	return p, nil
}

// start starts the guest and opens a Run.
func start(t *testing.T, prepare func(*exec.Cmd), args ...string) (grpc.BidiStreamingClient[hostv1.RunRequest, hostv1.RunEvent], *exec.Cmd) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{"DS_TEST_GUEST=1", "PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + t.TempDir()}
	if prepare != nil {
		prepare(cmd)
	}
	dir, err := os.MkdirTemp("", "ds") // short: a socket path
	if err != nil {
		t.Fatal(err)
	}
	c := hplugin.NewClient(&hplugin.ClientConfig{
		HandshakeConfig:  hplugin.HandshakeConfig{MagicCookieKey: "DS_PLUGIN_MAGIC_COOKIE", MagicCookieValue: "delivery-station-plugin"},
		VersionedPlugins: map[int]hplugin.PluginSet{2: {"ds-plugin": &peer{}}},
		AllowedProtocols: []hplugin.Protocol{hplugin.ProtocolGRPC}, Cmd: cmd, SkipHostEnv: true, Logger: hclog.NewNullLogger(),
		UnixSocketConfig: &hplugin.UnixSocketConfig{TempDir: dir}, StartTimeout: 20 * time.Second,
	})
	t.Cleanup(func() {
		c.Kill()
		os.RemoveAll(dir)
	})
	rpc, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := rpc.Dispense("ds-plugin")
	if err != nil {
		t.Fatal(err)
	}
	p := raw.(*peer)
	id := p.broker.NextId()
	l, err := p.broker.Accept(id)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	hostv1.RegisterConfigServer(srv, configService{})
	hostv1.RegisterStateServer(srv, stateService{})
	go func(l net.Listener) { _ = srv.Serve(l) }(l)
	t.Cleanup(srv.Stop)
	run, err := p.client.Run(t.Context())
	if err == nil {
		err = run.Send(&hostv1.RunRequest{Msg: &hostv1.RunRequest_Start{Start: &hostv1.RunStart{
			Args: args, HostBrokerId: id, Vars: map[string]string{"DS_PLUGIN": "guest"},
		}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return run, cmd
}

// finish collects a Run.
func finish(t *testing.T, run grpc.BidiStreamingClient[hostv1.RunRequest, hostv1.RunEvent]) (stdout, stderr string, code int32) {
	t.Helper()
	for {
		e, err := run.Recv()
		if err != nil {
			t.Fatalf("the run ended without an exit code: %v; stdout %q, stderr %q", err, stdout, stderr)
		}
		switch e := e.GetEvent().(type) {
		case *hostv1.RunEvent_Stdout:
			stdout += string(e.Stdout)
		case *hostv1.RunEvent_Stderr:
			stderr += string(e.Stderr)
		case *hostv1.RunEvent_Exit:
			return stdout, stderr, e.Exit.GetCode()
		}
	}
}

func header(t *testing.T, run grpc.BidiStreamingClient[hostv1.RunRequest, hostv1.RunEvent]) metadata.MD {
	t.Helper()
	md, err := run.Header()
	if err != nil {
		t.Fatal(err)
	}
	return md
}

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		args        []string
		out, stderr string
		code        int32
	}{
		"output of all ways": {[]string{"say", "a", "b"}, "a,b guest\nby os.Stdout\n", "by os.Stderr\n", 0},
		"exit code":          {[]string{"exit"}, "", "", 7},
		"unary call":         {[]string{"config", "settings.guest.greeting"}, "hi", "", 0},
		"denied call": {
			[]string{"config", "settings.other.x"},
			"",
			"Error DS4001: config.read settings.other.x\n  hint   ds plugin grant\n  more   ds explain DS4001\n", 5,
		},
		"server stream": {[]string{"state"}, "k0 k1 k2 k3 k4 k5 k6 k7 k8 k9 k10 k11 k12 k13 k14 k15 k16 k17 k18 k19 k20 k21 k22 k23 k24 k25 k26 k27 k28 k29 k30 k31 k32 k33 k34 k35 k36 k37 k38 k39 ", "", 0},
		"usage":         {[]string{"sya"}, "", "Error DS1002: ds guest has no command \"sya\", the nearest is say\n  hint   ds guest say\n  more   ds explain DS1002\n", 2},
	} {
		t.Run(name, func(t *testing.T) {
			run, _ := start(t, nil, c.args...)
			out, stderr, code := finish(t, run)
			if out != c.out || stderr != c.stderr || code != c.code {
				t.Errorf("got %q, %q, %d\nwant %q, %q, %d", out, stderr, code, c.out, c.stderr, c.code)
			}
			if md := header(t, run); md.Get("ds-output")[0] != "complete" || md.Get("ds-stdin") != nil {
				t.Errorf("header %v", md)
			}
		})
	}
}

func TestStdinByMessages(t *testing.T) {
	for name, want := range map[string]string{"cat": "one two", "prompt": "name? hello one two"} {
		t.Run(name, func(t *testing.T) {
			run, _ := start(t, nil, name)
			if md := header(t, run); len(md.Get("ds-stdin")) != 1 || md.Get("ds-stdin")[0] != "want" {
				t.Fatalf("header %v", md)
			}
			for _, s := range []string{"one ", "two"} {
				if err := run.Send(&hostv1.RunRequest{Msg: &hostv1.RunRequest_Stdin{Stdin: []byte(s)}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := run.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if out, _, code := finish(t, run); out != want || code != 0 {
				t.Errorf("got %q, %d, want %q", out, code, want)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	run, _ := start(t, nil, "wait")
	if e, err := run.Recv(); err != nil || string(e.GetStdout()) != "ready\n" {
		t.Fatalf("%v, %v", e, err)
	}
	if err := run.Send(&hostv1.RunRequest{Msg: &hostv1.RunRequest_Signal{Signal: 2}}); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := finish(t, run); code != 130 || stderr != "" {
		t.Errorf("exit %d, stderr %q, want 130 and nothing", code, stderr)
	}
}

func TestRealStreams(t *testing.T) {
	dir := t.TempDir()
	open := func(name, content string) *os.File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	in, out, errs := open("in", "typed"), open("out", ""), open("err", "")
	run, _ := start(t, func(c *exec.Cmd) {
		c.ExtraFiles = []*os.File{in, out, errs}
		c.Env = append(c.Env, "DS_STDIO_FDS=3,4,5")
	}, "prompt")
	if md := header(t, run); md.Get("ds-output")[0] != "complete" || md.Get("ds-stdin") != nil {
		t.Errorf("header %v", md)
	}
	if events, stderr, code := finish(t, run); events != "" || stderr != "" || code != 0 {
		t.Errorf("got %q, %q, %d, want nothing and 0", events, stderr, code)
	}
	if b, err := os.ReadFile(out.Name()); err != nil || string(b) != "name? hello typed" {
		t.Errorf("stdout has %q, %v", b, err)
	}
}

// TestTerm: SIGTERM reaches the run as a cancelled context, whose result still travels.
func TestTerm(t *testing.T) {
	run, cmd := start(t, nil, "wait")
	if e, err := run.Recv(); err != nil || string(e.GetStdout()) != "ready\n" {
		t.Fatalf("%v, %v", e, err)
	}
	if err := cmd.Process.Signal(term); err != nil {
		t.Skip("no SIGTERM here:", err)
	}
	if _, _, code := finish(t, run); code != 143 {
		t.Errorf("exit %d, want 143", code)
	}
}

// TestDirect: without the handshake the program is an ordinary one.
func TestDirect(t *testing.T) {
	cmd := exec.Command(os.Args[0], "say", "x")
	cmd.Env = []string{"DS_TEST_GUEST=1", "GOCOVERDIR=" + t.TempDir()}
	out, err := cmd.Output()
	if err != nil || string(out) != "x \nby os.Stdout\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
