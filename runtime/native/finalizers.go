package native

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/runtime/native/legacyv1"
)

const (
	defaultFinalizer = "upload" // operation of a finalizer that names none
	maxFinalizers    = 64
)

// finalizer is a plugin that runs after one of protocol 1 has succeeded. Plugins take them from annotations of
// what they pulled, so a stranger wrote them.
type finalizer struct {
	name, operation string
	args            []string
}

// finalize runs what the plugin asked for, through the gate of its own session: each needs plugins.call. What
// goes wrong is a warning, because the plugin itself has succeeded.
func (r *run) finalize(ctx context.Context, wanted []*legacyv1.Finalizer) {
	list := r.chosenFinalizers(wanted)
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := r.cancelOnInterrupt(cancel)
	defer stop()
	for _, f := range list {
		code, err := r.callPlugin(ctx, f)
		what := f.name + "/" + f.operation
		e, _ := errors.AsType[*hostabi.Error](err)
		switch {
		case ctx.Err() != nil:
			return
		case e != nil && e.Code == hostabi.PermissionDenied && e.Fix != "":
			r.say("warning: finalizer %s skipped; to allow: %s", clip(what), printable(e.Fix))
		case err != nil:
			r.say("warning: finalizer %s skipped: %s", clip(what), clip(err.Error()))
		case code != 0:
			r.say("warning: finalizer %s ended with exit status %d", clip(what), code)
		}
	}
}

// chosenFinalizers leaves out the plugin itself, repetitions and what has no name.
func (r *run) chosenFinalizers(wanted []*legacyv1.Finalizer) []finalizer {
	var out []finalizer
	for _, w := range wanted {
		f := finalizer{
			name: strings.ToLower(strings.TrimSpace(w.GetName())), operation: strings.ToLower(strings.TrimSpace(w.GetOperation())), args: finalizerWords(w.GetArgs()),
		}
		if f.operation == "" {
			f.operation = defaultFinalizer
		}
		same := func(o finalizer) bool {
			return o.name == f.name && o.operation == f.operation && slices.Equal(o.args, f.args)
		}
		if f.name == "" || f.name == string(r.p.Name) || len(out) == maxFinalizers || slices.ContainsFunc(out, same) {
			continue
		}
		out = append(out, f)
	}
	return out
}

// finalizerWords are the pairs of protocol 1 as words that every plugin understands: key=v becomes --key=v. A
// word that would be taken for a flag comes after --.
func finalizerWords(args []string) []string {
	var flags, words []string
	for _, a := range args {
		a = strings.TrimSpace(a)
		if i := strings.IndexByte(a, '='); i > 0 && a[0] != '-' {
			flags = append(flags, "--"+a)
		} else if a != "" {
			words = append(words, a)
		}
	}
	if slices.ContainsFunc(words, func(w string) bool { return w[0] == '-' }) {
		flags = append(flags, "--")
	}
	return append(flags, words...)
}

// cancelOnInterrupt gives the run's signals the meaning that they have while ds itself is at work. stop waits
// for its goroutine.
func (r *run) cancelOnInterrupt(cancel func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for signals := r.inv.Signals; ; {
			select {
			case sig, ok := <-signals:
				if !ok {
					signals = nil
				} else if sig == os.Interrupt {
					cancel()
				}
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// callPlugin calls one plugin with the streams of this run.
func (r *run) callPlugin(ctx context.Context, f finalizer) (code int32, err error) {
	stream, err := r.session.Stream(ctx, hostv1.Plugins_Call_FullMethodName, hostabi.EncProto)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := stream.Close(); err == nil {
			err = cerr
		}
	}()
	start, err := proto.Marshal(&hostv1.CallRequest{Msg: &hostv1.CallRequest_Start{Start: &hostv1.CallStart{
		Plugin: f.name, Command: f.operation, Args: f.args, InheritStdout: true, InheritStderr: true,
	}}})
	if err != nil {
		return 0, err
	}
	if err := stream.Send(start); err != nil {
		return 0, err
	}
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	for {
		b, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return code, nil
		}
		if err != nil {
			return 0, err
		}
		event := &hostv1.CallEvent{}
		if err := proto.Unmarshal(b, event); err != nil {
			return 0, err
		}
		if x := event.GetExit(); x != nil { // the callee writes to our own streams
			code = x.GetCode()
		}
	}
}
