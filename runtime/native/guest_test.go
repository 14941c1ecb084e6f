//go:build unix

package native_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/term"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
)

// TestMain makes the test binary every program of these tests: the tests themselves, a plugin (argv[0] is
// ds-NAME, and NAME says what it does), a worker (argv[0] is ds) and a process that runs the backend like ds
// does (DS_TEST_PARENT).
func TestMain(m *testing.M) {
	name, isGuest := strings.CutPrefix(filepath.Base(os.Args[0]), "ds-")
	switch {
	case isGuest && name == "sdk":
		serveSDK()
	case isGuest && strings.HasPrefix(name, "gp"):
		serveGoPlugin(name)
	case isGuest:
		syscall.Exit(guest(name, os.Args[1:])) // without the coverage data of os.Exit
	case os.Args[0] == "ds":
		syscall.Exit(worker(os.Args[1:]))
	case os.Getenv("DS_TEST_PARENT") != "":
		syscall.Exit(parent())
	}
	code := m.Run()
	removeStubs()
	os.Exit(code)
}

// guest is a plugin in mode direct.
func guest(name string, args []string) int {
	switch name {
	case "exit":
		n, _ := strconv.Atoi(args[0])
		return n
	case "die":
		n, _ := strconv.Atoi(args[0])
		signal.Reset()
		_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
		select {}
	case "argv":
		for _, a := range os.Args {
			fmt.Println(hex.EncodeToString([]byte(a)))
		}
	case "env":
		fmt.Print(strings.Join(os.Environ(), "\n"))
	case "flood":
		n, _ := strconv.ParseInt(args[0], 10, 64)
		if _, err := io.CopyN(os.Stdout, noise(), n); err != nil {
			return 1
		}
	case "noise": // n lines to stderr and stdout in turn
		n, _ := strconv.Atoi(args[0])
		for i := range n {
			fmt.Fprintln(os.Stdout, "out", i)
			fmt.Fprintln(os.Stderr, "err", i)
		}
	case "tty":
		fmt.Printf("%t%t%t", isTTY(0), isTTY(1), isTTY(2))
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			return 1
		}
	case "quiet":
	case "cat-file":
		b, err := os.ReadFile(args[0])
		if err != nil {
			return 1
		}
		fmt.Printf("%s", b)
	case "probe":
		return probe(args)
	case "dir":
		wd, _ := os.Getwd()
		fmt.Print(wd)
	case "wait": // dies of the first signal
		ready()
		select {}
	case "deaf": // to TERM
		signal.Ignore(syscall.SIGTERM)
		ready()
		select {}
	case "interrupts": // counts INT
		c := make(chan os.Signal, 8)
		signal.Notify(c, syscall.SIGINT)
		ready()
		<-c
		n, late := 1, time.After(300*time.Millisecond)
		for {
			select {
			case <-c:
				n++
			case <-late:
				return 10 + n
			}
		}
	case "child": // leaves one behind that holds the streams
		if !leaveChild() {
			return 1
		}
		fmt.Print("parent done")
		return 7
	case "child-noise": // the child writes after the end of its parent
		cmd := exec.Command("/bin/sh", "-c", "sleep 0.1; echo late; sleep 30")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if cmd.Start() != nil {
			return 1
		}
	case "call":
		return callHost(args)
	case "bad":
		return badGuest(args[0])
	case "preface":
		f := os.NewFile(envFD("DS_HOST_FD"), "host")
		_, _ = f.WriteString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		_, _ = io.Copy(io.Discard, f)
	case "lifeline": // ends when the host does
		ready()
		f := os.NewFile(envFD("DS_CTL_FD"), "ctl")
		_, _ = f.Read(make([]byte, 1))
		runtime.KeepAlive(f)
		return 9
	case "files":
		entries, _ := os.ReadDir("/proc/self/fd")
		for _, e := range entries {
			target, err := os.Readlink("/proc/self/fd/" + e.Name())
			if err == nil && !strings.HasPrefix(target, "/proc/") {
				fmt.Println(e.Name(), target)
			}
		}
	case "closer": // of everything it was given
		for fd := range 5 {
			_ = syscall.Close(fd)
		}
		return 6
	case "rundir":
		dir := os.Getenv("DS_RUN_DIR")
		_ = os.WriteFile(filepath.Join(os.Getenv("TMPDIR"), "x"), nil, 0o600)
		_ = os.Mkdir(filepath.Join(dir, "tmp", "locked"), 0o700)
		_ = os.WriteFile(filepath.Join(dir, "tmp", "locked", "y"), nil, 0o600)
		_ = os.Chmod(filepath.Join(dir, "tmp", "locked"), 0)
		fmt.Print(dir)
	}
	return 0
}

func ready() { fmt.Println("ready", os.Getpid()) }

// leaveChild starts a child that holds our streams for half a minute.
func leaveChild() bool {
	cmd := exec.Command("/bin/sleep", "30")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Start() == nil
}

func envFD(name string) uintptr {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		return ^uintptr(0)
	}
	return uintptr(n)
}

// callHost makes one call with each encoding over DS_HOST_FD and prints the replies.
func callHost(args []string) int {
	fd := envFD("DS_HOST_FD")
	syscall.CloseOnExec(int(fd))
	_ = syscall.SetNonblock(int(fd), true) // so that Close ends a Read
	conn := frame.NewConn(os.NewFile(fd, "host"))
	defer conn.Close()
	for _, enc := range []hostabi.Encoding{hostabi.EncProto, hostabi.EncJSON} {
		reply, err := conn.Invoke(context.Background(), hostabi.Call{Method: "/ds.host.v1.Test/Echo", Enc: enc, Req: []byte(args[0])})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Printf("%s\n", reply)
	}
	return 0
}

func isTTY(fd int) bool {
	return term.IsTerminal(fd)
}

// noise is an endless stream of bytes, the same each time.
func noise() io.Reader {
	var seed [32]byte
	return rand.NewChaCha8(seed)
}

// worker is the other side of Backend.Worker.
func worker(args []string) int {
	switch args[0] {
	case "echo":
		fmt.Print(len(os.Environ()), " ")
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case "fail":
		fmt.Fprintln(os.Stderr, "no such thing\nmore")
		return 3
	case "loop":
		for i := uint64(0); ; i++ {
			if i == 1<<63 {
				break
			}
		}
	case "reach": // what it can of: a file to write, a file to read, a program
		for i, try := range []func() error{
			func() error { return os.WriteFile(args[1], []byte("x"), 0o600) },
			func() error { _, err := os.ReadFile(args[2]); return err },
			func() error { return exec.Command(args[3]).Run() },
			func() error { _, err := net.Dial("unix", "/nowhere"); return err },
		} {
			if err := try(); err == nil {
				fmt.Print(i)
			} else if errors.Is(err, os.ErrPermission) {
				fmt.Print("-")
			} else {
				fmt.Print("?")
			}
		}
	case "hang":
		select {}
	case "eat":
		var all [][]byte
		for {
			b := make([]byte, 16<<20)
			for i := range b {
				b[i] = byte(i)
			}
			all = append(all, b)
			if len(all) > 1<<20 {
				return 0
			}
		}
	case "flood":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<20)); err != nil {
				return 1
			}
		}
	}
	return 0
}

// parent runs one plugin the way ds does: streams and signals are its own. DS_TEST_PARENT is mode, name and
// arguments, separated by spaces.
func parent() int {
	words := strings.Fields(os.Getenv("DS_TEST_PARENT"))
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
	c := call{
		mode: words[0], name: words[1], args: words[2:], stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		signals: signals, env: os.Environ(), rundir: os.Getenv("DS_TEST_RUNDIR"),
	}
	if words := os.Getenv("DS_TEST_CONFINE"); words != "" {
		c.hold(words)
	}
	code, signal, err := c.do(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	_ = signal
	return code
}
