package host_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
	"github.com/delivery-station/ds/hostabi/hostv1"
)

// benchSession serves Config with one value of n bytes, and Log for a call without a right to check.
func benchSession(b testing.TB, n int) (s hostabi.Session, req []byte) {
	r := host.New(host.Options{})
	hostv1.RegisterConfigServer(r, host.NewConfig(oneValue{hostabi.ConfigValue{Key: "settings.kit.k", JSON: strings.Repeat("x", n)}}))
	hostv1.RegisterLogServer(r, host.NewLog())
	f := newFixture(b)
	inv := f.Invocation()
	s, err := r.Open(f.Installed, f.Grant(f.Installed, inv, scopes{hostabi.ConfigRead: only("own")}), inv)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	if req, err = proto.Marshal(&hostv1.GetConfigRequest{Key: "settings.kit.k"}); err != nil {
		b.Fatal(err)
	}
	return s, req
}

// oneValue is a configuration of one value.
type oneValue struct{ v hostabi.ConfigValue }

func (o oneValue) Get(context.Context, hostabi.PluginName, string) (hostabi.ConfigValue, error) {
	return o.v, nil
}

func (o oneValue) List(context.Context, hostabi.PluginName, string) ([]hostabi.ConfigValue, error) {
	return []hostabi.ConfigValue{o.v}, nil
}

// BenchmarkInvoke is the host's half of rows H6 and H7 of performance.md: "gate" checks a right and calls an
// owner, "free" needs no right.
func BenchmarkInvoke(b *testing.B) {
	s, req := benchSession(b, 64)
	dst := make([]byte, 0, 1024)
	for name, c := range map[string]hostabi.Call{
		"gate": {Method: hostv1.Config_Get_FullMethodName, Req: req, Dst: dst}, "free": {Method: hostv1.Log_Write_FullMethodName, Dst: dst},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Invoke(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestInvokeAllocations is row H6: a call of 64 bytes costs at most six allocations in the host.
func TestInvokeAllocations(t *testing.T) {
	s, req := benchSession(t, 64)
	dst := make([]byte, 0, 1024)
	got := testing.AllocsPerRun(1000, func() {
		if _, err := s.Invoke(t.Context(), hostabi.Call{Method: hostv1.Config_Get_FullMethodName, Req: req, Dst: dst}); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v allocations", got)
	if got > 6 && !raceEnabled {
		t.Errorf("%v allocations a call, at most 6", got)
	}
}

func BenchmarkStream(b *testing.B) {
	f := newFixture(b)
	s := f.open(nil, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := listKeys(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
}
