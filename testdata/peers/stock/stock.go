// Package stock is what gphost, gpplugin and grpcecho share: the service that both sides of a contender speak
// and the loop that measures calls. The messages are protobuf's well-known wrappers, so nothing is generated.
package stock

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Key is what a guest asks for; its length is that of the keys in the contract's rows.
const Key = "settings.guest.v"

// Handshake is of gphost and gpplugin.
var Handshake = plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "PEERS_COOKIE", MagicCookieValue: "peers"}

// Config answers a key with a value, as Config.Get of ds does.
type Config interface {
	Get(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
}

// Value serves a value of so many bytes.
type Value int

// Get implements Config.
func (v Value) Get(_ context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	if in.GetValue() != Key {
		return nil, fmt.Errorf("no key %q", in.GetValue())
	}
	return wrapperspb.String(strings.Repeat("x", int(v))), nil
}

// Register makes s serve c.
func Register(s grpc.ServiceRegistrar, c Config) { s.RegisterService(&configService, c) }

var configService = grpc.ServiceDesc{ServiceName: "peers.Config", HandlerType: (*Config)(nil), Methods: []grpc.MethodDesc{{
	MethodName: "Get",
	Handler: func(srv any, ctx context.Context, dec func(any) error, mw grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := dec(in); err != nil {
			return nil, err
		}
		if mw == nil {
			return srv.(Config).Get(ctx, in)
		}
		return mw(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/peers.Config/Get"}, func(ctx context.Context, req any) (any, error) {
			return srv.(Config).Get(ctx, req.(*wrapperspb.StringValue))
		})
	},
}}, Streams: []grpc.StreamDesc{readDesc}}

// Get asks conn for the value.
func Get(ctx context.Context, conn grpc.ClientConnInterface) (string, error) {
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, "/peers.Config/Get", wrapperspb.String(Key), out)
	return out.GetValue(), err
}

// Measure makes n calls in blocks of 100 and says how long one call of the median block took, in the words
// that the harness reads.
func Measure(n int, call func() (string, error)) (string, error) {
	const block = 100
	var times []int64
	bytes := 0
	for done := 0; done < n; done += block {
		at := time.Now()
		for range block {
			v, err := call()
			if err != nil {
				return "", err
			}
			bytes += len(v)
		}
		times = append(times, time.Since(at).Nanoseconds()/block)
	}
	slices.Sort(times)
	return fmt.Sprintf("calls %d bytes %d ns %d\n", len(times)*block, bytes, times[len(times)/2]), nil
}
