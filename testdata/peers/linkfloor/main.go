// Command linkfloor is L of the performance contract: it links the third-party packages of ds and does
// nothing. With arguments it then runs that program (L+raw). A test of internal/bench compares its imports
// with what ds links.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	_ "github.com/Masterminds/semver/v3"
	_ "github.com/gofrs/flock"
	_ "github.com/hashicorp/go-hclog"
	_ "github.com/hashicorp/go-plugin"
	_ "github.com/hashicorp/go-plugin/runner"
	_ "github.com/itchyny/gojq"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/knadh/koanf/maps"
	_ "github.com/knadh/koanf/v2"
	_ "github.com/nats-io/nats.go"
	_ "github.com/nats-io/nats.go/jetstream"
	_ "github.com/opencontainers/go-digest"
	_ "github.com/opencontainers/image-spec/specs-go"
	_ "github.com/opencontainers/image-spec/specs-go/v1"
	_ "github.com/pelletier/go-toml/v2"
	_ "github.com/spf13/cobra"
	_ "github.com/spf13/pflag"
	_ "github.com/tetratelabs/wazero"
	_ "github.com/tetratelabs/wazero/api"
	_ "github.com/tetratelabs/wazero/experimental"
	_ "github.com/tetratelabs/wazero/experimental/sys"
	_ "github.com/tetratelabs/wazero/experimental/sysfs"
	_ "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	_ "github.com/tetratelabs/wazero/sys"
	_ "github.com/vbauerster/mpb/v8"
	_ "github.com/vbauerster/mpb/v8/decor"
	_ "go.yaml.in/yaml/v4"
	_ "golang.org/x/net/http/httpproxy"
	_ "golang.org/x/net/idna"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "golang.org/x/text/unicode/norm"
	_ "google.golang.org/genproto/googleapis/rpc/status"
	_ "google.golang.org/grpc"
	_ "google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/mem"
	_ "google.golang.org/grpc/metadata"
	_ "google.golang.org/grpc/status"
	_ "google.golang.org/protobuf/encoding/protojson"
	_ "google.golang.org/protobuf/proto"
	_ "google.golang.org/protobuf/reflect/protoreflect"
	_ "google.golang.org/protobuf/runtime/protoimpl"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "oras.land/oras-go/v2/content"
	_ "oras.land/oras-go/v2/errdef"
	_ "oras.land/oras-go/v2/registry"
	_ "oras.land/oras-go/v2/registry/remote"
	_ "oras.land/oras-go/v2/registry/remote/auth"
	_ "oras.land/oras-go/v2/registry/remote/credentials"
	_ "oras.land/oras-go/v2/registry/remote/errcode"
)

func main() {
	if len(os.Args) < 2 {
		return
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "linkfloor:", err)
		os.Exit(1)
	}
}
