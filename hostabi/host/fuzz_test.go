package host_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/host"
)

// FuzzRequest sends any bytes to any method in both encodings: the answer is a reply or one of our errors,
// and never the mark of a panic.
func FuzzRequest(f *testing.F) {
	f.Add(uint8(0), false, []byte(nil))
	f.Add(uint8(3), true, []byte(`{"digest":"sha256:x"}`))
	f.Add(uint8(9), false, []byte{1<<3 | 2, 200, 'a'})
	f.Add(uint8(12), true, []byte(`{"records":[{"message":"\u0000"}]}`))
	fx := newFixture(f)
	methods := fx.Registrar.Methods()
	inv := fx.Invocation()
	box := fx.Box(inv)
	f.Fuzz(func(t *testing.T, method uint8, asJSON bool, body []byte) {
		opened, err := fx.Registrar.Open(fx.Installed, box, inv)
		if err != nil {
			t.Fatal(err)
		}
		s := opened.(*host.Session)
		defer s.Close()
		enc := hostabi.EncProto
		if asJSON {
			enc = hostabi.EncJSON
		}
		name := "/" + methods[int(method)%len(methods)]
		check := func(err error) {
			e, ok := errors.AsType[*hostabi.Error](err)
			if err != nil && (!ok || e.Reason == hostabi.ReasonInternal) {
				t.Errorf("%s %q: %v\n%s", name, body, err, fx.Log)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // subscriptions and polls wait
		defer cancel()
		if !s.Streaming(name) {
			_, err := s.Invoke(ctx, hostabi.Call{Method: name, Enc: enc, Req: body})
			check(err)
			return
		}
		st, err := s.Stream(ctx, name, enc)
		check(err)
		if err := st.Send(body); err != nil && !errors.Is(err, io.EOF) {
			check(err)
		}
		_ = st.CloseSend()
		for {
			if _, err := st.Recv(); err != nil {
				if !errors.Is(err, io.EOF) {
					check(err)
				}
				return
			}
		}
	})
}
