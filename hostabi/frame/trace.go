package frame

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// traceIn tells a frame of the guest; err is why its body was passed over.
func (sv *server) traceIn(f *Frame, err error) {
	if sv.w.trace == nil {
		return
	}
	line := describe("from plugin", f, len(f.Body))
	if err != nil {
		line += " " + string(hostabi.ReasonOf(err))
	}
	sv.w.trace(line)
}

// traceOut tells an encoded frame of the host.
func (w *writer) traceOut(b []byte) {
	if w.trace == nil {
		return
	}
	if f, err := Decode(bytes.NewReader(b), nil); err == nil {
		w.trace(describe("to plugin", &f, len(f.Body)))
	}
}

// describe is one line about f, whose body has n bytes. The method is what the guest sent.
func describe(direction string, f *Frame, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: id %d", direction, f.ID)
	if f.Method != "" {
		fmt.Fprintf(&b, " %q", f.Method)
	}
	switch {
	case f.Flags&FlagAck != 0:
		fmt.Fprintf(&b, " ACK %d", f.Code)
	case f.Flags&FlagEnd != 0 && direction == "to plugin":
		fmt.Fprintf(&b, " END %s", hostabi.Code(f.Code))
	case f.Flags&FlagEnd != 0:
		b.WriteString(" END")
	}
	if f.Flags&FlagCancel != 0 {
		b.WriteString(" CANCEL")
	}
	if f.Flags&FlagFD != 0 {
		b.WriteString(" FD")
	}
	if n > 0 {
		fmt.Fprintf(&b, " %d bytes", n)
		if f.Enc == hostabi.EncJSON {
			b.WriteString(" of JSON")
		}
	}
	return b.String()
}
