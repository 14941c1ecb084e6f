//go:build unix

package native_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
	"github.com/delivery-station/ds/hostabi/hostv1lite"
)

// wire is the guest's end of DS_HOST_FD, frame by frame.
type wire struct{ *os.File }

func (w wire) send(f frame.Frame) { w.raw(frame.Append(nil, &f)) }

func (w wire) raw(b []byte) {
	if _, err := w.Write(b); err != nil {
		fmt.Println("write:", err)
	}
}

// answer reads one frame, and prints its id and what it says unless it is an ACK.
func (w wire) answer() (f frame.Frame, ok bool) {
	for {
		f, err := frame.Decode(w, nil)
		switch {
		case err != nil:
			fmt.Println("closed")
			return f, false
		case f.Flags&frame.FlagAck != 0:
			continue
		case f.Code != 0:
			fmt.Println(f.ID, hostabi.ParseStatus(f.Body).Reason)
		default:
			fmt.Println(f.ID, "ok")
		}
		return f, true
	}
}

// wait passes over everything that comes before the answer to id.
func (w wire) wait(id uint32) {
	for {
		f, err := frame.Decode(w, nil)
		if err != nil || f.ID == id {
			fmt.Println(f.ID, err == nil)
			return
		}
	}
}

// startOf is the first message of a call of another plugin.
func startOf(name string) []byte {
	return (&hostv1lite.CallRequest{Start: &hostv1lite.CallStart{Plugin: name, Command: "run"}}).AppendProto(nil)
}

// badGuest does one thing that no plugin should do, and prints what it got for it.
func badGuest(what string) int {
	w := wire{os.NewFile(envFD("DS_HOST_FD"), "host")}
	describe := func(id uint32, body []byte) {
		w.send(frame.Frame{ID: id, Flags: frame.FlagEnd, Method: hostv1lite.MetaDescribe, Body: body})
	}
	switch what {
	case "lying-length": // announces a mebibyte, brings ten bytes
		f := frame.Append(nil, &frame.Frame{ID: 1, Flags: frame.FlagEnd, Method: hostv1lite.MetaDescribe, Body: make([]byte, 10)})
		binary.LittleEndian.PutUint32(f[12:], 1<<20)
		w.raw(f)
	case "4MiB+1":
		describe(1, make([]byte, hostabi.MaxMessage+1))
		w.answer()
		describe(2, nil)
		w.answer()
	case "unknown-encoding":
		w.send(frame.Frame{Enc: 7, ID: 1, Flags: frame.FlagEnd, Method: hostv1lite.MetaDescribe})
		w.answer()
		w.answer()
		return 5 // it keeps running
	case "interleaved-ids":
		interleaved(w)
	case "closed-fds": // while a call is on its way
		describe(1, nil)
		for fd := range 5 {
			_ = syscall.Close(fd)
		}
		return 6
	case "foreign-handle":
		said := make(map[hostabi.Reason]bool)
		for h := range uint32(64) {
			w.send(frame.Frame{ID: h + 1, Flags: frame.FlagEnd, Method: hostv1lite.CacheClose, Body: (&hostv1lite.HandleRef{Handle: h + 1}).AppendProto(nil)})
			f, err := frame.Decode(w, nil)
			if err != nil {
				return 1
			}
			said[hostabi.ParseStatus(f.Body).Reason] = true
		}
		fmt.Println(len(said), said[hostabi.ReasonBadHandle])
	case "never-reads": // as many listings as there may be, and not one byte of them
		for id := range uint32(hostabi.MaxStreams) {
			w.send(frame.Frame{ID: id + 1, Flags: frame.FlagEnd, Method: hostv1lite.StateList, Body: (&hostv1lite.ListStateRequest{Prefix: "big/"}).AppendProto(nil)})
		}
		return 3
	case "dies-midstream":
		w.send(frame.Frame{ID: 1, Method: hostv1lite.PluginsCall, Body: startOf("sleep")})
		describe(2, nil)
		w.wait(2)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "grandchild": // has every descriptor, also the host's
		cmd := exec.Command("/bin/sleep", "60")
		cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{w.File}
		if err := cmd.Start(); err != nil {
			return 1
		}
		fmt.Println(cmd.Process.Pid)
		return 7
	case "message-on-stderr":
		fmt.Fprintln(os.Stderr, `{"@message":1}`)
	case "long-line":
		fmt.Println(strings.Repeat("x", longLine))
	}
	return 0
}

const longLine = 70_000

// interleaved has two plugins answer at once, their frames mixed with each other and with a call.
func interleaved(w wire) {
	input := func(id uint32, text string) {
		w.send(frame.Frame{ID: id, Body: (&hostv1lite.CallRequest{Stdin: []byte(text)}).AppendProto(nil)})
	}
	w.send(frame.Frame{ID: 1, Method: hostv1lite.PluginsCall, Body: startOf("cat")})
	w.send(frame.Frame{ID: 2, Method: hostv1lite.PluginsCall, Body: startOf("cat")})
	input(2, "b")
	input(1, "a")
	w.send(frame.Frame{ID: 3, Flags: frame.FlagEnd, Method: hostv1lite.MetaDescribe})
	input(2, "B")
	input(1, "A")
	w.send(frame.Frame{ID: 2, Flags: frame.FlagEnd})
	w.send(frame.Frame{ID: 1, Flags: frame.FlagEnd})
	out, ended := make(map[uint32]string), 0
	for ended < 3 {
		f, err := frame.Decode(w, nil)
		if err != nil {
			fmt.Println("closed")
			return
		}
		var e hostv1lite.CallEvent
		if f.Flags&frame.FlagAck == 0 && f.ID != 3 && e.ParseProto(f.Body) == nil {
			out[f.ID] += string(e.Stdout)
		}
		if f.Flags&frame.FlagEnd != 0 {
			out[f.ID] += fmt.Sprint(" code ", f.Code)
			ended++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(out)) {
		fmt.Println(id, out[id])
	}
}
