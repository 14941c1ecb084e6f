package dstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// ScriptPrograms are programs that scripts have beside ds, for testscript.Main:
//
//	pty [TEXT ANSWER]... -- PROGRAM ARGS...   run PROGRAM on a terminal of its own; when TEXT appears, type
//	                                          ANSWER (\n and \x03 are understood). stdout is what was shown.
//	signal NAME TEXT PROGRAM ARGS...          run PROGRAM; when TEXT appears on its stdout, send the signal
//
// Both exit as PROGRAM does, 128+n if a signal killed it.
func ScriptPrograms() map[string]func() {
	return map[string]func(){
		"pty":    func() { os.Exit(onTerminal(os.Args[1:])) },
		"signal": func() { os.Exit(signalled(os.Args[1:])) },
	}
}

// patience is how long a program may take; then it is killed and the script fails.
const patience = time.Minute

// watcher copies to w and calls then once when text has passed.
type watcher struct {
	w    io.Writer
	text string
	then func()
	seen bytes.Buffer
	once sync.Once
}

func (x *watcher) Write(b []byte) (int, error) {
	x.seen.Write(b)
	if bytes.Contains(x.seen.Bytes(), []byte(x.text)) {
		x.once.Do(x.then)
	}
	return x.w.Write(b)
}

func onTerminal(args []string) int {
	var texts, answers []string
	for len(args) > 2 && args[0] != "--" {
		answer, err := strconv.Unquote(`"` + args[1] + `"`)
		if err != nil {
			return fail(err)
		}
		texts, answers, args = append(texts, args[0]), append(answers, answer), args[2:]
	}
	if len(args) < 2 || args[0] != "--" {
		return fail(errors.New("usage: pty [TEXT ANSWER]... -- PROGRAM [ARG...]"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[1], args[2:]...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 120})
	if err != nil {
		return fail(err)
	}
	var shown bytes.Buffer
	from, buf := 0, make([]byte, 4096)
	for {
		n, err := tty.Read(buf)
		shown.Write(buf[:n])
		for len(texts) > 0 {
			i := strings.Index(shown.String()[from:], texts[0])
			if i < 0 {
				break
			}
			from += i + len(texts[0])
			if _, err := io.WriteString(tty, answers[0]); err != nil {
				return fail(err)
			}
			texts, answers = texts[1:], answers[1:]
		}
		if err != nil { // EIO: the last program has closed the terminal
			break
		}
	}
	_, _ = os.Stdout.WriteString(strings.ReplaceAll(shown.String(), "\r\n", "\n"))
	if code := ended(cmd); len(texts) == 0 {
		return code
	}
	return fail(fmt.Errorf("%q did not appear", texts[0]))
}

func signalled(args []string) int {
	names := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}
	if len(args) < 3 || names[args[0]] == 0 {
		return fail(errors.New("usage: signal TERM|INT|HUP|KILL TEXT PROGRAM [ARG...]"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[2], args[3:]...)
	cmd.WaitDelay = time.Second
	started := make(chan struct{})
	cmd.Stdout = &watcher{w: os.Stdout, text: args[1], then: func() {
		<-started
		_ = cmd.Process.Signal(names[args[0]]) // it may have ended
	}}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	close(started)
	return ended(cmd)
}

// ended waits and is the exit code as a shell would give it.
func ended(cmd *exec.Cmd) int {
	err := cmd.Wait()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return exitCode(e.ProcessState)
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 99
}
